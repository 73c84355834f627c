import { formatTarget } from './dynamic-target.ts'

/** RFC 1928. */
export const SOCKS_VERSION = 5

/** To a greeting: no acceptable methods (section 3). */
export const NO_METHOD: Buffer = Buffer.from([SOCKS_VERSION, 0xff])

export const SOCKS4_VERSION = 4
/** What SOCKS4 says: request rejected or failed, and an address that means nothing. */
export const SOCKS4_REFUSED: Buffer = Buffer.from([0, 91, 0, 0, 0, 0, 0, 0])

/** What becomes of a request (section 6). */
export const Reply = {
  succeeded: 0,
  failure: 1,
  denied: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  unknownCommand: 7,
  unknownAddressType: 8,
} as const

const IPV4 = 1
const NAME = 3
const IPV6 = 4
const PORT_BYTES = 2
/** RSV, FRAG: what stands before the address of a datagram (section 7). */
const DATAGRAM_HEAD = 3

/**
 *     +------+----------+----------+
 *     | ATYP | ADDR     | PORT     |   ADDR: 4 bytes, a length and a name, or 16 bytes (section 5)
 *     +------+----------+----------+
 *
 * The bytes from ATYP to the end of the port; undefined if the type is not known. Looks at the first two bytes.
 */
export function addressLength(bytes: Uint8Array, at: number): number | undefined {
  switch (bytes[at]) {
    case IPV4:
      return 1 + 4 + PORT_BYTES
    case NAME:
      return 2 + (bytes[at + 1] ?? 0) + PORT_BYTES
    case IPV6:
      return 1 + 16 + PORT_BYTES
    default:
      return undefined
  }
}

/** An address that is all there, as `host` and `port` came: nothing is checked. */
export function readAddress(bytes: Buffer, at: number): { readonly host: string; readonly port: number } {
  const end = at + (addressLength(bytes, at) ?? 0)
  const port = bytes.readUInt16BE(end - PORT_BYTES)
  switch (bytes[at]) {
    case IPV4:
      return { host: bytes.subarray(at + 1, at + 5).join('.'), port }
    case NAME:
      return { host: bytes.toString('latin1', at + 2, end - PORT_BYTES), port }
    default:
      return { host: ipv6Text(bytes.subarray(at + 1, at + 17)), port }
  }
}

/** The answer to a request. The address in it is that of the datagrams of an association, else zeros. */
export function encodeReply(reply: number, bound?: { readonly address: string; readonly port: number }): Buffer {
  const address = bound ? ipBytes(bound.address) : Buffer.alloc(4)
  const head = Buffer.from([SOCKS_VERSION, reply, 0, address.length === 4 ? IPV4 : IPV6])
  const port = Buffer.alloc(PORT_BYTES)
  port.writeUInt16BE(bound?.port ?? 0)
  return Buffer.concat([head, address, port])
}

/**
 *     +-----+------+------+----------+----------+----------+
 *     | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA     |   RSV: 2 bytes (section 7)
 *     +-----+------+------+----------+----------+----------+
 *
 * Where the payload begins; undefined for what is no datagram, or a fragment of one: nobody here puts them together.
 */
export function payloadOffset(datagram: Uint8Array): number | undefined {
  if (datagram[2] !== 0 || datagram.length < DATAGRAM_HEAD + 2) return undefined
  const length = addressLength(datagram, DATAGRAM_HEAD)
  if (length === undefined || datagram.length < DATAGRAM_HEAD + length) return undefined
  return DATAGRAM_HEAD + length
}

/**
 * Where a datagram shall go.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function datagramTarget(datagram: Buffer): string {
  return formatTarget(readAddress(datagram, DATAGRAM_HEAD))
}

function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
}

/** Without its zone, which means nothing to others. */
function ipBytes(address: string): Buffer {
  const text = address.replace(/%.*$/s, '')
  if (!text.includes(':')) return Buffer.from(text.split('.').map(Number))
  const whole = new URL(`http://[${text}]`).hostname.slice(1, -1)
  const [head = '', tail] = whole.split('::')
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16))
  const last = groups(tail ?? '')
  const bytes = Buffer.alloc(16)
  groups(head).forEach((group, index) => {
    bytes.writeUInt16BE(group, index * 2)
  })
  last.forEach((group, index) => {
    bytes.writeUInt16BE(group, 16 - (last.length - index) * 2)
  })
  return bytes
}
