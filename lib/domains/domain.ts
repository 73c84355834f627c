import type { Carries, DomainPlugin } from '../core/domain.ts'
import type { Endpoint } from '../core/endpoint.ts'

/** Which half of a mapping an endpoint is: what an empty host and port 0 mean depends on it. */
export type Role = 'listen' | 'forward'

/** Checks an endpoint of one domain, however it was written, and normalises it. The error says only what is wrong. */
export type ReadEndpoint = (at: Endpoint, role: Role) => Endpoint

/** A domain of this side: the plug-in, and how its addresses are written. */
export interface Domain extends DomainPlugin {
  /** Default: `host:port`. */
  readonly read?: ReadEndpoint | undefined
}

/** What is known of a domain, here or at the peer: its name at least, and what it can be used for. */
export type KnownDomain =
  | string
  | {
      readonly name: string
      /** Default `stream`. */
      readonly carries?: Carries | undefined
      readonly listen?: unknown
      readonly dial?: unknown
      readonly read?: ReadEndpoint | undefined
    }
