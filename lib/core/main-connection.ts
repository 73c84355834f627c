import { type KeyObject, sign, verify } from 'node:crypto'
import { diagnostics } from './diagnostics.ts'
import { ProxyError } from './errors.ts'
import {
  decodeReason,
  encodeReason,
  FRAME_HEADER,
  Frame,
  readFrames,
  readUInt64,
  writeFrameHeader,
  writeUInt64,
} from './frame.ts'
import { decodeHello, encodeHello } from './hello.ts'
import type { Link } from './link.ts'
import type { LinkReader, ReaderOwner } from './link-reader.ts'
import { openRecord, type RecordKeys, recordLength, sealRecord } from './record.ts'

/** Which end of the main connection this is. Who listens for users is independent of it. */
export type Role = 'dialler' | 'acceptor'

export interface PeerLimits {
  /** Sub-connections at once, and of those, opens not answered yet. */
  readonly subConnections: number
  readonly pendingOpens: number
}

/** What a finished handshake hands over. */
export interface Established {
  readonly role: Role
  readonly link: Link
  readonly reader: LinkReader
  readonly send: RecordKeys
  readonly receive: RecordKeys
  /** What both sides of the handshake have seen; 32 bytes. */
  readonly hash: Buffer
  readonly session: Buffer
  readonly credential: string
  readonly limits: PeerLimits
}

export interface MainOptions {
  /** A name for people, told to the peer. At most 64 bytes. */
  label?: string | undefined
  /** An Ed25519 private key that this side proves to hold. */
  identity?: KeyObject | undefined
  /** After `idle` ms without a byte a ping is sent; `timeout` ms later the link is dead. Default 15,000 and 10,000. */
  keepalive?: { idle: number; timeout: number } | undefined
}

export interface Peer {
  /** The name of the credential it used; empty for a shared secret. */
  readonly credential: string
  /** What it calls itself: not proven. */
  readonly label: string
  /** The raw Ed25519 key that it proved, 32 bytes. */
  readonly key: Buffer | undefined
  readonly limits: PeerLimits
}

/** Whoever makes sense of the frames. */
export interface FrameHandler {
  /** Throwing a ProxyError ends the session. */
  onFrame(type: number, id: number, payload: Buffer): void
  /** The link has room: send what waits, until `congested`. */
  onWritable(): void
  onClosed(error: ProxyError): void
}

interface KeptRecord {
  readonly chunks: readonly Buffer[]
  readonly bytes: number
  readonly key: Buffer
  readonly number: number
}

/** Frames wait here until the turn of the event loop is over, and leave as one record. */
const GATHER = 65_536
/** Payloads up to this long are copied into the gathering; longer ones are sealed from where they are. */
const COPY = 16_384
const MAX_KEPT = 32 * 1024 * 1024
/** What a kept record costs besides its bytes. */
const KEPT_OVERHEAD = 256
const ACK_BYTES = 1024 * 1024
const ACK_DELAY = 100
/** Control frames that wait because the peer does not read. Beyond this it is an attack or a corpse. */
const MAX_WAITING = 4 * 1024 * 1024
/** The first record, as long as the peer has proven nothing. */
const MAX_HELLO = 4000
/** How old a round trip time is taken for good, in ms. */
const MEASURE_AGAIN = 250
/** How long an orderly end may take, in ms. */
const LINGER = 2000
const LOST = 'the main connection was lost'

/**
 * The encrypted, ordered stream of records between two Proxies. It gathers frames into records, seals and opens them,
 * numbers and keeps them until they are acknowledged, and notices when the other side is gone.
 */
export class MainConnection implements ReaderOwner {
  readonly role: Role
  readonly session: Buffer
  /** Resolves with the reason when it is over. Never rejects. */
  readonly closed: Promise<ProxyError>
  readonly #link: Link
  readonly #reader: LinkReader
  readonly #send: RecordKeys
  readonly #receive: RecordKeys
  readonly #hash: Buffer
  readonly #keepalive: { idle: number; timeout: number }
  #peer: Peer
  #handler: FrameHandler | undefined
  #greeting: { resolve(): void; reject(error: ProxyError): void } | undefined
  #resolveClosed: (reason: ProxyError) => void = () => {}
  #end: ProxyError | undefined

  readonly #gather = Buffer.allocUnsafeSlow(GATHER)
  #gathered = 0
  readonly #waiting: Buffer[] = []
  #waitingBytes = 0
  #scheduled = false

  #sent = 0
  #expected = 0
  readonly #kept: KeptRecord[] = []
  #keptBytes = 0
  #acknowledged = false
  #unacknowledged = 0
  #ackDue = false
  #ackTimer: NodeJS.Timeout | undefined
  #pong: Buffer | undefined
  #pingDue = false
  #pinged: { payload: Buffer; at: number } | undefined
  #rtt: number | undefined
  #measured = Number.NEGATIVE_INFINITY
  #heard = true
  #silence = 0
  #tick: NodeJS.Timeout | undefined
  #opened = false

  /** Resolves when both sides have proven themselves. */
  static async start(established: Established, options: MainOptions = {}): Promise<MainConnection> {
    const main = new MainConnection(established, options)
    const hello = encodeHello({
      expected: 0,
      label: options.label ?? '',
      proof: options.identity && {
        identity: options.identity,
        signature: sign(null, main.#proven(main.role), options.identity),
      },
    })
    if (main.role === 'dialler') main.#sendAlone(Frame.hello, hello)
    await new Promise<void>((resolve, reject) => {
      main.#greeting = { resolve, reject }
      main.#reader.handTo(main)
      main.onBytes()
    })
    if (main.#end) throw main.#end
    if (main.role === 'acceptor') main.#sendAlone(Frame.hello, hello)
    main.#opened = true
    diagnostics.mainOpen.publish({ main })
    return main
  }

  private constructor(established: Established, options: MainOptions) {
    this.role = established.role
    this.session = established.session
    this.#link = established.link
    this.#reader = established.reader
    this.#send = established.send
    this.#receive = established.receive
    this.#hash = established.hash
    this.#keepalive = options.keepalive ?? { idle: 15_000, timeout: 10_000 }
    this.#peer = { credential: established.credential, label: '', key: undefined, limits: established.limits }
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
  }

  get peer(): Peer {
    return this.#peer
  }

  get remote(): string | undefined {
    return this.#link.remote
  }

  /** Why it is over, or undefined while it lives. */
  get reason(): ProxyError | undefined {
    return this.#end
  }

  /** Whether the peer has acknowledged anything that was sent. */
  get acknowledged(): boolean {
    return this.#acknowledged
  }

  /** Smoothed round trip in ms; undefined until the first pong. */
  get rtt(): number | undefined {
    return this.#rtt
  }

  /** True while nothing more should be sent: the link, or what is kept for the peer, is full. */
  get congested(): boolean {
    return this.#link.pending > 0 || this.#waiting.length > 0 || this.#keptBytes >= MAX_KEPT
  }

  /** Names the one who handles frames. Nothing is read beyond the greeting before. */
  attach(handler: FrameHandler): void {
    if (this.#handler) throw new TypeError('a main connection carries one Proxy')
    this.#handler = handler
    if (this.#end) {
      handler.onClosed(this.#end)
      return
    }
    const period = Math.min(this.#keepalive.idle, this.#keepalive.timeout) / 2
    this.#tick = setInterval(() => this.#onTick(period), period)
    // Not before the caller, who is still in its constructor, has everything in place.
    setImmediate(() => {
      this.onBytes()
      this.#link.resume()
    })
  }

  /** Sends a frame other than data. It overtakes all data that has not been handed to `data` yet. */
  control(type: number, id: number, payload?: Uint8Array): void {
    if (this.#end) return
    const length = FRAME_HEADER + (payload ? payload.length : 0)
    if (this.#gathered + length > GATHER && !this.congested) this.#seal()
    if (this.#waiting.length === 0 && this.#gathered + length <= GATHER) {
      this.#append(type, id, payload)
    } else {
      const frame = Buffer.allocUnsafe(length)
      writeFrameHeader(frame, 0, type, id, length - FRAME_HEADER)
      if (payload) frame.set(payload, FRAME_HEADER)
      this.#waiting.push(frame)
      this.#waitingBytes += length
      if (this.#waitingBytes > MAX_WAITING) {
        // It would not read a goaway either.
        this.#finish(new ProxyError('PROXY_ERR_CONTROL_FLOOD', 'the other side asks for much and reads nothing'), true)
        return
      }
    }
    this.wake()
  }

  /** Sends data; the caller has looked at `congested`. `payload` may be used again when this returns. */
  data(id: number, payload: Uint8Array): void {
    const copied = payload.length <= COPY
    if (this.#gathered + FRAME_HEADER + (copied ? payload.length : 0) > GATHER) this.#seal()
    if (copied) {
      this.#append(Frame.data, id, payload)
      this.wake()
    } else {
      writeFrameHeader(this.#gather, this.#gathered, Frame.data, id, payload.length)
      this.#gathered += FRAME_HEADER
      this.#seal(payload)
    }
  }

  /** Lets `onWritable` run, and what was gathered leave, right after this turn of the event loop. */
  wake(): void {
    if (this.#scheduled || this.#end) return
    this.#scheduled = true
    setImmediate(this.#flush)
  }

  /** Asks for a fresh `rtt`, unless the last one is young or its ping still under way. */
  measure(): void {
    const now = performance.now()
    if (this.#pinged || this.#end || now - this.#measured < MEASURE_AGAIN) return
    this.#measured = now
    this.#pingDue = true
    this.wake()
  }

  /** Ends the session in order: the peer is told why, then the link is closed. */
  close(reason: ProxyError = new ProxyError('PROXY_ERR_CLOSED', 'the main connection was closed')): void {
    if (this.#end) return
    this.control(Frame.goaway, 0, encodeReason(reason))
    if (this.#end) return
    while (this.#waiting.length > 0) this.#sendWaiting()
    if (this.#gathered > 0) this.#seal()
    this.#finish(reason)
  }

  // --- sending ---

  #append(type: number, id: number, payload: Uint8Array | undefined): void {
    const length = payload ? payload.length : 0
    writeFrameHeader(this.#gather, this.#gathered, type, id, length)
    if (payload) this.#gather.set(payload, this.#gathered + FRAME_HEADER)
    this.#gathered += FRAME_HEADER + length
  }

  /** Makes what was gathered, and `tail` behind it, the next counted record. */
  #seal(tail?: Uint8Array): void {
    const chunks = sealRecord(this.#send, this.#gather.subarray(0, this.#gathered), tail)
    const bytes = this.#gathered + (tail ? tail.length : 0) + KEPT_OVERHEAD
    this.#gathered = 0
    this.#kept.push({ chunks, bytes, key: this.#send.key, number: this.#sent++ })
    this.#keptBytes += bytes
    this.#link.write(chunks)
  }

  /** A record of one frame, outside the count: hello, ack, ping, pong. */
  #sendAlone(type: number, payload: Uint8Array): void {
    const frame = Buffer.allocUnsafe(FRAME_HEADER + payload.length)
    writeFrameHeader(frame, 0, type, 0, payload.length)
    frame.set(payload, FRAME_HEADER)
    this.#link.write(sealRecord(this.#send, frame))
  }

  readonly #flush = (): void => {
    this.#scheduled = false
    if (this.#end || this.#link.pending > 0) return
    this.#sendUncounted()
    if (this.#keptBytes >= MAX_KEPT) return
    while (this.#waiting.length > 0 && this.#link.pending === 0) this.#sendWaiting()
    if (this.#waiting.length === 0) this.#handler?.onWritable()
    if (this.#gathered > 0 && !this.#end) this.#seal()
  }

  #sendWaiting(): void {
    let taken = 0
    for (const frame of this.#waiting) {
      if (this.#gathered + frame.length > GATHER) break
      this.#gather.set(frame, this.#gathered)
      this.#gathered += frame.length
      this.#waitingBytes -= frame.length
      taken++
    }
    this.#waiting.splice(0, taken)
    if (this.#waiting.length > 0) this.#seal()
  }

  #sendUncounted(): void {
    if (this.#ackDue) {
      this.#ackDue = false
      this.#unacknowledged = 0
      this.#sendAlone(Frame.ack, writeUInt64(this.#expected))
    }
    if (this.#pong) {
      this.#sendAlone(Frame.pong, this.#pong)
      this.#pong = undefined
    }
    if (this.#pingDue) {
      this.#pingDue = false
      const at = performance.now()
      const payload = Buffer.allocUnsafe(8)
      payload.writeDoubleBE(at)
      this.#pinged = { payload, at }
      this.#sendAlone(Frame.ping, payload)
    }
  }

  onDrained(): void {
    // In this very turn: the link is idle now, and nothing else is waiting to be gathered.
    this.#flush()
  }

  // --- receiving ---

  onBytes(): boolean {
    const reader = this.#reader
    if (this.#end) {
      // Read on until the link is closed: unread bytes would make the system reset it, goaway and all.
      reader.consume(reader.end - reader.start)
      return true
    }
    this.#heard = true
    try {
      while (this.#reading && reader.end - reader.start >= 4) {
        const length = recordLength(reader.bytes, reader.start)
        if (this.#greeting && length > MAX_HELLO) {
          throw new ProxyError('PROXY_ERR_RECORD_TOO_LARGE', `a first record of ${length} bytes`)
        }
        if (reader.end - reader.start < 4 + length) {
          reader.reserve(4 + length)
          break
        }
        const slices = openRecord(this.#receive, reader.bytes, reader.start, length)
        reader.consume(4 + length)
        this.#onRecord(slices, length)
      }
    } catch (error) {
      this.#onFault(ProxyError.from(error, 'PROXY_ERR_INTERNAL'))
    }
    return this.#reading || this.#end !== undefined
  }

  get #reading(): boolean {
    return !this.#end && (this.#handler !== undefined || this.#greeting !== undefined)
  }

  #onFault(error: ProxyError): void {
    // What stands outside the seal may be anybody's doing: it ends the link, and tells nobody anything.
    if (error.code.startsWith('PROXY_ERR_RECORD_')) this.#finish(error, true)
    else this.close(error)
  }

  #onRecord(slices: readonly Buffer[], length: number): void {
    const type = slices[0]?.[0]
    if (this.#greeting) {
      readFrames(slices, this.#onHello)
    } else if (type === Frame.ack || type === Frame.ping || type === Frame.pong) {
      readFrames(slices, this.#onUncounted)
    } else {
      readFrames(slices, this.#onCounted)
      if (this.#end) return
      this.#expected++
      this.#unacknowledged += length
      if (this.#unacknowledged >= ACK_BYTES) this.#acknowledge()
      else this.#ackTimer ??= setTimeout(this.#acknowledge, ACK_DELAY)
    }
  }

  readonly #acknowledge = (): void => {
    clearTimeout(this.#ackTimer)
    this.#ackTimer = undefined
    if (this.#unacknowledged === 0) return
    this.#ackDue = true
    this.wake()
  }

  readonly #onHello = (type: number, _id: number, payload: Buffer): void => {
    const greeting = this.#greeting
    if (type === Frame.goaway && this.role === 'dialler') {
      // The acceptor did not like our hello.
      this.#finish(
        decodeReason(payload, new ProxyError('PROXY_ERR_CLOSED', 'the other side closed the main connection')),
      )
      return
    }
    if (type !== Frame.hello || !greeting) throw new ProxyError('PROXY_ERR_FRAME', 'the first record is one hello')
    const { expected, label, key, signature } = decodeHello(payload)
    if (expected !== 0)
      throw new ProxyError('PROXY_ERR_ACK_RANGE', `a new session that has received ${expected} records`)
    const from = this.role === 'dialler' ? 'acceptor' : 'dialler'
    if (key && !(signature && verify(null, this.#proven(from), key.object, signature))) {
      throw new ProxyError('PROXY_ERR_IDENTITY', 'a signature that does not fit its key')
    }
    this.#peer = { ...this.#peer, label, key: key?.raw }
    this.#greeting = undefined
    greeting.resolve()
  }

  /** What a node key signs: this handshake, from this side. A relay cannot use it anywhere else. */
  #proven(from: Role): Buffer {
    return Buffer.concat([Buffer.from(`symport node key, ${from}\0`), this.#hash])
  }

  readonly #onUncounted = (type: number, _id: number, payload: Buffer): void => {
    switch (type) {
      case Frame.ack:
        this.#onAck(readUInt64(payload))
        break
      case Frame.ping:
        if (payload.length !== 8) throw new ProxyError('PROXY_ERR_FRAME', 'a ping has 8 bytes')
        this.#pong = Buffer.from(payload)
        this.wake()
        break
      case Frame.pong:
        this.#onPong(payload)
        break
      default:
        throw new ProxyError('PROXY_ERR_FRAME', `frame type ${type} in an uncounted record`)
    }
  }

  readonly #onCounted = (type: number, id: number, payload: Buffer): void => {
    if (this.#end) return
    if (type === Frame.goaway) {
      this.#finish(
        decodeReason(payload, new ProxyError('PROXY_ERR_CLOSED', 'the other side closed the main connection')),
      )
    } else if (type <= Frame.goaway) {
      throw new ProxyError('PROXY_ERR_FRAME', `frame type ${type} in a counted record`)
    } else {
      this.#handler?.onFrame(type, id, payload)
    }
  }

  #onAck(expected: number): void {
    const oldest = this.#kept[0]?.number ?? this.#sent
    if (expected < oldest || expected > this.#sent) {
      throw new ProxyError(
        'PROXY_ERR_ACK_RANGE',
        `an acknowledgement of ${expected}, outside ${oldest} to ${this.#sent}`,
      )
    }
    const full = this.#keptBytes >= MAX_KEPT
    if (expected > oldest) this.#acknowledged = true
    for (const record of this.#kept.splice(0, expected - oldest)) {
      this.#keptBytes -= record.bytes
      // Keys of a finished stretch of the chain go with the last record that needed them.
      const next = this.#kept[0]?.key ?? this.#send.key
      if (record.key !== next) record.key.fill(0)
    }
    if (full) this.wake()
  }

  #onPong(payload: Buffer): void {
    const pinged = this.#pinged
    if (!pinged?.payload.equals(payload)) return
    this.#pinged = undefined
    const sample = performance.now() - pinged.at
    // Falls at once and rises very slowly: queues on the way, our own above all, must not pass for distance.
    this.#rtt = this.#rtt === undefined || sample < this.#rtt ? sample : this.#rtt + (sample - this.#rtt) / 64
  }

  #onTick(period: number): void {
    if (this.#heard) {
      // The last byte may have come right after the tick before: count that time in, rather be early than late.
      this.#heard = false
      this.#silence = period
      return
    }
    this.#silence += period
    if (this.#silence >= this.#keepalive.idle + this.#keepalive.timeout) {
      this.#finish(
        new ProxyError('PROXY_ERR_KEEPALIVE', 'the other side does not answer any more', { retryable: true }),
        true,
      )
    } else if (this.#silence >= this.#keepalive.idle) {
      this.#pinged = undefined
      this.#measured = Number.NEGATIVE_INFINITY
      this.measure()
    }
  }

  // --- the end ---

  onClosed(error: ProxyError): void {
    // Before both sides have proven themselves there is no session to lose.
    if (this.#greeting) this.#finish(error, true)
    this.#finish(
      new ProxyError('PROXY_ERR_SESSION_LOST', `${LOST}: ${error.message}`, { cause: error, retryable: true }),
    )
  }

  /** Both directions end in order, or after a while without it. */
  #leave(): void {
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

  #finish(reason: ProxyError, hard = false): void {
    if (this.#end) return
    this.#end = reason
    clearTimeout(this.#ackTimer)
    clearInterval(this.#tick)
    if (hard) this.#link.destroy(reason)
    else this.#leave()
    this.#kept.length = 0
    this.#waiting.length = 0
    this.#greeting?.reject(reason)
    this.#handler?.onClosed(reason)
    this.#resolveClosed(reason)
    if (this.#opened) diagnostics.mainClose.publish({ main: this, error: reason })
  }
}
