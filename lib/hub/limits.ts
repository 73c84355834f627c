import type { DomainPlugin, ListenContext, SubConnection } from '../core/index.ts'
import type { LimitKind, Refusals, TrafficLimits } from '../policy/traffic-limits.ts'
import type { Connected, OnEvent } from './events.ts'
import { type Carried, type Entry, Flow, isLimited, Traffic } from './traffic.ts'

/** Refusals of one kind are told once in so many ms, with their number. */
const TOLD_EVERY = 60_000
/** Kinds that are told of at once: nodes under the shared secret choose their ids. */
const MAX_TOLD = 1000
/** Nodes whose refusals are remembered. */
const MAX_NODES = 10_000

/** What holds for each node over all that goes through it: `Identities`. */
export interface NodeLimits {
  /** Of the node that is called so; undefined if nothing does. */
  limitsOf(id: string): TrafficLimits | undefined
  /** Calls `listener` when they change, without an id if those of many do, until the returned function is called. */
  onLimits(listener: (id: string | undefined) => void): () => void
}

/** Bytes of this calendar month (UTC), both directions together: `Statistics`. */
export interface Usage {
  ofMapping(id: string): number
  ofNode(id: string, enrolled: boolean): number
}

export interface LimiterOptions {
  readonly nodeLimits?: NodeLimits | undefined
  /** Default: quotas begin anew with each start. */
  readonly usage?: Usage | undefined
  readonly onEvent?: OnEvent | undefined
  /** A clock in ms that never goes back. Default `performance.now`. */
  readonly now?: (() => number) | undefined
}

type About = { readonly mapping: string } | { readonly node: string }

interface Told {
  readonly about: About
  readonly kind: LimitKind
  /** Those that came since. */
  count: number
  from: string | undefined
}

/** Sees to it that the limits of mappings and nodes hold, for whatever goes through. */
export class Limiter {
  readonly #options: LimiterOptions
  readonly #nodes = new Map<string, { readonly traffic: Traffic; readonly peers: Set<Connected> }>()
  readonly #refusals = new Map<string, Refusals>()
  readonly #told = new Map<string, Told>()
  #timer: NodeJS.Timeout | undefined
  #closed = false
  #nodesPaceVisitors = false
  readonly #unsubscribe: (() => void) | undefined

  constructor(options: LimiterOptions = {}) {
    this.#options = options
    this.#unsubscribe = options.nodeLimits?.onLimits((id) => this.#onLimits(id))
  }

  /** Nothing is told any more; what holds goes on to hold. */
  close(): void {
    this.#unsubscribe?.()
    this.#flush()
    this.#closed = true
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** What goes through a mapping: to be told when its limits change. */
  mapping(id: string, limits: TrafficLimits | undefined): Traffic {
    const { usage, now } = this.#options
    return new Traffic({
      ...{ name: `mapping ${id}`, limits, now },
      used: usage && (() => usage.ofMapping(id)),
      onRefused: (kind, from) => this.#onRefused({ mapping: id }, kind, from),
    })
  }

  /** What goes through all instances of a node. */
  node(peer: Connected): Traffic {
    const key = keyOf(peer)
    const known = this.#nodes.get(key)
    if (known?.peers.has(peer)) return known.traffic
    const node = known ?? { traffic: this.#makeNode(peer, key), peers: new Set() }
    this.#nodes.set(key, node)
    node.peers.add(peer)
    this.#nodesPaceVisitors ||= node.traffic.pacesVisitors
    void peer.proxy.closed.then(() => {
      node.peers.delete(peer)
      if (node.peers.size === 0) this.#nodes.delete(key)
    })
    return node.traffic
  }

  #makeNode({ id, enrolled }: Connected, key: string): Traffic {
    const { nodeLimits, usage, now } = this.#options
    const refusals = this.#refusals.get(key) ?? {}
    return new Traffic(
      {
        ...{ name: `node ${id}`, limits: nodeLimits?.limitsOf(id), now },
        used: usage && (() => usage.ofNode(id, enrolled)),
        onRefused: (kind, from) => {
          this.#remember(key, refusals)
          this.#onRefused({ node: id }, kind, from)
        },
      },
      refusals,
    )
  }

  /** How many were refused at a node, since the start. */
  refusedAt(node: { readonly id: string; readonly enrolled: boolean }): Readonly<Refusals> | undefined {
    return this.#refusals.get(keyOf(node))
  }

  #remember(key: string, refusals: Refusals): void {
    this.#refusals.set(key, refusals)
    if (this.#refusals.size <= MAX_NODES) return
    for (const first of this.#refusals.keys()) {
      this.#refusals.delete(first)
      return
    }
  }

  #onLimits(id: string | undefined): void {
    for (const { traffic, peers } of this.#nodes.values()) {
      for (const peer of peers) {
        if (id === undefined || peer.id === id) traffic.become(this.#options.nodeLimits?.limitsOf(peer.id))
        break
      }
    }
    this.#nodesPaceVisitors = [...this.#nodes.values()].some(({ traffic }) => traffic.pacesVisitors)
  }

  /** Whether a node limits the bytes of each visitor, as far as is known. */
  get nodesPaceVisitors(): boolean {
    return this.#nodesPaceVisitors
  }

  // --- listeners of nodes ---

  /** The same domains, for listeners of this node. */
  guard(domains: readonly DomainPlugin[], peer: () => Connected): DomainPlugin[] {
    return domains.map((plugin): DomainPlugin => {
      const { name, carries, listen, resolve, dial } = plugin
      // Who joins a channel has its password, and no address here.
      const visited = name !== 'channel'
      return {
        ...{ name, carries },
        ...(listen && { listen: (at, context) => listen.call(plugin, at, this.#guarded(context, peer(), visited)) }),
        ...(resolve && { resolve: (to, options) => resolve.call(plugin, to, options) }),
        ...(dial && { dial: (to, context) => dial.call(plugin, to, context) }),
      }
    })
  }

  #guarded(context: ListenContext, peer: Connected, visited: boolean): ListenContext {
    const traffic = this.node(peer)
    const enter = (from: string | undefined): Entry => (visited ? traffic.enter(from) : traffic.join())
    return {
      ...context,
      admit: enter,
      open: async ({ to, from, admitted, alone = admitted?.sharing !== '' } = {}) => {
        const entries = admitted ? [] : [enter(from)]
        const carried = { from, traffics: [traffic], entries, opened: true, alone }
        return await carry(carried, () => context.open({ to, from }))
      },
    }
  }

  /**
   * The peer has opened a sub-connection: it is its visitor, or dials by itself. It is not asked who that is.
   */
  opened(sub: SubConnection, peer: Connected): void {
    const traffic = this.node(peer)
    try {
      new Flow(sub, { from: undefined, traffics: [traffic], entries: [traffic.join()], opened: false, alone: false })
    } catch (error) {
      if (!isLimited(error)) throw error
      sub.destroy(error instanceof Error ? error : undefined)
    }
  }

  // --- what is told ---

  #onRefused(about: About, kind: LimitKind, from: string | undefined): void {
    if (this.#closed) return
    const key = `${JSON.stringify(about)} ${kind}`
    const told = this.#told.get(key)
    if (told) {
      told.count++
      told.from = from
      return
    }
    if (this.#told.size >= MAX_TOLD) return
    this.#told.set(key, { about, kind, count: 0, from })
    this.#options.onEvent?.({ type: 'limited', ...about, kind, from, count: 1 })
    this.#timer ??= setInterval(() => this.#flush(), TOLD_EVERY).unref()
  }

  #flush(): void {
    for (const [key, told] of this.#told) {
      const { about, kind, count, from } = told
      if (count === 0) this.#told.delete(key)
      else this.#options.onEvent?.({ type: 'limited', ...about, kind, from, count })
      told.count = 0
    }
    if (this.#told.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** What is opened keeps to the limits, and is what those who were let in are here for. */
export async function carry(carried: Carried, open: () => Promise<SubConnection>): Promise<SubConnection> {
  try {
    const sub = await open()
    new Flow(sub, carried)
    return sub
  } catch (error) {
    for (const entry of carried.entries) entry.leave()
    throw error
  }
}

function keyOf({ id, enrolled }: { readonly id: string; readonly enrolled: boolean }): string {
  return `${enrolled ? 'enrolled' : 'other'} ${id}`
}
