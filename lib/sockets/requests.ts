import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/** Who has sent a request, and whether it came encrypted: to here, or to the first of the trusted proxies in front. */
export interface Origin {
  /** As in `Link.remote`. */
  readonly remote: string | undefined
  readonly secure: boolean
}

export type OnRequest = (request: IncomingMessage, response: ServerResponse, origin: Origin) => void
export type OnUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, origin: Origin) => void
