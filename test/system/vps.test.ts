import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Child } from '../helpers/system/child.ts'
import { findProgram, requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, logged, ROOT, symportEnvironment } from '../helpers/system/symport.ts'

const PAGE = readFileSync(`${ROOT}doc/vps.md`, 'utf8')
const [SERVER, VISITOR] = ['192.0.2.1', '192.0.2.2']
const SECRET = 'a secret of the test of a machine of one’s own'

test('the firewall of doc/vps.md leads 80 and 443 to the server, and lets nothing else in', async (t) => {
  const programs = requirePrograms(t, ['curl', 'ip', 'nft', 'nsenter', 'unshare'])
  if (!programs) return
  const stage = new Stage(t)
  const { status, output } = await stage.run(programs.unshare, ['--net', 'true'])
  if (status !== 0) return t.skip(`this system makes no network namespaces: ${output}`)

  // Two machines with a cable between them.
  const sleep = findProgram('sleep') ?? 'sleep'
  const machine = (): Promise<Child> => stage.start(programs.unshare, ['--net', sleep, '120'])
  const [server, visitor] = [await machine(), await machine()]
  const inside = (where: Child): string[] => ['--target', String(where.pid), '--net']
  const on = (where: Child, ...command: string[]): Promise<string> =>
    stage.must(programs.nsenter, [...inside(where), ...command])
  await separated(stage, programs.nsenter, [server, visitor])
  const cable = ['link', 'add', 'left', 'netns', String(server.pid), 'type', 'veth']
  await stage.must(programs.ip, [...cable, 'peer', 'name', 'right', 'netns', String(visitor.pid)])
  for (const [where, device, address] of [
    [server, 'left', SERVER],
    [visitor, 'right', VISITOR],
  ] as const) {
    await on(where, programs.ip, 'link', 'set', 'lo', 'up')
    await on(where, programs.ip, 'address', 'add', `${address}/24`, 'dev', device)
    await on(where, programs.ip, 'link', 'set', device, 'up')
  }

  const [, rules = ''] = /^```\n(#!\/usr\/sbin\/nft.*?)^```/ms.exec(PAGE) ?? []
  writeFileSync(stage.path('nftables.conf'), rules)
  await on(server, programs.nft, '--check', '--file', stage.path('nftables.conf'))
  await on(server, programs.nft, '--file', stage.path('nftables.conf'))

  const start = (where: Child, args: string[]): Promise<Child> =>
    stage.start(programs.nsenter, [...inside(where), process.execPath, CLI, ...args], {
      env: symportEnvironment(stage, { SYMPORT_UUID: SECRET }),
    })
  // Another service of that machine, which is nobody's business.
  const other = ['forward', '0.0.0.0:9999:127.0.0.1:925']
  await logged(await start(server, other), 'listener ready')
  await logged(await start(server, ['server', '--state', stage.path('server'), '--port', '925']), 'listening')

  const curl = ['-q', '--silent', '--output', '/dev/null', '--write-out', '%{http_code}']
  const ask = async (url: string, seconds: number): Promise<string> => {
    const patience = ['--max-time', String(seconds), '--insecure']
    return (await stage.run(programs.nsenter, [...inside(visitor), programs.curl, ...curl, ...patience, url])).output
  }
  assert.equal(await ask(`http://${SERVER}/`, 30), '404')
  assert.equal(await ask(`https://${SERVER}/`, 30), '404')
  assert.equal(await ask(`http://${SERVER}:9999/`, 2), '000')

  const url = `ws://${SERVER}/symport`
  await logged(await start(visitor, ['node', '--server', url, '--state', stage.path('node')]), 'connected')
})

/** `unshare` has begun before it is where it should be. */
async function separated(stage: Stage, nsenter: string, machines: readonly Child[]): Promise<void> {
  for (const { pid } of machines) {
    for (let tries = 0; tries < 100; tries++) {
      const where = await stage.must(nsenter, ['--target', String(pid), '--net', 'readlink', '/proc/self/ns/net'])
      if (where !== (await stage.must('readlink', ['/proc/self/ns/net']))) break
    }
  }
}
