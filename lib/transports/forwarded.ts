import type { IncomingHttpHeaders } from 'node:http'
import { isIPv4, SocketAddress } from 'node:net'
import { type Ip, parseIp } from '../sockets/ip.ts'

/** Somebody on the way of a request, as a proxy names it. */
export interface Hop {
  readonly address: string
  readonly port: number | undefined
}

/**
 * Whom a request comes from by what proxies say in its headers: of the hops, which each proxy adds on the right, the
 * rightmost that is not trusted; if all are, the leftmost. Undefined if nothing is said, or garbage where it matters.
 *
 * `header` is read if it is there. Otherwise `X-Forwarded-For` comes before `Forwarded` (RFC 7239): most proxies write
 * the former only, and then the latter is what anybody has sent through them. Those that write `Forwarded` are named so.
 */
export function forwardedFor(
  headers: IncomingHttpHeaders,
  isTrusted: (ip: Ip) => boolean,
  header?: string | undefined,
): Hop | undefined {
  const names = [header?.toLowerCase(), 'x-forwarded-for', 'forwarded']
  const name = names.find((name) => name !== undefined && valueOf(headers, name) !== undefined)
  if (name === undefined) return undefined
  let found: Hop | undefined
  for (const element of fromRight(valueOf(headers, name) ?? '', ',')) {
    const hop = readHop(name === 'forwarded' ? (parameter(element, 'for') ?? '') : element)
    const ip = hop && parseIp(hop.address)
    if (!ip) return undefined
    found = hop
    if (!isTrusted(ip)) break
  }
  return found
}

/** Whether the last proxy was asked by TLS. */
export function forwardedSecurely(headers: IncomingHttpHeaders): boolean {
  const said = valueOf(headers, 'x-forwarded-proto')
  const [last = ''] = fromRight(said ?? valueOf(headers, 'forwarded') ?? '', ',')
  const scheme = said === undefined ? parameter(last, 'proto') : last
  return /^(https|wss)$/i.test(scheme?.trim() ?? '')
}

/** An IP address as it is always written; what is IPv4 inside IPv6 as IPv4. Undefined for anything else. */
export function canonicalAddress(text: string): string | undefined {
  if (isIPv4(text)) return text
  const ip = parseIp(text)
  if (!ip) return undefined
  if (ip.version === 6) return new SocketAddress({ address: text, family: 'ipv6' }).address
  return [24n, 16n, 8n, 0n].map((shift) => (ip.value >> shift) & 0xffn).join('.')
}

function valueOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = Object.hasOwn(headers, name) ? headers[name] : undefined
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. A port that is hidden (`_x`) is not known. */
function readHop(text: string): Hop | undefined {
  const [, bracketed, plain, digits] =
    /^(?:\[([^\]]*)\]|([^:]*))(?::(?:([0-9]{1,5})|_[\w.-]+))?$/.exec(text.trim()) ?? []
  const address = canonicalAddress(bracketed ?? plain ?? text.trim())
  if (!address || (bracketed !== undefined && isIPv4(bracketed))) return undefined
  const port = digits === undefined ? undefined : Number(digits)
  return { address, port: port !== undefined && port <= 65_535 ? port : undefined }
}

/** A parameter of one element of `Forwarded`, without quotes. */
function parameter(element: string, name: string): string | undefined {
  for (const pair of fromRight(element, ';')) {
    const [, key = '', quoted, bare] = /^\s*([^=\s]+)=(?:"([^"]*)"|([^"\s]*))\s*$/.exec(pair) ?? []
    if (key.toLowerCase() === name) return quoted ?? bare
  }
  return undefined
}

/**
 * The parts between separators that are not in quotes, the last one first. From the right, because there stands what
 * proxies have added to what anybody may have sent: an open quote on the left must not swallow that.
 */
function* fromRight(text: string, separator: string): Generator<string> {
  let end = text.length
  let quoted = false
  for (let at = end - 1; at >= 0; at--) {
    if (text[at] === '"') quoted = !quoted
    if (text[at] !== separator || quoted) continue
    yield text.slice(at + 1, end)
    end = at
  }
  yield text.slice(0, end)
}
