import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { LinkSink } from '../../../lib/core/index.ts'
import {
  DatagramLink,
  DatagramMemory,
  DatagramQueue,
  DatagramReader,
  MAX_DATAGRAM,
} from '../../../lib/domains/datagrams.ts'
import { hosted } from '../../helpers/core/fake-host.ts'

function framed(...datagrams: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    datagrams.flatMap((datagram) => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(datagram.length)
      return [length, datagram]
    }),
  )
}

function reader(memory = new DatagramMemory()) {
  const got: Buffer[] = []
  return { got, memory, reader: new DatagramReader(memory, { onDatagram: (bytes) => got.push(Buffer.from(bytes)) }) }
}

const TOO_LONG = { code: 'PROXY_ERR_DATAGRAM', message: 'a datagram of 65508 bytes: there are none beyond 65507' }

test('a datagram is its length in two bytes, and its payload', () => {
  assert.deepEqual([...new DatagramMemory().frame(Buffer.from('abc'))], [0, 3, 97, 98, 99])
  assert.deepEqual([...new DatagramMemory().frame(Buffer.alloc(0))], [0, 0])
  const longest = new DatagramMemory().frame(Buffer.alloc(MAX_DATAGRAM, 7))
  assert.deepEqual([...longest.subarray(0, 3)], [0xff, 0xe3, 7])
  assert.equal(longest.length, 65_509)
})

test('datagrams come out as they went in, however the stream is cut', () => {
  const datagram = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.nat({ max: MAX_DATAGRAM }).map((length) => new Uint8Array(length).fill(length % 251)),
  )
  const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 70_000 })), {
    maxLength: 40,
  })
  fc.assert(
    fc.property(fc.array(datagram, { maxLength: 12 }), cuts, (datagrams, lengths) => {
      const { reader: read, got, memory } = reader()
      let rest = framed(...datagrams)
      for (const length of lengths) {
        // A reader that kept a piece in place would see this.
        const piece = Buffer.from(rest.subarray(0, length))
        read.push(piece)
        piece.fill(0xee)
        rest = rest.subarray(length)
      }
      read.push(rest)
      assert.deepEqual(
        got,
        datagrams.map((each) => Buffer.from(each)),
      )
      assert.equal(read.partial, false)
      assert.equal(memory.used, 0)
    }),
  )
})

test('a stream in single bytes costs no more memory than twice what came', () => {
  const { reader: read, got, memory } = reader()
  const bytes = framed(Buffer.alloc(9000, 3))
  for (const [index, byte] of bytes.entries()) {
    assert.equal(read.partial, index > 0)
    read.push(Uint8Array.of(byte))
    assert.ok(memory.used <= 2 * (index + 1), `${memory.used} for ${index + 1}`)
  }
  assert.deepEqual(got, [Buffer.alloc(9000, 3)])
  assert.equal(read.partial, false)
})

test('PROXY_ERR_DATAGRAM if the length says more than 65,507, before anything is kept', () => {
  for (const cut of [1, 2, 3]) {
    const { reader: read, memory } = reader()
    const bytes = Buffer.from('ffe4aa', 'hex')
    assert.throws(() => {
      read.push(bytes.subarray(0, cut))
      read.push(bytes.subarray(cut))
    }, TOO_LONG)
    assert.ok(memory.used <= 2)
  }
})

test('a promise of 65,507 bytes takes no memory, and what is forgotten none at all', () => {
  const memory = new DatagramMemory()
  const readers = Array.from({ length: 1000 }, () => reader(memory).reader)
  for (const read of readers) read.push(Buffer.from('ffe300', 'hex'))
  assert.ok(memory.used < 10_000, String(memory.used))
  for (const read of readers) read.dispose()
  assert.equal(memory.used, 0)
})

test('when memory is used up a large datagram in pieces is lost, and what follows is not', () => {
  const { reader: read, got, memory } = reader(new DatagramMemory(10_000))
  memory.use(20_000)
  const bytes = framed(Buffer.alloc(1500, 1), Buffer.alloc(9000, 2), Buffer.from('next'))
  for (let at = 0; at < bytes.length; at += 700) read.push(bytes.subarray(at, at + 700))
  assert.deepEqual(got, [Buffer.alloc(1500, 1), Buffer.from('next')])
  assert.equal(memory.used, 20_000)
  assert.equal(read.partial, false)
})

test('a queue keeps the newest: 64 of them, or 256 KiB, and always one', () => {
  const memory = new DatagramMemory()
  const small = new DatagramQueue(memory)
  for (let n = 0; n < 100; n++) small.push(Uint8Array.of(n))
  assert.equal(small.length, 64)
  assert.equal(small.shift()?.[0], 36)
  small.dispose()

  const large = new DatagramQueue(memory)
  for (let n = 0; n < 10; n++) large.push(new Uint8Array(MAX_DATAGRAM).fill(n))
  assert.equal(large.length, 4)
  assert.ok(memory.used <= 262_144)
  assert.equal(large.shift()?.[0], 6)
  large.dispose()
  assert.equal(memory.used, 0)

  const poor = new DatagramQueue(new DatagramMemory(1000))
  for (let n = 0; n < 3; n++) poor.push(new Uint8Array(MAX_DATAGRAM).fill(n))
  assert.equal(poor.length, 1)
  assert.equal(poor.shift()?.[0], 2)
})

test('datagrams without a payload are bounded too', () => {
  const queue = new DatagramQueue(new DatagramMemory())
  let dropped = 0
  for (let n = 0; n < 1000; n++) dropped += queue.push(new Uint8Array(0))
  assert.equal(queue.length, 64)
  assert.equal(dropped, 936)
})

class TestLink extends DatagramLink {
  readonly remote = undefined
  readonly sent: string[] = []
  releases = 0
  protected override send(datagram: Uint8Array): void {
    this.sent.push(Buffer.from(datagram).toString())
  }
  protected override released(): void {
    this.releases++
  }
}

/** A sink with a given room; like a joined sub-connection it takes what it was given once it has taken a part. */
class TestSink implements LinkSink {
  room = 0
  readonly taken: Buffer[] = []
  readonly told: string[] = []
  /** What was taken beyond the room. */
  kept = 0
  received(bytes: Uint8Array): boolean {
    this.taken.push(Buffer.from(bytes))
    this.kept += Math.max(0, bytes.length - this.room)
    this.room = Math.max(0, this.room - bytes.length)
    return this.kept > 0 && bytes.length > 0 ? this.kept < 65_536 : this.room > 0
  }
  drained(): void {}
  ended(): void {
    this.told.push('ended')
  }
  closed(error?: Error & { code?: string }): void {
    this.told.push(`closed ${error?.code ?? 'in order'}`)
  }
  get text(): string[] {
    return this.taken.filter((bytes) => bytes.length > 0).map((bytes) => bytes.subarray(2).toString())
  }
}

test('what comes before there is a sink waits, in order', async () => {
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  sink.room = 1000
  link.offer(Buffer.from('a'))
  link.offer(Buffer.from('b'))
  link.start(sink)
  assert.deepEqual(sink.text, [], 'a sink hears nothing inside start')
  link.offer(Buffer.from('c'))
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(sink.text, ['a', 'b', 'c'])
})

test('a sink that takes nothing gets nothing: the oldest go, and the newest once it takes again', () => {
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  link.start(sink)
  for (let n = 0; n < 200; n++) link.offer(Buffer.from(`${n}`))
  assert.deepEqual(sink.text, [], 'what a sink keeps cannot be dropped any more')
  assert.equal(link.dropped, 136)
  sink.room = 100_000
  link.resume()
  assert.equal(sink.text.length, 64)
  assert.equal(sink.text.at(0), '136')
  assert.equal(sink.text.at(-1), '199')
})

test('a sink with a part of a datagram gets the next ones, until it says that it has enough', () => {
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  sink.room = 500
  link.start(sink)
  for (let n = 0; n < 200; n++) link.offer(Buffer.alloc(1000, `${n % 10}`))
  const before = sink.text.length
  assert.ok(before > 60 && before < 70, String(before))
  sink.room = 10_000_000
  sink.kept = 0
  link.resume()
  assert.equal(sink.text.length, before + 64)
})

test('what it is written is cut into datagrams, and a length beyond the longest ends it', async () => {
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  link.start(sink)
  const bytes = framed(Buffer.from('one'), Buffer.alloc(0), Buffer.from('two'))
  link.write([bytes.subarray(0, 4), bytes.subarray(4)])
  assert.deepEqual(link.sent, ['one', '', 'two'])
  link.write([Buffer.concat([framed(Buffer.from('three')), Buffer.from('ffffff', 'hex')]), framed(Buffer.from('four'))])
  assert.deepEqual(link.sent, ['one', '', 'two', 'three'])
  assert.equal(link.releases, 1)
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(sink.told, ['closed PROXY_ERR_DATAGRAM'])
})

test('an end is in order between datagrams, and PROXY_ERR_DATAGRAM within one', async () => {
  for (const cut of [1, 2, 4]) {
    const link = new TestLink(new DatagramMemory())
    const sink = new TestSink()
    link.start(sink)
    link.write([framed(Buffer.from('abc')).subarray(0, cut)])
    link.end()
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(sink.told, ['closed PROXY_ERR_DATAGRAM'])
  }
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  link.start(sink)
  link.write([framed(Buffer.from('abc'))])
  link.end()
  link.destroy()
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(sink.told, ['ended', 'closed in order'])
  assert.equal(link.releases, 1)
})

test('where turns are far away a new flow waits for one, and then has its own as everybody has', async () => {
  const link = new TestLink(new DatagramMemory())
  const sink = new TestSink()
  sink.room = 1000
  link.start(sink)
  let wait = 300
  let taken = 0
  const sent = {
    turn: 20,
    take(bytes: number) {
      taken += bytes
      return wait
    },
    giveBack(bytes: number) {
      taken -= bytes
    },
  }
  const { sub } = hosted()
  sub.throttle({ sent })
  link.keepTo(sub)
  const offered = performance.now()
  for (let n = 0; n < 9; n++) link.offer(Buffer.from('early'))
  assert.deepEqual([sink.text, taken], [[], 0])
  while (performance.now() - offered < 310) await new Promise((resolve) => setTimeout(resolve, 10))
  for (const text of ['in turn', 'too', 'and this one not']) link.offer(Buffer.from(text))
  assert.deepEqual([sink.text, taken], [['in turn', 'too'], 20])
  link.destroy()
  assert.equal(taken, 14, 'what it did not use is for others')
  const other = new TestLink(new DatagramMemory())
  other.start(sink)
  other.keepTo(sub)
  wait = 0
  other.offer(Buffer.from('a'))
  wait = Number.POSITIVE_INFINITY
  other.offer(Buffer.from('b'))
  assert.deepEqual([sink.text, taken], [['in turn', 'too', 'a'], 17], 'none where there is no turn at all')
  sub.destroy()
})
