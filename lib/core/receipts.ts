import { writeUInt64 } from './frame.ts'

/**
 * The peer hears of what came after so many bytes or so many ms, whichever is first. Early: what it may give back then is the
 * memory of its next records, while it is still in the processor's cache. Not with every record of bulk: an acknowledgement
 * is a record of its own, to seal, send and open.
 */
const ACK_BYTES = 512 * 1024
const ACK_DELAY = 100

/** Counts the counted records that come, and says when an acknowledgement is due: one for all so far. */
export class Receipts {
  readonly #wake: () => void
  #expected = 0
  #unacknowledged = 0
  #due = false
  #timer: NodeJS.Timeout | undefined

  /** `wake`: there is an acknowledgement to `takeAck`. */
  constructor(wake: () => void) {
    this.#wake = wake
  }

  /** The number of the next counted record. */
  get expected(): number {
    return this.#expected
  }

  /** One has come, of so many bytes. */
  count(length: number): void {
    this.#expected++
    this.#unacknowledged += length
    if (this.#unacknowledged >= ACK_BYTES) this.#acknowledge()
    else this.#timer ??= setTimeout(this.#onTimer, ACK_DELAY)
  }

  /** The payload of an acknowledgement to send now. */
  takeAck(): Buffer | undefined {
    if (!this.#due) return undefined
    this.#due = false
    this.#unacknowledged = 0
    return writeUInt64(this.#expected)
  }

  /** The peer knows of all, or does not need to any more. */
  told(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#unacknowledged = 0
    this.#due = false
  }

  /** One timer goes on through many acknowledgements: the next one may be early, and never is late. */
  readonly #onTimer = (): void => {
    this.#timer = undefined
    if (this.#unacknowledged > 0) this.#acknowledge()
  }

  #acknowledge(): void {
    this.#due = true
    this.#wake()
  }
}
