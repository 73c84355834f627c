import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import type { HttpSettings } from '../../lib/domains/http-settings.ts'
import { hashPassword } from '../../lib/domains/web-auth.ts'
import { echo, readAll } from '../helpers/contract/programs.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ask, target, webPort } from '../helpers/contract/web-port.ts'
import { basic, listenRuled, listenWith } from '../helpers/contract/web-ruled.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'

/** What stands in front of a target at the web port. */

watchForStrays()

const headersBack = () => target((request, response) => response.end(JSON.stringify(request.rawHeaders)))
const secret = hashPassword('correct horse')

function pairsOf(body: string): string[] {
  const raw: string[] = JSON.parse(body)
  return raw.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${raw[i + 1]}`] : []))
}

const upgrade = (headers = '', path = '/'): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n` +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n${headers}\r\n`

async function answerTo(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(bytes)
  return await soon(text(socket), 'the answer')
}

test('without the password there is a 401, with it the target, which is not told it', async () => {
  await using there = await headersBack()
  await using port = await webPort()
  await listenWith(port, there.port, { basicAuth: { ann: await secret, josé: await hashPassword('Ünïcode: ✓') } })
  const refused = await ask(port.port, '/')
  assert.equal(refused.status, 401)
  assert.equal(refused.headers['www-authenticate'], 'Basic realm="restricted", charset="UTF-8"')
  assert.equal(refused.headers['cache-control'], 'no-store')
  for (const [name, password] of [
    ['ann', 'correct horse'],
    ['josé', 'Ünïcode: ✓'],
    // The same, as another keyboard composes it.
    ['josé'.normalize('NFD'), 'Ünïcode: ✓'.normalize('NFD')],
  ] as const) {
    const answer = await ask(port.port, '/', { headers: basic(name, password) })
    assert.equal(answer.status, 200, name)
    assert.doesNotMatch(answer.body, /authorization/i)
  }
  for (const headers of [
    basic('ann', 'wrong'),
    basic('bob', 'correct horse'),
    basic('__proto__', 'correct horse'),
    { authorization: 'Basic' },
    { authorization: 'Basic !!!' },
    { authorization: `Basic ${Buffer.from([0x61, 0x3a, 0xff]).toString('base64')}` },
    { authorization: `Bearer ${await secret}` },
  ]) {
    assert.equal((await ask(port.port, '/', { headers })).status, 401, JSON.stringify(headers))
  }
  assert.equal(there.connections(), 1)
})

test('a preflight has no password, and is no exception; nor is a body that goes with a request', async () => {
  await using there = await headersBack()
  await using port = await webPort()
  await listenWith(port, there.port, { basicAuth: { ann: await secret } })
  const headers = { origin: 'https://page.test', 'access-control-request-method': 'PUT' }
  assert.equal((await ask(port.port, '/', { method: 'OPTIONS', headers })).status, 401)
  const got = await answerTo(port.port, 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly some')
  assert.match(got, /^HTTP\/1\.1 401 [\s\S]*connection: close\r\n/i)
  assert.equal(there.connections(), 0)
})

test('WebSockets are asked for the password too, those of streams among them', async () => {
  await using there = await target(() => {})
  there.server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    socket.end(`HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n${request.rawHeaders}`)
  })
  await using bytes = await echo()
  await using port = await webPort()
  const settings: HttpSettings = { basicAuth: { ann: await secret } }
  await listenRuled(port, '/', there.port, () => settings)
  await listenRuled(port, '/raw', bytes.port, () => settings, 'ws')
  const known = `Authorization: ${basic('ann', 'correct horse').authorization}\r\n`
  for (const path of ['/', '/raw']) {
    assert.match(await answerTo(port.port, upgrade('', path)), /^HTTP\/1\.1 401 /)
    assert.match(
      await answerTo(port.port, upgrade(known.replace('QW', 'Zz').replace('YW', 'Zz'), path)),
      /^HTTP\/1\.1 401 /,
    )
  }
  assert.equal((await ask(port.port, '/raw')).status, 401)
  assert.equal(bytes.sockets.size, 0)
  const got = await answerTo(port.port, upgrade(known))
  assert.match(got, /^HTTP\/1\.1 101 /)
  assert.doesNotMatch(got, /authorization/i)
  const socket = connect(port.port, '127.0.0.1')
  socket.write(upgrade(known, '/raw'))
  const [first] = await soon(once(socket, 'data'), 'the answer')
  assert.match(String(first), /^HTTP\/1\.1 101 /)
  socket.destroy()
})

test('who has tried ten wrong passwords waits; who was let in before does not, and nobody else', async () => {
  using _scrypt = cheapScrypt()
  await using there = await headersBack()
  await using port = await webPort({}, { trustedProxies: ['127.0.0.1'] })
  await listenWith(port, there.port, { basicAuth: { ann: await hashPassword('correct horse') } })
  const as = (ip: string, password: string): Promise<{ status: number; headers: Record<string, unknown> }> =>
    ask(port.port, '/', { headers: { ...basic('ann', password), 'x-forwarded-for': ip } })
  assert.equal((await as('192.0.2.9', 'correct horse')).status, 200)
  const tried = await Promise.all(Array.from({ length: 14 }, (_, i) => as('192.0.2.1', `wrong ${i}`)))
  assert.equal(tried.filter(({ status }) => status === 401).length, 10)
  const late = tried.filter(({ status }) => status === 429)
  assert.equal(late.length, 4)
  for (const { headers } of late) assert.ok(Number(headers['retry-after']) > 0)
  // What somebody else knows is not known here.
  assert.equal((await as('192.0.2.1', 'correct horse')).status, 429)
  assert.equal((await as('192.0.2.9', 'correct horse')).status, 200)
  assert.equal((await as('192.0.2.2', 'wrong')).status, 401)
})

test('headers are set and taken away in both directions, however they are spelled, and from the next request on', async () => {
  await using there = await target((request, response) => {
    response.setHeader('X-Powered-By', 'it')
    response.setHeader('Set-Cookie', ['a=1', 'b=2'])
    response.end(JSON.stringify(request.rawHeaders))
  })
  await using port = await webPort()
  let settings: HttpSettings = {
    requestHeaders: { 'X-User': 'ann', Cookie: null, authorization: 'Bearer ours' },
    responseHeaders: { 'x-powered-by': null, 'Set-Cookie': 'c=3', 'Strict-Transport-Security': 'max-age=1' },
  }
  await listenRuled(port, '/', there.port, () => settings)
  const headers = { 'x-user': 'root', X_User: 'root', cookie: 'a=b', authorization: 'Basic eDp5', 'x-other': '1' }
  const first = await ask(port.port, '/', { headers })
  const sent = pairsOf(first.body)
  assert.deepEqual(
    sent.filter((line) => /user|cookie|authorization|other/i.test(line)),
    ['x-other: 1', 'X-User: ann', 'authorization: Bearer ours'],
  )
  assert.equal(first.headers['x-powered-by'], undefined)
  assert.deepEqual(first.headers['set-cookie'], ['c=3'])
  assert.equal(first.headers['strict-transport-security'], 'max-age=1')
  settings = {}
  const second = await ask(port.port, '/', { headers })
  assert.ok(pairsOf(second.body).includes('x-user: root'))
  assert.equal(second.headers['x-powered-by'], 'it')
})

test('no trailer says what a rule is about', async () => {
  await using there = await target((request, response) => {
    request.resume()
    request.on('end', () => {
      response.writeHead(200, { trailer: 'x-version, x-sum' })
      response.write(JSON.stringify(request.trailers))
      response.addTrailers({ 'x-version': '7', 'x-sum': '1' })
      response.end()
    })
  })
  await using port = await webPort()
  await listenWith(port, there.port, { requestHeaders: { 'x-user': 'ann' }, responseHeaders: { 'x-version': null } })
  const head =
    'POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-user, x-a\r\n\r\n'
  const got = await answerTo(port.port, `${head}1\r\nb\r\n0\r\nx_user: root\r\nx-a: 1\r\n\r\n`)
  assert.match(got, /\{"x-a":"1"\}/)
  assert.match(got, /x-sum: 1\r\n/)
  assert.doesNotMatch(got, /x-version: 7/)
})

test('rewrite: the target is asked by its own name, and leads visitors back to theirs', async () => {
  await using there = await target((request, response) => {
    const own = request.headers.host
    response.setHeader('Location', `http://${own}/login?next=${encodeURIComponent(`http://${own}/`)}`)
    response.setHeader('Set-Cookie', ['a=1; Path=/; Domain=127.0.0.1; HttpOnly', 'b=2; domain=.other.test'])
    response.end(JSON.stringify(request.rawHeaders))
  })
  await using port = await webPort()
  await listenWith(port, there.port, { hostHeader: 'rewrite' })
  const own = `127.0.0.1:${there.port}`
  const answer = await ask(port.port, '/', { host: 'app.example.test:8080' })
  const sent = pairsOf(answer.body)
  assert.equal(sent[0], `Host: ${own}`)
  assert.ok(sent.includes('X-Forwarded-Host: app.example.test:8080'))
  assert.ok(sent.includes('X-Forwarded-Port: 8080'))
  assert.equal(
    answer.headers.location,
    `http://app.example.test:8080/login?next=${encodeURIComponent(`http://${own}/`)}`,
  )
  assert.deepEqual(answer.headers['set-cookie'], ['a=1; Path=/; HttpOnly', 'b=2; domain=.other.test'])
})

test('another host is told as it is written, also to a WebSocket', async () => {
  await using there = await headersBack()
  there.server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    socket.end(`HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n${request.headers.host}`)
  })
  await using port = await webPort()
  await listenWith(port, there.port, { hostHeader: 'intern.test' })
  assert.equal(pairsOf((await ask(port.port, '/')).body)[0], 'Host: intern.test')
  assert.match(await answerTo(port.port, upgrade()), /\r\n\r\nintern\.test$/)
})

test('maintenance: everybody gets 503, a WebSocket too, and the target nothing', async () => {
  await using there = await headersBack()
  await using port = await webPort()
  let settings: HttpSettings = { maintenance: true, basicAuth: { ann: await secret } }
  await listenRuled(port, '/', there.port, () => settings)
  const own = await ask(port.port, '/')
  assert.equal(own.status, 503)
  assert.equal(own.headers['retry-after'], '120')
  assert.equal(own.headers['cache-control'], 'no-store')
  assert.match(own.body, /back/)
  assert.match((await ask(port.port, '/', { headers: { accept: 'text/html' } })).body, /^<!doctype html>/)
  assert.match(await answerTo(port.port, upgrade()), /^HTTP\/1\.1 503 [\s\S]*retry-after: 120\r\n/i)
  settings = { maintenance: '<h1>Zurück um 5</h1>' }
  const page = await ask(port.port, '/', { method: 'POST', body: 'x' })
  assert.deepEqual([page.status, page.body], [503, '<h1>Zurück um 5</h1>'])
  assert.equal(page.headers['content-type'], 'text/html; charset=utf-8')
  settings = { maintenance: 'back at 5' }
  const line = await ask(port.port, '/')
  assert.deepEqual([line.body, line.headers['content-type']], ['back at 5', 'text/plain; charset=utf-8'])
  assert.equal(there.connections(), 0)
  settings = { maintenance: false }
  assert.equal((await ask(port.port, '/')).status, 200)
})

test('what is compressed passes byte for byte, and what a visitor accepts is said to the target', async () => {
  const plain = Buffer.from('all work and no play '.repeat(1000))
  const bodies: Record<string, Buffer> = { gzip: gzipSync(plain), br: brotliCompressSync(plain) }
  await using there = await target((request, response) => {
    const coding = String(request.headers['accept-encoding'])
    response.setHeader('Content-Encoding', coding).setHeader('ETag', '"1"').end(bodies[coding])
  })
  await using port = await webPort()
  await listenWith(port, there.port, { requestHeaders: { 'x-a': 'b' }, responseHeaders: { 'x-a': 'b' } })
  for (const [coding, body] of Object.entries(bodies)) {
    const socket = connect(port.port, '127.0.0.1')
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: ${coding}\r\nConnection: close\r\n\r\n`)
    const got = await soon(readAll(socket), 'the answer')
    const end = got.indexOf('\r\n\r\n')
    assert.match(got.toString('latin1', 0, end), new RegExp(`content-encoding: ${coding}\r\netag: "1"`, 'i'))
    assert.match(got.toString('latin1', 0, end), new RegExp(`content-length: ${body.length}`, 'i'))
    assert.deepEqual(got.subarray(end + 4), body)
  }
})

test('settings that make no sense let nobody in', async () => {
  await using there = await headersBack()
  await using port = await webPort()
  for (const [at, settings] of [
    ['/a', { basicAuth: { ann: 'correct horse' } }],
    ['/b', { basicAuth: {} }],
    ['/c', { requestHeaders: { host: 'evil' } }],
    ['/d', 'x'],
  ] as const) {
    await listenRuled(port, at, there.port, () => settings)
    assert.equal((await ask(port.port, at, { headers: basic('ann', 'correct horse') })).status, 503, at)
  }
  assert.equal(there.connections(), 0)
})
