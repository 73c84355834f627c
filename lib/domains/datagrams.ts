import { type Link, type LinkSink, ProxyError, type SubConnection } from '../core/index.ts'

/**
 * The most that one datagram carries: an IPv4 packet of 65,535 bytes without its own header and that of UDP (RFC 768).
 * One of IPv6 could have 20 more; nothing sends these.
 */
export const MAX_DATAGRAM = 65_507
/**
 *     0        2
 *     +--------+----------------------+
 *     | length | payload              |   length: u16, big-endian, 0 to 65,507
 *     +--------+----------------------+
 */
const HEADER = 2

/** What one flow keeps on its way into the tunnel while that takes no more; one datagram always has room. */
const QUEUE_LENGTH = 64
const QUEUE_BYTES = 262_144
/** All flows of one domain together. Beyond this each keeps only its newest datagram. */
const HELD_BYTES = 33_554_432
/** As much of a datagram under way is kept whatever the others hold: no less than a packet of most networks. */
const PART_BYTES = 2048
/**
 * How far away turns at a throttle may be, in ms: for a flow that has not waited for any, or there would be no end to new
 * flows, and for one that has. Beyond that nothing goes.
 */
const FIRST_TURN = 250
const LONGEST_TURN = 2000
const NOTHING = new Uint8Array(0)

/** What the flows of one domain share. */
export class DatagramMemory {
  readonly #limit: number
  #frame: Buffer | undefined
  #used = 0

  constructor(limit: number = HELD_BYTES) {
    this.#limit = limit
  }

  get used(): number {
    return this.#used
  }

  get full(): boolean {
    return this.#used > this.#limit
  }

  use(bytes: number): void {
    this.#used += bytes
  }

  /** A datagram with its length in front, in a buffer that the next call uses again. */
  frame(datagram: Uint8Array): Uint8Array {
    this.#frame ??= Buffer.allocUnsafeSlow(HEADER + MAX_DATAGRAM)
    this.#frame.writeUInt16BE(datagram.length, 0)
    this.#frame.set(datagram, HEADER)
    return this.#frame.subarray(0, HEADER + datagram.length)
  }
}

export interface DatagramReceiver {
  /** The memory belongs to the receiver, which shall not write to it. */
  onDatagram(datagram: Uint8Array): void
}

/** Finds the borders of datagrams in a stream, however that is cut. One that is in one piece is not copied. */
export class DatagramReader {
  readonly #memory: DatagramMemory
  readonly #receiver: DatagramReceiver
  /** The beginning of a datagram, with its header; it grows with what comes, and not with what the length promises. */
  #part: Buffer | undefined
  #have = 0
  #goal = HEADER
  /** What still comes of a datagram that there was no memory for. */
  #skip = 0

  constructor(memory: DatagramMemory, receiver: DatagramReceiver) {
    this.#memory = memory
    this.#receiver = receiver
  }

  /** The stream must not end here. */
  get partial(): boolean {
    return this.#have > 0 || this.#skip > 0
  }

  /** @throws ProxyError PROXY_ERR_DATAGRAM if a length is more than a datagram can have */
  push(chunk: Uint8Array): void {
    let at = 0
    while (at < chunk.length) {
      const left = chunk.length - at
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, left)
        this.#skip -= skipped
        at += skipped
        continue
      }
      const end = this.#have === 0 && left >= HEADER ? at + HEADER + readLength(chunk, at) : Number.POSITIVE_INFINITY
      if (end <= chunk.length) {
        this.#receiver.onDatagram(chunk.subarray(at + HEADER, end))
        at = end
      } else {
        at += this.#collect(chunk.subarray(at))
      }
    }
  }

  /** Forgets what is under way. */
  dispose(): void {
    this.#memory.use(-(this.#part?.length ?? 0))
    this.#part = undefined
    this.#have = 0
    this.#goal = HEADER
  }

  #collect(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.#goal - this.#have)
    const have = this.#have + taken
    if (have > PART_BYTES && have < this.#goal && this.#memory.full) {
      // It is lost, as on any network that is overloaded; the flow goes on.
      this.#skip = this.#goal - have
      this.dispose()
      return taken
    }
    const part = this.#room(have)
    part.set(bytes.subarray(0, taken), this.#have)
    this.#have = have
    if (have === HEADER && this.#goal === HEADER) this.#goal += readLength(part, 0)
    if (have < this.#goal || have < HEADER) return taken
    this.dispose()
    this.#receiver.onDatagram(part.subarray(HEADER, have))
    return taken
  }

  #room(bytes: number): Buffer {
    const part = this.#part
    if (part && part.length >= bytes) return part
    const grown = Buffer.allocUnsafeSlow(Math.max(HEADER, Math.min(this.#goal, bytes * 2)))
    part?.copy(grown, 0, 0, this.#have)
    this.#memory.use(grown.length - (part?.length ?? 0))
    this.#part = grown
    return grown
  }
}

function readLength(bytes: Uint8Array, at: number): number {
  const length = (bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0)
  if (length <= MAX_DATAGRAM) return length
  throw new ProxyError('PROXY_ERR_DATAGRAM', `a datagram of ${length} bytes: there are none beyond ${MAX_DATAGRAM}`)
}

/** Datagrams that wait. When there are too many the oldest goes, which is worth the least to whoever waits for it. */
export class DatagramQueue {
  readonly #memory: DatagramMemory
  readonly #waiting: Uint8Array[] = []
  #bytes = 0

  constructor(memory: DatagramMemory) {
    this.#memory = memory
  }

  get length(): number {
    return this.#waiting.length
  }

  /** Answers how many had to go. */
  push(datagram: Uint8Array): number {
    this.#waiting.push(datagram)
    this.#count(datagram.length)
    let dropped = 0
    while (this.length > 1 && (this.length > QUEUE_LENGTH || this.#bytes > QUEUE_BYTES || this.#memory.full)) {
      this.shift()
      dropped++
    }
    return dropped
  }

  shift(): Uint8Array | undefined {
    const oldest = this.#waiting.shift()
    if (oldest) this.#count(-oldest.length)
    return oldest
  }

  dispose(): void {
    this.#count(-this.#bytes)
    this.#waiting.length = 0
  }

  #count(bytes: number): void {
    this.#bytes += bytes
    this.#memory.use(bytes)
  }
}

/**
 * One flow of datagrams as a link, which is how it is joined to a sub-connection: what is read from it and written to it
 * is framed. Into the tunnel a bounded queue keeps the newest; out of it nothing ever waits.
 */
export abstract class DatagramLink implements Link, DatagramReceiver {
  abstract readonly remote: string | undefined
  readonly transport = 'udp'
  /** What the system does not take is dropped: credit goes back at once, and nobody waits for a slow receiver. */
  readonly pending = 0
  readonly #memory: DatagramMemory
  readonly #queue: DatagramQueue
  readonly #reader: DatagramReader
  #sink: LinkSink | undefined
  /** The sink takes nothing until `resume`. */
  #blocked = false
  /** The sink has kept the rest of a datagram: it says by itself when it has had enough. */
  #clogged = false
  /** Nothing is sent into the tunnel any more. */
  #finished = false
  #over = false
  #dropped = 0
  #sub: SubConnection | undefined
  /** When its next turns are at the throttles. */
  readonly #next = { sent: 0, received: 0 }
  /** What is left of those that it has had. */
  readonly #turn = { sent: 0, received: 0 }

  constructor(memory: DatagramMemory) {
    this.#memory = memory
    this.#queue = new DatagramQueue(memory)
    this.#reader = new DatagramReader(memory, this)
  }

  /** Hands a datagram to the system, or drops it. */
  protected abstract send(datagram: Uint8Array): void
  /** It is over: the last call. */
  protected abstract released(): void

  get over(): boolean {
    return this.#over
  }

  /** Datagrams that were lost here, either way. */
  get dropped(): number {
    return this.#dropped
  }

  protected lost(datagrams: number): void {
    this.#dropped += datagrams
  }

  /** What is more than the throttles of this sub-connection allow is dropped: late it would be worth nothing. */
  keepTo(sub: SubConnection): void {
    this.#sub = sub
    sub.paceSelf()
    // What came before there was one is no exception.
    for (let early = this.#queue.length; early > 0; early--) {
      const datagram = this.#queue.shift() ?? NOTHING
      if (this.#fits(datagram, 'sent')) this.#queue.push(datagram)
      else this.lost(1)
    }
  }

  /** A flow that shares its throttle with others has its turns there as they do, and drops what comes in between. */
  #fits(datagram: Uint8Array, way: 'sent' | 'received'): boolean {
    const throttle = this.#sub?.throttles?.[way]
    if (!throttle) return true
    const bytes = HEADER + datagram.length
    if (bytes <= this.#turn[way]) {
      this.#turn[way] -= bytes
      return true
    }
    const now = performance.now()
    if (now < this.#next[way]) return false
    const wait = throttle.take(bytes)
    const fits = wait <= (this.#next[way] > 0 ? LONGEST_TURN : FIRST_TURN)
    if (!fits) throttle.giveBack(bytes)
    this.#next[way] = now + Math.min(wait, LONGEST_TURN)
    // Beside many streams turns are always far away: it stands in line as they do, and has turns as long as theirs.
    const more = throttle.turn - bytes
    if (fits && wait > FIRST_TURN && more > this.#turn[way]) {
      throttle.take(more - this.#turn[way])
      this.#turn[way] = more
    }
    return fits
  }

  /** A datagram came in, for the far side. Its memory belongs to the link. */
  offer(datagram: Uint8Array): void {
    if (this.#over || this.#finished || datagram.length > MAX_DATAGRAM) this.lost(1)
    else if (!this.#fits(datagram, 'sent')) this.lost(1)
    else if (this.#queue.length === 0 && this.#ready()) this.#pass(datagram)
    else this.lost(this.#queue.push(datagram))
  }

  /** Nothing more will come in: the far side is told, and ends the flow. */
  retire(): void {
    if (!this.#sink) this.destroy()
    else if (!this.#finished) this.#sink.ended()
    this.#finished = true
  }

  onDatagram(datagram: Uint8Array): void {
    // An earlier one in the same chunk may have been the last.
    if (this.#over) return
    if (this.#fits(datagram, 'received')) this.send(datagram)
    else this.lost(1)
  }

  // --- Link ---

  start(sink: LinkSink): void {
    this.#sink = sink
    if (this.#queue.length > 0) setImmediate(() => this.resume())
  }

  write(chunks: readonly Uint8Array[]): void {
    try {
      for (const chunk of chunks) if (!this.#over) this.#reader.push(chunk)
    } catch (error) {
      this.destroy(ProxyError.from(error, 'PROXY_ERR_DATAGRAM'))
    }
  }

  resume(): void {
    this.#blocked = false
    this.#clogged = false
    while (this.#queue.length > 0 && this.#ready()) this.#pass(this.#queue.shift() ?? NOTHING)
  }

  /** There is no half of a flow: when the far side has finished, nobody there takes answers any more. */
  end(): void {
    if (this.#reader.partial) {
      this.destroy(new ProxyError('PROXY_ERR_DATAGRAM', 'the stream ended in the middle of a datagram'))
      return
    }
    const sink = this.#sink
    if (!this.#over && !this.#finished) setImmediate(() => sink?.ended())
    this.destroy()
  }

  destroy(error?: Error): void {
    if (this.#over) return
    this.#over = true
    this.#queue.dispose()
    this.#reader.dispose()
    for (const way of ['sent', 'received'] as const) this.#sub?.throttles?.[way]?.giveBack(this.#turn[way])
    const sink = this.#sink
    setImmediate(() => sink?.closed(error))
    this.released()
  }

  /** Asks with no bytes whether more would go: what the sink keeps cannot be dropped any more. */
  #ready(): boolean {
    if (!this.#sink || this.#blocked) return false
    if (this.#clogged || this.#sink.received(NOTHING)) return true
    this.#blocked = true
    return false
  }

  #pass(datagram: Uint8Array): void {
    const sink = this.#sink
    this.#blocked = !sink?.received(this.#memory.frame(datagram))
    // It may have taken a part, and wait for credit with the rest. Only what is written behind that is sure to be heard of.
    this.#clogged = !this.#blocked && !sink?.received(NOTHING)
  }
}
