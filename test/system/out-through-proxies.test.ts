import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { boundAt, coded, logLine, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import type { Child } from '../helpers/system/child.ts'
import { makeCertificates, writeCertificates } from '../helpers/system/fronts.ts'
import { answers, eventually, freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress } from '../helpers/system/symport.ts'
import { serveTcp } from '../helpers/transports/servers.ts'

/** A node that only gets out through a real proxy that wants a name and a password. */

const MIB = 1024 * 1024
const USER = 'ann'
const PASSWORD = 'pass-w0rd'
const certificates = makeCertificates()

interface Scene {
  readonly stage: Stage
  /** Of the server. */
  readonly port: number
  /** A mapping to something that sends back what comes. */
  readonly echo: Address
}

async function sceneOf(t: TestContext): Promise<Scene> {
  const stage = new Stage(t)
  writeCertificates(stage, await certificates)
  const echo = await serveTcp(t, (socket) => void socket.pipe(socket))
  const { server, at } = await startServer(stage, [
    ...['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')],
    ...['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${echo}`],
  ])
  return { stage, port: at.port, echo: parseAddress(await boundAt(server)) }
}

async function startNode(
  { stage }: Scene,
  url: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Child> {
  const ca = url.startsWith('wss:') ? ['--ca', stage.path('ca.pem')] : []
  const flags = ['--server', url, '--state', stage.path('node'), ...ca, ...args]
  // Of the machine that the tests run on, nothing shall matter.
  const none = { no_proxy: '', NO_PROXY: '', https_proxy: '', http_proxy: '', all_proxy: '' }
  return await start(stage, ['node', ...flags], { env: { SYMPORT_UUID: SECRET, ...none, ...env } })
}

/** Sends bytes through the mapping, and waits until all of them are back. */
async function checkEcho({ echo }: Scene): Promise<void> {
  const sent = randomBytes(3 * MIB)
  const socket = connect(echo.port, echo.host)
  socket.end(sent)
  assert.ok((await buffer(socket)).equals(sent))
}

/** A node that connects, carries bytes both ways, and tells nobody the password. */
async function checkNode(
  scene: Scene,
  url: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<void> {
  const node = await startNode(scene, url, args, env)
  await logged(node, 'connected')
  await checkEcho(scene)
  await node.stop()
  assert.ok(!node.lines.join('\n').includes(PASSWORD))
}

/** What is open goes on when the proxy is started again. */
async function checkRestart(t: TestContext, scene: Scene, node: Child, restart: () => Promise<unknown>): Promise<void> {
  await logged(node, 'connected')
  const socket = connect(scene.echo.port, scene.echo.host)
  t.after(() => socket.destroy())
  const echoed = async (text: string): Promise<void> => {
    socket.write(text)
    const [bytes] = await once(socket, 'data', { signal: AbortSignal.timeout(20_000) })
    assert.equal(String(bytes), text)
  }
  await checkEcho(scene)
  await echoed('before')
  await restart()
  await echoed('after')
  await logLine(node, 'a new link', ({ msg }) => msg.startsWith('goes on with a new link'))
  assert.ok(!node.lines.join('\n').includes(PASSWORD))
}

test('a node gets out through tinyproxy, by --proxy and by HTTPS_PROXY, with a password', {
  timeout: 100_000,
}, async (t) => {
  const programs = requirePrograms(t, ['tinyproxy'])
  if (programs === undefined) return
  const scene = await sceneOf(t)
  const { stage } = scene
  const port = await freePort()
  const lines = [`Port ${port}`, 'Listen 127.0.0.1', 'Timeout 600', 'LogLevel Info', `BasicAuth ${USER} ${PASSWORD}`]
  writeFileSync(stage.path('tinyproxy.conf'), `${lines.join('\n')}\n`)
  const startProxy = async (): Promise<Child> => {
    const child = await stage.start(programs.tinyproxy, ['-d', '-c', stage.path('tinyproxy.conf')])
    await eventually(async () => assert.ok(await answers(port)))
    return child
  }
  const proxy = await startProxy()
  const asked = (host: string): number =>
    proxy.lines.filter((line) => line.includes(`CONNECT ${host}:${scene.port} `)).length

  const url = (secret: string): string => `http://${USER}:${secret}@127.0.0.1:${port}`
  const flag = ['--proxy', url(PASSWORD)]
  await checkNode(scene, `tcp://127.0.0.1:${scene.port}`, flag)
  assert.equal(asked('127.0.0.1'), 1)

  // No proxy of the environment is asked for 127.0.0.1, but for this other name of the same machine.
  await checkNode(scene, `wss://0.0.0.0:${scene.port}/symport`, [], { HTTPS_PROXY: url(PASSWORD) })
  assert.equal(asked('0.0.0.0'), 1)

  const refused = await startNode(scene, `tcp://127.0.0.1:${scene.port}`, ['--proxy', url('wr0ng-one')])
  const { msg } = await coded(refused, 'PROXY_ERR_DIAL_FAILED')
  assert.match(String(msg), /^the proxy http:\/\/127\.0\.0\.1:\d+ does not take this name and password \(HTTP 401\)/)
  assert.ok(!refused.lines.join('\n').includes('wr0ng'))
  await refused.stop()

  const node = await startNode(scene, `wss://127.0.0.1:${scene.port}/symport`, flag)
  await checkRestart(t, scene, node, async () => {
    await proxy.stop()
    await startProxy()
  })
})

test('a node gets out through microsocks, by --proxy and by ALL_PROXY, with a password', {
  timeout: 100_000,
}, async (t) => {
  const programs = requirePrograms(t, ['microsocks'])
  if (programs === undefined) return
  const scene = await sceneOf(t)
  const port = await freePort()
  const startProxy = async (): Promise<Child> => {
    const args = ['-i', '127.0.0.1', '-p', String(port), '-u', USER, '-P', PASSWORD]
    const child = await scene.stage.start(programs.microsocks, args)
    await eventually(async () => assert.ok(await answers(port)))
    return child
  }
  const proxy = await startProxy()
  const asked = (host: string): number =>
    proxy.lines.filter((line) => line.endsWith(`connected to ${host}:${scene.port}`)).length

  const url = (secret: string): string => `socks5://${USER}:${secret}@127.0.0.1:${port}`
  const flag = ['--proxy', url(PASSWORD)]
  // The proxy is who resolves names.
  await checkNode(scene, `tcp://localhost:${scene.port}`, flag)
  assert.equal(asked('localhost'), 1)
  await checkNode(scene, `wss://0.0.0.0:${scene.port}/symport`, [], { ALL_PROXY: url(PASSWORD) })
  assert.equal(asked('0.0.0.0'), 1)

  const refused = await startNode(scene, `tcp://127.0.0.1:${scene.port}`, ['--proxy', url('wr0ng-one')])
  const { msg } = await coded(refused, 'PROXY_ERR_DIAL_FAILED')
  assert.match(String(msg), /^the proxy socks5:\/\/127\.0\.0\.1:\d+ does not take this name and password/)
  assert.ok(!refused.lines.join('\n').includes('wr0ng'))
  await refused.stop()

  const node = await startNode(scene, `wss://localhost:${scene.port}/symport`, flag)
  await checkRestart(t, scene, node, async () => {
    await proxy.stop()
    await startProxy()
  })
})
