import { generateKeyPairSync, type KeyObject, randomBytes, scrypt } from 'node:crypto'
import type { Abortable } from './domain.ts'
import { ProxyError } from './errors.ts'
import { acceptHandshake, type Credential, dialHandshake, keyHandshake, refuse, withDeadline } from './handshake.ts'
import type { Link } from './link.ts'
import { MainConnection, type MainOptions, type Role } from './main-connection.ts'
import { type Suite, x25519PublicKey } from './noise.ts'
import { readToken } from './token.ts'

/** RFC 7914. 32 MiB for some tens of ms: what a guess costs whoever recorded a handshake with a chosen secret. */
const SCRYPT = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }

/**
 * The 32 bytes that stand for a secret, computed off the event loop. They depend on suite and name, so that one secret
 * used in two places gives two.
 */
export function derivePsk(secret: string, name: string, suite: Suite): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(secret, `Noise_${suite}_25519_AESGCM_SHA256${name}`, 32, SCRYPT, (error, psk) => {
      if (error) reject(error)
      else resolve(psk)
    })
  })
}

/** The suite that a secret runs: a token brings the server's key along, a chosen secret does not. */
export function suiteOf(secret: string): Suite {
  return readToken(secret) ? 'NKpsk0' : 'NNpsk0'
}

/** @throws ProxyError PROXY_ERR_SECRET */
export function assertSecret(secret: string): void {
  if (secret === '') throw new ProxyError('PROXY_ERR_SECRET', 'the secret is empty')
}

/** Prepares a secret for `connect`. Do it once, not per connection: it is made to be slow. */
export async function deriveCredential(secret: string, id = ''): Promise<Credential> {
  assertSecret(secret)
  const token = readToken(secret)
  const suite = suiteOf(secret)
  const psk = await derivePsk(secret, id, suite)
  return { name: id, suite, psk, serverKey: token && x25519PublicKey(token.publicKey) }
}

export interface ConnectOptions extends Abortable, MainOptions {
  /** The credential's name; empty for a shared secret. Default: empty. */
  id?: string
  /** A token, a secret that a person chose, or what `deriveCredential` made of either. */
  secret: string | Credential | Promise<Credential>
  /** How long dialling and the handshake may each take, in ms. Default 10,000. */
  timeout?: number
}

/** Dials a link and makes a main connection on it. One try: whoever wants another calls again. */
export async function connect(
  dial: (options: Abortable) => Promise<Link>,
  options: ConnectOptions,
): Promise<MainConnection> {
  const { secret } = options
  if (typeof secret === 'string') assertSecret(secret)
  // Under way while the link is dialled.
  const credential = Promise.resolve(typeof secret === 'string' ? deriveCredential(secret, options.id) : secret)
  credential.catch(() => {})
  const link = await dial({ signal: options.signal })
  return await withDeadline(link, options, async (reader) =>
    MainConnection.start(await dialHandshake(link, reader, await credential), options),
  )
}

export interface KeyOptions extends Abortable, MainOptions {
  /** 16 bytes that both ends share, and nobody else. */
  key: Uint8Array
  /** One end is the dialler, the other the acceptor; which is which does not matter otherwise. */
  role: Role
  timeout?: number
}

/** For those who authenticate by themselves: a link both ends trust to be theirs, and an AES-128 key. */
export async function connectWithKey(link: Link, options: KeyOptions): Promise<MainConnection> {
  return await withDeadline(link, options, async (reader) =>
    MainConnection.start(await keyHandshake(link, reader, options.key, options.role), options),
  )
}

export interface AcceptorOptions extends MainOptions {
  /** The psk of a credential, if there is one of this name that runs this suite. Never slow: it is asked by strangers. */
  pskFor(name: string, suite: Suite): Promise<Uint8Array | undefined>
  /** The private X25519 key whose public half is in the tokens. Without one, tokens are refused. */
  staticKey?: KeyObject | undefined
  /** How long a handshake may take, in ms. Default 10,000. */
  timeout?: number | undefined
  /** Handshakes under way at once; a link beyond that is closed. Default 1,024. */
  maxHandshakes?: number | undefined
  /** Main connections at once; one beyond that is closed with PROXY_ERR_TOO_MANY_SESSIONS. Default 4,096. */
  maxSessions?: number | undefined
}

/** The accepting side of many main connections. */
export class Acceptor {
  readonly #options: AcceptorOptions
  readonly #staticKey: KeyObject
  /** Stands for every credential that does not exist: same cost, same answer as a wrong secret. */
  readonly #nobody = randomBytes(32)
  #handshakes = 0
  #sessions = 0

  constructor(options: AcceptorOptions) {
    this.#options = options
    this.#staticKey = options.staticKey ?? generateKeyPairSync('x25519').privateKey
  }

  /** Resolves when the dialler has proven itself. Rejects, with the link closed, when it has not. */
  async accept(link: Link, options: Abortable = {}): Promise<{ main: MainConnection; resumed: boolean }> {
    if (this.#handshakes >= (this.#options.maxHandshakes ?? 1024)) {
      link.destroy()
      throw new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', 'too many handshakes at once', { retryable: true })
    }
    this.#handshakes++
    try {
      const keys = {
        staticKey: this.#staticKey,
        pskFor: async (name: string, suite: Suite) => (await this.#options.pskFor(name, suite)) ?? this.#nobody,
      }
      const main = await withDeadline(
        link,
        { ...options, timeout: this.#options.timeout },
        async (reader) => MainConnection.start(await acceptHandshake(link, reader, keys), this.#options),
        refuse,
      )
      if (this.#sessions >= (this.#options.maxSessions ?? 4096)) {
        const full = new ProxyError('PROXY_ERR_TOO_MANY_SESSIONS', 'the server is full', { retryable: true })
        main.close(full)
        throw full
      }
      this.#sessions++
      void main.closed.then(() => this.#sessions--)
      return { main, resumed: false }
    } finally {
      this.#handshakes--
    }
  }
}
