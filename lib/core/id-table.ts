import { randomBytes } from 'node:crypto'

const SMALLEST = 16

/**
 * Values by id, for ids that come and go all the time (u32, never 0). In a `Map` they outlive their end: V8 gives a `Map` a
 * new table now and then, the old table points at the new one, and as soon as one of them has grown old, all that was in
 * any of them when it was given up stays until the next full collection.
 */
export class IdTable<T extends object> {
  /** 0 is an empty place. */
  #ids = new Uint32Array(SMALLEST)
  #values: (T | undefined)[] = new Array(SMALLEST).fill(undefined)
  #shift = 32 - Math.log2(SMALLEST)
  #size = 0
  /** Nobody who chooses ids can know which of them collide. */
  readonly #factor = randomBytes(4).readUInt32LE() | 1

  get size(): number {
    return this.#size
  }

  get(id: number): T | undefined {
    return this.#values[this.#find(id)]
  }

  has(id: number): boolean {
    return this.get(id) !== undefined
  }

  set(id: number, value: T): void {
    if (this.#size * 2 >= this.#ids.length) this.#grow()
    const at = this.#find(id)
    if (this.#ids[at] === 0) this.#size++
    this.#ids[at] = id
    this.#values[at] = value
  }

  /** Answers whether it was there. */
  delete(id: number): boolean {
    const ids = this.#ids
    const mask = ids.length - 1
    let hole = this.#find(id)
    if (ids[hole] === 0) return false
    this.#size--
    // Whoever stands behind it and would rather stand in its place moves up (Knuth, vol. 3, 6.4, algorithm R).
    for (let at = (hole + 1) & mask; ids[at] !== 0; at = (at + 1) & mask) {
      const home = this.#home(ids[at] ?? 0)
      if (((at - home) & mask) < ((at - hole) & mask)) continue
      ids[hole] = ids[at] ?? 0
      this.#values[hole] = this.#values[at]
      hole = at
    }
    ids[hole] = 0
    this.#values[hole] = undefined
    return true
  }

  /** All of them, in no order. Those that come or go meanwhile change nothing. */
  values(): T[] {
    return this.#values.filter((value) => value !== undefined)
  }

  #home(id: number): number {
    return Math.imul(id, this.#factor) >>> this.#shift
  }

  /** Where it stands, or would. */
  #find(id: number): number {
    const ids = this.#ids
    const mask = ids.length - 1
    let at = this.#home(id)
    while (ids[at] !== id && ids[at] !== 0) at = (at + 1) & mask
    return at
  }

  #grow(): void {
    const ids = this.#ids
    const values = this.#values
    this.#ids = new Uint32Array(ids.length * 2)
    this.#values = new Array(ids.length * 2).fill(undefined)
    this.#shift--
    ids.forEach((id, from) => {
      if (id === 0) return
      const at = this.#find(id)
      this.#ids[at] = id
      this.#values[at] = values[from]
    })
  }
}
