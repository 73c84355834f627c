import type { X509Certificate } from 'node:crypto'
import { type FSWatcher, watch } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { SecureContext } from 'node:tls'
import { ProxyError } from '../core/errors.ts'
import { fingerprintOf } from '../sockets/verify.ts'
import { certificatesIn, daysLeft, type Identity, identityOf } from './pem.ts'
import { type PrivateCaOptions, PrivateCertificates } from './private-ca.ts'
import type { StateFolder } from './state-folder.ts'

/** How often given files are looked at, in ms. */
const POLL = 10_000
/** How long files that change are left alone, in ms. */
const SETTLE = 300
const LARGEST = 1024 * 1024

export interface CertificateOptions extends PrivateCaOptions {
  /** PEM files that the operator gives: a certificate, with the chain behind it, and its key. Both or none. */
  cert?: string | undefined
  key?: string | undefined
  /** How often given files are looked at, in ms. Default 10,000. */
  poll?: number | undefined
}

/** Where the certificate of a server comes from. */
export interface Certificates {
  /** What TLS is accepted with at this moment, from somebody who asks for this name. Made when first asked for. */
  context(serverName?: string | undefined): Promise<SecureContext>
  /** Whether a given certificate is meant for this name. */
  covers(name: string): boolean
  /** Whether one, given or made, says this very name, and not only a `*` in it. */
  says(name: string): boolean
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
    says: (name) => base.says(name),
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

/** What is in files of the operator, as long as that is good. */
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

  says(name: string): boolean {
    return this.#current?.chain[0]?.checkHost(name, { wildcards: false }) !== undefined
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

function firstName({ subjectAltName, subject }: X509Certificate): string {
  const name = /(?:^|, )(?:DNS|IP Address):([^,]+)/.exec(subjectAltName ?? '') ?? /^CN=(.+)$/m.exec(subject ?? '')
  return name?.[1] ?? 'unnamed'
}

function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
