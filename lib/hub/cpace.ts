import { createHash, randomBytes } from 'node:crypto'
import { ProxyError } from '../core/index.ts'

/**
 * CPace: two ends that share a password agree on a key, and whoever is between them learns nothing from it: one try is one
 * guess. draft-irtf-cfrg-cpace, group ristretto255 (RFC 9496), hash SHA-512, initiator and responder.
 *
 * Scalars are 32 bytes, little-endian; points 32 bytes, as RFC 9496 encodes them.
 */
const DSI = Buffer.from('CPaceRistretto255')
const ISK_DSI = Buffer.from('CPaceRistretto255_ISK')
/** SHA-512 takes so many bytes at a time: the password has a block of its own. */
const BLOCK = 128

export const POINT = 32

/** What both ends know before they begin. */
export interface CpaceInputs {
  /** The password. */
  readonly prs: Uint8Array
  /** Who talks, and about what. */
  readonly ci: Uint8Array
  readonly sid: Uint8Array
}

/** A point that an end has sent, and what it has sent along with it. */
export interface Share {
  readonly point: Uint8Array
  readonly data: Uint8Array
}

/** One end, with a scalar of its own that is used once. */
export interface CpaceSide {
  /** What the other end has to get. */
  readonly point: Buffer
  /**
   * The point that both ends have in common.
   *
   * @throws ProxyError PROXY_ERR_HANDSHAKE for what is no point, or the neutral one, which everybody can multiply
   */
  common(theirs: Uint8Array): Buffer
}

/** The curve takes some ms to load, and only few processes ever need it. */
const load = () => import('@noble/curves/ed25519.js')
type Curve = Awaited<ReturnType<typeof load>>

export function prependLength(bytes: Uint8Array): Buffer {
  const length: number[] = []
  let rest = bytes.length
  do {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from(length), bytes])
}

/** Each with its length before it, so that no two lists look alike. */
export function lengthsAndValues(...parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(parts.map(prependLength))
}

export function generatorString({ prs, ci, sid }: CpaceInputs): Buffer {
  const padding = Math.max(0, BLOCK - 1 - prependLength(prs).length - prependLength(DSI).length)
  return lengthsAndValues(DSI, prs, Buffer.alloc(padding), ci, sid)
}

/** The generator, which only those can compute who know the password. */
export async function generator(inputs: CpaceInputs): Promise<Buffer> {
  return Buffer.from(generatorPoint(await load(), inputs).toBytes())
}

/** `scalar` is for tests; it is random otherwise. */
export async function beginCpace(inputs: CpaceInputs, scalar?: Uint8Array): Promise<CpaceSide> {
  const curve = await load()
  const secret = scalar ? fromLittleEndian(scalar) : randomScalar(curve)
  const point = Buffer.from(generatorPoint(curve, inputs).multiply(secret).toBytes())
  return { point, common: (theirs) => multiply(curve, secret, theirs) }
}

/** The product that is never the neutral point: the draft's `scalar_mult_vfy`. */
export async function scalarMultVfy(scalar: Uint8Array, point: Uint8Array): Promise<Buffer> {
  return multiply(await load(), fromLittleEndian(scalar), point)
}

/** 64 bytes that both ends have, if they had the same password. `a` is the initiator. */
export function intermediateKey(sid: Uint8Array, common: Uint8Array, a: Share, b: Share): Buffer {
  return createHash('sha512')
    .update(lengthsAndValues(ISK_DSI, sid, common))
    .update(lengthsAndValues(a.point, a.data))
    .update(lengthsAndValues(b.point, b.data))
    .digest()
}

type Point = ReturnType<Curve['ristretto255']['Point']['fromBytes']>

function generatorPoint({ ristretto255_hasher }: Curve, inputs: CpaceInputs): Point {
  const hash = createHash('sha512').update(generatorString(inputs)).digest()
  const { deriveToCurve } = ristretto255_hasher
  if (!deriveToCurve) throw new TypeError('the curve has no way to a point')
  return deriveToCurve(hash)
}

function multiply({ ristretto255: { Point } }: Curve, secret: bigint, theirs: Uint8Array): Buffer {
  let point: Point
  try {
    point = Point.fromBytes(theirs)
  } catch (cause) {
    throw new ProxyError('PROXY_ERR_HANDSHAKE', 'the other end sent something that is no point', { cause })
  }
  // The group's order is prime: only the neutral point gives the neutral point.
  if (point.is0()) throw new ProxyError('PROXY_ERR_HANDSHAKE', 'the other end sent the neutral point')
  return Buffer.from(point.multiply(secret).toBytes())
}

/** Uniform from 1 to the order of the group less 1, but for 2^-259. */
function randomScalar({ ristretto255: { Point } }: Curve): bigint {
  for (;;) {
    const scalar = fromLittleEndian(randomBytes(64)) % Point.Fn.ORDER
    if (scalar !== 0n) return scalar
  }
}

function fromLittleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`)
}
