import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from 'node:crypto'
import { ProxyError } from './errors.ts'

/**
 * A record:
 *
 *     +--------------+-------------------------+----------------+
 *     | length (u32) | ciphertext (length-16)  | tag (16 bytes) |
 *     +--------------+-------------------------+----------------+
 *
 * AES-128-GCM (NIST SP 800-38D). `length` is the associated data. Nonce: 4 zero bytes, then the record's number on this
 * link in this direction as u64.
 */
export const TAG = 16
export const MIN_RECORD = 17
export const MAX_RECORD = 524_288

/** Records sealed under one key before the chain moves on. */
const REKEY_AFTER = 2 ** 16
/** One cipher call handles this much, so that its output is in the cache when the system call copies it. */
const SLICE = 262_144
/** Records up to this long are put together in one buffer: a copy costs less than a list of three. */
const JOIN = 16_384

const CIPHER = 'aes-128-gcm'
const OPTIONS = { authTagLength: TAG }

/** HKDF-Expand (RFC 5869) for an output of at most one block. */
function expand(chain: Buffer, info: string, length: number): Buffer {
  return Buffer.from(createHmac('sha256', chain).update(info).update('\x01').digest().subarray(0, length))
}

/** The keys of one direction of one link: a chain that moves forward and cannot be turned back. */
export class RecordKeys {
  #chain: Buffer
  #key: Buffer
  #used = 0
  readonly #nonce = Buffer.alloc(12)

  /** A sealing side's keys live on with the records it keeps; an opening side's old key is overwritten at once. */
  readonly #wipe: boolean

  /** `secret`: what the handshake gave this direction. `salt`: the resume secret, or nothing on a first link. */
  constructor(use: 'seal' | 'open', secret: Uint8Array, salt: Uint8Array = new Uint8Array(0)) {
    this.#wipe = use === 'open'
    this.#chain = Buffer.from(hkdfSync('sha256', secret, salt, 'symport chain', 32))
    this.#key = expand(this.#chain, 'key', 16)
  }

  get key(): Buffer {
    return this.#key
  }

  /** The number of the next record on this link. */
  get count(): number {
    return this.#used
  }

  /** The nonce of the next record; moves the chain when it is time. The buffer is used again by the next call. */
  next(): Buffer {
    if (this.#used > 0 && this.#used % REKEY_AFTER === 0) {
      const chain = expand(this.#chain, 'chain', 32)
      this.#chain.fill(0)
      this.#chain = chain
      if (this.#wipe) this.#key.fill(0)
      this.#key = expand(chain, 'key', 16)
    }
    this.#nonce.writeUInt32BE(Math.floor(this.#used / 2 ** 32), 4)
    this.#nonce.writeUInt32BE(this.#used >>> 0, 8)
    this.#used++
    return this.#nonce
  }
}

/** Seals `head` followed by `tail` into one record. Both may be used again when this returns. */
export function sealRecord(keys: RecordKeys, head: Uint8Array, tail?: Uint8Array): Buffer[] {
  const length = head.length + (tail ? tail.length : 0) + TAG
  const nonce = keys.next()
  const cipher = createCipheriv(CIPHER, keys.key, nonce, OPTIONS)
  if (length <= JOIN) {
    const record = Buffer.allocUnsafe(4 + length)
    record.writeUInt32BE(length, 0)
    cipher.setAAD(record.subarray(0, 4))
    record.set(cipher.update(head), 4)
    if (tail) record.set(cipher.update(tail), 4 + head.length)
    cipher.final()
    record.set(cipher.getAuthTag(), 4 + length - TAG)
    return [record]
  }
  const first = Buffer.allocUnsafe(4 + head.length)
  first.writeUInt32BE(length, 0)
  cipher.setAAD(first.subarray(0, 4))
  first.set(cipher.update(head), 4)
  const chunks = [first]
  if (tail) for (let at = 0; at < tail.length; at += SLICE) chunks.push(cipher.update(tail.subarray(at, at + SLICE)))
  cipher.final()
  chunks.push(cipher.getAuthTag())
  return chunks
}

/** The length field of a record, checked. `at` points at it. */
export function recordLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32BE(at)
  if (length > MAX_RECORD) throw new ProxyError('PROXY_ERR_RECORD_TOO_LARGE', `a record of ${length} bytes`)
  if (length < MIN_RECORD) throw new ProxyError('PROXY_ERR_RECORD_TOO_SHORT', `a record of ${length} bytes`)
  return length
}

/** Opens the record that stands at `at` and is `length` bytes long behind its length field. */
export function openRecord(keys: RecordKeys, bytes: Buffer, at: number, length: number): Buffer[] {
  const nonce = keys.next()
  const decipher = createDecipheriv(CIPHER, keys.key, nonce, OPTIONS)
  const start = at + 4
  const end = start + length - TAG
  decipher.setAAD(bytes.subarray(at, start))
  decipher.setAuthTag(bytes.subarray(end, end + TAG))
  const slices: Buffer[] = []
  for (let from = start; from < end; from += SLICE) {
    slices.push(decipher.update(bytes.subarray(from, Math.min(from + SLICE, end))))
  }
  try {
    decipher.final()
  } catch (cause) {
    throw new ProxyError('PROXY_ERR_RECORD_AUTH', 'a record was changed on its way, or sealed with another key', {
      cause,
    })
  }
  return slices
}
