import { ProxyError } from '../core/index.ts'
import { canonicalAddress } from './forwarded.ts'
import type { Verdict } from './sniff.ts'

/**
 * A PROXY header (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), which a proxy for TCP sends before the
 * first byte of whom it speaks for. Version 1 is a line,
 *
 *     PROXY TCP4|TCP6 source destination source-port destination-port CR LF
 *     PROXY UNKNOWN anything CR LF
 *
 * and version 2
 *
 *     signature (12) | version, command (4 bits each) | family, protocol (4 bits each) | u16 length | addresses | TLVs
 */
export interface ProxyHeader {
  /** In bytes: what follows is the connection itself. */
  readonly length: number
  /** Whom the proxy speaks for; undefined if for itself, or for what is no address of TCP. */
  readonly source: { readonly address: string; readonly port: number } | undefined
}

const LINE = Buffer.from('PROXY ')
/** Section 2.1: CR LF included. */
const LONGEST_LINE = 107
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const FIXED = 16
/** Addresses and TLVs: a client certificate fits. */
const LONGEST_REST = 4096
/** Bytes of addresses and ports, and of the source's address. */
const FAMILIES: Record<number, { readonly all: number; readonly address: number }> = {
  17: { all: 12, address: 4 }, // 0x11: TCP over IPv4
  33: { all: 36, address: 16 }, // 0x21: TCP over IPv6
}

/**
 * Finds undefined where there is no such header.
 *
 * @throws ProxyError PROXY_ERR_PROXY_HEADER
 */
export function readProxyHeader(bytes: Buffer): Verdict<ProxyHeader | undefined> {
  for (const [start, read] of [
    [LINE, readLine],
    [SIGNATURE, readBinary],
  ] as const) {
    const common = Math.min(start.length, bytes.length)
    if (start.compare(bytes, 0, common, 0, common) !== 0) continue
    return common < start.length ? { need: bytes.length + 1 } : read(bytes)
  }
  return { found: undefined }
}

function readLine(bytes: Buffer): Verdict<ProxyHeader> {
  const end = bytes.subarray(0, LONGEST_LINE).indexOf('\r\n')
  if (end < 0) {
    if (bytes.length >= LONGEST_LINE) throw bad('its line does not end')
    return { need: bytes.length + 1 }
  }
  const length = end + 2
  const [family, from = '', to = '', fromPort = '', toPort = '', ...more] = bytes
    .toString('latin1', LINE.length, end)
    .split(' ')
  if (family === 'UNKNOWN') return { found: { length, source: undefined } }
  const colons = family === 'TCP6'
  if (family !== 'TCP4' && !colons) throw bad('its family is unknown')
  const port = readPort(fromPort)
  const addresses = [from, to].map(canonicalAddress)
  const [address] = addresses
  const fits = [from, to].every((text) => text.includes(':') === colons)
  if (!address || addresses.includes(undefined) || !fits || more.length > 0) throw bad('its addresses make no sense')
  if (port === undefined || readPort(toPort) === undefined) throw bad('its ports make no sense')
  return { found: { length, source: { address, port } } }
}

function readPort(text: string): number | undefined {
  return /^(0|[1-9][0-9]{0,4})$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined
}

function readBinary(bytes: Buffer): Verdict<ProxyHeader> {
  if (bytes.length < FIXED) return { need: FIXED }
  const rest = bytes.readUInt16BE(14)
  if (rest > LONGEST_REST) throw bad(`it is ${FIXED + rest} bytes long`)
  const length = FIXED + rest
  if (bytes.length < length) return { need: length }
  const command = bytes.readUInt8(12)
  // LOCAL: the proxy itself wants to know whether anybody is here.
  if (command === 0x20) return { found: { length, source: undefined } }
  if (command !== 0x21) throw bad('its version or command is unknown')
  const family = FAMILIES[bytes.readUInt8(13)]
  if (!family) return { found: { length, source: undefined } }
  if (rest < family.all) throw bad('it is too short for its addresses')
  const raw = bytes.subarray(FIXED, FIXED + family.address)
  const address = canonicalAddress(family.address === 4 ? raw.join('.') : groups(raw))
  if (!address) throw bad('its addresses make no sense')
  return { found: { length, source: { address, port: bytes.readUInt16BE(FIXED + 2 * family.address) } } }
}

function groups(raw: Buffer): string {
  return Array.from({ length: 8 }, (_, index) => raw.readUInt16BE(2 * index).toString(16)).join(':')
}

function bad(why: string): ProxyError {
  return new ProxyError('PROXY_ERR_PROXY_HEADER', `a bad PROXY header: ${why}`)
}
