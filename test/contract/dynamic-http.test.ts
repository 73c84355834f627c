import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { Agent, createServer, get, request as httpRequest, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'
import { ProxyError } from '../../lib/core/index.ts'
import { httpProxy } from '../../lib/domains/http-proxy.ts'
import { clientOf, dynamicStage, read, readToClose } from '../helpers/contract/dynamic.ts'
import { echo, pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

const CONNECTED = 'HTTP/1.1 200 Connection established\r\n\r\n'

watchForStrays()

interface Site extends AsyncDisposable {
  readonly port: number
  /** `127.0.0.1:PORT`. */
  readonly place: string
  /** Every request that has come. */
  readonly got: { readonly method: string; readonly url: string; readonly raw: readonly string[]; body: string }[]
}

async function site(onRequest: RequestListener = (_, response) => void response.end('fine')): Promise<Site> {
  const got: Site['got'] = []
  const server = createServer((request, response) => {
    const { method = '', url = '', rawHeaders } = request
    const entry = { method, url, raw: rawHeaders, body: '' }
    got.push(entry)
    request.on('data', (chunk: Buffer) => {
      entry.body += chunk.toString('latin1')
    })
    onRequest(request, response)
  })
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (ws) => ws.on('message', (data, binary) => ws.send(data, { binary })))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    port,
    place: `127.0.0.1:${port}`,
    got,
    async [Symbol.asyncDispose]() {
      for (const client of sockets.clients) client.terminate()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Sends what is given, and resolves with all that comes back until the connection is closed. */
async function say(port: number, text: string | Uint8Array): Promise<string> {
  const socket = await clientOf(port)
  socket.write(text)
  return (await soon(readToClose(socket), `an answer to ${text}`)).toString('latin1')
}

async function text(response: IncomingMessage): Promise<string> {
  return (await readAll(response)).toString()
}

async function ask(port: number, url: string, options: object = {}): Promise<IncomingMessage> {
  const { host } = new URL(url)
  const sent = get({ host: '127.0.0.1', port, path: url, headers: { host }, ...options })
  const [response] = await once(sent, 'response')
  return response
}

for (const domain of ['http', 'mixed'] as const) {
  test(`${domain}: CONNECT is a tunnel to where it says, with half-close, and loses nothing that comes early`, async () => {
    await using target = await echo()
    await using stage = await dynamicStage(domain)
    for (const host of ['127.0.0.1', 'localhost']) {
      const data = pattern(2_000_000)
      const socket = await stage.client()
      const got = readAll(socket)
      socket.write(`CONNECT ${host}:${target.port} HTTP/1.1\r\nHost: ${host}:${target.port}\r\n\r\n`)
      socket.end(data)
      const answer = await soon(got, 'the echo', 5000)
      assert.equal(answer.subarray(0, CONNECTED.length).toString(), CONNECTED)
      assert.equal(sha256(answer.subarray(CONNECTED.length)), sha256(data))
    }
    assert.deepEqual(stage.asked, [`tcp://127.0.0.1:${target.port}`, `tcp://localhost:${target.port}`])
    await nothingLeft(stage.near, stage.exit)
  })
}

test('a tunnel in which the target speaks first', async () => {
  await using target = await program((socket) => socket.write('SSH-2.0-x\r\n'))
  await using stage = await dynamicStage('http')
  const socket = await stage.client()
  socket.write(`CONNECT 127.0.0.1:${target.port} HTTP/1.0\r\n\r\n`)
  assert.equal((await read(socket, CONNECTED.length)).toString(), CONNECTED)
  assert.equal((await read(socket, 11)).toString(), 'SSH-2.0-x\r\n')
  socket.resetAndDestroy()
  await nothingLeft(stage.near, stage.exit)
})

test('absolute form: the target gets the request as its own, without what is for the proxy', async () => {
  await using target = await site((_, response) => {
    response.writeHead(203, 'Well', [
      'Set-Cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'X-Thing',
      'x',
      'Proxy-Authenticate',
      'Basic',
      'X-Hop',
      '1',
      'Connection',
      'X-Hop',
    ]) // prettier-ignore
    response.end('the page')
  })
  await using stage = await dynamicStage('http')
  const answer = await say(
    stage.port,
    `GET http://${target.place}/a/b?c=%20d#e HTTP/1.1\r\nHost: other.test\r\nProxy-Connection: keep-alive\r\n` +
      'Proxy-Authorization: Basic eDp5\r\nKeep-Alive: 5\r\nConnection: close, X-Secret\r\nX-Secret: s\r\nX-Kept: k\r\nTE: trailers\r\n\r\n',
  )
  assert.equal(target.got.length, 1)
  const [got] = target.got
  assert.equal(got?.url, '/a/b?c=%20d')
  assert.deepEqual(got?.raw, ['Host', target.place, 'X-Kept', 'k', 'Connection', 'keep-alive'])
  const [head = '', body] = answer.split('\r\n\r\n')
  assert.match(head, /^HTTP\/1.1 203 Well\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Thing: x\r\n/)
  assert.doesNotMatch(head, /Proxy-|X-Hop/i)
  assert.match(body ?? '', /the page/)
})

test('content of either kind goes through, and so do answers without any', async () => {
  await using target = await site((request, response) => {
    if (request.url === '/none') response.writeHead(204).end()
    else if (request.method === 'HEAD') response.writeHead(200, { 'content-length': 7 }).end()
    else request.pipe(response)
  })
  await using stage = await dynamicStage('http')
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const send = async (method: string, path: string, headers: object, body?: Buffer): Promise<IncomingMessage> => {
    const url = `http://${target.place}${path}`
    const sent = httpRequest({ agent, host: '127.0.0.1', port: stage.port, method, path: url, headers: { ...headers } })
    sent.end(body)
    const [response] = await once(sent, 'response')
    return response
  }
  const data = pattern(500_000)
  assert.equal(sha256(await readAll(await send('POST', '/', { 'content-length': data.length }, data))), sha256(data))
  assert.equal(sha256(await readAll(await send('PUT', '/', { 'transfer-encoding': 'chunked' }, data))), sha256(data))
  assert.equal(await text(await send('GET', '/', { 'transfer-encoding': 'chunked' }, Buffer.from('odd'))), 'odd')
  const head = await send('HEAD', '/', {})
  assert.deepEqual([head.headers['content-length'], await text(head)], ['7', ''])
  const none = await send('GET', '/none', {})
  assert.deepEqual([none.statusCode, await text(none)], [204, ''])
  assert.equal(await text(await send('OPTIONS', '', {})), '')
  assert.deepEqual(
    target.got.map(({ method, url }) => `${method} ${url}`),
    ['POST /', 'PUT /', 'GET /', 'HEAD /', 'GET /none', 'OPTIONS *'],
  )
  assert.equal(await text(await send('GET', '/', {})), '')
  agent.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('an answer that trickles arrives as it comes, and ends when the client goes', async () => {
  let send: (text: string) => void = () => {}
  let gone = false
  await using target = await site((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.flushHeaders()
    send = (text) => void response.write(text)
    response.on('close', () => {
      gone = true
    })
  })
  await using stage = await dynamicStage('http')
  const response = await ask(stage.port, `http://${target.place}/events`)
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    send(event)
    const [chunk] = await soon(once(response, 'data'), event)
    assert.equal(String(chunk), event)
  }
  response.on('error', () => {})
  response.destroy()
  await eventually(() => gone, 'the target hears of it')
  await nothingLeft(stage.near, stage.exit)
})

test('an answer that breaks off breaks off for the client too', async () => {
  await using target = await program((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
      setImmediate(() => socket.resetAndDestroy())
    })
  })
  await using stage = await dynamicStage('http')
  const answer = await say(stage.port, `GET http://127.0.0.1:${target.port}/ HTTP/1.1\r\nHost: x\r\n\r\n`)
  assert.match(answer, /^HTTP\/1.1 (?:200 OK\r\n[\s\S]*half|502)/)
  await nothingLeft(stage.near, stage.exit)
})

test('who waits for "100 Continue" gets the word of the target', async () => {
  await using target = await site((request, response) => {
    if (request.url === '/no') response.writeHead(417).end()
    else request.pipe(response)
  })
  await using stage = await dynamicStage('http')
  const url = `http://${target.place}`
  const yes = httpRequest({
    host: '127.0.0.1',
    port: stage.port,
    method: 'POST',
    path: `${url}/yes`,
    headers: { expect: '100-continue', 'content-length': 4 },
  }) // prettier-ignore
  yes.flushHeaders()
  await soon(once(yes, 'continue'), 'go on')
  yes.end('body')
  const [response] = await once(yes, 'response')
  assert.equal(await text(response), 'body')
})

test('a refusal before the content has come closes the connection, so that it is not taken for a request', async () => {
  await using target = await site()
  await using stage = await dynamicStage('http')
  stage.denied.add(target.place)
  const socket = await stage.client()
  socket.write(
    `POST http://${target.place}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\nExpect: 100-continue\r\n\r\n`,
  )
  const answer = await soon(readToClose(socket), 'a refusal')
  assert.match(answer.toString(), /^HTTP\/1.1 403 Forbidden\r\n[\s\S]*Connection: close\r\n/)
  assert.equal(target.got.length, 0)
})

test('a WebSocket in absolute form works', async () => {
  await using target = await site()
  await using stage = await dynamicStage('mixed')
  const agent = new Agent()
  // A client of WebSockets that asks in absolute form, for a proxy.
  const ws = new WebSocket(`ws://127.0.0.1:${stage.port}/`, {
    agent,
    finishRequest: (request) => {
      request.path = `ws://${target.place}/ws`
      request.end()
    },
  })
  await soon(once(ws, 'open'), 'the upgrade')
  const echoed = (data: Buffer): Promise<Buffer> =>
    new Promise((resolve) => {
      ws.once('message', (message: Buffer) => resolve(message))
      ws.send(data)
    })
  const large = pattern(300_000)
  assert.equal((await soon(echoed(Buffer.from('hello')), 'an echo')).toString(), 'hello')
  assert.equal(sha256(await soon(echoed(large), 'a large echo')), sha256(large))
  const closed = once(ws, 'close')
  ws.close(1000)
  await soon(closed, 'the end')
  agent.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('an offer to become something else than a WebSocket is ignored, and does not reach the target', async () => {
  await using target = await site()
  await using stage = await dynamicStage('http')
  const offer = 'Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n'
  const line = `http://${target.place}/ HTTP/1.1\r\n${offer}`
  const client = await stage.client()
  for (const request of [`GET ${line}\r\n`, `POST ${line}Content-Length: 3\r\n\r\nabc`]) {
    client.write(request)
    assert.match(String((await soon(once(client, 'data'), 'an answer'))[0]), /^HTTP\/1.1 200 OK\r\n/)
  }
  client.destroy()
  assert.deepEqual(
    target.got.map(({ method, body, raw }) => [method, body, raw.filter((text) => /h2c|^http2|^upgrade/i.test(text))]),
    [
      ['GET', '', []],
      ['POST', 'abc', []],
    ],
  )
  await nothingLeft(stage.near, stage.exit)
})

test('a tunnel or WebSocket behind a request that is not answered yet ends the connection', async () => {
  await using target = await program()
  await using stage = await dynamicStage('http')
  const place = `127.0.0.1:${target.port}`
  const waiting = `GET http://${place}/ HTTP/1.1\r\nHost: x\r\n\r\n`
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'
  for (const next of [`CONNECT ${place} HTTP/1.1\r\nHost: x\r\n\r\n`, waiting.replace(/\r\n$/, `${upgrade}\r\n`)]) {
    assert.equal(await say(stage.port, waiting + next), '')
  }
  await nothingLeft(stage.near, stage.exit)
})

test('an answer that cannot be passed on is 502, or goes without its reason, and nobody else suffers', async () => {
  const switched = 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
  await using stage = await dynamicStage('http')
  for (const [said, toPlain, toUpgrade] of [
    ['HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok', /^HTTP\/1.1 200 \r\n/, /^HTTP\/1.1 200 \r\n/],
    [`HTTP/1.1 101 O\x01K\r\n${switched}`, /^HTTP\/1.1 502 Bad Gateway\r\n/, /^HTTP\/1.1 101 \r\n/],
    ['HTTP/1.1 101 OK\r\n\r\nhello', /^HTTP\/1.1 502 Bad Gateway\r\n/, /^HTTP\/1.1 502 Bad Gateway\r\n/],
    ['HTTP/1.1 204 OK\r\nContent-Length: 2\r\n\r\n', /^HTTP\/1.1 204 OK\r\n(?!.*Length)/s, /^HTTP\/1.1 204/],
  ] as const) {
    await using target = await program((socket) => void socket.once('data', () => socket.end(said, 'latin1')))
    const line = `GET http://127.0.0.1:${target.port}/ HTTP/1.1\r\nHost: x\r\n`
    assert.match(await say(stage.port, `${line}Connection: close\r\n\r\n`), toPlain, said)
    const client = await stage.client()
    client.write(`${line}${switched}`)
    assert.match(String((await soon(once(client, 'data'), said))[0]), toUpgrade, said)
    client.destroy()
  }
  await nothingLeft(stage.near, stage.exit)
})

test('an upgrade that the target does not want gets its answer', async () => {
  await using target = await program((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno'))
  })
  await using stage = await dynamicStage('http')
  const upgrade = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
  const place = `127.0.0.1:${target.port}`
  const answer = await say(stage.port, `GET http://${place}/ HTTP/1.1\r\n${upgrade}\r\n`)
  assert.match(answer, /^HTTP\/1.1 200 OK\r\n[\s\S]*Connection: close\r\n\r\nno$/)
  const refused = await say(stage.port, `POST http://${place}/ HTTP/1.1\r\n${upgrade}Content-Length: 3\r\n\r\nabc`)
  assert.match(refused, /^HTTP\/1.1 400 Bad Request\r\n/)
  stage.denied.add(place)
  const denied = await say(stage.port, `GET http://${place}/ HTTP/1.1\r\n${upgrade}\r\n`)
  assert.match(denied, /^HTTP\/1.1 403 Forbidden\r\n/)
  await nothingLeft(stage.near, stage.exit)
})

test('requests that are sent ahead are answered in order, but not any number of them', async () => {
  await using target = await site((request, response) => void response.end(request.url))
  await using stage = await dynamicStage('http')
  const line = (path: string): string => `GET http://${target.place}/${path} HTTP/1.1\r\nHost: x\r\n\r\n`
  const few = await stage.client()
  few.write(Array.from({ length: 8 }, (_, n) => line(`few-${n}`)).join(''))
  let answers = ''
  few.on('data', (chunk) => {
    answers += chunk
  })
  await eventually(() => answers.includes('few-7'), 'all of them')
  assert.deepEqual(
    answers.match(/few-\d/g),
    Array.from({ length: 8 }, (_, n) => `few-${n}`),
  )
  few.destroy()
  const many = await stage.client()
  many.write(Array.from({ length: 500 }, (_, n) => line(`many-${n}`)).join(''))
  await soon(readToClose(many), 'the end')
  await nothingLeft(stage.near, stage.exit)
  assert.ok(stage.asked.length <= 8 + 16, `${stage.asked.length} connections`)
})

test('an answer before the end of the content is the answer, and the upload ends', async () => {
  await using target = await program((socket) => {
    socket.once('data', () => {
      socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge')
      setTimeout(() => socket.resetAndDestroy(), 50)
    })
  })
  await using stage = await dynamicStage('http')
  const socket = await stage.client()
  const got = readToClose(socket)
  socket.write(`POST http://127.0.0.1:${target.port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n`)
  const more = setInterval(() => socket.write(Buffer.alloc(10_000)), 1)
  try {
    const answer = (await soon(got, 'an answer')).toString()
    assert.match(answer, /^HTTP\/1.1 413 Too Large\r\n[\s\S]*Connection: close\r\n\r\nlarge$/)
  } finally {
    clearInterval(more)
  }
  await nothingLeft(stage.near, stage.exit)
})

test('what is not for a proxy is told so in one line', async () => {
  await using stage = await dynamicStage('http')
  const proxy =
    'This is an HTTP proxy: it takes CONNECT host:port, and requests for a whole URL like http://host/path.\n'
  for (const [line, said] of [
    ['GET / HTTP/1.1', proxy],
    ['OPTIONS * HTTP/1.1', proxy],
    ['GET https://example.test/ HTTP/1.1', 'This proxy has no way to https:// but CONNECT host:port.\n'],
    ['GET ftp://example.test/ HTTP/1.1', 'This proxy has no way to ftp:// but CONNECT host:port.\n'],
    ['GET http://a:b@example.test/ HTTP/1.1', 'A URL with user information is not for a proxy.\n'],
    ['GET http://example.test:0/ HTTP/1.1', 'The URL has no host and port that can be asked for.\n'],
    ['GET http://:80/ HTTP/1.1', 'The URL has no host and port that can be asked for.\n'],
    ['GET http://[fe80::1%25eth0]/ HTTP/1.1', 'The URL has no host and port that can be asked for.\n'],
    ['CONNECT example.test:0 HTTP/1.1', 'CONNECT wants host:port.\n'],
    ['CONNECT :443 HTTP/1.1', 'CONNECT wants host:port.\n'],
  ] as const) {
    const answer = await say(stage.port, `${line}\r\nHost: example.test\r\n\r\n`)
    assert.match(answer, /^HTTP\/1.1 400 Bad Request\r\n/, line)
    assert.equal(answer.split('\r\n\r\n')[1], said, line)
  }
  assert.deepEqual(stage.asked, [])
})

test('what is no HTTP is told so, however much of it comes', async () => {
  await using stage = await dynamicStage('http')
  const noise = Buffer.concat([Buffer.from('NO SUCH thing\r\n'), pattern(3_000_000)])
  assert.match(await say(stage.port, noise), /^HTTP\/1.1 400 Bad Request\r\n[\s\S]*\r\n\r\n[^\n]+\n$/)
  const large = `GET http://x.test/ HTTP/1.1\r\n${'X: y\r\n'.repeat(100_000)}\r\n`
  assert.match(await say(stage.port, large), /^HTTP\/1.1 431 Request Header Fields Too Large\r\n/)
  assert.deepEqual(stage.asked, [])
})

test('what the other side cannot do has a status of its own', async () => {
  await using target = await site()
  await using closed = await program()
  await closed[Symbol.asyncDispose]()
  await using stage = await dynamicStage('http')
  stage.denied.add(target.place)
  for (const [place, status] of [
    [target.place, '403 Forbidden'],
    [`127.0.0.1:${closed.port}`, '502 Bad Gateway'],
  ] as const) {
    for (const line of [`CONNECT ${place}`, `GET http://${place}/`]) {
      const answer = await say(stage.port, `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status}\r\n[\\s\\S]*\r\n\r\n[^\n]+\n$`), line)
    }
  }
  for (const [code, status] of [
    ['PROXY_ERR_NO_PEER', '503 Service Unavailable'],
    ['PROXY_ERR_DRAINING', '503 Service Unavailable'],
    ['PROXY_ERR_OPEN_TIMEOUT', '504 Gateway Timeout'],
  ] as const) {
    const open = async (): Promise<never> => {
      throw new ProxyError(code, 'nobody is there')
    }
    const at = { Domain: 'http', Addr: '127.0.0.1:0' }
    const listener = await httpProxy().listen?.(at, { signal: new AbortController().signal, open })
    assert.ok(listener)
    await using _ = listener
    const port = Number(listener.bound.Addr.split(':')[1])
    for (const line of ['CONNECT x:1', 'GET http://x/']) {
      const answer = await say(port, `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
      assert.ok(answer.startsWith(`HTTP/1.1 ${status}\r\n`), answer)
    }
  }
  await using noise = await program((socket) => socket.once('data', () => socket.end('SSH-2.0-x\r\n')))
  const line = `GET http://127.0.0.1:${noise.port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`
  assert.match(await say(stage.port, line), /^HTTP\/1.1 502 Bad Gateway\r\n/)
})

test('with a password only its user gets in', async () => {
  await using target = await site()
  const folder = await mkdtemp(join(tmpdir(), 'symport-'))
  try {
    const path = join(folder, 'password')
    await writeFile(path, 'pass:wörd\n', { mode: 0o600 })
    await using stage = await dynamicStage('mixed', { query: `?user=someone&password_file=${path}` })
    const attempt = async (credentials: string | undefined, line: string): Promise<string> => {
      const header = credentials === undefined ? '' : `Proxy-Authorization: ${credentials}\r\n`
      const socket: Socket = await clientOf(stage.port)
      socket.write(`${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${header}\r\n`)
      if (line.startsWith('CONNECT')) socket.end()
      return (await soon(readToClose(socket), line)).toString('latin1')
    }
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`
    for (const line of [`CONNECT ${target.place}`, `GET http://${target.place}/`]) {
      for (const wrong of [
        undefined,
        '',
        'Basic',
        'Basic !!!!',
        'Bearer abc',
        basic('someone'),
        basic('someone:'),
        basic('someone:pass'),
        basic('else:pass:wörd'),
        basic('someone:pass:wörd '),
      ]) {
        const answer = await attempt(wrong, line)
        assert.match(answer, /^HTTP\/1.1 407 Proxy Authentication Required\r\n/, `${line} ${wrong}`)
        assert.match(answer, /\r\nProxy-Authenticate: Basic realm="symport", charset="UTF-8"\r\n/)
      }
      assert.match(await attempt(basic('someone:pass:wörd'), line), /^HTTP\/1.1 200 /, line)
    }
    assert.equal(target.got.length, 1)
    assert.equal(
      target.got[0]?.raw.some((word) => /proxy/i.test(word)),
      false,
    )
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('a connection serves one request after the other, for several targets', async () => {
  await using one = await site((_, response) => void response.end('one'))
  await using two = await site((_, response) => void response.end('two'))
  await using stage = await dynamicStage('http')
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  for (const [target, body] of [
    [one, 'one'],
    [one, 'one'],
    [two, 'two'],
    [one, 'one'],
  ] as const) {
    assert.equal(await text(await ask(stage.port, `http://${target.place}/`, { agent })), body)
  }
  assert.deepEqual(
    stage.asked,
    [one, two, one].map(({ place }) => `tcp://${place}`),
  )
  assert.equal(Object.values(agent.freeSockets).flat().length, 1)
  // What has been said before the listener is closed is answered, and the connection is closed then.
  const ended = once(Object.values(agent.freeSockets).flat()[0] as Socket, 'close')
  await stage.listener.close()
  await soon(ended, 'an idle connection is closed')
  agent.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('a connection to a target is of one client, for what may be asked twice, and asked again on another if it has gone', async () => {
  let connections = 0
  await using target = await program((socket) => {
    const mine = ++connections
    let requests = 0
    socket.on('end', () => socket.end())
    socket.on('data', () => {
      // The second one has come to the end of its time just then.
      if (++requests === 2) socket.resetAndDestroy()
      else socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${mine}`)
    })
  })
  await using stage = await dynamicStage('http')
  const url = `http://127.0.0.1:${target.port}/`
  const agents = [1, 2].map(() => new Agent({ keepAlive: true, maxSockets: 1 }))
  const answers: string[] = []
  for (const [client, method, headers] of [
    [0, 'GET', {}],
    [1, 'GET', {}],
    [0, 'GET', {}],
    [1, 'GET', { authorization: 'Negotiate x' }],
    [1, 'DELETE', {}],
  ] as const) {
    const options = { agent: agents[client], method, headers: { host: 'x', ...headers } }
    answers.push(await text(await ask(stage.port, url, options)))
  }
  assert.deepEqual(answers, ['1', '2', '3', '4', '5'])
  for (const agent of agents) agent.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('framing is made anew, and what would leave it unclear is refused', async () => {
  await using target = await site()
  await using stage = await dynamicStage('http')
  const send = (headers: string, content: string, version = '1.1'): Promise<string> =>
    say(
      stage.port,
      `POST http://${target.place}/ HTTP/${version}\r\nHost: x\r\nConnection: close\r\n${headers}\r\n\r\n${content}`,
    )
  const chunked = '5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n'
  for (const [status, headers, content, version] of [
    [400, 'Content_Length: 3\r\nContent-Length: 5', 'hello'],
    [400, 'Transfer_Encoding: chunked\r\nContent-Length: 5', 'hello'],
    [501, 'Transfer-Encoding: gzip, chunked', chunked],
    [400, 'Transfer-Encoding: chunked', chunked, '1.0'],
  ] as const) {
    assert.ok((await send(headers, content, version)).startsWith(`HTTP/1.1 ${status} `), headers)
  }
  assert.equal(target.got.length, 0)
  for (const [headers, content, framing] of [
    ['Content-Length: 0005', 'hello', ['Content-Length', '5']],
    ['Content-Length: 5\r\nConnection: content-length, host', 'hello', ['Content-Length', '5']],
    ['Transfer-Encoding: CHUNKED\r\nTrailer: X-Trailer', chunked, ['Transfer-Encoding', 'chunked']],
  ] as const) {
    assert.match(await send(headers, content), /^HTTP\/1.1 200 /, headers)
    const got = target.got.pop()
    assert.deepEqual(got?.raw, ['Host', target.place, 'Connection', 'close', ...framing])
    assert.equal(got?.body, 'hello')
  }
  await using odd = await program((socket) => {
    socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n${chunked}`))
  })
  const answer = await say(
    stage.port,
    `GET http://127.0.0.1:${odd.port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
  )
  assert.match(answer, /^HTTP\/1.1 502 Bad Gateway\r\n/)
  await nothingLeft(stage.near, stage.exit)
})

test('no second request reaches a target through one whose length is told in two ways', {
  timeout: 60_000,
}, async () => {
  interface Vectors {
    readonly requests: readonly { readonly name: string; readonly base64: string }[]
  }
  // A copy of the project's own vectors: what `about` in it says.
  const file = new URL('../../../test/fixtures/http-smuggling.json', import.meta.url)
  const { requests }: Vectors = JSON.parse(await readFile(file, 'utf8'))
  assert.ok(requests.length >= 96)
  await using target = await site()
  await using stage = await dynamicStage('mixed')
  const outcomes = new Map<string, number>()
  const answerTo = async (bytes: Buffer): Promise<string> => {
    const socket = await stage.client()
    socket.write(bytes)
    const [answer] = await soon(once(socket, 'data'), bytes.toString('latin1'))
    socket.destroy()
    return String(answer)
  }
  for (const { name, base64 } of requests) {
    const origin = Buffer.from(base64, 'base64')
    const absolute = Buffer.from(
      origin.toString('latin1').replace(/(POST|GET) (\/\S*) HTTP/g, `$1 http://${target.place}$2 HTTP`),
      'latin1',
    )
    const asIs = await answerTo(origin)
    assert.match(asIs, /^HTTP\/1.1 400 Bad Request\r\n/, name)
    assert.equal(target.got.length, 0, name)
    const answer = await answerTo(absolute)
    await nothingLeft(stage.near, stage.exit)
    const status = /^HTTP\/1.1 (\d+)/.exec(answer)?.[1] ?? 'closed'
    outcomes.set(status, (outcomes.get(status) ?? 0) + 1)
    for (const got of target.got) assert.deepEqual([got.method, got.url], ['POST', '/submit'], name)
    assert.ok(target.got.length <= 1, `${name}: ${target.got.length} requests`)
    assert.ok(stage.asked.length <= 1, `${name}: ${stage.asked.length} connections`)
    if (target.got.length === 0) assert.match(answer, /^HTTP\/1.1 (?:400|501) /, name)
    target.got.length = 0
    stage.asked.length = 0
  }
  assert.ok((outcomes.get('400') ?? 0) > 60, JSON.stringify([...outcomes]))
})

test('a client that leaves off in the middle of a body meets a deadline, and so does its target', async () => {
  await using silent = await program()
  await using slow = await site((request, response) => void request.on('end', () => response.end('at last')))
  await using begun = await site((_, response) => void response.write('the beginning'))
  await using stage = await dynamicStage('http', { bodyTimeout: 200 })
  const head = (place: string, more: string): string =>
    `POST http://${place}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}\r\n\r\n`
  const place = `127.0.0.1:${silent.port}`
  const trickling = async (): Promise<string> => {
    const socket = await stage.client()
    const got = readToClose(socket)
    socket.write(head(slow.place, 'Content-Length: 8'))
    // For longer than the deadline, all in all.
    for (let sent = 0; sent < 8; sent++) {
      await sleep(50)
      socket.write('x')
    }
    return (await soon(got, 'what trickles')).toString()
  }
  const [trickled, cut, ...refused] = await Promise.all([
    trickling(),
    say(stage.port, `${head(begun.place, 'Content-Length: 9')}12345`),
    say(stage.port, head(place, 'Content-Length: 9')),
    say(stage.port, `${head(place, 'Content-Length: 9')}12345`),
    say(stage.port, `${head(place, 'Transfer-Encoding: chunked')}5\r\nhel`),
    say(stage.port, head(place, 'Content-Length: 9\r\nExpect: 100-continue')),
  ])
  assert.match(trickled ?? '', /^HTTP\/1\.1 200 [\s\S]*at last$/)
  // The rest of an answer that has begun does not come, and the client can tell.
  assert.match(cut ?? '', /^HTTP\/1\.1 200 [\s\S]*the beginning\r\n$/)
  for (const answer of refused) assert.match(answer, /^HTTP\/1\.1 408 Request Timeout\r\n[\s\S]*\r\n\r\n[^\n]+\n$/)
  await nothingLeft(stage.near, stage.exit)
})

test('a target that is lost in the middle of both bodies takes the client with it, and nobody else', async () => {
  await using target = await program((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nthe beginning')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
  })
  await using stage = await dynamicStage('http')
  const place = `127.0.0.1:${target.port}`
  const request = `POST http://${place}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n`
  for (let round = 0; round < 2; round++) {
    assert.match(await say(stage.port, request), /^HTTP\/1\.1 200 OK\r\n[\s\S]*the beginning$/)
  }
  await nothingLeft(stage.near, stage.exit)
})

test('an upgrade that the target leaves without an answer meets a deadline, and what is answered does not', async () => {
  await using silent = await program()
  await using target = await site((_, response) => void setTimeout(() => response.end('late'), 200))
  await using stage = await dynamicStage('http', { upgradeTimeout: 100, bodyTimeout: 100 })
  const ask = (place: string, more: string): Promise<string> =>
    say(stage.port, `GET http://${place}/ HTTP/1.1\r\nHost: x\r\nConnection: ${more}\r\n\r\n`)
  const upgrade = 'Upgrade\r\nUpgrade: websocket'
  const [unanswered, plain] = await Promise.all([
    ask(`127.0.0.1:${silent.port}`, upgrade),
    ask(target.place, 'close\r\nAuthorization: Basic eDp5'),
  ])
  assert.match(
    unanswered ?? '',
    /^HTTP\/1\.1 504 Gateway Timeout\r\n[\s\S]*\r\n\r\nThe target did not answer in time\.\n$/,
  )
  assert.match(plain ?? '', /^HTTP\/1\.1 200 [\s\S]*late$/)
  await nothingLeft(stage.near, stage.exit)
})

test('a client that does not read its answer is cut off, and one that waits for its target is not', async () => {
  const page = pattern(16_000_000)
  await using target = await site((request, response) => {
    if (request.url === '/large') response.end(page)
    else setTimeout(() => response.end('late'), 300)
  })
  await using stage = await dynamicStage('http', { unreadTimeout: 100 })
  const socket = await stage.client()
  socket.write(`GET http://${target.place}/large HTTP/1.1\r\nHost: x\r\n\r\n`)
  const late = await say(stage.port, `GET http://${target.place}/late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  assert.match(late, /^HTTP\/1\.1 200 [\s\S]*late/)
  // Cut off means that the rest never comes.
  await soon(nothingLeft(stage.near, stage.exit), 'what it had asked for')
  const got = await soon(readToClose(socket), 'the end')
  assert.ok(got.length < page.length)
})
