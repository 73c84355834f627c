/**
 * How fast bytes may go. What is taken may go later than now, and nothing goes that was not taken: so many short
 * connections are no faster together than one long one.
 */
export interface Throttle {
  /** Bytes that are taken at once, at most: whoever shares it has a turn in between. */
  readonly turn: number
  /** Takes bytes, behind all that was taken before. Answers in how many ms they may go; 0 is now. */
  take(bytes: number): number
  /** Bytes that were taken and did not go. */
  giveBack(bytes: number): void
  /**
   * Those that it is made of. Whoever waits takes from one after the other: what waits for its turn at a slow one must not
   * keep others waiting at the next.
   */
  readonly parts?: readonly Throttle[] | undefined
}

/** How fast a sub-connection may be, each way; without an end to it where there is none. */
export interface Throttles {
  readonly sent?: Throttle | undefined
  readonly received?: Throttle | undefined
}

/** What a timer can wait at most, in ms. */
const LONGEST_WAIT = 2_147_483_647

/** The turns of one direction of one sub-connection at its throttle. */
export class Pace {
  readonly #throttle: Throttle
  readonly #onTurn: () => void
  /** Bytes that may go now, and those that may when the timer is over. */
  #ready = 0
  #coming = 0
  /** Which part of the throttle the timer is for. */
  #part = 0
  #timer: NodeJS.Timeout | undefined

  /** `onTurn` is called when bytes may go that had to wait. */
  constructor(throttle: Throttle, onTurn: () => void) {
    this.#throttle = throttle
    this.#onTurn = onTurn
  }

  /** Nothing may go before its turn comes. */
  get waits(): boolean {
    return this.#ready === 0 && this.#timer !== undefined
  }

  /** How many of so many bytes may go now. If not all, the rest has its turn later. */
  room(bytes: number): number {
    while (this.#ready < bytes && this.#timer === undefined) {
      this.#coming = Math.min(bytes - this.#ready, this.#throttle.turn)
      this.#take(0)
    }
    return Math.min(bytes, this.#ready)
  }

  /** What is coming has its turn at this part of the throttle, and then at the next. */
  #take(part: number): void {
    const { parts = [this.#throttle] } = this.#throttle
    for (let at = part; at < parts.length; at++) {
      const wait = parts[at]?.take(this.#coming) ?? 0
      if (wait <= 0) continue
      this.#part = at
      this.#timer = setTimeout(this.#begin, Math.min(wait, LONGEST_WAIT))
      return
    }
    this.#ready += this.#coming
    this.#coming = 0
  }

  /** So many of those for which there was room have gone. */
  went(bytes: number): void {
    this.#ready -= bytes
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const { parts = [this.#throttle] } = this.#throttle
    for (const [at, part] of parts.entries()) {
      const unused = this.#ready + (at <= this.#part ? this.#coming : 0)
      if (unused > 0) part.giveBack(unused)
    }
    this.#ready = 0
    this.#coming = 0
  }

  readonly #begin = (): void => {
    this.#timer = undefined
    this.#take(this.#part + 1)
    if (this.#timer === undefined) this.#onTurn()
  }
}
