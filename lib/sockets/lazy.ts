/** What is made when it is first asked for, and then kept. If that fails, the next who asks has it tried again. */
export class Lazy<T> {
  readonly #make: () => Promise<T>
  #made: Promise<T> | undefined

  constructor(make: () => Promise<T>) {
    this.#make = make
  }

  get(): Promise<T> {
    if (this.#made) return this.#made
    const made = this.#make()
    this.#made = made
    made.catch(() => {
      if (this.#made === made) this.#made = undefined
    })
    return made
  }

  /** Something is to be done with it if there is one, or will be; as when it is to be closed. */
  ifMade(use: (made: T) => void): void {
    this.#made?.then(use).catch(() => {})
  }

  /** The next who asks gets a new one. */
  forget(): void {
    this.#made = undefined
  }
}
