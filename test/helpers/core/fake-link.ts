import type { Link, LinkSink } from '../../../lib/core/link.ts'

/** A link that a test moves by hand. Like a socket of Node.js, it asks for the next buffer as soon as a read is done. */
export class FakeLink implements Link {
  readonly remote = 'fake'
  pending = 0
  sink: LinkSink | undefined
  readonly written: Buffer[] = []
  paused = false
  finished = false
  destroyed: { error: Error | undefined } | undefined
  #waiting = Buffer.alloc(0)
  #target: Uint8Array | undefined

  start(sink: LinkSink): void {
    this.sink = sink
  }

  /** Bytes that come in from the far side; what does not fit waits until `resume`. */
  feed(bytes: Uint8Array): void {
    this.#waiting = Buffer.concat([this.#waiting, bytes])
    this.#read()
  }

  /** Bytes of `feed` that are still in the system. */
  get unread(): number {
    return this.#waiting.length
  }

  #read(): void {
    while (this.sink && !this.paused && this.#waiting.length > 0) {
      const target = this.#target ?? this.sink.buffer?.() ?? Buffer.alloc(65_536)
      const bytes = this.#waiting.subarray(0, target.length)
      if (bytes.length === 0) throw new Error('the sink offered an empty buffer')
      target.set(bytes)
      this.#waiting = this.#waiting.subarray(bytes.length)
      this.paused = !this.sink.received(target.subarray(0, bytes.length))
      this.#target = this.sink.buffer?.()
    }
  }

  write(chunks: readonly Uint8Array[]): void {
    this.written.push(Buffer.concat(chunks))
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.#read()
  }

  end(): void {
    this.finished = true
  }

  destroy(error?: Error): void {
    this.destroyed ??= { error }
  }
}
