/** So many do something at once; the others wait for their turn, in order. */
export class Turns {
  readonly #atOnce: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  /** Those that wait. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Does it when it is its turn, and answers what comes of it. */
  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#atOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#running++
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      // The place is handed on.
      if (next) next()
      else this.#running--
    }
  }
}
