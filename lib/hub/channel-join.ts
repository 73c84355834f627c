import { type Endpoint, linkFrom, type MainConnection, Proxy, ProxyError, type SubConnection } from '../core/index.ts'
import type { ChannelSecret } from './channel-handshake.ts'
import { ChannelTries } from './channel-tries.ts'
import type { Connected } from './events.ts'
import { closeWhenIdle } from './nested.ts'
import type { RelayContext } from './relay.ts'

/**
 * Failures in one minute, of the 10 that the offering node has for all who join: who has a wrong password, and a program
 * that tries again and again, is not to keep the others out.
 */
const MAX_FAILURES = 3

export interface JoinOptions {
  readonly context: RelayContext
  /** Opens the way to whoever offers the channel; `byPeer`: it is another one for each peer. */
  readonly way: (peer: Connected) => Promise<SubConnection>
  readonly byPeer: boolean
  /** See `ChannelRelayOptions`. */
  readonly idle: number
  readonly signal: AbortSignal
  /** There is a Proxy to the far node. */
  readonly onProxy: (proxy: Proxy, peer: Connected) => void
}

/** A channel that this side uses: one main connection to the far node for all its connections, while there are any. */
export class JoinedChannel {
  readonly #secret: ChannelSecret
  readonly #options: JoinOptions
  readonly #tries: ChannelTries
  /** By the way they go. A handshake is there as soon as it has begun: whoever comes meanwhile shares it. */
  readonly #proxies = new Map<object, Promise<Proxy>>()
  #told = false

  constructor(secret: ChannelSecret, options: JoinOptions) {
    this.#secret = secret
    this.#options = options
    this.#tries = new ChannelTries(secret.name, { failures: MAX_FAILURES })
  }

  /** Whether nothing is remembered here. */
  get idle(): boolean {
    return this.#proxies.size === 0 && this.#tries.idle
  }

  async open(to: Endpoint, from: string | undefined, peer: Connected): Promise<SubConnection> {
    const way = this.#options.byPeer ? peer : this
    for (let tries = 0; ; tries++) {
      const made = this.#proxies.get(way) ?? this.#begin(way, peer)
      const proxy = await made
      try {
        return await proxy.open({ to, from })
      } catch (error) {
        // It may have been closed a moment ago, as when the far node was restarted.
        if (tries > 0 || proxy.serving) throw error
      }
      this.#forget(way, made)
    }
  }

  #begin(way: object, peer: Connected): Promise<Proxy> {
    const made = this.#make(peer)
    this.#proxies.set(way, made)
    const forget = (): void => this.#forget(way, made)
    made.then((proxy) => void proxy.closed.then(forget), forget)
    return made
  }

  /** Unless there is another one already. */
  #forget(way: object, made: Promise<Proxy>): void {
    if (this.#proxies.get(way) === made) this.#proxies.delete(way)
  }

  async #make(peer: Connected): Promise<Proxy> {
    const { context, signal, idle, onProxy, way } = this.#options
    const { name, password } = this.#secret
    if (signal.aborted) throw new ProxyError('PROXY_ERR_DRAINING', 'this side is about to stop', { retryable: true })
    this.#tries.assertOpen()
    const { joinChannel } = await import('./channel-handshake.ts')
    const link = linkFrom(await way(peer), peer.id, 'channel')
    const { budget, limits } = context
    const main: MainConnection = await joinChannel(link, { name, password, tries: this.#tries, signal, budget, limits })
    const proxy = new Proxy(main)
    closeWhenIdle(proxy, idle)
    onProxy(proxy, peer)
    if (password.reveal() === '' && !this.#told) {
      this.#told = true
      context.onEvent({ type: 'channel-readable', channel: name, as: 'joiner', peer })
    }
    return proxy
  }
}
