import { ProxyError } from '../core/errors.ts'
import { customerOf, ipOf, isLoopback, NetSet } from '../sockets/ip.ts'

/** Time between two tries of a pair that failed once, in ms; doubled with every failure. */
const FIRST_DELAY = 250
/** More would not fit twice into the 10 s of a handshake. */
const LONGEST_DELAY = 4000
/** Tries of one pair that wait at once. */
const MAX_WAITING = 8
/** A pair is forgotten so long after its last failure, in ms. */
const FORGET_AFTER = 600_000
const MAX_PAIRS = 10_000

export interface AdmissionOptions {
  /** Handshakes under way at once from one address. Default 64. */
  perAddress?: number | undefined
  /** Addresses and CIDRs of proxies: they stand for many, and are not limited. Default none. */
  trusted?: readonly string[] | undefined
  /** A clock in ms that never goes back. Default `performance.now`. */
  now?: (() => number) | undefined
}

/** One link, from when it came in to the end of the session that it may have brought. */
export interface Visit {
  /**
   * Resolves when a try with this credential may go on.
   *
   * @throws ProxyError PROXY_ERR_TOO_MANY_FAILURES, retryable, if 8 wait already; PROXY_ERR_ABORTED after `leave`
   */
  attempt(credential: string): Promise<void>
  /** The secret was wrong: the pair is slower from now on. Nothing if the last attempt has not been let through. */
  failed(): void
  /** Forgets the pair's failures. Until `ended` the address has a live session, and nobody there waits. */
  succeeded(): void
  /** The handshake is over, whatever came of it. */
  leave(): void
  /** The session is over. */
  ended(): void
}

/**
 * Limits before authentication, for each address: handshakes at once, and a delay between its tries of a credential once
 * that pair has failed. An IPv6 address counts by its /64, which is what one customer has. Loopback, trusted proxies and
 * what has no IP address are not limited; an address with a live session is not slowed.
 */
export class Admission {
  readonly #perAddress: number
  readonly #trusted: NetSet
  readonly #now: () => number
  readonly #handshakes = new Map<string, number>()
  readonly #sessions = new Map<string, number>()
  /** By address and credential; the pair whose last failure is the oldest comes first. */
  readonly #pairs = new Map<string, Pair>()
  /** The pairs that somebody waits for, with their addresses. */
  readonly #held = new Map<Pair, string>()

  /** @throws ProxyError PROXY_ERR_PATTERN if something in `trusted` is neither an address nor a CIDR */
  constructor(options: AdmissionOptions = {}) {
    this.#perAddress = options.perAddress ?? 64
    this.#trusted = new NetSet(options.trusted ?? [])
    this.#now = options.now ?? (() => performance.now())
  }

  /**
   * A link came in; `remote` as in `Link.remote`.
   *
   * @throws ProxyError PROXY_ERR_TOO_MANY_HANDSHAKES, retryable
   */
  enter(remote: string | undefined): Visit {
    const ip = ipOf(remote)
    if (!ip || isLoopback(ip) || this.#trusted.has(ip)) return UNLIMITED
    const address = customerOf(ip)
    if ((this.#handshakes.get(address) ?? 0) >= this.#perAddress) {
      const message = `${this.#perAddress} handshakes are under way from this address`
      throw new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', message, { retryable: true })
    }
    count(this.#handshakes, address, 1)
    const left = new AbortController()
    let tried: string | undefined
    let live = false
    return {
      attempt: async (credential) => {
        const key = `${address} ${credential}`
        tried = undefined
        if (left.signal.aborted) throw gone()
        if (!this.#sessions.has(address)) await this.#turn(address, key, left.signal)
        tried = key
      },
      failed: () => {
        if (tried !== undefined) this.#fail(tried)
        tried = undefined
      },
      succeeded: () => {
        if (live) return
        live = true
        count(this.#sessions, address, 1)
        for (const [pair, from] of this.#held) if (from === address) pair.release()
        if (tried !== undefined) this.#pairs.delete(tried)
        tried = undefined
      },
      leave: () => {
        if (!left.signal.aborted) count(this.#handshakes, address, -1)
        left.abort()
      },
      ended: () => {
        if (live) count(this.#sessions, address, -1)
        live = false
      },
    }
  }

  async #turn(address: string, key: string, signal: AbortSignal): Promise<void> {
    const pair = this.#pair(key)
    if (!pair) return
    this.#held.set(pair, address)
    try {
      await pair.turn(signal)
    } finally {
      if (pair.waiting === 0) this.#held.delete(pair)
    }
  }

  #pair(key: string): Pair | undefined {
    const pair = this.#pairs.get(key)
    return pair?.stale ? undefined : pair
  }

  #fail(key: string): void {
    const pair = this.#pair(key) ?? new Pair(this.#now)
    pair.fail()
    this.#pairs.delete(key)
    this.#pairs.set(key, pair)
    for (const [oldest, { stale, waiting }] of this.#pairs) {
      if (!stale && this.#pairs.size <= MAX_PAIRS) break
      if (waiting === 0) this.#pairs.delete(oldest)
    }
  }
}

/** An address and a credential that it failed with, and the tries that wait for their turn. */
class Pair {
  readonly #now: () => number
  /** In the order in which they came. */
  readonly #queue = new Set<() => void>()
  #delay = FIRST_DELAY / 2
  #failedAt = 0
  #next = 0
  #timer: NodeJS.Timeout | undefined

  constructor(now: () => number) {
    this.#now = now
  }

  get waiting(): number {
    return this.#queue.size
  }

  /** Long enough without a failure to be forgotten. By then nobody waits any more. */
  get stale(): boolean {
    return this.#now() - this.#failedAt >= FORGET_AFTER
  }

  fail(): void {
    this.#delay = Math.min(LONGEST_DELAY, this.#delay * 2)
    this.#failedAt = this.#now()
    this.#next = this.#failedAt + this.#delay
  }

  async turn(signal: AbortSignal): Promise<void> {
    if (this.waiting >= MAX_WAITING) {
      const message = `${MAX_WAITING} tries of this address and credential wait already`
      throw new ProxyError('PROXY_ERR_TOO_MANY_FAILURES', message, { retryable: true })
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        signal.removeEventListener('abort', giveUp)
        this.#queue.delete(go)
        if (this.waiting === 0) clearTimeout(this.#timer)
      }
      const go = (): void => {
        settle()
        resolve()
      }
      const giveUp = (): void => {
        settle()
        reject(gone())
      }
      signal.addEventListener('abort', giveUp)
      this.#queue.add(go)
      this.#advance()
    })
  }

  /** Nobody waits any longer. */
  release(): void {
    for (const go of this.#queue) go()
  }

  /** Counts from when a try was let through: one that then says nothing shall not hold up the others. */
  #advance(): void {
    clearTimeout(this.#timer)
    const wait = this.#next - this.#now()
    const [first] = this.#queue
    if (wait <= 0 && first) {
      this.#next = this.#now() + this.#delay
      first()
    }
    if (this.waiting > 0) this.#timer = setTimeout(() => this.#advance(), Math.ceil(this.#next - this.#now()))
  }
}

const UNLIMITED: Visit = { attempt: async () => {}, failed() {}, succeeded() {}, leave() {}, ended() {} }

function count(counts: Map<string, number>, key: string, change: 1 | -1): void {
  const now = (counts.get(key) ?? 0) + change
  if (now === 0) counts.delete(key)
  else counts.set(key, now)
}

function gone(): ProxyError {
  return new ProxyError('PROXY_ERR_ABORTED', 'the handshake was given up')
}
