import type { WriteStream } from 'node:tty'

/** One line that is written over and over, and only where somebody watches. */
export class Progress {
  readonly #stream: WriteStream

  constructor(stream: WriteStream) {
    this.#stream = stream
  }

  show(text: string): void {
    if (!this.#stream.isTTY) return
    this.#stream.write(`\r\x1b[2K${text.slice(0, Math.max(20, this.#stream.columns - 1))}`)
  }

  clear(): void {
    if (this.#stream.isTTY) this.#stream.write('\r\x1b[2K')
  }
}
