import { parseIp } from '../sockets/ip.ts'

/** Before the first answer that a token is wrong, in ms; doubled with every further one. */
const FIRST_DELAY = 250
const LONGEST_DELAY = 4000
/** Answers to one address that wait at once. */
const MOST_WAITING = 8
/** An address is forgotten so long after its last failure, in ms. */
const FORGET_AFTER = 600_000
const MOST_ADDRESSES = 10_000

interface Address {
  delay: number
  failedAt: number
  waiting: number
}

export interface TriesOptions {
  firstDelay?: number | undefined
  /** A clock in ms that never goes back. Default `performance.now`. */
  now?: (() => number) | undefined
}

/**
 * Slows those down who try tokens: each wrong one of an address is answered later than the one before, loopback as well,
 * and an IPv6 address counts by its /64. A right token never waits: nobody finds 256 bits by trying, but others at the
 * operator's address could lock the operator out.
 */
export class Tries {
  readonly #firstDelay: number
  readonly #now: () => number
  /** The one whose last failure is the oldest comes first. */
  readonly #addresses = new Map<string, Address>()

  constructor(options: TriesOptions = {}) {
    this.#firstDelay = options.firstDelay ?? FIRST_DELAY
    this.#now = options.now ?? (() => performance.now())
  }

  get size(): number {
    return this.#addresses.size
  }

  /** Resolves when a wrong token may be answered: with false if too many wait already, and then at once. */
  async failed(remote: string, signal: AbortSignal): Promise<boolean> {
    const address = this.#address(remote)
    if (address.waiting >= MOST_WAITING) return false
    address.waiting++
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, address.delay)
      signal.addEventListener('abort', done)
      if (signal.aborted) done()
    })
    address.waiting--
    return true
  }

  #address(remote: string): Address {
    const now = this.#now()
    const key = keyOf(remote)
    const known = this.#addresses.get(key)
    const fresh = known === undefined || now - known.failedAt > FORGET_AFTER
    const delay = fresh ? this.#firstDelay : Math.min(LONGEST_DELAY, known.delay * 2)
    const address = known ?? { delay, failedAt: now, waiting: 0 }
    address.delay = delay
    address.failedAt = now
    this.#addresses.delete(key)
    this.#addresses.set(key, address)
    for (const [oldest, { failedAt }] of this.#addresses) {
      if (now - failedAt <= FORGET_AFTER && this.#addresses.size <= MOST_ADDRESSES) break
      this.#addresses.delete(oldest)
    }
    return address
  }
}

function keyOf(remote: string): string {
  const ip = parseIp(remote.replace(/%.*$/s, ''))
  if (!ip) return remote
  return ip.version === 4 ? `4/${ip.value}` : `6/${ip.value >> 64n}`
}
