import { Frame } from '../../lib/core/frame.ts'
import { frame, u32, u64 } from '../helpers/core/bytes.ts'
import { DOMAINS, type Model, type Piece } from './model.ts'
import type { Random } from './random.ts'

const U32 = [0, 1, 2, 3, 127, 128, 255, 256, 4095, 4096, 16_383, 16_384, 16_385, 65_535, 65_536] as const
const LARGE = [0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff] as const
const U64 = [2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n] as const
const TYPES: readonly [number, ...number[]] = [Frame.hello, ...Object.values(Frame)]

/** Things that stand where something else is expected. */
const VALUES = [
  'null',
  'true',
  '0',
  '-0',
  '-1',
  '1.5',
  '1e999',
  '9007199254740993',
  '4294967296',
  '""',
  '"x"',
  '"tcp"',
  '"\\u0000"',
  '"\\ud800"',
  '"\\u202e\\r\\n"',
  '[]',
  '[1]',
  '{}',
  '{"__proto__":{"Domain":"sink","Addr":""}}',
  '{"Domain":"sink"}',
  '{"Domain":"sink","Addr":""}',
  '{"Domain":["sink"],"Addr":{}}',
  '{"Domain":"constructor","Addr":"__proto__"}',
  '[[[[[[[[[[[[]]]]]]]]]]]]',
] as const
const KEYS = ['to', 'from', 'listener', 'Listen', 'bound', 'Domain', 'Addr', '__proto__', 'toString', ''] as const

function number(random: Random): number {
  return random.chance(0.7) ? random.pick(U32) : random.chance(0.7) ? random.pick(LARGE) : random.u32()
}

/** Bytes changed without a look at what they mean. */
export function mutateBytes(random: Random, bytes: Uint8Array): Buffer {
  const changed = Buffer.from(bytes)
  const at = random.int(changed.length + 1)
  switch (random.weighted({ bit: 4, byte: 3, cut: 3, grow: 2, insert: 3, drop: 3, twice: 2, noise: 1, number: 2 })) {
    case 'bit':
      if (at < changed.length) changed[at] = (changed[at] ?? 0) ^ (1 << random.int(8))
      return changed
    case 'byte':
      if (at < changed.length) changed[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.int(256)])
      return changed
    case 'cut':
      return changed.subarray(0, at)
    case 'grow':
      return Buffer.concat([changed, random.bytes(random.between(1, random.chance(0.05) ? 10_000 : 20))])
    case 'insert':
      return Buffer.concat([changed.subarray(0, at), random.bytes(random.between(1, 9)), changed.subarray(at)])
    case 'drop':
      return Buffer.concat([changed.subarray(0, at), changed.subarray(at + random.between(1, 9))])
    case 'twice':
      return Buffer.concat([changed.subarray(0, at), changed])
    case 'number':
      if (changed.length >= 4) changed.writeUInt32BE(number(random), Math.min(at, changed.length - 4))
      return changed
    case 'noise':
      return random.bytes(random.int(40))
  }
}

/** JSON of another shape, or nearly JSON. */
function mutateJson(random: Random, text: string): string {
  switch (random.weighted({ value: 6, key: 3, more: 3, domain: 4, addr: 2, whole: 2, bytes: 2, deep: 0.3 })) {
    case 'value':
      return text.replace(/"[^"]*"(?=[,}])|\d+(?=[,}])/, () => random.pick(VALUES))
    case 'key':
      return text.replace(new RegExp(`"(${KEYS.join('|')})":`), () => `"${random.pick(KEYS)}":`)
    case 'more':
      return text.replace(/^\{/, () => `{"${random.pick(KEYS)}":${random.pick(VALUES)},`)
    case 'domain':
      return text.replace(/"Domain":"[^"]*"/, () => `"Domain":"${random.pick([...DOMAINS, 'x'.repeat(33), ''])}"`)
    case 'addr':
      return text.replace(/"Addr":"[^"]*"/, () => `"Addr":"${'ü'.repeat(random.pick([0, 1, 512, 1024, 1025]))}"`)
    case 'whole':
      return random.pick(VALUES)
    case 'bytes':
      return mutateBytes(random, Buffer.from(text)).toString('latin1')
    case 'deep':
      return `{"to":${'['.repeat(4000)}${']'.repeat(random.pick([0, 4000]))}}`
  }
}

function mutatePayload(random: Random, piece: Piece): Buffer {
  const { type, payload } = piece
  if (type === Frame.ack && random.chance(0.7)) {
    const now = payload.length === 8 ? payload.readBigUInt64BE() : 0n
    const near = now + BigInt(random.between(-3, 3))
    return u64(random.chance(0.2) ? random.pick(U64) : near < 0n ? 0n : near)
  }
  if ((type === Frame.credit || type === Frame.opened) && random.chance(0.7)) return u32(number(random))
  if (type === Frame.open && payload.length > 4 && random.chance(0.8)) {
    const json = mutateJson(random, payload.toString('utf8', 4))
    return Buffer.concat([random.chance(0.2) ? u32(number(random)) : payload.subarray(0, 4), Buffer.from(json)])
  }
  if ((type === Frame.listen || type === Frame.listening) && random.chance(0.8)) {
    return Buffer.from(mutateJson(random, payload.toString('utf8')))
  }
  return mutateBytes(random, payload)
}

/**
 * One frame, changed so that a session survives it: what may cross on its way, what is ignored, what concerns one
 * sub-connection or listener only. Undefined where there is nothing of the kind.
 */
export function mutateGently(random: Random, piece: Piece, model: Model): Piece[] | undefined {
  const { type, payload } = piece
  const text = (from: number): string => payload.toString('utf8', from)
  switch (type) {
    case Frame.data: {
      const bytes = random.chance(0.3)
        ? payload.subarray(0, random.int(payload.length + 1))
        : random.bytes(payload.length)
      return random.chance(0.1) ? [] : [{ ...piece, payload: bytes }]
    }
    case Frame.credit:
      if (random.chance(0.3)) return [piece, piece]
      if (random.chance(0.5)) return [{ ...piece, id: model.someId(random) }]
      return [{ ...piece, payload: u32(Math.max(1, number(random))) }]
    case Frame.reset:
    case Frame.refused:
    case Frame.unlisten:
      if (random.chance(0.5)) return [{ ...piece, payload: mutateBytes(random, payload) }]
      return [{ ...piece, id: random.chance(0.5) ? random.u32() : piece.id, payload: random.bytes(random.int(40)) }]
    case Frame.opened:
      return [{ ...piece, payload: u32(number(random)) }]
    case Frame.open:
      return [{ ...piece, payload: Buffer.concat([u32(number(random)), Buffer.from(harmless(random, text(4)))]) }]
    case Frame.listen:
    case Frame.listening:
      return [{ ...piece, payload: Buffer.from(harmless(random, text(0))) }]
    case Frame.draining:
    case Frame.fin:
      return [{ ...piece, payload: random.bytes(random.int(9)) }]
    case Frame.ack:
      return [piece, piece]
    case Frame.ping:
    case Frame.pong:
      return random.chance(0.3) ? [] : [{ ...piece, id: random.u32(), payload: random.bytes(8) }]
    default:
      return undefined
  }
}

/** Other JSON of the right shape. */
function harmless(random: Random, text: string): string {
  switch (random.int(4)) {
    case 0:
      return text.replace(/"Domain":"[^"]*"/, () => `"Domain":"${random.pick(DOMAINS)}"`)
    case 1:
      return text.replace(/"Addr":"[^"]*"/, () => `"Addr":"${'\\u00fc'.repeat(random.pick([0, 1, 511, 1024]))}"`)
    case 2:
      return text.replace(/"from":"[^"]*"/, () => `"from":${random.pick(VALUES)}`)
    default:
      return text.replace(
        /^\{/,
        () => `{"${random.pick(['more', '__proto__', 'toString', ''])}":${random.pick(VALUES)},`,
      )
  }
}

/** One frame, changed in one way; the model only tells which ids are worth it. */
export function mutateFrame(random: Random, piece: Piece, model: Model): Piece[] {
  const { payload } = piece
  switch (random.weighted({ payload: 10, id: 4, type: 4, length: 1, twice: 3, drop: 2, swapped: 2, long: 0.3 })) {
    case 'payload':
      return [{ ...piece, payload: mutatePayload(random, piece) }]
    case 'id':
      return [{ ...piece, id: model.someId(random) }]
    case 'type':
      return [{ ...piece, type: random.chance(0.8) ? random.pick(TYPES) : random.int(256) }]
    case 'length':
      return [{ ...piece, length: random.pick([0, payload.length + 1, Math.max(0, payload.length - 1), 0xff_ffff]) }]
    case 'twice':
      return [piece, piece]
    case 'drop':
      return []
    case 'swapped':
      return [{ ...piece, type: Frame.reset, id: model.someId(random), payload: Buffer.from([0]) }, piece]
    case 'long':
      return [{ ...piece, payload: Buffer.concat([payload, Buffer.alloc(random.pick([8192, 8193, 400_000]), 0x20)]) }]
  }
}

export function encode({ type, id, payload, length }: Piece): Buffer {
  return frame(type, id, payload, Math.min(0xff_ffff, length ?? payload.length))
}

/** The frames of some bytes, as far as they are whole: what the real side makes of a record. */
export function walk(plain: Buffer, onFrame: (type: number, id: number, payload: Buffer) => void): boolean {
  let at = 0
  while (plain.length - at >= 8) {
    const end = at + 8 + plain.readUIntBE(at + 5, 3)
    if (end > plain.length) return false
    onFrame(plain.readUInt8(at), plain.readUInt32BE(at + 1), plain.subarray(at + 8, end))
    at = end
  }
  return at === plain.length
}
