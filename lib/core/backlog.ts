/** Blocks of small pieces grow up to this; a piece this long stays as it is. */
const BLOCK = 16_384
const FIRST_BLOCK = 512

/**
 * Bytes that wait, in order. Small pieces are joined, so that what a peer sends byte by byte takes no more memory than
 * the window allows it.
 */
export class Backlog {
  #done: Buffer[] = []
  #block: Buffer | undefined
  #used = 0
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Copies the piece, unless it fills a good part of the memory that it keeps alive. Answers whether it did. */
  append(piece: Buffer): boolean {
    this.#bytes += piece.length
    if (piece.length >= BLOCK && piece.length * 2 >= piece.buffer.byteLength) {
      this.#closeBlock()
      this.#done.push(piece)
      return false
    }
    for (let rest = piece; rest.length > 0; ) {
      if (this.#block && this.#used === this.#block.length) this.#closeBlock()
      this.#block ??= Buffer.allocUnsafeSlow(Math.min(BLOCK, Math.max(FIRST_BLOCK, this.#bytes)))
      const taken = rest.copy(this.#block, this.#used)
      this.#used += taken
      rest = rest.subarray(taken)
    }
    return true
  }

  /** What waits, the first `most` bytes of it. */
  take(most: number = this.#bytes): Buffer[] {
    this.#closeBlock()
    if (most < this.#bytes) return this.#part(most)
    const all = this.#done
    this.#done = []
    this.#bytes = 0
    return all
  }

  #part(most: number): Buffer[] {
    const taken: Buffer[] = []
    let left = most
    let whole = 0
    for (const piece of this.#done) {
      if (piece.length > left) break
      taken.push(piece)
      left -= piece.length
      whole++
    }
    this.#done.splice(0, whole)
    const [next] = this.#done
    if (next && left > 0) {
      taken.push(next.subarray(0, left))
      this.#done[0] = next.subarray(left)
    }
    this.#bytes -= most
    return taken
  }

  #closeBlock(): void {
    if (this.#block && this.#used > 0) this.#done.push(this.#block.subarray(0, this.#used))
    this.#block = undefined
    this.#used = 0
  }
}
