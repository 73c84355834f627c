import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { type Child, cleanEnvironment } from './child.ts'
import { answers, eventually, freePort } from './net.ts'
import type { Stage } from './stage.ts'

const SETTINGS = '/etc/xrdp'
const RUN = '/run/xrdp'
/** Above the displays that Xvfb takes by itself. */
const FIRST_DISPLAY = 60

export interface User {
  name: string
  password: string
  home: string
}

export interface Desktop {
  port: number
  /** What xrdp writes down: whose desktop was connected. */
  log: Child
  /** What the session manager writes down: who was let in. */
  sessions: Child
}

export interface DesktopPrograms {
  xrdp: string
  'xrdp-sesman': string
}

/** A user of this machine with a password and a home folder inside the stage's; both are gone after the test. */
export async function makeUser(stage: Stage, useradd: string): Promise<User> {
  const name = `symport-${randomBytes(4).toString('hex')}`
  const home = stage.path('desktop-home')
  const password = randomBytes(12).toString('hex')
  const env = cleanEnvironment({ PATH: `${process.env.PATH}:/usr/sbin:/sbin` })
  await stage.must(useradd, ['--no-create-home', '--home-dir', home, '--shell', '/bin/sh', '--no-log-init', name])
  const id = async (flag: string): Promise<number> => Number(await stage.must('id', [flag, name]))
  const [uid, gid] = [await id('-u'), await id('-g')]
  stage.defer(async () => {
    await endProcesses(stage, name)
    removeDisplays(uid)
    await stage.must('userdel', [name], { env })
  })
  const entry = stage.path('chpasswd')
  writeFileSync(entry, `${name}:${password}\n`, { mode: 0o600 })
  await stage.must('chpasswd', [], { from: entry, env })
  // The session runs as this user, and has to get through to its home.
  chmodSync(stage.folder, 0o711)
  mkdirSync(home)
  chownSync(home, uid, gid)
  return { name, password, home }
}

/** All that runs as the user was started by the user's session, so it is ours to end. */
async function endProcesses(stage: Stage, name: string): Promise<void> {
  await eventually(async () => {
    const { output } = await stage.run('ps', ['-o', 'pid=', '-u', name])
    const pids = output
      .split('\n')
      .map(Number)
      .filter((pid) => pid > 0)
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended meanwhile.
      }
    }
    if (pids.length > 0) throw new Error(`still running as ${name}: ${pids.join(', ')}`)
  })
}

/** An X server that is killed leaves its socket and its lock. */
function removeDisplays(uid: number): void {
  const sockets = readdirSync('/tmp/.X11-unix').map((name) => `/tmp/.X11-unix/${name}`)
  const locks = readdirSync('/tmp')
    .filter((name) => /^\.X\d+-lock$/.test(name))
    .map((name) => `/tmp/${name}`)
  for (const path of [...sockets, ...locks]) {
    if (lstatSync(path, { throwIfNoEntry: false })?.uid === uid) rmSync(path, { force: true })
  }
}

/** The settings in Debian's file with some lines replaced. */
function changed(file: string, values: Readonly<Record<string, string>>): string {
  let text = readFileSync(`${SETTINGS}/${file}`, 'utf8')
  for (const [name, value] of Object.entries(values)) {
    // Only the first: further sections have settings of the same name.
    const line = new RegExp(`^${name}=.*$`, 'm')
    if (!line.test(text)) throw new Error(`${SETTINGS}/${file} has no setting ${name}`)
    text = text.replace(line, `${name}=${value}`)
  }
  return text
}

/** The port where xrdp looks for its session manager: it reads no other file for it than Debian's. */
export function sesmanPort(): number {
  return Number(/^ListenPort=(\d+)/m.exec(readFileSync(`${SETTINGS}/sesman.ini`, 'utf8'))?.[1] ?? 3350)
}

/**
 * xrdp and its session manager with Debian's settings, except for the port, the log, and the desktop: a script that
 * writes down who has signed in (see `signedIn`) and then waits.
 */
export async function startDesktop(stage: Stage, programs: DesktopPrograms): Promise<Desktop> {
  const windowManager = stage.path('desktop')
  writeFileSync(windowManager, '#!/bin/sh\nid -un > "$HOME/signed-in"\nexec sleep 600\n', { mode: 0o755 })
  writeFileSync(
    stage.path('sesman.ini'),
    changed('sesman.ini', {
      EnableUserWindowManager: 'false',
      DefaultWindowManager: windowManager,
      X11DisplayOffset: String(FIRST_DISPLAY),
      LogFile: stage.path('sesman.log'),
      EnableSyslog: 'false',
    }),
  )
  const port = await freePort()
  writeFileSync(
    stage.path('xrdp.ini'),
    changed('xrdp.ini', {
      port: `tcp://.:${port}`,
      LogFile: stage.path('xrdp.log'),
      EnableSyslog: 'false',
    }),
  )
  // systemd makes it for the services.
  if (!existsSync(RUN)) {
    mkdirSync(RUN, { mode: 0o755 })
    stage.defer(() => rmSync(RUN, { recursive: true, force: true }))
  }
  await stage.start(programs['xrdp-sesman'], ['-n', '-c', stage.path('sesman.ini')], { lastSignal: 'SIGTERM' })
  const sessions = await follow(stage, 'sesman.log')
  await sessions.line((line) => (line.includes('starting xrdp-sesman') ? line : undefined), '"starting xrdp-sesman"')
  const xrdp = await stage.start(programs.xrdp, ['-n', '-c', stage.path('xrdp.ini')])
  await eventually(async () => {
    if (!(await answers(port))) throw new Error(`xrdp does not listen on ${port}:\n${xrdp.tail()}`)
  })
  return { port, log: await follow(stage, 'xrdp.log'), sessions }
}

/** The lines of a log file. (On a pipe, xrdp keeps its lines back until it has a block of them.) */
function follow(stage: Stage, name: string): Promise<Child> {
  return stage.start('tail', ['-q', '-n', '+1', '-F', stage.path(name)])
}

/** Who has reached a desktop, by the account of the desktop itself; undefined while nobody has. */
export function signedIn(user: User): string | undefined {
  try {
    const name = readFileSync(`${user.home}/signed-in`, 'utf8').trim()
    return name === '' ? undefined : name
  } catch {
    return undefined
  }
}
