import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto'
import { ProxyError } from './errors.ts'

/** The two suites of the Noise Protocol Framework (revision 34) that symport runs. Both have two messages. */
export type Suite = 'NNpsk0' | 'NKpsk0'

export interface NoiseOptions {
  suite: Suite
  initiator: boolean
  prologue: Uint8Array
  /** 32 bytes. */
  psk: Uint8Array
  /** NKpsk0: the responder's static X25519 key; its public half at the initiator, its private half at the responder. */
  static?: KeyObject | undefined
  /** For test vectors only; otherwise a fresh one is made. */
  ephemeral?: KeyObject | undefined
}

const DH = 32
const TAG = 16
const SPKI = Buffer.from('302a300506032b656e032100', 'hex')
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')

export function x25519PublicKey(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI, raw]), format: 'der', type: 'spki' })
}

export function x25519PrivateKey(raw: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8, raw]), format: 'der', type: 'pkcs8' })
}

/** The 32 bytes of a public key, given either half. */
export function rawPublicKey(key: KeyObject): Buffer {
  const half = key.type === 'private' ? createPublicKey(key) : key
  return Buffer.from(half.export({ format: 'der', type: 'spki' }).subarray(-DH))
}

/**
 * One Noise handshake, either side:
 *
 *     NNpsk0            NKpsk0
 *                       <- s (known beforehand)
 *     -> psk, e         -> psk, e, es
 *     <- e, ee          <- e, ee
 *
 * The initiator calls `write` then `read`, the responder `read` then `write`; then both may `split`.
 */
export class NoiseHandshake {
  readonly #options: NoiseOptions
  #chain: Buffer
  #hash: Buffer
  #key: Buffer = Buffer.alloc(32)
  #nonce = 0
  #ephemeral: KeyObject | undefined
  #remote: KeyObject | undefined

  constructor(options: NoiseOptions) {
    this.#options = options
    // The names have exactly HASHLEN bytes, so they are h as they are (section 5.2).
    this.#hash = Buffer.from(`Noise_${options.suite}_25519_AESGCM_SHA256`)
    this.#chain = this.#hash
    this.#mixHash(options.prologue)
    if (options.suite === 'NKpsk0') this.#mixHash(rawPublicKey(this.#static))
  }

  get #static(): KeyObject {
    if (!this.#options.static) throw new TypeError('NKpsk0 needs the static key of the responder')
    return this.#options.static
  }

  /** h: what both sides have seen. Complete after the second message. */
  get hash(): Buffer {
    return this.#hash
  }

  write(payload: Uint8Array): Buffer {
    if (this.#options.initiator) this.#mixPsk()
    const own = this.#options.ephemeral ?? generateKeyPairSync('x25519').privateKey
    this.#ephemeral = own
    const e = rawPublicKey(own)
    this.#mixHash(e)
    this.#mixKey(e)
    if (this.#options.initiator) {
      if (this.#options.suite === 'NKpsk0') this.#mixDh(own, this.#static)
    } else {
      this.#mixDh(own, this.#remote)
    }
    return Buffer.concat([e, this.#encrypt(payload)])
  }

  /** Answers the payload, or throws PROXY_ERR_HANDSHAKE: a wrong psk, a changed message, another prologue. */
  read(message: Uint8Array): Buffer {
    if (message.length < DH + TAG) throw new ProxyError('PROXY_ERR_HANDSHAKE', 'a handshake message that is too short')
    if (!this.#options.initiator) this.#mixPsk()
    const e = Buffer.from(message.subarray(0, DH))
    this.#remote = x25519PublicKey(e)
    this.#mixHash(e)
    this.#mixKey(e)
    if (this.#options.initiator) this.#mixDh(this.#ephemeral, this.#remote)
    else if (this.#options.suite === 'NKpsk0') this.#mixDh(this.#static, this.#remote)
    return this.#decrypt(message.subarray(DH))
  }

  /** The two keys of 32 bytes: initiator to responder, responder to initiator. */
  split(): [Buffer, Buffer] {
    const [first, second] = hkdf(this.#chain, new Uint8Array(0))
    return [first, second]
  }

  #mixHash(data: Uint8Array): void {
    this.#hash = createHash('sha256').update(this.#hash).update(data).digest()
  }

  #mixKey(input: Uint8Array): void {
    const [chain, key] = hkdf(this.#chain, input)
    this.#chain = chain
    this.#key = key
    this.#nonce = 0
  }

  #mixPsk(): void {
    const [chain, hash, key] = hkdf(this.#chain, this.#options.psk)
    this.#chain = chain
    this.#mixHash(hash)
    this.#key = key
    this.#nonce = 0
  }

  #mixDh(own: KeyObject | undefined, theirs: KeyObject | undefined): void {
    if (!own || !theirs) throw new TypeError('the messages of a handshake come in order')
    let secret: Buffer
    try {
      secret = diffieHellman({ privateKey: own, publicKey: theirs })
    } catch (cause) {
      // OpenSSL refuses points of low order, whose result would be all zero.
      throw new ProxyError('PROXY_ERR_HANDSHAKE', 'a handshake with an unusable public key', { cause })
    }
    this.#mixKey(secret)
  }

  #nextNonce(): Buffer {
    const nonce = Buffer.alloc(12)
    nonce.writeUInt32BE(this.#nonce++, 8)
    return nonce
  }

  // Noise's AESGCM is AES-256; what it protects is only the handshake. Records use AES-128 (record.ts).
  #encrypt(plain: Uint8Array): Buffer {
    const cipher = createCipheriv('aes-256-gcm', this.#key, this.#nextNonce(), { authTagLength: TAG })
    cipher.setAAD(this.#hash)
    const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
    this.#mixHash(sealed)
    return sealed
  }

  #decrypt(sealed: Uint8Array): Buffer {
    const decipher = createDecipheriv('aes-256-gcm', this.#key, this.#nextNonce(), { authTagLength: TAG })
    decipher.setAAD(this.#hash)
    decipher.setAuthTag(sealed.subarray(-TAG))
    try {
      const plain = Buffer.concat([decipher.update(sealed.subarray(0, -TAG)), decipher.final()])
      this.#mixHash(sealed)
      return plain
    } catch (cause) {
      throw new ProxyError('PROXY_ERR_HANDSHAKE', 'a handshake that does not prove the secret', { cause })
    }
  }
}

/** HKDF as Noise defines it (section 4.3): three outputs, of which callers take what they need. */
function hkdf(chain: Buffer, input: Uint8Array): [Buffer, Buffer, Buffer] {
  const temp = createHmac('sha256', chain).update(input).digest()
  const first = createHmac('sha256', temp).update('\x01').digest()
  const second = createHmac('sha256', temp).update(first).update('\x02').digest()
  const third = createHmac('sha256', temp).update(second).update('\x03').digest()
  return [first, second, third]
}
