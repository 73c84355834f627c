import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { WebSocket } from 'ws'
import { boundAt, logLine, logs, run, SECRET, start } from '../helpers/e2e/cli.ts'
import type { Child } from '../helpers/system/child.ts'
import {
  CLIENT,
  type Front,
  makeCertificates,
  SPOOFED,
  startCaddyFront,
  startHaproxyFront,
  startNginxFront,
  startStreet,
  writeCertificates,
} from '../helpers/system/fronts.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress, ROOT } from '../helpers/system/symport.ts'
import { carry, startTrafficTarget, type TrafficTarget } from '../helpers/system/traffic.ts'
import { serveTcp } from '../helpers/transports/servers.ts'

/** Real web servers and load balancers in front of a server, each with the configuration that doc/proxies/ shows. */

const MIB = 1024 * 1024
/** What the proxies take for idle, and how long symport is silent at most. */
const IDLE = '3s'
const KEEPALIVE = ['--keepalive', '1s']
const TRUST = ['--trusted-proxies', '127.0.0.1']
const certificates = makeCertificates()

interface Scene {
  readonly stage: Stage
  readonly server: Child
  /** Of the server itself, if it has one. */
  readonly port: number
  readonly target: TrafficTarget
  /** Mappings to the target, and to something that sends back what comes. */
  readonly bulk: Address
  readonly echo: Address
}

async function sceneOf(t: TestContext, args: readonly string[], stage = new Stage(t)): Promise<Scene> {
  writeCertificates(stage, await certificates)
  const target = await startTrafficTarget(stage)
  const echo = await serveTcp(t, (socket) => void socket.pipe(socket))
  const mappings = [target.port, echo].flatMap((port) => ['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${port}`])
  const where = args.includes('--host') ? [] : ['--host', '127.0.0.1', '--port', '0']
  const flags = [...where, '--state', stage.path('server'), ...mappings, ...KEEPALIVE, ...args]
  const server = await start(stage, ['server', ...flags], { env: { SYMPORT_UUID: SECRET } })
  const { address } = await logged(server, 'listening')
  const [bulk, second] = [parseAddress(await boundAt(server, 0)), parseAddress(await boundAt(server, 1))]
  const port = where.length > 0 ? parseAddress(address).port : 0
  return { stage, server, port, target, bulk, echo: second }
}

/** A node that is connected when this returns, and the address that the server's log has for it. */
async function nodeBy({ stage, server }: Scene, url: string): Promise<{ node: Child; address: unknown }> {
  const from = server.lines.length
  const ca = /^(wss|tls):/.test(url) ? ['--ca', stage.path('ca.pem')] : []
  const args = ['--server', url, '--id', 'office', '--state', stage.path('node'), ...KEEPALIVE, ...ca]
  const node = await start(stage, ['node', ...args], { env: { SYMPORT_UUID: SECRET } })
  await logged(node, 'connected')
  return { node, address: (await logged(server, 'node connected', from)).address }
}

interface Instance {
  readonly remote: string
  readonly transport: string
  readonly resumes: number
}

/** The one instance that `symport status --json` shows. */
async function instanceOf({ stage }: Scene): Promise<Instance> {
  const { status, stdout, stderr } = await run(stage, ['status', '--json', '--state', stage.path('server')])
  assert.equal(status, 0, stderr)
  const { nodes } = JSON.parse(stdout) as { nodes: { id: string; connected: boolean; instances: Instance[] }[] }
  const [node] = nodes.filter(({ connected }) => connected)
  const [instance, ...others] = node?.instances ?? []
  assert.ok(instance && others.length === 0, stdout)
  assert.equal(node?.id, 'office')
  return instance
}

let streams = 0

/** Bytes go both ways, the node's address is the client's, and what it says of itself is not believed. The node goes on. */
async function checkWay(scene: Scene, url: string, transport: string): Promise<Child> {
  const { node, address } = await nodeBy(scene, url)
  const theirs = new RegExp(`^${CLIENT.replaceAll('.', '\\.')}(:\\d+)?$`)
  assert.match(String(address), theirs)
  const stream = { id: ++streams, order: 'together', up: 20 * MIB, down: 20 * MIB } as const
  await carry(scene.stage, { target: scene.target, through: scene.bulk, streams: [stream], timeoutMs: 40_000 })
  const instance = await instanceOf(scene)
  assert.match(instance.remote, theirs)
  assert.equal(instance.transport, transport)
  assert.ok(!scene.server.lines.some((line) => line.includes(SPOOFED)), 'the log has an address that somebody made up')
  return node
}

/** A connection through the mapping that stays open: sends a text and waits until it is back. */
async function openTalk(t: TestContext, { host, port }: Address): Promise<(text: string) => Promise<void>> {
  const socket = connect({ host, port })
  t.after(() => socket.destroy())
  let got = ''
  socket.on('data', (bytes) => {
    got += bytes.toString()
  })
  await once(socket, 'connect')
  return async (text) => {
    const whole = got + text
    socket.write(text)
    while (got.length < whole.length) await once(socket, 'data', { signal: AbortSignal.timeout(20_000) })
    assert.equal(got, whole)
  }
}

const lost = (child: Child): unknown[] => logs(child).filter(({ msg }) => msg.startsWith('lost the link'))

/** Twice as long as it takes the proxy to end a WebSocket on which nobody speaks. */
async function untilSilenceIsEnded(url: string): Promise<void> {
  for (const _ of ['first', 'second']) {
    const silent = new WebSocket(url, 'symport')
    silent.on('error', () => {})
    await once(silent, 'open')
    const since = performance.now()
    await once(silent, 'close', { signal: AbortSignal.timeout(20_000) })
    // The server itself gives it 10 s.
    const took = performance.now() - since
    assert.ok(took > 2_500 && took < 8_000, `ended after ${took} ms`)
  }
}

/** All that comes back for what a stranger says. */
async function answerTo(port: number, words: Buffer): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(words)
  let answer = ''
  socket.on('data', (bytes) => {
    answer += bytes.toString('latin1')
  })
  await once(socket, 'close', { signal: AbortSignal.timeout(20_000) })
  return answer
}

/** Reloaded and started again while a connection is open through a node behind it. */
async function checkLife(
  t: TestContext,
  scene: Scene,
  { front, node, idle }: { front: Front; node: Child; idle: () => Promise<void> },
): Promise<void> {
  const say = await openTalk(t, scene.echo)
  await say('before')
  await idle()
  await say('idle')
  assert.equal((await instanceOf(scene)).resumes, 0, 'the proxy has cut what was idle')
  assert.deepEqual(lost(node), [])
  assert.deepEqual(lost(scene.server), [])
  await front.reload()
  await say('reloaded')
  const from = node.lines.length
  await front.restart()
  await say('started again')
  await logLine(node, 'a new link', ({ msg }) => msg.startsWith('goes on with a new link'), from)
  const { remote, resumes } = await instanceOf(scene)
  assert.ok(remote.startsWith(CLIENT))
  assert.ok(resumes > 0)
}

test('doc/behind-a-proxy.md shows what doc/proxies/ has', () => {
  const lines = (text: string): string => text.replace(/^[ \t]+|[ \t]+$/gm, '')
  const page = readFileSync(`${ROOT}doc/behind-a-proxy.md`, 'utf8')
  for (const [language, file] of [
    ['nginx', 'nginx.conf'],
    ['caddyfile', 'Caddyfile'],
  ] as const) {
    const [, block] = new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 's').exec(page) ?? []
    assert.ok(block, language)
    assert.ok(lines(readFileSync(`${ROOT}doc/proxies/${file}`, 'utf8')).includes(lines(block)), file)
  }
})

describe('behind', { concurrency: 3 }, () => {
  test('nginx: ws and wss, the real address, silence, a reload and a restart', { timeout: 100_000 }, async (t) => {
    const programs = requirePrograms(t, ['nginx'])
    if (programs === undefined) return
    const scene = await sceneOf(t, TRUST)
    const front = await startNginxFront(scene.stage, { program: programs.nginx, server: scene.port, idle: IDLE })
    await checkWeb(t, scene, front, true)
  })

  test('nginx that reaches the server by a Unix socket: the real address', { timeout: 60_000 }, async (t) => {
    const programs = requirePrograms(t, ['nginx'])
    if (programs === undefined) return
    const stage = new Stage(t)
    const path = stage.path('symport.sock')
    const scene = await sceneOf(t, ['--host', `unix://${path}`, '--trusted-proxies', 'unix'], stage)
    const front = await startNginxFront(stage, { program: programs.nginx, server: path, idle: IDLE })
    const liar = await startStreet(stage, front.plain, true)
    await checkWay(scene, `ws://localhost:${liar}/symport`, 'ws')
  })

  test('Caddy: ws and wss, the real address, a reload and a restart', { timeout: 100_000 }, async (t) => {
    const programs = requirePrograms(t, ['caddy'])
    if (programs === undefined) return
    const scene = await sceneOf(t, [...TRUST, '--real-ip-header', 'Tiny-Real-IP'])
    const front = await startCaddyFront(scene.stage, { program: programs.caddy, server: scene.port })
    await checkWeb(t, scene, front, false)
  })

  test('HAProxy as a web server: ws and wss, the real address, silence, a reload and a restart', {
    timeout: 100_000,
  }, async (t) => {
    const programs = requirePrograms(t, ['haproxy'])
    if (programs === undefined) return
    const scene = await sceneOf(t, TRUST)
    const options = { program: programs.haproxy, server: scene.port, idle: IDLE }
    await checkWeb(t, scene, await startHaproxyFront(scene.stage, 'http', options), true)
  })

  test('HAProxy with PROXY headers: tcp and wss to the end, the real address, silence, a reload and a restart', {
    timeout: 100_000,
  }, async (t) => {
    const programs = requirePrograms(t, ['haproxy'])
    if (programs === undefined) return
    const stage = new Stage(t)
    const files = ['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')]
    const scene = await sceneOf(t, [...TRUST, '--proxy-protocol', ...files], stage)
    const options = { program: programs.haproxy, server: scene.port, idle: IDLE }
    const front = await startHaproxyFront(stage, 'tcp', options)
    const port = await startStreet(stage, front.plain)
    await (await checkWay(scene, `wss://localhost:${port}/symport`, 'wss')).stop()
    const node = await checkWay(scene, `tcp://localhost:${port}`, 'tcp')

    // A header of the client's own comes behind that of the proxy, and is nothing that symport knows.
    const from = scene.server.lines.length
    assert.match(await answerTo(port, Buffer.from(`PROXY TCP4 ${SPOOFED} 127.0.0.1 1 2\r\n\r\n`)), /^HTTP\/1\.1 400 /)
    assert.equal(
      await answerTo(port, Buffer.from('0d0a0d0a000d0a515549540a2111000ccb0071097f00000100010002', 'hex')),
      '',
    )
    const { address, code } = await logged(scene.server, 'refused a connection', from)
    assert.equal(code, 'PROXY_ERR_UNKNOWN_PROTOCOL')
    assert.ok(String(address).startsWith(CLIENT), String(address))

    const idle = (): Promise<void> => untilSilenceIsEnded(`ws://localhost:${port}/symport`)
    await checkLife(t, scene, { front, node, idle })
  })

  test('nothing: who connects to the server itself is not believed, whatever headers say', {
    timeout: 60_000,
  }, async (t) => {
    const scene = await sceneOf(t, [...TRUST, '--real-ip-header', 'Tiny-Real-IP'])
    const liar = await startStreet(scene.stage, scene.port, true)
    await checkWay(scene, `ws://localhost:${liar}/symport`, 'ws')
  })
})

async function checkWeb(t: TestContext, scene: Scene, front: Front, cutsSilence: boolean): Promise<void> {
  const { plain, secure } = front
  assert.ok(secure)
  const [liar, street] = [await startStreet(scene.stage, plain, true), await startStreet(scene.stage, secure)]
  await (await checkWay(scene, `ws://localhost:${liar}/symport`, 'ws')).stop()
  const node = await checkWay(scene, `wss://localhost:${street}/symport`, 'wss')
  const silence = (): Promise<void> => untilSilenceIsEnded(`ws://localhost:${liar}/symport`)
  await checkLife(t, scene, { front, node, idle: cutsSilence ? silence : async () => {} })
}
