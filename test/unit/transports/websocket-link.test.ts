import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import test, { type TestContext } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import type { LinkSink } from '../../../lib/core/link.ts'
import { WEBSOCKET_SETTINGS, WebSocketLink } from '../../../lib/transports/websocket-link.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'

interface Ends {
  client: WebSocketLink
  server: WebSocketLink
  raw: { client: WebSocket; server: WebSocket; socket: Socket }
}

/** Both ends of a WebSocket; `first` is called with the server's end in the turn in which it opens. */
async function pair(t: TestContext, first: (ws: WebSocket) => void = () => {}): Promise<Ends> {
  const http = createServer()
  const web = new WebSocketServer({ server: http, ...WEBSOCKET_SETTINGS })
  let socket: Socket | undefined
  http.on('connection', (accepted: Socket) => {
    socket = accepted
  })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const accepting = new Promise<[WebSocketLink, WebSocket]>((resolve) => {
    web.once('connection', (ws) => {
      resolve([new WebSocketLink(ws, { remote: 'client', transport: 'ws', socket }), ws])
      first(ws)
    })
  })
  const ws = new WebSocket(`ws://127.0.0.1:${(http.address() as AddressInfo).port}`, WEBSOCKET_SETTINGS)
  t.after(() => {
    ws.terminate()
    for (const other of web.clients) other.terminate()
    http.close()
    http.closeAllConnections()
  })
  const client = await new Promise<WebSocketLink>((resolve, reject) => {
    ws.once('error', reject)
    ws.once('open', () => resolve(new WebSocketLink(ws, { remote: 'server', transport: 'ws' })))
  })
  const [server, accepted] = await accepting
  assert.ok(socket)
  return { client, server, raw: { client: ws, server: accepted, socket } }
}

const letters = (length: number): Buffer => Buffer.alloc(length, 'the quick brown fox jumps over the lazy dog ')

/** Resolves with all calls of a sink when the link is closed. */
function recorded(link: WebSocketLink, sink: Partial<LinkSink> = {}): Promise<string[]> {
  const calls: string[] = []
  return new Promise((resolve) => {
    link.start({
      received: (bytes) => {
        calls.push(Buffer.from(bytes).toString())
        return true
      },
      drained: () => {},
      ended: () => calls.push('ended'),
      closed: (error) => {
        calls.push(`closed ${error?.message}`)
        resolve(calls)
      },
      ...sink,
    })
  })
}

test('bytes pass both ways, in order, whatever their number', async (t) => {
  const { client, server } = await pair(t)
  const [a, b] = [new ByteStream(client), new ByteStream(server)]
  const bulk = letters(300_001)
  client.write([bulk.subarray(0, 1), bulk.subarray(1, 200_000), bulk.subarray(200_000)])
  server.write([Buffer.from('pong')])
  assert.ok((await b.read(bulk.length)).equals(bulk))
  assert.equal((await a.read(4)).toString(), 'pong')
  server.write([bulk, bulk])
  assert.ok((await a.read(2 * bulk.length)).equals(Buffer.concat([bulk, bulk])))
})

test('what is written stays as it is: it may have to be sent again', async (t) => {
  const { client, server } = await pair(t)
  const chunk = letters(100_000)
  client.write([chunk])
  await new ByteStream(server).read(chunk.length)
  assert.ok(chunk.equals(letters(100_000)))
})

test('a link says whom it leads to and how it travels', async (t) => {
  const { client } = await pair(t)
  assert.deepEqual([client.remote, client.transport], ['server', 'ws'])
})

test('no message is larger than what the other side takes', async (t) => {
  const { client, raw } = await pair(t)
  const sizes: number[] = []
  raw.server.on('message', (data: Buffer) => sizes.push(data.length))
  raw.server.resume()
  void recorded(client)
  client.write([letters(200_000)])
  client.end()
  await once(raw.server, 'close')
  assert.equal(
    sizes.reduce((sum, size) => sum + size, 0),
    200_000,
  )
  assert.ok(sizes.every((size) => size <= 65_536))
})

test('what came before start is kept in order, and no more than that is read', async (t) => {
  const { client, server } = await pair(t, (ws) => {
    for (let i = 0; i < 500; i++) ws.send(Buffer.from(`<${i}>`))
  })
  server.write([letters(8_000_000)])
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.ok(server.pending > 0, 'the other end is told to wait')
  const stream = new ByteStream(client)
  const expected = Array.from({ length: 500 }, (_, i) => `<${i}>`).join('')
  assert.equal((await stream.read(expected.length)).toString(), expected)
  assert.ok((await stream.read(8_000_000)).equals(letters(8_000_000)))
})

test('many tiny messages that wait do so in few pieces, in order', async (t) => {
  const { client, server, raw } = await pair(t)
  void recorded(server)
  const text = letters(5000)
  // All in one piece, as a stranger would have it.
  raw.socket.write(Buffer.concat([...text].map((byte) => Buffer.from([0x82, 1, byte]))))
  raw.server.close()
  const pieces: string[] = []
  let take = false
  const closed = recorded(client, {
    received: (bytes) => {
      pieces.push(Buffer.from(bytes).toString())
      return take
    },
  })
  while (pieces.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setTimeout(resolve, 50))
  take = true
  client.resume()
  await closed
  assert.equal(pieces.join(''), text.toString())
  assert.ok(pieces.length < 500, `${pieces.length} pieces`)
})

test('bytes land in the buffer of the sink, in pieces where it is short', async (t) => {
  const { client, server } = await pair(t)
  const place = Buffer.alloc(3)
  const calls = recorded(client, { buffer: () => place })
  void recorded(server)
  server.write([Buffer.from('abcdefgh')])
  server.end()
  assert.deepEqual(await calls, ['abc', 'def', 'gh', 'ended', 'closed undefined'])
})

test('a sink that says no gets nothing more until resume, not even the rest of a piece, nor the end', async (t) => {
  const { client, server } = await pair(t)
  const place = Buffer.alloc(3)
  const calls: string[] = []
  let arrived = (): void => {}
  const closed = recorded(client, {
    buffer: () => place,
    received(bytes) {
      calls.push(Buffer.from(bytes).toString())
      setImmediate(arrived)
      return false
    },
  })
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      arrived = resolve
    })
  const first = next()
  void recorded(server)
  server.write([Buffer.from('abcde'), Buffer.from('fg')])
  server.end()
  await first
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(calls, ['abc'])
  for (const expected of ['de', 'fg']) {
    const more = next()
    client.resume()
    await more
    assert.equal(calls.at(-1), expected)
  }
  client.resume()
  assert.deepEqual(await closed, ['ended', 'closed undefined'])
})

test('a sink may resume and destroy from within received', async (t) => {
  const { client, server } = await pair(t)
  let count = 0
  const closed = recorded(client, {
    buffer: () => Buffer.alloc(1),
    received() {
      if (++count === 5) client.destroy()
      client.resume()
      return true
    },
  })
  server.write([letters(100)])
  assert.deepEqual(await closed, ['closed undefined'])
  assert.equal(count, 5)
})

test('pending falls to 0 and drained comes once the other side reads, not before', async (t) => {
  const { client, server } = await pair(t)
  let drained = 0
  let tell = (): void => {}
  const told = new Promise<void>((resolve) => {
    tell = resolve
  })
  void recorded(server, {
    drained() {
      drained++
      assert.equal(server.pending, 0)
      tell()
    },
  })
  server.write([letters(16_000_000)])
  assert.ok(server.pending > 1_000_000)
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(drained, 0)
  void recorded(client)
  await told
  server.write([letters(10)])
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(drained, 1, 'a write that goes at once leaves nothing to drain')
})

test('pings of the other side while much is pending do not keep drained from coming', async (t) => {
  const { client, server, raw } = await pair(t)
  const drained = new Promise<void>((resolve) => void recorded(server, { drained: resolve }))
  server.write([letters(8_000_000)])
  for (let i = 0; i < 10; i++) raw.client.ping()
  void recorded(client)
  await drained
})

test('end sends what is pending; both ends are told, and hear of no error', async (t) => {
  const { client, server } = await pair(t)
  const stream = new ByteStream(server)
  const bulk = letters(5_000_000)
  const calls = recorded(client)
  client.write([bulk])
  client.end()
  client.write([Buffer.from('dropped')])
  assert.ok((await stream.rest()).equals(bulk))
  assert.equal(stream.end, 'ended')
  assert.deepEqual(await calls, ['ended', 'closed undefined'])
})

test('what the other side had written when it heard of the end still comes', async (t) => {
  const { client, server } = await pair(t)
  const calls = recorded(client)
  void recorded(server)
  server.write([Buffer.from('last words')])
  client.end()
  assert.deepEqual(await calls, ['last words', 'ended', 'closed undefined'])
})

test('a connection that is lost is no orderly end; what came before is told', async (t) => {
  for (const lose of [(socket: Socket) => socket.resetAndDestroy(), (socket: Socket) => socket.end()]) {
    const { client, server, raw } = await pair(t)
    const calls = recorded(client)
    const arrived = once(raw.client, 'message')
    server.write([Buffer.from('before')])
    await arrived
    lose(raw.socket)
    assert.deepEqual(await calls, ['before', 'closed the connection was lost'])
  }
})

test('destroy is told with the error that the caller gives, once', async (t) => {
  const { client, server } = await pair(t)
  const [near, far] = [recorded(client), recorded(server)]
  client.destroy(new Error('enough'))
  client.destroy(new Error('again'))
  client.end()
  assert.deepEqual(await near, ['closed enough'])
  await far
})

test('a link that was never started can be destroyed, and started afterwards', async (t) => {
  const { client, server, raw } = await pair(t)
  client.destroy()
  await once(raw.server, 'close')
  assert.deepEqual(await recorded(client), ['closed undefined'])
  await recorded(server)
})

test('a link whose other side ended before start tells so after what came', async (t) => {
  const { client, server, raw } = await pair(t)
  void recorded(server)
  server.write([Buffer.from('bye')])
  server.end()
  // A paused WebSocket does not see the end; it is there when somebody reads.
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.notEqual(raw.client.readyState, WebSocket.CLOSED)
  assert.deepEqual(await recorded(client), ['bye', 'ended', 'closed undefined'])
})

test('text is an error', async (t) => {
  const { client, raw } = await pair(t)
  const calls = recorded(client)
  raw.server.send('hello')
  assert.deepEqual(await calls, ['closed the other side sent text: it is not symport'])
})

test('a message that is too large is an error', async (t) => {
  const { client, raw } = await pair(t)
  const calls = recorded(client)
  raw.server.send(Buffer.alloc(WEBSOCKET_SETTINGS.maxPayload + 1))
  assert.match((await calls).join(), /^closed Max payload size exceeded$/)
})

test('empty messages are nothing', async (t) => {
  const { client, server, raw } = await pair(t)
  void recorded(server)
  const calls = recorded(client)
  for (const text of ['', 'a', '', 'b']) raw.server.send(Buffer.from(text))
  raw.server.close()
  assert.deepEqual(await calls, ['a', 'b', 'ended', 'closed undefined'])
})

test('a frame that makes no sense is an error', async (t) => {
  const { client, raw } = await pair(t)
  const calls = recorded(client)
  raw.socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff]))
  assert.match((await calls).join(), /^closed .+/)
})

test('an end that the other side does not answer is over after a while in which nothing moves', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { client, raw } = await pair(t)
  raw.socket.pause()
  const calls = recorded(client)
  client.end()
  t.mock.timers.tick(5000)
  assert.notEqual(raw.client.readyState, WebSocket.CLOSED)
  t.mock.timers.tick(5000)
  assert.match((await calls).join(), /closed/)
})

test('in silence a ping is sent, and none while something is heard', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { client, server, raw } = await pair(t)
  void recorded(client)
  void recorded(server)
  let pings = 0
  raw.server.on('ping', () => pings++)
  t.mock.timers.tick(12_500)
  assert.equal(pings, 0)
  const pong = once(raw.client, 'pong')
  t.mock.timers.tick(12_500)
  await pong
  assert.equal(pings, 1)
})
