import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { after, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type DomainPlugin, type Proxy, ProxyError, type ServerOptions } from '../../lib/index.ts'
import { CODE, codeDomain } from '../helpers/contract/code.ts'
import { count, eventually, soon } from '../helpers/contract/strays.ts'
import { ByteStream } from '../helpers/core/byte-stream.ts'
import {
  Counted,
  type Doorstep,
  fillSessions,
  firstWords,
  rejections,
  startDoorstep,
  wrongCredential,
} from '../helpers/e2e/doorstep.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'
import { turns } from '../helpers/resume/hurry.ts'

const KIB = 1024
const MIB = 1024 * KIB
const TOO_MANY_HANDSHAKES = 'PROXY_ERR_TOO_MANY_HANDSHAKES'
/** Of documentation (RFC 5737): loopback is not limited. */
const HERE = '192.0.2.1:40000'
const ELSEWHERE = '198.51.100.1:40000'

const SINK = { Domain: 'sink', Addr: '' }
const SOURCE = { Domain: 'source', Addr: '' }
const NEVER = { Domain: 'never', Addr: '' }

/** Takes what comes, and never is done with it. */
const sink: DomainPlugin = {
  name: 'sink',
  dial: async () => new Duplex({ read() {}, write() {} }),
}

/** Is never connected. */
const never: DomainPlugin = { name: 'never', dial: () => new Promise(() => {}) }

// Each server and each node would take a tenth of a second for the secret.
const cheap = cheapScrypt()
after(() => cheap[Symbol.dispose]())
// And a stack of ten lines for each of 20,000 refusals takes longer than the refusals.
Error.stackTraceLimit = 1

const DOMAINS: readonly DomainPlugin[] = [sink, never]

function doorstep(options: Partial<ServerOptions> = {}): Promise<Doorstep> {
  return startDoorstep({ domains: DOMAINS, ...options })
}

/** The code that a promise fails with. */
async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise
  } catch (error) {
    if (error instanceof ProxyError) return error.code
    throw error
  }
  return 'none'
}

/** What a number is when it has not changed for a while. */
async function settled(read: () => number): Promise<number> {
  for (let before = Number.NaN; ; ) {
    const now = read()
    if (now === before) return now
    before = now
    await sleep(50)
  }
}

/** Time that passes only when told to. */
function stoppedClock(t: TestContext): { advance(ms: number): void } {
  // Whole, so that sums and differences are what they should be.
  let now = Math.ceil(performance.now())
  t.mock.method(performance, 'now', () => now)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  return {
    advance(ms) {
      now += ms
      t.mock.timers.tick(ms)
    },
  }
}

describe('handshakes at once', () => {
  for (const [options, limit] of [
    [{ maxHandshakes: 3 }, 3],
    [{}, 1024],
  ] as const) {
    const set = limit === 3 ? 'maxHandshakes' : 'the default'

    test(`are ${limit} by ${set}: one more takes the place of the oldest that has said nothing`, async () => {
      await using door = await doorstep(options)
      const streams = Array.from({ length: limit + 1 }, () => new ByteStream(door.knock()))
      const [oldest] = streams
      assert.equal((await soon(oldest?.rest() ?? Promise.reject(), 'the end of the oldest')).length, 0)
      assert.deepEqual(
        rejections(door).map(({ reason }) => [reason.code, reason.retryable]),
        [[TOO_MANY_HANDSHAKES, true]],
      )
      assert.deepEqual(
        streams.slice(1).filter(({ end }) => end),
        [],
      )
      // A node that knows the secret is served all the same.
      const node = await door.connect()
      node.close()
    })

    test(`are ${limit} by ${set}: one more takes the place of the oldest where all know the secret`, async () => {
      await using door = await doorstep(options)
      const words = await firstWords()
      const streams: ByteStream[] = []
      for (let number = 0; number < limit; number++) {
        const link = door.knock()
        const stream = new ByteStream(link)
        streams.push(stream)
        link.write([words])
        // The answer: a byte, and a message.
        await stream.read(3)
      }
      const [oldest, ...others] = streams
      const newcomer = new ByteStream(door.knock())
      await soon(oldest?.rest() ?? Promise.reject(), 'the end of the oldest')
      assert.equal(newcomer.end, undefined)
      // The next one takes the place of the one that has said nothing.
      const node = await door.connect()
      await soon(newcomer.rest(), 'the end of the silent one')
      assert.deepEqual(
        others.filter(({ end }) => end),
        [],
      )
      assert.deepEqual(
        rejections(door).map(({ reason }) => [reason.code, reason.retryable]),
        Array(2).fill([TOO_MANY_HANDSHAKES, true]),
      )
      node.close()
    })
  }

  for (const [options, limit] of [
    [{ handshakesPerAddress: 3 }, 3],
    [{}, 64],
  ] as const) {
    test(`of one address are ${limit} by ${limit === 3 ? 'handshakesPerAddress' : 'default'}`, async () => {
      await using door = await doorstep(options)
      const streams = Array.from({ length: limit }, () => new ByteStream(door.knock(HERE)))
      assert.equal((await soon(new ByteStream(door.knock(HERE)).rest(), 'the end')).length, 0)
      assert.deepEqual(
        rejections(door).map(({ remote, reason }) => [remote, reason.code, reason.retryable]),
        [[HERE, TOO_MANY_HANDSHAKES, true]],
      )
      for (const remote of [ELSEWHERE, '127.0.0.1:40000']) (await door.connect({ remote })).close()
      assert.equal(streams.filter(({ end }) => end).length, 0)
      // A place that is free again is given away.
      streams[0]?.link.destroy()
      await eventually(() => rejections(door).length === 2, 'the end of one')
      ;(await door.connect({ remote: HERE })).close()
    })
  }
})

test('tries with a wrong secret wait for each other at their address, up to 8 of them; one more is turned away', async (t) => {
  await using door = await doorstep()
  const wrong = { remote: HERE, secret: await wrongCredential() }
  const clock = stoppedClock(t)
  assert.equal(await codeOf(door.connect(wrong)), 'PROXY_ERR_REFUSED')
  let over = 0
  const waiting = Array.from({ length: 8 }, () => codeOf(door.connect(wrong)).finally(() => over++))
  // To whoever is turned away it looks like the other refusals.
  assert.equal(await codeOf(door.connect(wrong)), 'PROXY_ERR_REFUSED')
  assert.deepEqual(
    rejections(door).map(({ remote, reason }) => [remote, reason.code, reason.retryable]),
    [
      [HERE, 'PROXY_ERR_HANDSHAKE', false],
      [HERE, 'PROXY_ERR_TOO_MANY_FAILURES', true],
    ],
  )
  // Nobody waits elsewhere.
  for (const remote of [ELSEWHERE, '127.0.0.1:40000']) {
    assert.equal(await codeOf(door.connect({ ...wrong, remote })), 'PROXY_ERR_REFUSED')
  }
  clock.advance(249)
  await turns()
  assert.equal(over, 0)
  clock.advance(1)
  assert.equal(await Promise.race(waiting), 'PROXY_ERR_REFUSED')
  await turns()
  assert.equal(over, 1)
})

test('main connections at once are maxSessions, those without a link included', async () => {
  await using door = await doorstep({ maxSessions: 3 })
  await fillSessions(door, 3)
  // One that has lost its link keeps its place, and one that has ended does not.
  const [first, second] = [...door.server.nodes]
  assert.ok(first && second)
  door.links[0]?.destroy()
  await once(first.proxy, 'state')
  assert.equal(first.proxy.state, 'resuming')
  assert.equal((await (await door.connect()).main.closed).code, 'PROXY_ERR_TOO_MANY_SESSIONS')
  second.proxy.close()
  await second.proxy.closed
  const node = await door.connect()
  assert.equal(rejections(door).length, 2)
  node.close()
})

for (const [limits, limit] of [
  [{ listeners: 3 }, 3],
  [{}, 1024],
] as const) {
  test(`listeners of a node are ${limit} by ${limit === 3 ? 'limits.listeners' : 'default'}`, async () => {
    const code = codeDomain()
    await using door = await doorstep({ limits, domains: [code] })
    const node = await door.connect()
    const mapping = { Listen: CODE, Forward: NEVER }
    const [first] = await Promise.all(Array.from({ length: limit }, () => node.newPeerListener(mapping)))
    const tooMany = { code: 'PROXY_ERR_TOO_MANY_LISTENERS', retryable: false }
    await assert.rejects(node.newPeerListener(mapping), tooMany)
    assert.equal(code.listening, limit)
    await first?.close()
    await node.newPeerListener(mapping)
    await assert.rejects(node.newPeerListener(mapping), tooMany)
  })
}

const tooManyOpens = { code: 'PROXY_ERR_TOO_MANY_OPENS', retryable: true }

test('a node may open limits.opensPerSecond sub-connections a second, and what it leaves does not add up', async (t) => {
  await using door = await doorstep({ limits: { opensPerSecond: 10 } })
  const node = await door.connect()
  const clock = stoppedClock(t)
  assert.equal(await opens(node, 10), 10)
  await assert.rejects(node.dial(SINK), tooManyOpens)
  for (const pause of [1000, 60_000]) {
    clock.advance(pause)
    assert.equal(await opens(node, 10), 10)
    await assert.rejects(node.dial(SINK), tooManyOpens)
  }
  // Half of them are left for a moment after the pause.
  clock.advance(1000)
  assert.equal(await opens(node, 5), 5)
  clock.advance(60_000)
  assert.equal(await opens(node, 10), 10)
  await assert.rejects(node.dial(SINK), tooManyOpens)
})

test('a node may open 20,000 sub-connections a second by default', async (t) => {
  await using door = await doorstep()
  const node = await door.connect()
  stoppedClock(t)
  // What leads nowhere counts like the rest, and costs less.
  const open = (): Promise<string> => codeOf(node.dial({ Domain: 'nowhere', Addr: '' }))
  const codes = new Set<string>()
  for (let opened = 0; opened < 20_000; opened += 500) {
    for (const code of await Promise.all(Array.from({ length: 500 }, open))) codes.add(code)
  }
  assert.deepEqual([...codes], ['PROXY_ERR_UNKNOWN_DOMAIN'])
  assert.equal(await open(), 'PROXY_ERR_TOO_MANY_OPENS')
})

/** Opens so many at once, and closes them. Answers how many of them were let in. */
async function opens(node: Proxy, count: number): Promise<number> {
  const dials = await Promise.allSettled(Array.from({ length: count }, () => node.dial(SINK)))
  let opened = 0
  for (const dial of dials) {
    if (dial.status === 'rejected') continue
    opened++
    dial.value.on('error', () => {})
    dial.value.destroy()
  }
  return opened
}

test('sub-connections of a node are limits.subConnections: it is told, and one more is refused', async () => {
  await using door = await doorstep({ limits: { subConnections: 3 } })
  const node = await door.connect()
  const subs = await Promise.all([node.dial(SINK), node.dial(SINK), node.dial(SINK)])
  const tooMany = { code: 'PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', retryable: true }
  await assert.rejects(node.dial(SINK), tooMany)
  assert.equal(count(door.youngest.proxy), 3)
  subs[0]?.destroy()
  await eventually(() => count(node) === 2, 'the end of one')
  await node.dial(SINK)
  await assert.rejects(node.dial(SINK), tooMany)
})

test('the limit of limits.subConnections counts for what the server opens, too', async () => {
  await using door = await doorstep({ limits: { subConnections: 3 } })
  const node = await door.connect({ domains: [sink] })
  const { proxy } = door.youngest
  await Promise.all([proxy.dial(SINK), proxy.dial(SINK), node.dial(SINK)])
  await assert.rejects(proxy.dial(SINK), { code: 'PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', retryable: true })
})

test('opens of a node that are not answered are limits.pendingOpens: it is told, and others wait', async () => {
  const dialled: (() => void)[] = []
  const slow: DomainPlugin = {
    name: 'slow',
    dial: () =>
      new Promise((_, reject) => void dialled.push(() => reject(new ProxyError('PROXY_ERR_DIAL_FAILED', '')))),
  }
  await using door = await doorstep({ limits: { pendingOpens: 2 }, domains: [slow] })
  const node = await door.connect()
  const opens = Array.from({ length: 5 }, () => codeOf(node.dial({ Domain: 'slow', Addr: '' })))
  await eventually(() => dialled.length === 2, 'two dials')
  await turns()
  assert.equal(dialled.length, 2)
  for (let next = 0; next < opens.length; next++) {
    await eventually(() => dialled.length > next, `dial ${next}`)
    assert.ok(dialled.length <= next + 2)
    dialled[next]?.()
  }
  assert.deepEqual(await Promise.all(opens), Array(5).fill('PROXY_ERR_DIAL_FAILED'))
})

test('a node is told 16,384 sub-connections and 1,024 open ones not answered by default, and the others are as documented', async () => {
  await using door = await doorstep()
  const node = await door.connect()
  assert.deepEqual(node.main.peer.limits, { subConnections: 16_384, pendingOpens: 1024 })
  assert.deepEqual(door.youngest.proxy.main.limits, {
    subConnections: 16_384,
    pendingOpens: 1024,
    opensPerSecond: 20_000,
    openTimeout: 30_000,
    listeners: 1024,
    keptBytes: 32 * MIB,
    windowBytes: 64 * MIB,
  })
  // Whatever the handshake left to be acknowledged is in it as well.
  const { free } = door.youngest.proxy.main.budget
  assert.ok(free <= 512 * MIB && free > 511 * MIB, `${free} bytes`)
})

test('limits that make no sense are errors', async () => {
  for (const limits of [
    { listeners: 0 },
    { keptBytes: Number.NaN },
    { subConnections: 16_385 },
    { pendingOpens: 1025 },
  ]) {
    await assert.rejects(doorstep({ limits }), RangeError, JSON.stringify(limits))
  }
})

/** What a server takes of ten sub-connections that nobody reads, in bytes on the wire; of two nodes together. */
async function taken(options: Partial<ServerOptions>): Promise<number> {
  await using door = await doorstep(options)
  let bytes = 0
  for (let number = 0; number < 2; number++) {
    let link: Counted | undefined
    const node = await door.connect({
      through(plain) {
        link = new Counted(plain)
        return link
      },
    })
    const subs = await Promise.all(Array.from({ length: 5 }, () => node.dial(SINK)))
    for (const sub of subs) sub.write(Buffer.alloc(MIB))
    bytes += await settled(() => link?.sent ?? 0)
  }
  return bytes
}

/** A sub-connection may carry this much before its window is known, or at least so much: early data, and frames. */
const EARLY = 10 * (16 + 4) * KIB

test('limits.windowBytes bounds what a node may have under way, above 4 KiB for each sub-connection', async () => {
  const most = await taken({})
  assert.ok(most >= 10 * 256 * KIB, `${most} bytes by default`)
  const bytes = await taken({ limits: { windowBytes: 200 * KIB } })
  assert.ok(bytes <= 2 * 200 * KIB + EARLY, `${bytes} bytes`)
  assert.ok(bytes >= 2 * 150 * KIB, `${bytes} bytes`)
})

test('heldBytes bounds what all nodes together may have under way', async () => {
  const bytes = await taken({ heldBytes: 400 * KIB })
  assert.ok(bytes <= 400 * KIB + EARLY, `${bytes} bytes`)
  assert.ok(bytes >= 300 * KIB, `${bytes} bytes`)
})

/** What a server sends to a node that acknowledges nothing any more, in bytes on the wire. */
async function unacknowledged(options: Partial<ServerOptions>): Promise<number> {
  const sources: Duplex[] = []
  const source: DomainPlugin = {
    name: 'source',
    async dial() {
      const duplex = new Duplex({ read() {}, write() {} })
      sources.push(duplex)
      return duplex
    },
  }
  await using door = await doorstep({ ...options, domains: [source] })
  let link: Counted | undefined
  const node = await door.connect({
    through(plain) {
      link = new Counted(plain)
      return link
    },
  })
  // First windows share 4 MiB, and nobody reads: no more than that is ever granted.
  await Promise.all(Array.from({ length: 16 }, () => node.dial(SOURCE)))
  if (!link) throw new TypeError('no link')
  link.deaf = true
  const before = link.received
  for (const source of sources) source.push(Buffer.alloc(MIB))
  return (await settled(() => link?.received ?? 0)) - before
}

test('limits.keptBytes bounds what is sent before something is acknowledged, but for one record', async () => {
  const most = await unacknowledged({})
  assert.ok(most >= 2 * MIB, `${most} bytes by default`)
  const bytes = await unacknowledged({ limits: { keptBytes: MIB } })
  assert.ok(bytes >= MIB && bytes <= 1.6 * MIB, `${bytes} bytes`)
})
