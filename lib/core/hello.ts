import { createPublicKey, type KeyObject } from 'node:crypto'
import { ProxyError } from './errors.ts'
import { plainText, readUInt64, writeUInt64 } from './frame.ts'

/**
 * The payload of hello, record 0 each way on every link:
 *
 *     u64 next counted record expected | fields: u8 type, u16 length, value
 *
 * | type | value                                                                       |
 * | ---- | --------------------------------------------------------------------------- |
 * | 1    | label: UTF-8, at most 64 bytes, for people                                  |
 * | 2    | node key: Ed25519 public key (32 bytes), signature (64 bytes) over the hash |
 *
 * A field whose type is unknown is skipped, so that later versions can say more.
 */
export interface Hello {
  readonly expected: number
  readonly label: string
  readonly proof?: { readonly identity: KeyObject; readonly signature: Buffer } | undefined
}

const LABEL = 1
const NODE_KEY = 2
const MAX_LABEL = 64
const SPKI = Buffer.from('302a300506032b6570032100', 'hex')

/**
 * Points of low order, with their sign bit cleared: under such a key one signature fits every message, so it proves
 * nothing. The last two are spellings beyond the field's prime.
 */
const LOW_ORDER: ReadonlySet<string> = new Set([
  '0100000000000000000000000000000000000000000000000000000000000000',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '0000000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
])

function isLowOrder(raw: Buffer): boolean {
  const folded = Buffer.from(raw)
  folded[31] = (folded[31] ?? 0) & 0x7f
  return LOW_ORDER.has(folded.toString('hex'))
}

export function encodeHello(hello: Hello): Buffer {
  const parts = [writeUInt64(hello.expected)]
  const field = (type: number, ...values: Buffer[]): void => {
    const value = Buffer.concat(values)
    const header = Buffer.from([type, 0, 0])
    header.writeUInt16BE(value.length, 1)
    parts.push(header, value)
  }
  if (hello.label) {
    const label = Buffer.from(hello.label, 'utf8')
    if (label.length > MAX_LABEL) throw new RangeError(`a label has at most ${MAX_LABEL} bytes`)
    field(LABEL, label)
  }
  if (hello.proof) {
    const spki = createPublicKey(hello.proof.identity).export({ format: 'der', type: 'spki' })
    field(NODE_KEY, spki.subarray(SPKI.length), hello.proof.signature)
  }
  return Buffer.concat(parts)
}

export interface DecodedHello {
  readonly expected: number
  readonly label: string
  readonly key: { readonly raw: Buffer; readonly object: KeyObject } | undefined
  readonly signature: Buffer | undefined
}

export function decodeHello(payload: Buffer): DecodedHello {
  const expected = readUInt64(payload.subarray(0, 8))
  let label = ''
  let key: DecodedHello['key']
  let signature: Buffer | undefined
  for (let at = 8; at < payload.length; ) {
    if (payload.length - at < 3) throw new ProxyError('PROXY_ERR_FRAME', 'a hello that is cut off')
    const type = payload[at]
    const length = payload.readUInt16BE(at + 1)
    const value = payload.subarray(at + 3, at + 3 + length)
    if (value.length < length) throw new ProxyError('PROXY_ERR_FRAME', 'a hello that is cut off')
    at += 3 + length
    if (type === LABEL) {
      if (length > MAX_LABEL) throw new ProxyError('PROXY_ERR_FRAME', 'a label that is too long')
      label = plainText(value.toString('utf8'))
    } else if (type === NODE_KEY) {
      if (length !== 96) throw new ProxyError('PROXY_ERR_FRAME', 'a node key has 96 bytes with its signature')
      const raw = Buffer.from(value.subarray(0, 32))
      if (isLowOrder(raw)) throw new ProxyError('PROXY_ERR_IDENTITY', 'a node key that proves nothing')
      key = { raw, object: createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' }) }
      signature = Buffer.from(value.subarray(32))
    }
  }
  return { expected, label, key, signature }
}
