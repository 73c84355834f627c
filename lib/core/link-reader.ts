import { ProxyError } from './errors.ts'
import type { Link, LinkSink } from './link.ts'
import { MAX_RECORD } from './record.ts'

/** Enough for any handshake; an unauthenticated peer never makes it grow. */
const FIRST_SIZE = 4096
const FULL_SIZE = 2 * (4 + MAX_RECORD)

/** What takes over from the handshake. */
export interface ReaderOwner {
  /** More bytes stand between `start` and `end`. Answer `false` to pause. */
  onBytes(): boolean
  onDrained(): void
  onClosed(error: ProxyError): void
}

/**
 * The bytes of a link, in one buffer that is read into behind what has not been used yet, so that a record never needs
 * joining. First the handshake asks for a number of bytes at a time, then the main connection takes what is there.
 */
export class LinkReader implements LinkSink {
  bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_SIZE)
  start = 0
  end = 0
  #gone = false
  readonly #onGone: (() => void)[] = []
  #wanted: { length: number; resolve(bytes: Buffer): void; reject(error: ProxyError): void } | undefined
  #owner: ReaderOwner | undefined
  #failure: ProxyError | undefined
  #onFailure: ((error: ProxyError) => void) | undefined
  readonly #link: Link

  constructor(link: Link) {
    this.#link = link
    link.start(this)
  }

  /** The next `length` bytes, copied. At most 4 KiB. */
  read(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { length, resolve, reject }
      this.#serve()
      this.#link.resume()
    })
  }

  /** Settles like `promise`, or rejects when the link is lost or given up first. */
  unlessLost<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(resolve, reject)
      if (this.#failure) reject(this.#failure)
      this.#onFailure = reject
    })
  }

  /** From here on `owner` is told. What has arrived already stays between `start` and `end`. */
  handTo(owner: ReaderOwner): void {
    this.#owner = owner
    if (this.#failure) owner.onClosed(this.#failure)
  }

  /** `callback` is called when the link is closed for good; at once if it is already. */
  onGone(callback: () => void): void {
    if (this.#gone) callback()
    else this.#onGone.push(callback)
  }

  /** `length` bytes at `start` have been used. */
  consume(length: number): void {
    this.start += length
    if (this.start === this.end) {
      this.start = 0
      this.end = 0
    }
  }

  /** Makes room for `length` bytes from `start` on. */
  reserve(length: number): void {
    if (this.bytes.length - this.start >= length) return
    const target = this.bytes.length >= length ? this.bytes : Buffer.allocUnsafeSlow(this.#grown(length))
    this.bytes.copy(target, 0, this.start, this.end)
    this.bytes = target
    this.end -= this.start
    this.start = 0
  }

  buffer(): Uint8Array {
    // A read that filled the buffer says that more is waiting than it can hold.
    if (this.end === this.bytes.length) {
      const length = this.end - this.start
      this.reserve(this.#owner ? this.#grown(length + 1) : length + 1)
    }
    return this.bytes.subarray(this.end)
  }

  received(bytes: Uint8Array): boolean {
    if (bytes.buffer !== this.bytes.buffer || bytes.byteOffset !== this.bytes.byteOffset + this.end) {
      this.reserve(this.end - this.start + bytes.length)
      this.bytes.set(bytes, this.end)
    }
    this.end += bytes.length
    if (this.#owner) return this.#owner.onBytes()
    this.#serve()
    // Nobody waits, or the buffer is full of what nobody asked for: the rest can stay in the kernel.
    return this.end - this.start < FIRST_SIZE
  }

  drained(): void {
    this.#owner?.onDrained()
  }

  ended(): void {
    this.fail(new ProxyError('PROXY_ERR_LINK_LOST', 'the other side closed the link', { retryable: true }))
  }

  closed(error?: Error): void {
    const why = error?.message ? `: ${error.message}` : ''
    this.fail(new ProxyError('PROXY_ERR_LINK_LOST', `the link was lost${why}`, { cause: error, retryable: true }))
    this.#gone = true
    for (const callback of this.#onGone.splice(0)) callback()
  }

  /** Ends every read, the waiting one and later ones. The first reason stays. */
  fail(error: ProxyError): void {
    if (this.#failure) return
    this.#failure = error
    this.#onFailure?.(error)
    this.#serve()
    this.#owner?.onClosed(error)
  }

  #grown(length: number): number {
    return Math.min(FULL_SIZE, Math.max(length, this.bytes.length * 4))
  }

  #serve(): void {
    const wanted = this.#wanted
    if (!wanted) return
    if (this.end - this.start >= wanted.length) {
      this.#wanted = undefined
      const bytes = Buffer.from(this.bytes.subarray(this.start, this.start + wanted.length))
      this.consume(wanted.length)
      wanted.resolve(bytes)
    } else if (this.#failure) {
      this.#wanted = undefined
      wanted.reject(this.#failure)
    } else {
      this.reserve(wanted.length)
    }
  }
}
