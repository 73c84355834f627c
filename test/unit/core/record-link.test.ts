import assert from 'node:assert/strict'
import test, { afterEach } from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { Frame } from '../../../lib/core/frame.ts'
import type { RecordLink, RecordLinkOwner } from '../../../lib/core/record-link.ts'
import { frame, hex, u32, u64 } from '../../helpers/core/bytes.ts'
import { LinkBench } from '../../helpers/core/link-bench.ts'

const HELLO = frame(Frame.hello, 0, u64(0))
const FIN = frame(Frame.fin, 1)
const LOST = 'PROXY_ERR_LINK_LOST'
const AUTH = 'PROXY_ERR_RECORD_AUTH'

/** By node-forge: a ping of `abcdefgh` as record 0, and a hello that expects 7 as record 1. */
const PINNED_PING = '00000020e406fcb95f5740ae0373afd56be179e25053a4213a49d25ffe69ff56eea216f5'
const PINNED_HELLO = '0000002095f0c014178870321c18edd44595576498b4e644b83d94075d261b449397cb5a'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Writes down what it is told. */
class Owner implements RecordLinkOwner {
  readonly records: Buffer[] = []
  readonly violations: ProxyError[] = []
  readonly losses: ProxyError[] = []
  drained = 0
  woken = 0
  onEach: (() => void) | undefined

  onRecord(slices: readonly Buffer[], length: number): boolean {
    const plain = Buffer.concat(slices)
    assert.equal(length, plain.length + 16)
    this.records.push(plain)
    this.onEach?.()
    return true
  }

  onViolation(error: ProxyError): void {
    this.violations.push(error)
  }

  onDrained(): void {
    this.drained++
  }

  wake(): void {
    this.woken++
  }

  onLost(_link: RecordLink, error: ProxyError): void {
    this.losses.push(error)
  }

  get lostBy(): string[] {
    return this.losses.map(({ code }) => code)
  }
}

const benches: LinkBench[] = []

afterEach(() => {
  for (const { link, fake } of benches.splice(0)) {
    link.destroy()
    fake.sink?.closed()
  }
})

/** A link that is past the hellos and read from. */
async function opened(bench = new LinkBench()): Promise<{ bench: LinkBench; owner: Owner }> {
  benches.push(bench)
  bench.receive(HELLO)
  await bench.link.greeted(true)
  const owner = new Owner()
  bench.link.ownBy(owner)
  bench.link.open()
  await turn()
  return { bench, owner }
}

// --- the wire ---

test('a frame alone is one record, byte for byte', () => {
  const { link, fake } = new LinkBench()
  link.sendAlone(Frame.ping, Buffer.from('abcdefgh'))
  link.sendAlone(Frame.hello, u64(7))
  assert.deepEqual(
    fake.written.map((record) => record.toString('hex')),
    [PINNED_PING, PINNED_HELLO],
  )
})

test('head and tail are one record, and what is needed to open it again is handed back', () => {
  const bench = new LinkBench()
  bench.link.sendAlone(Frame.hello, u64(0))
  const sent = bench.link.send(FIN, Buffer.alloc(50_000, 7))
  assert.equal(sent.number, 1)
  assert.equal(sent.bytes, 50_008)
  assert.equal(Buffer.concat([...sent.chunks]).length, 4 + 50_008 + 16)
  assert.deepEqual(bench.sent().slice(1), [Buffer.concat([FIN, Buffer.alloc(50_000, 7)])])
  const { number, key } = bench.link.send(FIN)
  assert.deepEqual([number, key], [2, sent.key])
})

// --- greeting ---

test('record 0 is the hello, in whatever pieces it comes', async () => {
  const bench = new LinkBench()
  const greeted = bench.link.greeted(true)
  const label = Buffer.concat([hex('01 0006'), Buffer.from('node-1')])
  for (const byte of bench.seal(frame(Frame.hello, 0, Buffer.concat([u64(9), label]))))
    bench.fake.feed(Buffer.from([byte]))
  const hello = await greeted
  assert.deepEqual([hello.expected, hello.label], [9, 'node-1'])
})

test('what stands behind the hello waits until somebody wants it, and is not handed over within that call', async () => {
  const bench = new LinkBench()
  bench.fake.feed(Buffer.concat([bench.seal(HELLO), bench.seal(FIN), bench.seal(FIN, FIN)]))
  await bench.link.greeted(true)
  await turn()
  const owner = new Owner()
  bench.link.ownBy(owner)
  bench.link.open()
  assert.deepEqual(owner.records, [])
  await turn()
  assert.deepEqual(owner.records, [FIN, Buffer.concat([FIN, FIN])])
  bench.link.destroy()
})

test('a far side that goes on after its hello fills one buffer, and then waits', async () => {
  const bench = new LinkBench()
  bench.receive(HELLO)
  await bench.link.greeted(true)
  for (let count = 0; count < 2000; count++) bench.receive(FIN)
  assert.equal(bench.fake.paused, true)
  assert.ok(bench.fake.unread > 0)
  const owner = new Owner()
  bench.link.ownBy(owner)
  bench.link.open()
  await turn()
  assert.equal(owner.records.length, 2000)
  assert.equal(bench.fake.unread, 0)
  bench.link.destroy()
})

test('a first record of more than 4,000 bytes ends the link before it has come', async () => {
  const bench = new LinkBench()
  const greeted = bench.link.greeted(true)
  bench.fake.feed(u32(4001))
  await assert.rejects(greeted, { name: 'ProxyError', code: 'PROXY_ERR_RECORD_TOO_LARGE' })
  assert.ok(bench.fake.destroyed)
  assert.equal(bench.link.over, true)
})

const NO_HELLO: [string, Buffer, string][] = [
  ['another frame', frame(Frame.ping, 0, u64(0)), 'PROXY_ERR_FRAME'],
  ['two hellos', Buffer.concat([HELLO, HELLO]), 'PROXY_ERR_FRAME'],
  ['a hello and more', Buffer.concat([HELLO, FIN]), 'PROXY_ERR_FRAME'],
  ['half a frame', Buffer.from([0]), 'PROXY_ERR_FRAME'],
  ['a goaway', frame(Frame.goaway, 0, '\x0bPROXY_ERR_Xbecause'), 'PROXY_ERR_X'],
]
for (const [what, record, code] of NO_HELLO) {
  test(`a first record of ${what} is no greeting, and the link is left to whoever waits for one`, async () => {
    const bench = new LinkBench()
    const greeted = bench.link.greeted(true)
    bench.receive(record)
    await assert.rejects(greeted, { name: 'ProxyError', code })
    assert.equal(bench.link.over, false)
    bench.link.sendAlone(Frame.goaway, Buffer.from([0]))
    assert.deepEqual(bench.sent(), [frame(Frame.goaway, 0, '\0')])
  })
}

test('a link that is lost before the hello says so to whoever waits for it', async () => {
  const ways: [(bench: LinkBench) => void, string][] = [
    [({ fake }) => fake.sink?.ended(), LOST],
    [({ fake }) => fake.sink?.closed(new Error('read ECONNRESET')), LOST],
    [(bench) => bench.receiveNoise(), AUTH],
  ]
  for (const [lose, code] of ways) {
    const bench = new LinkBench()
    const greeted = bench.link.greeted(true)
    lose(bench)
    await assert.rejects(greeted, { name: 'ProxyError', code })
    assert.equal(bench.link.over, true)
  }
})

test('a link that is lost between the hello and `open` is told of soon after that, once', async () => {
  const bench = new LinkBench()
  bench.receive(HELLO)
  await bench.link.greeted(true)
  bench.fake.sink?.ended()
  bench.fake.sink?.closed()
  const owner = new Owner()
  bench.link.ownBy(owner)
  bench.link.open()
  assert.deepEqual(owner.lostBy, [])
  await turn()
  assert.deepEqual(owner.lostBy, [LOST])
  await turn()
  assert.deepEqual(owner.lostBy, [LOST])
})

// --- records ---

test('records come whole and in order, in whatever pieces they travel', async () => {
  const { bench, owner } = await opened()
  const plains = [1, 100, 5000, 70_000, 2].map((size) => frame(Frame.data, 1, Buffer.alloc(size, size)))
  const bytes = Buffer.concat(plains.map((plain) => bench.seal(plain)))
  for (let at = 0; at < bytes.length; at += 777) bench.fake.feed(bytes.subarray(at, at + 777))
  assert.deepEqual(owner.records, plains)
})

test('a record that does not open ends the link: nothing is said, and nothing behind it is looked at', async () => {
  for (const noise of [Buffer.concat([u32(17), Buffer.alloc(17)]), u32(16), u32(524_289)]) {
    const { bench, owner } = await opened()
    bench.fake.feed(Buffer.concat([bench.seal(FIN), noise, bench.seal(FIN)]))
    assert.deepEqual(owner.records, [FIN])
    assert.equal(owner.losses.length, 1)
    assert.match(owner.lostBy[0] ?? '', /^PROXY_ERR_RECORD_/)
    assert.ok(bench.fake.destroyed)
    assert.deepEqual(bench.fake.written, [])
    bench.fake.sink?.closed()
    assert.equal(owner.losses.length, 1)
  }
})

test('the end of the link is the loss of it, once', async () => {
  const { bench, owner } = await opened()
  bench.fake.sink?.ended()
  bench.fake.sink?.closed()
  assert.deepEqual(owner.lostBy, [LOST])
  assert.equal(owner.losses[0]?.retryable, true)
  assert.ok(bench.fake.destroyed)
})

test('an owner that throws is told that the peer has broken a rule, and may say what comes of it', async () => {
  const { bench, owner } = await opened()
  const rule = new ProxyError('PROXY_ERR_ID', 'an id that is in use')
  owner.onEach = () => {
    throw rule
  }
  bench.receive(FIN)
  assert.deepEqual(owner.violations, [rule])
  const bug = new TypeError('a bug')
  owner.onEach = () => {
    throw bug
  }
  bench.receive(FIN)
  assert.deepEqual([owner.violations[1]?.code, owner.violations[1]?.cause], ['PROXY_ERR_INTERNAL', bug])
  assert.deepEqual(owner.losses, [])
})

test('an owner that leaves in the middle of a buffer gets nothing of the rest', async () => {
  for (const how of ['leave', 'destroy'] as const) {
    const { bench, owner } = await opened()
    owner.onEach = () => bench.link[how]()
    bench.fake.feed(Buffer.concat([bench.seal(FIN), bench.seal(FIN)]))
    assert.equal(owner.records.length, 1, how)
  }
})

test('that the link has room again is passed on', async () => {
  const { bench, owner } = await opened()
  bench.fake.pending = 5
  assert.equal(bench.link.pending, 5)
  bench.fake.pending = 0
  bench.fake.sink?.drained()
  assert.equal(owner.drained, 1)
})

test('silence ends the link, and whatever comes puts that off', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { bench, owner } = await opened(new LinkBench(0x11, { idle: 1000, timeout: 400 }))
  for (let count = 0; count < 10; count++) {
    t.mock.timers.tick(700)
    bench.receive(FIN)
    bench.link.sendAlone(Frame.ack, u64(count))
  }
  assert.equal(owner.woken, 0)
  t.mock.timers.tick(1000)
  assert.ok(owner.woken > 0)
  assert.ok(bench.link.heartbeat.takePing())
  assert.deepEqual(owner.lostBy, [])
  t.mock.timers.tick(400)
  assert.deepEqual(owner.lostBy, ['PROXY_ERR_KEEPALIVE'])
  assert.ok(bench.fake.destroyed)
  t.mock.timers.tick(10_000)
  assert.equal(owner.losses.length, 1)
})

// --- the end ---

test('leaving ends this direction; what comes is dropped, and nobody is told anything any more', async () => {
  const { bench, owner } = await opened()
  bench.link.sendAlone(Frame.goaway, Buffer.from([0]))
  bench.link.leave()
  assert.equal(bench.fake.finished, true)
  assert.equal(bench.fake.destroyed, undefined)
  assert.deepEqual(bench.sent(), [frame(Frame.goaway, 0, '\0')])
  bench.receive(FIN)
  bench.receiveNoise()
  bench.fake.feed(Buffer.alloc(2_000_000))
  assert.equal(bench.fake.unread, 0, 'unread bytes would make the system reset the link')
  bench.fake.sink?.ended()
  bench.fake.sink?.closed()
  assert.deepEqual([owner.records.length, owner.losses.length, owner.violations.length], [0, 0, 0])
})

test('a link that was left is destroyed when nothing has moved for 2 s', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const { bench } = await opened()
  bench.fake.pending = 3000
  bench.link.leave()
  for (const left of [2000, 1000, 500]) {
    t.mock.timers.tick(2000)
    bench.fake.pending = left
  }
  t.mock.timers.tick(2000)
  assert.equal(bench.fake.destroyed, undefined, 'bytes move')
  t.mock.timers.tick(2000)
  assert.ok(bench.fake.destroyed)
})

test('a link that was left, and is closed, leaves no timer', async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const before = timers()
  const { bench } = await opened()
  bench.link.leave()
  bench.fake.sink?.ended()
  bench.fake.sink?.closed()
  assert.equal(timers(), before)
})

test('a link that is destroyed tells its far side with the reason, and nobody here', async () => {
  const { bench, owner } = await opened()
  const reason = new ProxyError('PROXY_ERR_X', 'because')
  bench.link.destroy(reason)
  bench.link.destroy()
  bench.link.leave()
  assert.equal(bench.link.over, true)
  assert.equal(bench.fake.destroyed?.error, reason)
  assert.equal(bench.fake.finished, false)
  bench.fake.sink?.closed(reason)
  bench.fake.feed(bench.seal(FIN))
  await turn()
  assert.deepEqual([owner.records.length, owner.losses.length], [0, 0])
})

test('its keys are overwritten when it is over, but for records that somebody keeps', async () => {
  const ends: ((bench: LinkBench) => void)[] = [
    ({ link }) => link.destroy(),
    ({ link }) => link.leave(),
    ({ fake }) => fake.sink?.ended(),
    (bench) => bench.receiveNoise(),
  ]
  for (const end of ends) {
    const { bench } = await opened()
    const { key } = bench.link.send(FIN)
    end(bench)
    assert.notDeepEqual(key.bytes, Buffer.alloc(16), `${end}`)
    key.release()
    assert.deepEqual(key.bytes, Buffer.alloc(16), `${end}`)
  }
})
