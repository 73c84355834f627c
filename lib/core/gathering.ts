import { FRAME_HEADER, writeFrameHeader } from './frame.ts'

/** What one record may carry in small frames. */
const GATHER = 65_536
/** Control frames that wait because the peer does not read. Beyond this it is an attack or a corpse. */
const MAX_WAITING = 4 * 1024 * 1024

/** Frames gather here for a turn of the event loop or a few, and leave as one record. */
export class Gathering {
  readonly #buffer = Buffer.allocUnsafeSlow(GATHER)
  #bytes = 0
  #frames = 0
  /** Control frames that found no room, in their order: nothing is gathered past them. */
  readonly #waiting: Buffer[] = []
  #waitingBytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Frames that were gathered, without those that had to wait. */
  get frames(): number {
    return this.#frames
  }

  /** Whether control frames wait for room. */
  get waiting(): boolean {
    return this.#waiting.length > 0
  }

  get empty(): boolean {
    return this.#bytes === 0 && this.#waiting.length === 0
  }

  fits(length: number): boolean {
    return this.#bytes + length <= GATHER
  }

  /** A frame that fits. */
  append(type: number, id: number, payload: Uint8Array | undefined): void {
    const at = this.#bytes + FRAME_HEADER
    this.header(type, id, payload ? payload.length : 0)
    if (payload) {
      this.#buffer.set(payload, at)
      this.#bytes += payload.length
    }
  }

  /** The header of a frame whose payload goes right behind the gathering. */
  header(type: number, id: number, length: number): void {
    writeFrameHeader(this.#buffer, this.#bytes, type, id, length)
    this.#bytes += FRAME_HEADER
    this.#frames++
  }

  /** A frame that may have to wait. Answers false if too much waits. */
  control(type: number, id: number, payload: Uint8Array | undefined): boolean {
    const length = FRAME_HEADER + (payload ? payload.length : 0)
    if (this.#waiting.length === 0 && this.fits(length)) {
      this.append(type, id, payload)
      return true
    }
    const frame = Buffer.allocUnsafe(length)
    writeFrameHeader(frame, 0, type, id, length - FRAME_HEADER)
    if (payload) frame.set(payload, FRAME_HEADER)
    this.#waiting.push(frame)
    this.#waitingBytes += length
    return this.#waitingBytes <= MAX_WAITING
  }

  /** Gathers those that wait. Answers whether there was room for all. */
  fill(): boolean {
    let taken = 0
    for (const frame of this.#waiting) {
      if (!this.fits(frame.length)) break
      this.#buffer.set(frame, this.#bytes)
      this.#bytes += frame.length
      this.#frames++
      this.#waitingBytes -= frame.length
      taken++
    }
    this.#waiting.splice(0, taken)
    return this.#waiting.length === 0
  }

  /** What was gathered, valid until the next frame. */
  take(): Uint8Array {
    const bytes = this.#buffer.subarray(0, this.#bytes)
    this.#bytes = 0
    this.#frames = 0
    return bytes
  }

  clear(): void {
    this.#waiting.length = 0
    this.#waitingBytes = 0
    this.#bytes = 0
    this.#frames = 0
  }
}
