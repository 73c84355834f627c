import { isIP } from 'node:net'
import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { parsePin } from '../sockets/verify.ts'
import { formatHostPort, parseHostPort } from './address.ts'
import type { Role } from './domain.ts'
import { nearest } from './nearest.ts'
import { shown } from './text.ts'
import { parseWeb } from './web-address.ts'

/** Who is dialled, and by what it is known that it is them. */
export interface TlsAddress {
  readonly host: string
  readonly port: number
  readonly verify: TlsVerify
  /** The name to ask for and to find in the certificate. Default: the host. */
  readonly name?: string | undefined
}

/**
 * - `system`: the CAs that this machine trusts
 * - `ca`: those in a file, and no other
 * - `pin`: the SHA-256 of a certificate, in hexadecimal digits
 * - `off`: nobody is known by anything
 */
export type TlsVerify =
  | { readonly by: 'system' }
  | { readonly by: 'off' }
  | { readonly by: 'ca'; readonly file: string }
  | { readonly by: 'pin'; readonly sha256: string }

const OPTIONS = ['verify', 'pin', 'ca', 'name']
const EXAMPLE = 'host:443?pin=sha256:…, ?ca=FILE or ?verify=off'
const HTTPS_PORT = 443

/**
 * An address of the domain `tls`. To forward to: `host:port`, then `?verify=off`, `?pin=sha256:HEX` or `?ca=FILE`, and
 * `name=SERVERNAME`. The path of the file is percent-encoded where it has a `%`, `&`, `+` or `#`. To listen on: the name
 * that clients ask for, or `*.suffix`.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function readTls(at: Endpoint, role: Role): Endpoint {
  return { Domain: 'tls', Addr: role === 'listen' ? readServerName(at.Addr) : formatTls(parseTls(at.Addr)) }
}

/** In the one form that names it, which is that of a host of the web port. */
function readServerName(text: string): string {
  if (/[/?]/.test(text)) throw bad(`${shown(text)} is not a name: there is no path here, and nothing behind a ?`)
  const { host } = parseWeb(text)
  if (host === '') throw bad('it names no host: write tls://db.example.com')
  // RFC 6066 section 3.
  if (/^\[|^[\d.]+$/.test(host)) throw bad(`${host} is an address: clients of TLS ask for names only`)
  return host
}

/** `https` is `tls`, with 443 where there is no port. */
export function readHttps(at: Endpoint, role: Role): Endpoint {
  const [, place = '', path = '', query = ''] = /^([^/?#]*)([^?]*)(.*)$/s.exec(at.Addr) ?? []
  if (path !== '' && path !== '/') throw bad(`there is no path here: ${shown(path)} is for what asks over HTTP`)
  const withPort = /:[^:\]]*$/.test(place) ? place : `${place}:${HTTPS_PORT}`
  return readTls({ Domain: 'tls', Addr: `${withPort}${query}` }, role)
}

/** @throws ProxyError PROXY_ERR_ADDRESS */
export function parseTls(text: string): TlsAddress {
  const [, place = '', query] = /^([^?]*)(?:\?(.*))?$/s.exec(text) ?? []
  if (place.includes('@')) throw bad('user information ("…@") is not known here: write tls://host:port without it')
  const { host, port } = parseHostPort(place)
  const options = readOptions(query)
  const name = options.get('name')
  if (name !== undefined && !isName(name)) throw bad(`name ${shown(name)} is not the name of a server`)
  return { host: host === '' ? '127.0.0.1' : host, port, verify: readVerify(options), ...(name ? { name } : {}) }
}

/** As `parseTls` takes it. */
export function formatTls({ verify, name, ...place }: TlsAddress): string {
  const options: string[] = []
  if (verify.by === 'off') options.push('verify=off')
  if (verify.by === 'ca') options.push(`ca=${verify.file.replace(/[%&+#]/g, encodeURIComponent)}`)
  if (verify.by === 'pin') options.push(`pin=sha256:${verify.sha256}`)
  if (name !== undefined) options.push(`name=${name}`)
  return `${formatHostPort(place)}${options.length > 0 ? `?${options.join('&')}` : ''}`
}

function readOptions(query: string | undefined): Map<string, string> {
  const options = new Map<string, string>()
  for (const text of query === undefined ? [] : query.split('&')) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(text) ?? []
    if (!OPTIONS.includes(name)) {
      const near = nearest(name, OPTIONS)
      throw bad(`unknown option ${shown(name)}: ${near === undefined ? `write ${EXAMPLE}` : `did you mean ${near}?`}`)
    }
    if (options.has(name)) throw bad(`${name} is given twice`)
    if (value === '') throw bad(`${name} is empty: write ${EXAMPLE}`)
    options.set(name, decoded(name, value))
  }
  return options
}

function decoded(name: string, value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    throw bad(`${name} has a % that is no escape: write %25`)
  }
}

function readVerify(options: ReadonlyMap<string, string>): TlsVerify {
  const given = ['verify', 'pin', 'ca'].filter((name) => options.has(name))
  if (given.length > 1) throw bad(`${given.join(' and ')} exclude each other: how is the certificate to be checked?`)
  const verify = options.get('verify')
  if (verify !== undefined && verify !== 'off') {
    throw bad(`verify=${shown(verify)} is not known: only verify=off, without which the certificate is checked`)
  }
  const pin = options.get('pin')
  const file = options.get('ca')
  if (pin !== undefined) return readPin(pin)
  if (file !== undefined) {
    if (/\p{C}/u.test(file)) throw bad('ca has a control character in it: it is the path of a file')
    return { by: 'ca', file }
  }
  return verify === undefined ? { by: 'system' } : { by: 'off' }
}

function readPin(pin: string): TlsVerify {
  try {
    const read = parsePin(pin)
    if (read.by === 'pin') return read
  } catch {
    // Its advice is about a server of symport.
  }
  throw bad('a pin is sha256: and 64 hexadecimal digits, as "openssl x509 -noout -fingerprint -sha256" prints them')
}

function isName(name: string): boolean {
  const labels = name.split('.')
  return isIP(name) > 0 || (name.length <= 253 && labels.every((label) => /^[a-z0-9_-]{1,63}$/i.test(label)))
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
