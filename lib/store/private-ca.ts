import {
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type KeyObject,
  randomBytes,
  sign,
  type X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import { hostname, networkInterfaces } from 'node:os'
import type { SecureContext } from 'node:tls'
import { ProxyError } from '../core/errors.ts'
import { fingerprintOf } from '../sockets/verify.ts'
import { certificatesIn, DAY, daysLeft, type Identity, identityOf, privateKeyIn } from './pem.ts'
import type { StateFolder } from './state-folder.ts'

const CA_FILE = 'ca.pem'
const CA_KEY_FILE = 'ca-key.pem'
/** The server's key, its certificate and that of the CA, in one file: a crash leaves all of it or nothing. */
const SERVER_FILE = 'server-cert.pem'

const CERTIFICATE = '-----BEGIN CERTIFICATE-----'
const CA_DAYS = 3650
const SERVER_DAYS = 365
/** A certificate with less left is replaced. */
const RENEW_DAYS = 30
/** Clocks differ. */
const EARLIER = DAY
/** How long a private certificate that could not be made is not tried again, in ms. */
const RETRY = 10_000
/** RSA: node-forge knows no other keys. */
const KEY_BITS = 2048
/** Addresses and names in one certificate. */
const MOST_NAMES = 100

export interface PrivateCaOptions {
  /** Names and addresses that nodes may dial, beside those of this machine. */
  names?: readonly string[] | undefined
  /** What went wrong, or is about to, in words. Default: nobody hears of it. */
  onWarning?: ((message: string) => void) | undefined
  /** A certificate was replaced while it was in use. */
  onReload?: ((message: string) => void) | undefined
}

interface PrivateIdentity extends Identity {
  /** Key and chain, as they are kept. */
  readonly text: string
}

function damaged(message: string): never {
  throw new ProxyError('PROXY_ERR_STATE', message)
}

/** Certificates of a CA in the state folder, for the names and addresses that this machine has. */
export class PrivateCertificates {
  readonly #folder: StateFolder
  readonly #options: PrivateCaOptions
  #ca: Promise<Authority> | undefined
  #current: Promise<PrivateIdentity> | undefined
  #reloading: Promise<boolean> | undefined
  #timer: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #closed = false

  constructor(folder: StateFolder, options: PrivateCaOptions) {
    this.#folder = folder
    this.#options = options
  }

  async context(): Promise<SecureContext> {
    this.#current ??= this.#start()
    const current = this.#current
    try {
      return (await current).context
    } catch (error) {
      // Strangers ask for it: while something is in the way, they do not have keys made for nothing.
      this.#retry ??= setTimeout(() => {
        this.#retry = undefined
        if (this.#current === current) this.#current = undefined
      }, RETRY).unref()
      throw error
    }
  }

  covers(): boolean {
    return false
  }

  says(name: string): boolean {
    return this.#names().includes(name)
  }

  list(): never[] {
    return []
  }

  async fingerprint(): Promise<string> {
    return fingerprintOf((await this.#authority()).certificate)
  }

  reload(): Promise<boolean> {
    this.#reloading ??= this.#reload().finally(() => {
      this.#reloading = undefined
    })
    return this.#reloading
  }

  async #reload(): Promise<boolean> {
    const current = await this.#current
    if (!current || this.#isGood(current)) return false
    try {
      const next = await this.#make(current)
      this.#current = Promise.resolve(next)
      this.#options.onReload?.("the server's certificate was renewed by its CA: new connections get the new one")
      return true
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      this.#options.onWarning?.(`the server's certificate cannot be renewed: ${why}`)
      return false
    }
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
  }

  #authority(): Promise<Authority> {
    this.#ca ??= loadAuthority(this.#folder)
    this.#ca.catch(() => {
      this.#ca = undefined
    })
    return this.#ca
  }

  async #start(): Promise<PrivateIdentity> {
    const { certificate } = await this.#authority()
    const kept = await this.#read(certificate)
    const identity = kept && this.#isGood(kept) ? kept : await this.#make(kept)
    if (!this.#closed) this.#timer ??= setInterval(() => void this.reload().catch(() => {}), DAY).unref()
    return identity
  }

  /** What is kept, if it comes from this CA. Anything else is made again. */
  async #read(ca: X509Certificate): Promise<PrivateIdentity | undefined> {
    const file = await this.#folder.read(SERVER_FILE)
    const [leaf] = certificatesIn(file?.text ?? '') ?? []
    if (!file || !leaf?.checkIssued(ca) || !leaf.verify(ca.publicKey)) return undefined
    try {
      return { ...(await identityOf(file.text, file.text, damaged)), text: file.text }
    } catch {
      return undefined
    }
  }

  #isGood({ chain: [leaf] }: Identity): boolean {
    if (!leaf || daysLeft(leaf) < RENEW_DAYS) return false
    return this.#names().every((name) => (isIP(name) === 0 ? leaf.checkHost(name) : leaf.checkIP(name)) !== undefined)
  }

  /** A new key takes most of a second: one that is there is used on. */
  async #make(kept: PrivateIdentity | undefined): Promise<PrivateIdentity> {
    const authority = await this.#authority()
    const key = kept ? kept.text.slice(0, kept.text.indexOf(CERTIFICATE)) : await newKey()
    const certificate = await issue(authority, key, this.#names())
    const text = `${key}${certificate}${authority.certificate.toString()}`
    await this.#folder.write(SERVER_FILE, text)
    return { ...(await identityOf(text, text, damaged)), text }
  }

  /** What this machine is called, and what it is reached at. */
  #names(): string[] {
    const addresses = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ internal, address }) => !internal && !address.startsWith('fe80'))
      .map(({ address }) => address)
    const names = ['localhost', '127.0.0.1', '::1', ...(this.#options.names ?? []), hostname(), ...addresses]
    return [...new Set(names.filter(isName))].slice(0, MOST_NAMES)
  }
}

/** What may stand in a certificate; host names of machines are not always names of the DNS. */
function isName(name: string): boolean {
  if (name === '0.0.0.0' || name === '::') return false
  return isIP(name) !== 0 || (name.length <= 253 && /^(?:\*\.)?[a-z0-9]([a-z0-9-]{0,62}(\.(?!$)|$))+$/i.test(name))
}

interface Authority {
  readonly certificate: X509Certificate
  readonly key: KeyObject
}

/** The CA in the folder, made if there is none. Of several processes that make one at once, one wins. */
async function loadAuthority(folder: StateFolder): Promise<Authority> {
  if (!(await folder.read(CA_KEY_FILE))) await folder.create(CA_KEY_FILE, await newKey())
  const keyFile = await folder.read(CA_KEY_FILE)
  const key = privateKeyIn(keyFile?.text ?? '')
  const path = folder.file(CA_FILE)
  const advice = `put it back, or delete ${path} and ${folder.file(CA_KEY_FILE)} to make a new CA (nodes need its new pin)`
  if (key?.asymmetricKeyType !== 'rsa') {
    throw new ProxyError('PROXY_ERR_STATE', `${folder.file(CA_KEY_FILE)} is not an RSA key in PEM: ${advice}`)
  }
  if (!(await folder.read(CA_FILE))) await folder.create(CA_FILE, await selfSign(key))
  const [certificate] = certificatesIn((await folder.read(CA_FILE))?.text ?? '') ?? []
  if (!certificate?.checkPrivateKey(key)) {
    throw new ProxyError('PROXY_ERR_STATE', `${path} is not the certificate of ${CA_KEY_FILE}: ${advice}`)
  }
  if (daysLeft(certificate) <= 0) {
    throw new ProxyError('PROXY_ERR_STATE', `${path} has expired: ${advice}`)
  }
  return { certificate, key }
}

function newKey(): Promise<string> {
  return new Promise((resolve, reject) => {
    generateKeyPair('rsa', { modulusLength: KEY_BITS }, (error, _publicKey, privateKey) => {
      if (error) reject(error)
      else resolve(String(privateKey.export({ type: 'pkcs8', format: 'pem' })))
    })
  })
}

type Forge = typeof import('node-forge')
type ForgeCertificate = import('node-forge').pki.Certificate

async function loadForge(): Promise<Forge> {
  const { default: forge } = await import('node-forge')
  return forge
}

/** A certificate for the public half of a key, still without a name, extensions or signature. */
function blank(forge: Forge, key: KeyObject, from: number, to: number): ForgeCertificate {
  const certificate = forge.pki.createCertificate()
  const publicPem = String(createPublicKey(key).export({ type: 'spki', format: 'pem' }))
  certificate.publicKey = forge.pki.publicKeyFromPem(publicPem)
  certificate.serialNumber = serialNumber()
  certificate.validity.notBefore = new Date(from)
  certificate.validity.notAfter = new Date(to)
  return certificate
}

/** RFC 5280 section 4.1.2.2: positive, at most 20 bytes. */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return bytes.toString('hex')
}

async function selfSign(key: KeyObject): Promise<string> {
  const forge = await loadForge()
  const now = Date.now()
  const ca = blank(forge, key, now - EARLIER, now + CA_DAYS * DAY)
  // The serial number tells CAs of one machine apart.
  const name = [{ name: 'commonName', value: `symport ${hostname().slice(0, 40)} ${ca.serialNumber.slice(0, 8)}` }]
  ca.setSubject(name)
  ca.setIssuer(name)
  ca.setExtensions([
    { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ])
  return signed(forge, ca, key)
}

async function issue(authority: Authority, keyPem: string, names: readonly string[]): Promise<string> {
  const forge = await loadForge()
  const now = Date.now()
  const ca = forge.pki.certificateFromPem(authority.certificate.toString())
  const end = Math.min(now + SERVER_DAYS * DAY, Date.parse(authority.certificate.validTo))
  const leaf = blank(forge, createPrivateKey(keyPem), now - EARLIER, end)
  leaf.setSubject([{ name: 'commonName', value: 'symport server' }])
  leaf.setIssuer(ca.subject.attributes)
  leaf.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
    { name: 'extKeyUsage', serverAuth: true },
    { name: 'subjectKeyIdentifier' },
    { name: 'authorityKeyIdentifier', keyIdentifier: ca.generateSubjectKeyIdentifier().getBytes() },
    // 2: a name, 7: an address (RFC 5280 section 4.2.1.6).
    {
      name: 'subjectAltName',
      altNames: names.map((name) => (isIP(name) === 0 ? { type: 2, value: name } : { type: 7, ip: name })),
    },
  ])
  return signed(forge, leaf, authority.key)
}

/** In PEM. node-forge puts it together, and OpenSSL signs it: that takes 0.1 s in JavaScript. */
function signed(forge: Forge, certificate: ForgeCertificate, key: KeyObject): string {
  const signer = Object.assign(forge.pki.privateKeyFromPem(String(key.export({ type: 'pkcs8', format: 'pem' }))), {
    sign: () => {
      const der = forge.asn1.toDer(certificate.tbsCertificate).getBytes()
      return sign('sha256', Buffer.from(der, 'latin1'), key).toString('latin1')
    },
  })
  certificate.sign(signer, forge.md.sha256.create())
  return forge.pki.certificateToPem(certificate).replaceAll('\r\n', '\n')
}
