import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import {
  Budget,
  type DomainPlugin,
  diagnostics,
  formatEndpoint,
  type Keepalive,
  type Limits,
  type MainConnection,
  type Policy,
  Proxy,
  ProxyError,
  type SubConnection,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { StateFolder } from '../store/state-folder.ts'
import type { Connected, OnEvent } from './events.ts'
import { endGhosts } from './ghosts.ts'
import { Limiter, type NodeLimits, type Usage } from './limits.ts'
import type { MappingHooks } from './mapping.ts'
import { MappingTable } from './mapping-table.ts'
import { listenAtPeer } from './mappings.ts'
import type { MappingRequest } from './operations.ts'
import { Pool } from './pool.ts'
import type { MakeRelay, Relay } from './relay.ts'

/** What all peers together may have held here: their windows, and what they have not acknowledged. */
const BUDGET = 512 * 1024 * 1024

export interface SideOptions extends MappingHooks {
  domains: readonly DomainPlugin[]
  policy: Policy
  /** Another policy for what this peer asks for. Default: `policy`. */
  policyFor?: ((main: MainConnection) => Policy | undefined) | undefined
  /** What this peer can have listened on and dialled here, which `policy` is about. Default: `domains`. */
  domainsFor?: DomainsFor | undefined
  /** I listen, a peer forwards. */
  listeners?: readonly Spec[] | undefined
  /** The same, from a configuration file that may change. */
  configured?: readonly MappingRequest[] | undefined
  /** Each peer listens, I forward. */
  peerListeners?: readonly Spec[] | undefined
  /** What is reached through a peer and is not at the peer: `channelRelay()`. Default: nothing. */
  relay?: MakeRelay | undefined
  /** New connections go round, unless a mapping says otherwise. */
  balance?: boolean | undefined
  /** What holds for each node over all that goes through it. Default: nothing. */
  nodeLimits?: NodeLimits | undefined
  /** What has gone through this month. Default: quotas begin anew with each start. */
  usage?: Usage | undefined
  /** Keeps the mappings that are made at run time. Without one they end with this side. */
  folder?: StateFolder | undefined
  /** See `MainOptions`. */
  keepalive?: Keepalive | undefined
  resumeTimeout?: number | undefined
  limits?: Partial<Limits> | undefined
  /** Bytes held for all peers together. Default 512 MiB. */
  heldBytes?: number | undefined
  onEvent?: OnEvent | undefined
}

/** `setAside`: the peer is here for listeners of its own only, and serves no mapping of this side. */
export type DomainsFor = (main: MainConnection, policy: Policy, setAside: () => void) => readonly DomainPlugin[]

interface Parts {
  readonly pool: Pool
  readonly mappings: MappingTable
  readonly budget: Budget
  readonly relay: Relay | undefined
  readonly limiter: Limiter
  /** Fires when the side begins to stop. */
  readonly stop: AbortController
}

/**
 * What a server and a node have in common: the mappings of one side, and the peers that serve them. The server has many
 * peers, a node one at a time.
 */
export class Side {
  readonly pool: Pool
  readonly mappings: MappingTable
  readonly onEvent: OnEvent
  readonly #options: SideOptions
  readonly budget: Budget
  readonly limiter: Limiter
  readonly #relay: Relay | undefined
  readonly #stop: AbortController

  /** @throws ProxyError PROXY_ERR_STATE if the mappings that were kept cannot be read */
  static async open(options: SideOptions): Promise<Side> {
    const pool = new Pool(options)
    const stop = new AbortController()
    setMaxListeners(0, stop.signal)
    const { domains, folder, balance, limits, nodeLimits, usage, onEvent, onOpened, figures } = options
    const budget = new Budget(options.heldBytes ?? BUDGET)
    const relay = options.relay?.({ domains, limits, budget, onEvent: onEvent ?? (() => {}) })
    const limiter = new Limiter({ nodeLimits, usage, onEvent })
    const mappings = await MappingTable.open({
      ...{ folder, domains, pool, relay, limiter, onEvent, onOpened, figures, signal: stop.signal },
      balance: balance ? 'round-robin' : 'first',
    })
    return new Side(options, { pool, mappings, budget, relay, limiter, stop })
  }

  private constructor(options: SideOptions, { pool, mappings, budget, relay, limiter, stop }: Parts) {
    this.#options = options
    this.#stop = stop
    this.#relay = relay
    this.budget = budget
    this.limiter = limiter
    this.pool = pool
    this.mappings = mappings
    this.onEvent = options.onEvent ?? (() => {})
    diagnostics.refused.subscribe(this.#onRefused)
  }

  /** Fires when this side begins to stop. */
  get stopping(): AbortSignal {
    return this.#stop.signal
  }

  /** Listens for all mappings. One that cannot is told as an event. */
  async listen(): Promise<void> {
    await this.mappings.setCommandLine(this.#options.listeners ?? [])
    await this.mappings.setConfigured(this.#options.configured ?? [])
    await this.mappings.start()
  }

  /** Puts a Proxy on a new main connection. `id` is what the peer is called here. */
  add(main: MainConnection, id: string): Connected {
    const settled = endGhosts(main, this.pool)
    const asked = this.#options.policyFor?.(main) ?? this.#options.policy
    const policy: Policy = {
      dial: (to, address) => asked.dial(to, address),
      resolve: (to) => asked.resolve?.(to),
      listen: async (at) => {
        await asked.listen(at)
        await settled
      },
    }
    const setAside = (): void => this.pool.setAside(peer)
    const given = this.#options.domainsFor?.(main, asked, setAside) ?? this.#options.domains
    const limited = this.#options.nodeLimits !== undefined
    const domains = limited ? this.limiter.guard(given, () => peer) : given
    const proxy = new Proxy(main, { domains, policy })
    const peer: Connected = {
      proxy,
      id,
      instance: randomUUID(),
      connectedAt: new Date(),
      enrolled: main.peer.credential !== '',
      get remote() {
        return main.remote
      },
      get transport() {
        return main.transport
      },
    }
    let lostAt = 0
    proxy.on('state', (state) => {
      if (state === 'resuming' && main.linkError) {
        lostAt = performance.now()
        this.onEvent({ type: 'paused', peer, reason: main.linkError })
      } else if (state === 'connected') {
        this.onEvent({ type: 'resumed', peer, pause: performance.now() - lostAt })
        this.pool.wake()
      }
    })
    if (limited) {
      proxy.on('open', (sub) => {
        // Those that this side has opened keep to the limits already.
        if (isOpenedByPeer(sub, main)) this.limiter.opened(sub, peer)
      })
    }
    proxy.on('listening', (bound) => this.onEvent({ type: 'listening-for', peer, bound }))
    proxy.on('draining', () => this.onEvent({ type: 'draining', peer }))
    const standby = this.pool.add(peer)
    this.onEvent({ type: 'connected', peer, standby })
    void main.closed.then((reason) => {
      this.pool.remove(peer)
      this.onEvent({ type: 'disconnected', peer, reason })
    })
    for (const spec of this.#options.peerListeners ?? []) {
      if (!spec.Node || spec.Node === id) void listenAtPeer(spec, peer, this.onEvent, this.stopping, this.#relay)
    }
    return peer
  }

  /** Takes nothing new; resolves when what is open has finished, or `signal` fires, and all is closed. */
  async drain(signal: AbortSignal): Promise<void> {
    this.#stop.abort()
    // The peers hear of it first: each moment later one of them may send another visitor here.
    const drained = [...this.pool].map((peer) => peer.proxy.drain({ signal }))
    await Promise.all([...drained, this.#relay?.drain(signal), this.mappings.close()])
    diagnostics.refused.unsubscribe(this.#onRefused)
    this.limiter.close()
  }

  readonly #onRefused = (message: unknown): void => {
    const { proxy, error, request, by } = message as {
      proxy: Proxy
      error: ProxyError
      request: string
      by: 'here' | 'peer'
    }
    // What a check found out is told once, as its result.
    if (this.mappings.isCheck(error)) return
    const inside = this.#relay?.whose(proxy)
    if (inside) {
      const { peer, at } = inside
      const what = `${formatEndpoint(at)} (${request})`
      // What the far node is told does not say where a channel leads to.
      const reason = by === 'here' && error.cause instanceof ProxyError ? error.cause : error
      // Without its password.
      const channel = { Domain: at.Domain, Addr: at.Addr }
      this.onEvent({ type: 'refused', peer, request: what, by, inside: channel, reason })
      return
    }
    // The diagnostics are those of the whole process.
    for (const peer of this.pool) {
      if (peer.proxy === proxy) this.onEvent({ type: 'refused', peer, request, by, reason: error })
    }
  }
}

/** Ids are odd from the dialler, even from the acceptor. */
function isOpenedByPeer({ id }: SubConnection, { role }: MainConnection): boolean {
  return id % 2 === (role === 'dialler' ? 0 : 1)
}
