import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { type StrictRequest, strictTarget } from '../helpers/contract/strict-target.ts'
import { ask, target, webPort } from '../helpers/contract/web-port.ts'
import { projectPath } from '../helpers/core/project.ts'

/** HTTP through the server's one port, to targets behind a node. */

watchForStrays()

const echoPath = () => target((request, response) => response.end(request.url))

test("the seed's four examples", async () => {
  await using there = await echoPath()
  await using port = await webPort()
  await port.listen('/api', there.port)
  assert.equal((await ask(port.port, '/api/greet')).body, '/greet')
  assert.equal((await ask(port.port, '/api/greet?a=%2f..&b')).body, '/greet?a=%2f..&b')
  await port.listen('/base?base=/api/', there.port)
  assert.equal((await ask(port.port, '/base/greet')).body, '/api/greet')
  await port.listen('customwsp.com', there.port)
  assert.equal((await ask(port.port, '/api/greet', { host: 'customwsp.com:8010' })).body, '/api/greet')
  await port.listen('customapi.com?base=/api/', there.port)
  assert.equal((await ask(port.port, '/greet', { host: 'CustomAPI.com' })).body, '/api/greet')
})

test('a visitor gets the answer as the target gives it, and the target the request as the visitor sends it', async () => {
  await using there = await target((request, response) => {
    response.setHeader('Set-Cookie', ['a=1', 'b=2'])
    response.setHeader('Keep-Alive', 'timeout=1')
    response.statusMessage = 'All Right'
    response.end(JSON.stringify(request.rawHeaders))
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const answer = await ask(port.port, '/', {
    headers: {
      'X-Forwarded-For': '6.6.6.6',
      X_Forwarded_For: '6.6.6.6',
      Forwarded: 'for=6.6.6.6',
      'X-Real-IP': '6.6.6.6',
      'X-Forwarded-Prefix': '/evil',
      'X-Own': 'yes',
      'X-Hop': 'no',
      Connection: 'close, X-Hop',
      TE: 'trailers',
      'Proxy-Authorization': 'Basic x',
    },
  })
  assert.equal(answer.message.statusMessage, 'All Right')
  assert.deepEqual(answer.headers['set-cookie'], ['a=1', 'b=2'])
  assert.equal(answer.headers['keep-alive'], undefined)
  const raw: string[] = JSON.parse(answer.body)
  const pairs = raw.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${raw[i + 1]}`] : []))
  assert.deepEqual(pairs, [
    'Host: example.test',
    'X-Own: yes',
    'X-Forwarded-For: 127.0.0.1',
    'X-Real-IP: 127.0.0.1',
    'X-Forwarded-Proto: http',
    'X-Forwarded-Host: example.test',
    'X-Forwarded-Port: 80',
    'Connection: keep-alive',
  ])
})

test('large bodies go through both ways, in chunks and by their length', async () => {
  await using there = await target((request, response) => void request.pipe(response))
  await using port = await webPort()
  await port.listen('/', there.port)
  const body = pattern(3_000_000, 1)
  for (const headers of [{}, { 'content-length': String(body.length) }]) {
    const outgoing = request({ port: port.port, method: 'POST', headers: { host: 'x', ...headers } })
    outgoing.end(body)
    const [message] = await once(outgoing, 'response')
    assert.equal(sha256(await readAll(message)), sha256(body))
  }
})

test('an answer arrives piece by piece', async () => {
  let next: () => void = () => {}
  await using there = await target((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    next = () => response.write('data: x\n\n')
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const outgoing = request({ port: port.port, headers: { host: 'x' } }).end()
  const [message] = await soon(once(outgoing, 'response'), 'the head')
  for (let round = 0; round < 3; round++) {
    next()
    const [chunk] = await soon(once(message, 'data'), 'an event')
    assert.equal(String(chunk), 'data: x\n\n')
  }
  outgoing.destroy()
})

test('connections to the target are used again', async () => {
  await using there = await echoPath()
  await using port = await webPort()
  await port.listen('/', there.port)
  for (let round = 0; round < 30; round++) assert.equal((await ask(port.port, `/${round}`)).body, `/${round}`)
  assert.equal(there.connections(), 1)
})

test('no name, no node, no target and no answer are told apart, and nothing of the request is told back', async () => {
  await using silent = await program()
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  await using port = await webPort({ answerTimeout: 100 })
  await port.listen('/gone', gone.port)
  await port.listen('/silent', silent.port)
  for (const [path, status] of [
    ['/<script>', 404],
    ['/gone', 502],
    ['/silent', 504],
    ['/gone/../x', 400],
    ['/gone/%2e%2E/x', 400],
    ['/gone/..%2fx', 400],
    ['/gone/..;a/x', 400],
  ] as const) {
    const plain = await ask(port.port, path)
    assert.equal(plain.status, status, path)
    assert.equal(plain.headers['cache-control'], 'no-store')
    assert.match(plain.headers['content-type'] ?? '', /^text\/plain/)
    assert.doesNotMatch(plain.body, /script|127\.0\.0\.1|gone|silent/)
    const page = await ask(port.port, path, { headers: { accept: 'text/html,*/*' } })
    assert.match(page.body, /^<!doctype html>/)
    assert.doesNotMatch(page.body, /script|127\.0\.0\.1|gone|silent/)
  }
})

test('a WebSocket upgrade goes through, with its first bytes on both sides', async () => {
  await using there = await target(() => {})
  there.server.on('upgrade', (request, socket, head) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\nhi')
    socket.write(`${request.url} ${request.headers['x-forwarded-for']} `)
    socket.write(head)
    socket.pipe(socket)
  })
  await using port = await webPort()
  await port.listen('/app', there.port)
  const socket = connect({ port: port.port, host: '127.0.0.1', allowHalfOpen: true })
  socket.write('GET /app/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly')
  let got = ''
  socket.on('data', (chunk) => {
    got += chunk
  })
  while (!got.endsWith('early')) await soon(once(socket, 'data'), 'the first bytes')
  assert.match(got, /^HTTP\/1\.1 101 [\s\S]*\r\nX-A: b\r\n[\s\S]*\r\n\r\nhi\/live 127\.0\.0\.1 early$/)
  socket.end('late')
  await soon(once(socket, 'end'), 'the end')
  assert.match(got, /earlylate$/)
})

test('an upgrade that the target does not want is answered as it says', async () => {
  await using there = await target((_request, response) => {
    response.writeHead(403, { 'x-why': 'no' }).end('no websockets')
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const socket = connect(port.port, '127.0.0.1')
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
  assert.match(await soon(text(socket), 'the answer'), /^HTTP\/1\.1 403 [\s\S]*x-why: no[\s\S]*no websockets/)
})

interface Vector {
  readonly name: string
  readonly base64: string
}

test('requests that disagree about their length are refused, or reach the target as one that all read alike', async () => {
  const file = await readFile(projectPath('test/fixtures/http-smuggling.json'), 'utf8')
  const { requests: vectors }: { requests: readonly Vector[] } = JSON.parse(file)
  assert.ok(vectors.length > 50)
  const reached: StrictRequest[] = []
  const doubts: string[] = []
  await using there = await program(strictTarget(reached, doubts))
  await using port = await webPort({ answerTimeout: 400 })
  await port.listen('/', there.port)
  const outcomes = await Promise.all(
    vectors.map(async ({ name, base64 }) => {
      const socket = connect(port.port, '127.0.0.1')
      socket.on('error', () => {})
      const answered = new Promise<string>((resolve) => {
        let got = ''
        socket.on('data', (chunk) => {
          got += chunk
          if (/\r\n\r\n./.test(got)) setTimeout(() => resolve(got), 50)
        })
        socket.on('close', () => resolve(got))
      })
      socket.write(Buffer.from(base64, 'base64'))
      const got = await answered
      socket.destroy()
      return [name, got.slice(0, 12), got.split('HTTP/1.1 ').length - 1] as const
    }),
  )
  for (const [name, start, answers] of outcomes) {
    // Two are one request to everybody; of one the end never comes.
    const status = ['te-underscore', 'cl-leading-zero'].includes(name) ? 200 : name === 'chunk-overflow' ? 408 : 400
    assert.equal(start, `HTTP/1.1 ${status}`, name)
    assert.ok(answers <= 1, name)
  }
  assert.ok(reached.length > 0)
  assert.equal(outcomes.filter(([, start]) => start.endsWith('200')).length, reached.length)
  assert.deepEqual(doubts, [])
  assert.deepEqual(
    reached.filter(({ line }) => line.includes('hidden')),
    [],
  )
})
