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

export function isLink(value: Duplex | Link): value is Link {
  return 'start' in value && 'pending' in value
}
