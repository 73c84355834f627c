import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { Policy } from '../core/policy.ts'
import { type DialTarget, matches, type Pattern, type PortRange } from './patterns.ts'

export interface PolicyOptions {
  /** What may be dialled: what one of the patterns matches, anything, or nothing. */
  readonly dial: readonly Pattern[] | 'any' | 'none'
  /** Where may be listened: on these TCP and UDP ports (any address), anywhere, or nowhere. */
  readonly listenPorts: readonly PortRange[] | 'any' | 'none'
}

/** Domains whose addresses are `host:port`, of which `--allow-ports` speaks. */
const WITH_PORTS: readonly string[] = ['tcp', 'udp']

/**
 * The rules of `--allow` and `--allow-ports`. What they do not name is denied. Neither tells TCP from UDP: who may have
 * `127.0.0.1:53` may have both, as most services that speak both expect.
 */
export function createPolicy({ dial, listenPorts }: PolicyOptions): Policy {
  return {
    /** `address` is what the name in `to` was resolved to; it is what the patterns with addresses are about. */
    dial(to: Endpoint, address?: string): void {
      if (dial === 'any') return
      const target = targetOf(to, address)
      if (target !== undefined && dial !== 'none' && dial.some((pattern) => matches(pattern, target))) return
      const resolved = address === undefined || target?.host === address ? '' : ` (${printable(address)})`
      throw new ProxyError('PROXY_ERR_DIAL_DENIED', `${named(to)}${resolved} is not allowed here (see --allow)`)
    },

    listen(at: Endpoint): void {
      if (listenPorts === 'any') return
      const port = WITH_PORTS.includes(at.Domain) ? splitAddr(at.Addr)?.port : undefined
      if (port !== undefined && listenPorts !== 'none') {
        if (listenPorts.some(({ from, to }) => from <= port && port <= to)) return
      }
      const hint = port === undefined ? '--allow-ports is about tcp and udp ports only' : 'see --allow-ports'
      throw new ProxyError('PROXY_ERR_LISTEN_DENIED', `listening on ${named(at)} is not allowed here (${hint})`)
    },
  }
}

function targetOf(to: Endpoint, address: string | undefined): DialTarget | undefined {
  if (to.Domain === 'unix') return { domain: 'unix', host: to.Addr }
  const at = splitAddr(to.Addr)
  if (at === undefined) return undefined
  return { domain: to.Domain, host: at.host, port: at.port, address }
}

/** `host:port` as the domains read it; an empty host is the loopback address that they dial. */
function splitAddr(addr: string): { host: string; port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(addr) ?? []
  if (port === undefined || Number(port) > 65535) return undefined
  return { host: bracketed ?? (plain || '127.0.0.1'), port: Number(port) }
}

/** `127.0.0.1:22` for tcp, `unix:/path` as a pattern would say it, `udp://host:port` for others. */
function named({ Domain, Addr }: Endpoint): string {
  if (Domain === 'tcp') return printable(Addr)
  return printable(Domain === 'unix' ? `unix:${Addr}` : `${Domain}://${Addr}`)
}

/** The peer chose this text, and a log will show it: one line, not endless. */
function printable(text: string): string {
  const line = text.replace(/\p{C}|\p{Zl}|\p{Zp}/gu, ' ')
  return line.length > 120 ? `${line.slice(0, 119)}…` : line
}
