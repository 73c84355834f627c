import type { Throttle } from '../core/throttle.ts'

const TURN = 65_536
/** What is left is looked at again when half of it has gone, and more often only when there is this little of it. */
const LAST = 262_144
/** How soon one that is used up is asked about again, in ms: a month may have ended. */
const ASK_AGAIN = 250

export interface QuotaOptions {
  /** Bytes so far. Default: those that were taken here. */
  readonly used?: (() => number) | undefined
  readonly onUsedUp: () => void
  /** A clock in ms that never goes back. Default `performance.now`. */
  readonly now?: (() => number) | undefined
}

/** A number of bytes, however fast; then nothing goes any more. What has gone is counted elsewhere, and asked for rarely. */
export class QuotaMeter implements Throttle {
  readonly turn: number = TURN
  readonly #quota: number
  readonly #used: () => number
  readonly #onUsedUp: () => void
  readonly #now: () => number
  /** What may go before `used` is asked again. */
  #left = 0
  #askAgainAt = Number.NEGATIVE_INFINITY
  #taken = 0

  constructor(quota: number, { used, onUsedUp, now = () => performance.now() }: QuotaOptions) {
    this.#quota = quota
    this.#used = used ?? (() => this.#taken)
    this.#onUsedUp = onUsedUp
    this.#now = now
  }

  get usedUp(): boolean {
    if (this.#left > 0) return false
    const now = this.#now()
    if (now < this.#askAgainAt) return true
    const left = this.#quota - this.#used()
    this.#left = left > LAST ? Math.ceil(left / 2) : Math.max(0, left)
    if (this.#left === 0) this.#askAgainAt = now + ASK_AGAIN
    return this.#left === 0
  }

  take(bytes: number): number {
    const usedUp = this.usedUp
    this.#count(bytes)
    if (!usedUp) return 0
    this.#onUsedUp()
    return Number.POSITIVE_INFINITY
  }

  giveBack(bytes: number): void {
    this.#count(-bytes)
  }

  #count(bytes: number): void {
    this.#left -= bytes
    this.#taken += bytes
  }
}
