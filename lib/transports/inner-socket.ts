import { Duplex } from 'node:stream'

/** Ends of a connection inside this process: what is written at one is read at the other, which holds it back if it is slow. */
export function innerSockets(): [InnerSocket, InnerSocket] {
  const [one, other] = [new InnerSocket(), new InnerSocket()]
  one.joinTo(other)
  other.joinTo(one)
  return [one, other]
}

/** One end, with what servers and clients of HTTP use of a socket. */
export class InnerSocket extends Duplex {
  #other: InnerSocket | undefined
  /** The write that waits until this end is read. */
  #waiting: (() => void) | undefined
  #delivered = 0
  #ended = false

  constructor() {
    super({ allowHalfOpen: true, autoDestroy: true })
  }

  joinTo(other: InnerSocket): void {
    this.#other = other
  }

  /** As of a socket: with what waits. */
  get bytesWritten(): number {
    return this.#delivered + this.writableLength
  }

  /** Both ends are gone at once. */
  cut(): void {
    this.destroy()
    this.#other?.destroy()
  }

  destroySoon(): void {
    if (this.writable) this.end()
    if (this.writableFinished) this.destroy()
    else this.once('finish', () => this.destroy())
  }

  /** The other end is gone. What it has said is still read, unless nobody does. */
  broken(): void {
    if (this.destroyed) return
    if (this.#waiting) {
      this.destroy()
    } else {
      this.once('end', () => this.destroy())
      this.push(null)
    }
  }

  override _read(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    // Not in this call: who reads may answer at once, to somebody who is still writing.
    process.nextTick(() => {
      const other = this.#other
      const written = (): void => {
        this.#delivered += chunk.length
        done()
      }
      if (!other || other.destroyed || other.push(chunk)) written()
      else other.#waiting = written
    })
  }

  override _final(done: () => void): void {
    this.#ended = true
    const other = this.#other
    if (other && !other.destroyed) other.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    const other = this.#other
    // Behind what is on its way.
    if (!this.#ended) process.nextTick(() => other?.broken())
    done(error)
    waiting?.()
  }
}
