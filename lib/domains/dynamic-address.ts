import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { formatHostPort, type HostPort, parseHostPort } from './address.ts'
import type { Role } from './domain.ts'
import { nearest } from './nearest.ts'
import { shown } from './text.ts'

/** Where a proxy server listens, and who may use it; without `access` everybody who gets there. An empty host is all interfaces. */
export interface DynamicAddress extends HostPort {
  readonly access?: DynamicAccess | undefined
}

/** One user; the password stands in a file, so that it is in no address. */
export interface DynamicAccess {
  readonly user: string
  readonly passwordFile: string
}

const OPTIONS = ['user', 'password_file']
const EXAMPLE = '?user=NAME&password_file=PATH'
/** RFC 1929: a length of one byte. */
const LONGEST_USER = 255
const HTTP_PORT = 80

/**
 * An address of the domains `socks5`, `http` and `mixed`, which can be listened on: `[bind]:port`, then perhaps
 * `?user=NAME&password_file=PATH`, percent-encoded where there is a `%`, `&`, `+` or `#` in them.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function readDynamic(at: Endpoint, _role: Role): Endpoint {
  return { Domain: at.Domain, Addr: formatDynamic(parseDynamic(at.Addr)) }
}

/** `http`: a proxy server to listen on, and to forward to what `readHttpForward` makes of it. */
export function readHttp(at: Endpoint, role: Role): Endpoint {
  return role === 'listen' ? readDynamic(at, role) : readHttpForward(at, role)
}

/**
 * `http` to forward to is `tcp`, with 80 where there is no port.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function readHttpForward(at: Endpoint, _role: Role): Endpoint {
  const [, place = '', path = ''] = /^([^/?#]*)(.*)$/s.exec(at.Addr) ?? []
  refuseUser(place, 'http://host:port')
  if (path !== '' && path !== '/') throw bad(`there is no path here: ${shown(path)} is for what asks over HTTP`)
  const { host, port } = parseHostPort(/:[^:\]]*$/.test(place) ? place : `${place}:${HTTP_PORT}`)
  return { Domain: 'tcp', Addr: formatHostPort({ host: host === '' ? '127.0.0.1' : host, port }) }
}

/** @throws ProxyError PROXY_ERR_ADDRESS */
export function parseDynamic(text: string): DynamicAddress {
  const [, place = '', query] = /^([^?]*)(?:\?(.*))?$/s.exec(text) ?? []
  refuseUser(place, `[bind]:port${EXAMPLE}`)
  const at = parseHostPort(place, { allowZero: true })
  return query === undefined ? at : { ...at, access: readAccess(query) }
}

/** As `parseDynamic` takes it. */
export function formatDynamic({ host, port, access }: DynamicAddress): string {
  const place = formatHostPort({ host, port })
  return access ? `${place}?user=${escaped(access.user)}&password_file=${escaped(access.passwordFile)}` : place
}

function readAccess(query: string): DynamicAccess {
  const options = new Map<string, string>()
  for (const text of query.split('&')) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(text) ?? []
    if (!OPTIONS.includes(name)) {
      const near = nearest(name, OPTIONS)
      // What is written after `password=` is none of anybody's business.
      const meant = name === 'password' || near === undefined ? `write ${EXAMPLE}` : `did you mean ${near}?`
      throw bad(`unknown option ${shown(name)}: ${meant}`)
    }
    if (options.has(name)) throw bad(`${name} is given twice`)
    if (value === '') throw bad(`${name} is empty: write ${EXAMPLE}`)
    options.set(name, decoded(name, value))
  }
  const user = options.get('user')
  const passwordFile = options.get('password_file')
  if (user === undefined || passwordFile === undefined) {
    throw bad(`user and password_file belong together: write ${EXAMPLE}`)
  }
  // RFC 7617, section 2: a colon ends the name.
  if (/[:\p{C}]/u.test(user)) throw bad(`user ${shown(user)} has a colon or a control character in it`)
  if (Buffer.byteLength(user) > LONGEST_USER) throw bad(`user ${shown(user)} is longer than ${LONGEST_USER} bytes`)
  if (/\p{C}/u.test(passwordFile)) throw bad('password_file has a control character in it: it is the path of a file')
  return { user, passwordFile }
}

function refuseUser(place: string, form: string): void {
  if (place.includes('@')) throw bad(`user information ("…@") is not known here: write ${form}`)
}

function decoded(name: string, value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    throw bad(`${name} has a % that is no escape: write %25`)
  }
}

/** As little as possible, so that it can be read. */
function escaped(value: string): string {
  return value.replace(/[%&+#]/g, encodeURIComponent)
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
