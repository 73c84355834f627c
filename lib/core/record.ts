import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'
import { ProxyError } from './errors.ts'
import { discard } from './memory.ts'

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
/**
 * One cipher call handles this much, so that its output is in the cache when the system call copies it. With a header and
 * a tag it still is one segment of a loopback interface (65,483 bytes), as well as of a card that cuts segments itself: a
 * write of 64 KiB is two, and the second one, of a few bytes, costs the system as much as the first.
 */
export const SLICE: number = 63 * 1024
/** What a record carries of bulk, and what is worth reading at once for it: whole slices. */
export const BULK: number = 4 * SLICE
/**
 * The last slice may be so much longer: a header in front of bulk must not push a few bytes of it into one of their own, and
 * 64 KiB, by which Node.js reads streams, stay together.
 */
const SLACK = 2048
/** So many slices are handed on together: by one, the far side wakes more often than it can do anything. */
const HANDED_ON = 2
/** Records up to this long are put together in one buffer: a copy costs less than a list of three. */
const JOIN = 16_384

const CIPHER = 'aes-128-gcm'
const OPTIONS = { authTagLength: TAG }

/** HKDF-Expand (RFC 5869) for an output of at most one block. */
function expand(chain: Buffer, info: string, length: number): Buffer {
  return Buffer.from(createHmac('sha256', chain).update(info).update('\x01').digest().subarray(0, length))
}

/** A record key. It is overwritten when its link has moved on and no record is kept that it sealed. */
export class RecordKey {
  readonly bytes: Buffer
  /**
   * For the ciphers. Given bytes, Node.js 24 makes an error with a stack trace for each of them, to find out that they are
   * no `CryptoKey`. This copy is overwritten when it is collected, as are those in the ciphers.
   */
  #object: KeyObject | undefined
  #holders = 1

  constructor(bytes: Buffer) {
    this.bytes = bytes
    this.#object = createSecretKey(bytes)
  }

  get object(): KeyObject {
    if (!this.#object) throw new RangeError('this key is forgotten')
    return this.#object
  }

  hold(): this {
    this.#holders++
    return this
  }

  release(): void {
    if (--this.#holders > 0) return
    this.bytes.fill(0)
    this.#object = undefined
  }
}

/** The keys of one direction of one link: a chain that moves forward and cannot be turned back. */
export class RecordKeys {
  #chain: Buffer
  #current: RecordKey
  #used = 0
  readonly #nonce = Buffer.alloc(12)

  /** `secret`: what the handshake gave this direction. `salt`: the resume secret, or nothing on a first link. */
  constructor(secret: Uint8Array, salt: Uint8Array = new Uint8Array(0)) {
    this.#chain = Buffer.from(hkdfSync('sha256', secret, salt, 'symport chain', 32))
    this.#current = new RecordKey(expand(this.#chain, 'key', 16))
  }

  /** The key of the record that was sealed last. */
  get current(): RecordKey {
    return this.#current
  }

  /** The number of the next record on this link. */
  get count(): number {
    return this.#used
  }

  /** The nonce of the next record; moves the chain when it is time. The buffer is used again by the next call. */
  next(): Buffer {
    if (this.#chain.length === 0) throw new RangeError('the keys of this link are forgotten')
    if (this.#used > 0 && this.#used % REKEY_AFTER === 0) {
      const chain = expand(this.#chain, 'chain', 32)
      this.#chain.fill(0)
      this.#chain = chain
      this.#current.release()
      this.#current = new RecordKey(expand(chain, 'key', 16))
    }
    writeNonce(this.#nonce, this.#used++)
    return this.#nonce
  }

  /** The link is over. */
  forget(): void {
    this.#chain.fill(0)
    this.#chain = Buffer.alloc(0)
    this.#current.release()
  }
}

function writeNonce(nonce: Buffer, record: number): void {
  nonce.writeUInt32BE(Math.floor(record / 2 ** 32), 4)
  nonce.writeUInt32BE(record >>> 0, 8)
}

/** Copies a cipher's output to its place. */
function put(into: Buffer, output: Buffer, at: number): void {
  into.set(output, at)
  discard(output)
}

/** Where a record goes. */
export interface RecordSink {
  write(chunks: readonly Uint8Array[]): void
}

/**
 * Seals `head` followed by `tail` into one record, and answers its chunks. Both may be used again when this returns.
 * `sink` has all of it by then: of a long one a few slices at a time, as soon as they are sealed, so that the far side, and
 * a system that spaces segments out, need not wait for the whole.
 */
export function sealRecord(keys: RecordKeys, head: Uint8Array, tail?: Uint8Array, sink?: RecordSink): Buffer[] {
  const length = head.length + (tail ? tail.length : 0) + TAG
  const nonce = keys.next()
  const cipher = createCipheriv(CIPHER, keys.current.object, nonce, OPTIONS)
  if (length <= JOIN) {
    const record = Buffer.allocUnsafe(4 + length)
    record.writeUInt32BE(length, 0)
    cipher.setAAD(record.subarray(0, 4))
    put(record, cipher.update(head), 4)
    if (tail) put(record, cipher.update(tail), 4 + head.length)
    cipher.final()
    record.set(cipher.getAuthTag(), 4 + length - TAG)
    const chunks = [record]
    sink?.write(chunks)
    return chunks
  }
  const first = Buffer.allocUnsafe(4 + head.length)
  first.writeUInt32BE(length, 0)
  cipher.setAAD(first.subarray(0, 4))
  put(first, cipher.update(head), 4)
  const chunks = [first]
  let unsent = [first]
  const end = tail ? tail.length : 0
  for (let at = 0, slices = 1; tail && at < end; slices++) {
    const to = sliceEnd(at, end)
    const slice = cipher.update(tail.subarray(at, to))
    at = to
    chunks.push(slice)
    unsent.push(slice)
    if (!sink || at === end || slices % HANDED_ON !== 0) continue
    sink.write(unsent)
    unsent = []
  }
  cipher.final()
  const tag = cipher.getAuthTag()
  chunks.push(tag)
  unsent.push(tag)
  sink?.write(unsent)
  return chunks
}

/** Where the slice that begins at `at` ends. */
function sliceEnd(at: number, end: number): number {
  return end - at <= SLICE + SLACK ? end : at + SLICE
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
  const decipher = createDecipheriv(CIPHER, keys.current.object, nonce, OPTIONS)
  const start = at + 4
  const end = start + length - TAG
  decipher.setAAD(bytes.subarray(at, start))
  decipher.setAuthTag(bytes.subarray(end, end + TAG))
  const slices: Buffer[] = []
  for (let from = start; from < end; ) {
    const to = sliceEnd(from, end)
    slices.push(decipher.update(bytes.subarray(from, to)))
    from = to
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

/** A record that was sealed, and what it takes to open it again. */
export interface SealedRecord {
  readonly chunks: readonly Buffer[]
  /** Bytes of its plaintext. */
  readonly bytes: number
  readonly key: RecordKey
  /** Its number on the link that it was sealed for. */
  readonly number: number
}

/** The plaintext of a record that this side has sealed itself. */
export function reopenRecord({ chunks, key, number }: SealedRecord): Buffer {
  const record = Buffer.concat(chunks)
  const nonce = Buffer.alloc(12)
  writeNonce(nonce, number)
  const decipher = createDecipheriv(CIPHER, key.object, nonce, OPTIONS)
  decipher.setAAD(record.subarray(0, 4))
  decipher.setAuthTag(record.subarray(-TAG))
  const plain = decipher.update(record.subarray(4, -TAG))
  decipher.final()
  return plain
}
