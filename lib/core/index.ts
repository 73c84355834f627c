/** What others may use of the core. */

export { Backoff, pause } from './backoff.ts'
export * from './connect.ts'
export { diagnostics } from './diagnostics.ts'
export {
  type Abortable,
  type Admitted,
  type Carries,
  type DialContext,
  type DomainPlugin,
  Domains,
  type ListenContext,
  type Listener,
  type OpenOptions,
} from './domain.ts'
export { checkEndpoint, type Endpoint, formatEndpoint, type Mapping } from './endpoint.ts'
export { type ErrorCode, ProxyError } from './errors.ts'
export type { Credential, PeerLimits, Role } from './handshake.ts'
export type { Keepalive } from './heartbeat.ts'
export type { Incoming } from './incoming.ts'
export { join } from './join.ts'
export type { AbortSignalLike } from './lazy-abort.ts'
export { Budget, LIMITS, type Limits } from './limits.ts'
export { isLink, type Link, type LinkSink } from './link.ts'
export { MainConnection, type MainOptions, type Peer } from './main-connection.ts'
export { rawPublicKey, type Suite } from './noise.ts'
export { allowAll, type Policy } from './policy.ts'
export { Proxy, Proxy as PortProxy, type ProxyOptions, type State } from './proxy.ts'
export { BULK } from './record.ts'
export { linkFrom } from './stream-link.ts'
export type { SubConnection } from './sub-connection.ts'
export type { Throttle, Throttles } from './throttle.ts'
export { makeToken, readToken, type Token } from './token.ts'
export type { DataSeen, FrameSeen, RecordSeen, Way } from './wire-tap.ts'
