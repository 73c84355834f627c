import { ProxyError } from './errors.ts'
import { Budget } from './limits.ts'
import { discard } from './memory.ts'
import { reopenRecord, type SealedRecord } from './record.ts'
import type { RecordLink } from './record-link.ts'

/** What a kept record costs besides its bytes. */
const OVERHEAD = 256
/** What a session may keep even when the budget of all is used up. */
const SHARE = 256 * 1024

/** What has been sent and not been acknowledged: counted records, numbered for the life of the session. */
export class Outbox {
  readonly #limit: number
  readonly #budget: Budget
  readonly #kept: SealedRecord[] = []
  #bytes = 0
  /** The number of the next new record, and of the next one to go onto the present link. */
  #next = 0
  #turn = 0
  /** Records below this have been copied by the system, so that their memory is only ours. */
  #taken = 0
  #acknowledged = false

  /** `limit`: bytes kept at most, but for the record that goes beyond it. */
  constructor(limit: number, budget: Budget = new Budget()) {
    this.#limit = limit
    this.#budget = budget
  }

  /** Whether the peer has acknowledged anything. */
  get acknowledged(): boolean {
    return this.#acknowledged
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Nothing new may be sent before something is acknowledged. */
  get full(): boolean {
    return this.#bytes >= this.#limit || (this.#bytes >= SHARE && this.#budget.free <= 0)
  }

  /** Records that went onto an older link have to go onto this one before anything new. */
  get behind(): boolean {
    return this.#turn < this.#next
  }

  get #oldest(): number {
    return this.#next - this.#kept.length
  }

  keep(record: SealedRecord): void {
    this.#kept.push(record)
    this.#hold(record.bytes + OVERHEAD)
    this.#next++
    this.#turn++
  }

  /** The peer has all records below `expected`. Answers whether that is news. */
  acknowledge(expected: number): boolean {
    const oldest = this.#oldest
    if (expected < oldest || expected > this.#next) {
      throw new ProxyError(
        'PROXY_ERR_ACK_RANGE',
        `an acknowledgement of ${expected}, outside ${oldest} to ${this.#next}`,
      )
    }
    if (expected > oldest) this.#acknowledged = true
    // What an older link delivered, though nobody here knew, need not go again.
    if (this.#turn < expected) this.#turn = expected
    let number = oldest
    for (const record of this.#kept.splice(0, expected - oldest)) {
      this.#hold(-record.bytes - OVERHEAD)
      record.key.release()
      if (number++ < this.#taken) record.chunks.forEach(discard)
    }
    return expected > oldest
  }

  /** The system has a copy of all that was sent on this link. */
  taken(): void {
    this.#taken = this.#turn
  }

  /** A new link: what it has not carried has to go again, from `expected` on. Answers as `acknowledge`. */
  rewind(expected: number): boolean {
    const moved = this.acknowledge(expected)
    this.#turn = this.#oldest
    this.#taken = this.#oldest
    return moved
  }

  /** Sends the next record of those that are behind once more, under the keys of `link`. */
  resend(link: RecordLink): void {
    const index = this.#turn - this.#oldest
    const old = this.#kept[index]
    if (!old) throw new RangeError('nothing is behind')
    this.#kept[index] = link.send(reopenRecord(old))
    this.#turn++
    old.key.release()
  }

  clear(): void {
    for (const record of this.#kept) record.key.release()
    this.#kept.length = 0
    this.#hold(-this.#bytes)
  }

  #hold(bytes: number): void {
    this.#bytes += bytes
    this.#budget.use(bytes)
  }
}
