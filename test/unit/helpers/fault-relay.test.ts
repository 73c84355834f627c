import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ProxyError } from '../../../lib/core/index.ts'
import { eventually, soon, watchForStrays } from '../../helpers/contract/strays.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { startDelayLine } from '../../helpers/faults/delay-line.ts'
import type { Cut, Direction } from '../../helpers/faults/direction.ts'
import { FaultyNetwork, type FaultyPath } from '../../helpers/faults/fault-link.ts'
import { type FaultRelay, type RelayedLink, startFaultRelay } from '../../helpers/faults/fault-relay.ts'
import { Random, seeded, seedFromEnv } from '../../helpers/faults/random.ts'
import { onFarEnd } from '../../helpers/faults/wide-socket.ts'

watchForStrays()

const MIB = 1024 * 1024
const DIRECTIONS = ['up', 'down'] as const
const CUTS = ['fin', 'rst'] as const

/** One end of a connection, and what it has seen. */
class Peer {
  readonly socket: Socket
  readonly chunks: Buffer[] = []
  length = 0
  /** How the other side ended. */
  end: Cut | undefined
  readonly #watchers = new Set<() => void>()

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      this.length += chunk.length
      this.#look()
    })
    onFarEnd(socket, (how) => this.#ended(how))
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks)
  }

  /** All bytes, when there are so many. */
  async has(length: number): Promise<Buffer> {
    await this.#until(() => this.length >= length || this.end !== undefined, `${length} bytes`)
    assert.ok(this.length >= length, `${this.end} after ${this.length} of ${length} bytes`)
    return this.bytes
  }

  async over(): Promise<Cut> {
    await this.#until(() => this.end !== undefined, 'the end')
    return this.end ?? 'fin'
  }

  #ended(how: Cut): void {
    this.end ??= how
    this.#look()
  }

  #look(): void {
    for (const look of [...this.#watchers]) look()
  }

  async #until(holds: () => boolean, what: string): Promise<void> {
    if (holds()) return
    const found = new Promise<void>((resolve) => {
      const look = (): void => {
        if (!holds()) return
        this.#watchers.delete(look)
        resolve()
      }
      this.#watchers.add(look)
    })
    await soon(found, `${what}, and ${this.length} bytes are there`, 5000)
  }
}

interface Target extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** All that have connected. */
  readonly peers: readonly Peer[]
  next(): Promise<Peer>
}

/** Accepts, and sends back what comes if it is an echo. */
async function startTarget(echo: boolean): Promise<Target> {
  const peers: Peer[] = []
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    peers.push(new Peer(socket))
    if (echo) socket.pipe(socket)
    server.emit('peer')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  let given = 0
  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    peers,
    async next() {
      const number = given++
      while (!peers[number]) await soon(once(server, 'peer'), 'a connection at the target')
      return peers[number]
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const { socket } of peers) socket.destroy()
      await closed
    },
  }
}

async function dial(port: number): Promise<Peer> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true })
  const peer = new Peer(socket)
  await once(socket, 'connect')
  return peer
}

interface Stage extends AsyncDisposable {
  readonly target: Target
  readonly relay: FaultRelay
  readonly dial: () => Promise<Peer>
  /** A connection of which all three parts are there. */
  connected(): Promise<Connected>
  /** Resolves when whatever was under way through the relay has had its time: others went there and back. */
  settled(): Promise<void>
}

interface Connected {
  readonly client: Peer
  readonly server: Peer
  readonly link: RelayedLink
  /** The side that sends in a direction, and the one that receives. */
  readonly ends: Readonly<Record<Direction, { from: Peer; to: Peer }>>
}

async function stage(onLink?: (link: RelayedLink) => void): Promise<Stage> {
  const target = await startTarget(false)
  const relay = await startFaultRelay({ target, ...(onLink ? { onLink } : {}) })
  const clients: Peer[] = []
  const dialOne = async (): Promise<Peer> => {
    const client = await dial(relay.port)
    clients.push(client)
    return client
  }
  const connected = async (): Promise<Connected> => {
    const [client, server, link] = await Promise.all([dialOne(), target.next(), relay.next()])
    return { client, server, link, ends: { up: { from: client, to: server }, down: { from: server, to: client } } }
  }
  return {
    target,
    relay,
    dial: dialOne,
    connected,
    async settled() {
      const { client, server } = await connected()
      for (let times = 1; times <= 4; times++) {
        client.socket.write('?')
        await server.has(times)
        server.socket.write('!')
        await client.has(times)
      }
      client.socket.resetAndDestroy()
      await server.over()
    },
    async [Symbol.asyncDispose]() {
      for (const { socket } of clients) socket.destroy()
      await relay.close()
      await target[Symbol.asyncDispose]()
    },
  }
}

test('the relay passes bytes on, both ways at once, and counts', async () => {
  await seeded(async (random) => {
    await using echo = await startTarget(true)
    await using relay = await startFaultRelay({ target: echo })
    const client = await dial(relay.port)
    const link = await relay.next({ number: 1 })
    assert.deepEqual(relay.links, [link])
    assert.deepEqual([relay.count, link.number], [1, 1])
    const sent = random.bytes(8 * MIB + 17)
    client.socket.end(sent)
    assert.ok((await client.has(sent.length)).equals(sent))
    assert.equal(await client.over(), 'fin')
    assert.deepEqual(link.forwarded, { up: sent.length, down: sent.length })
    await soon(link.closed, 'the end of the link')
    assert.deepEqual(relay.links, [])
    assert.equal(relay.count, 1)
  })
})

for (const direction of DIRECTIONS) {
  test(`half-close passes: the ${direction} direction ends, and the other goes on`, async () => {
    await using s = await stage()
    const { ends, link } = await s.connected()
    const { from, to } = ends[direction]
    from.socket.end('last words')
    assert.equal(await to.over(), 'fin')
    assert.equal(to.bytes.toString(), 'last words')
    to.socket.write('but')
    await from.has(3)
    to.socket.end(' still')
    assert.equal(await from.over(), 'fin')
    assert.equal(from.bytes.toString(), 'but still')
    await soon(link.closed, 'the end of the link')
  })

  test(`a reset passes ${direction}, also when this side had ended`, async () => {
    await using s = await stage()
    for (const ended of [false, true]) {
      const { ends, link } = await s.connected()
      const { from, to } = ends[direction]
      if (ended) {
        to.socket.end()
        await from.over()
      }
      from.socket.resetAndDestroy()
      assert.equal(await to.over(), 'rst')
      await soon(link.closed, 'the end of the link')
    }
  })

  test(`a stall holds the ${direction} direction, and pushes back, until it is resumed`, async () => {
    await using s = await stage()
    const { ends, link } = await s.connected()
    const { from, to } = ends[direction]
    from.socket.write('before')
    await to.has(6)
    link.stall(direction)
    // Far more than the buffers of the system.
    const much = Buffer.alloc(24 * MIB, 'm')
    from.socket.end(much)
    to.socket.write('the other way')
    await from.has(13)
    await s.settled()
    assert.equal(to.length, 6)
    assert.ok(from.socket.writableLength > 0)
    link.resume()
    assert.equal(await to.over(), 'fin')
    assert.equal(to.length, 6 + much.length)
    assert.equal(link.forwarded[direction], 6 + much.length)
  })

  test(`a blackhole eats what goes ${direction}: bytes, the end, and a reset`, async () => {
    await using s = await stage()
    for (const how of CUTS) {
      const { ends, link } = await s.connected()
      const { from, to } = ends[direction]
      from.socket.write('before')
      await to.has(6)
      link.blackhole(direction)
      await new Promise<void>((resolve) => void from.socket.write(Buffer.alloc(12 * MIB), () => resolve()))
      to.socket.write('the other way')
      await from.has(13)
      if (how === 'fin') from.socket.end()
      else from.socket.resetAndDestroy()
      await s.settled()
      assert.deepEqual([to.length, to.end], [6, undefined])
      assert.equal(link.forwarded[direction], 6)
      assert.ok(s.relay.links.includes(link))
      link.cut('rst')
      assert.equal(await to.over(), 'rst')
    }
  })

  for (const how of CUTS) {
    test(`cutAt cuts the ${direction} direction after exactly so many bytes (${how})`, async () => {
      await seeded(async (random) => {
        const sent = random.bytes(700_000)
        for (const offset of [0, 1, 4096, random.integer(2, 600_000), 699_999, 700_000]) {
          await using s = await stage((link) => link.cutAt(direction, offset, how))
          const { ends, link } = await s.connected()
          const { from, to } = ends[direction]
          from.socket.write(sent)
          assert.equal(await to.over(), how, `offset ${offset}`)
          assert.ok(to.bytes.equals(sent.subarray(0, offset)), `offset ${offset}: ${to.length} bytes`)
          assert.equal(await from.over(), how)
          assert.equal(link.forwarded[direction], offset)
          assert.deepEqual(s.relay.links, [])
        }
      })
    })
  }

  test(`corrupt changes one bit on its way ${direction}`, async () => {
    await seeded(async (random) => {
      const sent = random.bytes(300_000)
      const places = [0, random.integer(1, 299_998), 299_999]
      await using s = await stage((link) => {
        for (const place of places) link.corrupt(direction, place)
      })
      const { ends } = await s.connected()
      const { from, to } = ends[direction]
      from.socket.write(sent)
      const came = await to.has(sent.length)
      for (const place of places) came.writeUInt8(came.readUInt8(place) ^ 1, place)
      assert.ok(came.equals(sent))
    })
  })
}

for (const how of CUTS) {
  test(`cut tells both sides (${how})`, async () => {
    await using s = await stage()
    const first = await s.connected()
    const second = await s.connected()
    assert.deepEqual(s.relay.links, [first.link, second.link])
    first.link.cut(how)
    assert.deepEqual(await Promise.all([first.client.over(), first.server.over()]), [how, how])
    assert.equal(second.client.end, undefined)
    assert.equal(s.relay.cut(how), 1)
    assert.deepEqual(await Promise.all([second.client.over(), second.server.over()]), [how, how])
    assert.equal(s.relay.cut(how), 0)
    for (const { client, server, link } of [first, second]) {
      client.socket.end()
      server.socket.end()
      await soon(link.closed, 'the end of the link')
    }
  })

  test(`cut can leave one side in the dark (${how})`, async () => {
    await using s = await stage()
    for (const direction of DIRECTIONS) {
      const { ends, link } = await s.connected()
      const { from, to } = ends[direction]
      link.cut(how, direction)
      assert.equal(await to.over(), how)
      from.socket.write('anybody?')
      await s.settled()
      assert.equal(from.end, undefined)
      link.cut('rst')
      assert.equal(await from.over(), 'rst')
    }
  })
}

test('a reset comes through behind more than the path holds', async () => {
  await using s = await stage()
  const { client, server, link } = await s.connected()
  server.socket.pause()
  client.socket.write(Buffer.alloc(32 * MIB))
  await eventually(() => link.forwarded.up > 0, 'bytes pass')
  client.socket.resetAndDestroy()
  server.socket.resume()
  assert.equal(await server.over(), 'rst')
  assert.ok(server.length < 32 * MIB)
  await soon(link.closed, 'the end of the link')
})

test('a delay puts off bytes and ends, in order, also more than it holds at once', async () => {
  await seeded(async (random) => {
    await using s = await stage((link) => link.delay(20))
    const { client, server, link } = await s.connected()
    const started = performance.now()
    client.socket.write('ping')
    await server.has(4)
    assert.ok(performance.now() - started >= 19)
    server.socket.write('pong')
    await client.has(4)
    assert.ok(performance.now() - started >= 38)
    const sent = random.bytes(20 * MIB)
    client.socket.write(sent.subarray(0, 1000))
    await eventually(() => client.socket.writableLength === 0, 'the first part is gone')
    link.delay(5)
    client.socket.write(sent.subarray(1000))
    client.socket.end()
    assert.equal(await server.over(), 'fin')
    assert.ok(server.bytes.subarray(4).equals(sent))
    link.delay(0)
    server.socket.end('!')
    assert.equal(await client.over(), 'fin')
    assert.equal(client.bytes.toString(), 'pong!')
  })
})

test('fragments arrive one by one', async () => {
  await using s = await stage((link) => link.fragment(7))
  const { client, server, link } = await s.connected()
  const sent = Buffer.from(Array.from({ length: 2000 }, (_, index) => index & 0xff))
  client.socket.end(sent)
  assert.equal(await server.over(), 'fin')
  assert.ok(server.bytes.equals(sent))
  // The system may still join a few.
  assert.ok(server.chunks.length > 2000 / 7 / 2, `${server.chunks.length} chunks`)
  link.fragment(Number.POSITIVE_INFINITY)
  server.socket.write(Buffer.alloc(100_000))
  await client.has(100_000)
  assert.throws(() => link.fragment(0), RangeError)
})

test('something can be done between two bytes', async () => {
  const calls: string[] = []
  await using s = await stage((link) => {
    if (link.number > 1) return
    link.at('up', 5, () => {
      calls.push(`up ${link.forwarded.up}`)
      link.stall('up')
    })
    link.at('up', 3, () => calls.push(`up ${link.forwarded.up}`))
    link.at('down', 0, () => calls.push('down 0'))
  })
  const { client, server, link } = await s.connected()
  client.socket.write('0123456789')
  await server.has(5)
  await s.settled()
  assert.equal(server.bytes.toString(), '01234')
  assert.throws(() => link.at('up', 4, () => {}), RangeError)
  assert.throws(() => link.corrupt('up', 4), RangeError)
  link.at('up', 5, () => calls.push('now'))
  link.at('up', 8, () => link.blackhole('up'))
  link.resume('up')
  await server.has(8)
  await s.settled()
  assert.equal(server.bytes.toString(), '01234567')
  assert.deepEqual(calls.slice(0, 4), ['down 0', 'up 3', 'up 5', 'now'])
})

test('a link cut before it was there: the target never hears of it', async () => {
  for (const how of CUTS) {
    await using s = await stage((link) => link.cut(how))
    if (how === 'fin') {
      const client = await s.dial()
      assert.equal(await client.over(), how)
      client.socket.end()
    } else {
      assert.equal(await dialAndLose(s), how)
    }
    await soon((await s.relay.next({ number: 1 })).closed, 'the end of the link')
    assert.equal(s.target.peers.length, 0)
  }
})

test('blocked, the relay refuses, resets or is silent; then it goes on at the same port', async () => {
  await using s = await stage()
  const before = await s.connected()
  s.relay.block('refuse')
  await assert.rejects(dial(s.relay.port), { code: 'ECONNREFUSED' })
  await s.relay.unblock()
  s.relay.block('rst')
  const turned = s.relay.nextTurnedAway()
  assert.equal(await dialAndLose(s), 'rst')
  assert.equal(await turned, 1)
  s.relay.block('hang')
  const silent = await s.dial()
  silent.socket.write('hello?')
  await s.relay.nextTurnedAway({ number: 2 })
  before.client.socket.write('still here')
  await before.server.has(10)
  await s.relay.unblock()
  await s.settled()
  assert.deepEqual([silent.length, silent.end], [0, undefined])
  assert.deepEqual([s.relay.turnedAway, s.relay.count], [2, 2])
  await s.relay.close()
  assert.equal(await silent.over(), 'rst')
})

test('connections follow the target, and are reset when nobody is there', async () => {
  await using s = await stage()
  const first = await s.connected()
  await using other = await startTarget(true)
  s.relay.target = other
  const client = await s.dial()
  client.socket.write('abc')
  await client.has(3)
  assert.equal(first.client.end, undefined)
  const gone = await startTarget(true)
  await gone[Symbol.asyncDispose]()
  s.relay.target = gone
  const refused = await s.dial()
  refused.socket.write('abc')
  assert.equal(await refused.over(), 'rst')
  await soon((await s.relay.next({ number: 3 })).closed, 'the end of the link')
})

test('next finds those that were and those that come, and fails when it has waited enough', async () => {
  await using s = await stage()
  const third = s.relay.next({ number: 3 })
  const links = [await s.connected(), await s.connected(), await s.connected()].map(({ link }) => link)
  assert.equal(await third, links[2])
  assert.equal(await s.relay.next({ number: 2 }), links[1])
  await assert.rejects(s.relay.next({ timeout: 5 }), /connection 4 did not come within 5 ms/)
  const never = s.relay.next()
  await s.relay.close()
  await assert.rejects(never, /closed before connection 4/)
  await assert.rejects(s.relay.next(), /closed/)
  // Nobody looks at this one.
  void s.relay.nextTurnedAway()
})

test('closing the relay resets what is left and frees the port', async () => {
  await using s = await stage()
  const plain = await s.connected()
  const held = await s.connected()
  held.link.stall('both')
  held.client.socket.write(Buffer.alloc(MIB))
  const cut = await s.connected()
  cut.link.cut('fin')
  await cut.client.over()
  await s.relay.close()
  for (const { client, server } of [plain, held]) {
    assert.deepEqual(await Promise.all([client.over(), server.over()]), ['rst', 'rst'])
  }
  await Promise.all([plain, held, cut].map(({ link }) => soon(link.closed, 'the end of a link')))
  await assert.rejects(dial(s.relay.port), { code: 'ECONNREFUSED' })
  const again = createServer().listen(s.relay.port, '127.0.0.1')
  await once(again, 'listening')
  again.close()
})

test('whatever both sides and the path do, nothing is thrown and all of it ends', async () => {
  await seeded(async (random) => {
    await using s = await stage()
    const faults: readonly [(link: RelayedLink) => void, ...((link: RelayedLink) => void)[]] = [
      (link) => link.cut(random.pick(CUTS), random.pick(['up', 'down', 'both'])),
      (link) => link.stall(random.pick(['up', 'down', 'both'])),
      (link) => link.resume(),
      (link) => link.blackhole(random.pick(DIRECTIONS)),
      (link) => link.delay(random.integer(0, 8)),
      (link) => link.fragment(random.integer(100, 90_000)),
      (link) => link.cutAt('up', link.forwarded.up + random.integer(0, 200_000), random.pick(CUTS)),
      (link) => link.corrupt('down', link.forwarded.down + random.integer(0, 100_000)),
    ]
    const acts: readonly [(peer: Peer) => void, ...((peer: Peer) => void)[]] = [
      ({ socket }) => socket.write(random.bytes(random.integer(1, 300_000))),
      ({ socket }) => socket.write(random.bytes(random.integer(1, 300))),
      ({ socket }) => socket.end(),
      ({ socket }) => (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy()),
      ({ socket }) => socket.pause(),
      ({ socket }) => socket.resume(),
    ]
    for (let round = 0; round < 60; round++) {
      const { client, server, link } = await s.connected()
      for (let step = random.integer(1, 6); step > 0; step--) {
        random.pick(acts)(random.pick([client, server]))
        if (random.chance(0.6)) random.pick(faults)(link)
        if (random.chance(0.7)) await new Promise((resolve) => setImmediate(resolve))
      }
      if (random.chance(0.3)) s.relay.cut(random.pick(CUTS))
    }
    await soon(s.relay.close(), 'the end of the relay')
    assert.deepEqual(s.relay.links, [])
    assert.equal(s.relay.count, 60)
  })
})

/** For those who are reset at once: that may be before they know that they were connected. */
async function dialAndLose(s: Stage): Promise<Cut> {
  try {
    return await (await s.dial()).over()
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'ECONNRESET', String(error))
    return 'rst'
  }
}

interface NetworkStage {
  readonly network: FaultyNetwork
  connected(): Promise<{ dialled: ByteStream; accepted: ByteStream; path: FaultyPath }>
}

function networkStage(fragment?: number): NetworkStage {
  const network = new FaultyNetwork(fragment === undefined ? {} : { fragment })
  return {
    network,
    async connected() {
      const found: { accepted: ByteStream; path: FaultyPath }[] = []
      network.onLink = (link, path) => found.push({ accepted: new ByteStream(link), path })
      const dialled = new ByteStream(await network.dial())
      const [acceptor] = found
      assert.ok(acceptor)
      return { dialled, ...acceptor }
    },
  }
}

const turns = async (count = 20): Promise<void> => {
  while (count-- > 0) await new Promise((resolve) => setImmediate(resolve))
}

for (const fragment of [undefined, 1, 7]) {
  const reads = fragment ? `reads of ${fragment} bytes` : 'whole reads'

  test(`links of the network carry bytes and half-close, and are written down (${reads})`, async () => {
    const { network, connected } = networkStage(fragment)
    const { dialled, accepted, path } = await connected()
    dialled.link.write([Buffer.from('up'), Buffer.from('wards')])
    assert.equal((await accepted.read(7)).toString(), 'upwards')
    dialled.link.end()
    assert.equal((await accepted.rest()).length, 0)
    assert.equal(accepted.end, 'ended')
    accepted.link.write([Buffer.from('down')])
    accepted.link.end()
    assert.equal((await dialled.rest()).toString(), 'down')
    await soon(path.closed, 'the end of the path')
    assert.deepEqual([path.sent('up').toString(), path.sent('down').toString()], ['upwards', 'down'])
    assert.deepEqual(path.forwarded, { up: 7, down: 4 })
    assert.deepEqual([network.live, network.paths], [[], [path]])
  })

  test(`cutAt cuts the next link after exactly so many bytes, all of them read (${reads})`, async () => {
    for (const direction of DIRECTIONS) {
      for (const how of CUTS) {
        for (const offset of [0, 1, 10, 39, 40]) {
          const { network, connected } = networkStage(fragment)
          network.cutAt(direction, offset, how)
          const { dialled, accepted, path } = await connected()
          const [from, to] = direction === 'up' ? [dialled, accepted] : [accepted, dialled]
          const sent = Buffer.from(Array.from({ length: 40 }, (_, index) => index))
          for (let at = 0; at < 40; at += 8) from.link.write([sent.subarray(at, at + 8)])
          const came = await soon(to.rest(), 'the end')
          await soon(from.rest(), 'the end at the sender')
          assert.ok(came.equals(sent.subarray(0, offset)), `${offset}: ${came.length} bytes`)
          const end = how === 'fin' ? 'ended' : 'closed'
          assert.deepEqual([from.end, to.end, path.forwarded[direction]], [end, end, offset])
          assert.equal(network.cut('rst'), 0)
          // The one after it has nothing of this.
          const next = await connected()
          next.dialled.link.write([sent])
          await next.accepted.read(40)
        }
      }
    }
  })

  test(`what is held comes in order when it is released, ends too (${reads})`, async () => {
    const { network, connected } = networkStage(fragment)
    const { dialled, accepted, path } = await connected()
    path.at('up', 3, () => path.hold('up'))
    dialled.link.write([Buffer.from('012345')])
    dialled.link.write([Buffer.from('6789')])
    dialled.link.end()
    assert.equal((await accepted.read(3)).toString(), '012')
    await turns(40)
    assert.deepEqual([accepted.total, accepted.end], [3, undefined])
    assert.equal(network.release(), 1)
    assert.equal((await accepted.rest()).toString(), '3456789')
    assert.equal(accepted.end, 'ended')
  })
}

for (const how of CUTS) {
  test(`the network cuts what is live, towards both sides or one (${how})`, async () => {
    const { network, connected } = networkStage()
    const first = await connected()
    const second = await connected()
    const end = how === 'fin' ? 'ended' : 'closed'
    first.path.cut(how, 'down')
    await first.dialled.rest()
    first.accepted.link.write([Buffer.from('anybody?')])
    await turns()
    assert.deepEqual([first.dialled.end, first.accepted.end], [end, undefined])
    assert.equal(network.cut(how), 2)
    await Promise.all([first.accepted.rest(), second.dialled.rest(), second.accepted.rest()])
    assert.deepEqual([first.accepted.end, second.dialled.end, second.accepted.end], [end, end, end])
    assert.equal(network.cut(how), 0)
  })
}

test('a blackhole in the network eats bytes and ends, and takes all there is', async () => {
  const { network, connected } = networkStage()
  const { dialled, accepted } = await connected()
  accepted.paused = true
  for (let times = 0; times < 4; times++) dialled.link.write([Buffer.alloc(MIB)])
  await turns()
  assert.ok(dialled.link.pending > 0, 'a reader that is slow is felt at the other end')
  const before = accepted.total
  assert.equal(network.blackhole('up'), 1)
  accepted.paused = false
  accepted.link.resume()
  dialled.link.write([Buffer.alloc(4 * MIB)])
  dialled.link.destroy(new Error('gone'))
  await turns(60)
  assert.equal(accepted.end, undefined)
  // What had passed already, and nothing of what came later.
  assert.ok(accepted.total >= before && accepted.total <= 2 * MIB, `${accepted.total}`)
})

test('a bit of a link can be flipped', async () => {
  const { network, connected } = networkStage()
  network.arm((path) => path.corrupt('down', 3, 0x80))
  const { dialled, accepted } = await connected()
  accepted.link.write([Buffer.from([1, 2]), Buffer.from([3, 4, 5])])
  assert.deepEqual([...(await dialled.read(5))], [1, 2, 3, 0x84, 5])
})

test('dials of a blocked network fail, or wait for the end of that or of their patience', async () => {
  const { network, connected } = networkStage()
  const refused = (error: unknown): boolean =>
    error instanceof ProxyError && error.code === 'PROXY_ERR_DIAL_FAILED' && error.retryable
  await assert.rejects(network.dial(), refused)
  network.block('refuse')
  await assert.rejects(connected(), refused)
  assert.equal(network.refused, 2)
  network.block('hang')
  const patience = new AbortController()
  const given = network.dial({ signal: patience.signal })
  const waiting = connected()
  patience.abort()
  await assert.rejects(given, { name: 'AbortError' })
  assert.equal(network.paths.length, 0)
  network.unblock()
  const { dialled, accepted } = await soon(waiting, 'the link')
  dialled.link.write([Buffer.from('!')])
  await accepted.read(1)
})

test('the same seed gives the same numbers, and a failure names it', async () => {
  const one = new Random(7)
  const two = new Random(7)
  const other = new Random(8)
  assert.ok(one.bytes(1001).equals(two.bytes(1001)))
  assert.equal(one.word(), two.word())
  assert.ok(!one.bytes(64).equals(other.bytes(64)))
  const seen = new Set(Array.from({ length: 500 }, () => one.integer(-2, 3)))
  assert.deepEqual([...seen].sort(), [-1, -2, 0, 1, 2, 3])
  assert.deepEqual(new Set(Array.from({ length: 100 }, () => one.pick(['a', 'b']))), new Set(['a', 'b']))
  const often = Array.from({ length: 4000 }, () => one.chance(0.25)).filter(Boolean).length
  assert.ok(often > 800 && often < 1200, `${often}`)
  const failing = seeded(() => Promise.reject(new Error('no')), 41)
  await assert.rejects(failing, { message: 'with SYMPORT_SEED=41: no' })
})

test('SYMPORT_SEED is the seed, and has to be one', (t) => {
  const before = process.env.SYMPORT_SEED
  t.after(() => {
    if (before === undefined) delete process.env.SYMPORT_SEED
    else process.env.SYMPORT_SEED = before
  })
  process.env.SYMPORT_SEED = '4294967295'
  assert.equal(seedFromEnv(), 4_294_967_295)
  for (const wrong of ['', 'x', '-1', '4294967296', '1e3']) {
    process.env.SYMPORT_SEED = wrong
    assert.throws(() => seedFromEnv(), /SYMPORT_SEED/)
  }
  delete process.env.SYMPORT_SEED
  assert.ok(new Set(Array.from({ length: 4 }, seedFromEnv)).size > 1)
})

test('a delay line takes its time each way, and passes on ends and resets', async () => {
  await using target = await startTarget(false)
  await using line = await startDelayLine({ target, delayMs: 15 })
  const client = await dial(line.port)
  const server = await target.next()
  const started = performance.now()
  client.socket.end('ping')
  assert.equal(await server.over(), 'fin')
  assert.equal(server.bytes.toString(), 'ping')
  assert.ok(performance.now() - started >= 14)
  server.socket.write('pong')
  await client.has(4)
  assert.ok(performance.now() - started >= 29)
  server.socket.resetAndDestroy()
  await eventually(() => client.end !== undefined, 'the reset')
  assert.deepEqual(line.held, { up: 0, down: 0 })
})

test('a delay line has a rate, holds what fills it, and then lets the writer wait', async () => {
  await seeded(async (random) => {
    await using target = await startTarget(false)
    // 25,000 bytes a ms: 250,000 under way, and a queue of as many.
    await using line = await startDelayLine({ target, delayMs: 10, bitsPerSecond: 200_000_000, queueBytes: 250_000 })
    assert.equal(line.capacity, 500_000)
    const clients = [await dial(line.port), await dial(line.port)]
    const servers = [await target.next(), await target.next()]
    const sent = random.bytes(3 * MIB)
    let most = 0
    for (const server of servers) {
      server.socket.on('data', () => {
        most = Math.max(most, line.held.up)
      })
    }
    const started = performance.now()
    for (const client of clients) client.socket.end(sent)
    for (const server of servers) {
      assert.equal(await server.over(), 'fin')
      assert.ok(server.bytes.equals(sent))
    }
    const took = performance.now() - started
    const least = 10 + (2 * sent.length) / 25_000
    assert.ok(took >= least - 2, `${took} ms instead of ${least}`)
    assert.ok(most > 250_000 && most <= 500_000 + 4 * 65_536, `${most} bytes held`)
  })
})

test('a delay line does not read for somebody who does not', async () => {
  await using target = await startTarget(false)
  await using line = await startDelayLine({ target, delayMs: 2 })
  const client = await dial(line.port)
  const server = await target.next()
  server.socket.pause()
  client.socket.write(Buffer.alloc(64 * MIB))
  const other = await dial(line.port)
  const reader = await target.next()
  other.socket.end(Buffer.alloc(MIB))
  assert.equal(await reader.over(), 'fin')
  assert.equal(reader.length, MIB)
  assert.ok(client.socket.writableLength > 0)
})

test('the delay line runs as a program that ends with its standard input', async () => {
  await using echo = await startTarget(true)
  const main = fileURLToPath(new URL('../../helpers/faults/delay-line-main.js', import.meta.url))
  const args = [main, `${echo.port}`, '--delay', '10', '--rate', '1e8', '--queue', '100000']
  const program = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    const [line] = (await once(program.stdout, 'data')) as [Buffer]
    const { port } = JSON.parse(line.toString()) as { port: number }
    const client = await dial(port)
    const started = performance.now()
    client.socket.write('ping')
    await client.has(4)
    assert.ok(performance.now() - started >= 19)
    program.stdin.end()
    assert.deepEqual(await soon(once(program, 'exit'), 'the end of the program'), [0, null])
  } finally {
    program.kill('SIGKILL')
  }
})
