import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { freePort } from './net.ts'
import { isRoot } from './programs.ts'
import type { Stage } from './stage.ts'

export const PASSWORD = 'of the database'

export interface Cluster {
  port: number
  socket: string
}

/** PostgreSQL refuses to run as root: the user that Debian's package made for it. */
async function databaseUser(stage: Stage): Promise<{ uid: number; gid: number } | undefined> {
  if (!isRoot()) return undefined
  const id = async (flag: string): Promise<number> => Number(await stage.must('id', [flag, 'postgres']))
  return { uid: await id('-u'), gid: await id('-g') }
}

/** A database cluster of our own, reachable on 127.0.0.1 and on a Unix socket, in both cases with a password. */
export async function startPostgres(stage: Stage, initdb: string, postgres: string): Promise<Cluster> {
  const user = await databaseUser(stage)
  const folder = stage.path('pg')
  mkdirSync(folder)
  writeFileSync(stage.path('pg', 'password'), `${PASSWORD}\n`)
  if (user) {
    chmodSync(stage.folder, 0o711)
    for (const path of [folder, stage.path('pg', 'password')]) chownSync(path, user.uid, user.gid)
  }
  const data = stage.path('pg', 'data')
  const auth = ['--auth', 'scram-sha-256', '--pwfile', stage.path('pg', 'password')]
  const args = ['-D', data, '-U', 'postgres', '-E', 'UTF8', '--locale', 'C', '--no-sync', ...auth]
  await stage.must(initdb, args, { user, cwd: folder })

  const port = await freePort()
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${folder}`,
    'fsync=off',
    'logging_collector=off',
  ]
  const child = await stage.start(postgres, ['-D', data, ...settings.flatMap((setting) => ['-c', setting])], {
    user,
    cwd: folder,
    // "Fast": ends the clients' sessions instead of waiting for them.
    stopSignal: 'SIGINT',
  })
  await child.line((line) => (line.includes('ready to accept connections') ? line : undefined), '"ready to accept"')
  return { port, socket: stage.path('pg', `.s.PGSQL.${port}`) }
}
