import { diagnostics } from './diagnostics.ts'
import { ProxyError } from './errors.ts'
import { decodeReason, FRAME_HEADER, Frame, readFrames, writeFrameHeader } from './frame.ts'
import { Heartbeat, type Keepalive } from './heartbeat.ts'
import { type DecodedHello, decodeHello } from './hello.ts'
import type { Link } from './link.ts'
import type { LinkReader, ReaderOwner } from './link-reader.ts'
import { discard } from './memory.ts'
import { openRecord, type RecordKeys, recordLength, type SealedRecord, sealRecord, TAG } from './record.ts'
import { tellFrame, tellRecord } from './wire-tap.ts'

/** What a handshake leaves of one link. */
export interface LinkParts {
  readonly link: Link
  readonly reader: LinkReader
  readonly send: RecordKeys
  readonly receive: RecordKeys
}

/** Whoever makes sense of the records. */
export interface RecordLinkOwner {
  /**
   * A record that opened, as consecutive slices of its plaintext; `length` as it stands on the wire. Answers whether
   * nobody needs the slices any more.
   */
  onRecord(slices: readonly Buffer[], length: number): boolean
  /** `onRecord` has thrown: the peer holds the keys and breaks the rules. */
  onViolation(error: ProxyError): void
  onDrained(): void
  /** There is a ping or a pong to send. */
  wake(): void
  /** The last call, unless this side has ended the link itself. */
  onLost(link: RecordLink, error: ProxyError): void
}

/** The first record, as long as the peer has proven nothing. */
const MAX_HELLO = 4000
/** How long an orderly end may take, in ms. */
const LINGER = 2000

/**
 * A link on which records travel: it seals and opens them, says and hears hello, and notices when the far side is gone.
 * It knows nothing of numbers and sessions.
 *
 *     greeting ──hello opened──▶ greeted ──open()──▶ open ──leave()──▶ leaving ──▶ over
 *         └──────────────────────────┴── lost, or destroy() ─┴──────────────────────▲
 */
export class RecordLink implements ReaderOwner {
  readonly #link: Link
  readonly #reader: LinkReader
  readonly #send: RecordKeys
  readonly #receive: RecordKeys
  readonly #heartbeat: Heartbeat
  #state: 'greeting' | 'greeted' | 'open' | 'leaving' | 'over' = 'greeting'
  #owner: RecordLinkOwner | undefined
  #greeting:
    | { resolve(hello: DecodedHello): void; reject(error: ProxyError): void; readonly mayLeave: boolean }
    | undefined
  #failure: ProxyError | undefined
  /** The far side's hello answers what this side has just sent: its own hello, or message 2. */
  readonly #since = performance.now()

  constructor({ link, reader, send, receive }: LinkParts, keepalive: Keepalive) {
    this.#link = link
    this.#reader = reader
    this.#send = send
    this.#receive = receive
    this.#heartbeat = new Heartbeat(
      keepalive,
      () => this.#owner?.wake(),
      (error) => this.#lose(error),
    )
  }

  get remote(): string | undefined {
    return this.#link.remote
  }

  get transport(): string | undefined {
    return this.#link.transport
  }

  get pending(): number {
    return this.#link.pending
  }

  /** Nothing can be sent on it any more. */
  get over(): boolean {
    return this.#left
  }

  /** Whether the system has a copy of all that was sent. */
  get taken(): boolean {
    return this.#link.copies === true && this.#link.pending === 0
  }

  get heartbeat(): Heartbeat {
    return this.#heartbeat
  }

  /**
   * Resolves with the peer's record 0. Nothing behind it is read before `open`. `mayLeave`: there may be a goaway in its
   * place, which rejects with the peer's reason.
   */
  async greeted(mayLeave: boolean): Promise<DecodedHello> {
    return await new Promise((resolve, reject) => {
      this.#greeting = { resolve, reject, mayLeave }
      this.#reader.handTo(this)
      this.onBytes()
    })
  }

  /** `owner` hears of its end from here on; not within this call, if that has come already. */
  ownBy(owner: RecordLinkOwner): void {
    this.#owner = owner
    const failure = this.#failure
    if (failure) setImmediate(() => owner.onLost(this, failure))
  }

  /** Reads on. What has arrived already is handed over soon, not within this call. */
  open(): void {
    if (this.#state !== 'greeted') return
    this.#state = 'open'
    this.#heartbeat.start()
    setImmediate(() => {
      if (this.#state !== 'open') return
      this.onBytes()
      this.#link.resume()
    })
  }

  /** Seals `head` followed by `tail` and sends it. */
  send(head: Uint8Array, tail?: Uint8Array): SealedRecord {
    const number = this.#send.count
    this.#heartbeat.said()
    const chunks = sealRecord(this.#send, head, tail, this.#link)
    const bytes = head.length + (tail ? tail.length : 0)
    if (diagnostics.record.hasSubscribers) tellRecord(this, true, number, bytes + TAG)
    return { chunks, bytes, key: this.#send.current.hold(), number }
  }

  /** A record of one frame, which nobody keeps. Nothing if the link is over. */
  sendAlone(type: number, payload: Uint8Array): void {
    if (this.#left) return
    this.#heartbeat.said()
    if (diagnostics.frame.hasSubscribers) tellFrame(this, true, type, 0, payload)
    const frame = Buffer.allocUnsafe(FRAME_HEADER + payload.length)
    writeFrameHeader(frame, 0, type, 0, payload.length)
    frame.set(payload, FRAME_HEADER)
    if (diagnostics.record.hasSubscribers) tellRecord(this, true, this.#send.count, frame.length + TAG)
    sealRecord(this.#send, frame, undefined, this.#link)
  }

  /** Ends both directions in order: what is pending is sent, and what comes is read until the far side has ended too. */
  leave(): void {
    if (this.#state === 'over') return
    this.#end('leaving')
    let left = Number.POSITIVE_INFINITY
    const timer = setInterval(() => {
      // As long as bytes move it may go on.
      if (this.#link.pending < left) left = this.#link.pending
      else this.#link.destroy()
    }, LINGER)
    this.#reader.onGone(() => clearInterval(timer))
    this.#link.end()
    this.#link.resume()
  }

  destroy(error?: Error): void {
    if (this.#state === 'over') return
    this.#end('over')
    this.#link.destroy(error)
  }

  #end(state: 'leaving' | 'over'): void {
    if (this.#state !== 'leaving') {
      this.#heartbeat.stop()
      this.#send.forget()
      this.#receive.forget()
    }
    this.#state = state
  }

  #lose(error: ProxyError): void {
    const state = this.#state
    const greeting = this.#greeting
    if (state === 'leaving' || state === 'over') return
    this.#failure = error
    this.destroy(error)
    this.#greeting = undefined
    greeting?.reject(error)
    this.#owner?.onLost(this, error)
  }

  // --- called by the reader ---

  onBytes(): boolean {
    const reader = this.#reader
    if (this.#left) {
      // Unread bytes would make the system reset the link, and with it what this side has said last.
      reader.consume(reader.end - reader.start)
      return true
    }
    this.#heartbeat.heard()
    while (this.#reading && reader.end - reader.start >= 4) {
      let slices: Buffer[]
      let length: number
      try {
        length = recordLength(reader.bytes, reader.start)
        if (this.#state === 'greeting' && length > MAX_HELLO) {
          throw new ProxyError('PROXY_ERR_RECORD_TOO_LARGE', `a first record of ${length} bytes`)
        }
        if (reader.end - reader.start < 4 + length) {
          reader.reserve(4 + length)
          break
        }
        slices = openRecord(this.#receive, reader.bytes, reader.start, length)
      } catch (error) {
        // What stands outside the seal may be anybody's doing: it ends the link, and tells nobody anything.
        this.#lose(ProxyError.from(error, 'PROXY_ERR_RECORD_AUTH'))
        break
      }
      reader.consume(4 + length)
      if (diagnostics.record.hasSubscribers) tellRecord(this, false, this.#receive.count - 1, length)
      if (this.#state === 'greeting') this.#greet(slices)
      else this.#deliver(slices, length)
    }
    // A call above may have changed the state.
    return this.#reading || this.#left
  }

  onDrained(): void {
    this.#owner?.onDrained()
  }

  onClosed(error: ProxyError): void {
    this.#lose(error)
  }

  get #left(): boolean {
    return this.#state === 'leaving' || this.#state === 'over'
  }

  get #reading(): boolean {
    return this.#state === 'open' || (this.#state === 'greeting' && this.#greeting !== undefined)
  }

  #deliver(slices: readonly Buffer[], length: number): void {
    const owner = this.#owner
    try {
      if (owner?.onRecord(slices, length)) for (const slice of slices) discard(slice)
    } catch (error) {
      owner?.onViolation(ProxyError.from(error, 'PROXY_ERR_INTERNAL'))
    }
  }

  #greet(slices: readonly Buffer[]): void {
    const greeting = this.#greeting
    this.#greeting = undefined
    this.#state = 'greeted'
    this.#heartbeat.onRoundTrip(performance.now() - this.#since)
    try {
      let hello: DecodedHello | undefined
      readFrames(slices, (type, id, payload) => {
        if (diagnostics.frame.hasSubscribers) tellFrame(this, false, type, id, payload)
        if (type === Frame.goaway && greeting?.mayLeave) throw decodeReason(payload, closedByPeer())
        if (type !== Frame.hello || hello) throw new ProxyError('PROXY_ERR_FRAME', 'the first record is one hello')
        hello = decodeHello(payload)
      })
      if (!hello) throw new ProxyError('PROXY_ERR_FRAME', 'an empty hello')
      greeting?.resolve(hello)
    } catch (error) {
      greeting?.reject(ProxyError.from(error, 'PROXY_ERR_FRAME'))
    }
  }
}

export function closedByPeer(): ProxyError {
  return new ProxyError('PROXY_ERR_CLOSED', 'the other side closed the main connection')
}
