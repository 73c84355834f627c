import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/errors.ts'
import {
  decodeJson,
  decodeReason,
  encodeReason,
  FRAME_HEADER,
  Frame,
  MAX_CONTROL_PAYLOAD,
  plainText,
  readFrames,
  readUInt64,
  writeFrameHeader,
  writeUInt64,
} from '../../../lib/core/frame.ts'
import { frame, hex, u64 } from '../../helpers/core/bytes.ts'

const FALLBACK = new ProxyError('PROXY_ERR_RESET', 'no reason given')

/** The frames of `slices`; the pieces of one data frame are put together again. */
function framesOf(slices: readonly Buffer[]): { type: number; id: number; payload: string }[] {
  const frames: { type: number; id: number; payload: string }[] = []
  readFrames(slices, (type, id, payload) => frames.push({ type, id, payload: payload.toString('hex') }))
  return frames
}

/** `bytes` cut at `cuts`, which may be anything. */
function sliced(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % bytes.length))].filter((cut) => cut > 0).sort((a, b) => a - b)
  return [0, ...at].map((from, index) => bytes.subarray(from, at[index] ?? bytes.length))
}

test('frame types are the bytes that they are on the wire', () => {
  assert.deepEqual(
    { ...Frame },
    {
      hello: 0x00,
      ack: 0x01,
      ping: 0x02,
      pong: 0x03,
      goaway: 0x04,
      draining: 0x05,
      open: 0x10,
      opened: 0x11,
      data: 0x12,
      credit: 0x13,
      fin: 0x14,
      reset: 0x15,
      listen: 0x20,
      listening: 0x21,
      refused: 0x22,
      unlisten: 0x23,
    },
  )
  assert.equal(FRAME_HEADER, 8)
  assert.equal(MAX_CONTROL_PAYLOAD, 8192)
})

test('a frame header is type, id as u32 and length as u24', () => {
  const header = Buffer.alloc(10, 0xee)
  writeFrameHeader(header, 1, Frame.data, 0x01020304, 0x0a0b0c)
  assert.equal(header.toString('hex'), 'ee12010203040a0b0cee')
  writeFrameHeader(header, 1, Frame.reset, 0xffff_ffff, 0xff_ffff)
  assert.equal(header.toString('hex'), 'ee15ffffffffffffffee')
})

const WIRE: [string, string, { type: number; id: number; payload: string }][] = [
  ['hello', '00 00000000 000008 0000000000000000', { type: 0x00, id: 0, payload: '0000000000000000' }],
  ['ack', '01 00000000 000008 0000000000000007', { type: 0x01, id: 0, payload: '0000000000000007' }],
  ['ping', '02 00000000 000008 6162636465666768', { type: 0x02, id: 0, payload: '6162636465666768' }],
  ['pong', '03 00000000 000008 6162636465666768', { type: 0x03, id: 0, payload: '6162636465666768' }],
  ['goaway', '04 00000000 000001 00', { type: 0x04, id: 0, payload: '00' }],
  ['open', '10 00000001 000006 00040000 7b7d', { type: 0x10, id: 1, payload: '000400007b7d' }],
  ['opened', '11 00000001 000004 00040000', { type: 0x11, id: 1, payload: '00040000' }],
  ['data', '12 00000001 000002 6869', { type: 0x12, id: 1, payload: '6869' }],
  ['credit', '13 00000001 000004 00010000', { type: 0x13, id: 1, payload: '00010000' }],
  ['fin', '14 00000001 000000', { type: 0x14, id: 1, payload: '' }],
  ['reset', '15 00000001 000001 00', { type: 0x15, id: 1, payload: '00' }],
  ['listen', '20 00000001 000002 7b7d', { type: 0x20, id: 1, payload: '7b7d' }],
  ['listening', '21 00000001 000002 7b7d', { type: 0x21, id: 1, payload: '7b7d' }],
  ['refused', '22 00000001 000001 00', { type: 0x22, id: 1, payload: '00' }],
  ['unlisten', '23 ffffffff 000000', { type: 0x23, id: 0xffff_ffff, payload: '' }],
]

for (const [name, bytes, expected] of WIRE) {
  test(`reads ${name} from its bytes`, () => {
    assert.deepEqual(framesOf([hex(bytes)]), [expected])
  })
}

test('a record of every frame is read in order', () => {
  const record = Buffer.concat(WIRE.map(([, bytes]) => hex(bytes)))
  const expected = WIRE.map(([, , one]) => one)
  assert.deepEqual(framesOf([record]), expected)
})

test('frames are the same, however the record is sliced', () => {
  const someFrame = fc.record({
    type: fc.constantFrom(...Object.values(Frame), 0x7f),
    id: fc.nat(0xffff_ffff),
    payload: fc.uint8Array({ maxLength: 300 }),
  })
  fc.assert(
    fc.property(fc.array(someFrame, { minLength: 1, maxLength: 8 }), fc.array(fc.nat()), (frames, cuts) => {
      const slices = sliced(Buffer.concat(frames.map(({ type, id, payload }) => frame(type, id, payload))), cuts)
      const joined: { type: number; id: number; payload: Buffer }[] = []
      let open = 0
      readFrames(slices, (type, id, payload) => {
        const last = joined.at(-1)
        // Data may come in pieces: all that belong to one frame come in a row.
        if (open > 0 && last) last.payload = Buffer.concat([last.payload, payload])
        else joined.push({ type, id, payload: Buffer.from(payload) })
        const whole = frames[joined.length - 1]?.payload.length ?? 0
        open = whole - (joined.at(-1)?.payload.length ?? 0)
      })
      assert.deepEqual(
        joined,
        frames.map(({ type, id, payload }) => ({ type, id, payload: Buffer.from(payload) })),
      )
    }),
  )
})

test('data that crosses a slice is handed on without a copy', () => {
  const record = frame(Frame.data, 1, Buffer.alloc(100, 7))
  const slices = [record.subarray(0, 20), record.subarray(20)]
  const pieces: Buffer[] = []
  readFrames(slices, (_type, _id, payload) => pieces.push(payload))
  assert.deepEqual(
    pieces.map(({ length, buffer }) => [length, buffer === record.buffer]),
    [
      [12, true],
      [88, true],
    ],
  )
})

test('an empty data frame is one frame', () => {
  const two = Buffer.concat([frame(Frame.data, 1), frame(Frame.data, 3)])
  assert.deepEqual(
    framesOf([two]).map(({ id }) => id),
    [1, 3],
  )
})

test('a record without slices has no frames', () => {
  assert.deepEqual(framesOf([]), [])
})

test('a frame that is cut off is refused at every byte, however it is sliced', () => {
  for (const type of [Frame.data, Frame.open]) {
    const whole = frame(type, 1, Buffer.alloc(12, 7))
    for (let length = 1; length < whole.length; length++) {
      for (let cut = 0; cut < length; cut++) {
        const slices = sliced(whole.subarray(0, length), [cut])
        assert.throws(() => framesOf(slices), { code: 'PROXY_ERR_FRAME' }, `type ${type}, ${length} bytes`)
      }
    }
  }
})

test('a control frame of 8,192 bytes is read, and one of 8,193 is refused before its payload is gathered', () => {
  for (const type of Object.values(Frame)) {
    if (type === Frame.data) continue
    assert.equal(framesOf([frame(type, 1, Buffer.alloc(8192))])[0]?.payload.length, 16_384)
    assert.throws(() => framesOf([frame(type, 1, Buffer.alloc(8193))]), { code: 'PROXY_ERR_FRAME' })
    assert.throws(() => framesOf([frame(type, 1, '', 0xff_ffff)]), {
      code: 'PROXY_ERR_FRAME',
      message: 'a control frame of 16777215 bytes',
    })
  }
})

test('frames before a broken one have been handed on already', () => {
  const ids: number[] = []
  const record = Buffer.concat([frame(Frame.fin, 1), frame(Frame.fin, 3), hex('14 0000')])
  assert.throws(() => readFrames([record], (_type, id) => ids.push(id)), { code: 'PROXY_ERR_FRAME' })
  assert.deepEqual(ids, [1, 3])
})

test('64-bit numbers are big-endian, and end at 2^53 - 1', () => {
  assert.equal(writeUInt64(0).toString('hex'), '0000000000000000')
  assert.equal(writeUInt64(0x0102_0304_0506).toString('hex'), '0000010203040506')
  assert.equal(writeUInt64(Number.MAX_SAFE_INTEGER).toString('hex'), '001fffffffffffff')
  for (const value of [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) {
    assert.equal(readUInt64(u64(value)), value)
    assert.deepEqual(writeUInt64(value), u64(value))
  }
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    assert.throws(() => readUInt64(u64(value)), { code: 'PROXY_ERR_FRAME' }, `${value}`)
  }
  for (const length of [0, 1, 7, 9, 16]) {
    assert.throws(() => readUInt64(Buffer.alloc(length)), { code: 'PROXY_ERR_FRAME' }, `${length} bytes`)
  }
})

test('a reason is the length of its code, the code, and a text', () => {
  const reason = new ProxyError('PROXY_ERR_X', 'what happened')
  assert.equal(encodeReason(reason).toString('latin1'), '\x0bPROXY_ERR_Xwhat happened')
  assert.equal(encodeReason(undefined).toString('hex'), '00')
})

test('a reason arrives with its code and text', () => {
  const code = fc.stringMatching(/^[A-Z_]{1,54}$/).map((tail) => `PROXY_ERR_${tail}` as const)
  const text = fc.string({ minLength: 1, maxLength: 500 })
  fc.assert(
    fc.property(code, text, (code, text) => {
      const reason = decodeReason(encodeReason(new ProxyError(code, text)), FALLBACK)
      assert.equal(reason.code, code)
      assert.equal(reason.message, plainText(text))
    }),
  )
})

test('a reason is never longer than a control frame may be', () => {
  const code = `PROXY_ERR_${'X'.repeat(1000)}` as const
  for (const letter of ['x', 'ä', '€', '🦊']) {
    const payload = encodeReason(new ProxyError(code, letter.repeat(100_000)))
    assert.ok(payload.length <= MAX_CONTROL_PAYLOAD)
    assert.ok(decodeReason(payload, FALLBACK).message.length <= 500)
  }
})

test('what is not a reason becomes the fallback', () => {
  const coded = (code: string, text = 'x'): Buffer =>
    Buffer.concat([Buffer.from([code.length]), Buffer.from(code + text)])
  const hostile = [
    Buffer.alloc(0),
    hex('00'),
    hex('ff'),
    coded('ERR_OTHER'),
    coded('PROXY_ERR_'),
    coded('PROXY_ERR_lower'),
    coded('PROXY_ERR_A B'),
    coded('PROXY_ERR_A\n'),
    coded(`PROXY_ERR_${'A'.repeat(55)}`),
    Buffer.from('\x0bproxy_err_x'),
  ]
  for (const payload of hostile) assert.equal(decodeReason(payload, FALLBACK), FALLBACK, payload.toString('latin1'))
})

test('a code without a text has the text of the fallback', () => {
  const reason = decodeReason(Buffer.from('\x0bPROXY_ERR_X'), FALLBACK)
  assert.equal(reason.code, 'PROXY_ERR_X')
  assert.equal(reason.message, FALLBACK.message)
})

test('a reason of any bytes at all is a ProxyError whose text is one plain line', () => {
  const prefixed = fc.uint8Array().map((bytes) => Buffer.concat([Buffer.from('\x0bPROXY_ERR_X'), bytes]))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array().map(Buffer.from), prefixed), (payload) => {
      const reason = decodeReason(Buffer.from(payload), FALLBACK)
      assert.match(reason.code, /^PROXY_ERR_[A-Z_]+$/)
      assert.doesNotMatch(reason.message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
      assert.ok(reason.message.length > 0)
    }),
  )
})

test('text from the other side cannot steer a terminal or break a line', () => {
  assert.equal(plainText('a\x1b[31mb\r\nc\0d\x7fe\x9bf'), 'a?[31mb??c?d?e?f')
  assert.equal(plainText('a\u202eb\u2028c\u2029d\u200be\ufefff'), 'a?b?c?d?e?f')
  assert.equal(plainText('Zürich, 東京, 🦊'), 'Zürich, 東京, 🦊')
})

test('a JSON payload is one object', () => {
  assert.deepEqual(decodeJson(Buffer.from('{"a":[1]}')), { a: [1] })
  for (const text of ['', '{', '[]', '1', '"a"', 'null', 'true', '{}{}', '\xff']) {
    assert.throws(() => decodeJson(Buffer.from(text)), { code: 'PROXY_ERR_FRAME' }, text)
  }
})

test('a JSON payload cannot reach a prototype', () => {
  const decoded = decodeJson(Buffer.from('{"__proto__":{"to":1}}'))
  assert.equal(decoded.to, undefined)
  assert.equal(Object.getPrototypeOf({}).to, undefined)
})
