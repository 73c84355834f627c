import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { test } from 'node:test'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import type { HttpSettings } from '../../lib/domains/http-settings.ts'
import { hashPassword } from '../../lib/domains/web-auth.ts'
import { last, lastExchange, listenInspected, values } from '../helpers/contract/inspected.ts'
import { eventually, watchForStrays } from '../helpers/contract/strays.ts'
import { ask, target, webPort } from '../helpers/contract/web-port.ts'

/** The last requests and answers, through a server's one port to targets behind a node. */

watchForStrays()

const FORM = { 'content-type': 'application/x-www-form-urlencoded' }

test('a request and its answer are recorded as they passed, with secrets masked', async () => {
  await using there = await target((request, response) => {
    request.resume().on('end', () => {
      response.setHeader('Set-Cookie', 'sid=s3cret-sid; Path=/')
      response.setHeader('Content-Type', 'application/json')
      response.statusMessage = 'Made'
      response.statusCode = 201
      response.end('{"token":"s3cret-answer","n":1}')
    })
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const headers = { ...FORM, authorization: 'Bearer s3cret-bearer', 'x-own': 'yes' }
  await ask(port.port, '/a?q=1&key=s3cret-key', { method: 'POST', headers, body: 'user=u&password=s3cret-form' })
  const inspection = await port.web.inspection()
  const exchange = await lastExchange(inspection)
  assert.match(exchange.id, /^[a-z]{3}1$/)
  const { mapping, method, url, status, by, state, bytesIn, bytesOut } = exchange
  assert.deepEqual(
    { mapping, method, url, status, by, state, bytesIn, bytesOut },
    {
      ...{ mapping: '7', method: 'POST', url: 'http://example.test/a?q=1&key=***', status: 201, by: 'target' },
      ...{ state: 'done', bytesIn: 27, bytesOut: 31 },
    },
  )
  assert.match(exchange.from ?? '', /^127\.0\.0\.1:\d+$/)
  assert.ok((exchange.waited ?? -1) >= 0 && (exchange.took ?? -1) >= (exchange.waited ?? 0))
  assert.deepEqual(values(exchange.request, 'authorization'), ['Bearer ***'])
  assert.deepEqual(values(exchange.request, 'x-own'), ['yes'])
  assert.equal(exchange.request.body?.text, 'user=u&password=***')
  assert.equal(exchange.answer?.reason, 'Made')
  assert.deepEqual(values(exchange.answer, 'set-cookie'), ['sid=***; Path=/'])
  assert.equal(exchange.answer?.body?.text, '{"token":"***","n":1}')
  const har = await inspection.har({}, '1')
  const curl = await inspection.curl(exchange.id)
  for (const shown of [exchange, har, curl, inspection.list({})]) {
    assert.doesNotMatch(JSON.stringify(shown), /s3cret/)
  }
  assert.deepEqual(curl.placeholders, ['MASKED_AUTHORIZATION', 'MASKED_KEY', 'MASKED_PASSWORD'])
})

test('nothing is recorded where it is not asked for, and it is asked for while all runs', async () => {
  await using there = await target((_request, response) => response.end('ok'))
  await using port = await webPort()
  let inspect: boolean | undefined
  await listenInspected(port, there.port, { settings: (): HttpSettings => (inspect === undefined ? {} : { inspect }) })
  const inspection = await port.web.inspection()
  await ask(port.port, '/1')
  inspect = false
  await ask(port.port, '/2')
  assert.deepEqual(inspection.list({}), [])
  inspect = true
  await ask(port.port, '/3')
  assert.match((await last(inspection)).url, /\/3$/)
  inspect = false
  await ask(port.port, '/4')
  assert.equal(inspection.list({}).length, 1)
  assert.equal(inspection.clear({ mapping: 'other' }), 0)
  assert.equal(inspection.clear({ mapping: '7' }), 1)
  assert.deepEqual(inspection.list({}), [])
})

test('of a body as much is kept as is allowed, and the rest passes', async () => {
  const size = 300_000
  await using there = await target((request, response) => {
    request.resume().on('end', () => response.end(Buffer.alloc(size, 'b')))
  })
  await using port = await webPort({ inspect: { bodyBytes: 1000 } })
  await listenInspected(port, there.port)
  const answer = await ask(port.port, '/', { method: 'PUT', body: Buffer.alloc(size, 'a') })
  assert.equal(answer.body.length, size)
  const inspection = await port.web.inspection()
  const { id, request: asked, answer: answered } = await lastExchange(inspection)
  assert.deepEqual([asked.body?.size, asked.body?.truncated, asked.body?.text.length], [size, true, 1000])
  assert.deepEqual([answered?.body?.size, answered?.body?.truncated, answered?.body?.text.length], [size, true, 1000])
  await assert.rejects(inspection.replay(id), { code: 'PROXY_ERR_REPLAY', message: /only the beginning was kept/ })
  assert.match((await inspection.curl(id)).notes.join(), /not kept whole \(300000 bytes/)
})

test('compressed bodies are decoded to be shown, bombs up to a limit; binary ones are base64', async () => {
  const bodies: Record<string, [string, Buffer]> = {
    '/gzip': ['gzip', gzipSync('{"password":"x","a":1}')],
    '/br': ['br', brotliCompressSync('text')],
    '/bomb': ['gzip', gzipSync(Buffer.alloc(30_000_000))],
    '/lie': ['gzip', Buffer.from('plain text')],
    '/binary': ['identity', Buffer.from([0xff, 0xfe, 0, 1])],
  }
  await using there = await target((request, response) => {
    const [coding, body] = bodies[request.url ?? ''] ?? ['', Buffer.alloc(0)]
    response.writeHead(200, { 'content-encoding': coding, 'content-type': 'application/json' }).end(body)
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const inspection = await port.web.inspection()
  const shown = async (path: string) => {
    await ask(port.port, path)
    await eventually(() => inspection.list({ path, limit: 1 })[0]?.state === 'done', 'recorded')
    return (await lastExchange(inspection)).answer?.body
  }
  const gzip = await shown('/gzip')
  assert.deepEqual([gzip?.coding, gzip?.text, gzip?.truncated], ['gzip', '{"password":"***","a":1}', false])
  assert.equal((await shown('/br'))?.text, 'text')
  const bomb = await shown('/bomb')
  assert.equal(bomb?.truncated, true)
  assert.ok((bomb?.text.length ?? 0) < 400_000)
  assert.deepEqual([(await shown('/lie'))?.text, (await shown('/lie'))?.coding], ['plain text', undefined])
  const binary = await shown('/binary')
  assert.deepEqual([binary?.encoding, binary?.text], ['base64', '//4AAQ=='])
})

test('what the server answers itself is recorded too, and why', async () => {
  await using there = await target((_request, response) => response.end())
  await using port = await webPort()
  let settings: HttpSettings = { inspect: true, maintenance: true }
  await listenInspected(port, there.port, { settings: () => settings })
  const inspection = await port.web.inspection()
  await ask(port.port, '/m', { method: 'POST', body: 'not read' })
  const page = await last(inspection)
  assert.deepEqual([page.status, page.by], [503, 'here'])
  await assert.rejects(inspection.replay(page.id), { code: 'PROXY_ERR_REPLAY', message: /its body was not read/ })
  settings = { inspect: true }
  there.server.close()
  there.server.closeAllConnections()
  await ask(port.port, '/gone')
  const gone = await last(inspection)
  assert.deepEqual([gone.status, gone.by], [502, 'here'])
  assert.match(gone.problem ?? '', /nothing listens/)
})

test('a request is replayed with its secrets, by the rules of now, and becomes an entry of its own', async () => {
  const seen: [string | undefined, string | undefined, string | undefined, string][] = []
  await using there = await target((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => {
      const { authorization, host, 'x-rule': rule } = request.headers
      seen.push([authorization, host, rule?.toString(), Buffer.concat(chunks).toString('latin1')])
      response.end(`answer ${seen.length}`)
    })
  })
  await using port = await webPort()
  let settings: HttpSettings = { inspect: true }
  const listener = await listenInspected(port, there.port, { settings: () => settings })
  const inspection = await port.web.inspection()
  const body = Buffer.from([0, 1, 0xff, 10, 13])
  const outgoing = request({
    port: port.port,
    path: '/x',
    method: 'POST',
    headers: { host: 'a.test', authorization: 'Bearer t' },
  })
  outgoing.write(body.subarray(0, 2))
  outgoing.end(body.subarray(2))
  const [message] = await once(outgoing, 'response')
  message.resume()
  const first = await last(inspection)
  settings = { inspect: false, requestHeaders: { 'X-Rule': 'new' } }
  const again = await inspection.replay(first.id)
  assert.equal(again.replayOf, first.id)
  assert.notEqual(again.id, first.id)
  assert.equal(again.answer?.body?.text, 'answer 2')
  assert.equal(again.from, first.from)
  const said = body.toString('latin1')
  assert.deepEqual(seen, [
    ['Bearer t', 'a.test', undefined, said],
    ['Bearer t', 'a.test', 'new', said],
  ])
  assert.doesNotMatch(JSON.stringify(again), /Bearer t"/)
  assert.equal((await inspection.replay(again.id)).replayOf, again.id)
  await listener.close()
  await assert.rejects(inspection.replay(first.id), { code: 'PROXY_ERR_REPLAY', message: /nobody listens for a\.test/ })
  await assert.rejects(inspection.replay('bcd9'), { code: 'PROXY_ERR_NOT_FOUND' })
})

test('only so many are replayed at once, and one that is never answered is given up', async () => {
  await using there = await target(() => {})
  await using port = await webPort({ answerTimeout: 300 })
  await listenInspected(port, there.port)
  const inspection = await port.web.inspection()
  await ask(port.port, '/')
  const { id } = await last(inspection)
  const tries = await Promise.allSettled(Array.from({ length: 10 }, () => inspection.replay(id)))
  const refused = tries.filter((one) => one.status === 'rejected').map(({ reason }) => reason.retryable)
  assert.deepEqual(refused, [true, true])
  for (const one of tries) if (one.status === 'fulfilled') assert.equal(one.value.status, 504)
})

test('a WebSocket is listed while it lasts, and cannot be replayed', async () => {
  await using there = await target((_request, response) => response.end())
  there.server.on('upgrade', (_request, socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi')
    socket.on('data', () => socket.end())
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const socket = connect(port.port, '127.0.0.1')
  socket.write('GET /live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
  await once(socket, 'data')
  const inspection = await port.web.inspection()
  const [open] = inspection.list({})
  assert.deepEqual([open?.state, open?.status, open?.websocket], ['open', 101, true])
  await assert.rejects(inspection.replay(open?.id ?? ''), { code: 'PROXY_ERR_REPLAY', message: /WebSocket/ })
  socket.write('bye')
  await once(socket, 'close')
  assert.equal((await last(inspection)).state, 'done')
})

test('a visitor who leaves is told from one who got the answer', async () => {
  await using there = await target((request, response) => {
    if (request.url === '/half') response.write('half')
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const inspection = await port.web.inspection()
  const outgoing = request({ port: port.port, path: '/half' }).end()
  const [message] = await once(outgoing, 'response')
  await once(message, 'data')
  outgoing.on('error', () => {})
  outgoing.destroy()
  const half = await lastExchange(inspection)
  assert.deepEqual([half.state, half.status, half.answer?.body?.truncated], ['cut', 200, true])
  const other = request({ port: port.port, path: '/none' }).end()
  other.on('error', () => {})
  await eventually(() => inspection.list({}).length === 2, 'it came')
  other.destroy()
  const none = await last(inspection)
  assert.deepEqual([none.state, none.status, none.by], ['cut', undefined, undefined])
})

test('what is kept is bounded in number and bytes, and a busy listener does not cost the others theirs', async () => {
  await using there = await target((request, response) => {
    request.resume().on('end', () => response.end(Buffer.alloc(20_000)))
  })
  await using port = await webPort({ inspect: { mostOfOne: 20, mostBytes: 200_000, bodyBytes: 10_000 } })
  await listenInspected(port, there.port, { at: '/quiet', name: '1' })
  await listenInspected(port, there.port, { at: '/busy', name: '2' })
  const inspection = await port.web.inspection()
  await ask(port.port, '/quiet')
  for (let i = 0; i < 30; i++) await ask(port.port, `/busy/${i}`, { method: 'POST', body: Buffer.alloc(20_000) })
  await last(inspection)
  const busy = inspection.list({ mapping: '2', limit: 1000 })
  assert.ok(busy.length < 10, `${busy.length} of them with 20,000 bytes each`)
  assert.equal(busy[0]?.url, 'http://example.test/busy/29')
  assert.equal(inspection.list({ mapping: '1' }).length, 1)
  for (let i = 0; i < 30; i++) await ask(port.port, '/nobody')
  assert.equal(inspection.list({ mapping: '2', limit: 1000 }).length, busy.length)
})

test('whoever is turned away pushes nobody out of the list', async () => {
  await using there = await target((_request, response) => response.end('ok'))
  await using port = await webPort({ inspect: { mostOfOne: 10, mostRefused: 3 } })
  const basicAuth = { ann: await hashPassword('pw') }
  await listenInspected(port, there.port, { settings: () => ({ inspect: true, basicAuth }) })
  const inspection = await port.web.inspection()
  const headers = { authorization: `Basic ${Buffer.from('ann:pw').toString('base64')}` }
  assert.equal((await ask(port.port, '/in', { headers })).status, 200)
  for (let i = 0; i < 30; i++) assert.equal((await ask(port.port, `/out/${i}`)).status, 401)
  await eventually(() => inspection.list({})[0]?.url.endsWith('/out/29') === true, 'the last one is not there')
  assert.deepEqual(
    inspection.list({}).map(({ url, status, by }) => [new URL(url).pathname, status, by]),
    [
      ['/out/29', 401, 'here'],
      ['/out/28', 401, 'here'],
      ['/out/27', 401, 'here'],
      ['/in', 200, 'target'],
    ],
  )
})

test('what is asked for is found', async () => {
  await using there = await target((request, response) => {
    response.statusCode = Number(request.url?.slice(1, 4))
    response.end()
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const inspection = await port.web.inspection()
  for (const [path, method, host] of [
    ['/200?token=abc', 'GET', 'a.test:81'],
    ['/404', 'DELETE', 'a.test'],
    ['/500', 'GET', 'b.test'],
    ['/503', 'GET', 'b.test'],
  ] as const) {
    await ask(port.port, path, { method, host })
  }
  await last(inspection)
  const paths = (query: Parameters<typeof inspection.list>[0]): string[] =>
    inspection.list(query).map(({ url }) => new URL(url).pathname)
  assert.deepEqual(paths({}), ['/503', '/500', '/404', '/200'])
  assert.deepEqual(paths({ limit: 2 }), ['/503', '/500'])
  assert.deepEqual(paths({ status: '5xx' }), ['/503', '/500'])
  assert.deepEqual(paths({ status: '404' }), ['/404'])
  assert.deepEqual(paths({ method: 'delete' }), ['/404'])
  assert.deepEqual(paths({ host: 'A.test' }), ['/404', '/200'])
  assert.deepEqual(paths({ host: 'a.test:81' }), ['/200'])
  assert.deepEqual(paths({ path: '/20' }), ['/200'])
  assert.deepEqual(paths({ path: 'abc' }), [], 'secrets are not to be guessed')
  const [, newer, older] = inspection.list({})
  assert.deepEqual(paths({ since: older?.id }), ['/503', '/500'])
  assert.deepEqual(paths({ since: newer?.time, status: '4xx' }), [])
  assert.deepEqual(paths({ mapping: '8' }), [])
})
