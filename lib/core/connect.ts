import { generateKeyPairSync, type KeyObject, randomBytes, scrypt } from 'node:crypto'
import type { Abortable } from './domain.ts'
import { ProxyError } from './errors.ts'
import {
  type AcceptorKeys,
  acceptHandshake,
  type Credential,
  dialHandshake,
  type Established,
  HANDSHAKE_TIMEOUT,
  keyHandshake,
  type ResumeRequest,
  type Role,
  refuse,
  withDeadline,
} from './handshake.ts'
import { type Limits, limitsOf } from './limits.ts'
import type { Link } from './link.ts'
import { MainConnection, type MainOptions, type Redial } from './main-connection.ts'
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
  /**
   * When the peer knows the session no more, as after a restart of it, the old main connection ends, and the link that
   * was dialled to go on with it carries this one. Without a callback it is closed: connect again.
   */
  onRenewed?: ((main: MainConnection) => void) | undefined
  /** A try to go on has failed for this reason; the next one follows in `delay` ms. */
  onRetry?: ((reason: ProxyError, delay: number) => void) | undefined
}

/**
 * Dials a link and makes a main connection on it. One try: whoever wants another calls again. Once it stands, it finds
 * further links by itself, by `dial`, for as long as `resumeTimeout` lasts each time.
 */
export async function connect(
  dial: (options: Abortable) => Promise<Link>,
  options: ConnectOptions,
): Promise<MainConnection> {
  const { secret, timeout, onRenewed, onRetry } = options
  const limits = limitsOf(options.limits)
  if (typeof secret === 'string') assertSecret(secret)
  // Under way while the link is dialled.
  const credential = Promise.resolve(typeof secret === 'string' ? deriveCredential(secret, options.id) : secret)
  credential.catch(() => {})

  const establish = async <T>(
    resume: ResumeRequest | undefined,
    signal: AbortSignal | undefined,
    run: (established: Established) => Promise<T>,
  ): Promise<T> => {
    const link = await dialWithin(dial, timeout ?? HANDSHAKE_TIMEOUT, signal)
    return await withDeadline(link, { signal, timeout }, async (reader) =>
      run(await dialHandshake(link, reader, await credential, limits, resume)),
    )
  }
  const redial: Redial = { again: establish, onRenewed, onRetry }
  return await establish(undefined, options.signal, (established) => MainConnection.start(established, options, redial))
}

/** Dials; whatever `dial` itself makes of the signal, this is over after `timeout` ms. */
async function dialWithin(
  dial: (options: Abortable) => Promise<Link>,
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<Link> {
  const giveUp = new AbortController()
  const abort = (): void =>
    giveUp.abort(new ProxyError('PROXY_ERR_ABORTED', 'the dial was given up', { cause: signal?.reason }))
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()
  const timer = setTimeout(() => {
    giveUp.abort(new ProxyError('PROXY_ERR_DIAL_FAILED', 'no answer to the dial in time', { retryable: true }))
  }, timeout)
  try {
    return await new Promise((resolve, reject) => {
      const late = (): void => reject(giveUp.signal.reason)
      giveUp.signal.addEventListener('abort', late)
      if (giveUp.signal.aborted) late()
      dial({ signal: giveUp.signal }).then((link) => {
        if (giveUp.signal.aborted) link.destroy()
        resolve(link)
      }, reject)
    })
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
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
  /**
   * The psk of a credential, if there is one of this name that runs this suite. Never costly: it is asked by strangers.
   * To let one of them wait, it may take its time; a rejection refuses the link.
   */
  pskFor(name: string, suite: Suite, link: Link): Promise<Uint8Array | undefined>
  /** The private X25519 key whose public half is in the tokens. Without one, tokens are refused. */
  staticKey?: KeyObject | undefined
  /** How long a handshake may take, in ms. Default 10,000. */
  timeout?: number | undefined
  /**
   * Handshakes under way at once. One more takes the place of the oldest, of those first that have shown no secret yet; that
   * one ends with PROXY_ERR_TOO_MANY_HANDSHAKES. Default 1,024.
   */
  maxHandshakes?: number | undefined
  /**
   * Main connections at once, those without a link included; one beyond that is closed with PROXY_ERR_TOO_MANY_SESSIONS.
   * Default 4,096.
   */
  maxSessions?: number | undefined
}

interface Handshake {
  readonly link: Link
  /** The dialler has not shown yet that it knows a secret, or has seen one used. */
  silent: boolean
  /** It had to make room for another one. */
  givenUp?: ProxyError
}

/** The accepting side of many main connections. */
export class Acceptor {
  readonly #options: AcceptorOptions
  readonly #limits: Limits
  readonly #staticKey: KeyObject
  /** Stands for every credential that does not exist: same cost, same answer as a wrong secret. */
  readonly #nobody = randomBytes(32)
  /** The sessions that live, with a link or waiting for one, by their names in hex. */
  readonly #sessions = new Map<string, { readonly main: MainConnection; readonly secret: Buffer }>()
  /** Those under way, oldest first. */
  readonly #handshakes = new Set<Handshake>()

  constructor(options: AcceptorOptions) {
    this.#options = options
    this.#limits = limitsOf(options.limits)
    this.#staticKey = options.staticKey ?? generateKeyPairSync('x25519').privateKey
  }

  /**
   * Resolves when the dialler has proven itself: with a new main connection, or with the one that goes on over this link.
   * Rejects, with the link closed, when it has not.
   */
  async accept(link: Link, options: Abortable = {}): Promise<{ main: MainConnection; resumed: boolean }> {
    const handshake: Handshake = { link, silent: true }
    this.#makeRoom()
    this.#handshakes.add(handshake)
    try {
      return await withDeadline(
        link,
        { ...options, timeout: this.#options.timeout },
        async (reader) => {
          const established = await acceptHandshake(link, reader, this.#keysFor(link))
          handshake.silent = false
          return await this.#start(established)
        },
        (_link, reader, error) => {
          if (error.code === 'PROXY_ERR_STALE_EPOCH') link.destroy()
          else if (handshake.silent) refuse(link, reader)
        },
      )
    } catch (error) {
      throw handshake.givenUp ?? error
    } finally {
      this.#handshakes.delete(handshake)
    }
  }

  #makeRoom(): void {
    if (this.#handshakes.size < (this.#options.maxHandshakes ?? 1024)) return
    const [oldest] = this.#handshakes
    let chosen = oldest
    for (const handshake of this.#handshakes) {
      if (!handshake.silent) continue
      chosen = handshake
      break
    }
    if (!chosen) return
    this.#handshakes.delete(chosen)
    chosen.givenUp = new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', 'too many handshakes at once', { retryable: true })
    chosen.link.destroy(chosen.givenUp)
  }

  #keysFor(link: Link): AcceptorKeys {
    return {
      staticKey: this.#staticKey,
      limits: this.#limits,
      pskFor: async (name, suite) => (await this.#options.pskFor(name, suite, link)) ?? this.#nobody,
      find: (session, credential) => {
        const known = this.#sessions.get(session.toString('hex'))
        if (known?.main.peer.credential !== credential) return undefined
        return { epoch: known.main.epoch, secret: known.secret }
      },
    }
  }

  async #start(established: Established): Promise<{ main: MainConnection; resumed: boolean }> {
    const name = established.session.toString('hex')
    if (established.resumed) {
      const main = this.#sessions.get(name)?.main
      if (!main) throw new ProxyError('PROXY_ERR_STALE_EPOCH', 'the session has ended meanwhile')
      await main.takeOver(established)
      return { main, resumed: true }
    }
    const main = await MainConnection.start(established, this.#options)
    if (this.#sessions.size >= (this.#options.maxSessions ?? 4096)) {
      const full = new ProxyError('PROXY_ERR_TOO_MANY_SESSIONS', 'the server is full', { retryable: true })
      main.close(full)
      throw full
    }
    const secret = established.resumeSecret
    this.#sessions.set(name, { main, secret: secret ?? Buffer.alloc(0) })
    void main.closed.then(() => this.#sessions.delete(name))
    return { main, resumed: false }
  }
}
