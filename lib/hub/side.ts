import { setMaxListeners } from 'node:events'
import {
  Budget,
  type DomainPlugin,
  diagnostics,
  type Keepalive,
  type Limits,
  type Listener,
  type MainConnection,
  type Policy,
  Proxy,
  type ProxyError,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'
import { endGhosts } from './ghosts.ts'
import { listenAtPeer, listenHere } from './mappings.ts'
import { Pool } from './pool.ts'

/** What all peers together may have held here: their windows, and what they have not acknowledged. */
const BUDGET = 512 * 1024 * 1024

export interface SideOptions {
  domains: readonly DomainPlugin[]
  policy: Policy
  /** I listen, a peer forwards. */
  listeners?: readonly Spec[] | undefined
  /** Each peer listens, I forward. */
  peerListeners?: readonly Spec[] | undefined
  balance?: boolean | undefined
  /** See `MainOptions`. */
  keepalive?: Keepalive | undefined
  resumeTimeout?: number | undefined
  limits?: Partial<Limits> | undefined
  /** Bytes held for all peers together. Default 512 MiB. */
  heldBytes?: number | undefined
  onEvent?: OnEvent | undefined
}

/**
 * What a server and a node have in common: the mappings of one side, and the peers that serve them. The server has many
 * peers, a node one at a time.
 */
export class Side {
  readonly pool: Pool
  readonly onEvent: OnEvent
  readonly #options: SideOptions
  readonly #listeners: Listener[] = []
  readonly budget: Budget
  readonly #stop = new AbortController()

  constructor(options: SideOptions) {
    this.#options = options
    this.budget = new Budget(options.heldBytes ?? BUDGET)
    setMaxListeners(0, this.#stop.signal)
    this.pool = new Pool(options)
    this.onEvent = options.onEvent ?? (() => {})
    diagnostics.refused.subscribe(this.#onRefused)
  }

  /** Fires when this side begins to stop. */
  get stopping(): AbortSignal {
    return this.#stop.signal
  }

  async listen(): Promise<void> {
    for (const spec of this.#options.listeners ?? []) {
      const listener = await listenHere(spec, this.pool, this.#options.domains, this.onEvent, this.stopping)
      if (listener) this.#listeners.push(listener)
    }
  }

  /** Puts a Proxy on a new main connection. `id` is what the peer is called here, `instance` a new UUID for it. */
  add(main: MainConnection, id: string, instance: string): Connected {
    const settled = endGhosts(main, this.pool)
    const policy: Policy = {
      dial: (to, address) => this.#options.policy.dial(to, address),
      listen: async (at) => {
        await this.#options.policy.listen(at)
        await settled
      },
    }
    const proxy = new Proxy(main, { domains: this.#options.domains, policy })
    const peer: Connected = {
      proxy,
      id,
      instance,
      connectedAt: new Date(),
      get remote() {
        return main.remote
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
    proxy.on('listening', (bound) => this.onEvent({ type: 'listening-for', peer, bound }))
    proxy.on('draining', () => this.onEvent({ type: 'draining', peer }))
    const standby = this.pool.add(peer)
    this.onEvent({ type: 'connected', peer, standby })
    void main.closed.then((reason) => {
      this.pool.remove(peer)
      this.onEvent({ type: 'disconnected', peer, reason })
    })
    for (const spec of this.#options.peerListeners ?? []) {
      if (!spec.Node || spec.Node === id) void listenAtPeer(spec, peer, this.onEvent, this.stopping)
    }
    return peer
  }

  /** Takes nothing new; resolves when what is open has finished, or `signal` fires, and all is closed. */
  async drain(signal: AbortSignal): Promise<void> {
    this.#stop.abort()
    // The peers hear of it first: each moment later one of them may send another visitor here.
    const drained = [...this.pool].map((peer) => peer.proxy.drain({ signal }))
    await Promise.all([...drained, ...this.#listeners.map((listener) => listener.close())])
    diagnostics.refused.unsubscribe(this.#onRefused)
  }

  readonly #onRefused = (message: unknown): void => {
    const { proxy, error, request, by } = message as {
      proxy: Proxy
      error: ProxyError
      request: string
      by: 'here' | 'peer'
    }
    // The channel is one for the whole process.
    for (const peer of this.pool) {
      if (peer.proxy === proxy) this.onEvent({ type: 'refused', peer, request, by, reason: error })
    }
  }
}
