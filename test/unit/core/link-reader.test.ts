import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import test from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/errors.ts'
import { LinkReader, type ReaderOwner } from '../../../lib/core/link-reader.ts'
import { MAX_RECORD } from '../../../lib/core/record.ts'
import { hex } from '../../helpers/core/bytes.ts'
import { FakeLink } from '../../helpers/core/fake-link.ts'

const LOST = 'PROXY_ERR_LINK_LOST'

/** Takes every whole `u32 length, bytes` out of a reader, as the main connection does. */
class Messages implements ReaderOwner {
  readonly seen: Buffer[] = []
  readonly closed: ProxyError[] = []
  drained = 0
  more = true
  readonly #reader: LinkReader

  constructor(reader: LinkReader) {
    this.#reader = reader
  }

  onBytes(): boolean {
    const reader = this.#reader
    while (this.more && reader.end - reader.start >= 4) {
      const length = 4 + reader.bytes.readUInt32BE(reader.start)
      if (reader.end - reader.start < length) {
        reader.reserve(length)
        break
      }
      this.seen.push(Buffer.from(reader.bytes.subarray(reader.start + 4, reader.start + length)))
      reader.consume(length)
    }
    return this.more
  }

  onDrained(): void {
    this.drained++
  }

  onClosed(error: ProxyError): void {
    this.closed.push(error)
  }
}

function message(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

function setUp(): { link: FakeLink; reader: LinkReader } {
  const link = new FakeLink()
  return { link, reader: new LinkReader(link) }
}

test('reads are answered in order, whatever the pieces are that come', async () => {
  const { link, reader } = setUp()
  const first = reader.read(3)
  link.feed(hex('01'))
  link.feed(hex('02 03 04 05'))
  assert.equal((await first).toString('hex'), '010203')
  assert.equal((await reader.read(2)).toString('hex'), '0405')
  const third = reader.read(1)
  link.feed(hex('06'))
  assert.equal((await third).toString('hex'), '06')
})

test('what a read answers is a copy', async () => {
  const { link, reader } = setUp()
  link.feed(hex('0102'))
  const bytes = await reader.read(2)
  link.feed(hex('0304'))
  await reader.read(2)
  assert.equal(bytes.toString('hex'), '0102')
})

test('a read of nothing is answered at once', async () => {
  const { reader } = setUp()
  assert.equal((await reader.read(0)).length, 0)
})

for (const [how, act] of [
  ['ends', (link: FakeLink) => link.sink?.ended()],
  ['is closed', (link: FakeLink) => link.sink?.closed()],
  ['is lost', (link: FakeLink) => link.sink?.closed(new Error('read ECONNRESET'))],
] as const) {
  test(`a link that ${how} rejects the read that waits, and later ones`, async () => {
    const { link, reader } = setUp()
    link.feed(hex('01'))
    const waiting = assert.rejects(reader.read(2), { name: 'ProxyError', code: LOST, retryable: true })
    act(link)
    await waiting
    await assert.rejects(reader.read(2), { code: LOST })
  })
}

test('the text names what the system said', async () => {
  const { link, reader } = setUp()
  const cause = new Error('read ECONNRESET')
  link.sink?.closed(cause)
  await assert.rejects(reader.read(1), { message: 'the link was lost: read ECONNRESET', cause })
})

test('what came before the end can still be read', async () => {
  const { link, reader } = setUp()
  link.feed(hex('01 02'))
  link.sink?.ended()
  assert.equal((await reader.read(2)).toString('hex'), '0102')
  await assert.rejects(reader.read(1), { code: LOST })
})

test('the first failure stays', async () => {
  const { link, reader } = setUp()
  reader.fail(new ProxyError('PROXY_ERR_FIRST', 'first'))
  reader.fail(new ProxyError('PROXY_ERR_SECOND', 'second'))
  link.sink?.closed()
  await assert.rejects(reader.read(1), { code: 'PROXY_ERR_FIRST' })
})

test('the owner hears once that the link is over', () => {
  const { link, reader } = setUp()
  const owner = new Messages(reader)
  reader.handTo(owner)
  link.sink?.ended()
  link.sink?.closed(new Error('late'))
  assert.deepEqual(
    owner.closed.map(({ code }) => code),
    [LOST],
  )
})

test('an owner that takes over too late hears of it at once', () => {
  const { link, reader } = setUp()
  link.sink?.ended()
  const owner = new Messages(reader)
  reader.handTo(owner)
  assert.equal(owner.closed.length, 1)
})

test('onGone is called when the link is closed for good, and at once if it is already', () => {
  const { link, reader } = setUp()
  let gone = 0
  reader.onGone(() => gone++)
  link.sink?.ended()
  assert.equal(gone, 0, 'the other direction still works')
  link.sink?.closed()
  assert.equal(gone, 1)
  reader.onGone(() => gone++)
  assert.equal(gone, 2)
})

test('the owner hears that the link drained', () => {
  const { link, reader } = setUp()
  link.sink?.drained()
  const owner = new Messages(reader)
  reader.handTo(owner)
  link.sink?.drained()
  assert.equal(owner.drained, 1)
})

test('bytes that came before the owner stay for it', () => {
  const { link, reader } = setUp()
  link.feed(message(hex('0102')))
  const owner = new Messages(reader)
  reader.handTo(owner)
  assert.equal(owner.seen.length, 0)
  owner.onBytes()
  assert.deepEqual(owner.seen, [hex('0102')])
})

test('messages of any size arrive whole, however they come in', () => {
  const size = fc.oneof(fc.nat(20), fc.nat(5000), fc.integer({ min: 60_000, max: 140_000 }))
  fc.assert(
    fc.property(
      fc.array(size, { minLength: 1, maxLength: 12 }),
      fc.array(fc.nat(), { maxLength: 6 }),
      (sizes, cuts) => {
        const messages = sizes.map((length) => randomBytes(length))
        const bytes = Buffer.concat(messages.map(message))
        const { link, reader } = setUp()
        const owner = new Messages(reader)
        reader.handTo(owner)
        const at = [...cuts.map((cut) => cut % bytes.length), bytes.length].sort((a, b) => a - b)
        let from = 0
        for (const to of at) {
          link.feed(bytes.subarray(from, to))
          from = to
        }
        assert.equal(owner.seen.length, messages.length)
        for (const [index, expected] of messages.entries()) assert.ok(owner.seen[index]?.equals(expected))
      },
    ),
    { numRuns: 50 },
  )
})

test('bytes may land elsewhere than where the buffer is by now', () => {
  const { link, reader } = setUp()
  const owner = new Messages(reader)
  reader.handTo(owner)
  const bytes = message(randomBytes(9000))
  owner.more = false
  link.feed(bytes.subarray(0, 4000))
  const stale = reader.buffer()
  // A read into the old place is under way while the owner makes the buffer move.
  owner.more = true
  owner.onBytes()
  stale.set(bytes.subarray(4000, 4050))
  reader.received(stale.subarray(0, 50))
  reader.received(bytes.subarray(4050, 8000))
  reader.received(bytes.subarray(8000))
  assert.ok(owner.seen[0]?.equals(bytes.subarray(4)))
})

test('a record of the largest size fits, and the buffer grows no further', () => {
  const { link, reader } = setUp()
  const owner = new Messages(reader)
  reader.handTo(owner)
  const bytes = message(randomBytes(MAX_RECORD))
  for (let turn = 0; turn < 3; turn++) link.feed(bytes)
  assert.equal(owner.seen.length, 3)
  assert.ok(reader.bytes.length <= 4 + MAX_RECORD, `${reader.bytes.length}`)
})

test('an owner that pauses leaves the rest in the system, and a bounded amount here', () => {
  const { link, reader } = setUp()
  const owner = new Messages(reader)
  reader.handTo(owner)
  const records = Array.from({ length: 30 }, () => message(randomBytes(100_000)))
  link.feed(records[0] ?? hex(''))
  owner.more = false
  for (const bytes of records.slice(1)) link.feed(bytes)
  assert.ok(link.paused)
  assert.ok(reader.end - reader.start <= 4 + MAX_RECORD)
  owner.more = true
  owner.onBytes()
  link.resume()
  assert.equal(owner.seen.length, 30)
})

test('nobody waits: what comes stays in the system beyond 4 KiB', () => {
  const { link, reader } = setUp()
  link.feed(Buffer.alloc(1_000_000))
  assert.ok(link.paused)
  assert.ok(reader.end - reader.start <= 4096, `${reader.end - reader.start}`)
})

test('a peer that is not authenticated makes the buffer grow to 16 KiB at most, however much it sends', async () => {
  const { link, reader } = setUp()
  link.feed(Buffer.alloc(2_000_000))
  // What a handshake reads: head, name, length, message; and again, should there ever be more.
  for (const length of [7, 64, 2, 1024, 2, 1024, 2, 1024]) {
    await reader.read(length)
    assert.ok(reader.bytes.length <= 16_384, `${reader.bytes.length} bytes`)
  }
})
