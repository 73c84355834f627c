import type { Duplex } from 'node:stream'
import type { Link, LinkSink } from './link.ts'
import { SubConnection } from './sub-connection.ts'
import { SubLink } from './sub-link.ts'

/** A link over any Node.js stream that a library user brings. */
export function linkFrom(duplex: Duplex, remote?: string, transport?: string): Link {
  if (duplex instanceof SubConnection) return new SubLink(duplex, remote, transport)
  return new StreamLink(duplex, remote, transport)
}

class StreamLink implements Link {
  readonly remote: string | undefined
  readonly transport: string | undefined
  readonly #stream: Duplex
  #waiting = false
  /** What the sink has not taken yet. The end comes after it. */
  #rest: Uint8Array | undefined
  #delivering = false
  #ended = false
  #closed = false
  #dropped = false
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
    const onEnd = (): void => {
      this.#ended = true
      this.#tellEnd()
    }
    // Nobody has to read for an end that comes without bytes: it may have been told already.
    if (this.#stream.readableEnded) setImmediate(onEnd)
    else this.#stream.on('end', onEnd)
    const onClose = (): void => {
      this.#closed = true
      if (this.#failure || !this.#isWanted()) this.#rest = undefined
      this.#tellEnd()
    }
    if (this.#stream.closed) setImmediate(onClose)
    else this.#stream.on('close', onClose)
  }

  /** After an orderly end what has come is still the sink's. */
  #isWanted(): boolean {
    return !this.#dropped && (!this.#stream.destroyed || this.#stream.readableEnded)
  }

  #deliver(chunk: Uint8Array): void {
    const sink = this.#sink
    let rest = chunk
    this.#delivering = true
    while (sink && rest.length > 0 && this.#isWanted()) {
      const target = sink.buffer?.()
      const landed = target ? rest.subarray(0, target.length) : rest
      target?.set(landed)
      rest = rest.subarray(landed.length)
      if (!sink.received(target ? target.subarray(0, landed.length) : landed)) {
        this.#stream.pause()
        if (rest.length > 0 && this.#isWanted()) this.#rest = rest
        break
      }
    }
    this.#delivering = false
  }

  #tellEnd(): void {
    if (this.#rest) return
    if (this.#ended && !this.#dropped) {
      this.#ended = false
      this.#sink?.ended()
    }
    if (!this.#closed) return
    this.#closed = false
    this.#sink?.closed(this.#failure)
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
    // From inside `received` the answer counts.
    if (this.#delivering) return
    const rest = this.#rest
    this.#rest = undefined
    if (rest) this.#deliver(rest)
    if (this.#rest) return
    this.#stream.resume()
    this.#tellEnd()
  }

  end(): void {
    this.#stream.end()
  }

  destroy(error?: Error): void {
    this.#dropped = true
    this.#rest = undefined
    this.#stream.destroy(error)
    if (this.#closed) setImmediate(() => this.#tellEnd())
  }
}
