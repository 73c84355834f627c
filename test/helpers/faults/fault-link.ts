import { type Abortable, type Link, type LinkSink, ProxyError } from '../../../lib/core/index.ts'
import { type MemoryOptions, memoryPair } from '../../../lib/transports/memory.ts'
import { type Cut, type Direction, directions, type Ways } from './direction.ts'
import { Meter } from './meter.ts'

export interface FaultyNetworkOptions extends MemoryOptions {
  /** Keep what each side sends. Default true. */
  record?: boolean
}

/**
 * A link through the network, as somebody in between has it. Up is from the side that dialled. What is done to a
 * direction concerns all that has not reached the reader's end of it yet.
 */
export interface FaultyPath {
  /** The first one has 1. */
  readonly number: number
  /** Bytes passed on, and what they are: as they were sent, whether they were passed on or not. */
  readonly forwarded: Readonly<Record<Direction, number>>
  sent(direction: Direction): Buffer
  /** Neither side is connected any more. */
  readonly closed: Promise<void>
  /** Ends the link towards the acceptor (`up`), the dialler, or both. One that is not told hears nothing any more. */
  cut(how: Cut, towards?: Ways): void
  /** From now on nothing passes, no end and no reset either; both sides may go on sending. For good. */
  blackhole(ways?: Ways): void
  /** Keeps what comes, as much as comes, until `release`. */
  hold(ways?: Ways): void
  release(ways?: Ways): void
  /** Calls `act` between two bytes: when exactly `offset` of this direction have passed. */
  at(direction: Direction, offset: number, act: () => void): void
  /** Cuts when exactly `offset` bytes have passed; a reset waits until they have been read. */
  cutAt(direction: Direction, offset: number, how: Cut): void
  /** Flips `bits` (default: the lowest) of the byte that comes after `offset` others. */
  corrupt(direction: Direction, offset: number, bits?: number): void
}

/** Links inside one process, with somebody between the two ends of each. Nothing here takes time: only turns. */
export class FaultyNetwork {
  /** Gets the acceptor's end of each link, before `dial` resolves. Without it, nobody listens. */
  onLink: ((link: Link, path: FaultyPath) => void) | undefined
  readonly #options: FaultyNetworkOptions
  readonly #paths: Path[] = []
  #armed: ((path: FaultyPath) => void)[] = []
  #block: 'refuse' | 'hang' | undefined
  #unblocked: () => void = () => {}
  #opening: Promise<void> = Promise.resolve()
  #refused = 0

  constructor(options: FaultyNetworkOptions = {}) {
    this.#options = options
  }

  /** All that have been, oldest first. */
  get paths(): readonly FaultyPath[] {
    return this.#paths
  }

  /** Those that are neither closed nor cut. */
  get live(): readonly FaultyPath[] {
    return this.#live
  }

  /** How many dials have failed. */
  get refused(): number {
    return this.#refused
  }

  get #live(): readonly Path[] {
    return this.#paths.filter((path) => !path.isCut)
  }

  /** For `connect`, also without its object. Rejects with PROXY_ERR_DIAL_FAILED while dials are refused. */
  readonly dial = async (options: Abortable = {}): Promise<Link> => {
    options.signal?.throwIfAborted()
    while (this.#block === 'hang') await abortable(this.#opening, options)
    const { onLink } = this
    if (this.#block === 'refuse' || !onLink) {
      this.#refused++
      throw new ProxyError('PROXY_ERR_DIAL_FAILED', 'nothing listens there', { retryable: true })
    }
    const path = new Path(this.#paths.length + 1, this.#options)
    this.#paths.push(path)
    for (const arm of this.#armed.splice(0)) arm(path)
    onLink(path.accepted, path)
    return path.dialled
  }

  /** Has faults prepared on the link that is dialled next, before its first byte. */
  arm(prepare: (path: FaultyPath) => void): void {
    this.#armed.push(prepare)
  }

  /** For the link that is dialled next. */
  cutAt(direction: Direction, offset: number, how: Cut): void {
    this.arm((path) => path.cutAt(direction, offset, how))
  }

  /** Cuts all that are live; says how many those were. */
  cut(how: Cut, towards: Ways = 'both'): number {
    return this.#each((path) => path.cut(how, towards))
  }

  blackhole(ways: Ways = 'both'): number {
    return this.#each((path) => path.blackhole(ways))
  }

  hold(ways: Ways = 'both'): number {
    return this.#each((path) => path.hold(ways))
  }

  release(ways: Ways = 'both'): number {
    return this.#each((path) => path.release(ways))
  }

  /** Has new dials fail, or wait until `unblock` or their signal. */
  block(how: 'refuse' | 'hang'): void {
    this.unblock()
    this.#block = how
    this.#opening = new Promise((resolve) => {
      this.#unblocked = resolve
    })
  }

  unblock(): void {
    this.#block = undefined
    this.#unblocked()
  }

  #each(act: (path: Path) => void): number {
    const live = this.#live
    for (const path of live) act(path)
    return live.length
  }
}

/** The promise, or a rejection when the signal comes first. */
async function abortable(promise: Promise<void>, { signal }: Abortable): Promise<void> {
  let give: () => void = () => {}
  const aborted = new Promise<void>((resolve) => {
    give = resolve
  })
  signal?.addEventListener('abort', give)
  await Promise.race([promise, aborted])
  signal?.removeEventListener('abort', give)
  signal?.throwIfAborted()
}

class Path implements FaultyPath {
  readonly number: number
  /** For the two sides. */
  readonly dialled: Link
  readonly accepted: Link
  readonly closed: Promise<void>
  readonly #lanes: Readonly<Record<Direction, Lane>>
  /** What the middle holds: the far end of the side that dialled, and that of the other. */
  readonly #ends: Readonly<Record<Direction, Link>>
  readonly #told = new Set<Direction>()

  constructor(number: number, { record = true, ...options }: FaultyNetworkOptions) {
    const left = memoryPair(options)
    const right = memoryPair(options)
    const up = new Lane(left.b, right.a, record)
    const down = new Lane(right.a, left.b, record)
    this.number = number
    this.#lanes = { up, down }
    this.#ends = { up: right.a, down: left.b }
    this.dialled = new CountedLink(left.a, (bytes) => down.onRead(bytes))
    this.accepted = new CountedLink(right.b, (bytes) => up.onRead(bytes))
    up.start(() => down.onDrained())
    down.start(() => up.onDrained())
    this.closed = Promise.all([up.closed, down.closed]).then(() => {
      this.#told.add('up').add('down')
    })
  }

  get isCut(): boolean {
    return this.#told.size === 2
  }

  get forwarded(): Record<Direction, number> {
    return { up: this.#lanes.up.meter.total, down: this.#lanes.down.meter.total }
  }

  sent(direction: Direction): Buffer {
    return Buffer.concat(this.#lanes[direction].sent)
  }

  cut(how: Cut, towards: Ways = 'both'): void {
    this.blackhole('both')
    for (const direction of directions(towards)) {
      this.#told.add(direction)
      if (how === 'fin') this.#ends[direction].end()
      else this.#ends[direction].destroy(new Error('cut'))
    }
  }

  blackhole(ways: Ways = 'both'): void {
    for (const direction of directions(ways)) this.#lanes[direction].drop()
  }

  hold(ways: Ways = 'both'): void {
    for (const direction of directions(ways)) this.#lanes[direction].hold()
  }

  release(ways: Ways = 'both'): void {
    for (const direction of directions(ways)) this.#lanes[direction].release()
  }

  at(direction: Direction, offset: number, act: () => void): void {
    const { meter } = this.#lanes[direction]
    meter.at(offset, act)
    meter.passed()
  }

  cutAt(direction: Direction, offset: number, how: Cut): void {
    this.at(direction, offset, () => {
      this.blackhole('both')
      if (how === 'fin') this.cut('fin')
      else this.#lanes[direction].whenRead(() => this.cut('rst'))
    })
  }

  corrupt(direction: Direction, offset: number, bits = 1): void {
    this.#lanes[direction].meter.flip(offset, bits)
  }
}

/** One direction: takes from the middle's end of one side, gives to that of the other. */
class Lane {
  readonly meter = new Meter()
  readonly sent: Buffer[] = []
  readonly closed: Promise<void>
  readonly #from: Link
  readonly #to: Link
  readonly #record: boolean
  #closed: () => void = () => {}
  #dropping = false
  /** What `release` does. */
  #held: (() => void)[] | undefined
  /** Of the bytes that passed, those that were read at the other end. */
  #read = 0
  #whenRead: (() => void) | undefined

  constructor(from: Link, to: Link, record: boolean) {
    this.#from = from
    this.#to = to
    this.#record = record
    this.closed = new Promise((resolve) => {
      this.#closed = resolve
    })
  }

  start(onDrained: () => void): void {
    this.#from.start({
      received: (bytes) => {
        const copy = Buffer.from(bytes)
        if (this.#record) this.sent.push(Buffer.from(bytes))
        this.#pass(() => this.#write(copy))
        return this.#dropping || this.#to.pending === 0
      },
      drained: onDrained,
      ended: () => this.#pass(() => this.#to.end()),
      closed: (error) => {
        this.#pass(() => this.#to.destroy(error))
        this.#closed()
        // Nor does it take anything any more: whoever waits for that has waited enough.
        onDrained()
      },
    })
  }

  /** The other end takes bytes again. */
  onDrained(): void {
    this.#from.resume()
  }

  onRead(bytes: number): void {
    this.#read += bytes
    if (this.#read === this.meter.total) this.#whenRead?.()
  }

  whenRead(act: () => void): void {
    if (this.#read === this.meter.total) act()
    else this.#whenRead = act
  }

  drop(): void {
    this.#dropping = true
    this.#held = undefined
    this.#from.resume()
  }

  hold(): void {
    if (!this.#dropping) this.#held ??= []
  }

  release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const act of held) this.#pass(act)
  }

  #pass(act: () => void): void {
    if (this.#dropping) return
    if (this.#held) this.#held.push(act)
    else act()
  }

  #write(bytes: Buffer): void {
    let rest = bytes
    while (rest.length > 0) {
      const now = rest.subarray(0, this.meter.room(rest.length))
      rest = rest.subarray(now.length)
      this.meter.pass(now)
      this.#to.write([now])
      this.meter.passed()
      if (this.#dropping) return
      // Held from within: the rest comes first when it goes on.
      if (this.#held && rest.length > 0) {
        const later = rest
        this.#held.unshift(() => this.#write(later))
        return
      }
    }
  }
}

/** A link that tells how many bytes were read from it. */
class CountedLink implements Link {
  readonly #link: Link
  readonly #onRead: (bytes: number) => void

  constructor(link: Link, onRead: (bytes: number) => void) {
    this.#link = link
    this.#onRead = onRead
  }

  get remote(): string | undefined {
    return this.#link.remote
  }

  get pending(): number {
    return this.#link.pending
  }

  start(sink: LinkSink): void {
    this.#link.start({
      ...(sink.buffer ? { buffer: sink.buffer.bind(sink) } : {}),
      received: (bytes) => {
        const more = sink.received(bytes)
        this.#onRead(bytes.length)
        return more
      },
      drained: () => sink.drained(),
      ended: () => sink.ended(),
      closed: (error) => sink.closed(error),
    })
  }

  write(chunks: readonly Uint8Array[]): void {
    this.#link.write(chunks)
  }

  resume(): void {
    this.#link.resume()
  }

  end(): void {
    this.#link.end()
  }

  destroy(error?: Error): void {
    this.#link.destroy(error)
  }
}
