import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request as ask } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { WebSocket } from 'ws'
import {
  allowAll,
  connect,
  createNode,
  createServer,
  type Endpoint,
  type HubEvent,
  type Link,
  type LinkListener,
  type LinkSink,
  Proxy,
  parseSpec,
  tcp,
} from '../../lib/index.ts'
import { listenOnePort } from '../../lib/transports/one-port.ts'
import { dialTcp } from '../../lib/transports/tcp.ts'
import { dialTls } from '../../lib/transports/tls.ts'
import { dialUnix } from '../../lib/transports/unix.ts'
import { dialWebSocket } from '../../lib/transports/websocket.ts'
import {
  clientHello,
  drip,
  dripper,
  onePortServer,
  PSK,
  proxyV2,
  selfSigned,
  stranger,
} from '../helpers/contract/one-port.ts'
import { program } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { hex } from '../helpers/core/bytes.ts'

watchForStrays()

const certificate = selfSigned()
const tls = async () => certificate.context
const verify = { by: 'ca', pem: certificate.pem } as const
const LARGE = 12 * 1024 * 1024

const DIALS: Record<string, (port: number) => Promise<Link>> = {
  tcp: (port) => dialTcp({ host: '127.0.0.1', port }),
  tls: (port) => dialTls({ host: '127.0.0.1', port }, { verify }),
  ws: (port) => dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify }),
  wss: (port) => dialWebSocket(`wss://127.0.0.1:${port}/symport`, { verify }),
}

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'one-port-'))
})
after(() => rm(folder, { recursive: true }))

async function node(dial: () => Promise<Link>): Promise<Proxy & AsyncDisposable> {
  const main = await connect(dial, { secret: { name: '', suite: 'NNpsk0', psk: PSK } })
  return new Proxy(main)
}

/** Sends so much to the echo and compares what comes back. */
async function bulk(proxy: Proxy, length: number): Promise<void> {
  const sub = await proxy.dial({ Domain: 'echo', Addr: 'x' })
  const block = randomBytes(1024 * 1024)
  const sent = createHash('sha256')
  const received = createHash('sha256')
  const reading = (async () => {
    for await (const chunk of sub) received.update(chunk)
  })()
  for (let left = length; left > 0; left -= block.length) {
    const chunk = block.subarray(0, left)
    sent.update(chunk)
    if (!sub.write(chunk)) await once(sub, 'drain')
  }
  sub.end()
  await reading
  assert.equal(received.digest('hex'), sent.digest('hex'))
}

async function works(dial: () => Promise<Link>, length: number): Promise<void> {
  const proxy = await node(dial)
  try {
    await bulk(proxy, length)
  } finally {
    proxy.close()
    await proxy.closed
  }
}

for (const [transport, dial] of Object.entries(DIALS)) {
  test(`12 MiB go both ways over ${transport}, and the link says so`, { timeout: 30_000 }, async () => {
    await using server = await onePortServer({ tls })
    await works(() => dial(server.port), LARGE)
    assert.equal(server.links[0]?.transport, transport)
    assert.match(server.links[0]?.remote ?? '', /^127\.0\.0\.1:[1-9][0-9]*$/)
    assert.deepEqual(server.rejected, [])
  })

  test(`the first bytes may come one by one over ${transport}`, async () => {
    await using server = await onePortServer({ tls })
    await using relay = await dripper(server.port, 4000)
    await works(() => dial(relay.port), 300_000)
    assert.equal(server.links[0]?.transport, transport)
  })

  for (const [name, header] of [
    ['1', Buffer.from('PROXY TCP4 203.0.113.9 192.0.2.1 54321 443\r\n')],
    ['2', proxyV2(0x21, 0x11, hex('cb007109 c0000201 d431 01bb 04 0002 0000'))],
  ] as const) {
    test(`a PROXY header of version ${name} may come one by one before ${transport}`, async () => {
      await using server = await onePortServer({ tls, trustedProxies: ['127.0.0.1'], proxyProtocol: true })
      await using relay = await dripper(server.port, 300, header)
      await works(() => dial(relay.port), 10_000)
      assert.equal(server.links[0]?.transport, transport)
      assert.equal(server.links[0]?.remote, '203.0.113.9:54321')
    })
  }
}

test('a server and a node find together over one port, and again after a cut', async () => {
  const target = await program((socket) => void socket.pipe(socket))
  let ready: (bound: Endpoint) => void = () => {}
  const bound = new Promise<Endpoint>((resolve) => (ready = resolve))
  const links: Link[] = []
  let port = 0
  const common = { secret: 'one port', domains: [tcp()], policy: allowAll }
  const listen = async (onLink: (link: Link) => void): Promise<LinkListener> => {
    const taken = (link: Link): void => {
      links.push(link)
      onLink(link)
    }
    const listener = await listenOnePort({ host: '127.0.0.1', port: 0 }, { tls }, taken)
    port = Number(listener.address.split(':').at(-1))
    return listener
  }
  const mapping = parseSpec(`127.0.0.1:0:127.0.0.1:${target.port}`, common)
  const onEvent = (event: HubEvent): void => {
    if (event.type === 'listener-ready') ready(event.bound)
  }
  const server = await createServer({ ...common, listen, listeners: [mapping], onEvent })
  const dial = () => DIALS.wss?.(port) ?? assert.fail()
  const visitor = await createNode({ ...common, dial, server: 'the server', id: 'a' })
  const { socket, got } = await stranger(Number((await bound).Addr.split(':').at(-1)))
  socket.write('before ')
  await eventually(() => Buffer.concat(got).toString() === 'before ', 'the echo')
  links[0]?.destroy(new Error('cut'))
  socket.write('after')
  await eventually(() => Buffer.concat(got).toString() === 'before after', 'the echo', 5000)
  assert.deepEqual(
    links.map(({ transport }) => transport),
    ['wss', 'wss'],
  )
  socket.destroy()
  await visitor.close()
  await server.close()
  await target[Symbol.asyncDispose]()
})

test('12 MiB go both ways over a Unix socket, past a stale one', { timeout: 30_000 }, async () => {
  const socketPath = join(folder, 'a.sock')
  for (let round = 0; round < 2; round++) {
    await using server = await onePortServer({ socketPath })
    assert.equal(server.path, socketPath)
    await works(() => dialUnix(socketPath), round === 0 ? LARGE : 1000)
    assert.equal(server.links[0]?.transport, 'unix')
    assert.equal(server.links[0]?.remote, undefined)
  }
})

test('a file that is no socket stays where it is', async () => {
  const path = join(folder, 'file')
  await writeFile(path, 'x')
  await assert.rejects(
    listenOnePort({ path }, {}, () => {}),
    { code: 'PROXY_ERR_LISTEN_FAILED' },
  )
})

test('a Unix socket carries TLS and WebSockets, for a proxy that is trusted as well', async () => {
  const socketPath = join(folder, 'b.sock')
  await using server = await onePortServer({ socketPath, tls, trustedProxies: ['unix'] })
  const options = { headers: { 'X-Forwarded-For': '203.0.113.9', 'X-Forwarded-Proto': 'https' } }
  const ws = new WebSocket(`ws+unix:${socketPath}:/symport`, options)
  await once(ws, 'open')
  assert.equal(server.links[0]?.remote, '203.0.113.9')
  assert.equal(server.links[0]?.transport, 'wss')
  const other = await stranger(socketPath)
  other.socket.write('PROXY TCP6 2001:db8::9 ::1 7 8\r\n\xf5')
  other.socket.write(Buffer.from([0xf5]))
  await eventually(() => server.links.length === 2, 'the second link')
  assert.equal(server.links[1]?.remote, '[2001:db8::9]:7')
  assert.equal(server.links[1]?.transport, 'unix')
  // A reset is for TCP: this one must do without.
  server.links[1]?.destroy(new Error('over'))
  await other.closed
  ws.terminate()
})

test('listens on both versions of IP, and calls IPv4 by its name', async () => {
  await using server = await onePortServer({ host: '', take: () => {} })
  for (const host of ['127.0.0.1', '::1']) {
    const { socket } = await stranger(server.port, host)
    socket.write(Buffer.from([0xf5]))
    await eventually(() => server.links.at(-1)?.remote?.endsWith(`:${socket.localPort}`) === true, 'the link')
    assert.equal(
      server.links.at(-1)?.remote,
      host === '::1' ? `[::1]:${socket.localPort}` : `127.0.0.1:${socket.localPort}`,
    )
  }
})

test('IPv4 in IPv6 is the address that is trusted', async () => {
  await using server = await onePortServer({ host: '', take: () => {}, trustedProxies: ['127.0.0.0/8'] })
  const { socket } = await stranger(server.port)
  socket.write('PROXY TCP4 203.0.113.9 192.0.2.1 54321 443\r\n')
  socket.write(Buffer.from([0xf5]))
  await eventually(() => server.links[0]?.remote === '203.0.113.9:54321', 'the link')
})

/** A sink that keeps all it gets and takes more only when it is told to. */
function keeper(): LinkSink & { readonly got: Buffer[]; more: boolean; ending: string } {
  const got: Buffer[] = []
  return {
    got,
    more: false,
    ending: '',
    received(bytes) {
      got.push(Buffer.from(bytes))
      return this.more
    },
    drained() {},
    ended() {
      this.ending += 'ended '
    },
    closed() {
      this.ending += 'closed'
    },
  }
}

test('what was read first comes first and whole, and nothing after it while the reader is paused', async () => {
  const links: Link[] = []
  await using server = await onePortServer({ take: (link) => links.push(link) })
  const { socket, closed } = await stranger(server.port)
  const sent = randomBytes(600_000)
  sent[0] = 0xf5
  socket.write(sent.subarray(0, 4096))
  await eventually(() => links.length === 1, 'the link')
  socket.write(sent.subarray(4096))
  const sink = keeper()
  links[0]?.start(sink)
  links[0]?.resume()
  assert.deepEqual(sink.got, [], 'nothing comes from inside start')
  await eventually(() => sink.got.length > 0, 'the head')
  const first = Buffer.concat(sink.got)
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(Buffer.concat(sink.got), first)
  assert.deepEqual(first, sent.subarray(0, first.length))
  sink.more = true
  links[0]?.resume()
  await eventually(() => Buffer.concat(sink.got).length === sent.length, 'all of it')
  assert.ok(Buffer.concat(sink.got).equals(sent))
  socket.end()
  await eventually(() => sink.ending === 'ended ', 'the end')
  links[0]?.write([Buffer.from('bye')])
  links[0]?.end()
  await soon(closed, 'the close')
  await eventually(() => sink.ending === 'ended closed', 'the close')
})

test('a link that is given up before it is started is closed', async () => {
  await using server = await onePortServer({ take: (link) => link.destroy() })
  const { socket, closed } = await stranger(server.port)
  socket.write(Buffer.from([0xf5]))
  await soon(closed, 'the close')
})

/** Asks by WebSocket; the subprotocol or the status of the answer. */
async function answerOf(
  port: number,
  path: string,
  protocols: string[] = [],
  headers: object = {},
): Promise<string | number> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols, { headers: { ...headers } })
  ws.on('error', () => {})
  return await new Promise((resolve) => {
    ws.once('open', () => {
      resolve(ws.protocol)
      ws.terminate()
    })
    ws.once('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0)
      response.destroy()
    })
  })
}

test('the WebSocket is at its path, and at / for those who name the subprotocol', async () => {
  await using server = await onePortServer({ take: () => {} })
  assert.equal(await answerOf(server.port, '/symport'), '')
  assert.equal(await answerOf(server.port, '/symport/'), '')
  assert.equal(await answerOf(server.port, '/symport?a=/b/', ['symport']), 'symport')
  assert.equal(await answerOf(server.port, '/', ['chat', 'symport']), 'symport')
  assert.equal(await answerOf(server.port, '/?x', ['symport']), 'symport')
  assert.equal(server.links.length, 5)
  for (const path of ['/', '/other', '/symport/x', '/symportx', '//symport'])
    assert.equal(await answerOf(server.port, path), 404, path)
  assert.equal(await answerOf(server.port, '/', ['chat']), 404)
  assert.equal(server.links.length, 5)
})

test('the path can be another one, written with slashes or without', async () => {
  for (const path of ['/twt/ws', 'twt/ws/', '/twt/ws/']) {
    await using server = await onePortServer({ path, take: () => {} })
    assert.equal(await answerOf(server.port, '/twt/ws'), '', path)
    assert.equal(await answerOf(server.port, '/symport'), 404)
  }
  await using server = await onePortServer({ path: '/', take: () => {} })
  assert.equal(await answerOf(server.port, '/'), '')
})

test('pages of other sites get no WebSocket', async () => {
  await using server = await onePortServer({ take: () => {} })
  const host = `127.0.0.1:${server.port}`
  for (const origin of [
    'http://evil.example',
    'null',
    'file://',
    `http://${host}.evil.example`,
    `http://127.0.0.1:1`,
    'http://127.0.0.1',
    '',
  ]) {
    assert.equal(await answerOf(server.port, '/symport', [], { origin }), 403, origin)
  }
  assert.equal(server.links.length, 0)
  assert.equal(await answerOf(server.port, '/symport', [], { origin: `http://${host}` }), '')
  assert.equal(
    await answerOf(server.port, '/symport', [], { origin: 'https://Symport.example', host: 'symport.example:443' }),
    '',
  )
})

test('other requests are answered with 404, and the connection is closed', async () => {
  await using server = await onePortServer()
  const { socket, got, closed } = await stranger(server.port)
  await drip(socket, Buffer.from('GET /symport HTTP/1.1\r\nHost: x\r\n\r\n'))
  await soon(closed, 'the close')
  const answer = Buffer.concat(got).toString()
  assert.match(answer, /^HTTP\/1\.1 404 Not Found\r\n/)
  assert.match(answer, /\r\nconnection: close\r\n/i)
  assert.match(answer, /\r\n\r\nThere is nothing here\.\n$/)
  const other = await stranger(server.port)
  other.socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n')
  await soon(other.closed, 'the close')
  assert.match(Buffer.concat(other.got).toString(), /^HTTP\/1\.1 404 Not Found\r\n/)
})

test('a WebSocket without the Upgrade header, as proxies pass it on by default, is answered with 426', async () => {
  const asked: unknown[] = []
  await using server = await onePortServer({
    onRequest: ({ url }, response) => {
      asked.push(url)
      response.writeHead(404, { connection: 'close' }).end()
    },
  })
  const answerTo = async (path: string, headers: string): Promise<string> => {
    const { socket, got, closed } = await stranger(server.port)
    socket.write(`GET ${path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n${headers}\r\n`)
    await soon(closed, 'the close')
    return Buffer.concat(got).toString()
  }
  const key = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'
  const answer = await answerTo('/symport', key)
  assert.match(answer, /^HTTP\/1\.1 426 Upgrade Required\r\n/)
  assert.match(answer, /\r\nupgrade: websocket\r\n/i)
  assert.match(answer, /\r\n\r\nA proxy on the way does not pass on the Upgrade header\.\n$/)
  assert.deepEqual(asked, [])
  for (const [path, headers] of [
    ['/elsewhere', key],
    ['/symport', ''],
  ] as const) {
    assert.match(await answerTo(path, headers), /^HTTP\/1\.1 404 /)
  }
  assert.deepEqual(asked, ['/elsewhere', '/symport'])
})

test('other requests go to whoever wants them, many on one connection, also in TLS', async () => {
  const upgrades: string[] = []
  await using server = await onePortServer({
    tls,
    timeout: 300,
    onRequest: (request, response) => void request.pipe(response),
    onUpgrade: (request, socket) => {
      upgrades.push(request.headers.upgrade ?? '')
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nhello')
    },
  })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ports = new Set<number | undefined>()
  for (let round = 0; round < 3; round++) {
    const request = ask({ agent, port: server.port, path: '/a', method: 'POST' })
    request.end('x'.repeat(100_000))
    const [response] = await once(request, 'response')
    ports.add(response.socket.localPort)
    assert.equal((await text(response)).length, 100_000)
  }
  assert.equal(ports.size, 1)
  agent.destroy()
  const secure = connectTls({ port: server.port, host: '127.0.0.1', ca: certificate.pem, ALPNProtocols: ['http/1.1'] })
  secure.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n')
  assert.match(await soon(text(secure), 'the answer'), /hello$/)
  assert.deepEqual(upgrades, ['other'])
})

test('SNI and ALPN choose the certificate, or that there is none', async () => {
  const hellos: object[] = []
  const other = selfSigned()
  await using server = await onePortServer({
    tls: async (hello) => {
      hellos.push(hello)
      return hello.serverName === 'none'
        ? undefined
        : hello.serverName === 'other'
          ? other.context
          : certificate.context
    },
  })
  const at = { port: server.port, host: '127.0.0.1', rejectUnauthorized: false }
  for (const [servername, pem] of [
    ['localhost', certificate.pem],
    ['other', other.pem],
  ] as const) {
    const secure = connectTls({ ...at, servername, ALPNProtocols: ['symport'] })
    await once(secure, 'secureConnect')
    assert.equal(secure.alpnProtocol, 'symport')
    assert.ok(secure.getPeerX509Certificate()?.toString() === pem.replaceAll('\r', ''))
    secure.destroy()
  }
  const refused = connectTls({ ...at, servername: 'none' })
  const [error] = await once(refused, 'error')
  assert.equal(error.code, 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME')
  assert.deepEqual(hellos, [
    { serverName: 'localhost', alpn: ['symport'] },
    { serverName: 'other', alpn: ['symport'] },
    { serverName: 'none', alpn: [] },
  ])
  await eventually(() => server.rejected.some(({ code }) => code === 'PROXY_ERR_TLS'), 'told')
})

test('without TLS its clients are told so', async () => {
  await using server = await onePortServer()
  const refused = connectTls({ port: server.port, host: '127.0.0.1' })
  const [error] = await once(refused, 'error')
  assert.match(error.code, /HANDSHAKE_FAILURE$/)
})

test('a connection of TLS can be routed elsewhere, with all that it said', async () => {
  const hello = clientHello({ serverName: 'site.example', alpn: ['acme-tls/1'], record: 20 })
  let heard = Buffer.alloc(0)
  await using server = await onePortServer({
    tls,
    route: ({ serverName, alpn }, socket) => {
      if (serverName !== 'site.example' || alpn[0] !== 'acme-tls/1') return false
      socket.on('data', (chunk: Buffer) => {
        heard = Buffer.concat([heard, chunk])
      })
      socket.on('end', () => socket.end('bye'))
      return true
    },
  })
  const { socket, got, closed } = await stranger(server.port)
  await drip(socket, hello)
  socket.end('and more')
  await soon(closed, 'the close')
  assert.deepEqual(heard, Buffer.concat([hello, Buffer.from('and more')]))
  assert.equal(Buffer.concat(got).toString(), 'bye')
  await works(() => DIALS.tls?.(server.port) ?? assert.fail(), 1000)
})

test('a server that closes takes nothing more, drops what has not become a link, and lets links go on', async () => {
  await using server = await onePortServer({ tls, onRequest: () => {} })
  const proxies = await Promise.all(Object.values(DIALS).map((dial) => node(() => dial(server.port))))
  const halves = ['', 'G', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', '\x16\x03\x01', 'PROXY ']
  const others = await Promise.all(halves.map(() => stranger(server.port)))
  for (const [index, half] of halves.entries()) others[index]?.socket.write(Buffer.from(half, 'latin1'))
  await new Promise((resolve) => setTimeout(resolve, 30))
  await server.close()
  await soon(Promise.all(others.map(({ closed }) => closed)), 'the others')
  await assert.rejects(stranger(server.port), { code: 'ECONNREFUSED' })
  for (const proxy of proxies) await bulk(proxy, 1_000_000)
  for (const proxy of proxies) proxy.close()
  await Promise.all(proxies.map((proxy) => proxy.closed))
  await server.close()
})
