import type { Link, LinkSink } from './link.ts'
import type { Downstream, SubConnection } from './sub-connection.ts'

/**
 * A sub-connection as a link: what comes is handed to the sink as it comes, and what goes is sealed from where it is. Both
 * pass the buffers of the `Duplex` by, where there is room.
 */
export class SubLink implements Link {
  readonly remote: string | undefined
  readonly transport: string | undefined
  readonly copies = true
  readonly #sub: SubConnection
  #inlet: Inlet | undefined
  #waiting = false

  constructor(sub: SubConnection, remote: string | undefined, transport: string | undefined) {
    this.#sub = sub
    this.remote = remote
    this.transport = transport
    // Also a link that was never started must not end the process.
    sub.on('error', () => {})
  }

  get pending(): number {
    return this.#sub.writableLength
  }

  start(sink: LinkSink): void {
    const inlet = new Inlet(this.#sub, sink)
    this.#inlet = inlet
    inlet.start()
  }

  write(chunks: readonly Uint8Array[]): void {
    const sub = this.#sub
    if (sub.destroyed || sub.writableEnded) return
    const hold = this.#inlet?.hold() ?? false
    for (const chunk of chunks) {
      const sent = sub.tryWrite(chunk)
      // What has no room waits in the `Duplex`, which tells when the last piece has gone.
      if (sent < chunk.length) sub.write(sent > 0 ? chunk.subarray(sent) : chunk, this.#written)
    }
    if (hold) this.#inlet?.letGo()
    if (this.pending > 0) this.#waiting = true
  }

  readonly #written = (): void => {
    if (!this.#waiting || this.pending > 0) return
    this.#waiting = false
    this.#inlet?.drained()
  }

  resume(): void {
    this.#inlet?.resume()
  }

  end(): void {
    this.#sub.end()
  }

  destroy(error?: Error): void {
    this.#inlet?.drop()
    this.#sub.destroy(error)
  }
}

/** What comes, on its way to the sink. */
class Inlet implements Downstream {
  readonly copies = true
  readonly #sub: SubConnection
  readonly #sink: LinkSink
  /** What the sink has not taken yet. */
  #rest: Uint8Array[] = []
  #bytes = 0
  #state: 'starting' | 'flowing' | 'paused' | 'dropped' = 'starting'
  /** Within a call of the sink, or of its owner: nothing is told. */
  #busy: 'no' | 'delivering' | 'writing' = 'no'
  #scheduled = false
  #ended = false
  #closed = false

  constructor(sub: SubConnection, sink: LinkSink) {
    this.#sub = sub
    this.#sink = sink
  }

  get pending(): number {
    return this.#bytes
  }

  start(): void {
    const sub = this.#sub
    sub.on('end', () => {
      this.#ended = true
      this.#tellEnd()
    })
    const onClose = (): void => {
      this.#closed = true
      // After an orderly end what has come is still the sink's.
      if (sub.errored || !this.#ended) this.#forget()
      this.#tellEnd()
    }
    if (sub.closed) {
      setImmediate(onClose)
      return
    }
    sub.on('close', onClose)
    sub.joined(this)
    this.#later()
  }

  /** Bytes come: the sub-connection has given the chunks away, unless nothing of them is pending afterwards. */
  write(chunks: readonly Uint8Array[]): void {
    if (this.#state === 'dropped') return
    for (const chunk of chunks) {
      this.#rest.push(chunk)
      this.#bytes += chunk.length
    }
    if (this.#busy === 'writing') this.#later()
    else if (this.#busy === 'no') this.#deliver()
  }

  /** From here to `letGo` nothing is told: where the far side is in this process, it may answer at once. */
  hold(): boolean {
    if (this.#busy !== 'no') return false
    this.#busy = 'writing'
    return true
  }

  letGo(): void {
    this.#busy = 'no'
  }

  drained(): void {
    if (!this.#sub.destroyed) this.#sink.drained()
  }

  resume(): void {
    if (this.#state === 'flowing' || this.#state === 'dropped' || this.#busy === 'delivering') return
    this.#state = 'flowing'
    if (this.#busy === 'writing') this.#later()
    else this.#goOn()
  }

  /** The sink is told nothing any more but that it is closed. */
  drop(): void {
    this.#forget()
    if (this.#closed) this.#later()
  }

  #forget(): void {
    this.#rest = []
    this.#bytes = 0
    this.#state = 'dropped'
  }

  /** In a turn of its own. */
  #later(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (this.#state === 'starting') this.#state = 'flowing'
      this.#goOn()
    })
  }

  #goOn(): void {
    this.#deliver()
    // What waited in the sub-connection comes next, and may be the end.
    if (this.#state === 'flowing') this.#sub.release()
    this.#tellEnd()
  }

  #deliver(): void {
    const sink = this.#sink
    this.#busy = 'delivering'
    while (this.#state === 'flowing') {
      const piece = this.#rest[0]
      if (!piece) break
      const place = sink.buffer?.()
      const length = place ? Math.min(place.length, piece.length) : piece.length
      if (length < piece.length) this.#rest[0] = piece.subarray(length)
      else this.#rest.shift()
      this.#bytes -= length
      const landed = length < piece.length ? piece.subarray(0, length) : piece
      place?.set(landed)
      const more = sink.received(place ? place.subarray(0, length) : landed)
      if (!more && this.#state === 'flowing') this.#state = 'paused'
    }
    this.#busy = 'no'
  }

  #tellEnd(): void {
    if (this.#state === 'dropped' ? !this.#closed : this.#state !== 'flowing' || this.#bytes > 0) return
    if (this.#ended) {
      this.#ended = false
      if (this.#state === 'flowing') this.#sink.ended()
    }
    if (!this.#closed) return
    this.#closed = false
    this.#sub.detached()
    this.#sink.closed(this.#sub.errored ?? undefined)
  }
}
