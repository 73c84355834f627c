/**
 * Flow control: what a peer may have on its way to us. Each sub-connection has a window, the bytes that were granted and
 * not yet written on; a pool per session holds what all windows together may take above their floors.
 */
export const WINDOW_FLOOR = 4096
/** Before `opened` each sub-connection may carry this much. */
export const EARLY_WINDOW = 16_384
const POOL = 64 * 1024 * 1024
const FIRST_WINDOW = 256 * 1024
/** First windows share this, so that many idle sub-connections leave room for a few busy ones to grow. */
const FIRST_WINDOWS = 4 * 1024 * 1024
/** A window never grows to cover less than this many ms: below it the turns of the event loop are the distance. */
const SHORTEST_TRIP = 1

export class WindowPool {
  #used = 0

  get free(): number {
    return POOL - this.#used
  }

  /** The window of a new sub-connection when `count` others are there. */
  first(count: number): number {
    const share = Math.floor(FIRST_WINDOWS / (count + 1))
    return this.take(Math.max(WINDOW_FLOOR, Math.min(FIRST_WINDOW, share, this.free / 2)))
  }

  take(window: number): number {
    const whole = Math.floor(window)
    this.#used += whole - WINDOW_FLOOR
    return whole
  }

  give(window: number): void {
    this.#used -= window - WINDOW_FLOOR
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
    return this.#received <= Math.max(this.#granted, this.#early)
  }

  /**
   * `held` of the bytes that came have not been written on. Answers the credit to send, 0 while it is not worth a frame.
   * A window that was used up within two round trips was what held the peer back: it doubles.
   */
  release(held: number, rtt: number | undefined): number {
    const consumed = this.#received - held
    const due = consumed + this.#size - this.#granted
    if (due < Math.min(this.#size / 2, FIRST_WINDOW)) return 0
    if (consumed - this.#mark >= this.#size) {
      const now = performance.now()
      if (now - this.#since < 2 * Math.max(rtt ?? 0, SHORTEST_TRIP)) this.#grow()
      this.#since = now
      this.#mark = consumed
    }
    const credit = consumed + this.#size - this.#granted
    this.#granted += credit
    return credit
  }

  #grow(): void {
    // Never beyond half of what is free, so that one slow reader cannot take the pool.
    const more = Math.floor(Math.min(this.#size, this.#pool.free / 2))
    if (more <= 0) return
    this.#pool.give(this.#size)
    this.#size = this.#pool.take(this.#size + more)
  }

  dispose(): void {
    this.#pool.give(this.#size)
  }
}
