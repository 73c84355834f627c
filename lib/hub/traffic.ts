import { isDeepStrictEqual } from 'node:util'
import { type Admitted, type ErrorCode, ProxyError, type SubConnection, type Throttle } from '../core/index.ts'
import { QuotaMeter } from '../policy/quota-meter.ts'
import { Throttled, TokenBucket } from '../policy/token-bucket.ts'
import type { FlowLimits, LimitKind, Refusals, TrafficLimits } from '../policy/traffic-limits.ts'
import { customerOf, ipOf, NetSet } from '../sockets/ip.ts'
import { Slab } from './slab.ts'

/** New connections that may come at once after a pause, in ms of their rate. */
const RATE_BURST = 1000
/** Visitors that are remembered while they have nothing open. */
const MAX_VISITORS = 10_000
const FIRST_SWEEP = 256
/** A visitor without an address, as of a Unix socket: all of them are one. */
const NOBODY = 'none'

const CODES: Readonly<Record<LimitKind, ErrorCode>> = {
  denied: 'PROXY_ERR_VISITOR_DENIED',
  quota: 'PROXY_ERR_QUOTA',
  connections: 'PROXY_ERR_TOO_MANY_CONNECTIONS',
  'visitor-connections': 'PROXY_ERR_TOO_MANY_CONNECTIONS',
  rate: 'PROXY_ERR_RATE',
  'visitor-rate': 'PROXY_ERR_RATE',
}
const LIMITED: ReadonlySet<string> = new Set(Object.values(CODES))

/** Whether somebody was refused by limits: that is told by itself, and not for each of them. */
export function isLimited(error: unknown): boolean {
  return error instanceof ProxyError && LIMITED.has(error.code)
}

/** What a visitor shares with all of its others: an IPv4 address, or a /64 of IPv6. */
export function visitorOf(from: string | undefined): string {
  const ip = ipOf(from)
  return ip ? customerOf(ip) : NOBODY
}

export interface TrafficOptions {
  /** For people: `mapping 3`, `node shop`. */
  readonly name: string
  readonly limits: TrafficLimits | undefined
  /** Bytes of this month so far. Default: those that it has counted itself. */
  readonly used?: (() => number) | undefined
  readonly onRefused?: ((kind: LimitKind, from: string | undefined) => void) | undefined
  /** Clocks that never go back, and of the day, in ms. */
  readonly now?: (() => number) | undefined
}

/** What one visitor has, of one mapping or node. */
class Visitor {
  readonly rate: TokenBucket | undefined
  readonly in: TokenBucket | undefined
  readonly out: TokenBucket | undefined
  /** Those who count, and the sub-connections that are for it. */
  open = 0
  flows = 0

  constructor(limits: FlowLimits, now: (() => number) | undefined) {
    const { rate, in: inward, out } = limits
    this.rate = rate === undefined ? undefined : new TokenBucket(rate, { now, burst: RATE_BURST })
    this.in = inward === undefined ? undefined : new TokenBucket(inward, { now })
    this.out = out === undefined ? undefined : new TokenBucket(out, { now })
  }

  get unused(): boolean {
    return this.open === 0 && this.flows === 0
  }

  /** It has nothing open, and a new one would be the same. */
  get idle(): boolean {
    return this.unused && [this.rate, this.in, this.out].every((bucket) => bucket?.idle !== false)
  }
}

/** Somebody who was let in: it counts until it leaves. */
class Entry implements Admitted {
  readonly #traffic: Traffic
  readonly from: string | undefined
  /** A visitor is behind it. */
  readonly visits: boolean
  /** Where visitors are limited. */
  visitor: Visitor | undefined
  /** Among those who are here. */
  place = 0
  #left = false

  constructor(traffic: Traffic, from: string | undefined, visits: boolean, visitor: Visitor | undefined) {
    this.#traffic = traffic
    this.from = from
    this.visits = visits
    this.visitor = visitor
  }

  get sharing(): string {
    return this.#traffic.pacesVisitors ? visitorOf(this.from) : ''
  }

  leave(): void {
    if (this.#left) return
    this.#left = true
    this.#traffic.left(this)
  }
}

export type { Entry }

/**
 * What goes through one mapping or one node, as far as it is limited. It counts whoever comes also while nothing is limited:
 * limits may come while they are here.
 */
export class Traffic {
  readonly #refusals: Refusals
  readonly #options: TrafficOptions
  #limits: TrafficLimits = {}
  #allow: NetSet | undefined
  #deny: NetSet | undefined
  #rate: TokenBucket | undefined
  #in: TokenBucket | undefined
  #out: TokenBucket | undefined
  #meter: QuotaMeter | undefined
  readonly #entries = new Slab<Entry>()
  readonly #visitors = new Map<string, Visitor>()
  #sweepAt = FIRST_SWEEP
  readonly #flows = new Slab<Followed>()

  /** `refusals`: to go on with. */
  constructor(options: TrafficOptions, refusals: Refusals = {}) {
    this.#options = options
    this.#refusals = refusals
    this.become(options.limits)
  }

  /** How many were refused, since the start; undefined if nobody was. */
  get refusals(): Readonly<Refusals> | undefined {
    return Object.keys(this.#refusals).length > 0 ? this.#refusals : undefined
  }

  /** Other limits, for what is open too. */
  become(limits: TrafficLimits = {}): void {
    const before = this.#limits
    if (isDeepStrictEqual(before, limits)) return
    const { now } = this.#options
    this.#limits = limits
    this.#allow = limits.allow && new NetSet(limits.allow)
    this.#deny = limits.deny && new NetSet(limits.deny)
    const bucket = (
      rate: number | undefined,
      was: TokenBucket | undefined,
      burst?: number,
    ): TokenBucket | undefined => {
      if (rate === undefined) return undefined
      return was?.rate === rate ? was : new TokenBucket(rate, { now, burst })
    }
    this.#rate = bucket(limits.rate, this.#rate, RATE_BURST)
    this.#in = bucket(limits.in, this.#in)
    this.#out = bucket(limits.out, this.#out)
    if (limits.quota !== before.quota) this.#meter = this.#meterOf(limits.quota)
    if (!isDeepStrictEqual(limits.visitor, before.visitor)) this.#limitVisitors()
    for (const { flow } of this.#flows) flow.pace()
  }

  #meterOf(quota: number | undefined): QuotaMeter | undefined {
    if (quota === undefined) return undefined
    const { used, now } = this.#options
    return new QuotaMeter(quota, { used, now, onUsedUp: () => this.#endAll() })
  }

  /** Those who are here count for the new limits as well. */
  #limitVisitors(): void {
    this.#visitors.clear()
    for (const entry of this.#entries) {
      if (!entry.visits) continue
      entry.visitor = this.#visitorOf(entry.from)
      if (entry.visitor) entry.visitor.open++
    }
    for (const followed of this.#flows) {
      followed.visitor = this.#pacing(followed.flow)
      if (followed.visitor) followed.visitor.flows++
    }
  }

  /** Whether bytes of each visitor are limited: they need sub-connections of their own then. */
  get pacesVisitors(): boolean {
    const { visitor } = this.#limits
    return visitor?.in !== undefined || visitor?.out !== undefined
  }

  /** Whether bytes are limited at all. */
  get paces(): boolean {
    return this.#in !== undefined || this.#out !== undefined || this.#meter !== undefined || this.pacesVisitors
  }

  // --- who comes ---

  /**
   * Lets somebody in, who counts until it leaves.
   *
   * @throws ProxyError PROXY_ERR_VISITOR_DENIED, PROXY_ERR_QUOTA, PROXY_ERR_TOO_MANY_CONNECTIONS, PROXY_ERR_RATE
   */
  enter(from: string | undefined): Entry {
    const { visitor: each } = this.#limits
    if (!this.#mayCome(from)) this.#refuse('denied', from)
    this.#assertRoom(from)
    const visitor = this.#visitorOf(from)
    if (visitor && visitor.open >= (each?.connections ?? Number.POSITIVE_INFINITY)) {
      this.#refuse('visitor-connections', from)
    }
    // Who comes too often by itself takes nothing of what is for all.
    if (visitor?.rate && !visitor.rate.has(1)) this.#refuse('visitor-rate', from)
    if (this.#rate && !this.#rate.tryTake(1)) this.#refuse('rate', from)
    visitor?.rate?.take(1)
    if (visitor) visitor.open++
    return this.#add(new Entry(this, from, true, visitor))
  }

  /**
   * Counts something that no visitor of this side is behind.
   *
   * @throws ProxyError PROXY_ERR_QUOTA, PROXY_ERR_TOO_MANY_CONNECTIONS
   */
  join(): Entry {
    this.#assertRoom(undefined)
    return this.#add(new Entry(this, undefined, false, undefined))
  }

  #add(entry: Entry): Entry {
    entry.place = this.#entries.add(entry)
    return entry
  }

  #assertRoom(from: string | undefined): void {
    const { connections } = this.#limits
    if (this.#meter?.usedUp) this.#refuse('quota', from)
    if (connections !== undefined && this.#entries.size >= connections) this.#refuse('connections', from)
  }

  left(entry: Entry): void {
    this.#entries.remove(entry.place)
    if (entry.visitor) entry.visitor.open--
  }

  /** Who has no address is on no list. */
  #mayCome(from: string | undefined): boolean {
    if (!this.#allow && !this.#deny) return true
    const ip = ipOf(from)
    if (!ip) return this.#allow === undefined
    return this.#deny?.has(ip) !== true && this.#allow?.has(ip) !== false
  }

  #refuse(kind: LimitKind, from: string | undefined): never {
    this.#refusals[kind] = (this.#refusals[kind] ?? 0) + 1
    this.#options.onRefused?.(kind, from)
    throw this.#problem(kind)
  }

  #problem(kind: LimitKind): ProxyError {
    const { name } = this.#options
    const { connections, rate, quota, visitor } = this.#limits
    const text: Record<LimitKind, string> = {
      denied: `${name} is not for this address`,
      quota: `the ${quota} bytes of ${name} for this month are used up`,
      connections: `${name} has ${connections} connections already`,
      'visitor-connections': `this address has ${visitor?.connections} connections to ${name} already`,
      rate: `${name} takes ${rate} new connections per second`,
      'visitor-rate': `${name} takes ${visitor?.rate} new connections per second of one address`,
    }
    return new ProxyError(CODES[kind], text[kind], { retryable: kind !== 'denied' && kind !== 'quota' })
  }

  #visitorOf(from: string | undefined): Visitor | undefined {
    const { visitor: limits } = this.#limits
    if (!limits) return undefined
    const key = visitorOf(from)
    const known = this.#visitors.get(key)
    if (known) return known
    if (this.#visitors.size >= this.#sweepAt) this.#sweep()
    const visitor = new Visitor(limits, this.#options.now)
    this.#visitors.set(key, visitor)
    return visitor
  }

  /** Forgets those who have nothing here any more; of too many, those who came first. */
  #sweep(): void {
    for (const [key, visitor] of this.#visitors) if (visitor.idle) this.#visitors.delete(key)
    for (const [key, visitor] of this.#visitors) {
      if (this.#visitors.size < MAX_VISITORS) break
      if (visitor.unused) this.#visitors.delete(key)
    }
    this.#sweepAt = Math.max(FIRST_SWEEP, Math.min(this.#visitors.size * 2, this.#visitors.size + MAX_VISITORS / 10))
  }

  /** Visitors that are remembered. */
  get visitors(): number {
    return this.#visitors.size
  }

  // --- what goes through ---

  follow(flow: Flow): Followed {
    const followed: Followed = { flow, visitor: this.#pacing(flow), place: 0 }
    if (followed.visitor) followed.visitor.flows++
    followed.place = this.#flows.add(followed)
    return followed
  }

  unfollow({ visitor, place }: Followed): void {
    if (visitor) visitor.flows--
    this.#flows.remove(place)
  }

  #pacing(flow: Flow): Visitor | undefined {
    return flow.alone && this.pacesVisitors ? this.#visitorOf(flow.from) : undefined
  }

  throttles(direction: 'in' | 'out', { visitor }: Followed): (TokenBucket | QuotaMeter)[] {
    const all = [visitor?.[direction], direction === 'in' ? this.#in : this.#out, this.#meter]
    return all.filter((throttle) => throttle !== undefined)
  }

  /** The quota is used up: what is open ends too. Not in the middle of what one of them is doing. */
  #endAll(): void {
    setImmediate(() => {
      const usedUp = this.#meter?.usedUp === true
      for (const { flow } of [...this.#flows]) {
        if (usedUp) flow.end(this.#problem('quota'))
        // Meanwhile somebody gave bytes back, or a month has ended: whoever was stopped goes on.
        else flow.pace()
      }
    })
  }
}

/** A flow as one of those that it has to do with knows it. */
interface Followed {
  readonly flow: Flow
  /** Whose limits hold for it. */
  visitor: Visitor | undefined
  place: number
}

/** What a sub-connection is opened for. */
export interface Carried {
  readonly from: string | undefined
  /** The mapping that it belongs to, and the node that it goes through. */
  readonly traffics: readonly Traffic[]
  /** They leave with it. */
  readonly entries: readonly Pick<Entry, 'leave'>[]
  /** Whether the visitor is on this side, as of what this side has opened. */
  readonly opened: boolean
  /** Whether it is for one visitor only. */
  readonly alone: boolean
}

/** One sub-connection, and all that it has to keep to. There may be very many. */
export class Flow {
  readonly #sub: SubConnection
  readonly #carried: Carried
  /** One for each traffic. */
  #followed: readonly Followed[] = []

  constructor(sub: SubConnection, carried: Carried) {
    this.#sub = sub
    this.#carried = carried
    if (sub.closed) {
      this.#over()
      return
    }
    this.#followed = carried.traffics.map((traffic) => traffic.follow(this))
    this.pace()
    sub.on('close', () => this.#over())
  }

  get from(): string | undefined {
    return this.#carried.from
  }

  get alone(): boolean {
    return this.#carried.alone
  }

  pace(): void {
    const sub = this.#sub
    const { traffics, opened } = this.#carried
    if (!sub.throttles && !traffics.some(({ paces }) => paces)) return
    const [inward, out] = [this.#throttle('in'), this.#throttle('out')]
    sub.throttle(opened ? { sent: inward, received: out } : { sent: out, received: inward })
  }

  end(reason: ProxyError): void {
    this.#sub.destroy(reason)
  }

  #throttle(direction: 'in' | 'out'): Throttle | undefined {
    const { traffics } = this.#carried
    return Throttled.by(this.#followed.flatMap((followed, at) => traffics[at]?.throttles(direction, followed) ?? []))
  }

  #over(): void {
    const { traffics, entries } = this.#carried
    this.#followed.forEach((followed, at) => {
      traffics[at]?.unfollow(followed)
    })
    for (const entry of entries) entry.leave()
  }
}
