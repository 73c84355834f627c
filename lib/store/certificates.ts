import { createPrivateKey, generateKeyPair, type KeyObject, randomBytes, X509Certificate } from 'node:crypto'
import { type FSWatcher, watch } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { isIP } from 'node:net'
import { hostname, networkInterfaces } from 'node:os'
import { basename, dirname } from 'node:path'
import type { SecureContext } from 'node:tls'
import { ProxyError } from '../core/errors.ts'
import type { StateFolder } from './state-folder.ts'

const CA_FILE = 'ca.pem'
const CA_KEY_FILE = 'ca-key.pem'
/** The server's key, its certificate and that of the CA, in one file: a crash leaves all of it or nothing. */
const SERVER_FILE = 'server-cert.pem'

const CERTIFICATE = '-----BEGIN CERTIFICATE-----'
const DAY = 86_400_000
const CA_DAYS = 3650
const SERVER_DAYS = 365
/** A certificate with less left is replaced. */
const RENEW_DAYS = 30
/** Clocks differ. */
const EARLIER = DAY
/** How often given files are looked at, in ms. */
const POLL = 10_000
/** How long files that change are left alone, in ms. */
const SETTLE = 300
/** How long a private certificate that could not be made is not tried again, in ms. */
const RETRY = 10_000
/** RSA: node-forge knows no other keys. */
const KEY_BITS = 2048
/** Addresses and names in one certificate. */
const MOST_NAMES = 100
const LARGEST = 1024 * 1024

export interface CertificateOptions {
  /** PEM files that the operator gives: a certificate, with the chain behind it, and its key. Both or none. */
  cert?: string | undefined
  key?: string | undefined
  /** Names and addresses that nodes may dial, beside those of this machine. */
  names?: readonly string[] | undefined
  /** What went wrong, or is about to, in words. Default: nobody hears of it. */
  onWarning?: ((message: string) => void) | undefined
  /** A certificate was replaced while it was in use. */
  onReload?: ((message: string) => void) | undefined
  /** How often given files are looked at, in ms. Default 10,000. */
  poll?: number | undefined
}

/** Where the certificate of a server comes from. */
export interface Certificates {
  /** What TLS is accepted with at this moment, from somebody who asks for this name. Made when first asked for. */
  context(serverName?: string | undefined): Promise<SecureContext>
  /** Whether a given certificate is meant for this name. */
  covers(name: string): boolean
  /**
   * `sha256:HEX` of the CA, for `--pin`: the private one's; of given files the self-signed certificate that the chain ends
   * with. Undefined if there is none: then a CA is behind it that nodes know by themselves.
   */
  fingerprint(): Promise<string | undefined>
  /** Looks at the files now. Answers whether there is something new; what is bad is told to `onWarning`, once. */
  reload(): Promise<boolean>
  /** Given ones: those that nobody renews but who gives them. */
  list(): GivenStatus[]
  close(): void
}

export interface GivenStatus {
  /** The first that it is for. */
  readonly name: string
  readonly begins: Date
  readonly ends: Date
  /** Why the files are not as they should be now. */
  readonly problem?: string | undefined
}

/** Certificates that are had for one name each, when somebody asks for it. */
export interface NamedCertificates {
  /** Undefined if there is none for this name. */
  contextFor(name: string): Promise<SecureContext | undefined>
}

/** Given files for the names that they are for, then a certificate for the very name, and `base` for all others. */
export function chainCertificates(base: Certificates, named: NamedCertificates): Certificates {
  return {
    async context(name) {
      const own = name === undefined || base.covers(name) ? undefined : await named.contextFor(name)
      return own ?? (await base.context(name))
    },
    covers: (name) => base.covers(name),
    fingerprint: () => base.fingerprint(),
    reload: () => base.reload(),
    list: () => base.list(),
    close: () => base.close(),
  }
}

/**
 * The certificates of a server: given files, which are read again when they change, or those of a private CA in the state
 * folder. Given files are checked here; of the private CA nothing is made or read before it is asked for.
 *
 * @throws ProxyError PROXY_ERR_USAGE if the given files are no good
 */
export async function loadCertificates(folder: StateFolder, options: CertificateOptions = {}): Promise<Certificates> {
  const { cert, key } = options
  if ((cert === undefined) !== (key === undefined)) {
    throw usage(cert === undefined ? '--key is given without --cert' : '--cert is given without --key')
  }
  if (cert === undefined || key === undefined) return new PrivateCertificates(folder, options)
  const given = new GivenCertificates(cert, key, options)
  await given.load()
  return given
}

/** A certificate with its key, and what TLS makes of them. */
export interface Identity {
  readonly chain: readonly X509Certificate[]
  readonly context: SecureContext
}

// --- given files ---

class GivenCertificates implements Certificates {
  readonly #cert: string
  readonly #key: string
  readonly #options: CertificateOptions
  #current: Identity | undefined
  /** What the files looked like when they were read last, whatever came of it. */
  #seen = ''
  /** What was wrong with them then. */
  #problem: string | undefined
  #reloading: Promise<boolean> | undefined
  #timer: NodeJS.Timeout | undefined
  #soon: NodeJS.Timeout | undefined
  readonly #watchers: FSWatcher[] = []
  #warned = false

  constructor(cert: string, key: string, options: CertificateOptions) {
    this.#cert = cert
    this.#key = key
    this.#options = options
  }

  /** @throws ProxyError PROXY_ERR_USAGE */
  async load(): Promise<void> {
    this.#seen = await this.#look()
    this.#current = await this.#read()
    this.#timer = setInterval(() => void this.reload(), this.#options.poll ?? POLL).unref()
    for (const path of [this.#cert, this.#key]) this.#watch(path)
  }

  /** What the system tells comes sooner than the next look; where it tells nothing, looking is enough. */
  #watch(path: string): void {
    try {
      const watcher = watch(dirname(path), { persistent: false }, (_event, name) => {
        if (name !== basename(path)) return
        // Certificate and key change one after the other.
        clearTimeout(this.#soon)
        this.#soon = setTimeout(() => void this.reload(), SETTLE).unref()
      })
      watcher.on('error', () => watcher.close())
      this.#watchers.push(watcher)
    } catch {
      // As when there are too many watchers on this machine.
    }
  }

  async context(): Promise<SecureContext> {
    const current = this.#current ?? (await this.#read())
    return current.context
  }

  covers(name: string): boolean {
    return this.#current?.chain[0]?.checkHost(name) !== undefined
  }

  async fingerprint(): Promise<string | undefined> {
    return topOf(this.#current?.chain ?? [])
  }

  reload(): Promise<boolean> {
    this.#reloading ??= this.#reload().finally(() => {
      this.#reloading = undefined
    })
    return this.#reloading
  }

  list(): GivenStatus[] {
    const [leaf] = this.#current?.chain ?? []
    if (!leaf) return []
    const life = { begins: new Date(leaf.validFrom), ends: new Date(leaf.validTo) }
    return [{ name: firstName(leaf), ...life, ...(this.#problem === undefined ? {} : { problem: this.#problem }) }]
  }

  close(): void {
    clearInterval(this.#timer)
    clearTimeout(this.#soon)
    for (const watcher of this.#watchers) watcher.close()
  }

  async #reload(): Promise<boolean> {
    this.#warnBefore()
    const now = await this.#look()
    // What could not be read may be readable now, and look the same.
    if (now === this.#seen && this.#problem === undefined) return false
    this.#seen = now
    const warned = this.#warned
    try {
      this.#warned = false
      this.#current = await this.#read()
      this.#problem = undefined
      this.#options.onReload?.(`the certificate in ${this.#cert} has changed: new connections get the new one`)
      return true
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      const isNew = why !== this.#problem
      this.#problem = why
      this.#warned = warned
      if (isNew) this.#options.onWarning?.(`${why}; the certificate from before stays in use`)
      return false
    }
  }

  /** Long-lived servers outlive certificates. */
  #warnBefore(): void {
    const leaf = this.#current?.chain[0]
    if (!leaf || this.#warned || daysLeft(leaf) > 0) return
    this.#warned = true
    this.#options.onWarning?.(`the certificate in ${this.#cert} has expired (${leaf.validTo}): nodes will refuse it`)
  }

  /** Changes when the files do, also by a rename. */
  async #look(): Promise<string> {
    const seen = [this.#cert, this.#key].map(async (path) => {
      const found = await stat(path).catch(() => undefined)
      return found ? `${found.ino} ${found.size} ${found.mtimeMs}` : 'none'
    })
    return (await Promise.all(seen)).join(', ')
  }

  async #read(): Promise<Identity> {
    const [certText, keyText] = await Promise.all([readGiven(this.#cert, '--cert'), readGiven(this.#key, '--key')])
    const identity = await identityOf(certText, keyText, (message) => {
      throw usage(`${message} (--cert ${this.#cert}, --key ${this.#key})`)
    })
    const [leaf] = identity.chain
    if (leaf && daysLeft(leaf) <= 0) {
      this.#warned = true
      this.#options.onWarning?.(`the certificate in ${this.#cert} has expired (${leaf.validTo}): nodes will refuse it`)
    }
    return identity
  }
}

/**
 * What `fingerprint` answers for a given certificate, for those who have no key.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function readFingerprint(cert: string): Promise<string | undefined> {
  const chain = certificatesIn(await readGiven(cert, '--cert'))
  if (!chain || chain.length === 0) throw usage(`--cert: there is no certificate in PEM in ${cert}`)
  return topOf(chain)
}

/** The fingerprint of the certificate that a chain ends with, if nobody else has signed it. */
function topOf(chain: readonly X509Certificate[]): string | undefined {
  const last = chain.at(-1)
  return last?.checkIssued(last) && last.verify(last.publicKey) ? fingerprintOf(last) : undefined
}

async function readGiven(path: string, flag: string): Promise<string> {
  try {
    if ((await stat(path)).size > LARGEST) throw usage(`${flag}: ${path} is too large`)
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof ProxyError) throw error
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const known: Record<string, string> = {
      ENOENT: 'there is no such file',
      EACCES: 'permission denied',
      EISDIR: 'it is a folder',
    }
    throw usage(`${flag}: cannot read ${path}: ${known[code] ?? code}`, error)
  }
}

/** Takes PEM texts apart and together. `fail` gets a plain line, and throws. */
export async function identityOf(
  certText: string,
  keyText: string,
  fail: (message: string, cause?: unknown) => never,
): Promise<Identity> {
  const chain = certificatesIn(certText) ?? fail('a certificate is damaged')
  const [leaf] = chain
  if (!leaf) return fail('there is no certificate in PEM')
  const key = privateKeyIn(keyText) ?? fail('there is no private key in PEM that can be read (one with a password?)')
  if (!leaf.checkPrivateKey(key)) fail('the key does not belong to the (first) certificate')
  const { createSecureContext } = await import('node:tls')
  try {
    const pem = chain.map((certificate) => certificate.toString()).join('')
    return { chain, context: createSecureContext({ cert: pem, key: keyText, minVersion: 'TLSv1.2' }) }
  } catch (error) {
    return fail(`TLS cannot use the certificate: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function certificatesIn(text: string): X509Certificate[] | undefined {
  try {
    const blocks = text.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]*-----END (?:TRUSTED )?CERTIFICATE-----/g)
    return (blocks ?? []).map((block) => new X509Certificate(block))
  } catch {
    return undefined
  }
}

function privateKeyIn(text: string): KeyObject | undefined {
  try {
    return createPrivateKey(text)
  } catch {
    return undefined
  }
}

// --- the private CA ---

interface PrivateIdentity extends Identity {
  /** Key and chain, as they are kept. */
  readonly text: string
}

function damaged(message: string): never {
  throw new ProxyError('PROXY_ERR_STATE', message)
}

class PrivateCertificates implements Certificates {
  readonly #folder: StateFolder
  readonly #options: CertificateOptions
  #ca: Promise<Authority> | undefined
  #current: Promise<PrivateIdentity> | undefined
  #reloading: Promise<boolean> | undefined
  #timer: NodeJS.Timeout | undefined
  #retry: NodeJS.Timeout | undefined
  #closed = false

  constructor(folder: StateFolder, options: CertificateOptions) {
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

  list(): GivenStatus[] {
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

/** A certificate for a public key, still without a name, extensions or signature. */
function blank(forge: Forge, publicPem: string, from: number, to: number): ForgeCertificate {
  const certificate = forge.pki.createCertificate()
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
  const privateKey = forge.pki.privateKeyFromPem(String(key.export({ type: 'pkcs8', format: 'pem' })))
  const publicKey = forge.pki.setRsaPublicKey(privateKey.n, privateKey.e)
  const ca = blank(forge, forge.pki.publicKeyToPem(publicKey), now - EARLIER, now + CA_DAYS * DAY)
  // The serial number tells CAs of one machine apart.
  const name = [{ name: 'commonName', value: `symport ${hostname().slice(0, 40)} ${ca.serialNumber.slice(0, 8)}` }]
  ca.setSubject(name)
  ca.setIssuer(name)
  ca.setExtensions([
    { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ])
  ca.sign(privateKey, forge.md.sha256.create())
  return pem(forge, ca)
}

async function issue(authority: Authority, keyPem: string, names: readonly string[]): Promise<string> {
  const forge = await loadForge()
  const now = Date.now()
  const ca = forge.pki.certificateFromPem(authority.certificate.toString())
  const signer = forge.pki.privateKeyFromPem(String(authority.key.export({ type: 'pkcs8', format: 'pem' })))
  const own = forge.pki.privateKeyFromPem(keyPem)
  const publicKey = forge.pki.publicKeyToPem(forge.pki.setRsaPublicKey(own.n, own.e))
  const end = Math.min(now + SERVER_DAYS * DAY, Date.parse(authority.certificate.validTo))
  const leaf = blank(forge, publicKey, now - EARLIER, end)
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
  leaf.sign(signer, forge.md.sha256.create())
  return pem(forge, leaf)
}

function pem(forge: Forge, certificate: ForgeCertificate): string {
  return forge.pki.certificateToPem(certificate).replaceAll('\r\n', '\n')
}

function firstName({ subjectAltName, subject }: X509Certificate): string {
  const name = /(?:^|, )(?:DNS|IP Address):([^,]+)/.exec(subjectAltName ?? '') ?? /^CN=(.+)$/m.exec(subject ?? '')
  return name?.[1] ?? 'unnamed'
}

function daysLeft(certificate: X509Certificate): number {
  return (Date.parse(certificate.validTo) - Date.now()) / DAY
}

function fingerprintOf(certificate: X509Certificate): string {
  return `sha256:${certificate.fingerprint256.replaceAll(':', '').toLowerCase()}`
}

function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
