import type { Endpoint } from '../core/endpoint.ts'
import type { DialTarget } from './patterns.ts'

/** What the patterns of `--allow` are asked about; undefined for what none of them can be about. */
export function targetOf(to: Endpoint, address: string | undefined): DialTarget | undefined {
  if (to.Domain === 'unix') return { domain: 'unix', host: withoutProxy(to.Addr) }
  const at = splitAddr(
    to.Domain === 'tls' ? withoutOptions(to.Addr) : to.Domain === 'tcp' ? withoutProxy(to.Addr) : to.Addr,
  )
  if (at === undefined) return undefined
  return { domain: to.Domain, host: at.host, port: at.port, address }
}

/** `host:port` as the domains read it; an empty host is the loopback address that they dial. */
export function splitAddr(addr: string | undefined): { host: string; port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(addr ?? '') ?? []
  if (port === undefined || Number(port) > 65535) return undefined
  return { host: bracketed ?? (plain || '127.0.0.1'), port: Number(port) }
}

/** `127.0.0.1:22` for tcp, `unix:/path` as a pattern would say it, `udp://host:port` for others. */
export function named({ Domain, Addr }: Endpoint): string {
  if (Domain === 'tcp') return printable(Addr)
  return printable(Domain === 'unix' ? `unix:${Addr}` : `${Domain}://${Addr}`)
}

/** As `named`, with the address that a name was resolved to. */
export function resolvedName(to: Endpoint, address: string | undefined): string {
  const resolved = address === undefined || targetOf(to, address)?.host === address ? '' : ` (${printable(address)})`
  return `${named(to)}${resolved}`
}

/** The peer chose this text, and a log will show it: one line, not endless. */
export function printable(text: string): string {
  const line = text.replace(/\p{C}|\p{Zl}|\p{Zp}/gu, ' ')
  return line.length > 120 ? `${line.slice(0, 119)}…` : line
}

/** What a target is told first is not where it is. */
function withoutProxy(addr: string): string {
  return addr.replace(/\?proxy=v[12]$/, '')
}

/**
 * Of `host:port?pin=...` the place. The options say how the target is verified, which is for who asks to choose; but a
 * file that a peer names is on this machine, and none of the peer's business.
 */
function withoutOptions(addr: string): string | undefined {
  const [place, ...options] = addr.split(/[?&]/)
  return options.some((option) => /^ca\b/i.test(option)) ? undefined : place
}
