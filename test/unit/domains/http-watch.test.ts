import assert from 'node:assert/strict'
import test from 'node:test'
import { HttpWatch, type SeenRequest } from '../../../lib/domains/http-watch.ts'

interface Watching {
  readonly watch: HttpWatch
  readonly seen: SeenRequest[]
  /** `GET /path 200`, for each. */
  lines(): string[]
}

function watching(): Watching {
  const seen: SeenRequest[] = []
  const watch = new HttpWatch((request) => seen.push(request))
  return { watch, seen, lines: () => seen.map(({ method, path, status }) => `${method} ${path} ${status}`) }
}

/** In pieces of this many bytes. */
function feed(take: (bytes: Uint8Array) => void, text: string, size: number): void {
  const bytes = Buffer.from(text, 'latin1')
  for (let at = 0; at < bytes.length; at += size) take(bytes.subarray(at, at + size))
}

const EXCHANGES: readonly (readonly [asked: string, answered: string, line: string])[] = [
  ['GET /a?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nGET /', 'GET /a 200'],
  [
    'POST /b HTTP/1.1\r\ncontent-length: 21\r\n\r\nGET /no HTTP/1.1\r\n\r\n\n',
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nHTTP/\r\n0\r\nA: b\r\n\r\n',
    'POST /b 201',
  ],
  [
    'PUT /c HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n',
    'HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n',
    'PUT /c 204',
  ],
  ['HEAD / HTTP/1.1\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n', 'HEAD / 200'],
  ['GET http://h/abs HTTP/1.0\n\n', 'HTTP/1.1 304 \r\n\r\n', 'GET /abs 304'],
]

test('tells each request of a connection and its answer, in whatever pieces they pass', () => {
  for (const size of [1, 2, 7, 10_000]) {
    const { watch, lines } = watching()
    for (const [asked, answered] of EXCHANGES) {
      feed((bytes) => watch.asked(bytes), asked, size)
      feed((bytes) => watch.answered(bytes), answered, size)
    }
    assert.deepEqual(
      lines(),
      EXCHANGES.map(([, , line]) => line),
      `in pieces of ${size}`,
    )
  }
})

test('requests may be sent before those in front of them are answered', () => {
  const { watch, lines } = watching()
  feed((bytes) => watch.asked(bytes), EXCHANGES.map(([asked]) => asked).join(''), 100)
  feed((bytes) => watch.answered(bytes), EXCHANGES.map(([, answered]) => answered).join(''), 100)
  assert.deepEqual(
    lines(),
    EXCHANGES.map(([, , line]) => line),
  )
})

test('neither long paths and trailers nor what is not ASCII keeps the requests behind them from being told', () => {
  const { watch, lines } = watching()
  const long = 'a'.repeat(16_000)
  const asked = [
    `GET /${long} HTTP/1.1\r\nX-Forwarded-For: ${'1'.repeat(1000)}\r\n\r\n`,
    `POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ${long}\r\n\r\n`,
    'GET /\xe9t\xe9\x9b HTTP/1.1\r\n\r\n',
    'GET /4 HTTP/1.1\r\n\r\n',
  ]
  const end = '\r\nContent-Length: 0\r\n\r\n'
  const answered = ['414 Too\tlong', '404 Introuvable \xe9t\xe9', `200 ${'\x1b\x85'.repeat(5000)}`, '200']
  for (const [i, text] of asked.entries()) {
    feed((bytes) => watch.asked(bytes), text, 1000)
    feed((bytes) => watch.answered(bytes), `HTTP/1.1 ${answered[i]}${end}`, 1000)
  }
  assert.deepEqual(lines(), [`GET /${long.slice(0, 1999)} 414`, 'POST /2 404', 'GET /%E9t%E9%9B 200', 'GET /4 200'])
})

test('what follows a change of protocol, or an answer until the end, is not taken for HTTP', () => {
  const request = 'GET /x HTTP/1.1\r\n\r\n'
  const more = 'HTTP/1.1 500 No\r\n\r\n'
  for (const head of ['HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n', 'HTTP/1.0 200 OK\r\n\r\n']) {
    const { watch, seen } = watching()
    feed((bytes) => watch.asked(bytes), request, 100)
    feed((bytes) => watch.answered(bytes), `${head}${more}`, 5)
    feed((bytes) => watch.asked(bytes), request, 100)
    feed((bytes) => watch.answered(bytes), more, 100)
    watch.ended('closed')
    assert.equal(seen.length, 1, head)
  }
})

test('a request without an answer is a 502 that says why, unless its visitor has left', () => {
  for (const [problem, expected] of [
    ['the target closed', ['POST /p 502']],
    [undefined, []],
  ] as const) {
    const { watch, seen, lines } = watching()
    feed((bytes) => watch.asked(bytes), 'POST /p HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc', 100)
    watch.ended(problem)
    watch.ended('again')
    assert.deepEqual(lines(), expected)
    assert.equal(seen[0]?.problem, problem)
  }
})

test('nothing is told of what is no HTTP, and little is held of it', () => {
  const long = 'x'.repeat(200_000)
  for (const asked of [
    ...['\x16\x03\x01\x02', 'SSH-2.0-x\r\n', `GET /${long} HTTP/1.1\r\n\r\n`, `GET / HTTP/1.1\r\nA: ${long}\r\n\r\n`],
    ...[
      'GET / HTTP/2.0\r\n\r\n',
      'G\0T / HTTP/1.1\r\n\r\n',
      'GET /\x1b[2J HTTP/1.1\r\n\r\n',
      'GET  / HTTP/1.1\r\n\r\n',
    ],
    '\n'.repeat(100_000),
  ]) {
    const { watch, seen } = watching()
    feed((bytes) => watch.asked(bytes), asked, 4096)
    feed((bytes) => watch.answered(bytes), 'HTTP/1.1 200 OK\r\n\r\n', 4096)
    watch.ended('over')
    assert.deepEqual(seen, [], JSON.stringify(asked.slice(0, 30)))
  }
})

test('a request whose length nobody can tell is the last one that is told', () => {
  for (const header of [
    'Content-Length: 1, 2',
    'Content-Length: -1',
    'Content-Length: 9999999999999999',
    'Transfer-Encoding: x',
  ]) {
    const { watch, lines } = watching()
    feed((bytes) => watch.asked(bytes), `POST /1 HTTP/1.1\r\n${header}\r\n\r\nPOST /2 HTTP/1.1\r\n\r\n`, 100)
    feed((bytes) => watch.answered(bytes), 'HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n'.repeat(2), 100)
    assert.deepEqual(lines(), ['POST /1 400'], header)
  }
})

test('chunks of a wrong length are the end of it', () => {
  const { watch, lines } = watching()
  feed((bytes) => watch.asked(bytes), 'GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n', 100)
  feed(
    (bytes) => watch.answered(bytes),
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n',
    100,
  )
  feed((bytes) => watch.answered(bytes), 'HTTP/1.1 200 OK\r\n\r\n', 100)
  watch.ended('over')
  assert.deepEqual(lines(), ['GET /1 200'])
})
