import type { Link, LinkSink } from '../core/index.ts'

export interface MemoryOptions {
  /** Bytes per read at most, to have everything arrive in pieces. Default: no limit. */
  fragment?: number
  /** Bytes under way before `pending` is not 0 any more, like the buffers of a socket. Default 256 KiB. */
  capacity?: number
}

export interface MemoryPair {
  readonly a: Link
  readonly b: Link
  /** Ends both directions, as a lost network does: in order (`fin`) or not (`rst`). */
  cut(how: 'fin' | 'rst'): void
}

/** Two ends of a link inside one process. */
export function memoryPair(options: MemoryOptions = {}): MemoryPair {
  const a = new MemoryLink('memory:a', options)
  const b = new MemoryLink('memory:b', options)
  a.peer = b
  b.peer = a
  return {
    a,
    b,
    cut(how) {
      for (const end of [a, b]) {
        if (how === 'fin') end.end()
        else end.destroy(new Error('read ECONNRESET'))
      }
    },
  }
}

class MemoryLink implements Link {
  readonly remote: string
  peer: MemoryLink | undefined
  readonly #fragment: number
  readonly #capacity: number
  /** What the peer has written and this end has not read. */
  #inbox: Buffer[] = []
  #inboxBytes = 0
  #outbox = 0
  #sink: LinkSink | undefined
  #paused = false
  #scheduled = false
  #waiting = false
  #ended = false
  #peerEnded = false
  #toldEnd = false
  #closed = false

  constructor(remote: string, options: MemoryOptions) {
    this.remote = remote
    this.#fragment = options.fragment ?? Number.POSITIVE_INFINITY
    this.#capacity = options.capacity ?? 262_144
  }

  get pending(): number {
    return this.#closed ? 0 : Math.max(0, this.#outbox - this.#capacity)
  }

  start(sink: LinkSink): void {
    this.#sink = sink
    this.#schedule()
  }

  write(chunks: readonly Uint8Array[]): void {
    if (this.#ended || this.#closed) return
    // Copied, as a kernel does: whoever reads may read into place, and whoever writes keeps its buffers.
    const bytes = Buffer.concat(chunks)
    this.#outbox += bytes.length
    this.#waiting = this.pending > 0
    this.peer?.deliver(bytes)
  }

  deliver(bytes: Buffer): void {
    this.#inbox.push(bytes)
    this.#inboxBytes += bytes.length
    this.#schedule()
  }

  resume(): void {
    this.#paused = false
    this.#schedule()
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.peer?.onPeerEnd()
    this.#schedule()
  }

  onPeerEnd(): void {
    this.#peerEnded = true
    this.#schedule()
  }

  destroy(error?: Error): void {
    if (this.#closed) return
    this.#close(undefined)
    setImmediate(() => this.peer?.onPeerDestroyed(error))
  }

  onPeerDestroyed(error: Error | undefined): void {
    if (error) {
      this.#close(new Error('read ECONNRESET'))
    } else {
      this.#ended = true
      this.onPeerEnd()
    }
  }

  onRead(bytes: number): void {
    this.#outbox -= bytes
    if (this.#waiting && this.pending === 0) {
      this.#waiting = false
      setImmediate(() => this.#closed || this.#sink?.drained())
    }
  }

  #close(error: Error | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.#inbox = []
    setImmediate(() => this.#sink?.closed(error))
  }

  #schedule(): void {
    if (this.#scheduled || this.#closed || !this.#sink) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#read()
    })
  }

  #read(): void {
    const sink = this.#sink
    if (!sink || this.#closed) return
    if (this.#paused && this.#inboxBytes > 0) return
    const chunk = this.#inbox[0]
    if (chunk) {
      const room = sink.buffer?.()
      const length = Math.min(chunk.length, this.#fragment, room ? room.length : chunk.length)
      const bytes = chunk.subarray(0, length)
      room?.set(bytes)
      if (length === chunk.length) this.#inbox.shift()
      else this.#inbox[0] = chunk.subarray(length)
      this.#inboxBytes -= length
      this.peer?.onRead(length)
      this.#paused = !sink.received(room ? room.subarray(0, length) : bytes)
      this.#schedule()
    } else if (this.#peerEnded) {
      if (!this.#toldEnd) {
        this.#toldEnd = true
        sink.ended()
      }
      if (this.#ended) this.#close(undefined)
    }
  }
}
