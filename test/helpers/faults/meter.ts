interface Mark {
  readonly offset: number
  readonly act: () => void
}

/** Counts the bytes of one direction, and knows at which of them something is to happen. */
export class Meter {
  /** Bytes that have passed. */
  total = 0
  /** In the order of their offsets. */
  #marks: Mark[] = []
  readonly #flips = new Map<number, number>()

  /** Has `passed` call `act` when exactly `offset` bytes have passed. */
  at(offset: number, act: () => void): void {
    this.#check(offset)
    this.#marks.push({ offset, act })
    // Stable: what was asked for first comes first.
    this.#marks.sort((left, right) => left.offset - right.offset)
  }

  /** Flips `bits` of the byte that has `offset` bytes before it. */
  flip(offset: number, bits: number): void {
    this.#check(offset)
    this.#flips.set(offset, (this.#flips.get(offset) ?? 0) ^ bits)
  }

  /** How many of the next `length` bytes may pass at once. */
  room(length: number): number {
    const mark = this.#marks[0]
    return mark ? Math.min(length, mark.offset - this.total) : length
  }

  /** `bytes`, no more than there is room for, are about to pass; flips in place. */
  pass(bytes: Uint8Array): void {
    if (this.#flips.size > 0) this.#flipIn(bytes)
    this.total += bytes.length
  }

  /** To be called when they have: does what stands at this place. */
  passed(): void {
    while (this.#marks[0]?.offset === this.total) this.#marks.shift()?.act()
  }

  #flipIn(bytes: Uint8Array): void {
    for (const [offset, bits] of this.#flips) {
      const index = offset - this.total
      const byte = bytes[index]
      if (byte === undefined) continue
      bytes[index] = byte ^ bits
      this.#flips.delete(offset)
    }
  }

  #check(offset: number): void {
    if (!Number.isSafeInteger(offset) || offset < this.total) {
      throw new RangeError(`offset ${offset}: ${this.total} bytes have passed already`)
    }
  }
}
