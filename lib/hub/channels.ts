import { setMaxListeners } from 'node:events'
import { type Endpoint, type Listener, type Policy, type Proxy, ProxyError, type SubConnection } from '../core/index.ts'
import { passwordOf } from '../domains/channel-address.ts'
import type { Spec } from '../domains/spec.ts'
import { createPolicy } from '../policy/policy.ts'
import type { ChannelSecret } from './channel-handshake.ts'
import type { JoinedChannel, JoinOptions } from './channel-join.ts'
import type { ChannelTries } from './channel-tries.ts'
import type { Connected } from './events.ts'
import { kind, TARGET } from './nested.ts'
import type { ChannelRelayOptions, MakeRelay, Relay, RelayContext, RelayRequest } from './relay.ts'

export type { ChannelRelayOptions } from './relay.ts'

/** After so many ms with nothing open inside, a joined channel is closed. */
const IDLE = 60_000

/**
 * Channels between nodes: the server relays, and is the adversary. Inside a sub-connection that it passes on, the two
 * nodes prove the channel's password to each other and have a main connection of their own.
 */
export function channelRelay(options: ChannelRelayOptions = {}): MakeRelay {
  return (context) => new ChannelRelay(context, options)
}

class ChannelRelay implements Relay {
  readonly #context: RelayContext
  readonly #way: ChannelRelayOptions['way']
  readonly #idle: number
  readonly #policy: Policy
  /** By name and password. */
  readonly #joined = new Map<string, JoinedChannel>()
  /** By name: a server that has a node offer its channel again and again shall not get more tries for that. */
  readonly #tries = new Map<string, ChannelTries>()
  /** The Proxies inside channels. */
  readonly #proxies = new Map<Proxy, { readonly peer: Connected; readonly at: Endpoint }>()
  readonly #watched = new WeakSet<Connected>()
  readonly #stop = new AbortController()

  constructor(context: RelayContext, { tunnelPolicy, way, idle = IDLE }: ChannelRelayOptions) {
    // Each handshake under way listens.
    setMaxListeners(0, this.#stop.signal)
    this.#context = context
    this.#policy = tunnelPolicy ?? createPolicy({ dial: 'none', listenPorts: 'none' })
    this.#way = way
    this.#idle = idle
  }

  // --- joining ---

  serves({ Domain, Addr }: Endpoint): boolean {
    return Domain === 'channel' || (Domain === 'tunnel' && Addr !== '')
  }

  async open(forward: Endpoint, request: RelayRequest, peer: Connected): Promise<SubConnection> {
    const { from } = request
    const secret = secretOf(forward)
    const to = innerTarget(forward, request)
    this.#assertOpen()
    // When there is something to do: most sides have no channels.
    const { JoinedChannel } = await import('./channel-join.ts')
    const key = `${secret.name}\0${secret.password.reveal()}`
    let joined = this.#joined.get(key)
    if (!joined) {
      for (const [other, { idle }] of this.#joined) if (idle) this.#joined.delete(other)
      joined = new JoinedChannel(secret, this.#joinOptions(secret))
      this.#joined.set(key, joined)
    }
    return await joined.open(to, from, peer)
  }

  #joinOptions({ name }: ChannelSecret): JoinOptions {
    const at: Endpoint = { Domain: 'channel', Addr: name }
    const own = this.#way
    return {
      context: this.#context,
      way: (peer) => (own ? own(name) : peer.proxy.open({ to: at })),
      byPeer: own === undefined,
      idle: this.#idle,
      signal: this.#stop.signal,
      onProxy: (proxy, peer) => this.#add(proxy, peer, at),
    }
  }

  // --- offering ---

  offers({ Domain }: Endpoint): boolean {
    return Domain === 'channel'
  }

  async offer(spec: Spec, peer: Connected): Promise<Listener> {
    const secret = secretOf(spec.Listen)
    const { name, password } = secret
    this.#assertOpen()
    const { Forward } = spec
    if (this.serves(Forward)) throw kind('a channel leads to something at this node, and not to another channel')
    const [{ ChannelOffer }, { ChannelTries }] = await Promise.all([
      import('./channel-offer.ts'),
      import('./channel-tries.ts'),
    ])
    const tries = this.#tries.get(name) ?? new ChannelTries(name)
    this.#tries.set(name, tries)
    const offer = new ChannelOffer(spec, secret, peer, {
      ...{ context: this.#context, tries, policy: this.#policy, signal: this.#stop.signal },
      onProxy: (proxy) => this.#add(proxy, peer, spec.Listen),
    })
    const incoming = await peer.proxy.accept({ Domain: 'channel', Addr: name })
    void offer.serve(incoming)
    if (password.reveal() === '') {
      this.#context.onEvent({ type: 'channel-readable', channel: name, as: 'offerer', peer })
    }
    return incoming
  }

  // --- what is inside ---

  whose(proxy: Proxy): { readonly peer: Connected; readonly at: Endpoint } | undefined {
    return this.#proxies.get(proxy)
  }

  async drain(signal: AbortSignal): Promise<void> {
    this.#stop.abort()
    await Promise.all([...this.#proxies.keys()].map((proxy) => proxy.drain({ signal })))
  }

  #add(proxy: Proxy, peer: Connected, at: Endpoint): void {
    this.#proxies.set(proxy, { peer, at })
    void proxy.closed.then(() => this.#proxies.delete(proxy))
    if (this.#stop.signal.aborted) proxy.close()
    if (this.#way || this.#watched.has(peer)) return
    this.#watched.add(peer)
    // It waits for what is open in it, and a channel is open as long as nobody closes it.
    peer.proxy.on('draining', () => {
      for (const [inner, its] of this.#proxies) if (its.peer === peer) void inner.drain()
    })
  }

  #assertOpen(): void {
    if (!this.#stop.signal.aborted) return
    throw new ProxyError('PROXY_ERR_DRAINING', 'this side is about to stop', { retryable: true })
  }
}

/** The name of a channel, and its password: an endpoint that has lost it opens nothing by mistake. */
function secretOf(at: Endpoint): ChannelSecret {
  const password = passwordOf(at)
  if (password) return { name: at.Addr, password }
  throw new ProxyError('PROXY_ERR_ENDPOINT', `the password of channel ${at.Addr} is not known here: write it again`)
}

/** What the far node is asked to dial. */
function innerTarget({ Domain, Addr }: Endpoint, { to, carries }: RelayRequest): Endpoint {
  if (Domain === 'tunnel') {
    if (to) return to
    throw kind(`tunnel ${Addr} is for connections that name their own targets: listen with socks5, http or mixed`)
  }
  if (to) throw kind(`channel ${Addr} leads to one target: forward socks5, http or mixed to tunnel://`)
  return { Domain: TARGET, Addr: carries }
}
