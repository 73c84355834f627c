import assert from 'node:assert/strict'
import { createCipheriv, randomBytes } from 'node:crypto'
import test from 'node:test'
import fc from 'fast-check'
import {
  BULK,
  MAX_RECORD,
  MIN_RECORD,
  openRecord,
  RecordKeys,
  recordLength,
  reopenRecord,
  SLICE,
  sealRecord,
} from '../../../lib/core/record.ts'
import { hex, u32 } from '../../helpers/core/bytes.ts'
import { firstChain, forgeOpen, forgeSeal, nextChain, recordKey } from '../../helpers/core/forge-records.ts'

const SECRET = Buffer.alloc(32, 0x11)
const AUTH = 'PROXY_ERR_RECORD_AUTH'
const PINNED = '0000001af406fcb95e5740a40a789d0c775ea1bea2ca18371a1860c044c6'
const REKEY_AFTER = 65_536
/** What the last slice may have more. */
const SLACK = 2048
/** Around: the shortest, one block, where a record is one buffer or a list, where slices end, the longest. */
const SIZES = [
  ...[1, 15, 16, 17, 16_367, 16_368, 16_369, SLICE - 1, SLICE, SLICE + 1, SLICE + SLACK, SLICE + SLACK + 1],
  ...[2 * SLICE + 1, 2 * SLICE + SLACK, 2 * SLICE + SLACK + 1, BULK, MAX_RECORD - 16],
]

const seal = (keys: RecordKeys, head: Uint8Array, tail?: Uint8Array): Buffer =>
  Buffer.concat(sealRecord(keys, head, tail))
const open = (keys: RecordKeys, record: Buffer): Buffer =>
  Buffer.concat(openRecord(keys, record, 0, recordLength(record, 0)))

function pair(secret: Uint8Array = SECRET): { sealing: RecordKeys; opening: RecordKeys } {
  return { sealing: new RecordKeys(secret), opening: new RecordKeys(secret) }
}

function skip(keys: RecordKeys, count: number): void {
  for (let index = 0; index < count; index++) keys.next()
}

test('a record is, byte for byte, what it always was', () => {
  const record = seal(new RecordKeys(SECRET), hex('12 00000001 000002 6869'))
  assert.equal(record.subarray(0, 4).toString('hex'), '0000001a')
  assert.equal(record.length, 4 + 0x1a)
  assert.equal(record.toString('hex'), PINNED)
})

test('what is sealed here, node-forge opens', () => {
  const key = recordKey(firstChain(SECRET))
  const keys = new RecordKeys(SECRET)
  for (const [number, size] of SIZES.entries()) {
    const plain = randomBytes(size)
    const record = seal(keys, plain.subarray(0, size >> 1), plain.subarray(size >> 1))
    assert.equal(record.readUInt32BE(0), size + 16)
    assert.ok(forgeOpen(key, number, record)?.equals(plain), `${size} bytes`)
  }
})

test('what node-forge seals, is opened here', () => {
  const key = recordKey(firstChain(SECRET))
  const keys = new RecordKeys(SECRET)
  for (const [number, size] of SIZES.entries()) {
    const plain = randomBytes(size)
    assert.ok(open(keys, forgeSeal(key, number, plain)).equals(plain), `${size} bytes`)
  }
})

test('a resume secret salts the chain', () => {
  const salt = randomBytes(32)
  const record = seal(new RecordKeys(SECRET, salt), Buffer.from('hi'))
  assert.equal(forgeOpen(recordKey(firstChain(SECRET, salt)), 0, record)?.toString(), 'hi')
  assert.equal(forgeOpen(recordKey(firstChain(SECRET)), 0, record), undefined)
})

test('every 2^16 records the chain moves on, and the count does not start again', () => {
  const { sealing, opening } = pair()
  let chain = firstChain(SECRET)
  for (const stretch of [0, 1, 2]) {
    const first = stretch * REKEY_AFTER
    assert.equal(sealing.count, first)
    const record = seal(sealing, Buffer.from('first'))
    assert.equal(forgeOpen(recordKey(chain), first, record)?.toString(), 'first')
    assert.equal(open(opening, record).toString(), 'first')
    skip(sealing, REKEY_AFTER - 2)
    skip(opening, REKEY_AFTER - 2)
    const last = seal(sealing, Buffer.from('last'))
    assert.equal(forgeOpen(recordKey(chain), first + REKEY_AFTER - 1, last)?.toString(), 'last')
    assert.equal(open(opening, last).toString(), 'last')
    chain = nextChain(chain)
  }
})

test('nonces are 4 zero bytes and the number of the record', () => {
  const keys = new RecordKeys(SECRET)
  assert.equal(keys.next().toString('hex'), '000000000000000000000000')
  assert.equal(keys.next().toString('hex'), '000000000000000000000001')
  skip(keys, 65_534)
  assert.equal(keys.next().toString('hex'), '000000000000000000010000')
})

test('a key is overwritten when its keys have moved on, and no record is held that it sealed', () => {
  const { sealing, opening } = pair()
  const first = sealing.current
  const kept = first.hold().bytes
  const wiped = opening.current.bytes
  assert.equal(kept.toString('hex'), recordKey(firstChain(SECRET)).toString('hex'))
  assert.deepEqual(kept, wiped)
  for (const keys of [sealing, opening]) skip(keys, REKEY_AFTER)
  assert.notDeepEqual(wiped, Buffer.alloc(16), 'not before the last record under it')
  for (const keys of [sealing, opening]) skip(keys, 1)
  assert.deepEqual(wiped, Buffer.alloc(16))
  assert.equal(kept.toString('hex'), recordKey(firstChain(SECRET)).toString('hex'), 'somebody holds it')
  assert.notDeepEqual(opening.current.bytes, wiped)
  assert.deepEqual(opening.current.bytes, sealing.current.bytes)
  first.release()
  assert.deepEqual(kept, Buffer.alloc(16))
  assert.notDeepEqual(sealing.current.bytes, kept)
})

test('a key of a link that is over is overwritten when nobody holds it any more', () => {
  for (const holders of [0, 1, 3]) {
    const keys = new RecordKeys(SECRET)
    seal(keys, Buffer.from('hi'))
    const held = keys.current
    for (let holder = 0; holder < holders; holder++) held.hold()
    keys.forget()
    for (let holder = 0; holder < holders; holder++) {
      assert.equal(held.bytes.toString('hex'), recordKey(firstChain(SECRET)).toString('hex'))
      held.release()
    }
    assert.deepEqual(held.bytes, Buffer.alloc(16))
  }
})

test('keys that were forgotten neither seal nor open', () => {
  const { sealing, opening } = pair()
  const record = seal(sealing, Buffer.from('hi'))
  for (const keys of [sealing, opening]) keys.forget()
  assert.throws(() => seal(sealing, Buffer.from('ho')), RangeError)
  assert.throws(() => open(opening, record), RangeError)
  // It would be a key of zeros.
  assert.equal(sealing.count, 1)
  assert.equal(opening.count, 0)
})

test('a record that was sealed is opened again from what was kept of it, also when the keys have moved on', () => {
  const keys = new RecordKeys(SECRET)
  const kept = SIZES.map((size) => {
    const plain = randomBytes(size)
    const number = keys.count
    const chunks = sealRecord(keys, plain.subarray(0, size >> 1), plain.subarray(size >> 1))
    return { plain, record: { chunks, bytes: size, key: keys.current.hold(), number } }
  })
  skip(keys, REKEY_AFTER)
  keys.forget()
  for (const { plain, record } of kept) assert.ok(reopenRecord(record).equals(plain), `${plain.length} bytes`)
})

test('any head and tail arrive as they were, and may be used again at once', () => {
  const { sealing, opening } = pair()
  const bytes = fc.integer({ min: 0, max: 70_000 }).map((size) => randomBytes(size))
  fc.assert(
    fc.property(bytes, fc.option(bytes, { nil: undefined }), (head, tail) => {
      fc.pre(head.length + (tail?.length ?? 0) > 0)
      const plain = Buffer.concat([head, tail ?? Buffer.alloc(0)])
      const chunks = sealRecord(sealing, head, tail)
      head.fill(0)
      tail?.fill(0)
      assert.ok(open(opening, Buffer.concat(chunks)).equals(plain))
    }),
    { numRuns: 30 },
  )
})

test('a record is opened where it stands in a longer buffer', () => {
  const { sealing, opening } = pair()
  const bytes = Buffer.concat([Buffer.alloc(5, 0xff), seal(sealing, Buffer.from('hi')), Buffer.alloc(5, 0xff)])
  assert.equal(recordLength(bytes, 5), 18)
  assert.equal(Buffer.concat(openRecord(opening, bytes, 5, 18)).toString(), 'hi')
})

test('every flipped bit of a record is noticed', () => {
  const record = seal(new RecordKeys(SECRET), randomBytes(40))
  const codes = new Set<string>()
  for (let bit = 0; bit < record.length * 8; bit++) {
    // With bytes enough behind it for every length that is in bounds.
    const changed = Buffer.concat([record, Buffer.alloc(MAX_RECORD)])
    const at = bit >> 3
    changed.writeUInt8(changed.readUInt8(at) ^ (1 << (bit & 7)), at)
    assert.throws(
      () => open(new RecordKeys(SECRET), changed),
      (error: { code: string }) => {
        codes.add(error.code)
        return at < 4 ? /^PROXY_ERR_RECORD_(AUTH|TOO_LARGE|TOO_SHORT)$/.test(error.code) : error.code === AUTH
      },
      `bit ${bit}`,
    )
  }
  assert.deepEqual([...codes].sort(), ['PROXY_ERR_RECORD_AUTH', 'PROXY_ERR_RECORD_TOO_LARGE'])
})

test('a flipped bit in a record of several slices is noticed', () => {
  const record = seal(new RecordKeys(SECRET), randomBytes(3 * SLICE))
  const borders = [SLICE + 3, SLICE + 4, 2 * SLICE + 3, 2 * SLICE + 4]
  for (const at of [4, ...borders, record.length - 17, record.length - 16, record.length - 1]) {
    const changed = Buffer.from(record)
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at)
    assert.throws(() => open(new RecordKeys(SECRET), changed), { code: AUTH }, `byte ${at}`)
  }
})

test('a header in front of bulk does not cut the bulk in two', () => {
  const { sealing, opening } = pair()
  const lengths = (head: number, tail: number): number[] => {
    const record = seal(sealing, Buffer.alloc(head), Buffer.alloc(tail))
    return openRecord(opening, record, 0, recordLength(record, 0)).map((slice) => slice.length)
  }
  assert.deepEqual(lengths(36, SLICE), [SLICE + 36])
  assert.deepEqual(lengths(36, 65_536), [65_572])
  assert.deepEqual(lengths(36, BULK), [SLICE, SLICE, SLICE, SLICE + 36])
  assert.deepEqual(lengths(SLACK + 1, SLICE), [SLICE, SLACK + 1])
})

test('a long record is handed on while it is sealed, in whole segments of a loopback interface', () => {
  const { sealing, opening } = pair()
  const writes: Buffer[][] = []
  const sink = { write: (chunks: readonly Uint8Array[]) => void writes.push(chunks.map((chunk) => Buffer.from(chunk))) }
  const plain = randomBytes(8 + BULK)
  const chunks = sealRecord(sealing, plain.subarray(0, 8), plain.subarray(8), sink)
  assert.equal(writes.length, 2)
  const lengths = writes.map((write) => write.reduce((sum, { length }) => sum + length, 0))
  assert.ok(Math.max(...lengths) <= 2 * 65_483, `${lengths}`)
  // What was handed on, and what is answered, is the same record.
  assert.deepEqual(Buffer.concat(writes.flat()), Buffer.concat(chunks))
  assert.ok(open(opening, Buffer.concat(chunks)).equals(plain))
})

test('a short record is handed on at once', () => {
  const writes: number[] = []
  const sink = { write: (chunks: readonly Uint8Array[]) => void writes.push(chunks.length) }
  const chunks = sealRecord(new RecordKeys(SECRET), Buffer.from('hea'), Buffer.from('d'), sink)
  assert.deepEqual([writes, chunks.length], [[1], 1])
})

test('the length is 17 to 524,288', () => {
  assert.equal(MIN_RECORD, 17)
  assert.equal(MAX_RECORD, 524_288)
  assert.equal(recordLength(hex('00000011'), 0), 17)
  assert.equal(recordLength(hex('00080000'), 0), 524_288)
  for (const length of [0, 1, 15, 16]) {
    assert.throws(() => recordLength(u32(length), 0), { code: 'PROXY_ERR_RECORD_TOO_SHORT' }, `${length}`)
  }
  for (const length of [524_289, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    assert.throws(() => recordLength(u32(length), 0), { code: 'PROXY_ERR_RECORD_TOO_LARGE' }, `${length}`)
  }
})

test('a replayed record is refused', () => {
  const { sealing, opening } = pair()
  const record = seal(sealing, Buffer.from('once'))
  assert.equal(open(opening, record).toString(), 'once')
  assert.throws(() => open(opening, record), { code: AUTH })
})

test('records in another order are refused', () => {
  const { sealing, opening } = pair()
  const first = seal(sealing, Buffer.from('first'))
  const second = seal(sealing, Buffer.from('second'))
  assert.throws(() => open(opening, second), { code: AUTH })
  assert.throws(() => open(opening, first), { code: AUTH }, 'and what comes after that is refused as well')
})

test('a record that was left out is noticed by the next one', () => {
  const { sealing, opening } = pair()
  seal(sealing, Buffer.from('lost'))
  assert.throws(() => open(opening, seal(sealing, Buffer.from('next'))), { code: AUTH })
})

test('a record that is reflected to its sender is refused', () => {
  const [toAcceptor, toDialler] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
  const record = seal(new RecordKeys(toAcceptor), Buffer.from('mine'))
  assert.throws(() => open(new RecordKeys(toDialler), record), { code: AUTH })
})

test('a tag of fewer than 16 bytes is refused, even one that GCM itself would take', () => {
  const key = recordKey(firstChain(SECRET))
  for (const authTagLength of [4, 8, 12, 13, 14, 15] as const) {
    const plain = randomBytes(40)
    const length = u32(plain.length + authTagLength)
    const cipher = createCipheriv('aes-128-gcm', key, Buffer.alloc(12), { authTagLength }).setAAD(length)
    const sealed = Buffer.concat([length, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
    assert.throws(() => open(new RecordKeys(SECRET), sealed), { code: AUTH }, `${authTagLength} bytes`)
  }
})

test('a record that was cut, its length made to fit, is refused', () => {
  const record = seal(new RecordKeys(SECRET), randomBytes(40))
  for (let cut = 1; cut < 40; cut++) {
    const shorter = Buffer.from(record.subarray(0, record.length - cut))
    shorter.writeUInt32BE(shorter.length - 4)
    assert.throws(() => open(new RecordKeys(SECRET), shorter), { code: AUTH }, `${cut} bytes`)
  }
})

test('the same plaintext under two secrets gives two records', () => {
  const records = [1, 2].map((fill) => seal(new RecordKeys(Buffer.alloc(32, fill)), Buffer.from('same')))
  assert.notDeepEqual(records[0], records[1])
})
