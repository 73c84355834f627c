import { generateKeyPairSync, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

export interface IssueOptions {
  /** Host names and addresses (IPv4). Default: 127.0.0.1 and localhost. */
  names?: readonly string[]
  /** Days from now, of the beginning and the end. Default: -1 and 1. */
  from?: number
  to?: number
  /** Whether it may sign others. */
  ca?: boolean
  /** What else than to sign others it is for; a CA is for nothing else by default. */
  purpose?: 'serverAuth' | 'clientAuth' | 'any'
}

/** A certificate with its private key, both in PEM; ECDSA with P-256, whose keys cost nothing. */
export class Identity {
  readonly cert: string
  readonly key: string
  readonly #name: string
  readonly #key: KeyObject

  private constructor(name: string, certificate: Buffer, key: KeyObject) {
    this.#name = name
    this.#key = key
    this.cert = new X509Certificate(certificate).toString()
    this.key = key.export({ type: 'pkcs8', format: 'pem' }).toString()
  }

  /** Made by hand for tests: nothing here is shared with what is tested. */
  static create(name: string, options: IssueOptions = {}, issuer?: Identity): Identity {
    const { names = ['127.0.0.1', 'localhost'], from = -1, to = 1, ca = false } = options
    const { purpose = ca ? 'sign' : 'serverAuth' } = options
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    // RFC 5280, section 4.1.
    const body = sequence(
      der(0xa0, integer(2)),
      integer(1, ...randomBytes(8)),
      ECDSA_WITH_SHA256,
      commonName(issuer ? issuer.#name : name),
      sequence(time(from), time(to)),
      commonName(name),
      publicKey.export({ type: 'spki', format: 'der' }),
      der(
        0xa3,
        sequence(
          extension(BASIC_CONSTRAINTS, sequence(...(ca ? [TRUE] : [])), true),
          ...(purpose === 'any' ? [] : [USAGES[purpose]]),
          ...(names.length > 0 ? [extension(ALT_NAME, sequence(...names.map(altName)))] : []),
        ),
      ),
    )
    const signature = sign('sha256', body, issuer ? issuer.#key : privateKey)
    const certificate = sequence(body, ECDSA_WITH_SHA256, der(0x03, Buffer.from([0]), signature))
    return new Identity(name, certificate, privateKey)
  }

  static async make(name: string, options: IssueOptions = {}): Promise<Identity> {
    return Identity.create(name, options)
  }

  async issue(name: string, options: IssueOptions = {}): Promise<Identity> {
    return Identity.create(name, options, this)
  }

  get pin(): string {
    return `sha256:${new X509Certificate(this.cert).fingerprint256}`
  }
}

// --- DER (X.690), as much of it as a certificate needs ---

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...head]), content])
}

function sequence(...parts: readonly Uint8Array[]): Buffer {
  return der(0x30, ...parts)
}

/** Big-endian, and positive. */
function integer(...bytes: readonly number[]): Buffer {
  return der(0x02, Buffer.from(bytes))
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

const TRUE = der(0x01, Buffer.from([0xff]))
/** 1.2.840.10045.4.3.2 */
const ECDSA_WITH_SHA256 = sequence(oid('2a8648ce3d040302'))
/** 2.5.29.19, .15, .37 and .17 */
const BASIC_CONSTRAINTS = oid('551d13')
const KEY_USAGE = oid('551d0f')
const EXT_KEY_USAGE = oid('551d25')
const ALT_NAME = oid('551d11')
const USAGES = {
  // The one bit of keyCertSign, with two that do not count behind it.
  sign: extension(KEY_USAGE, der(0x03, Buffer.from([2, 0x04])), true),
  // 1.3.6.1.5.5.7.3.1 and .2
  serverAuth: extension(EXT_KEY_USAGE, sequence(oid('2b06010505070301'))),
  clientAuth: extension(EXT_KEY_USAGE, sequence(oid('2b06010505070302'))),
}

function commonName(name: string): Buffer {
  return sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(name)))))
}

function time(days: number): Buffer {
  const text = new Date(Date.now() + days * 86_400_000).toISOString()
  return der(0x17, Buffer.from(`${text.slice(2, 19).replace(/\D/g, '')}Z`))
}

function extension(id: Buffer, value: Buffer, critical = false): Buffer {
  return sequence(id, ...(critical ? [TRUE] : []), der(0x04, value))
}

function altName(name: string): Buffer {
  const version = isIP(name)
  if (version === 6) throw new TypeError('no IPv6 here')
  return version === 4 ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name))
}
