interface Entry<T> {
  readonly item: T
  readonly bytes: number
  readonly due: number
}

/** Slots of the list that are given up only when so many have been used. */
const COMPACT_AFTER = 1024

/** What is on its way, in order. Each item is let go when its time has come; one timer, however many wait. */
export class TimedQueue<T> {
  readonly #release: (item: T) => void
  #entries: (Entry<T> | undefined)[] = []
  #first = 0
  #bytes = 0
  #timer: NodeJS.Timeout | undefined

  constructor(release: (item: T) => void) {
    this.#release = release
  }

  get bytes(): number {
    return this.#bytes
  }

  get empty(): boolean {
    return this.#first === this.#entries.length
  }

  /** `due`, a time of `performance.now()`, is put off as far as that of the item before. */
  push(item: T, bytes: number, due: number): void {
    const before = this.#entries.at(-1)
    const entry = { item, bytes, due: before && !this.empty ? Math.max(due, before.due) : due }
    this.#entries.push(entry)
    this.#bytes += bytes
    if (this.#timer === undefined) this.#schedule(entry, performance.now())
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#entries = []
    this.#first = 0
    this.#bytes = 0
  }

  #schedule(next: Entry<T>, now: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#fire, Math.max(1, Math.ceil(next.due - now)))
  }

  readonly #fire = (): void => {
    const now = performance.now()
    // The timer stays set meanwhile, so that what is pushed by a release starts no second one.
    for (;;) {
      const next = this.#entries[this.#first]
      if (!next) {
        this.clear()
        return
      }
      if (next.due > now) {
        this.#compact()
        this.#schedule(next, now)
        return
      }
      this.#entries[this.#first++] = undefined
      this.#bytes -= next.bytes
      this.#release(next.item)
    }
  }

  #compact(): void {
    if (this.#first < COMPACT_AFTER) return
    this.#entries.splice(0, this.#first)
    this.#first = 0
  }
}
