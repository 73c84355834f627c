import type { Link, LinkSink } from '../../lib/core/link.ts'
import { openRecord, type RecordKeys, recordLength, sealRecord } from '../../lib/core/record.ts'

/** The raw side of one link: bytes while hands are shaken, then records. */
export class RawLink implements LinkSink {
  readonly link: Link
  /** Resolves when nothing comes any more. */
  readonly over: Promise<void>
  /** The far side has finished, or the link is closed. */
  gone = false
  /** Bytes that have come. */
  total = 0
  /** What was wrong with what came: a record that does not open is the real side's fault. */
  fault: unknown
  #bytes: Buffer = Buffer.alloc(0)
  #wanted: { length: number; resolve(bytes: Buffer | undefined): void } | undefined
  #keys: { readonly send: RecordKeys; readonly receive: RecordKeys } | undefined
  #onRecord: (plain: Buffer) => void = () => {}
  #resolve: () => void = () => {}

  constructor(link: Link) {
    this.link = link
    this.over = new Promise((resolve) => {
      this.#resolve = resolve
    })
    link.start(this)
  }

  /** The next bytes, or undefined if the link ends before. */
  read(length: number): Promise<Buffer | undefined> {
    return new Promise((resolve) => {
      this.#wanted = { length, resolve }
      this.#serve()
    })
  }

  /** A handshake message behind its u16 length. */
  async readMessage(): Promise<Buffer | undefined> {
    const length = await this.read(2)
    return length && (await this.read(length.readUInt16BE()))
  }

  /** From here on records come. */
  useKeys(keys: { readonly send: RecordKeys; readonly receive: RecordKeys }, onRecord: (plain: Buffer) => void): void {
    this.#keys = keys
    this.#onRecord = onRecord
    this.#openAll()
  }

  /** The next record, not sent. */
  seal(plain: Uint8Array): Buffer {
    if (!this.#keys) throw new TypeError('no keys yet')
    return Buffer.concat(sealRecord(this.#keys.send, plain))
  }

  send(plain: Uint8Array): void {
    this.link.write([this.seal(plain)])
  }

  sendRaw(bytes: Uint8Array): void {
    this.link.write([bytes])
  }

  cut(how: 'fin' | 'rst'): void {
    if (how === 'fin') this.link.end()
    else this.link.destroy(new Error('cut'))
  }

  received(bytes: Uint8Array): boolean {
    this.total += bytes.length
    this.#bytes = this.#bytes.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#bytes, bytes])
    if (this.#keys) this.#openAll()
    else this.#serve()
    return true
  }

  drained(): void {}

  ended(): void {
    this.#end()
  }

  closed(): void {
    this.#end()
  }

  #end(): void {
    this.gone = true
    this.#serve()
    this.#resolve()
  }

  #serve(): void {
    const wanted = this.#wanted
    if (!wanted) return
    if (this.#bytes.length >= wanted.length) {
      this.#wanted = undefined
      const bytes = this.#bytes.subarray(0, wanted.length)
      this.#bytes = this.#bytes.subarray(wanted.length)
      wanted.resolve(bytes)
    } else if (this.gone) {
      this.#wanted = undefined
      wanted.resolve(undefined)
    }
  }

  #openAll(): void {
    const receive = this.#keys?.receive
    let at = 0
    try {
      while (receive && this.#bytes.length - at >= 4) {
        const length = recordLength(this.#bytes, at)
        if (this.#bytes.length - at < 4 + length) break
        const slices = openRecord(receive, this.#bytes, at, length)
        at += 4 + length
        this.#onRecord(slices.length === 1 && slices[0] ? slices[0] : Buffer.concat(slices))
      }
    } catch (error) {
      this.fault ??= error
      this.link.destroy()
      this.#end()
    }
    this.#bytes = this.#bytes.subarray(at)
  }
}
