import type { Throttle } from '../core/throttle.ts'

/** What may go at once after a pause, in ms of the rate: a timer that is late loses nothing. */
const BURST = 100
/** One turn, in ms of the rate, and in bytes. */
const TURN = 10
const LARGEST_TURN = 16_384
const SMALLEST_TURN = 1024
/** What sums of parts of a millisecond may be off. */
const ROUNDING = 0.001
/** At a rate so slow that even the smallest turn would be long: this many turns in a second. */
const SLOWEST = 8

export interface BucketOptions {
  /** A clock in ms that never goes back. Default `performance.now`. */
  readonly now?: (() => number) | undefined
  /** What may go at once after a pause, in ms of the rate. Default 100. */
  readonly burst?: number | undefined
}

/**
 * So much in a second, bytes or anything else, for all who take from it: who takes has its turn behind those who have
 * taken before, which shares the rate out evenly. Only one number changes, the moment at which all that was taken will
 * have gone (GCRA, ITU-T I.371).
 */
export class TokenBucket implements Throttle {
  readonly rate: number
  readonly turn: number
  readonly #now: () => number
  readonly #burst: number
  #goneAt = Number.NEGATIVE_INFINITY

  constructor(rate: number, { now = () => performance.now(), burst = BURST }: BucketOptions = {}) {
    this.rate = rate
    const smallest = Math.min(SMALLEST_TURN, Math.ceil(rate / SLOWEST))
    this.turn = Math.min(LARGEST_TURN, Math.max(smallest, Math.floor((rate * TURN) / 1000)))
    this.#now = now
    this.#burst = burst
  }

  /** Nothing is owed: a new one would be the same. */
  get idle(): boolean {
    return this.#goneAt <= this.#now()
  }

  take(amount: number): number {
    const now = this.#now()
    const goneAt = Math.max(this.#goneAt, now)
    this.#goneAt = goneAt + (amount * 1000) / this.rate
    const wait = goneAt - this.#burst - now
    // Timers know no less than a millisecond.
    return wait < 1 ? 0 : wait
  }

  giveBack(amount: number): void {
    this.#goneAt -= (amount * 1000) / this.rate
  }

  /** Whether so much could be taken and go now. */
  has(amount: number): boolean {
    const now = this.#now()
    return this.#goneAt <= now || this.#goneAt + (amount * 1000) / this.rate <= now + this.#burst + ROUNDING
  }

  /** Takes it if it may go now, and else nothing. */
  tryTake(amount: number): boolean {
    if (!this.has(amount)) return false
    this.take(amount)
    return true
  }
}

/** What has a rate, and what only counts. */
type Rated = Throttle & { readonly rate?: number | undefined }

/** Several throttles as one: nothing goes before its turn at each of them. */
export class Throttled implements Throttle {
  /** The slowest first: there it is that one waits. */
  readonly parts: readonly Throttle[]
  readonly turn: number

  /** None is no throttle, and one is itself. */
  static by(all: readonly Rated[]): Throttle | undefined {
    return all.length > 1 ? new Throttled(all) : all[0]
  }

  private constructor(all: readonly Rated[]) {
    const rateOf = ({ rate = Number.MAX_VALUE }: Rated): number => rate
    this.parts = [...all].sort((a, b) => rateOf(a) - rateOf(b))
    this.turn = Math.min(...all.map(({ turn }) => turn))
  }

  /** From all of them at once. */
  take(bytes: number): number {
    let longest = 0
    for (const part of this.parts) longest = Math.max(longest, part.take(bytes))
    return longest
  }

  giveBack(bytes: number): void {
    for (const part of this.parts) part.giveBack(bytes)
  }
}
