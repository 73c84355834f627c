import type { IncomingMessage } from 'node:http'
import { parseHostPort } from './address.ts'
import { formatTarget } from './dynamic-target.ts'

/** A status, and one line for whoever reads it. */
export interface Refusal {
  readonly status: number
  readonly text: string
}

/** What a client asks for, as it goes to the target. */
export interface ForwardRequest {
  /** `host:port`. */
  readonly target: string
  readonly path: string
  /** Names and values in turn, as they were written, without what concerns one connection only; with a `Host`. */
  readonly headers: readonly string[]
  /** How its content is framed anew: by its length, in bytes, or in chunks; undefined if there is none. */
  readonly content: number | 'chunked' | undefined
}

const HTTP_PORT = 80
/** RFC 9110, section 7.6.1; and how the content is framed, which each hop says for itself. */
const HOP_BY_HOP = ['connection', 'http2-settings', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade']

const ORIGIN_FORM: Refusal = {
  status: 400,
  text: 'This is an HTTP proxy: it takes CONNECT host:port, and requests for a whole URL like http://host/path.',
}

/**
 * The target of CONNECT, `host:port` (RFC 9110, section 9.3.6); undefined if it is none.
 */
export function readAuthority(text: string): string | undefined {
  try {
    return formatTarget(parseHostPort(text))
  } catch {
    return undefined
  }
}

/** A request in absolute form (RFC 9112, section 3.2.2) for a target of http. */
export function readRequest(request: IncomingMessage): ForwardRequest | Refusal {
  const { url = '', method } = request
  const [, scheme, place, rest = ''] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(url) ?? []
  if (scheme === undefined || place === undefined) return ORIGIN_FORM
  if (!/^(?:http|ws)$/i.test(scheme)) {
    return { status: 400, text: `This proxy has no way to ${scheme.slice(0, 20)}:// but CONNECT host:port.` }
  }
  if (place.includes('@')) return { status: 400, text: 'A URL with user information is not for a proxy.' }
  const target = readAuthority(/:[^:\]]*$/.test(place) ? place.replace(/:$/, `:${HTTP_PORT}`) : `${place}:${HTTP_PORT}`)
  if (target === undefined) return { status: 400, text: 'The URL has no host and port that can be asked for.' }
  const framing = readFraming(request)
  if (typeof framing === 'object') return framing
  const path = rest.replace(/#.*$/s, '')
  return {
    target,
    // RFC 9112, section 3.2.4: the server as a whole.
    path: path === '' && method === 'OPTIONS' ? '*' : path.startsWith('/') ? path : `/${path}`,
    headers: ['Host', place, ...endToEnd(request.rawHeaders, ['host', 'content-length'])],
    content: framing === 'none' ? undefined : framing,
  }
}

/**
 * How long the content is: a request about which two readers might disagree is none (RFC 9112, section 6.3). The parser
 * has refused most of those already.
 */
function readFraming({ rawHeaders, httpVersion }: IncomingMessage): number | 'none' | 'chunked' | Refusal {
  const lengths: string[] = []
  const codings: string[] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]?.toLowerCase() ?? ''
    const value = rawHeaders[at + 1] ?? ''
    if (name === 'content-length') lengths.push(value)
    else if (name === 'transfer-encoding') codings.push(value)
    // Gateways that hand headers on as variables cannot tell these from the others.
    else if (/^(?:content[-_]length|transfer[-_]encoding)$/.test(name)) return AMBIGUOUS
  }
  if (codings.length > 1 || lengths.length > 1 || (codings.length > 0 && lengths.length > 0)) return AMBIGUOUS
  const [length] = lengths
  if (length !== undefined) return /^\d{1,15}$/.test(length) ? Number(length) : AMBIGUOUS
  const [coding] = codings
  if (coding === undefined) return 'none'
  if (httpVersion !== '1.1') return AMBIGUOUS
  return coding.toLowerCase() === 'chunked'
    ? 'chunked'
    : { status: 501, text: 'The only transfer coding that this proxy knows is chunked.' }
}

const AMBIGUOUS: Refusal = { status: 400, text: 'It is not clear where this request ends.' }

/** Headers for the other side: without those of this connection, those about proxies, and `others`. In lower case. */
export function endToEnd(rawHeaders: readonly string[], others: readonly string[] = []): string[] {
  const dropped = new Set([...HOP_BY_HOP, ...others])
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.toLowerCase() !== 'connection') continue
    // Whoever names these as concerning one connection would take the message apart.
    for (const name of (rawHeaders[at + 1] ?? '').toLowerCase().split(',')) {
      if (!['content-length', 'host'].includes(name.trim())) dropped.add(name.trim())
    }
  }
  const kept: string[] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? ''
    const lower = name.toLowerCase()
    if (!dropped.has(lower) && !lower.startsWith('proxy-')) kept.push(name, rawHeaders[at + 1] ?? '')
  }
  return kept
}
