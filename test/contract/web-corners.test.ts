import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { ProxyError } from '../../lib/core/index.ts'
import { createWeb } from '../../lib/domains/web.ts'
import { onePortServer } from '../helpers/contract/one-port.ts'
import { pattern, program } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ask, target, webPort } from '../helpers/contract/web-port.ts'

/** What goes wrong between a visitor and a target, and what HTTP has besides plain requests. */

watchForStrays()

/** Sends bytes; hears all until the other side ends, or until what came matches. */
async function raw(port: number, bytes: string, until?: RegExp): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  let got = ''
  const over = new Promise<void>((resolve) => {
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1')
      if (until?.test(got)) resolve()
    })
    socket.on('close', () => resolve())
  })
  socket.write(bytes, 'latin1')
  await soon(over, 'the answer')
  socket.destroy()
  return got
}

/** A target that is written by hand: what each connection gets, in order, for each thing that comes. */
function byHand(...answers: readonly ((socket: Socket) => void)[]) {
  let next = 0
  return program((socket) => {
    socket.on('data', () => answers[Math.min(next++, answers.length - 1)]?.(socket))
    socket.on('end', () => socket.end())
  })
}

const ok = (socket: Socket): void => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')

test('HEAD, 204 and 304 have no body, whatever the target says, and the connection goes on', async () => {
  await using there = await target((message, response) => {
    if (message.url === '/head') response.writeHead(200, { 'content-length': 7 }).end()
    else if (message.url === '/304') response.writeHead(304, { etag: '"x"' }).end()
    else response.writeHead(204).end()
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const got = await raw(
    port.port,
    ['HEAD /head', 'GET /204', 'GET /304', 'HEAD /gone/../x']
      .map((line) => `${line} HTTP/1.1\r\nHost: x\r\n\r\n`)
      .join(''),
    /HTTP\/1\.1 400[\s\S]*\r\n\r\n$/,
  )
  assert.deepEqual(
    got.match(/HTTP\/1\.1 \d+|Content-Length: \d+/gi)?.map((text) => text.toLowerCase()),
    [
      'http/1.1 200',
      'content-length: 7',
      'http/1.1 204',
      'http/1.1 304',
      'http/1.1 400',
      got.match(/content-length: (?!7)\d+/)?.[0],
    ],
  )
  assert.doesNotMatch(got, /Bad request/)
})

test('HTTP/1.0, absolute form and Expect are understood', async () => {
  await using there = await target((message, response) => {
    message.resume()
    message.on('end', () => response.end(`${message.url} ${message.headers.host} ${message.headers.expect}`))
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  assert.match(await raw(port.port, 'GET /old HTTP/1.0\r\n\r\n'), /200 OK[\s\S]*\r\n\r\n\/old {2}undefined$/)
  const absolute = 'GET http://a.test:81/x HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n'
  assert.match(await raw(port.port, absolute), /\/x a\.test:81 undefined/)
  const expecting =
    'POST /e HTTP/1.1\r\nHost: c\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n'
  assert.match(await raw(port.port, expecting, /100 Continue\r\n\r\n/), /^HTTP\/1\.1 100/)
  assert.match(await raw(port.port, `${expecting}ab`), /^HTTP\/1\.1 100[\s\S]*HTTP\/1\.1 200[\s\S]*\/e c undefined/)
})

test('trailers go through both ways, but for those that would say something else', async () => {
  await using there = await target((message, response) => {
    message.resume()
    message.on('end', () => {
      response.writeHead(200, { trailer: 'X-Sum' })
      response.write('body')
      response.addTrailers({ 'X-Sum': JSON.stringify(message.trailers), 'Set-Cookie': 'a=1' })
      response.end()
    })
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const head = 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nConnection: close\r\n\r\n'
  const got = await raw(port.port, `${head}2\r\nab\r\n0\r\nX-T: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n`)
  assert.match(got, /Trailer: X-Sum\r\n/i)
  assert.match(got, /\r\n0\r\nX-Sum: \{"x-t":"1"\}\r\n\r\n$/)
})

test('a request on a connection that the target had closed is asked again, where that is safe', async () => {
  const hangUp = (socket: Socket): void => void socket.destroy()
  await using there = await byHand(ok, hangUp, ok, ok, hangUp, ok)
  await using port = await webPort()
  await port.listen('/', there.port)
  assert.equal((await ask(port.port, '/1')).status, 200)
  // On the connection of the first; then on a new one.
  assert.equal((await ask(port.port, '/2')).status, 200)
  assert.equal((await ask(port.port, '/3')).status, 200)
  // As above, but nobody knows whether it was done.
  assert.equal((await ask(port.port, '/4', { method: 'POST', body: 'x' })).status, 502)
  assert.equal((await ask(port.port, '/5')).status, 200)
})

test('a new connection that breaks is not tried again', async () => {
  let asked = 0
  await using there = await program((socket) => {
    socket.on('data', () => {
      asked++
      socket.destroy()
    })
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  assert.equal((await ask(port.port, '/')).status, 502)
  assert.equal(asked, 1)
})

test('what a target says on an idle connection is an answer to nobody', async () => {
  await using there = await byHand(ok)
  await using port = await webPort()
  await port.listen('/', there.port)
  assert.equal((await ask(port.port, '/')).body, 'ok')
  const [idle] = there.sockets
  assert.ok(idle && !idle.readableEnded)
  idle.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil')
  await eventually(() => there.sockets.size === 0, 'the end of that connection')
  assert.equal((await ask(port.port, '/')).body, 'ok')
})

test('an answer that cannot be passed on is 502, or goes without its reason, and nobody else suffers', async () => {
  const switched = 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
  const upgrade = `GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${switched}`
  const plain = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
  await using healthy = await byHand(ok)
  await using port = await webPort()
  await port.listen('/healthy', healthy.port)
  for (const [said, toPlain, toUpgrade] of [
    ['HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok', /^HTTP\/1.1 200 \r\n/, /^HTTP\/1.1 200 \r\n/],
    [`HTTP/1.1 101 O\x01K\r\n${switched}`, /^HTTP\/1.1 502 Bad Gateway\r\n/, /^HTTP\/1.1 101 \r\n/],
    ['HTTP/1.1 101 OK\r\n\r\nhello', /^HTTP\/1.1 502 Bad Gateway\r\n/, /^HTTP\/1.1 502 Bad Gateway\r\n/],
  ] as const) {
    await using there = await byHand((socket) => void socket.write(said, 'latin1'))
    const listener = await port.listen('/', there.port)
    assert.match(await raw(port.port, plain, /\r\n\r\n/), toPlain, said)
    assert.match(await raw(port.port, upgrade, /\r\n\r\n/), toUpgrade, said)
    assert.equal((await ask(port.port, '/healthy')).body, 'ok', said)
    await listener.close()
  }
})

test('one visitor leaves as much room as they take', async () => {
  const held: ServerResponse[] = []
  await using there = await target((_, response) => void held.push(response))
  await using port = await webPort({ visits: 8 }, { trustedProxies: ['127.0.0.1'] })
  await port.listen('/', there.port)
  const from = (address: string): ReturnType<typeof ask> =>
    ask(port.port, '/', { headers: { 'X-Forwarded-For': address } })
  const statuses: number[] = []
  const waiting = ['192.0.2.1', '2001:db8::1']
    .flatMap((address) => Array.from({ length: 4 }, () => address))
    .map(async (address) => void statuses.push((await from(address)).status))
  await eventually(() => held.length + statuses.length === 8, 'all are answered or held')
  assert.deepEqual(statuses, [503, 503])
  // The same customer, and others.
  assert.equal((await from('2001:db8::2')).status, 503)
  waiting.push(from('192.0.2.3').then(({ status }) => void statuses.push(status)))
  waiting.push(from('127.0.0.1').then(({ status }) => void statuses.push(status)))
  await eventually(() => held.length === 8, 'there is room for others')
  for (const response of held) response.end()
  await soon(Promise.all(waiting), 'all answers')
  // Who has been answered takes no room, and a proxy on this machine stands for many.
  const again = ['192.0.2.1', '127.0.0.1'].flatMap((address) => Array.from({ length: 4 }, () => from(address)))
  await eventually(() => held.length === 16, 'all eight')
  for (const response of held) response.end()
  assert.ok((await Promise.all(again)).every(({ status }) => status === 200))
})

test('an idle connection that the target ends is not used again', async () => {
  await using there = await byHand((socket) => {
    ok(socket)
    setImmediate(() => socket.end())
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  assert.equal((await ask(port.port, '/')).status, 200)
  const [socket] = there.sockets
  if (socket && !socket.closed) await soon(once(socket, 'close'), 'the close')
  assert.equal((await ask(port.port, '/', { method: 'POST', body: 'x' })).status, 200)
})

test('what the target breaks off is broken off for the visitor, and what is no HTTP is 502', async () => {
  const say =
    (text: string) =>
    (socket: Socket): void =>
      void socket.end(text)
  for (const [answer, expected] of [
    [say('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'), /200 OK[\s\S]*abc$/],
    [say('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'), /200 OK[\s\S]*3\r\nabc\r\n$/],
    [say('HTTP/1.1 200 OK\r\n\r\nabc'), /200 OK[\s\S]*3\r\nabc\r\n0\r\n\r\n$/],
    [say('SSH-2.0-OpenSSH\r\n'), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'), /^HTTP\/1\.1 502/],
    [say(`HTTP/1.1 200 OK\r\nX: ${'a'.repeat(100_000)}\r\n\r\n`), /^HTTP\/1\.1 502/],
    [say(''), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n'), /^HTTP\/1\.1 502/],
    [say('HTTP/1.1 200 OK\r\nX: a\u0001b\r\nContent-Length: 0\r\n\r\n'), /^HTTP\/1\.1 502/],
  ] as const) {
    await using there = await byHand(answer)
    await using port = await webPort()
    await port.listen('/', there.port)
    const got = await raw(port.port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    assert.match(got, expected)
  }
})

test('a visitor who goes away is gone for the target too: while it thinks, answers, and while a body comes', async () => {
  for (const head of [
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc',
  ]) {
    for (const begin of ['', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc']) {
      await using there = await byHand((socket) => void socket.write(begin))
      await using port = await webPort()
      await port.listen('/', there.port)
      const visitor = connect(port.port, '127.0.0.1')
      visitor.write(head)
      const socket = await soon(there.accepted(), 'the connection')
      const closed = new Promise((resolve) => socket.once('close', resolve))
      await once(socket, 'data')
      if (begin !== '') await once(visitor, 'data')
      visitor.destroy()
      await soon(closed, 'the close')
    }
  }
})

test('requests that wait behind another one go with their connection', async () => {
  let asked = 0
  await using there = await target((message, response) => {
    asked++
    if (message.url === '/3') setImmediate(() => visitor.destroy())
    if (message.url !== '/1') response.end(Buffer.alloc(3_000_000))
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const open = new Set<Socket>()
  let idle: () => void = () => {}
  const gone = new Promise<void>((resolve) => {
    idle = resolve
  })
  there.server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.on('close', () => {
      open.delete(socket)
      if (open.size === 0 && asked === 3) idle()
    })
  })
  const visitor = connect(port.port, '127.0.0.1')
  visitor.write(['/1', '/2', '/3'].map((url) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`).join(''))
  await soon(gone, 'the end of all three')
})

test('whom a request comes from is what a trusted proxy says, and nobody else', async () => {
  await using there = await target(({ headers }, response) => response.end(JSON.stringify(headers)))
  const said = { 'X-Forwarded-For': '6.6.6.6, 2001:db8::7', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'evil' }
  for (const [trustedProxies, address, proto, portSaid] of [
    [['127.0.0.1'], '2001:db8::7', 'https', '443'],
    [[], '127.0.0.1', 'http', '80'],
  ] as const) {
    await using port = await webPort({}, { trustedProxies })
    await port.listen('/', there.port)
    const headers = JSON.parse((await ask(port.port, '/', { headers: said })).body)
    assert.equal(headers['x-forwarded-for'], address)
    assert.equal(headers['x-real-ip'], address)
    assert.equal(headers['x-forwarded-proto'], proto)
    assert.equal(headers['x-forwarded-port'], portSaid)
    assert.equal(headers['x-forwarded-host'], 'example.test')
  }
})

test('an answer that comes before the body is over arrives, also if nobody reads the rest', async () => {
  await using there = await byHand(
    (socket) => {
      socket.pause()
      socket.write('HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!')
    },
    () => {},
  )
  await using port = await webPort()
  await port.listen('/', there.port)
  const outgoing = request({ port: port.port, method: 'POST', headers: { host: 'x' } })
  outgoing.on('error', () => {})
  outgoing.write(pattern(2_000_000, 1))
  const [answer] = await soon(once(outgoing, 'response'), 'the answer')
  assert.equal(answer.statusCode, 413)
  const [socket] = there.sockets
  const closed = new Promise((resolve) => socket?.once('close', resolve))
  socket?.resume()
  outgoing.destroy()
  await soon(closed, 'the end at the target')
})

test('a slow visitor holds the target up, and a slow target the visitor', async () => {
  let sent = 0
  await using there = await program((socket) => {
    socket.once('data', () => {
      socket.pause()
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n')
      const more = (): void => {
        while (sent < 300_000_000 && socket.write(Buffer.alloc(65_536))) sent += 65_536
        socket.once('drain', more)
      }
      more()
    })
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const visitor = connect(port.port, '127.0.0.1')
  visitor.write('POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
  let given = 0
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
  const give = (): void => {
    while (given < 300_000_000 && visitor.write(chunk)) given += 65_536
    visitor.once('drain', give)
  }
  give()
  for (let before = -1; before !== sent + given; await sleep(300)) before = sent + given
  assert.ok(sent > 0 && sent < 40_000_000, `${sent} bytes were taken of the target`)
  assert.ok(given > 0 && given < 40_000_000, `${given} bytes were taken of the visitor`)
  visitor.destroy()
})

test('the same place is of who came first, until that listener is closed; requests under way go on', async () => {
  let answer: () => void = () => {}
  await using there = await target((_message, response) => {
    answer = () => response.end('done')
  })
  await using port = await webPort()
  const first = await port.listen('x.test/api', there.port)
  const taken = { code: 'PROXY_ERR_LISTEN_FAILED', message: /x\.test\/api on the web port/ }
  await assert.rejects(port.listen('X.test/api/', there.port), taken)
  await assert.rejects(port.listen('x.test/api', there.port, 'ws'), taken)
  const asked = ask(port.port, '/api', { host: 'x.test' })
  await soon(once(there.server, 'request'), 'the request')
  await first.close()
  answer()
  assert.equal((await asked).body, 'done')
  assert.equal((await ask(port.port, '/api', { host: 'x.test' })).status, 404)
  await port.listen('x.test/api', there.port)
})

test('a connection on which somebody has logged in is nobody else’s', async () => {
  await using there = await target((message, response) => {
    if (message.url === '/ask') response.setHeader('WWW-Authenticate', ['Basic realm="x"', 'NTLM'])
    response.end()
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  await ask(port.port, '/ask')
  await ask(port.port, '/', { headers: { authorization: 'Negotiate abc' } })
  await ask(port.port, '/')
  assert.equal(there.connections(), 3)
})

test('nobody there is 503, and too long for an open 504', async () => {
  for (const [code, status] of [
    ['PROXY_ERR_NO_PEER', 503],
    ['PROXY_ERR_OPEN_TIMEOUT', 504],
    ['PROXY_ERR_DIAL_DENIED', 502],
  ] as const) {
    const web = createWeb()
    const [domain] = web.domains
    await using server = await onePortServer({ onRequest: web.onRequest, onUpgrade: web.onUpgrade })
    const open = () => Promise.reject(new ProxyError(code, 'the secret inside'))
    await domain?.listen?.({ Domain: 'web', Addr: '/' }, { signal: new AbortController().signal, open })
    const answer = await ask(server.port, '/')
    assert.equal(answer.status, status)
    assert.doesNotMatch(answer.body, /secret/)
    const upgrade = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'
    assert.match(await raw(server.port, upgrade), new RegExp(`^HTTP/1.1 ${status} `))
    web.close()
  }
})

test('a body that stops coming is given up, and one that comes slowly is not', async () => {
  await using there = await target((message, response) => void message.pipe(response))
  await using port = await webPort({ answerTimeout: 150 })
  await port.listen('/', there.port)
  await using silent = await program((socket) => void socket.resume())
  await port.listen('/silent', silent.port)
  const head = 'POST /silent HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n'
  assert.match(await raw(port.port, `${head}abc`), /^HTTP\/1\.1 408/)
  const visitor = connect(port.port, '127.0.0.1')
  visitor.write(head)
  for (let round = 0; round < 4; round++) {
    await sleep(80)
    visitor.write('a')
  }
  visitor.write('a')
  const [answer] = await soon(once(visitor, 'data'), 'the answer')
  assert.match(String(answer), /^HTTP\/1\.1 504/)
  visitor.destroy()
})

test('a visitor who leaves while the target agrees to another protocol is gone for the target too', async () => {
  await using there = await target(() => {})
  let agree = (): void => {}
  const gone = new Promise<void>((resolve) => {
    there.server.on('upgrade', (_message, socket: Socket) => {
      agree = () => socket.write('HTTP/1.1 101 Hi\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
      socket.resume().on('error', () => {})
      socket.on('end', () => socket.end()).on('close', () => resolve())
      there.server.emit('asked')
    })
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const visitor = connect({ port: port.port, host: '127.0.0.1', allowHalfOpen: true })
  visitor.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
  await soon(once(there.server, 'asked'), 'the request')
  visitor.end()
  // The end has to be here before the answer is.
  await sleep(50)
  agree()
  await soon(gone, 'the end')
  visitor.destroy()
})

test('a target hears of a request before its body is there', async () => {
  await using there = await target((message, response) => {
    response.write('who?')
    message.pipe(response)
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const visitor = connect(port.port, '127.0.0.1')
  visitor.write('POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n')
  const [first] = await soon(once(visitor, 'data'), 'its question')
  assert.match(String(first), /^HTTP\/1\.1 200 /)
  visitor.write('me')
  let rest = String(first)
  for await (const chunk of visitor) rest += chunk
  assert.match(rest, /who\?[\s\S]*me/)
})

test('a body that a throttle holds up is waited for while it moves', async () => {
  await using there = await target(
    (message, response) => void message.resume().on('end', () => response.end('all of it')),
  )
  await using port = await webPort({ answerTimeout: 150 })
  const plugin = port.web.domains.find(({ name }) => name === 'web')
  let goneAt = 0
  const sent = {
    turn: 500,
    take: (bytes: number) => {
      goneAt = Math.max(goneAt, performance.now()) + bytes / 10
      return goneAt - performance.now()
    },
    giveBack: () => {},
  }
  const to = { Domain: 'tcp', Addr: `127.0.0.1:${there.port}` }
  const open = async () => {
    const sub = await port.pair.dialling.open({ to })
    sub.throttle({ sent })
    return sub
  }
  const listener = await plugin?.listen?.({ Domain: 'web', Addr: '/' }, { signal: new AbortController().signal, open })
  const { status, body } = await soon(ask(port.port, '/', { method: 'POST', body: 'x'.repeat(5000) }), 'the answer')
  assert.deepEqual([status, body], [200, 'all of it'])
  await listener?.close()
})

test("the server's own WebSocket leaves a name of somebody else alone, at its own path too", async () => {
  await using there = await target(() => {})
  there.server.on('upgrade', (_message, socket) =>
    socket.end('HTTP/1.1 101 Hi\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
  )
  await using port = await webPort({}, { path: '/' })
  await port.listen('app.test', there.port)
  await port.listen('/', there.port)
  const upgrade = (host: string, more = '') =>
    `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
    `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${more}\r\n`
  assert.match(await raw(port.port, upgrade('app.test'), /\r\n\r\n/), /^HTTP\/1\.1 101 Hi/)
  assert.match(await raw(port.port, upgrade('other.test'), /\r\n\r\n/), /^HTTP\/1\.1 101 Switching/)
  const ours = upgrade('app.test', 'Sec-WebSocket-Protocol: symport\r\n')
  assert.match(await raw(port.port, ours, /\r\n\r\n/), /^HTTP\/1\.1 101 Switching[\s\S]*symport/)
})

test('an offer to become something else than HTTP is ignored, and does not reach the target', async () => {
  await using there = await target((message, response) => {
    let body = ''
    message.on('data', (chunk) => {
      body += chunk
    })
    message.on('end', () => response.end(`<${body} ${message.headers.upgrade} ${message.headers['http2-settings']}>`))
  })
  await using port = await webPort()
  await port.listen('/', there.port)
  const offer = 'Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n'
  assert.match(await raw(port.port, `GET / HTTP/1.1\r\n${offer}\r\n`), /200 OK[\s\S]*< undefined undefined>/)
  const posted = `POST / HTTP/1.1\r\n${offer}Content-Length: 5\r\n\r\nhello`
  assert.match(await raw(port.port, posted, />/), /200 OK[\s\S]*<hello undefined undefined>/)
  const chunked = `POST / HTTP/1.1\r\n${offer}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`
  assert.match(await raw(port.port, chunked, />/), /200 OK[\s\S]*<hello undefined undefined>/)
  // Nobody would know whose answer is whose.
  assert.equal(await raw(port.port, chunked + posted), '')
  const socket = connect(port.port, '127.0.0.1')
  for (const offered of [chunked, posted, chunked]) {
    socket.write(offered)
    assert.match(String((await soon(once(socket, 'data'), 'an answer'))[0]), /200 OK/)
  }
  socket.destroy()
})
