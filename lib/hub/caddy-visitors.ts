import { timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { NetSet } from '../sockets/ip.ts'
import { formatRemote } from '../sockets/remote.ts'
import type { OnRequest, OnUpgrade, Origin } from '../sockets/requests.ts'
import { forwardedFor, forwardedSecurely } from '../transports/forwarded.ts'
import { CADDY_HEADER } from './caddy-routes.ts'

const HEADER = CADDY_HEADER.toLowerCase()

export interface CaddyVisitorsOptions {
  /** What requests of our route say. */
  readonly token: string
  /** Those that Caddy itself believes. */
  readonly trustedProxies?: readonly string[] | undefined
  readonly onRequest: OnRequest
  readonly onUpgrade: OnUpgrade
}

/**
 * Requests that come by our route in Caddy, and say so with what only Caddy has been told, are from whom Caddy says. So
 * there is no need to believe all programs on Caddy's machine. Nobody further on is told that header.
 */
export function caddyVisitors(options: CaddyVisitorsOptions): { onRequest: OnRequest; onUpgrade: OnUpgrade } {
  const expected = Buffer.from(options.token)
  const trusted = new NetSet((options.trustedProxies ?? []).filter((net) => net !== 'unix'))
  const originOf = (request: IncomingMessage, origin: Origin): Origin => {
    const said = takeHeader(request)
    if (said?.length !== expected.length || !timingSafeEqual(said, expected)) return origin
    const hop = forwardedFor(request.headers, (ip) => trusted.has(ip))
    return {
      remote: hop ? formatRemote(hop.address, hop.port) : origin.remote,
      secure: forwardedSecurely(request.headers),
    }
  }
  return {
    onRequest: (request, response, origin) => options.onRequest(request, response, originOf(request, origin)),
    onUpgrade: (request, socket, head, origin) => options.onUpgrade(request, socket, head, originOf(request, origin)),
  }
}

function takeHeader({ headers, rawHeaders }: IncomingMessage): Buffer | undefined {
  const value = headers[HEADER]
  if (value === undefined) return undefined
  delete headers[HEADER]
  for (let at = rawHeaders.length - 2; at >= 0; at -= 2) {
    if (rawHeaders[at]?.toLowerCase() === HEADER) rawHeaders.splice(at, 2)
  }
  return Buffer.from(String(value))
}
