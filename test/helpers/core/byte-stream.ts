import type { Link, LinkSink } from '../../../lib/core/link.ts'

/** The bytes of a link, to be asked for: `read(4)`. A plain reader of its own, so that tests do not lean on LinkReader. */
export class ByteStream implements LinkSink {
  readonly link: Link
  /** All that came, used or not. */
  total = 0
  /** While true, what comes is kept, and the link is told to wait. */
  paused = false
  /** Set when the far side has finished, or the link is closed. */
  end: 'ended' | 'closed' | undefined
  #bytes = Buffer.alloc(0)
  #notify: (() => void)[] = []

  constructor(link: Link) {
    this.link = link
    link.start(this)
  }

  /** The next `length` bytes. Rejects when the link ends before. */
  async read(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.end) throw new Error(`the link ended ${length - this.#bytes.length} bytes early`)
      await new Promise<void>((resolve) => this.#notify.push(resolve))
    }
    const bytes = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return bytes
  }

  /** All that comes until the far side has finished. */
  async rest(): Promise<Buffer> {
    while (!this.end) await new Promise<void>((resolve) => this.#notify.push(resolve))
    const bytes = this.#bytes
    this.#bytes = Buffer.alloc(0)
    return bytes
  }

  received(bytes: Uint8Array): boolean {
    this.total += bytes.length
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    this.#changed()
    return !this.paused
  }

  drained(): void {}

  ended(): void {
    this.end ??= 'ended'
    this.#changed()
  }

  closed(): void {
    this.end ??= 'closed'
    this.#changed()
  }

  #changed(): void {
    for (const resolve of this.#notify.splice(0)) resolve()
  }
}
