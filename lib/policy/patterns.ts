import { isIP } from 'node:net'
import { ProxyError } from '../core/errors.ts'
import { bitsOf, type IpNet, isConfined, isIn, isLoopback, parseIp, parseTarget } from '../sockets/ip.ts'

/** Ports from `from` to `to`, both included. */
export interface PortRange {
  readonly from: number
  readonly to: number
}

type HostPattern =
  | { readonly kind: 'any' }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'suffix'; readonly suffix: string }
  | { readonly kind: 'net'; readonly net: IpNet }

/** One PATTERN of `--allow`: hosts and ports, or Unix sockets (`path` is undefined for all of them). */
export type Pattern =
  | { readonly kind: 'hosts'; readonly host: HostPattern; readonly ports: PortRange }
  | { readonly kind: 'unix'; readonly path: string | undefined }

/** What is to be dialled. */
export interface DialTarget {
  readonly domain: string
  /** The host as asked for: a name or an IP address, without brackets. For a Unix socket its path. */
  readonly host: string
  readonly port?: number | undefined
  /** The IP address that will be dialled; undefined for a Unix socket. */
  readonly address?: string | undefined
}

const EVERY_PORT: PortRange = { from: 1, to: 65535 }

/**
 * `HOST|CIDR|*.suffix|*`, then `:PORT[-PORT]|:*`, with IPv6 in brackets (`[fd00::/8]:443`): TCP and UDP alike;
 * `unix:/path` or `unix:*`.
 *
 * @throws ProxyError PROXY_ERR_PATTERN
 */
export function parsePattern(text: string): Pattern {
  try {
    return readPattern(text.trim())
  } catch (cause) {
    throw bad(`bad pattern ${shown(text)}: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
}

/**
 * Whether a pattern allows to dial a target. Addresses and CIDRs are compared with the address that will be dialled,
 * never with what was asked for; names with the name that was asked for. `*.suffix` does not cover addresses that only
 * mean something to this machine or its network segment: who runs a public name must not choose these.
 */
export function matches(pattern: Pattern, target: DialTarget): boolean {
  if (pattern.kind === 'unix') {
    return target.domain === 'unix' && (pattern.path === undefined || pattern.path === target.host)
  }
  const { host, ports } = pattern
  if (target.domain === 'unix' || target.port === undefined) return false
  if (target.port < ports.from || target.port > ports.to) return false
  if (host.kind === 'any') return true
  const ip = parseTarget(target.address ?? target.host)
  if (host.kind === 'net') return ip !== undefined && isIn(host.net, ip)
  const name = isIP(target.host) === 0 ? plainName(target.host) : ''
  if (host.kind === 'suffix') {
    return ip !== undefined && !isConfined(ip) && name.length > host.suffix.length && name.endsWith(host.suffix)
  }
  return name === host.name || (host.name === 'localhost' && ip !== undefined && isLoopback(ip))
}

/** Whether a pattern could allow to dial a target, whatever address its name turns out to have. */
export function couldMatch(pattern: Pattern, target: DialTarget): boolean {
  if (pattern.kind === 'unix' || isIP(target.host) !== 0) return matches(pattern, target)
  const { host, ports } = pattern
  if (target.port === undefined || target.port < ports.from || target.port > ports.to) return false
  const name = plainName(target.host)
  if (host.kind === 'suffix') return name.length > host.suffix.length && name.endsWith(host.suffix)
  // Any name may lead to an address, and to loopback.
  return host.kind !== 'name' || host.name === 'localhost' || host.name === name
}

/**
 * `9000-9999,22`
 *
 * @throws ProxyError PROXY_ERR_PATTERN
 */
export function parsePortRanges(text: string): PortRange[] {
  try {
    return text.split(',').map((range) => readRange(range.trim()))
  } catch (cause) {
    throw bad(`bad ports ${shown(text)}: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
}

function readPattern(text: string): Pattern {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length).replace(/^\/\/(?=\/)/, '')
    if (path === '*') return { kind: 'unix', path: undefined }
    if (!path.startsWith('/')) throw bad('write unix:/absolute/path or unix:*')
    return { kind: 'unix', path }
  }
  const [, bracketed, plain, ports] = /^(?:\[([^\]]*)\]|([^[\]]*)):([^:\]]*)$/s.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || ports === undefined) throw bad('write HOST:PORT, HOST:PORT-PORT or HOST:*')
  if (bracketed === undefined && host.includes(':')) {
    const address = [text, host].find((part) => isIP(part) === 6) ?? (host.includes('::') ? host : undefined)
    if (address === undefined) throw bad('write HOST:PORT, HOST:PORT-PORT or HOST:*')
    throw bad(`IPv6 needs brackets and a port behind: write [${address}]:PORT`)
  }
  const readHost = bracketed === undefined ? readPlainHost : readIpv6
  return { kind: 'hosts', host: readHost(host), ports: ports === '*' ? EVERY_PORT : readRange(ports) }
}

function readPlainHost(text: string): HostPattern {
  if (text === '*') return { kind: 'any' }
  if (text.includes('/') || isIP(text) === 4) return readNet(text, 4)
  const suffix = text.startsWith('*.')
  const name = plainName(suffix ? text.slice(2) : text)
  if (name === '') throw bad('the host is missing: write * for any')
  if (name.includes('*')) throw bad('a * stands alone, or in front: *.example.com')
  if (!name.split('.').every((label) => /^[\p{L}\p{N}\p{M}_-]{1,63}$/u.test(label))) {
    throw bad(`${shown(text)} is not a host, a CIDR or *.suffix`)
  }
  // Programs read 127.1 or 0177.0.0.1 in more ways than one, and no name ends like this (RFC 3696, section 2).
  if (/(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/.test(name)) {
    throw bad(`${shown(text)} is neither a name nor an IP address: write that as four numbers, like 127.0.0.1`)
  }
  return suffix ? { kind: 'suffix', suffix: `.${name}` } : { kind: 'name', name }
}

function readIpv6(text: string): HostPattern {
  if (text.includes('%')) throw bad('an address with a zone (%) cannot be a pattern: leave the zone out')
  if (!text.includes(':')) throw bad('brackets are for IPv6 addresses only')
  return readNet(text, 6)
}

function readNet(text: string, written: 4 | 6): HostPattern {
  const [address = '', length, ...more] = text.split('/')
  const ip = parseTarget(address)
  if (ip === undefined || more.length > 0) throw bad(`${shown(text)} is not an IP address or CIDR, like 10.0.0.0/8`)
  const bits = bitsOf(written)
  const exactly: HostPattern = { kind: 'net', net: { ...ip, prefix: bitsOf(ip.version) } }
  if (length === undefined || length === String(bits)) return exactly
  const prefix = /^(?:0|[1-9][0-9]{0,2})$/.test(length) ? Number(length) : bits + 1
  if (prefix > bits) throw bad(`/${length.slice(0, 8)} is not a prefix length (0 to ${bits})`)
  const base = parseIp(address) ?? ip
  const mapped = base.version !== written
  if (mapped && prefix < 96) throw bad('IPv4-mapped addresses are IPv4 here: write the IPv4 CIDR')
  return { kind: 'net', net: { ...base, prefix: mapped ? prefix - 96 : prefix } }
}

function readRange(text: string): PortRange {
  const [, first, last] = /^([0-9]+)(?:-([0-9]+))?$/.exec(text) ?? []
  if (first === undefined) throw bad(`${shown(text)} is not a port or range: write 80 or 9000-9999`)
  const range = { from: readPort(first), to: readPort(last ?? first) }
  if (range.from > range.to) throw bad(`${shown(text)} ends before it begins: write ${range.to}-${range.from}`)
  return range
}

function readPort(text: string): number {
  const port = Number(text)
  if (port >= 1 && port <= 65535) return port
  throw bad(`port ${text.length > 20 ? `${text.slice(0, 20)}…` : text} is out of range (1 to 65535)`)
}

/** Names have no case, and a dot at the end only says that they are complete. */
function plainName(name: string): string {
  return name.toLowerCase().replace(/\.$/, '')
}

function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text)
}

function bad(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_PATTERN', message, cause === undefined ? {} : { cause })
}
