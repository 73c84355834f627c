import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { WebSocket } from 'ws'
import { connect } from '../../lib/core/index.ts'
import { dialTcp } from '../../lib/transports/tcp.ts'
import {
  clientHello,
  drip,
  type OnePortServer,
  onePortServer,
  PSK,
  proxyV2,
  type Stranger,
  selfSigned,
  stranger,
} from '../helpers/contract/one-port.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { Random } from '../helpers/faults/random.ts'

watchForStrays()

const certificate = selfSigned()
const tls = async () => certificate.context
const TRUSTED = ['127.0.0.1']
const NOBODY = { received: () => true, drained() {}, ended() {}, closed() {} }

async function nodeGetsIn(server: OnePortServer): Promise<void> {
  const dial = () => dialTcp({ host: '127.0.0.1', port: server.port })
  const main = await soon(connect(dial, { secret: { name: '', suite: 'NNpsk0', psk: PSK } }), 'the node')
  main.close()
  await main.closed
}

async function strangers(server: OnePortServer, count: number, first?: Buffer | string): Promise<Stranger[]> {
  const all: Stranger[] = []
  for (let n = 0; n < count; n++) {
    const one = await stranger(server.port)
    if (first !== undefined) one.socket.write(first)
    all.push(one)
  }
  return all
}

const CLOSED_AT_ONCE: Record<string, [Buffer, string]> = {
  'a zero byte': [Buffer.from([0]), 'PROXY_ERR_UNKNOWN_PROTOCOL'],
  'a digit': [Buffer.from('1'), 'PROXY_ERR_UNKNOWN_PROTOCOL'],
  'a line end': [Buffer.from('\r\nGET / HTTP/1.1\r\n\r\n'), 'PROXY_ERR_UNKNOWN_PROTOCOL'],
  'a ClientHello of 17 KiB': [clientHello({ padding: 17 * 1024 }), 'PROXY_ERR_TLS'],
  'a record that is no ClientHello': [Buffer.from('160301000402000000', 'hex'), 'PROXY_ERR_TLS'],
  'more than a handshake at once': [Buffer.alloc(5000, 0xf5), 'PROXY_ERR_HANDSHAKE'],
  'a PROXY header from anybody': [
    Buffer.from('PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n\xf5', 'latin1'),
    'PROXY_ERR_PROXY_HEADER',
  ],
  'a PROXY header of version 2 from anybody': [proxyV2(0x20, 0, Buffer.alloc(0)), 'PROXY_ERR_PROXY_HEADER'],
  'a PROXY header that makes no sense': [Buffer.from('PROXY NONSENSE\r\n'), 'PROXY_ERR_PROXY_HEADER'],
}

for (const [what, [bytes, code]] of Object.entries(CLOSED_AT_ONCE)) {
  test(`${what} closes the connection at once`, async () => {
    await using server = await onePortServer({ tls })
    const { socket, got, closed } = await stranger(server.port)
    const remote = `127.0.0.1:${socket.localPort}`
    socket.write(bytes)
    await soon(closed, 'the close')
    assert.deepEqual(got, [])
    await eventually(() => server.rejected.length > 0, 'told')
    assert.deepEqual(server.rejected, [{ code, remote }])
    assert.equal(server.links.length, 0)
    await nodeGetsIn(server)
  })
}

test('TLS inside TLS closes the connection', async () => {
  await using server = await onePortServer({ tls })
  const secure = connectTls({ port: server.port, host: '127.0.0.1', ca: certificate.pem })
  secure.on('error', () => {})
  secure.write(clientHello())
  await soon(once(secure, 'close'), 'the close')
  await eventually(() => server.rejected[0]?.code === 'PROXY_ERR_UNKNOWN_PROTOCOL', 'told')
})

test('whoever stops in the middle of something is closed when the time is over', async () => {
  const hello = clientHello({ serverName: 'localhost' })
  const halves: (string | Buffer)[] = [
    '',
    'G',
    'PROXY TCP4 ',
    proxyV2(0x21, 0x11, Buffer.alloc(12)).subarray(0, 20),
    hello.subarray(0, 1),
    hello.subarray(0, hello.length / 2),
    'GET / HTTP/1.1\r\nHost: x\r\n',
  ]
  await using server = await onePortServer({ tls, timeout: 150, trustedProxies: TRUSTED })
  const all = await Promise.all(halves.map(() => stranger(server.port)))
  for (const [index, half] of halves.entries()) if (half.length > 0) all[index]?.socket.write(half)
  // Nothing inside TLS.
  const quiet = connectTls({ port: server.port, host: '127.0.0.1', ca: certificate.pem })
  quiet.on('error', () => {})
  await soon(Promise.all([once(quiet, 'close'), ...all.map(({ closed }) => closed)]), 'the closes')
  await eventually(() => server.rejected.length === halves.length + 1, 'all are told')
  assert.ok(server.rejected.every(({ code }) => code === 'PROXY_ERR_HANDSHAKE_TIMEOUT'))
})

test('bytes that come one by one do not buy more time', async () => {
  await using server = await onePortServer({ timeout: 150 })
  const { socket, closed } = await stranger(server.port)
  const dripping = setInterval(() => socket.write(socket.bytesWritten === 0 ? 'GET /' : 'x'), 10)
  await soon(closed, 'the close')
  clearInterval(dripping)
  await eventually(() => server.rejected[0]?.code === 'PROXY_ERR_HANDSHAKE_TIMEOUT', 'told')
})

test('neither do they for the second request of a connection, nor in TLS', async () => {
  await using server = await onePortServer({ tls, timeout: 200, onRequest: (_request, response) => response.end('ok') })
  const plain = await stranger(server.port)
  const secure = connectTls({ port: server.port, host: '127.0.0.1', ca: certificate.pem })
  secure.on('error', () => {})
  const closes = [plain.closed, once(secure, 'close')]
  for (const socket of [plain.socket, secure]) {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(socket, 'data')
    socket.write('GET / HTTP/1.1\r\nX: ')
  }
  const dripping = setInterval(() => plain.socket.write('x') && secure.write('x'), 10)
  await soon(Promise.all(closes), 'the closes')
  clearInterval(dripping)
})

test('a client that goes away during the TLS handshake, or while its certificate is looked for, leaves nothing', async () => {
  let answer: (value: undefined) => void = () => {}
  await using server = await onePortServer({ tls: () => new Promise((resolve) => (answer = resolve)) })
  const { socket } = await stranger(server.port)
  socket.write(clientHello())
  await eventually(() => answer.length === 1, 'asked')
  socket.resetAndDestroy()
  answer(undefined)
  await nodeGetsIn(server)
})

test('a TLS handshake that fails is told', async () => {
  await using server = await onePortServer({ tls })
  const { socket, closed } = await stranger(server.port)
  // Ciphers of TLS 1.3, and no key.
  socket.write(clientHello())
  await soon(closed, 'the close')
  await eventually(() => server.rejected.length === 1, 'told')
  assert.equal(server.rejected[0]?.code, 'PROXY_ERR_TLS')
})

test('a broken record ends a connection of TLS at once, also when it has become a link', async () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const ended: (Error | undefined)[] = []
    await using server = await onePortServer({
      tls,
      take: (link) => {
        link.start({ ...NOBODY, closed: (error) => void ended.push(error) })
      },
    })
    const { socket, closed } = await stranger(server.port)
    const settings = { ca: certificate.pem, servername: 'localhost', minVersion: version, maxVersion: version }
    const secure = connectTls({ socket, ...settings })
    secure.on('error', () => {})
    await once(secure, 'secureConnect')
    secure.write(Buffer.from([0xf5]))
    await eventually(() => server.links.length === 1, 'a link')
    socket.write(Buffer.from(`1703030020${'ab'.repeat(32)}`, 'hex'))
    await soon(closed, 'the close')
    await eventually(() => ended.length === 1, 'told')
    assert.ok(ended[0] instanceof Error)
  }
})

test('a client of TLS that goes away when it has seen the certificate does not hold its place', async () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    await using server = await onePortServer({ tls, timeout: 400 })
    const settings = { ca: certificate.pem, servername: 'localhost', minVersion: version, maxVersion: version }
    const gone = connectTls({ port: server.port, host: '127.0.0.1', ...settings })
    gone.on('error', () => {})
    await once(gone, 'secureConnect')
    gone.destroy()
    // When the time of one that came later is over, so is the other's.
    const silent = await stranger(server.port)
    await soon(silent.closed, 'the close')
    const late = server.rejected.filter(({ code }) => code === 'PROXY_ERR_HANDSHAKE_TIMEOUT')
    assert.deepEqual(late, [], version)
  }
})

test('a client that wants to negotiate TLS again is closed', async () => {
  await using server = await onePortServer({ tls, take: (link) => link.start(NOBODY) })
  const secure = connectTls({ port: server.port, host: '127.0.0.1', ca: certificate.pem, maxVersion: 'TLSv1.2' })
  secure.on('error', () => {})
  await once(secure, 'secureConnect')
  const closed = once(secure, 'close')
  secure.renegotiate({}, () => {})
  await soon(closed, 'the close')
})

test('whoever comes and goes, as probes do, is no news', async () => {
  const header = 'PROXY UNKNOWN\r\n'
  await using server = await onePortServer({ tls, trustedProxies: TRUSTED })
  for (const first of ['', 'PRO', header, clientHello().subarray(0, 20)]) {
    const { socket, closed } = await stranger(server.port)
    socket.end(first)
    await soon(closed, 'the close')
  }
  await nodeGetsIn(server)
  assert.deepEqual(server.rejected, [])
})

test('a certificate that cannot be had closes the connection', async () => {
  await using server = await onePortServer({ tls: () => Promise.reject(new Error('no file')) })
  const { socket, closed } = await stranger(server.port)
  socket.write(clientHello())
  await soon(closed, 'the close')
  await eventually(() => server.rejected[0]?.code === 'PROXY_ERR_TLS', 'told')
})

test('headers of more than 16 KiB are answered with 431', async () => {
  await using server = await onePortServer()
  const { socket, got, closed } = await stranger(server.port)
  socket.write(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(20_000)}`)
  await soon(closed, 'the close')
  assert.match(Buffer.concat(got).toString(), /^HTTP\/1\.1 431 /)
})

test('2,000 that say nothing do not keep a node out', { timeout: 20_000 }, async () => {
  await using server = await onePortServer()
  const all = await strangers(server, 2000)
  let closed = 0
  for (const one of all) void one.closed.then(() => closed++)
  await nodeGetsIn(server)
  // The oldest are those that have made room.
  await eventually(() => closed >= 2000 - 1024, 'the oldest are closed')
  assert.ok(all.slice(0, 900).every(({ socket }) => socket.destroyed))
  assert.ok(all.slice(-1000).every(({ socket }) => !socket.destroyed))
  assert.ok(server.rejected.every(({ code }) => code === 'PROXY_ERR_TOO_MANY_HANDSHAKES'))
  for (const { socket } of all) socket.destroy()
})

test('those who have said something make room last', async () => {
  await using server = await onePortServer({ maxSilent: 10 })
  const [talker] = await strangers(server, 1, 'GET')
  await eventually(() => (talker?.socket.bytesWritten ?? 0) === 3, 'sent')
  await strangers(server, 30)
  talker?.socket.write(' / HTTP/1.1\r\nHost: x\r\n\r\n')
  await soon(talker?.closed ?? assert.fail(), 'the answer')
  assert.match(Buffer.concat(talker?.got ?? []).toString(), /^HTTP\/1\.1 404/)
})

test('one address has so many places, and its oldest makes room', async () => {
  await using server = await onePortServer({ trustedProxies: TRUSTED, silentPerAddress: 3 })
  const from = (address: string): string => `PROXY TCP6 ${address} ::1 1 2\r\n`
  const first = await strangers(server, 3, from('2001:db8::1'))
  const others = await strangers(server, 3, from('2001:db8:0:1::1'))
  const loopback = await strangers(server, 5, from('::1'))
  const proxies = await strangers(server, 5, 'PROXY UNKNOWN\r\n')
  await new Promise((resolve) => setTimeout(resolve, 20))
  const [one] = await strangers(server, 1, from('2001:db8::ffff'))
  await soon(first[0]?.closed ?? assert.fail(), 'the oldest')
  await eventually(() => server.rejected.length > 0, 'told')
  assert.deepEqual(server.rejected, [{ code: 'PROXY_ERR_TOO_MANY_HANDSHAKES', remote: '[2001:db8::1]:1' }])
  const rest = [...first.slice(1), ...others, ...loopback, ...proxies]
  assert.ok([...rest, one].every((stranger) => stranger?.socket.destroyed === false))
})

test('a trusted proxy that has to send a PROXY header, and does not, is closed', async () => {
  await using server = await onePortServer({ trustedProxies: TRUSTED, proxyProtocol: true })
  for (const first of ['GET / HTTP/1.1\r\n\r\n', Buffer.from([0xf5]), clientHello()]) {
    const { socket, got, closed } = await stranger(server.port)
    socket.write(first)
    await soon(closed, 'the close')
    assert.deepEqual(got, [])
  }
  await eventually(() => server.rejected.length === 3, 'told')
  assert.ok(server.rejected.every(({ code }) => code === 'PROXY_ERR_PROXY_HEADER'))
  assert.equal(server.links.length, 0)
})

test('PROXY headers are an error where they are switched off, and where there was one already', async () => {
  const header = 'PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n'
  await using off = await onePortServer({ trustedProxies: TRUSTED, proxyProtocol: false })
  const [one] = await strangers(off, 1, header)
  await soon(one?.closed ?? assert.fail(), 'the close')
  await using on = await onePortServer({ trustedProxies: TRUSTED })
  const [two] = await strangers(on, 1, `${header}${header}`)
  await soon(two?.closed ?? assert.fail(), 'the close')
  assert.match(Buffer.concat(two?.got ?? []).toString(), /^(HTTP\/1\.1 400 |$)/)
  assert.equal(on.links.length, 0)
})

async function remoteOf(
  server: OnePortServer,
  headers: Record<string, string>,
  head = '',
): Promise<string | undefined> {
  const { socket, got } = await stranger(server.port)
  const own = `127.0.0.1:${socket.localPort}`
  const key = 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(
    `${head}GET /symport HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${key}${lines.join('')}\r\n`,
  )
  await once(socket, 'data')
  assert.match(Buffer.concat(got).toString(), /^HTTP\/1\.1 101 /)
  const remote = server.links.at(-1)?.remote
  socket.destroy()
  return remote === own ? 'its own' : remote
}

test('what a stranger says about addresses is not believed', async () => {
  await using server = await onePortServer({ take: () => {} })
  assert.equal(await remoteOf(server, { 'X-Forwarded-For': '203.0.113.9', Forwarded: 'for=203.0.113.9' }), 'its own')
  assert.equal(server.links[0]?.transport, 'ws')
})

test('through a trusted proxy nobody can pretend to be somebody else', async () => {
  const options = { trustedProxies: ['127.0.0.1', '10.0.0.0/8'], take: () => {} }
  await using server = await onePortServer(options)
  assert.equal(await remoteOf(server, { 'X-Forwarded-For': '1.1.1.1, 203.0.113.9, 10.1.1.1' }), '203.0.113.9')
  assert.equal(await remoteOf(server, { 'X-Forwarded-For': '1.1.1.1, garbage' }), 'its own')
  assert.equal(
    await remoteOf(server, { Forwarded: 'for=1.1.1.1, for="[2001:db8::9]:77";proto=https' }),
    '[2001:db8::9]:77',
  )
  assert.equal(server.links.at(-1)?.transport, 'wss')
  const header = 'PROXY TCP4 203.0.113.7 192.0.2.1 5 6\r\n'
  assert.equal(
    await remoteOf(server, { 'X-Forwarded-For': '1.1.1.1', 'X-Forwarded-Proto': 'https' }, header),
    '203.0.113.7:5',
  )
  assert.equal(server.links.at(-1)?.transport, 'ws')
  await using named = await onePortServer({ ...options, realIpHeader: 'Tiny-Real-IP' })
  const both = { 'X-Forwarded-For': '1.1.1.1', 'Tiny-Real-IP': '203.0.113.9:4711' }
  assert.equal(await remoteOf(named, both), '203.0.113.9:4711')
})

test('a text message, a huge one and a broken one end the link', async () => {
  await using server = await onePortServer({ timeout: 1000 })
  const url = `ws://127.0.0.1:${server.port}/symport`
  for (const message of ['hello', Buffer.alloc(2 * 1024 * 1024, 0xf5)]) {
    const ws = new WebSocket(url)
    ws.on('error', () => {})
    await once(ws, 'open')
    ws.send(message)
    await soon(once(ws, 'close'), 'the close')
  }
  const { socket, closed, got } = await stranger(server.port)
  socket.write('GET /symport HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n')
  socket.write('Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
  await once(socket, 'data')
  assert.match(Buffer.concat(got).toString(), /^HTTP\/1\.1 101 /)
  // Not masked, with bits that mean nothing.
  socket.write(Buffer.alloc(100, 0xff))
  await soon(closed, 'the close')
  await nodeGetsIn(server)
})

test('a bad request for a WebSocket is answered, and closed', async () => {
  await using server = await onePortServer({ take: () => {} })
  for (const lines of [
    'Sec-WebSocket-Version: 13\r\n',
    'Sec-WebSocket-Version: 1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n',
  ]) {
    const { socket, got, closed } = await stranger(server.port)
    socket.write(`GET /symport HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${lines}\r\n`)
    await soon(closed, 'the close')
    assert.match(Buffer.concat(got).toString(), /^HTTP\/1\.1 400 /)
  }
  assert.equal(server.links.length, 0)
})

test('whatever comes and goes in whatever way, nothing is left', { timeout: 20_000 }, async () => {
  const random = new Random(4)
  const starts = [
    clientHello({ serverName: 'localhost' }),
    Buffer.from('GET /symport HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
    Buffer.from('PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\nGET / HTTP/1.1\r\n\r\n'),
    Buffer.from('f553594d010100', 'hex'),
    proxyV2(0x21, 0x11, Buffer.alloc(12, 7)),
  ]
  const inUse = (): number => process.getActiveResourcesInfo().filter((kind) => kind !== 'Immediate').length
  const before = inUse()
  await using server = await onePortServer({ tls, timeout: 500, trustedProxies: TRUSTED })
  for (let round = 0; round < 150; round++) {
    const { socket } = await stranger(server.port)
    const start = starts[random.integer(0, starts.length - 1)] ?? Buffer.alloc(0)
    const bytes = Buffer.from(start.subarray(0, random.integer(0, start.length)))
    if (bytes.length > 0 && random.chance(0.5)) bytes[random.integer(0, bytes.length - 1)] = random.integer(0, 255)
    if (random.chance(0.3)) await drip(socket, bytes)
    else socket.write(bytes)
    const end = random.integer(0, 3)
    if (end === 0) socket.resetAndDestroy()
    else if (end === 1) socket.end()
    else if (end === 2) socket.destroy()
  }
  await nodeGetsIn(server)
  await server.close()
  // Sockets and timers of either end.
  await eventually(() => inUse() <= before, 'all is gone', 6000)
})
