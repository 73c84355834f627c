import type { IncomingMessage } from 'node:http'
import type { Origin } from '../sockets/requests.ts'
import { HOP_BY_HOP, plainHeader, SAID_ANEW } from './header-names.ts'
import type { WebTarget } from './web-routes.ts'

/** Of a message, besides those: what no trailer may say (RFC 9110 section 6.5.1). */
const NOT_BEHIND: ReadonlySet<string> = new Set([
  'authorization',
  'content-encoding',
  'content-type',
  'cookie',
  'set-cookie',
])
/** Node.js keeps 2,000 of a message, and drops the others without a word. */
const MOST_HEADERS = 1000
/** Methods whose requests have no body if they do not say how long it is. */
const BODYLESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE'])

/** How long the body of a request is: chunks until the last one, or as many bytes as it says. */
export function isChunked({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined
}

export function hasBody(request: IncomingMessage): boolean {
  return isChunked(request) || Number(request.headers['content-length'] ?? 0) > 0
}

/**
 * Whether everybody reads the same length out of it. The parser has refused most others already, but a coding besides
 * `chunked` it leaves to those behind it, and takes for none.
 */
export function isClear({ headers, rawHeaders, httpVersionMajor, httpVersionMinor }: IncomingMessage): boolean {
  const coding = headers['transfer-encoding']
  const length = headers['content-length']
  if (rawHeaders.length > 2 * MOST_HEADERS || count(rawHeaders, 'content-length') > 1) return false
  if (length !== undefined && !/^\d{1,15}$/.test(length)) return false
  if (coding === undefined) return true
  const old = httpVersionMajor < 1 || (httpVersionMajor === 1 && httpVersionMinor === 0)
  return !old && length === undefined && count(rawHeaders, 'transfer-encoding') === 1 && /^chunked$/i.test(coding)
}

/** What the target gets, as a list of names and values: with `upgrade`, that it shall switch to that. */
export function headersToTarget(
  request: IncomingMessage,
  { authority }: WebTarget,
  origin: Origin,
  upgrade?: string,
): string[] {
  const { method = 'GET', headers, rawHeaders } = request
  const list = ['Host', authority]
  const dropped = namedIn(headers.connection)
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name = '', value = ''] = [rawHeaders[i], rawHeaders[i + 1]]
    const plain = plainHeader(name)
    if (SAID_ANEW.has(plain) || plain.startsWith('x-forwarded-') || dropped.has(plain)) continue
    list.push(name, value)
  }
  list.push(...forwarded(authority, origin))
  if (upgrade !== undefined) return [...list, 'Connection', 'Upgrade', 'Upgrade', upgrade]
  const length = headers['content-length']
  if (isChunked(request)) list.push('Transfer-Encoding', 'chunked')
  else if (length !== undefined || !BODYLESS.has(method)) list.push('Content-Length', String(Number(length ?? 0)))
  if (isChunked(request) && headers.trailer !== undefined) list.push('Trailer', headers.trailer)
  return list
}

/** What the visitor gets. `upgrade`: the target has switched to that. */
export function headersToVisitor(answer: IncomingMessage, request: IncomingMessage, upgrade?: string): string[] {
  const { headers, rawHeaders, statusCode = 0 } = answer
  const dropped = namedIn(headers.connection)
  const chunked = headers['transfer-encoding'] !== undefined
  // Where there are no chunks Node.js does not take the announcement of what comes behind them.
  const trailers = chunked && request.httpVersion === '1.1' && request.method !== 'HEAD' && mayHaveBody(statusCode)
  const list: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name = '', value = ''] = [rawHeaders[i], rawHeaders[i + 1]]
    const plain = name.toLowerCase()
    if (HOP_BY_HOP.has(plain) || dropped.has(plain)) continue
    if (plain === 'content-length' && (chunked || statusCode < 200 || statusCode === 204)) continue
    if (plain === 'trailer' && !trailers) continue
    list.push(name, value)
  }
  if (upgrade !== undefined) list.push('Connection', 'Upgrade', 'Upgrade', upgrade)
  return list
}

/**
 * What stands behind the status, if it can be sent on: parsers let anything through there up to the end of the line, and
 * Node.js throws at control characters.
 */
export function reasonOf({ statusMessage = '' }: IncomingMessage): string {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(statusMessage) ? statusMessage : ''
}

/** What may stand behind a message's body, of what does. */
export function trailersOf({ rawTrailers }: IncomingMessage): [string, string][] {
  const list: [string, string][] = []
  for (let i = 0; i + 1 < rawTrailers.length; i += 2) {
    const [name = '', value = ''] = [rawTrailers[i], rawTrailers[i + 1]]
    const plain = plainHeader(name)
    const bad = SAID_ANEW.has(plain) || NOT_BEHIND.has(plain)
    if (!bad && !plain.startsWith('x-forwarded-')) list.push([name, value])
  }
  return list
}

/** The address in `Link.remote`, perhaps empty. A zone says which network of this machine it is, and not who. */
function addressOf(remote: string | undefined): string | undefined {
  const [, ipv6, ipv4] = /^(?:\[([^\]%]*)|([^:]*))/.exec(remote ?? '') ?? []
  return ipv6 ?? ipv4
}

function mayHaveBody(status: number): boolean {
  return status >= 200 && status !== 204 && status !== 304
}

function count(rawHeaders: readonly string[], wanted: string): number {
  return rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === wanted).length
}

function namedIn(connection: string | undefined): ReadonlySet<string> {
  return new Set(connection?.split(',').map((name) => plainHeader(name.trim())))
}

function forwarded(authority: string, { remote, secure }: Origin): string[] {
  const port = /:(\d+)$/.exec(authority)?.[1] ?? (secure ? '443' : '80')
  const list = ['X-Forwarded-Proto', secure ? 'https' : 'http', 'X-Forwarded-Host', authority, 'X-Forwarded-Port', port]
  const address = addressOf(remote)
  return !address ? list : ['X-Forwarded-For', address, 'X-Real-IP', address, ...list]
}
