import { setMaxListeners } from 'node:events'
import {
  type Admitted,
  type Domains,
  type Endpoint,
  type Listener,
  type OpenOptions,
  ProxyError,
  type SubConnection,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'
import { Guest } from './guest.ts'
import type { HealthChecks } from './health.ts'
import { carry, type Limiter } from './limits.ts'
import { shownHttp } from './mapping-http.ts'
import { keyOf, type MappingSettings } from './mapping-request.ts'
import type { Balance, MappingStatus, Totals } from './operations.ts'
import { PATIENCE, type Pool } from './pool.ts'
import type { Relay } from './relay.ts'
import { isLimited, type Traffic } from './traffic.ts'

export type Source = MappingStatus['source']

/** What a sub-connection is for that a mapping has opened. */
export interface Opened {
  /** The id of the mapping. */
  readonly mapping: string
  readonly peer: Connected
  /** Who came in. */
  readonly from: string | undefined
  readonly to: Endpoint
  /** It is none of the peer's own, but in a main connection that goes through one of these: a channel. */
  readonly relayed?: boolean | undefined
}

/** What others keep about mappings. */
export interface MappingHooks {
  /** Called for every sub-connection that a mapping opens, before it has connected. */
  readonly onOpened?: ((sub: SubConnection, opened: Opened) => void) | undefined
  /** What is known about the traffic of a mapping, by its id. */
  readonly figures?:
    | ((
        mapping: string,
      ) => Pick<MappingStatus, 'totals' | 'firstConnected' | 'lastConnected' | 'quotaUsed'> | undefined)
    | undefined
}

/** What all mappings of a table share. */
export interface MappingContext extends MappingHooks {
  readonly domains: Domains
  readonly pool: Pool
  readonly relay?: Relay | undefined
  readonly health: HealthChecks
  readonly limiter: Limiter
  readonly onEvent: OnEvent
  /** For those that say nothing about it. */
  readonly balance: Balance
}

export interface MappingIdentity {
  readonly id: string
  readonly source: Source
  readonly created: string
}

const NO_TOTALS: Totals = { bytesIn: 0, bytesOut: 0, connections: 0, live: 0 }
/** Where that many serve a mapping, its status names no more. */
const MAX_TARGETS = 100

/** One mapping of this side: its listener, and which of its nodes serves a connection that comes in. */
export class LiveMapping implements MappingIdentity {
  readonly id: string
  readonly source: Source
  readonly created: string
  /** See `keyOf`: it stays what it is, whatever else changes. */
  readonly key: string
  readonly #context: MappingContext
  readonly #traffic: Traffic
  #settings: MappingSettings
  #listener: Listener | undefined
  #binding: Promise<ProxyError | undefined> | undefined
  /** Fires when what waits for a node here need not wait any more. */
  #over = new AbortController()
  #stopChecks: (() => void) | undefined
  #problem = 'it does not listen yet'
  /** Sub-connections that are open, by instance. */
  readonly #open = new Map<Connected, number>()
  /** What the last checks found wrong. */
  readonly #unwell = new WeakMap<Connected, string>()
  #waiting = 0
  #turn = 0

  constructor({ id, source, created }: MappingIdentity, settings: MappingSettings, context: MappingContext) {
    this.id = id
    this.source = source
    this.created = created
    this.key = keyOf(settings)
    this.#settings = settings
    this.#context = context
    this.#traffic = context.limiter.mapping(id, settings.limits)
  }

  get settings(): MappingSettings {
    return this.#settings
  }

  get spec(): Spec {
    const { Listen, Forward, nodes } = this.#settings
    const [only, another] = nodes
    return { Listen, Forward, ...(only !== undefined && another === undefined ? { Node: only } : {}) }
  }

  get bound(): Endpoint | undefined {
    return this.#listener?.bound
  }

  /** Whether it should listen, and does not. */
  get failed(): boolean {
    return this.#settings.enabled && !this.#listener
  }

  /** Takes other settings, but for where it listens: what is open goes on, what comes now goes by the new ones. */
  change(settings: MappingSettings): void {
    const { health } = this.#settings
    this.#settings = settings
    this.#traffic.become(settings.limits)
    if (health?.interval === settings.health?.interval && health?.timeout === settings.health?.timeout) return
    this.#stopChecks?.()
    this.#stopChecks = undefined
    if (this.#listener) this.#startChecks(false)
  }

  /**
   * Listens, unless it does. `checkNow`: its targets too, if they are to be checked.
   *
   * @throws ProxyError, PROXY_ERR_LISTEN_FAILED in most cases
   */
  async listen(checkNow: boolean): Promise<void> {
    // One that was given up may still have the port for a moment.
    while (this.#binding) await this.#binding
    if (this.#listener) return
    this.#binding = this.#bind()
    const failure = await this.#binding
    if (failure) throw failure
    if (this.#listener) this.#startChecks(checkNow)
  }

  /** Answers why not, if it cannot. */
  async #bind(): Promise<ProxyError | undefined> {
    const over = new AbortController()
    this.#over = over
    setMaxListeners(0, over.signal)
    try {
      // The operator of this side wants it: there is nobody to ask.
      const listener = await this.#context.domains.listen(this.#settings.Listen, false, {
        signal: over.signal,
        name: this.id,
        settings: () => this.#settings.http,
        forward: () => this.#settings.Forward,
        admit: (from) => this.#admit(from),
        open: (options = {}) => this.#serve(options, over.signal),
      })
      if (over.signal.aborted) {
        await listener.close()
        return new ProxyError('PROXY_ERR_ABORTED', 'the mapping was closed meanwhile')
      }
      this.#listener = listener
      return undefined
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
      this.#problem = reason.message
      return reason
    } finally {
      this.#binding = undefined
    }
  }

  /** Stops listening. What is open goes on, and what waits for a node is given up. */
  async unlisten(): Promise<void> {
    this.#over.abort()
    this.#stopChecks?.()
    this.#stopChecks = undefined
    const listener = this.#listener
    this.#listener = undefined
    const closed = listener?.close()
    while (this.#binding) await this.#binding
    await closed
  }

  // --- connections ---

  /** For what counts by itself, and not as what is opened for it. */
  #admit(from: string | undefined): Admitted {
    const { limiter, pool } = this.#context
    const guest = new Guest(this.#traffic, limiter, from)
    try {
      const peer = pool.pick(this.#wanted)
      if (peer) guest.goTo(peer)
      return guest
    } catch (error) {
      guest.leave()
      throw error
    }
  }

  /** `to`: where the listener itself knows. */
  async #serve({ to, from, admitted, alone }: OpenOptions, over: AbortSignal): Promise<SubConnection> {
    const { pool, relay, limiter, onEvent, onOpened } = this.#context
    const forward = this.#settings.Forward
    let guest: Guest | undefined
    try {
      const known = admitted instanceof Guest ? admitted : undefined
      guest = known ?? new Guest(this.#traffic, limiter, from)
      const chosen = known?.peer
      const peer = chosen && pool.serves(chosen) ? chosen : (pool.pick(this.#wanted) ?? (await this.#wait(over)))
      guest.goTo(peer)
      const there = to ?? forward
      const relayed = relay?.serves(forward) ?? false
      const use = new Use(this.#open, peer)
      const carried = {
        from,
        traffics: [this.#traffic, limiter.node(peer)],
        entries: known ? [use] : [guest, use],
        opened: true,
        alone: alone ?? known?.alone ?? true,
      }
      const sub = await carry(carried, () =>
        relay && relayed ? this.#openThrough(relay, peer, to, from) : peer.proxy.open({ to: there, from }),
      )
      // Of what is in a channel only the kind and the address are for others to know.
      const shown = relayed ? { Domain: there.Domain, Addr: there.Addr } : there
      onOpened?.(sub, { mapping: this.id, peer, from, to: shown, relayed })
      return sub
    } catch (error) {
      if (guest !== admitted) guest?.leave()
      const reason = ProxyError.from(error, 'PROXY_ERR_NO_PEER')
      // Told by themselves, and not one by one.
      if (isLimited(reason)) throw reason
      onEvent({ type: 'unserved', spec: this.spec, from, reason, mapping: this.id })
      throw reason
    }
  }

  /** What is opened there is none of the peer's own sub-connections, and does not count as one. */
  #openThrough(
    relay: Relay,
    peer: Connected,
    to: Endpoint | undefined,
    from: string | undefined,
  ): Promise<SubConnection> {
    const { Listen, Forward } = this.#settings
    return relay.open(Forward, { to, from, carries: this.#context.domains.carries(Listen) }, peer)
  }

  async #wait(over: AbortSignal): Promise<Connected> {
    const { pool } = this.#context
    const { wait = PATIENCE } = this.#settings
    // A mapping whose node is away takes half of what the others have left, and never all of it.
    const patience = this.#waiting < pool.room ? wait : 0
    this.#waiting++
    try {
      return await pool.wait(this.#wanted, over, patience)
    } finally {
      this.#waiting--
    }
  }

  get #wanted(): { ids: readonly string[]; prefer: (able: Iterable<Connected>) => Connected | undefined } {
    return { ids: this.#settings.nodes, prefer: this.#prefer }
  }

  readonly #prefer = (able: Iterable<Connected>): Connected | undefined => {
    const { balance = this.#context.balance, health } = this.#settings
    const well: Connected[] = []
    const unwell: Connected[] = []
    for (const peer of able) {
      const ill = health !== undefined && this.#unwell.has(peer)
      if (balance === 'first' && !ill) return peer
      ;(ill ? unwell : well).push(peer)
    }
    // If none is well, a visitor may as well try.
    const among = well.length > 0 ? well : unwell
    if (balance === 'first') return among[0]
    if (balance === 'round-robin') return among[this.#turn++ % Math.max(1, among.length)]
    return least(among, (peer) => this.#open.get(peer) ?? 0)
  }

  // --- health ---

  #startChecks(now: boolean): void {
    const { Forward, health } = this.#settings
    if (!health || this.#stopChecks) return
    const checked = {
      to: Forward,
      ...health,
      instances: () => this.#context.pool.serving(this.#settings.nodes),
      onChecked: (peer: Connected, problem: string | undefined) => this.#onChecked(peer, problem),
    }
    this.#stopChecks = this.#context.health.watch(checked, now)
  }

  #onChecked(peer: Connected, problem: string | undefined): void {
    const was = this.#unwell.get(peer)
    if (problem === undefined) this.#unwell.delete(peer)
    else this.#unwell.set(peer, problem)
    const healthy = problem === undefined
    if (healthy === (was === undefined)) return
    this.#context.onEvent({ type: 'health', mapping: this.id, spec: this.spec, peer, healthy, problem })
  }

  // --- for people ---

  /** Of thousands of mappings in one go: no object is made twice. */
  status(): MappingStatus {
    const { Listen, Forward, nodes, balance, note, enabled, wait, health, limits, http } = this.#settings
    const figures = this.#context.figures?.(this.id)
    const status: MappingStatus = {
      id: this.id,
      listen: Listen,
      forward: Forward,
      bound: this.bound,
      nodes,
      note,
      enabled,
      health,
      limits,
      http: shownHttp(http),
      balance: balance ?? this.#context.balance,
      wait: wait ?? PATIENCE,
      source: this.source,
      created: this.created,
      state: this.state,
      targets: this.#targets(),
      totals: figures?.totals ?? NO_TOTALS,
      quotaUsed: figures?.quotaUsed,
      limited: this.#traffic.refusals,
      firstConnected: figures?.firstConnected,
      lastConnected: figures?.lastConnected,
    }
    return this.failed ? { ...status, problem: this.#problem } : status
  }

  get state(): MappingStatus['state'] {
    const { enabled, health, nodes } = this.#settings
    if (!enabled) return 'disabled'
    if (!this.#listener) return 'failed'
    let state: MappingStatus['state'] = 'no node'
    for (const peer of this.#context.pool.serving(nodes)) {
      if (!health || !this.#unwell.has(peer)) return 'ready'
      state = 'unhealthy'
    }
    return state
  }

  #targets(): MappingStatus['targets'] {
    const { health, nodes } = this.#settings
    const targets: MappingStatus['targets'][number][] = []
    // With any node, and nobody looking at how they are, it would be the list of all nodes.
    if (nodes.length === 0 && !health) return targets
    for (const peer of this.#context.pool.serving(nodes)) {
      if (targets.length === MAX_TARGETS) break
      const problem = health && this.#unwell.get(peer)
      targets.push({ node: peer.id, healthy: problem === undefined, ...(problem === undefined ? {} : { problem }) })
    }
    return targets
  }
}

/** One more that is open at an instance, until it leaves. */
class Use {
  readonly #open: Map<Connected, number>
  readonly #peer: Connected

  constructor(open: Map<Connected, number>, peer: Connected) {
    this.#open = open
    this.#peer = peer
    open.set(peer, (open.get(peer) ?? 0) + 1)
  }

  /** Once only. */
  leave(): void {
    const count = (this.#open.get(this.#peer) ?? 0) - 1
    if (count > 0) this.#open.set(this.#peer, count)
    else this.#open.delete(this.#peer)
  }
}

/** The one with the smallest figure; of equals the first. */
function least<T>(all: readonly T[], figure: (one: T) => number): T | undefined {
  let best: T | undefined
  let smallest = Number.POSITIVE_INFINITY
  for (const one of all) {
    const its = figure(one)
    if (its < smallest) {
      best = one
      smallest = its
    }
  }
  return best
}
