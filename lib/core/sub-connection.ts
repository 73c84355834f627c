import { Duplex } from 'node:stream'
import { Backlog } from './backlog.ts'
import { ProxyError } from './errors.ts'
import { Pace, type Throttles } from './throttle.ts'
import type { ReceiveWindow } from './window.ts'

/**
 * What a sub-connection needs from whoever carries it. It never sees the main connection.
 *
 * The life of an id, seen from one end. It is in use until both a terminal frame was sent and one was received:
 *
 *     open ──fin sent──▶ half closed ──fin received──▶ free
 *       │                     │
 *       └──── reset sent ─────┴──▶ draining: what still comes is dropped ──fin or reset received──▶ free
 *
 * A reset that comes is answered by a reset, unless a terminal frame was sent already.
 */
export interface SubConnectionHost {
  /** Sends as much of `bytes` as the link takes now, at most `bytes.length`; answers how much. */
  sendData(sub: SubConnection, bytes: Uint8Array): number
  sendFin(sub: SubConnection): void
  sendReset(sub: SubConnection, reason: ProxyError | undefined): void
  sendCredit(sub: SubConnection, credit: number): void
  /** There is something to send: `onWritable` will be called when there is room and it is this one's turn. */
  queue(sub: SubConnection): void
  /** Nothing will be sent or received any more. */
  ended(sub: SubConnection): void
  /** Nothing can be sent at the moment. */
  readonly congested: boolean
  readonly rtt: number | undefined
}

/** What a joined sub-connection writes to; the writing half of a link. */
export interface Downstream {
  readonly pending: number
  readonly copies?: boolean
  write(chunks: readonly Uint8Array[]): void
}

export interface SubConnectionOptions {
  id: number
  host: SubConnectionHost
  /** Bytes that may be sent before any credit comes. */
  credit: number
  receive: ReceiveWindow
  remote?: string | undefined
}

const HIGH_WATER_MARK = 65_536
/** A small payload would keep the whole slice it came in alive: from this ratio on it is copied. */
const PINNED = 8
/** A slice up to this long may wait as it is with a `Downstream` that copies what it takes at once. */
const SMALL_SLICE = 16_384

/**
 * One user connection inside the main connection: a `Duplex` with half-close. It may be written to before the far side
 * has connected; `connecting` and the event `connect` are those of `net.Socket`. It fails with a `ProxyError`.
 */
export class SubConnection extends Duplex {
  readonly id: number
  /** Who came in where it was listened, if the other side told: `192.0.2.1:49152`. */
  readonly remote: string | undefined
  readonly #host: SubConnectionHost
  readonly #receive: ReceiveWindow
  #credit: number
  #chunk: Uint8Array | undefined
  #written: ((error?: Error | null) => void) | undefined
  #writable: (() => void) | undefined
  #connecting = true
  #sent: 'nothing' | 'fin' | 'reset' = 'nothing'
  #got: 'nothing' | 'fin' | 'reset' = 'nothing'
  #downstream: Downstream | undefined
  /** What came while the reader, or `downstream`, still had something. */
  readonly #backlog = new Backlog()
  /** The last `read` found less than it wanted. */
  #starved = false
  #ending = false
  #settled = false
  #throttles: Throttles | undefined
  /** Where nobody has set a throttle there is none. */
  #pace: { readonly out?: Pace | undefined; readonly in?: Pace | undefined } | undefined
  #selfPaced = false
  #bytesIn = 0
  #bytesOut = 0

  constructor(options: SubConnectionOptions) {
    super({ allowHalfOpen: true, highWaterMark: HIGH_WATER_MARK })
    this.id = options.id
    this.remote = options.remote
    this.#host = options.host
    this.#credit = options.credit
    this.#receive = options.receive
  }

  /** True until the far side has connected. */
  get connecting(): boolean {
    return this.#connecting
  }

  get bytesRead(): number {
    return this.#bytesIn
  }

  get bytesWritten(): number {
    return this.#bytesOut
  }

  /** Bytes that the peer may have on their way to here. */
  get window(): number {
    return this.#receive.size
  }

  get throttles(): Throttles | undefined {
    return this.#throttles
  }

  /**
   * How fast it may be: now, and until it is told otherwise. What is to be sent waits with whoever writes, and what came
   * waits here, for no more than the window. The end of each direction comes after its last byte.
   */
  throttle(throttles: Throttles | undefined): void {
    this.#throttles = throttles
    if (!this.#selfPaced) this.#paceBy(throttles)
  }

  /** From here on whoever uses it asks `throttles` itself: for datagrams, which are dropped and never late. */
  paceSelf(): void {
    this.#selfPaced = true
    this.#paceBy(undefined)
  }

  #paceBy({ sent, received }: Throttles = {}): void {
    const before = this.#pace
    this.#pace = undefined
    before?.out?.close()
    before?.in?.close()
    if (this.destroyed) return
    if (sent || received) {
      this.#pace = {
        out: sent && new Pace(sent, () => this.#goOn()),
        in: received && new Pace(received, () => this.release()),
      }
    }
    if (!before) return
    // What had to wait may not have to any more.
    this.#goOn()
    this.release()
  }

  #goOn(): void {
    if ((this.#chunk || this.#writable) && this.#maySend && !this.destroyed) this.#host.queue(this)
  }

  /** There is credit, and no turn of its own to wait for. */
  get #maySend(): boolean {
    return this.#credit > 0 && (this.#pace === undefined || this.#pace.out?.waits !== true)
  }

  /** True when each side has sent its last frame. */
  get over(): boolean {
    return this.#sent !== 'nothing' && this.#got !== 'nothing'
  }

  /**
   * Sends what can be sent this moment and answers how much that was; the bytes may be used again at once. The rest
   * goes to `write`. It saves the copy for whoever reads into a buffer that is used again.
   */
  tryWrite(bytes: Uint8Array): number {
    if (this.writableLength > 0 || this.writableEnded || this.destroyed) return 0
    return this.#transmit(bytes)
  }

  /**
   * Whether more could be sent right now. If not, `callback` runs once when it can: a reader that waits for that instead
   * of reading on saves a copy.
   */
  canWrite(callback: () => void): boolean {
    const may = this.#maySend
    if (may && !this.#host.congested) return true
    this.#writable = callback
    if (may) this.#host.queue(this)
    return false
  }

  /**
   * From here on what comes is written to `downstream`, past the readable side: for bulk and for many small pieces that
   * is worth it. Credit is withheld for what `downstream` has not written yet.
   */
  joined(downstream: Downstream): void {
    // What came early is read first, in this very turn.
    for (let chunk = this.read(); chunk !== null; chunk = this.read()) downstream.write([chunk])
    this.#downstream = downstream
    this.#pump()
  }

  /** `downstream` will write nothing any more. */
  detached(): void {
    this.#downstream = undefined
    this.#backlog.take()
    this.#settle()
  }

  /** Looks whether bytes were written on since: then more can be, and the peer may send as many. */
  release(): void {
    this.#pump()
    if (this.#got !== 'nothing' || this.#sent === 'reset') {
      this.#settle()
      return
    }
    const credit = this.#receive.release(this.#held, this.#host.rtt)
    if (credit > 0) this.#host.sendCredit(this, credit)
  }

  get #held(): number {
    return this.#backlog.bytes + this.readableLength + (this.#downstream?.pending ?? 0)
  }

  /** Whether so many bytes may be handed on now, all of them; then they have gone. */
  #passes(bytes: number): boolean {
    const pace = this.#pace?.in
    if (!pace) return true
    if (pace.room(bytes) < bytes) return false
    pace.went(bytes)
    return true
  }

  /** Whether what comes is handed on as it comes. */
  get #direct(): boolean {
    if (this.#backlog.bytes > 0) return false
    return this.#downstream ? this.#downstream.pending === 0 : this.#starved || this.readableLength === 0
  }

  /** How many of so many bytes that came may be handed on now. */
  #room(bytes: number): number {
    return this.#pace?.in ? this.#pace.in.room(bytes) : bytes
  }

  #pump(): void {
    if (this.destroyed) return
    const downstream = this.#downstream
    const most =
      this.#backlog.bytes > 0 && (downstream ? downstream.pending === 0 : this.readableLength === 0)
        ? this.#room(this.#backlog.bytes)
        : 0
    if (most > 0) {
      const waiting = this.#backlog.take(most)
      this.#pace?.in?.went(most)
      try {
        if (downstream) downstream.write(waiting)
        else for (const chunk of waiting) this.push(chunk)
      } catch (error) {
        this.#failed(error)
      }
    }
    if (this.#got !== 'fin' || this.#backlog.bytes > 0) return
    if (!this.#ending) {
      this.#ending = true
      this.push(null)
    }
    if (downstream) this.resume()
  }

  // --- called by the host ---

  /** Sends up to `turn` bytes of what waits. Answers whether more waits that could go. */
  onWritable(turn: number): boolean {
    const chunk = this.#chunk
    if (!chunk) {
      const writable = this.#writable
      this.#writable = undefined
      writable?.()
      return false
    }
    const sent = this.#transmit(chunk.length > turn ? chunk.subarray(0, turn) : chunk)
    if (sent < chunk.length) {
      this.#chunk = chunk.subarray(sent)
      return this.#maySend
    }
    const written = this.#written
    this.#chunk = undefined
    this.#written = undefined
    written?.()
    // Whoever waited behind it has its turn next.
    return this.#writable !== undefined && this.#maySend
  }

  /** The far side has connected. `credit` is its whole window from the beginning on, and takes the place of the first. */
  onOpened(credit: number): void {
    if (!this.#connecting) throw new ProxyError('PROXY_ERR_FRAME', 'a sub-connection is opened once')
    this.#credit = -this.#bytesOut
    this.onCredit(credit)
    // Given up meanwhile: it is answered, and will be reset.
    if (!this.destroyed) this.#connected()
  }

  onCredit(credit: number): void {
    this.#credit += credit
    if (this.#credit > Number.MAX_SAFE_INTEGER) throw new ProxyError('PROXY_ERR_FRAME', 'credit beyond all bounds')
    this.#goOn()
  }

  /** This side has connected what the peer asked for. */
  accepted(): void {
    this.#connected()
  }

  #connected(): void {
    this.#connecting = false
    try {
      this.emit('connect')
    } catch (error) {
      this.#failed(error)
    }
  }

  /** What whoever reads here throws is the end of this sub-connection, and no business of the others. */
  #failed(error: unknown): void {
    const text = `the reader of the sub-connection failed: ${error instanceof Error ? error.message : String(error)}`
    this.destroy(new ProxyError('PROXY_ERR_INTERNAL', text, { cause: error }))
  }

  /** Answers whether the payload, a part of `whole` bytes of memory, is not needed any more. */
  onData(payload: Buffer, whole: number = payload.buffer.byteLength): boolean {
    if (this.#got !== 'nothing') {
      throw new ProxyError('PROXY_ERR_DATA_AFTER_FIN', `data for sub-connection ${this.id} after its end`)
    }
    if (!this.#receive.accept(payload.length)) {
      throw new ProxyError('PROXY_ERR_WINDOW_EXCEEDED', `data for sub-connection ${this.id} beyond its window`)
    }
    if (this.destroyed || payload.length === 0) return true
    this.#bytesIn += payload.length
    let done = false
    if (this.#direct && this.#passes(payload.length)) {
      const downstream = this.#downstream
      done = payload.length * PINNED < whole && (whole > SMALL_SLICE || downstream?.copies !== true)
      const chunk = done ? Buffer.from(payload) : payload
      try {
        if (downstream) {
          downstream.write([chunk])
          done ||= downstream.copies === true && downstream.pending === 0
        } else {
          this.push(chunk)
        }
      } catch (error) {
        this.#failed(error)
      }
    } else {
      done = this.#backlog.append(payload)
    }
    this.release()
    return done
  }

  onFin(): void {
    if (this.#got !== 'nothing') throw new ProxyError('PROXY_ERR_DATA_AFTER_FIN', `a second fin for ${this.id}`)
    this.#got = 'fin'
    this.#pump()
    this.#settle()
  }

  onReset(reason: ProxyError): void {
    if (this.#got === 'reset') throw new ProxyError('PROXY_ERR_DATA_AFTER_FIN', `a second reset for ${this.id}`)
    this.#got = 'reset'
    if (this.#sent === 'nothing') this.#host.sendReset(this, undefined)
    this.#sent = 'reset'
    this.destroy(reason)
    this.#settle()
  }

  /** The session is over: nothing is sent any more. */
  onLost(reason: ProxyError): void {
    if (this.#sent === 'fin' && this.#got === 'fin') {
      // All of it came before: it may still be read.
      this.#settle(true)
      return
    }
    this.#sent = 'reset'
    this.#got = 'reset'
    this.destroy(reason)
    this.#settle()
  }

  // --- Duplex ---

  // What is read is replaced by `read`, and what comes is pushed by `onData`: there is nothing to ask for.
  override _read(): void {}

  /** All that is consumed passes here, but for what is handed on as it comes. */
  override read(size?: number): Buffer | null {
    let chunk: Buffer | null = super.read(size)
    // Node.js itself reads 0 bytes now and then: that wants nothing.
    if (size === 0) return chunk
    if (chunk === null && this.#backlog.bytes > 0 && !this.#downstream) {
      const most = this.#room(this.#backlog.bytes)
      if (most > 0) {
        this.#pace?.in?.went(most)
        for (const waiting of this.#backlog.take(most)) this.push(waiting)
        chunk = super.read(size)
      }
    }
    this.#starved = chunk === null
    if (chunk !== null) this.release()
    return chunk
  }

  override _write(chunk: Uint8Array, _encoding: string, callback: (error?: Error | null) => void): void {
    const sent = this.#transmit(chunk)
    if (sent === chunk.length) {
      callback()
      return
    }
    this.#chunk = sent > 0 ? chunk.subarray(sent) : chunk
    this.#written = callback
    if (this.#maySend) this.#host.queue(this)
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.#sent === 'nothing') {
      this.#sent = 'fin'
      this.#host.sendFin(this)
    }
    callback()
    this.#settle()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const pace = this.#pace
    this.#pace = undefined
    pace?.out?.close()
    pace?.in?.close()
    const clean = this.#sent === 'fin' && this.#got === 'fin'
    if (!clean && this.#sent !== 'reset') {
      this.#sent = 'reset'
      this.#host.sendReset(this, error ? ProxyError.from(error, 'PROXY_ERR_RESET') : undefined)
    }
    const written = this.#written
    this.#chunk = undefined
    this.#written = undefined
    written?.(error ?? new ProxyError('PROXY_ERR_RESET', 'the sub-connection was closed'))
    callback(error)
    this.#settle()
  }

  #transmit(bytes: Uint8Array): number {
    if (this.#credit <= 0) return 0
    let may = Math.min(bytes.length, this.#credit)
    const pace = this.#pace?.out
    if (pace) {
      // A turn is for who can use it.
      may = this.#host.congested ? 0 : pace.room(may)
      if (may === 0) return 0
    }
    const sent = this.#host.sendData(this, may < bytes.length ? bytes.subarray(0, may) : bytes)
    pace?.went(sent)
    this.#credit -= sent
    this.#bytesOut += sent
    return sent
  }

  /** What is still held here counts against the session, and keeps the id, until it is gone too. */
  #settle(lost = false): void {
    if (this.#settled || !this.over) return
    if (!lost && (!this.destroyed || (this.#downstream && this.#held > 0))) return
    this.#settled = true
    this.#receive.dispose()
    this.#host.ended(this)
  }
}
