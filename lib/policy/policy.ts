import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { Policy } from '../core/policy.ts'
import { hasName, mayHaveName, type NameRules } from './names.ts'
import { couldMatch, matches, type Pattern, type PortRange } from './patterns.ts'
import { named, printable, resolvedName, splitAddr, targetOf } from './target.ts'

export interface PolicyOptions {
  /** What may be dialled: what one of the patterns matches, anything, or nothing. */
  readonly dial: readonly Pattern[] | 'any' | 'none'
  /** Where may be listened: on these TCP and UDP ports (any address), anywhere, or nowhere. */
  readonly listenPorts: readonly PortRange[] | 'any' | 'none'
  /** Which names of the web port may be listened on. Default: none, unless `listenPorts` is `any`. */
  readonly names?: NameRules | undefined
}

/** Domains whose addresses are `host:port`, of which `--allow-ports` speaks. */
const WITH_PORTS: readonly string[] = ['tcp', 'udp']

const PROXIES: readonly string[] = ['socks5', 'http', 'mixed']

/**
 * The rules of `--allow`, `--allow-ports` and `--allow-names`. What they do not name is denied. None tells TCP from UDP:
 * who may have `127.0.0.1:53` may have both, as most services that speak both expect.
 */
export function createPolicy({ dial, listenPorts, names }: PolicyOptions): Policy {
  return {
    /** `address` is what the name in `to` was resolved to; it is what the patterns with addresses are about. */
    dial(to: Endpoint, address?: string): void {
      if (dial === 'any') return
      const target = targetOf(to, address)
      if (target !== undefined && dial !== 'none' && dial.some((pattern) => matches(pattern, target))) return
      throw new ProxyError('PROXY_ERR_DIAL_DENIED', `${resolvedName(to, address)} is not allowed here (see --allow)`)
    },

    resolve(to: Endpoint): void {
      if (dial === 'any') return
      const target = targetOf(to, undefined)
      if (target !== undefined && dial !== 'none' && dial.some((pattern) => couldMatch(pattern, target))) return
      throw new ProxyError('PROXY_ERR_DIAL_DENIED', `${named(to)} is not allowed here (see --allow)`)
    },

    listen(at: Endpoint): void {
      // Its clients' targets would have no way to the side that asks, and their passwords stand in a file of this one.
      if (PROXIES.includes(at.Domain)) throw denied(`a proxy (${at.Domain}) is listened for on one's own side only`)
      if (listenPorts === 'any') return
      if (hasName(at.Domain)) {
        if (names !== undefined && mayHaveName(names, at.Addr, at.Domain === 'tls')) return
        throw denied(`the web name ${nameOf(at)} is not given to this node (see --allow-names)`)
      }
      const port = WITH_PORTS.includes(at.Domain) ? splitAddr(at.Addr)?.port : undefined
      if (port !== undefined && listenPorts !== 'none') {
        if (listenPorts.some(({ from, to }) => from <= port && port <= to)) return
      }
      const hint = port === undefined ? '--allow-ports is about tcp and udp ports only' : 'see --allow-ports'
      throw denied(`listening on ${named(at)} is not allowed here (${hint})`)
    },
  }
}

/** Without the target's path, which is nobody's business here. */
function nameOf({ Addr }: Endpoint): string {
  return printable(Addr.replace(/\?.*$/s, '') || '/')
}

function denied(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_LISTEN_DENIED', message)
}
