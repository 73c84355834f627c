/**
 * Things that come and go all the time. What is added gets a number, by which it is removed. A `Set` would keep alive what
 * has left it long ago; see `IdTable`.
 */
export class Slab<T extends object> implements Iterable<T> {
  readonly #places: (T | undefined)[] = []
  readonly #free: number[] = []

  get size(): number {
    return this.#places.length - this.#free.length
  }

  /** Answers its place. */
  add(value: T): number {
    const place = this.#free.pop() ?? this.#places.length
    this.#places[place] = value
    return place
  }

  /** Once for each that was added. */
  remove(place: number): void {
    this.#places[place] = undefined
    this.#free.push(place)
  }

  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (const value of this.#places) if (value !== undefined) yield value
  }
}
