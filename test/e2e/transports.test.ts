import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import test, { describe } from 'node:test'
import {
  boundAt,
  coded,
  connectNode,
  logLine,
  logs,
  run,
  SECRET,
  start,
  startNode,
  startServer,
} from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import type { Child } from '../helpers/system/child.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress } from '../helpers/system/symport.ts'
import { Identity } from '../helpers/transports/authority.ts'
import { serveHttpProxy, serveSocks5 } from '../helpers/transports/proxies.ts'
import { serveTcp } from '../helpers/transports/servers.ts'

/** Sends bytes through a mapping to a target that sends them back. */
async function echoed(address: string): Promise<void> {
  const { host, port } = parseAddress(address)
  const bulk = Buffer.alloc(500_000, 'echo this ')
  const socket = connect({ host, port })
  let length = 0
  for await (const chunk of socket.once('connect', () => socket.write(bulk))) {
    assert.ok(bulk.subarray(length, length + chunk.length).equals(chunk))
    length += chunk.length
    if (length === bulk.length) break
  }
  assert.equal(length, bulk.length)
}

function nodeTo(stage: Stage, url: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<Child> {
  const where = ['--server', url, '--state', stage.path('node')]
  return start(stage, ['node', ...where, ...args], { env: { SYMPORT_UUID: SECRET, ...env } })
}

/** A server with a certificate of a CA of the test's own, and one mapping to something that echoes. */
async function served(
  stage: Stage,
  target: number,
  args: readonly string[] = [],
): Promise<{ server: Child; at: Address; mapped: string; ca: Identity; files: string[] }> {
  const ca = await Identity.make('the CA', { ca: true, names: [] })
  const { cert, key } = await ca.issue('server', { names: ['127.0.0.1', 'localhost', 'symport.test'] })
  writeFileSync(stage.path('cert.pem'), cert + ca.cert)
  writeFileSync(stage.path('key.pem'), key)
  writeFileSync(stage.path('ca.pem'), ca.cert)
  const files = ['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')]
  const mapping = ['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${target}`]
  const { server, at } = await startServer(stage, [...files, ...mapping, ...args])
  return { server, at, mapped: await boundAt(server), ca, files }
}

describe('transports on the command line', { concurrency: 2 }, () => {
  test('one port of a server takes tcp, tls, ws and wss, and bytes pass by each', async (t) => {
    const stage = new Stage(t)
    const target = await serveTcp(t, (socket) => void socket.pipe(socket))
    const { at, mapped } = await served(stage, target)
    const place = `127.0.0.1:${at.port}`
    const ways: [string, string[]][] = [
      [`tls://${place}`, ['--ca', stage.path('ca.pem')]],
      [`ws://${place}/symport`, []],
      [`wss://${place}/symport`, ['--ca', stage.path('ca.pem')]],
    ]
    for (const [url, args] of ways) {
      const node = await nodeTo(stage, url, args)
      assert.equal((await logged(node, 'connected')).server, url)
      await echoed(mapped)
      await node.stop('SIGTERM', 2000)
    }
  })

  test('the printed command line pins the CA of the server: it connects by tcp as it is, and by wss', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage, [], { secret: undefined })
    const { command } = await logged(server, 'on the other machine')
    const [, pin = ''] =
      /^symport node --host 127\.0\.0\.1 --port \d+ --pin (sha256:[0-9a-f]{64})$/.exec(String(command)) ?? []
    const { stdout } = await run(stage, [
      'uuid',
      '--host',
      '127.0.0.1',
      '--port',
      String(at.port),
      '--state',
      stage.path('server'),
    ])
    const [, secret = ''] = / --uuid (symport_\S+)\n$/.exec(stdout) ?? []
    assert.equal(stdout, `${command} --uuid ${secret}\n`)
    const env = { SYMPORT_UUID: secret }
    const url = `wss://localhost:${at.port}/symport`
    const [plain, pinned, wrong, unchecked] = await Promise.all([
      connectNode(stage, at, ['--pin', pin], { secret, state: 'plain' }),
      nodeTo(stage, url, ['--pin', pin.toUpperCase()], env),
      nodeTo(stage, url, ['--pin', pin.replace(/.{4}$/, '0000')], env),
      nodeTo(stage, url, [], env),
    ])
    await logged(pinned, 'connected')
    assert.match(String((await coded(wrong, 'PROXY_ERR_DIAL_FAILED')).msg), /fits the pin/)
    assert.match(String((await coded(unchecked, 'PROXY_ERR_DIAL_FAILED')).msg), /pin it with --pin/)
    assert.ok(![wrong, unchecked].flatMap(logs).some(({ msg }) => msg === 'connected'))
    assert.ok(logs(plain).some(({ msg }) => msg === 'connected'))
  })

  test('a node gets out through a web proxy and through SOCKS5, and no password is in its log', async (t) => {
    const stage = new Stage(t)
    const target = await serveTcp(t, (socket) => void socket.pipe(socket))
    const { at, mapped } = await served(stage, target)
    const options = { to: at.port, credentials: 'ann:pass-w0rd' }
    const [web, socks] = [await serveHttpProxy(t, options), await serveSocks5(t, options)]
    const byFlag = ['--proxy', `socks5://ann:pass-w0rd@127.0.0.1:${socks.port}`]
    const ca = ['--ca', stage.path('ca.pem')]
    const environment = { HTTPS_PROXY: `http://ann:pass-w0rd@127.0.0.1:${web.port}` }
    const url = `wss://symport.test:${at.port}/symport`
    const ways: [string, string[], NodeJS.ProcessEnv][] = [
      [url, ca, environment],
      [url, [...ca, ...byFlag], environment],
      [`tcp://symport.test:${at.port}`, byFlag, {}],
    ]
    for (const [server, args, env] of ways) {
      const node = await nodeTo(stage, server, args, env)
      await logged(node, 'connected')
      await echoed(mapped)
      await node.stop('SIGTERM', 2000)
      assert.ok(!node.lines.join('\n').includes('w0rd'))
    }
    assert.deepEqual(web.asked, [`symport.test:${at.port}`])
    assert.deepEqual(socks.asked, [`symport.test:${at.port}`, `symport.test:${at.port}`])
    const asked = web.asked.length
    const [around, refused] = await Promise.all([
      nodeTo(stage, `wss://localhost:${at.port}/symport`, [...ca, '--proxy', 'none'], environment),
      nodeTo(stage, url, [...ca, '--proxy', `http://ann:wr0ng@127.0.0.1:${socks.port}`]),
    ])
    await logged(around, 'connected')
    assert.equal(web.asked.length, asked)
    await coded(refused, 'PROXY_ERR_DIAL_FAILED')
    assert.ok(!refused.lines.join('\n').includes('wr0ng'))
  })

  test('a pinned CA vouches for any name, unless this machine trusts it anyway', async (t) => {
    const stage = new Stage(t)
    const { at, ca } = await served(stage, 1)
    const { port } = await serveSocks5(t, { to: at.port })
    const args = ['--pin', ca.pin, '--proxy', `socks5://127.0.0.1:${port}`]
    const [its, everyones] = await Promise.all([
      nodeTo(stage, 'wss://elsewhere.test', args),
      nodeTo(stage, 'wss://elsewhere.test', args, { NODE_EXTRA_CA_CERTS: stage.path('ca.pem') }),
    ])
    await logged(its, 'connected')
    const { msg } = await coded(everyones, 'PROXY_ERR_DIAL_FAILED')
    assert.match(String(msg), /is for other names .* and the pinned CA is a public one/)
  })

  test('a connection goes on over the next link when wss was cut', async (t) => {
    const stage = new Stage(t)
    const target = await serveTcp(t, (socket) => void socket.pipe(socket))
    const { at, mapped } = await served(stage, target)
    const links = new Set<{ destroy(): unknown }>()
    const relay = await serveTcp(t, (socket) => {
      const out = connect({ port: at.port, host: '127.0.0.1' })
      links.add(socket)
      out.on('error', () => socket.destroy()).on('close', () => socket.destroy())
      socket.on('close', () => out.destroy())
      socket.pipe(out).pipe(socket)
    })
    const node = await nodeTo(stage, `wss://127.0.0.1:${relay}/symport`, ['--ca', stage.path('ca.pem')])
    await logged(node, 'connected')
    const { host, port } = parseAddress(mapped)
    const user = connect({ host, port })
    t.after(() => user.destroy())
    const answer = async (text: string): Promise<string> => {
      user.write(text)
      return await new Promise((resolve) => user.once('data', (bytes) => resolve(String(bytes))))
    }
    assert.equal(await answer('before'), 'before')
    for (const link of links) link.destroy()
    assert.equal(await answer('after'), 'after')
    await logLine(node, 'the resume', ({ msg }) => msg.startsWith('goes on with a new link'))
  })

  test('a wrong command line is told before anything is bound or dialled', async (t) => {
    const stage = new Stage(t)
    const server = (...args: string[]): string[] => ['server', '--port', '0', '--host', '127.0.0.1', ...args]
    const node = (...args: string[]): string[] => ['node', ...args]
    const { cert } = await Identity.make('one')
    const { key } = await Identity.make('two')
    writeFileSync(stage.path('cert.pem'), cert)
    writeFileSync(stage.path('key.pem'), key)
    const pin = `sha256:${'ab'.repeat(32)}`
    const cases: [string[], RegExp][] = [
      [
        server('--cert', stage.path('none'), '--key', stage.path('none')),
        /--(cert|key): cannot read .*: there is no such file/,
      ],
      [server('--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')), /the key does not belong/],
      [server('--proxy-protocol'), /--proxy-protocol says nothing without/],
      [node('--server', 'ws://127.0.0.1', '--pin', pin), /--pin is about a certificate/],
      [node('--proxy', 'gopher://p'), /--proxy: a proxy is/],
    ]
    const running = cases.map(async ([args, words], i) => {
      const { status, stderr } = await runHere(stage, [...args, '--uuid', SECRET, '--state', stage.path(`state${i}`)])
      assert.match(stderr, words)
      assert.equal(status, 2, stderr)
    })
    await Promise.all(running)
  })

  test('a certificate that changes is used for new connections; a bad one is not', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await served(stage, 1)
    const other = await Identity.make('other')
    const node = await startNode(stage, at)
    await logged(node, 'connected')
    writeFileSync(stage.path('key.pem'), other.key)
    writeFileSync(stage.path('cert.pem'), other.cert)
    await logLine(server, 'the reload', ({ msg }) => msg.includes('has changed: new connections get the new one'))
    const pinned = await nodeTo(stage, `wss://127.0.0.1:${at.port}`, ['--pin', other.pin])
    await logged(pinned, 'connected')
  })
})
