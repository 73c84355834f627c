import { Budget, LIMITS } from './limits.ts'

/**
 * Flow control: what a peer may have on its way to us. Each sub-connection has a window, the bytes that were granted and
 * not yet written on; a pool per session holds what all windows together may take above their floors.
 */
export const WINDOW_FLOOR = 4096
/** Before `opened` each sub-connection may carry this much. */
export const EARLY_WINDOW = 16_384
const FIRST_WINDOW = 256 * 1024
/** However large a window is, the peer hears of this much. */
const CREDIT_AT_MOST = 1024 * 1024
/** First windows share this, so that many idle sub-connections leave room for a few busy ones to grow. */
const FIRST_WINDOWS = 4 * 1024 * 1024
/**
 * A window that was used up within so many round trips doubles; one that took so many is halved, but not below. The rest of
 * the way has delays of its own (acknowledgements held back, turns of event loops): one round trip is never the whole story.
 */
const GROW_WITHIN = 3
const SHRINK_BEYOND = 8
const LEAST_GROWN = 65_536
/** Whoever uses a window up within so many ms is busy: among the busy ones windows become alike, so that shares do. */
const BUSY = 1000
/** A window never grows to cover less than this many ms: below it the turns of the event loop are the distance. */
const SHORTEST_TRIP = 0.5

/** What all sub-connections of a session may have sent early, beyond windows that turned out smaller. */
const EARLY_POOL = 1024 * EARLY_WINDOW

export class WindowPool {
  readonly #bytes: number
  readonly #budget: Budget
  #used = 0
  #typical: number | undefined
  /** Bytes that came beyond windows, because they were sent before their windows were known. */
  early = 0

  /** `bytes`: what its windows may take above their floors. */
  constructor(bytes: number = LIMITS.windowBytes, budget: Budget = new Budget()) {
    this.#bytes = bytes
    this.#budget = budget
  }

  /** What windows may still take above their floors: here, and in the budget of all. */
  get free(): number {
    return Math.max(0, Math.min(this.#bytes - this.#used, this.#budget.free))
  }

  /** The window of a new sub-connection when `count` others are there. */
  first(count: number): number {
    const share = Math.floor(FIRST_WINDOWS / (count + 1))
    const window = Math.max(WINDOW_FLOOR, Math.floor(Math.min(FIRST_WINDOW, share, this.free / 2)))
    this.#use(window - WINDOW_FLOOR)
    return window
  }

  /** A window of this size has just been used up. Answers what those that are used up measure on average. */
  note(size: number): number {
    this.#typical = this.#typical === undefined ? size : this.#typical + (size - this.#typical) / 16
    return this.#typical
  }

  /** How much a window of `size` grows: it doubles, but not beyond half of what would be free without it. */
  grow(size: number): number {
    const more = Math.max(0, Math.floor(Math.min(size, (this.free - (size - WINDOW_FLOOR)) / 2)))
    this.#use(more)
    return more
  }

  give(window: number): void {
    this.#use(WINDOW_FLOOR - window)
  }

  #use(bytes: number): void {
    this.#used += bytes
    this.#budget.use(bytes)
  }
}

/** The receiving side of one sub-connection's flow control. All figures count bytes since its beginning. */
export class ReceiveWindow {
  readonly #pool: WindowPool
  #size: number
  #granted: number
  #received = 0
  #since = 0
  #mark = 0
  #beyond = 0

  /** What the peer was allowed before it heard of a window: it may have been used by then. */
  readonly #early: number

  constructor(pool: WindowPool, size: number, early: number) {
    this.#pool = pool
    this.#size = size
    this.#granted = size
    this.#early = early
  }

  get size(): number {
    return this.#size
  }

  get received(): number {
    return this.#received
  }

  /** Counts bytes that came. Answers false if they are more than was granted. */
  accept(length: number): boolean {
    this.#received += length
    if (this.#received <= this.#granted && this.#beyond === 0) return true
    this.#account()
    return this.#received <= Math.max(this.#granted, this.#early) && this.#pool.early <= EARLY_POOL
  }

  #account(): void {
    const beyond = Math.max(0, this.#received - this.#granted)
    this.#pool.early += beyond - this.#beyond
    this.#beyond = beyond
  }

  /**
   * `held` of the bytes that came have not been written on. Answers the credit to send, 0 while it is not worth a frame.
   * A window that was used up within a few round trips was what held the peer back: it doubles.
   */
  release(held: number, rtt: number | undefined): number {
    const consumed = this.#received - held
    const due = consumed + this.#size - this.#granted
    if (due < Math.min(this.#size / 2, CREDIT_AT_MOST)) return 0
    if (consumed - this.#mark >= this.#size) {
      const now = performance.now()
      const elapsed = now - this.#since
      const trips = elapsed / Math.max(rtt ?? 0, SHORTEST_TRIP)
      const typical = this.#pool.note(this.#size)
      if (trips < GROW_WITHIN || (this.#size < typical / 2 && elapsed < BUSY)) this.#size += this.#pool.grow(this.#size)
      else if (trips > SHRINK_BEYOND || this.#size > typical * 2) this.#shrink()
      this.#since = now
      this.#mark = consumed
    }
    const credit = consumed + this.#size - this.#granted
    // What was granted stays granted: a window that has just been halved gives nothing for a while.
    if (credit <= 0) return 0
    this.#granted += credit
    if (this.#beyond > 0) this.#account()
    return credit
  }

  /** What a window has beyond the need only waits in queues, and others wait behind it. */
  #shrink(): void {
    const size = Math.max(Math.floor(this.#size / 2), Math.min(this.#size, LEAST_GROWN))
    this.#pool.give(this.#size - size + WINDOW_FLOOR)
    this.#size = size
  }

  dispose(): void {
    this.#pool.give(this.#size)
    this.#pool.early -= this.#beyond
    this.#beyond = 0
  }
}
