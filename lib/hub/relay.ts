import type {
  Budget,
  Carries,
  DomainPlugin,
  Endpoint,
  Limits,
  Listener,
  Policy,
  Proxy,
  SubConnection,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'

/** What a connection that came in wants. */
export interface RelayRequest {
  /** Its own target, where it names one. */
  readonly to?: Endpoint | undefined
  /** Who came in. */
  readonly from?: string | undefined
  /** What goes through it. */
  readonly carries: Carries
}

/**
 * What is reached through a peer, and is not at the peer: channels to other nodes. Whoever maps, listens and offers asks
 * here first.
 */
export interface Relay {
  /** Whether `forward` is not for the peer itself. */
  serves(forward: Endpoint): boolean
  /**
   * Opens a sub-connection to what is behind `forward`, by way of `peer`.
   *
   * @throws ProxyError
   */
  open(forward: Endpoint, request: RelayRequest, peer: Connected): Promise<SubConnection>
  /** Whether `listen` is an offer to others, and not a place where the peer listens. */
  offers(listen: Endpoint): boolean
  /** Offers: what comes in at `spec.Listen` of the peer is answered here. Resolves when the peer has it registered. */
  offer(spec: Spec, peer: Connected): Promise<Listener>
  /** The peer that a Proxy of the relay itself goes through, and what it is for. */
  whose(proxy: Proxy): { readonly peer: Connected; readonly at: Endpoint } | undefined
  /** Lets what is open finish, until `signal` fires; takes nothing new. */
  drain(signal: AbortSignal): Promise<void>
}

/** What a relay gets from the side that it belongs to. */
export interface RelayContext {
  readonly domains: readonly DomainPlugin[]
  readonly onEvent: OnEvent
  readonly budget: Budget
  readonly limits?: Partial<Limits> | undefined
}

/** Makes the relay of one side; `channelRelay()` is one. */
export type MakeRelay = (context: RelayContext) => Relay

export interface ChannelRelayOptions {
  /** Asked about each address that whoever uses a tunnel of ours wants to reach. Default: nothing may be reached. */
  readonly tunnelPolicy?: Policy | undefined
  /** Opens the way to whoever has registered `name`. Default: the peer is asked. */
  readonly way?: ((name: string) => Promise<SubConnection>) | undefined
  /** After so many ms with nothing open inside, a joined channel is closed. Default 60,000. */
  readonly idle?: number | undefined
}
