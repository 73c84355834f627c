import { bitsOf, type Ip, parseIp } from '../sockets/ip.ts'
import type { ProxyVersion } from './tcp-address.ts'

/** An address and a port, 0 where it is not known. */
export interface Place {
  readonly address: string
  readonly port: number
}

/** As in section 2.2 of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. */
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const LOCAL = 0x20
const PROXY = 0x21
const UNSPEC = 0x00
const TCP_OVER_IPV4 = 0x11
const TCP_OVER_IPV6 = 0x21
const MAPPED = 0xffffn << 32n

/**
 * What is sent before the first byte of a connection to who wants to know for whom it is: `from`, as in `Link.remote`, has
 * connected, and `to` is dialled. Where one is IPv6, both are. Without an address in `from` it is our own connection
 * (LOCAL, in version 1 UNKNOWN), as of a check whether anybody is there.
 */
export function proxyHeader(version: ProxyVersion, from: string | undefined, to: Place | undefined): Buffer {
  const source = readRemote(from)
  const ip = source && parseIp(source.address)
  if (!source || !ip) return version === 'v1' ? Buffer.from('PROXY UNKNOWN\r\n') : v2(LOCAL, UNSPEC, [])
  // A Unix socket has no address: then it is nobody's, of the same family.
  const target = parseIp(to?.address.replace(/%.*$/s, '') ?? '') ?? { version: ip.version, value: 0n }
  const family = ip.version === 4 && target.version === 4 ? 4 : 6
  const ports = [source.port, to?.port ?? 0]
  if (version === 'v1') {
    const [a, b] = [ip, target].map((one) => textOf(one, family))
    return Buffer.from(`PROXY TCP${family} ${a} ${b} ${ports.join(' ')}\r\n`)
  }
  const rest = [...[ip, target].map((one) => bytesOf(one, family)), ...ports.map((port) => inBytes(BigInt(port), 2))]
  return v2(PROXY, family === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6, rest)
}

function v2(command: number, family: number, rest: readonly Buffer[]): Buffer {
  const body = Buffer.concat(rest)
  return Buffer.concat([SIGNATURE, Buffer.from([command, family]), inBytes(BigInt(body.length), 2), body])
}

/** `192.0.2.1:80`, `[2001:db8::1]:80`, or either without the port. The other side has said it: it may be anything. */
function readRemote(remote: string | undefined): Place | undefined {
  const [, ipv6, ipv4, digits = '0'] =
    /^(?:\[([^\]%]*)(?:%[^\]]*)?\]|([\d.]{7,15}))(?::(\d{1,5}))?$/.exec(remote ?? '') ?? []
  const address = ipv6 ?? ipv4
  const port = Number(digits)
  return address === undefined || port > 65_535 ? undefined : { address, port }
}

function asIpv6({ version, value }: Ip): bigint {
  return version === 6 ? value : MAPPED | value
}

function bytesOf(ip: Ip, family: 4 | 6): Buffer {
  return inBytes(family === 4 ? ip.value : asIpv6(ip), bitsOf(family) / 8)
}

function textOf(ip: Ip, family: 4 | 6): string {
  const bytes = bytesOf(ip, family)
  if (family === 4) return bytes.join('.')
  return Array.from({ length: 8 }, (_, group) => bytes.readUInt16BE(2 * group).toString(16)).join(':')
}

function inBytes(value: bigint, length: number): Buffer {
  return Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex')
}
