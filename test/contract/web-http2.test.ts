import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from 'node:http2'
import type { Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'
import { test } from 'node:test'
import { createSecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import { pattern, program, sha256 } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { target, type WebPort, webPort } from '../helpers/contract/web-port.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** HTTP/2 at the server's one port, to targets behind a node that speak HTTP/1.1. */

watchForStrays()

const identity = Identity.create('shop.example.com', {
  ...{ ca: true, purpose: 'any', names: ['shop.example.com', '*.pages.example.com'] },
})
const context = createSecureContext({ key: identity.key, cert: identity.cert })
const HOST = 'shop.example.com'

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
  readonly trailers: Readonly<Record<string, unknown>>
}

function securePort(options: OnePortOptions = {}): Promise<WebPort> {
  return webPort({}, { tls: async () => context, ...options })
}

/** A connection of TLS that has agreed on `protocol`. */
async function secured(port: number, protocol = 'h2', servername = HOST): Promise<TLSSocket> {
  const socket = tlsConnect({
    ...{ port, host: '127.0.0.1', servername, ALPNProtocols: [protocol], ca: identity.cert },
    checkServerIdentity: () => undefined,
  })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

async function session(port: number, servername = HOST): Promise<ClientHttp2Session> {
  const socket = await secured(port, 'h2', servername)
  const made = connect(`https://${HOST}:${port}`, { createConnection: () => socket })
  made.on('error', () => {})
  return made
}

/** Waits for the whole answer. Rejects if the stream is reset. */
async function read(stream: ClientHttp2Stream): Promise<Answer> {
  const answer = once(stream, 'response') as Promise<[Record<string, unknown>]>
  let trailers: Record<string, unknown> = {}
  stream.once('trailers', (headers) => {
    trailers = { ...headers }
  })
  const [[headers], body] = await Promise.all([answer, text(stream)])
  return { status: Number(headers[':status']), headers, body, trailers }
}

async function ask(made: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: string | Buffer): Promise<Answer> {
  const stream = made.request({ ':authority': HOST, ...headers }, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  return await soon(read(stream), `${headers[':path']}`, 5000)
}

test('a visitor who can has HTTP/2, and the target HTTP/1.1', async () => {
  await using there = await target((request, response) => {
    response.setHeader('Set-Cookie', ['a=1', 'b=2'])
    response.setHeader('Keep-Alive', 'timeout=1')
    response.setHeader('X-Twice', ['1', '2'])
    response.setHeader('Connection', 'X-Hop')
    response.setHeader('X-Hop', 'no')
    response.statusCode = 418
    response.end(JSON.stringify([request.httpVersion, request.method, request.url, request.rawHeaders]))
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const headers = { ':path': '/a?b=%2f', cookie: ['c=1', 'd=2'], te: 'trailers', 'x-own': 'yes' }
  const answer = await ask(made, headers)
  assert.equal(answer.status, 418)
  assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2'])
  assert.equal(answer.headers['x-twice'], '1, 2')
  for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'x-hop']) assert.ok(!(name in answer.headers))
  const [version, method, url, raw] = JSON.parse(answer.body)
  assert.deepEqual([version, method, url], ['1.1', 'GET', '/a?b=%2f'])
  const pairs = raw.flatMap((name: string, i: number) => (i % 2 === 0 ? [`${name}: ${raw[i + 1]}`] : []))
  assert.deepEqual(pairs, [
    `Host: ${HOST}`,
    'cookie: c=1; d=2',
    'x-own: yes',
    'X-Forwarded-For: 127.0.0.1',
    'X-Real-IP: 127.0.0.1',
    'X-Forwarded-Proto: https',
    `X-Forwarded-Host: ${HOST}`,
    'X-Forwarded-Port: 443',
    'Connection: keep-alive',
  ])
  made.close()
})

test('many streams at once on one connection, and each has its own answer', async () => {
  await using there = await target((request, response) => {
    setTimeout(() => response.end(`${request.url} `.repeat(1000)), Math.random() * 20)
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(made, { ':path': `/${round}-${i}` })))
    for (const [i, { body }] of answers.entries()) assert.equal(body, `/${round}-${i} `.repeat(1000))
  }
  made.close()
})

test('large bodies go both ways, with a length and without, and each side waits for the other', async () => {
  await using there = await target((request, response) => void request.pipe(response))
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const body = pattern(5_000_000, 3)
  for (const more of [{}, { 'content-length': body.length }]) {
    const stream = made.request({ ':method': 'POST', ':path': '/', ':authority': HOST, ...more })
    stream.end(body)
    assert.equal(sha256(await soon(buffer(stream), 'the echo', 10_000)), sha256(body))
  }
  made.close()
})

test('a visitor who does not read an answer holds it back, and no other stream', async () => {
  let written = 0
  await using there = await target((request, response) => {
    if (request.url !== '/large') return void response.end('small')
    const block = Buffer.alloc(65_536)
    const write = (): void => {
      while (written < 64 * 16 && response.write(block)) written++
    }
    response.on('drain', write)
    write()
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const large = made.request({ ':path': '/large', ':authority': HOST })
  await soon(once(large, 'response'), 'the head')
  large.pause()
  let before = -1
  while (before !== written) {
    before = written
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.equal((await ask(made, { ':path': '/small' })).body, 'small')
  }
  assert.ok(written < 16 * 32, `${written / 16} MiB are kept for somebody who does not read`)
  large.close()
  made.close()
})

test('a target that does not read holds its visitor back, and no other stream', async () => {
  await using there = await target((request, response) => {
    if (request.url === '/small') response.end('small')
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const upload = made.request({ ':method': 'POST', ':path': '/large', ':authority': HOST })
  upload.on('error', () => {})
  let sent = 0
  const block = Buffer.alloc(65_536)
  const write = (): void => {
    while (sent < 64 * 16 && upload.write(block)) sent++
  }
  upload.on('drain', write)
  write()
  let before = -1
  while (before !== sent) {
    before = sent
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.equal((await ask(made, { ':path': '/small' })).body, 'small')
  }
  assert.ok(sent < 16 * 32, `${sent / 16} MiB went nowhere`)
  upload.close()
  made.close()
})

test('trailers come behind both bodies', async () => {
  await using there = await target((request, response) => {
    response.setHeader('Trailer', 'X-Sum')
    request.on('end', () => {
      response.addTrailers({ 'X-Sum': String(request.trailers['x-count']), 'Set-Cookie': 'a=1' })
      response.end()
    })
    request.pipe(response, { end: false })
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const stream = made.request(
    { ':method': 'POST', ':path': '/', ':authority': HOST },
    { waitForTrailers: true, endStream: false },
  )
  stream.once('wantTrailers', () => stream.sendTrailers({ 'x-count': '42' }))
  stream.end('body')
  const { body, trailers } = await soon(read(stream), 'the answer')
  assert.equal(body, 'body')
  assert.equal(trailers['x-sum'], '42')
  assert.ok(!('set-cookie' in trailers))
  made.close()
})

test('answers without a body have none: HEAD, 204, 304, 205, and a length of 0', async () => {
  await using there = await target((request, response) => {
    response.statusCode = Number(request.url?.slice(1)) || 200
    if (request.method === 'HEAD') response.setHeader('Content-Length', '1234')
    response.end()
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  for (const status of [200, 204, 205, 304]) {
    const answer = await ask(made, { ':path': `/${status}` })
    assert.deepEqual([answer.status, answer.body], [status, ''])
  }
  const head = await ask(made, { ':method': 'HEAD', ':path': '/200' })
  assert.deepEqual([head.status, head.headers['content-length'], head.body], [200, '1234', ''])
  assert.equal((await ask(made, { ':method': 'POST', ':path': '/200' })).status, 200)
  made.close()
})

test('a visitor who asks whether to go on is told so, and then heard', async () => {
  await using there = await target((request, response) => void request.pipe(response))
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const stream = made.request({ ':method': 'POST', ':path': '/', ':authority': HOST, expect: '100-continue' })
  await soon(once(stream, 'continue'), '100')
  stream.end('at last')
  assert.equal((await soon(read(stream), 'the answer')).body, 'at last')
  made.close()
})

test('hints of what to load meanwhile come before the answer, and only by HTTP/2', async () => {
  await using there = await target((_request, response) => {
    response.writeEarlyHints({ link: ['</a.css>; rel=preload; as=style', '</b.js>; rel=preload'] })
    response.end('page')
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const stream = made.request({ ':path': '/', ':authority': HOST })
  const hints = once(stream, 'headers')
  const { status, body } = await soon(read(stream), 'the answer')
  assert.deepEqual([status, body], [200, 'page'])
  const [headers] = await soon(hints, 'hints')
  assert.equal(headers[':status'], 103)
  assert.match(headers.link, /^<\/a\.css>; rel=preload; as=style, <\/b\.js>; rel=preload$/)
  made.close()
  const socket = await secured(port.port, 'http/1.1')
  socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`)
  assert.match(await text(socket), /^HTTP\/1.1 200 /)
})

test('a hint that nobody can read costs nothing, and of a flood of them few are passed on', async () => {
  const hint = (link: string): string => `HTTP/1.1 103 Early Hints\r\nLink: ${link}\r\n\r\n`
  const rest = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage'
  await using there = await program((socket) => {
    socket.on('data', (asked: Buffer) => {
      const isFlood = asked.includes('/flood')
      // The time that Node.js takes for it doubles with each of these.
      const hard = hint(`<x>${';a=a'.repeat(40)}"`)
      const many = hint(`</a.css>; rel="preload"${'; as=style'.repeat(20)}`).repeat(isFlood ? 1200 : 200)
      socket.write(`${hard}${many}${rest}`)
    })
    socket.on('end', () => socket.end())
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const get = (path: string): ClientHttp2Stream => made.request({ ':path': path, ':authority': HOST })
  const stream = get('/')
  let hints = 0
  stream.on('headers', (headers) => {
    hints++
    assert.match(String(headers.link), /^<\/a\.css>; rel="preload"(?:; as=style){20}$/)
  })
  assert.equal((await soon(read(stream), 'the answer')).body, 'page')
  assert.ok(hints > 0 && hints < 60, `${hints} hints`)
  assert.equal((await soon(read(get('/flood')), 'the end of it')).status, 502)
  made.close()
})

test('a stream that its visitor resets ends at the target, and only that', async () => {
  const gone: (string | undefined)[] = []
  await using there = await target((request, response) => {
    request.resume()
    response.on('close', () => response.writableFinished || gone.push(request.url))
    if (request.url === '/answering') response.write('begin')
    if (request.url === '/small') response.end('small')
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const silent = made.request({ ':path': '/silent', ':authority': HOST })
  const answering = made.request({ ':path': '/answering', ':authority': HOST })
  const sending = made.request({ ':method': 'POST', ':path': '/sending', ':authority': HOST })
  for (const stream of [silent, answering, sending]) stream.on('error', () => {})
  sending.write('x')
  await soon(once(answering, 'response'), 'the head')
  await eventually(() => there.connections() === 3, 'the target hears of all')
  silent.close(8)
  answering.close(8)
  sending.close(8)
  await eventually(() => gone.length === 3, `the target hears of ${gone}`)
  assert.equal((await ask(made, { ':path': '/small' })).body, 'small')
  made.close()
})

test('a target that breaks off in the middle is a reset, and before its answer a 502', async () => {
  await using there = await target((request, response) => {
    if (request.url === '/before') return void request.socket.destroy()
    response.setHeader('Content-Length', '100')
    response.write('begin')
    setTimeout(() => request.socket.destroy(), 20)
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  assert.equal((await ask(made, { ':method': 'POST', ':path': '/before' }, 'x')).status, 502)
  const stream = made.request({ ':path': '/middle', ':authority': HOST })
  await assert.rejects(soon(read(stream), 'the end'), { code: 'ERR_HTTP2_STREAM_ERROR' })
  assert.equal(stream.rstCode, 2)
  made.close()
})

test('an answer that comes before the end of its request arrives whole', async () => {
  const body = pattern(500_000, 5)
  await using there = await target((_request, response) => {
    response.statusCode = 413
    response.end(body)
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const stream = made.request({ ':method': 'POST', ':path': '/', ':authority': HOST })
  stream.on('error', () => {})
  stream.write(Buffer.alloc(100_000))
  const [[headers], got] = await soon(Promise.all([once(stream, 'response'), buffer(stream)]), 'the answer')
  assert.equal(headers[':status'], 413)
  assert.equal(sha256(got), sha256(body))
  await eventually(() => stream.closed, 'the end of the stream')
  // Nothing of it gets into the next one.
  for (let round = 0; round < 5; round++) {
    const next = await ask(made, { ':path': '/next' })
    assert.deepEqual([next.status, next.body.length > 0], [413, true])
  }
  made.close()
})

test('an answer arrives piece by piece', async () => {
  let next: () => void = () => {}
  await using there = await target((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    next = () => response.write('data: x\n\n')
  })
  await using port = await securePort()
  await port.listen('/', there.port)
  const made = await session(port.port)
  const stream = made.request({ ':path': '/', ':authority': HOST })
  await soon(once(stream, 'response'), 'the head')
  for (let round = 0; round < 3; round++) {
    next()
    const [chunk] = await soon(once(stream, 'data') as Promise<[Buffer]>, 'an event')
    assert.equal(String(chunk), 'data: x\n\n')
  }
  stream.close()
  made.close()
})

test('nobody behind a name, no name, and what is not clear have the same pages as over HTTP/1.1', async () => {
  const gone = await target(() => {})
  await gone[Symbol.asyncDispose]()
  await using port = await securePort()
  await port.listen('/gone', gone.port)
  const made = await session(port.port)
  for (const [headers, status] of [
    [{ ':path': '/gone' }, 502],
    [{ ':path': '/else' }, 404],
    [{ ':path': '/gone/%2e%2e/x' }, 400],
    [{ ':path': '/gone', ':method': 'FOO' }, 400],
    [{ ':path': '/gone', host: 'other.example.com' }, 400],
    [{ ':path': '/symport', 'sec-websocket-key': 'x' }, 426],
  ] as const) {
    const answer = await ask(made, headers)
    assert.equal(answer.status, status, JSON.stringify(headers))
    assert.ok(!('connection' in answer.headers) && !('upgrade' in answer.headers))
  }
  const tunnel = made.request({ ':method': 'CONNECT', ':authority': 'example.com:443' })
  const [headers] = await soon(once(tunnel, 'response'), 'the refusal')
  assert.equal(headers[':status'], 400)
  tunnel.close()
  assert.equal((await ask(made, { ':path': '/else' })).status, 404, 'the connection goes on')
  made.close()
})

test('421 for a host that is neither asked for by the connection nor in its certificate; others may share it', async () => {
  await using there = await target((request, response) => response.end(request.headers.host))
  await using port = await securePort({
    trustedProxies: [],
    routes: (host) => host === 'db.pages.example.com',
  })
  await port.listen('/', there.port)
  const asked = async (authority: string, servername?: string): Promise<number> => {
    const made = await session(port.port, servername)
    const { status } = await ask(made, { ':path': '/', ':authority': authority })
    made.close()
    return status
  }
  const port443 = `${HOST}:443`
  assert.equal(await asked(port443), 200)
  assert.equal(await asked('SHOP.example.com.'), 200)
  assert.equal(await asked('a.pages.example.com'), 200, 'the certificate is for it')
  assert.equal(await asked('pages.example.com'), 421)
  assert.equal(await asked('bank.example.com'), 421)
  assert.equal(await asked('127.0.0.1'), 421)
  assert.equal(await asked('other.org', 'other.org'), 200, 'it is what the connection was made for')
  assert.equal(await asked('db.pages.example.com'), 421, 'its TLS ends elsewhere')
  // The same of HTTP/1.1.
  for (const [host, status] of [
    [HOST, 200],
    ['a.pages.example.com:8443', 200],
    ['bank.example.com', 421],
    ['db.pages.example.com', 421],
  ] as const) {
    const socket = await secured(port.port, 'http/1.1')
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    assert.match(await text(socket), new RegExp(`^HTTP/1.1 ${status} `), host)
  }
  const upgrade = 'Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x'
  const socket = await secured(port.port, 'http/1.1')
  socket.write(`GET /x HTTP/1.1\r\nHost: bank.example.com\r\n${upgrade}\r\n\r\n`)
  assert.match(await text(socket), /^HTTP\/1.1 421 /)
})

test('a proxy that is trusted may ask for any host', async () => {
  await using there = await target((request, response) => response.end(request.headers['x-forwarded-for']))
  await using port = await securePort({ trustedProxies: ['127.0.0.1'] })
  await port.listen('/', there.port)
  const made = await session(port.port)
  const answer = await ask(made, {
    ...{ ':path': '/', ':authority': 'bank.example.com', 'x-forwarded-for': '203.0.113.9' },
  })
  assert.deepEqual([answer.status, answer.body], [200, '203.0.113.9'])
  made.close()
})

test('HTTP/2 is agreed on in TLS, for who serves requests, and by nobody else', async () => {
  await using port = await securePort()
  const agreed = async (at: number, protocols: string[]): Promise<unknown> => {
    const socket = tlsConnect({ port: at, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: protocols })
    await once(socket, 'secureConnect')
    socket.destroy()
    return socket.alpnProtocol
  }
  assert.equal(await agreed(port.port, ['h2', 'http/1.1']), 'h2')
  assert.equal(await agreed(port.port, ['http/1.1']), 'http/1.1')
  assert.equal(await agreed(port.port, ['symport', 'h2']), 'symport')
  await using nothing = await securePort({ onRequest: undefined })
  assert.equal(await agreed(nothing.port, ['h2', 'http/1.1']), 'http/1.1')
})

test('a session in the clear is refused, and so is one that was not agreed on', async () => {
  await using there = await target((_request, response) => response.end('served'))
  await using port = await securePort()
  await port.listen('/', there.port)
  const preface = Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from('000000040000000000', 'hex'),
  ])
  const { connect: plain } = await import('node:net')
  const sockets: Socket[] = [plain(port.port, '127.0.0.1'), await secured(port.port, 'http/1.1')]
  for (const socket of sockets) {
    socket.on('error', () => {})
    socket.write(preface)
    assert.match(await soon(text(socket), 'the refusal'), /^(?:HTTP\/1\.1 400 |$)/)
  }
  const offer = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n'
  const socket = plain(port.port, '127.0.0.1')
  socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n${offer}\r\n`)
  assert.match(await soon(text(socket), 'an answer'), /^HTTP\/1\.1 200 OK.*served$/s)
})
