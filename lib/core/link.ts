import type { Duplex } from 'node:stream'

/** What a link tells whoever reads it. Every call comes from the event loop, never from inside `start` or `write`. */
export interface LinkSink {
  /** Where the next bytes should land; never empty. Left out, the link uses a buffer of its own. */
  buffer?(): Uint8Array
  /**
   * `bytes` landed, not always where `buffer` said last: a read may have been under way. They are valid during the call
   * only. Answer `false` to pause until `resume`.
   */
  received(bytes: Uint8Array): boolean
  /** `pending` fell back to 0 after a write had left something waiting. */
  drained(): void
  /** The far side has finished sending; writing may go on. */
  ended(): void
  /** The last call: nothing moves in either direction any more. */
  closed(error?: Error): void
}

/**
 * An ordered byte duplex with backpressure: the seam to transports. Bytes are read into a buffer that the reader
 * chooses, and written as a list that one system call takes. There is no object, promise or copy per chunk.
 */
export interface Link {
  /** Who is on the other side, for people: `192.0.2.1:49152`. */
  readonly remote: string | undefined
  /** How it travels, for people: `tcp`, `wss`. */
  readonly transport?: string | undefined
  /** Bytes written that the system has not taken yet. A writer with manners waits for `drained` when it is not 0. */
  readonly pending: number
  /** Whether nobody looks at the chunks any more when `pending` is 0, because the system has a copy. Default: no. */
  readonly copies?: boolean
  /** Begins reading. Called once. */
  start(sink: LinkSink): void
  /** The link owns the chunks from now on. After `end` or `destroy` they are dropped. */
  write(chunks: readonly Uint8Array[]): void
  resume(): void
  /** Sends what is pending, then ends this direction. */
  end(): void
  /** Ends both directions at once; with an error, so that the far side can tell it from an orderly end. */
  destroy(error?: Error): void
}

/** A link over any Node.js stream that a library user brings. */
export function linkFrom(duplex: Duplex, remote?: string, transport?: string): Link {
  return new StreamLink(duplex, remote, transport)
}

export function isLink(value: Duplex | Link): value is Link {
  return 'start' in value && 'pending' in value
}

class StreamLink implements Link {
  readonly remote: string | undefined
  readonly transport: string | undefined
  readonly #stream: Duplex
  #waiting = false
  #rest: Uint8Array | undefined
  #failure: Error | undefined
  #sink: LinkSink | undefined

  constructor(stream: Duplex, remote: string | undefined, transport: string | undefined) {
    this.#stream = stream
    this.remote = remote
    this.transport = transport
    // Also a link that was never started must not end the process.
    stream.on('error', (error) => {
      this.#failure = error
    })
  }

  get pending(): number {
    return this.#stream.writableLength
  }

  start(sink: LinkSink): void {
    this.#sink = sink
    this.#stream.on('data', (chunk: Uint8Array) => this.#deliver(chunk))
    this.#stream.on('end', () => sink.ended())
    if (this.#stream.closed) setImmediate(() => sink.closed(this.#failure))
    else this.#stream.on('close', () => sink.closed(this.#failure))
  }

  #deliver(chunk: Uint8Array): void {
    const sink = this.#sink
    let rest = chunk
    while (sink && rest.length > 0 && !this.#stream.destroyed) {
      const target = sink.buffer?.()
      const landed = target ? rest.subarray(0, target.length) : rest
      target?.set(landed)
      rest = rest.subarray(landed.length)
      if (!sink.received(target ? target.subarray(0, landed.length) : landed)) {
        this.#stream.pause()
        if (rest.length > 0) this.#rest = rest
        return
      }
    }
  }

  write(chunks: readonly Uint8Array[]): void {
    if (this.#stream.destroyed || this.#stream.writableEnded) return
    this.#stream.cork()
    let left = chunks.length
    // The stream's own idea of being full differs from `pending`: ask to be called back for the last chunk instead.
    for (const chunk of chunks) this.#stream.write(chunk, --left === 0 ? this.#written : undefined)
    this.#stream.uncork()
    if (this.pending > 0) this.#waiting = true
  }

  readonly #written = (): void => {
    if (!this.#waiting || this.pending > 0) return
    this.#waiting = false
    this.#sink?.drained()
  }

  resume(): void {
    const rest = this.#rest
    this.#rest = undefined
    if (rest) this.#deliver(rest)
    if (!this.#rest) this.#stream.resume()
  }

  end(): void {
    this.#stream.end()
  }

  destroy(error?: Error): void {
    this.#stream.destroy(error)
  }
}
