import { setMaxListeners } from 'node:events'
import {
  type DomainPlugin,
  diagnostics,
  type Listener,
  type MainConnection,
  type Policy,
  Proxy,
  type ProxyError,
  WindowBudget,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'
import { listenAtPeer, listenHere } from './mappings.ts'
import { Pool } from './pool.ts'

/** What the windows of all peers together may hold above their floors. */
const BUDGET = 512 * 1024 * 1024

export interface SideOptions {
  domains: readonly DomainPlugin[]
  policy: Policy
  /** I listen, a peer forwards. */
  listeners?: readonly Spec[] | undefined
  /** Each peer listens, I forward. */
  peerListeners?: readonly Spec[] | undefined
  balance?: boolean | undefined
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
  readonly #budget = new WindowBudget(BUDGET)
  readonly #stop = new AbortController()

  constructor(options: SideOptions) {
    this.#options = options
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

  /** Puts a Proxy on a new main connection. `id` is what the peer is called here. */
  add(main: MainConnection, id: string): Connected {
    const proxy = new Proxy(main, { ...this.#options, budget: this.#budget })
    const peer: Connected = { proxy, id, remote: main.remote }
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
