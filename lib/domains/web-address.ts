import { isIPv4, isIPv6 } from 'node:net'
import { domainToASCII } from 'node:url'
import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { shown } from './text.ts'

/** Which requests of the web port are meant, and where the target has them. */
export interface WebAddress {
  /** A name in lower case, an IPv4 address, an IPv6 one in brackets, or `*.suffix`; empty: any. */
  readonly host: string
  /** It and all below it. One slash in front, none at the end but for `/` itself. */
  readonly path: string
  /** What the target has in the place of `path`. Begins with a slash. */
  readonly base: string
}

// RFC 1035, section 2.3.4.
const NAME_LENGTH = 253
const LABEL_LENGTH = 63
/** Characters of a path: with a host and a base it is still an address. */
const PATH_LENGTH = 350

/**
 * An address of the domains `web` and `ws`: `[host][/path]`, for `web` also `?base=/x/`.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function readWeb(at: Endpoint): Endpoint {
  const address = parseWeb(at.Addr)
  if (at.Domain === 'ws' && address.base !== '/') {
    throw bad('there is no base here: what goes through a WebSocket has no path')
  }
  return { Domain: at.Domain, Addr: formatWeb(address) }
}

/**
 * Takes `[host][/path][?base=/x/]` apart, and brings it into the one form that names it.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function parseWeb(text: string): WebAddress {
  const [, host = '', path = '', query] = /^([^/?]*)([^?]*)(?:\?(.*))?$/s.exec(text) ?? []
  const bare = readPath(path, 'path')
  return { host: readHost(host), path: bare === '/' ? bare : bare.replace(/\/$/, ''), base: readBase(query) }
}

/** As `parseWeb` takes it. */
export function formatWeb({ host, path, base }: WebAddress): string {
  const place = path === '/' && host !== '' ? host : `${host}${path}`
  return base === '/' ? place : `${place}?base=${base.replaceAll('&', '%26')}`
}

/**
 * The name in lower case, in ASCII, without the dot at its end: a host as the web writes it, in a URL or in `Host`.
 * Undefined if it is none.
 */
export function hostName(text: string): string | undefined {
  if (text.startsWith('[') && text.endsWith(']')) return ipv6(text.slice(1, -1))
  const name = (/^[\x20-\x7e]*$/.test(text) ? text : domainToASCII(text)).toLowerCase().replace(/\.$/, '')
  if (isIPv4(name)) return name
  const labels = name.split('.')
  if (name.length > NAME_LENGTH || !labels.every(isLabel)) return undefined
  // What ends in a number is an address, to browsers at least, which make 127.0.0.1 of 127.1.
  return /^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '') ? undefined : name
}

/**
 * One spelling for all that say the same (RFC 3986 section 6.2.2): no escapes where none are needed, the others in upper
 * case.
 */
export function spelled(path: string): string {
  return path.replace(/%[0-9a-f]{2}/gi, (escape) => {
    const plain = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
    return /[A-Za-z0-9._~-]/.test(plain) ? plain : escape.toUpperCase()
  })
}

/**
 * Whether there is a `..` in it for anybody: also for those who take `%2e` for a dot, `\` or `%2f` for a slash, or leave
 * out what stands behind a semicolon.
 */
export function climbs(path: string): boolean {
  return spelled(path)
    .split(/\/|\\|%2F|%5C/)
    .some((segment) => /^\.\.(?:;|%3B|$)/.test(segment))
}

function readHost(text: string): string {
  if (text === '') return ''
  const wild = text.startsWith('*.')
  const host = hostName(wild ? text.slice(2) : text)
  if (host !== undefined && !(wild && /^(?:\[|[\d.]+$)/.test(host))) return wild ? `*.${host}` : host
  if (text === '*') throw bad('"*" is not a host: leave it out, and all hosts are meant')
  if (text.includes('@')) throw bad('user information ("…@") is not known here')
  if (/^(?:[^:]*|\[[^\]]*\]):\d*$/.test(text)) {
    throw bad(`${shown(text)} has a port: leave it out, the server's web port is meant`)
  }
  if (text.includes('*')) throw bad(`${shown(text)} is not a host: a * stands in front, as in *.example.com`)
  if (isIPv6(text)) throw bad(`${shown(text)} needs brackets: write [${text}]`)
  throw bad(`${shown(text)} is not a host: write a name like www.example.com, or nothing for all of them`)
}

function ipv6(text: string): string | undefined {
  return isIPv6(text) && !text.includes('%') ? new URL(`http://[${text}]`).hostname : undefined
}

function isLabel(label: string): boolean {
  return label.length <= LABEL_LENGTH && /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/.test(label)
}

function readBase(query: string | undefined): string {
  if (query === undefined) return '/'
  const [, name, value = ''] = /^([^=]*)=?(.*)$/s.exec(query) ?? []
  if (name !== 'base') throw bad(`unknown option ${shown(name ?? '')}: only base is known here, as in /api?base=/app/`)
  if (value === '') throw bad('base is empty: write a path, like ?base=/app/')
  if (value.includes('&')) throw bad('only base is known here: an & in it is written %26')
  return readPath(value, 'base')
}

/** A slash in front, and percent-encoding where a path needs it. */
function readPath(text: string, what: string): string {
  if (/\p{C}/u.test(text)) throw bad(`the ${what} has a control character in it`)
  if (/[?#]/.test(text)) throw bad(`the ${what} ${shown(text)} has a ? or # in it: it is only a path`)
  if (/[\\\s]/.test(text)) throw bad(`the ${what} ${shown(text)} has a space or backslash in it`)
  if (/%(?![0-9a-f]{2})/i.test(text)) throw bad(`the ${what} ${shown(text)} has a % that is no escape: write %25`)
  const path = spelled(`/${text.replace(/^\/+/, '')}`.replace(/[^\x21-\x7e]|["<>^`{|}]/gu, encodeURIComponent))
  if (path.length > PATH_LENGTH) throw bad(`the ${what} is longer than ${PATH_LENGTH} characters`)
  if (/\/\//.test(path)) throw bad(`the ${what} ${shown(text)} has an empty part between two slashes`)
  if (/%2F|%5C|%00/.test(path)) throw bad(`the ${what} ${shown(text)} has an encoded slash, backslash or zero in it`)
  if (climbs(path) || /\/\.(?:\/|$)/.test(path)) {
    throw bad(`the ${what} ${shown(text)} has a "." or ".." in it: write where that leads`)
  }
  return path
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
