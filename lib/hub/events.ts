import type { Endpoint, Proxy, ProxyError } from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { LimitKind } from '../policy/traffic-limits.ts'

/** A peer that is connected: a node at the server, the server at a node. */
export interface Connected {
  readonly proxy: Proxy
  /** The name that the peer has proven, or else the one that it calls itself. */
  readonly id: string
  /** A UUID, which this side gives each main connection. */
  readonly instance: string
  readonly connectedAt: Date
  /** Where it is now, or was last. */
  readonly remote: string | undefined
  /** How it comes, or came: `tcp`, `wss`. */
  readonly transport: string | undefined
  /** Whether `id` is proven, by a credential of its own. */
  readonly enrolled: boolean
}

/** What happens in a server or a node, told as it happens: for logs, and for whoever embeds them. */
export type HubEvent =
  /** The server takes main connections at `address`. */
  | { readonly type: 'listening'; readonly address: string }
  | { readonly type: 'connected'; readonly peer: Connected; readonly standby: boolean }
  /** The peer is about to stop: what is open may finish, and nothing new goes there. */
  | { readonly type: 'draining'; readonly peer: Connected }
  /** The link to the peer is lost. What is open waits, and goes on with the next link. */
  | { readonly type: 'paused'; readonly peer: Connected; readonly reason: ProxyError }
  /** `pause`: how long there was none, in ms. */
  | { readonly type: 'resumed'; readonly peer: Connected; readonly pause: number }
  | { readonly type: 'disconnected'; readonly peer: Connected; readonly reason: ProxyError }
  /** A handshake failed at the server. */
  | { readonly type: 'rejected'; readonly remote: string | undefined; readonly reason: ProxyError }
  /** A node could not connect, and tries again in `delay` ms. */
  | { readonly type: 'retrying'; readonly reason: ProxyError; readonly delay: number }
  /** `at`: here, or the peer that listens. `mapping`: its id in the table, if it is there. */
  | {
      readonly type: 'listener-ready'
      readonly spec: Spec
      readonly bound: Endpoint
      readonly at: Connected | 'here'
      readonly mapping?: string | undefined
    }
  /** A peer has a listener here now. */
  | { readonly type: 'listening-for'; readonly peer: Connected; readonly bound: Endpoint }
  | {
      readonly type: 'listener-failed'
      readonly spec: Spec
      readonly reason: ProxyError
      readonly at: Connected | 'here'
      readonly mapping?: string | undefined
    }
  /** A connection that came in here could not be carried on: no peer is there. */
  | {
      readonly type: 'unserved'
      readonly spec: Spec
      readonly from: string | undefined
      readonly reason: ProxyError
      readonly mapping?: string | undefined
    }
  /** The table of mappings is another one now. */
  | {
      readonly type: 'mapping'
      readonly change: 'added' | 'removed' | 'enabled' | 'disabled' | 'changed'
      readonly mapping: string
      readonly spec: Spec
    }
  /** What a check of a mapping's target found is not what the one before found. */
  | {
      readonly type: 'health'
      readonly mapping: string
      readonly spec: Spec
      readonly peer: Connected
      readonly healthy: boolean
      readonly problem?: string | undefined
    }
  /** Visitors were refused by the limits of a mapping, or of a node: the first at once, then their number, once a minute. */
  | {
      readonly type: 'limited'
      readonly mapping?: string | undefined
      readonly node?: string | undefined
      readonly kind: LimitKind
      /** The last one of them. */
      readonly from: string | undefined
      readonly count: number
    }
  /** Several instances of one node are connected: this one, and those that were there before, the oldest first. */
  | { readonly type: 'duplicate'; readonly peer: Connected; readonly others: readonly Connected[] }
  /** Somebody could not join a channel that is offered here: another password, or what came was no handshake. */
  | {
      readonly type: 'channel-failed'
      readonly channel: string
      readonly peer: Connected
      readonly reason: ProxyError
    }
  /** A channel has no password: whoever runs the server that relays it can read it. */
  | {
      readonly type: 'channel-readable'
      readonly channel: string
      readonly as: 'joiner' | 'offerer'
      readonly peer: Connected
    }
  /** An open, a dial or a listen was refused, `by` this side or the peer; `inside` a channel, by the other end of that. */
  | {
      readonly type: 'refused'
      readonly peer: Connected
      readonly request: string
      readonly by: 'here' | 'peer'
      readonly inside?: Endpoint | undefined
      readonly reason: ProxyError
    }

export type OnEvent = (event: HubEvent) => void
