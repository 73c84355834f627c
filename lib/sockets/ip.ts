import { isIPv4, isIPv6 } from 'node:net'
import { ProxyError } from '../core/index.ts'

/** An IP address as a number, with the width of its version. */
export interface Ip {
  readonly version: 4 | 6
  readonly value: bigint
}

/** The addresses that share their first `prefix` bits with `base`. */
export interface IpNet extends Ip {
  readonly prefix: number
}

const MAPPED = 0xffffn << 32n // ::ffff:0:0/96, RFC 4291 section 2.5.5.2
const LOOPBACK_4: Ip = { version: 4, value: 0x7f00_0001n }
const LOOPBACK_6: Ip = { version: 6, value: 1n }

/**
 * An address as `net.isIP` takes it, without a zone (`fe80::1%eth0` is none). IPv4-mapped IPv6 (`::ffff:10.0.0.1`)
 * comes out as the IPv4 address that the kernel connects to.
 */
export function parseIp(text: string): Ip | undefined {
  if (isIPv4(text)) return { version: 4, value: ipv4Value(text) }
  if (!isIPv6(text) || text.includes('%')) return undefined
  const value = ipv6Value(text)
  return value >> 32n === MAPPED >> 32n ? { version: 4, value: value & 0xffff_ffffn } : { version: 6, value }
}

/** As parseIp, but `0.0.0.0` and `::` come out as the loopback address that a connection to them reaches. */
export function parseTarget(text: string): Ip | undefined {
  const ip = parseIp(text)
  if (ip?.value !== 0n) return ip
  return ip.version === 4 ? LOOPBACK_4 : LOOPBACK_6
}

/** An address, or a CIDR like `10.0.0.0/8` or `fd00::/8`; one of IPv4-mapped addresses comes out as that of IPv4. */
export function parseNet(text: string): IpNet | undefined {
  const [, address = '', length] = /^([^/]*)(?:\/(0|[1-9][0-9]{0,2}))?$/.exec(text) ?? []
  const ip = parseIp(address)
  if (!ip) return undefined
  const outer = isIPv6(address) ? 128 - bitsOf(ip.version) : 0
  const prefix = length === undefined ? bitsOf(ip.version) : Number(length) - outer
  return prefix >= 0 && prefix <= bitsOf(ip.version) ? { ...ip, prefix } : undefined
}

export function bitsOf(version: 4 | 6): number {
  return version === 4 ? 32 : 128
}

export function isIn(net: IpNet, ip: Ip): boolean {
  if (net.version !== ip.version) return false
  const shift = BigInt(bitsOf(net.version) - net.prefix)
  return net.value >> shift === ip.value >> shift
}

export function isLoopback(ip: Ip): boolean {
  return ip.version === 4 ? ip.value >> 24n === 127n : ip.value === 1n
}

/** Whether only this machine or its own cable is behind an address, or a group: no public name should lead there. */
export function isConfined(ip: Ip): boolean {
  if (ip.value === 0n || isLoopback(ip)) return true
  return ip.version === 4
    ? ip.value >> 24n === 0n || ip.value >> 16n === 0xa9fen || ip.value >> 28n === 0xen || ip.value === 0xffff_ffffn
    : ip.value >> 118n === 0xfe80n >> 6n || ip.value >> 120n === 0xffn
}

function ipv4Value(text: string): bigint {
  return text.split('.').reduce((value, part) => (value << 8n) | BigInt(part), 0n)
}

function ipv6Value(text: string): bigint {
  const [head = '', tail] = text.split('::')
  const first = groups(head)
  const last = tail === undefined ? [] : groups(tail)
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => 0n)
  return [...first, ...zeros, ...last].reduce((value, group) => (value << 16n) | group, 0n)
}

function groups(text: string): bigint[] {
  if (text === '') return []
  return text.split(':').flatMap((group) => {
    if (!group.includes('.')) return BigInt(`0x${group}`)
    const value = ipv4Value(group)
    return [value >> 16n, value & 0xffffn]
  })
}

/** As a key of limits: an IPv6 address counts by its /64, which is what one customer has. */
export function customerOf(ip: Ip): string {
  return ip.version === 4 ? `4/${ip.value}` : `6/${ip.value >> 64n}`
}

/**
 * The host of `192.0.2.1:80` or `[2001:db8::1]:80`, also without the port, as in `Link.remote`; a zone (`fe80::1%eth0`) is
 * left out.
 */
export function ipOf(remote = ''): Ip | undefined {
  const [, bracketed, plain] = /^(?:\[([^\]]+)\]|([^:]+))(?::[0-9]+)?$/.exec(remote) ?? []
  return parseIp((bracketed ?? plain ?? remote).replace(/%.*$/s, ''))
}

/** Addresses and CIDRs, asked about one address at a time: thousands of them cost no more than a few. */
export class NetSet {
  /** By version and by how many bits are theirs: what those bits are. */
  readonly #byPrefix = { 4: new Map<number, Set<bigint>>(), 6: new Map<number, Set<bigint>>() }

  /** @throws ProxyError PROXY_ERR_PATTERN if one is neither an address nor a CIDR */
  constructor(nets: readonly string[]) {
    for (const { version, value, prefix } of nets.map(readNet)) {
      const byPrefix = this.#byPrefix[version]
      const same = byPrefix.get(prefix) ?? new Set()
      byPrefix.set(prefix, same.add(value >> BigInt(bitsOf(version) - prefix)))
    }
  }

  has({ version, value }: Ip): boolean {
    for (const [prefix, same] of this.#byPrefix[version]) {
      if (same.has(value >> BigInt(bitsOf(version) - prefix))) return true
    }
    return false
  }
}

function readNet(text: string): IpNet {
  const net = parseNet(text)
  if (net) return net
  const shown = JSON.stringify(text.slice(0, 80))
  const advice = 'write an IP address or CIDR, like 10.0.0.0/8'
  throw new ProxyError('PROXY_ERR_PATTERN', `bad trusted address ${shown}: ${advice}`)
}
