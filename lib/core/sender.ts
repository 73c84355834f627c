import { FRAME_HEADER, Frame } from './frame.ts'
import { Gathering } from './gathering.ts'
import type { Budget } from './limits.ts'
import { Outbox } from './outbox.ts'
import type { RecordLink } from './record-link.ts'

/** Payloads up to this long are copied into the gathering; longer ones are sealed from where they are. */
const COPY = 16_384
/**
 * Turns of the event loop that several frames wait for more of them, as long as each turn brings some: these turns do not
 * sleep. One frame alone never waits.
 */
const TURNS = 4

/** Whoever has something to send. */
export interface SenderOwner {
  /** There is room: more may be said, until `congested`. */
  onWritable(): void
  /** The payload of an acknowledgement that is due. */
  takeAck(): Uint8Array | undefined
}

/**
 * What a session sends: frames gather, and leave as records; these are numbered, and kept until they are acknowledged. With
 * a new link those go first that the peer does not have. It knows nothing of how links come and go.
 */
export class Sender {
  readonly #owner: SenderOwner
  readonly #outbox: Outbox
  readonly #gathering = new Gathering()
  #link: RecordLink | undefined
  #scheduled = false
  /** Turns that what was gathered has waited, and how many frames that was at the last one. */
  #turns = 0
  #gathered = 0
  #onSettled: (() => void)[] = []
  #over = false

  /** `keptBytes`: kept at most; what is beyond has to wait. */
  constructor(owner: SenderOwner, keptBytes: number, budget: Budget) {
    this.#owner = owner
    this.#outbox = new Outbox(keptBytes, budget)
  }

  /** The present link, if there is one. */
  use(link: RecordLink | undefined): void {
    this.#link = link
  }

  /** Whether the peer has acknowledged anything. */
  get acknowledged(): boolean {
    return this.#outbox.acknowledged
  }

  /** Whether records that an older link had carried have to go before anything new. */
  get behind(): boolean {
    return this.#outbox.behind
  }

  /** True while nothing more should be sent: there is no link, or it is full, or what is kept for the peer is. */
  get congested(): boolean {
    const link = this.#link
    return !link || link.over || link.pending > 0 || this.#gathering.waiting || this.#outbox.behind || this.#outbox.full
  }

  /** Whether the peer has all that was sent. */
  get settled(): boolean {
    return this.#outbox.bytes === 0 && this.#gathering.empty
  }

  /** Resolves when the peer has all that was sent, or it is over. */
  flushed(): Promise<void> {
    if (this.#over || this.settled) return Promise.resolve()
    return new Promise((resolve) => this.#onSettled.push(resolve))
  }

  /** A frame other than data. It overtakes all data that is not gathered yet. Answers false if too much waits. */
  control(type: number, id: number, payload: Uint8Array | undefined): boolean {
    const length = FRAME_HEADER + (payload ? payload.length : 0)
    if (!this.#gathering.fits(length) && !this.congested) this.#seal()
    if (!this.#gathering.control(type, id, payload)) return false
    this.wake()
    return true
  }

  /** Data; the caller has looked at `congested`. `payload` may be used again when this returns. */
  data(id: number, payload: Uint8Array): void {
    const copied = payload.length <= COPY
    if (!this.#gathering.fits(FRAME_HEADER + (copied ? payload.length : 0))) this.#seal()
    if (copied) {
      this.#gathering.append(Frame.data, id, payload)
      this.wake()
    } else {
      this.#gathering.header(Frame.data, id, payload.length)
      this.#seal(payload)
    }
  }

  /** Lets `onWritable` run, and what was gathered leave, after this turn of the event loop or a few. */
  wake(): void {
    if (this.#scheduled || this.#over) return
    this.#scheduled = true
    setImmediate(this.#onTurn)
  }

  /** The link has nothing left to write. */
  onDrained(): void {
    if (this.#link?.taken) this.#outbox.taken()
    // In this very turn: the link is idle now, and nothing else is waiting to be gathered.
    this.#flush()
  }

  /** What was gathered leaves now, whatever the link has to write. For the last words of a session. */
  push(): void {
    if (this.#link) this.#sendGathered(this.#link, false)
  }

  /** The peer has all records below `expected`. Answers whether that is news. */
  acknowledge(expected: number): boolean {
    const full = this.#outbox.full
    const moved = this.#outbox.acknowledge(expected)
    if (moved) this.#tellSettled()
    if (full) this.wake()
    return moved
  }

  /** A new link: what it has not carried has to go again, from `expected` on. Answers as `acknowledge`. */
  rewind(expected: number): boolean {
    const moved = this.#outbox.rewind(expected)
    if (moved) this.#tellSettled()
    return moved
  }

  /** Nothing is sent any more, and nothing kept. */
  end(): void {
    this.#over = true
    this.#outbox.clear()
    this.#gathering.clear()
    for (const resolve of this.#onSettled.splice(0)) resolve()
  }

  #tellSettled(): void {
    if (this.settled) for (const resolve of this.#onSettled.splice(0)) resolve()
  }

  /** Makes what was gathered, and `tail` behind it, the next counted record. Only with a link that carried all before. */
  #seal(tail?: Uint8Array): void {
    const link = this.#link
    if (!link) throw new TypeError('nothing is sent without a link')
    this.#outbox.keep(link.send(this.#gathering.take(), tail))
    if (link.taken) this.#outbox.taken()
  }

  readonly #onTurn = (): void => {
    const { frames } = this.#gathering
    if (frames > 1 && frames !== this.#gathered && this.#turns < TURNS) {
      this.#turns++
      this.#gathered = frames
      setImmediate(this.#onTurn)
      return
    }
    this.#scheduled = false
    this.#flush()
  }

  #flush(): void {
    this.#turns = 0
    this.#gathered = 0
    const link = this.#link
    if (this.#over || !link || link.over || link.pending > 0) return
    this.#sendUncounted(link)
    while (this.#outbox.behind && link.pending === 0) this.#outbox.resend(link)
    if (this.#outbox.behind || this.#outbox.full) return
    this.#sendGathered(link, true)
  }

  /** With manners: not more than the link takes. */
  #sendGathered(link: RecordLink, manners: boolean): void {
    const gathering = this.#gathering
    while (gathering.waiting && (!manners || link.pending === 0)) if (!gathering.fill()) this.#seal()
    if (manners && !gathering.waiting) this.#owner.onWritable()
    if (gathering.bytes > 0 && this.#link === link) this.#seal()
  }

  #sendUncounted(link: RecordLink): void {
    const ack = this.#owner.takeAck()
    if (ack) link.sendAlone(Frame.ack, ack)
    const pong = link.heartbeat.takePong()
    if (pong) link.sendAlone(Frame.pong, pong)
    const ping = link.heartbeat.takePing()
    if (ping) link.sendAlone(Frame.ping, ping)
  }
}
