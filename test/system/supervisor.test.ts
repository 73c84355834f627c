import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { type TestContext, test } from 'node:test'
import type { Child } from '../helpers/system/child.ts'
import { eventually, freePort, startWebPage } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, ROOT, symportEnvironment } from '../helpers/system/symport.ts'

const PAGE = 'behind the node'

interface Ports {
  main: number
  mapped: number
  target: number
}

interface Supervisor {
  daemon: Child
  /** The pid that supervisord knows for a program; undefined while it does not run. */
  pid(program: string): Promise<number | undefined>
}

/** The project's file with other folders, ports and names, and nothing else changed; each must occur in it. */
function shipped(name: string, replacements: Readonly<Record<string, string>>): string {
  let text = readFileSync(`${ROOT}supervisor/${name}`, 'utf8')
  for (const [from, to] of Object.entries(replacements)) {
    assert.ok(text.includes(from), `${name} has ${from}`)
    text = text.replaceAll(from, to)
  }
  return text
}

/** supervisord with Debian's layout below the stage's folder: a conf.d that holds `files`. */
async function startSupervisor(
  stage: Stage,
  programs: { supervisord: string; supervisorctl: string },
  files: Readonly<Record<string, string>>,
): Promise<Supervisor> {
  mkdirSync(stage.path('conf.d'))
  for (const [name, text] of Object.entries(files)) writeFileSync(stage.path('conf.d', name), text)
  const socket = stage.path('supervisor.sock')
  const main = `
[unix_http_server]
file = ${socket}
[supervisord]
nodaemon = true
user = ${userInfo().username}
logfile = ${stage.path('supervisord.log')}
pidfile = ${stage.path('supervisord.pid')}
childlogdir = ${stage.folder}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://${socket}
[include]
files = ${stage.path('conf.d')}/*.conf
`
  const path = stage.path('supervisord.conf')
  writeFileSync(path, main)
  // It ends its programs first, and they may take their time: only it knows them.
  const options = { env: symportEnvironment(stage), graceMs: 60_000, lastSignal: 'SIGTERM' as const }
  const daemon = await stage.start(programs.supervisord, ['--nodaemon', '--configuration', path], options)
  return {
    daemon,
    async pid(program) {
      const { output } = await stage.run(programs.supervisorctl, ['-c', path, 'pid', program])
      const pid = Number(output)
      return Number.isInteger(pid) && pid > 0 ? pid : undefined
    },
  }
}

function running(supervisor: Supervisor, program: string, from = 0): Promise<string> {
  const text = `success: ${program} entered RUNNING state`
  return supervisor.daemon.line((line) => (line.includes(text) ? line : undefined), `"${text}"`, from, 30_000)
}

async function mappingWorks(ports: Ports): Promise<void> {
  await eventually(async () => {
    const response = await fetch(`http://127.0.0.1:${ports.mapped}/`, { signal: AbortSignal.timeout(5_000) })
    assert.equal(await response.text(), PAGE)
  }, 40_000)
}

/** Kills one program as the kernel's memory killer does, and sees it come back. */
async function killed(supervisor: Supervisor, program: string, ports: Ports): Promise<void> {
  const before = await supervisor.pid(program)
  assert.ok(before, `${program} runs`)
  const from = supervisor.daemon.lines.length
  process.kill(before, 'SIGKILL')
  await running(supervisor, program, from)
  const after = await supervisor.pid(program)
  assert.ok(after !== undefined && after !== before, `${program} runs again`)
  await mappingWorks(ports)
}

async function survives(
  t: TestContext,
  server: string,
  node: string,
  files: (stage: Stage, ports: Ports) => Record<string, string>,
): Promise<void> {
  const programs = requirePrograms(t, ['supervisord', 'supervisorctl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const target = await startWebPage(stage, PAGE)
  const ports = { main: await freePort(), mapped: await freePort(), target }
  await stage.must(process.execPath, [CLI, 'launchers', stage.path('bin')], { env: symportEnvironment(stage) })
  const supervisor = await startSupervisor(stage, programs, files(stage, ports))
  await Promise.all([running(supervisor, server), running(supervisor, node)])

  await t.test('the mapping works', () => mappingWorks(ports))
  await t.test('the server is killed: it is started again, and the mapping works again', async () => {
    await killed(supervisor, server, ports)
  })
  await t.test('the node is killed: it is started again, and the mapping works again', async () => {
    await killed(supervisor, node, ports)
  })
  await t.test('supervisord ends both when it is stopped', async () => {
    const pids = [await supervisor.pid(server), await supervisor.pid(node)]
    await supervisor.daemon.stop('SIGTERM', 60_000)
    for (const pid of pids) assert.throws(() => process.kill(Number(pid), 0), { code: 'ESRCH' })
  })
}

test("the project's files for supervisord keep a mapping alive", { timeout: 240_000 }, async (t) => {
  await survives(t, 'symport-server', 'symport-node', (stage, ports) => {
    writeFileSync(stage.path('uuid'), 'a secret for supervisord 0a1b2c3d4e5f\n', { mode: 0o600 })
    const common = {
      '/usr/lib/symport/': `${stage.path('bin')}/`,
      '/var/log/': `${stage.folder}/`,
      '-port 925': `-port ${ports.main}`,
      'user = root': `user = ${userInfo().username}`,
    }
    return {
      'symport-server.conf': shipped('symport-server.conf', {
        ...common,
        ' -listener': ` -uuid-file ${stage.path('uuid')} -listener`,
        '127.0.0.1:13389': `127.0.0.1:${ports.mapped}`,
        '127.0.0.1:3389': `127.0.0.1:${ports.target}`,
      }),
      'symport-node.conf': shipped('symport-node.conf', {
        ...common,
        'server.example.com': 'localhost',
        '-uuid-file /etc/symport/uuid': `-uuid-file ${stage.path('uuid')}`,
      }),
    }
  })
})

test("a file for supervisord with the goproxy seed's flags keeps a mapping alive", { timeout: 240_000 }, async (t) => {
  await survives(t, 'proxys', 'proxyn', (stage, ports) => {
    const listener = `'{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:${ports.mapped}"},"Forward":{"Domain":"tcp", "Addr":"127.0.0.1:${ports.target}"}}'`
    return {
      'proxy.conf': `
[program:proxys]
command         = ${stage.path('bin')}/server -host 0.0.0.0 -port ${ports.main} -uuid testuuid -listener ${listener}
user            = ${userInfo().username}
stdout_logfile  = ${stage.path('proxys')}

[program:proxyn]
command         = ${stage.path('bin')}/node -host 127.0.0.1 -port ${ports.main} -uuid testuuid
user            = ${userInfo().username}
stdout_logfile  = ${stage.path('proxyn')}
`,
    }
  })
})
