import assert from 'node:assert/strict'
import type { SubConnection } from '../../../lib/core/index.ts'
import { Random } from '../faults/random.ts'

/** A prime, so that the places of records and those of the repetition drift apart. */
const PERIOD = 65_521

/** Endless bytes that differ from place to place and from salt to salt. */
export class Stream {
  readonly #bytes: Buffer
  /** Bytes said, or heard, so far. */
  at = 0

  constructor(salt: number) {
    this.#bytes = new Random(salt).bytes(PERIOD)
  }

  next(length: number): Buffer {
    const parts: Buffer[] = []
    for (let left = length; left > 0; ) {
      const part = this.#bytes.subarray(this.at % PERIOD, Math.min(PERIOD, (this.at % PERIOD) + left))
      parts.push(part)
      this.at += part.length
      left -= part.length
    }
    return Buffer.concat(parts)
  }

  /** These come next, and no others. */
  expect(bytes: Uint8Array): void {
    const begun = this.at
    assert.ok(this.next(bytes.length).equals(bytes), `wrong bytes between ${begun} and ${this.at}`)
  }
}

/** What one end of a sub-connection says and hears, checked as it comes. */
export class Talk {
  readonly sub: SubConnection
  readonly said: Stream
  readonly heard: Stream
  /** Set by a fin. */
  ended = false
  fault: unknown
  #drained = true
  #changed: (() => void)[] = []

  constructor(sub: SubConnection, says: number, hears: number) {
    this.sub = sub
    this.said = new Stream(says)
    this.heard = new Stream(hears)
    sub.on('data', (chunk: Buffer) => {
      try {
        assert.equal(this.ended, false, 'data behind the end')
        this.heard.expect(chunk)
      } catch (error) {
        this.fault ??= error
      }
      this.#change()
    })
    sub.on('end', () => {
      this.ended = true
      this.#change()
    })
    sub.on('error', (error) => {
      this.fault ??= error
      this.#change()
    })
    sub.on('drain', () => {
      this.#drained = true
      this.#change()
    })
    sub.on('close', () => this.#change())
  }

  /** Resolves when there is room for more. */
  async say(length: number): Promise<void> {
    if (this.sub.write(this.said.next(length)) || this.sub.destroyed) return
    this.#drained = false
    while (!this.#drained && !this.sub.destroyed) await this.#next()
  }

  /** Says this many bytes in pieces, then no more. */
  async sayAll(length: number, piece: number): Promise<void> {
    for (let left = length; left > 0; left -= piece) await this.say(Math.min(left, piece))
    this.sub.end()
  }

  /** Resolves when this many bytes came in all, none of them wrong. */
  async hear(total: number): Promise<void> {
    while (this.heard.at < total && !this.fault && !this.sub.closed) await this.#next()
    this.assertFine()
    assert.equal(this.heard.at, total)
  }

  /** Resolves when the other side has ended in order after this many bytes; without a figure, after any number. */
  async hearAll(total?: number): Promise<void> {
    while (!this.ended && !this.fault && !this.sub.closed) await this.#next()
    this.assertFine()
    assert.equal(this.ended, true)
    if (total !== undefined) assert.equal(this.heard.at, total)
  }

  assertFine(): void {
    if (this.fault) throw this.fault
    assert.equal(this.sub.errored, null)
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve))
  }

  #change(): void {
    for (const resolve of this.#changed.splice(0)) resolve()
  }
}
