import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { createSecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GOAWAY,
  get,
  HEADERS,
  literal,
  PING,
  PREFACE,
  PRIORITY,
  RST_STREAM,
  SETTINGS,
  typesIn,
} from '../helpers/contract/http2-frames.ts'
import { eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ask, type Target, target, type WebPort, webPort } from '../helpers/contract/web-port.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** Visitors who speak HTTP/2 as nobody should. */

watchForStrays()

const identity = Identity.create('shop.example.com', { ca: true, purpose: 'any', names: ['shop.example.com'] })
const context = createSecureContext({ key: identity.key, cert: identity.cert })
const HOST = 'shop.example.com'

interface Street extends AsyncDisposable {
  readonly there: Target
  readonly port: WebPort
  /** Requests that the target has heard of. */
  readonly asked: () => number
  /** Names of all headers that it was sent. */
  readonly headers: () => readonly string[]
  attack(): Promise<Attacker>
  /** It still serves others, and has nothing left of all this. */
  unharmed(): Promise<void>
}

async function street(options: OnePortOptions = {}): Promise<Street> {
  let asked = 0
  const headers: string[] = []
  const there = await target((request, response) => {
    asked++
    headers.push(...request.rawHeaders.filter((_, i) => i % 2 === 0))
    if (request.url === '/fine') response.end('fine')
    else if (request.url !== '/silent') request.resume().on('end', () => response.end('answer'))
  })
  const port = await webPort({}, { tls: async () => context, ...options })
  await port.listen('/', there.port)
  return {
    ...{ there, port, asked: () => asked, headers: () => headers },
    attack: () => Attacker.connect(port.port),
    async unharmed() {
      assert.equal((await soon(ask(port.port, '/fine'), 'an answer')).body, 'fine')
      there.server.closeAllConnections()
      await nothingLeft(port.pair.dialling, port.pair.accepting)
    },
    async [Symbol.asyncDispose]() {
      await port[Symbol.asyncDispose]()
      await there[Symbol.asyncDispose]()
    },
  }
}

class Attacker {
  readonly socket: TLSSocket
  readonly closed: Promise<unknown>
  #got = Buffer.alloc(0)

  static async connect(port: number): Promise<Attacker> {
    const socket = tlsConnect({
      ...{ port, host: '127.0.0.1', servername: HOST, ALPNProtocols: ['h2'], ca: identity.cert },
    })
    await once(socket, 'secureConnect')
    return new Attacker(socket)
  }

  private constructor(socket: TLSSocket) {
    this.socket = socket
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      if (this.#got.length < 1_000_000) this.#got = Buffer.concat([this.#got, chunk])
    })
    this.closed = new Promise((resolve) => socket.once('close', resolve))
    socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]))
  }

  get types(): readonly number[] {
    return typesIn(this.#got)
  }

  /** Sends as fast as it is taken, until all is sent or the other side has had enough. Answers how many were sent. */
  async flood(count: number, one: (i: number) => Buffer): Promise<number> {
    let sent = 0
    while (sent < count && !this.socket.destroyed && this.socket.writable) {
      const chunk = Array.from({ length: Math.min(100, count - sent) }, (_, i) => one(sent + i))
      sent += chunk.length
      if (this.socket.write(Buffer.concat(chunk))) await new Promise((resolve) => setImmediate(resolve))
      else await Promise.race([once(this.socket, 'drain'), this.closed]).catch(() => {})
    }
    return sent
  }
}

test('10,000 streams that are reset at once cost little, and their connection', { timeout: 20_000 }, async () => {
  await using all = await street()
  const before = process.memoryUsage().rss
  const attacker = await all.attack()
  await attacker.flood(10_000, (i) =>
    Buffer.concat([
      frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, get(HOST)),
      frame(RST_STREAM, 0, 2 * i + 1, Buffer.from([0, 0, 0, 8])),
    ]),
  )
  await soon(attacker.closed, 'the end', 20_000)
  assert.ok(all.asked() < 1000, `${all.asked()} requests`)
  assert.ok(process.memoryUsage().rss - before < 150 * 1024 * 1024)
  await all.unharmed()
})

test('headers without an end are given up early, in one frame or in thousands of them', async () => {
  await using all = await street()
  for (const flags of [0, END_STREAM]) {
    const attacker = await all.attack()
    attacker.socket.write(frame(HEADERS, flags, 1, get(HOST)))
    const part = literal('x-more', 'x'.repeat(1000))
    const sent = await attacker.flood(100_000, () => frame(CONTINUATION, 0, 1, part))
    await soon(attacker.closed, 'the end')
    assert.ok(sent < 100_000)
  }
  assert.equal(all.asked(), 0)
  await all.unharmed()
})

test('a header of 100 MiB is not gathered', { timeout: 20_000 }, async () => {
  await using all = await street({ timeout: 500 })
  const before = process.memoryUsage().rss
  const attacker = await all.attack()
  // As long as it says, in frames of the longest length.
  const head = Buffer.concat([get(HOST), Buffer.from([0x00, 0x01, 0x78, 0x7f, 0x81, 0xff, 0xff, 0x31])])
  attacker.socket.write(frame(HEADERS, 0, 1, head))
  const block = Buffer.alloc(16_384, 0x61)
  const sent = await attacker.flood(6400, () => frame(CONTINUATION, 0, 1, block))
  await soon(attacker.closed, 'the end')
  assert.ok(sent < 6400)
  assert.ok(process.memoryUsage().rss - before < 64 * 1024 * 1024)
  await all.unharmed()
})

test('more headers than are taken are refused, and the connection goes on', async () => {
  await using all = await street()
  const attacker = await all.attack()
  // More than the 16 KiB of HTTP/1.1, and no more than may be sent here.
  const some = Array.from({ length: 30 }, (_, i) => literal(`x-${i}`, 'y'.repeat(900)))
  attacker.socket.write(frame(HEADERS, 0, 1, get(HOST, ...some.slice(0, 15))))
  attacker.socket.write(frame(CONTINUATION, END_HEADERS, 1, Buffer.concat(some.slice(15))))
  attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 3, get(HOST)))
  await eventually(() => attacker.types.filter((type) => type === HEADERS).length === 2, 'both are answered')
  assert.equal(all.asked(), 1)
  const many = Array.from({ length: 2000 }, () => literal('x', ''))
  attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 5, get(HOST, ...many)))
  await eventually(() => attacker.types.includes(RST_STREAM) || attacker.socket.destroyed, 'too many are refused')
  assert.equal(all.asked(), 1)
  attacker.socket.destroy()
  await all.unharmed()
})

test('the same header again and again out of the table is not gathered either', async () => {
  await using all = await street()
  const attacker = await all.attack()
  // Kept in the table (RFC 7541 section 6.2.1), and then named by one byte each.
  const value = Buffer.alloc(3800, 0x61)
  const kept = Buffer.concat([Buffer.from([0x40, 0x01, 0x78, 0x7f, 0xd9, 0x1c]), value])
  attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([get(HOST), kept])))
  const sent = await attacker.flood(200, (i) =>
    frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 3, Buffer.concat([get(HOST), Buffer.alloc(14_000, 0xbe)])),
  )
  await eventually(() => attacker.types.includes(RST_STREAM) || attacker.socket.destroyed, 'they are refused')
  assert.ok(sent > 0 && all.asked() <= 1)
  attacker.socket.destroy()
  await all.unharmed()
})

test('no more than 128 streams are served at once on one connection', async () => {
  await using all = await street()
  const attacker = await all.attack()
  const silent = Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/silent'), literal(':authority', HOST)])
  await attacker.flood(200, (i) => frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, silent))
  await eventually(() => attacker.types.includes(RST_STREAM) || attacker.socket.destroyed, 'the others are refused')
  await eventually(() => all.asked() <= 128, 'all are there')
  assert.ok(all.asked() <= 128, `${all.asked()} at the target`)
  attacker.socket.destroy()
  await all.unharmed()
})

for (const [what, one] of [
  ['pings', () => frame(PING, 0, 0, Buffer.alloc(8))],
  ['settings', () => frame(SETTINGS, 0, 0, Buffer.from([0, 3, 0, 0, 0, 1]))],
] as const) {
  test(`${what} without end from one who reads no answers are not all answered`, { timeout: 20_000 }, async () => {
    await using all = await street()
    const attacker = await all.attack()
    attacker.socket.pause()
    const before = process.memoryUsage().rss
    const flooding = attacker.flood(400_000, one)
    await Promise.race([flooding, new Promise((resolve) => setTimeout(resolve, 1500))])
    assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024)
    attacker.socket.destroy()
    await flooding
    await all.unharmed()
  })
}

test('frames that make no sense end the connection, or their stream', async () => {
  await using all = await street({ timeout: 200 })
  for (const bytes of [
    frame(DATA, END_STREAM, 1, Buffer.from('x')),
    frame(HEADERS, END_HEADERS, 2, get(HOST)),
    frame(CONTINUATION, END_HEADERS, 1, get(HOST)),
    frame(SETTINGS, ACK, 0, Buffer.alloc(6)),
    frame(PRIORITY, 0, 0, Buffer.alloc(5)),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    Buffer.alloc(1000, 0xff),
  ]) {
    const attacker = await all.attack()
    attacker.socket.write(bytes)
    await soon(attacker.closed, bytes.subarray(0, 12).toString('hex'))
  }
  for (const wrong of [
    Buffer.concat([Buffer.from([0x82, 0x87, 0x84]), literal(':authority', 'a b')]),
    get(HOST, literal('X-Upper', 'z')),
    get(HOST, literal('transfer-encoding', 'chunked')),
    get(HOST, literal('connection', 'upgrade')),
    get(HOST, literal('upgrade', 'websocket')),
    get(HOST, literal(':path', '/twice')),
    get(HOST, literal('content-length', '5')),
    get(HOST, literal('content-length', '0'), literal('content-length', '0')),
    Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/a b HTTP/1.1\r\nX: y'), literal(':authority', HOST)]),
    Buffer.concat([
      Buffer.from([0x87, 0x84]),
      literal(':method', 'GET / HTTP/1.1\r\nX: y'),
      literal(':authority', HOST),
    ]),
    Buffer.from([0x82, 0x87, 0x84]),
  ]) {
    const attacker = await all.attack()
    attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, wrong))
    const refused = (): boolean => {
      return attacker.types.some((type) => [RST_STREAM, GOAWAY, HEADERS].includes(type)) || attacker.socket.destroyed
    }
    await eventually(refused, wrong.toString('latin1'))
    attacker.socket.destroy()
  }
  assert.equal(all.asked(), 0)
  // nghttp2 leaves these out, and takes the rest.
  for (const wrong of [literal('x', 'a\r\nb: c'), literal('x\r\ny', 'z'), literal('x', 'a\0b'), literal('x y', 'z')]) {
    const attacker = await all.attack()
    attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, get(HOST, wrong)))
    await eventually(() => attacker.types.includes(HEADERS), 'an answer')
    attacker.socket.destroy()
  }
  assert.deepEqual(
    all.headers().filter((name) => !/^(?:host|x-forwarded-\w+|x-real-ip|connection)$/i.test(name)),
    [],
  )
  await all.unharmed()
})

test('who agrees on it and then asks for nothing has no more time than others', async () => {
  await using all = await street({ timeout: 100 })
  const silent = await all.attack()
  const half = await all.attack()
  half.socket.write(frame(HEADERS, 0, 1, get(HOST)))
  const pinging = await all.attack()
  const timer = setInterval(() => pinging.socket.write(frame(PING, 0, 0, Buffer.alloc(8))), 20)
  await soon(Promise.all([silent.closed, half.closed, pinging.closed]), 'the end')
  clearInterval(timer)
  assert.equal(all.asked(), 0)
  await all.unharmed()
})

test('a session is ended that nobody has used for a while, and not one that waits for its answer', async () => {
  await using all = await street({ timeout: 150 })
  const idle = await all.attack()
  idle.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, get(HOST)))
  const waiting = await all.attack()
  const silent = Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/silent'), literal(':authority', HOST)])
  waiting.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, silent))
  await soon(idle.closed, 'the end')
  assert.deepEqual([idle.types.includes(HEADERS), idle.types.at(-1)], [true, GOAWAY])
  assert.equal(waiting.socket.destroyed, false)
  waiting.socket.destroy()
  await all.unharmed()
})

test('one who lets nothing of a small answer in is let go, whatever else it says', async () => {
  await using all = await street({ timeout: 150 })
  // A window of 0 (RFC 9113 section 6.5.2).
  const attacker = await all.attack()
  attacker.socket.write(frame(SETTINGS, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])))
  await attacker.flood(50, (i) => frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, get(HOST)))
  const timer = setInterval(() => attacker.socket.write(frame(PING, 0, 0, Buffer.alloc(8))), 20)
  await soon(attacker.closed, 'the end', 20_000)
  clearInterval(timer)
  assert.ok(attacker.types.filter((type) => type === RST_STREAM).length >= 1)
  await all.unharmed()
})

test('one who goes without a word takes its requests along', async () => {
  await using all = await street()
  const silent = Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/silent'), literal(':authority', HOST)])
  for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
    const attacker = await all.attack()
    const before = all.asked()
    await attacker.flood(10, (i) => frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, silent))
    await eventually(() => all.asked() === before + 10, 'all are asked for')
    if (leave === 'resetAndDestroy') attacker.socket.destroy(new Error('gone'))
    else attacker.socket[leave]()
    await eventually(() => [...all.port.pair.dialling.subConnections].length === 0, leave)
  }
  await all.unharmed()
})

test('one who waits for an answer, and does not even answer a ping, is gone', async () => {
  await using all = await street({ timeout: 150 })
  const attacker = await all.attack()
  const silent = Buffer.concat([Buffer.from([0x82, 0x87]), literal(':path', '/silent'), literal(':authority', HOST)])
  attacker.socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, silent))
  await soon(attacker.closed, 'the end', 20_000)
  assert.deepEqual([all.asked(), attacker.types.at(-1)], [1, PING])
  await all.unharmed()
})
