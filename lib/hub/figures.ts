import { IdTable } from '../core/id-table.ts'
import type { Endpoint, SubConnection } from '../core/index.ts'
import type { Connected } from './events.ts'
import type { Totals } from './operations.ts'
import { Slab } from './slab.ts'

/**
 * Sums since the beginning. Connections count when they are opened, bytes when their sub-connection has ended: those of
 * the ones that live are added when somebody asks, so that there is no cost per byte.
 */
export class Sums {
  bytesIn = 0
  bytesOut = 0
  connections = 0

  end(live: Live): void {
    this.bytesIn += live.bytesIn
    this.bytesOut += live.bytesOut
  }

  /** With what lives at this moment. */
  with(lives: Iterable<Live>): Totals {
    let { bytesIn, bytesOut } = this
    let count = 0
    for (const live of lives) {
      bytesIn += live.bytesIn
      bytesOut += live.bytesOut
      count++
    }
    return { bytesIn, bytesOut, connections: this.connections, live: count }
  }
}

/** A sub-connection that lives. There may be very many: no closure, no listener, and no field that is not needed. */
export class Live {
  readonly sub: SubConnection
  readonly instance: Instance
  mapping: MappingRecord | undefined
  /** Among those of the mapping. */
  place = 0
  to: Endpoint | undefined
  /** ms since 1970. */
  readonly created: number = Date.now()
  older: Live | undefined
  newer: Live | undefined

  constructor(sub: SubConnection, instance: Instance, to: Endpoint | undefined) {
    this.sub = sub
    this.instance = instance
    this.to = to
  }

  /**
   * `in` is from the visitor towards the target. The visitor is on the side that opens: where this side has opened, `in`
   * is what it has written, and where the peer has, what came from there. A dial is no exception: whoever dials visits.
   */
  get bytesIn(): number {
    return this.instance.opens(this.sub.id) ? this.sub.bytesWritten : this.sub.bytesRead
  }

  get bytesOut(): number {
    return this.instance.opens(this.sub.id) ? this.sub.bytesRead : this.sub.bytesWritten
  }
}

/** One that this side has opened in a main connection which goes through the peer, for a mapping. */
export class RelayedLive extends Live {
  override get bytesIn(): number {
    return this.sub.bytesWritten
  }

  override get bytesOut(): number {
    return this.sub.bytesRead
  }
}

/** All that live, chained by age: the newest are found without a look at the others. */
export class Ages implements Iterable<Live> {
  #newest: Live | undefined

  add(live: Live): void {
    live.older = this.#newest
    if (this.#newest) this.#newest.newer = live
    this.#newest = live
  }

  delete(live: Live): void {
    if (live.older) live.older.newer = live.newer
    if (live.newer) live.newer.older = live.older
    else this.#newest = live.older
    live.older = undefined
    live.newer = undefined
  }

  /** The newest first. */
  *[Symbol.iterator](): Generator<Live, void, undefined> {
    for (let live = this.#newest; live; live = live.older) yield live
  }
}

/** One main connection. */
export class Instance {
  readonly peer: Connected
  readonly node: NodeRecord
  readonly sums: Sums = new Sums()
  /** By the id of the sub-connection. */
  readonly lives: IdTable<Live> = new IdTable()
  resumes = 0
  /** Nothing is opened in it any more. */
  over = false
  readonly #parity: number

  constructor(peer: Connected, node: NodeRecord) {
    this.peer = peer
    this.node = node
    this.#parity = peer.proxy.main.role === 'dialler' ? 1 : 0
  }

  /** Whether the sub-connection with this id was opened by this side: ids are odd from the dialler, even from the acceptor. */
  opens(id: number): boolean {
    return id % 2 === this.#parity
  }
}

/** A day, in ms: so far back a clock may be set without another month beginning. */
const DAY = 86_400_000

/** Which calendar month it is in UTC, as `2026-11`. */
export class Calendar {
  readonly #now: () => number
  #month = ''
  #begins = Number.POSITIVE_INFINITY
  #ends = Number.NEGATIVE_INFINITY

  /** `now`: in ms since 1970. */
  constructor(now: () => number = () => Date.now()) {
    this.#now = now
  }

  /** The same one goes on where the clock is set back a little. */
  get month(): string {
    const now = this.#now()
    if (now >= this.#ends || now < this.#begins - DAY) {
      const date = new Date(now)
      const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()]
      this.#begins = Date.UTC(year, month)
      this.#ends = Date.UTC(year, month + 1)
      this.#month = `${year}-${String(month + 1).padStart(2, '0')}`
    }
    return this.#month
  }
}

/** What of the bytes of an entry is of this month. */
export class Monthly {
  #of: string
  /** Those of all months before. */
  #before: number

  constructor(of: string, before: number) {
    this.#of = of
    this.#before = before
  }

  /** `total`: all bytes so far. */
  used(month: string, total: number): number {
    if (month !== this.#of) {
      this.#of = month
      this.#before = total
    }
    return Math.max(0, total - this.#before)
  }
}

/** What is kept about something that connects: when it first did and last did, in ms since 1970, and its sums. */
interface Entry {
  readonly id: string
  readonly first: number
  last: number
  readonly sums: Sums
  monthly: Monthly
  /** Must not be forgotten now. */
  readonly busy: boolean
}

export class NodeRecord implements Entry {
  readonly id: string
  readonly first: number
  last: number
  readonly sums: Sums = new Sums()
  /** Main connections over time, and links taken over within them. */
  mains = 0
  resumes = 0
  readonly instances: Set<Instance> = new Set()
  monthly: Monthly

  constructor(id: string, first: number, month: string) {
    this.id = id
    this.monthly = new Monthly(month, 0)
    this.first = first
    this.last = first
  }

  get busy(): boolean {
    return this.instances.size > 0
  }

  *lives(): Generator<Live, void, undefined> {
    for (const { lives } of this.instances) yield* lives.values()
  }
}

export class MappingRecord implements Entry {
  readonly id: string
  readonly first: number
  last: number
  readonly sums: Sums = new Sums()
  readonly alive: Slab<Live> = new Slab()
  monthly: Monthly

  constructor(id: string, first: number, month: string) {
    this.id = id
    this.monthly = new Monthly(month, 0)
    this.first = first
    this.last = first
  }

  get busy(): boolean {
    return this.alive.size > 0
  }

  lives(): Iterable<Live> {
    return this.alive
  }
}

/** So many at most: what connected least recently is forgotten first, and nothing that is in use. */
export class Table<T extends Entry> implements Iterable<T> {
  readonly limit: number
  readonly #entries = new Map<string, T>()

  constructor(limit: number) {
    this.limit = limit
  }

  get(id: string): T | undefined {
    return this.#entries.get(id)
  }

  add(entry: T): T {
    while (this.#entries.size >= this.limit) {
      const oldest = this.#leastRecent()
      if (!oldest) break
      this.#entries.delete(oldest.id)
    }
    this.#entries.set(entry.id, entry)
    return entry
  }

  delete(id: string): void {
    this.#entries.delete(id)
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#entries.values()
  }

  #leastRecent(): T | undefined {
    let oldest: T | undefined
    for (const entry of this.#entries.values()) {
      if (!entry.busy && (!oldest || entry.last < oldest.last)) oldest = entry
    }
    return oldest
  }
}
