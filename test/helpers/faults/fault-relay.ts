import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { freePort } from '../system/net.ts'
import { type Cut, type Direction, directions, type Ways } from './direction.ts'
import { Meter } from './meter.ts'
import { TimedQueue } from './timed-queue.ts'
import { adoptWide, dialWide, onFarEnd, type Place, reset } from './wide-socket.ts'

/** Bytes of one direction that a delay holds; then no more is read. */
const DELAYED_BYTES = 16 * 1024 * 1024
/** Node.js tells bytes and a reset that come together as bytes and an orderly end: this tears them apart. */
const RESET_AFTER_MS = 10
/** A reader in this process may not have had its turn by then. */
const RESET_AFTER_TURNS = 20
const NEXT_TIMEOUT_MS = 5_000
const BACKLOG = 1024

/** How new connections fare: nobody listens; accepted and reset; accepted, and then nothing, ever. */
export type Block = 'refuse' | 'rst' | 'hang'

export interface FaultRelayOptions {
  /** Where connections go. */
  target: Place
  /** See `FaultRelay.onLink`. */
  onLink?: (link: RelayedLink) => void
}

/** Connections pass through it, and whatever can happen to a connection happens on demand. */
export interface FaultRelay extends AsyncDisposable {
  /** Of 127.0.0.1; stays for as long as the relay lives. */
  readonly port: number
  /** Where the next connections go. */
  target: Place
  /** Told about each connection before a byte of it is read or the target is dialled: the place to arm faults. */
  onLink: (link: RelayedLink) => void
  /** Connections that are neither closed nor cut, oldest first. */
  readonly links: readonly RelayedLink[]
  /** How many have been relayed, in all. */
  readonly count: number
  /** How many came while blocked, and were accepted for `rst` or `hang`. */
  readonly turnedAway: number
  /**
   * The connection with this number (the first one has 1; default: the next to come), as soon as it is there. Fails
   * when it does not come in time, in ms (default 5,000), or the relay is closed.
   */
  next(options?: { number?: number; timeout?: number }): Promise<RelayedLink>
  /** Resolves with `turnedAway` when that is `number` at least (default: one more); fails as `next` does. */
  nextTurnedAway(options?: { number?: number; timeout?: number }): Promise<number>
  /** Cuts all `links`; says how many those were. */
  cut(how: Cut): number
  /** Keeps new connections out. Those that are relayed go on. */
  block(how: Block): void
  /** Resolves when connections are relayed again. */
  unblock(): Promise<void>
  /** Resets all that is left. */
  close(): Promise<void>
}

/**
 * A connection through the relay. Up is from the side that connected to the target. A fault concerns what is read from
 * now on and what the relay still holds, not what is in the buffers of the system already.
 */
export interface RelayedLink {
  /** The first one has 1. */
  readonly number: number
  /** Bytes passed on. */
  readonly forwarded: Readonly<Record<Direction, number>>
  /** Both connections are gone. */
  readonly closed: Promise<void>
  /**
   * Ends the connection towards the target (`up`), the other side, or both. A side that is not told keeps a connection
   * on which nothing ever comes, and what it sends goes nowhere. After `fin` a side is listened to until it ends, too.
   */
  cut(how: Cut, towards?: Ways): void
  /** From now on nothing passes, no FIN and no RST either; both sides may go on sending. For good. */
  blackhole(ways: Ways): void
  /** Nothing passes and nothing is read until `resume`: the sender finds the path full. */
  stall(ways: Ways): void
  resume(ways?: Ways): void
  /** What is read from now on passes so many ms later, ends and resets too. 16 MiB a direction at most wait. */
  delay(ms: number, ways?: Ways): void
  /** Passes on so many bytes at most in one write, and makes one in a turn of the event loop. Infinity: no limit. */
  fragment(bytes: number, ways?: Ways): void
  /** Calls `act` between two bytes: when exactly `offset` of this direction have passed since the beginning. */
  at(direction: Direction, offset: number, act: () => void): void
  /**
   * Cuts when exactly `offset` bytes have passed. `rst`: everything stops there, and the reset follows 10 ms later, so
   * that a reader who reads gets all of these bytes.
   */
  cutAt(direction: Direction, offset: number, how: Cut): void
  /** Flips `bits` (default: the lowest) of the byte that comes after `offset` others. */
  corrupt(direction: Direction, offset: number, bits?: number): void
}

/** Listens on a free port of 127.0.0.1. */
export async function startFaultRelay(options: FaultRelayOptions): Promise<FaultRelay> {
  // One that refuses has no listener for a while, and wants this very port again afterwards.
  const relay = new Relay(options, await freePort())
  await relay.open()
  return relay
}

class Relay implements FaultRelay {
  target: Place
  onLink: (link: RelayedLink) => void
  readonly port: number
  #server: Server | undefined
  #block: Block | undefined
  #closed: Promise<void> | undefined
  /** All that have been, for `next`. */
  readonly #all: Link[] = []
  readonly #open = new Set<Link>()
  readonly #hanging = new Set<Socket>()
  #turnedAway = 0
  readonly #waiters = new Set<{ look(): void; fail(): void }>()

  constructor({ target, onLink = () => {} }: FaultRelayOptions, port: number) {
    this.target = target
    this.port = port
    this.onLink = onLink
  }

  get links(): readonly Link[] {
    return [...this.#open].filter((link) => !link.isCut)
  }

  get count(): number {
    return this.#all.length
  }

  get turnedAway(): number {
    return this.#turnedAway
  }

  async open(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      this.#accept(socket)
    })
    this.#server = server
    server.listen({ host: '127.0.0.1', port: this.port, backlog: BACKLOG })
    await once(server, 'listening')
    // From here on an error concerns one connection that could not be accepted.
    server.on('error', () => {})
  }

  next({ number = this.count + 1, timeout = NEXT_TIMEOUT_MS } = {}): Promise<RelayedLink> {
    return this.#wait(`connection ${number}`, timeout, () => this.#all[number - 1])
  }

  nextTurnedAway({ number = this.turnedAway + 1, timeout = NEXT_TIMEOUT_MS } = {}): Promise<number> {
    const look = (): number | undefined => (this.#turnedAway >= number ? this.#turnedAway : undefined)
    return this.#wait(`attempt ${number} while blocked`, timeout, look)
  }

  cut(how: Cut): number {
    const links = this.links
    for (const link of links) link.cut(how)
    return links.length
  }

  block(how: Block): void {
    this.#block = how
    if (how === 'refuse') this.#unlisten()
  }

  async unblock(): Promise<void> {
    this.#block = undefined
    if (!this.#server && !this.#closed) await this.open()
    if (this.#closed) this.#unlisten()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#unlisten()
    for (const waiter of [...this.#waiters]) waiter.fail()
    for (const socket of this.#hanging) reset(socket)
    const open = [...this.#open]
    for (const link of open) link.abort()
    await Promise.all(open.map((link) => link.closed))
  }

  /** The port is free when this returns, but for those that were accepted. */
  #unlisten(): void {
    this.#server?.close()
    this.#server = undefined
  }

  #accept(socket: Socket): void {
    socket.on('error', () => {})
    if (this.#closed || this.#block) this.#turnAway(socket)
    else this.#relay(socket)
    for (const waiter of [...this.#waiters]) waiter.look()
  }

  #turnAway(socket: Socket): void {
    this.#turnedAway++
    if (this.#closed || this.#block !== 'hang') {
      reset(socket)
      return
    }
    this.#hanging.add(socket)
    socket.once('close', () => this.#hanging.delete(socket))
  }

  #relay(socket: Socket): void {
    const link = new Link(socket, this.count + 1)
    this.#all.push(link)
    this.#open.add(link)
    void link.closed.then(() => this.#open.delete(link))
    this.onLink(link)
    link.connect(this.target)
  }

  #wait<T>(what: string, timeout: number, look: () => T | undefined): Promise<T> {
    const found = new Promise<T>((resolve, reject) => {
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
        act()
      }
      const waiter = {
        look: () => {
          const found = look()
          if (found !== undefined) settle(() => resolve(found))
        },
        fail: () => settle(() => reject(new Error(`the relay was closed before ${what}`))),
      }
      const timer = setTimeout(() => {
        settle(() => reject(new Error(`${what} did not come within ${timeout} ms`)))
      }, timeout)
      this.#waiters.add(waiter)
      waiter.look()
      if (this.#closed && this.#waiters.has(waiter)) waiter.fail()
    })
    // A test that has failed for another reason does not look at it any more.
    found.catch(() => {})
    return found
  }
}

class Link implements RelayedLink {
  readonly number: number
  readonly closed: Promise<void>
  readonly #lanes: Readonly<Record<Direction, Lane>>
  readonly #client: Socket
  #target: Socket | undefined
  readonly #told = new Set<Direction>()
  #resetting: NodeJS.Timeout | undefined
  readonly #onClose: () => void
  /** Of its two connections. */
  #open = 1

  constructor(accepted: Socket, number: number) {
    this.number = number
    const up = new Lane()
    this.#lanes = { up, down: new Lane() }
    this.#client = adoptWide(accepted, (bytes) => up.receive(bytes))
    let close: () => void = () => {}
    this.closed = new Promise((resolve) => {
      close = resolve
    })
    this.#onClose = () => {
      if (--this.#open > 0) return
      clearTimeout(this.#resetting)
      for (const lane of Object.values(this.#lanes)) lane.drop()
      close()
    }
    watch(this.#client, up, this.#onClose)
  }

  get forwarded(): Record<Direction, number> {
    return { up: this.#lanes.up.forwarded, down: this.#lanes.down.forwarded }
  }

  /** Both sides have been told. */
  get isCut(): boolean {
    return this.#told.size === 2
  }

  connect(to: Place): void {
    const { up, down } = this.#lanes
    if (this.#told.size > 0) {
      // Cut before it was there: the target never hears of it.
      up.start(this.#client, undefined)
      return
    }
    const target = dialWide(to, (bytes) => down.receive(bytes))
    this.#target = target
    this.#open++
    watch(target, down, this.#onClose)
    down.start(undefined, this.#client)
    target.once('connect', () => {
      up.start(this.#client, target)
      down.start(target, this.#client)
    })
    // Also when it never came to that, the other side's end is to be seen.
    target.once('close', () => up.start(this.#client, target))
  }

  cut(how: Cut, towards: Ways = 'both'): void {
    clearTimeout(this.#resetting)
    for (const lane of Object.values(this.#lanes)) lane.drop()
    for (const direction of directions(towards)) {
      this.#told.add(direction)
      const socket = direction === 'up' ? this.#target : this.#client
      if (how === 'rst' && socket) reset(socket)
      else socket?.end()
    }
  }

  abort(): void {
    this.cut('rst')
  }

  blackhole(ways: Ways): void {
    for (const lane of this.#each(ways)) lane.drop()
  }

  stall(ways: Ways): void {
    for (const lane of this.#each(ways)) lane.stall()
  }

  resume(ways: Ways = 'both'): void {
    for (const lane of this.#each(ways)) lane.resume()
  }

  delay(ms: number, ways: Ways = 'both'): void {
    for (const lane of this.#each(ways)) lane.delay(ms)
  }

  fragment(bytes: number, ways: Ways = 'both'): void {
    if (!(bytes >= 1)) throw new RangeError(`fragments of ${bytes} bytes`)
    for (const lane of this.#each(ways)) lane.fragment(Math.floor(bytes))
  }

  at(direction: Direction, offset: number, act: () => void): void {
    this.#lanes[direction].at(offset, act)
  }

  cutAt(direction: Direction, offset: number, how: Cut): void {
    this.at(direction, offset, () => {
      if (how === 'fin') this.cut('fin')
      else this.#resetAfter(this.#lanes[direction])
    })
  }

  corrupt(direction: Direction, offset: number, bits = 1): void {
    this.#lanes[direction].meter.flip(offset, bits)
  }

  #resetAfter(lane: Lane): void {
    for (const each of Object.values(this.#lanes)) each.drop()
    let turns = RESET_AFTER_TURNS
    const wait = (): void => {
      if (this.#told.size > 0) return
      if (turns-- > 0) setImmediate(wait)
      else this.cut('rst')
    }
    lane.whenWritten(() => {
      this.#resetting = setTimeout(wait, RESET_AFTER_MS)
    })
  }

  #each(ways: Ways): Lane[] {
    return directions(ways).map((direction) => this.#lanes[direction])
  }
}

/** What a connection's end means for the lane that reads it. */
function watch(socket: Socket, lane: Lane, onClose: () => void): void {
  onFarEnd(socket, (how) => lane.finish(how))
  socket.on('close', onClose)
}

/** One direction of a link: reads here and writes there. Without faults a chunk is written right out of the buffer. */
class Lane {
  readonly meter = new Meter()
  #from: Socket | undefined
  #to: Socket | undefined
  #flowing = false
  #dropping = false
  #stalled = false
  #delay = 0
  #fragment = Number.POSITIVE_INFINITY
  /** What a delay holds: bytes, and last the end. */
  readonly #delayed = new TimedQueue<Buffer | Cut>((item) => this.#arrive(item, true))
  /** What may go on, and cannot right now. */
  #waiting: Buffer[] = []
  #ending: Cut | undefined
  /** The system still writes out of the buffer that the next read would land in. */
  #borrowed = false
  /** The next fragment. */
  #turn: NodeJS.Immediate | undefined
  #whenWritten: (() => void) | undefined

  get forwarded(): number {
    return this.meter.total
  }

  start(from: Socket | undefined, to: Socket | undefined): void {
    this.#from = from
    this.#to = to
    if (from && to) this.meter.passed()
    this.#pump()
  }

  at(offset: number, act: () => void): void {
    this.meter.at(offset, act)
    if (this.#from && this.#to) this.meter.passed()
  }

  /** Bytes that are valid until the next read. */
  receive(bytes: Buffer): void {
    // A socket that is resumed and paused in one turn may still read once.
    if (!this.#flowing) this.#from?.pause()
    if (!this.#dropping) this.#send(bytes, bytes.length)
    this.adjust()
  }

  /** The side that is read has ended, or is gone. */
  finish(how: Cut): void {
    if (!this.#dropping) this.#send(how, 0)
  }

  drop(): void {
    this.#dropping = true
    this.#stalled = false
    this.#delayed.clear()
    this.#waiting = []
    this.#ending = undefined
    clearImmediate(this.#turn)
    this.#turn = undefined
    this.adjust()
  }

  stall(): void {
    if (!this.#dropping) this.#stalled = true
    this.adjust()
  }

  resume(): void {
    this.#stalled = false
    this.#pump()
  }

  delay(ms: number): void {
    this.#delay = ms
  }

  fragment(bytes: number): void {
    this.#fragment = bytes
    this.#pump()
  }

  /** Calls back when the system has all that was passed on. */
  whenWritten(act: () => void): void {
    if (this.#to && !this.#to.destroyed && this.#to.writableLength > 0) this.#whenWritten = act
    else act()
  }

  /** Reads, or pauses, as things are now. */
  adjust(): void {
    const from = this.#from
    if (!from || from.destroyed) return
    const room = this.#waiting.length === 0 && this.#delayed.bytes < DELAYED_BYTES
    const flow = !this.#borrowed && !this.#stalled && room
    if (flow === this.#flowing) return
    this.#flowing = flow
    if (flow) from.resume()
    else from.pause()
  }

  #send(item: Buffer | Cut, bytes: number): void {
    if (this.#delay === 0 && this.#delayed.empty) this.#arrive(item, false)
    else this.#delayed.push(typeof item === 'string' ? item : Buffer.from(item), bytes, performance.now() + this.#delay)
  }

  #arrive(item: Buffer | Cut, owned: boolean): void {
    if (typeof item === 'string') {
      this.#ending = item
      this.#pump()
    } else if (this.#waiting.length > 0 || this.#held) {
      this.#waiting.push(owned ? item : Buffer.from(item))
      this.#pump()
    } else {
      const rest = this.#write(item)
      // Not before the rest is copied does anybody read again.
      if (rest.length > 0 && !this.#dropping) this.#waiting.push(owned ? rest : Buffer.from(rest))
      this.#borrowed = !owned && this.#busy
      if (this.#waiting.length > 0) this.#pump()
    }
    this.adjust()
  }

  /** Nothing may be written as it comes. */
  get #held(): boolean {
    return !this.#to || this.#stalled || this.#busy || this.#fragment !== Number.POSITIVE_INFINITY
  }

  get #busy(): boolean {
    return this.#to !== undefined && !this.#to.destroyed && this.#to.writableLength > 0
  }

  #pump(): void {
    while (!this.#stalled && !this.#busy && this.#to && this.#turn === undefined) {
      const first = this.#waiting.shift()
      if (!first) break
      const rest = this.#write(first.subarray(0, this.#fragment))
      const left = first.subarray(Math.min(first.length, this.#fragment) - rest.length)
      if (left.length > 0 && !this.#dropping) this.#waiting.unshift(left)
      if (this.#fragment !== Number.POSITIVE_INFINITY) {
        this.#turn = setImmediate(() => {
          this.#turn = undefined
          this.#pump()
        })
      }
    }
    this.#end()
    this.adjust()
  }

  /** Passes the end on: a FIN behind all bytes, a RST also past those that nobody takes. */
  #end(): void {
    if (!this.#ending || !this.#to || this.#stalled) return
    if (this.#ending === 'rst' && (this.#waiting.length === 0 || this.#busy)) reset(this.#to)
    else if (this.#ending === 'fin' && this.#waiting.length === 0) this.#to.end()
    else return
    this.#ending = undefined
  }

  /** Writes up to the next place where something happens, and has it happen. Gives what is left then. */
  #write(bytes: Buffer): Buffer {
    const to = this.#to
    // Nobody is there any more: read, and forgotten.
    if (!to || to.destroyed || to.writableEnded) return bytes.subarray(bytes.length)
    const now = bytes.subarray(0, this.meter.room(bytes.length))
    this.meter.pass(now)
    to.write(now, this.#written)
    this.meter.passed()
    return bytes.subarray(now.length)
  }

  readonly #written = (): void => {
    if (this.#busy) return
    this.#borrowed = false
    const act = this.#whenWritten
    this.#whenWritten = undefined
    act?.()
    this.#pump()
  }
}
