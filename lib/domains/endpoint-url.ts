import type { Carries } from '../core/domain.ts'
import type { Endpoint, Mapping } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { KnownDomain, ReadEndpoint, Role } from './domain.ts'
import { readHttpForward } from './dynamic-address.ts'
import { nearest } from './nearest.ts'
import { type ProxyVersion, readHostPort, readTcp } from './tcp-address.ts'
import { shown } from './text.ts'
import { readHttps } from './tls-address.ts'

export type { KnownDomain, Role } from './domain.ts'

export interface EndpointContext {
  readonly domains: readonly KnownDomain[]
  readonly role: Role
}

/** What is written as another domain where it is forwarded to. */
const WRITTEN_AS: ReadonlyMap<string, { readonly name: string; readonly read: ReadEndpoint }> = new Map([
  ['http', { name: 'tcp', read: readHttpForward }],
  ['https', { name: 'tls', read: readHttps }],
])

/** Domains whose endpoints have passwords. */
const WITH_PASSWORD = ['channel', 'tunnel']

// sun_path is 108 bytes on Linux, the last one a zero (unix(7)).
const UNIX_PATH_BYTES = 107

/**
 * `tcp://host:port`, `udp://host:port` (or `tcp://host:port/udp`), `unix:///path`, or what else is known. The result is normalised: an empty host to forward to is
 * 127.0.0.1, an empty one to listen on stays (`:80`, all interfaces).
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function parseEndpointUrl(text: string, context: EndpointContext): Endpoint {
  try {
    return endpointFromUrl(text.trim(), context)
  } catch (error) {
    throw textError('bad endpoint', text, error)
  }
}

/** As parseEndpointUrl; the error says only what is wrong, not with which text. */
export function endpointFromUrl(text: string, context: EndpointContext): Endpoint {
  return checkDomainEndpoint(splitUrl(text), context)
}

/** Scheme and rest, unchecked. The error says only what is wrong. */
export function splitUrl(text: string): Endpoint {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text)
  const [, scheme, rest] = match ?? []
  if (scheme === undefined || rest === undefined) {
    const path = /^(?:unix:)?(\/[^\p{C}@]{1,120})$/iu.exec(text)?.[1]
    throw bad(`${shown(text)} is not an endpoint: write ${path === undefined ? 'tcp://host:port' : `unix://${path}`}`)
  }
  return { Domain: scheme, Addr: rest }
}

/** Checks an endpoint, however it was written, and normalises it. The error says only what is wrong. */
export function checkDomainEndpoint(at: Endpoint, context: EndpointContext): Endpoint {
  const { Domain, Addr } = withSuffix({ Domain: at.Domain.toLowerCase(), Addr: at.Addr })
  const read = checkDomain(Domain, context)
  if ('Password' in at && !WITH_PASSWORD.includes(Domain)) {
    throw bad(`${shown(Domain)} takes no password: ${WITH_PASSWORD.join(' and ')} do`)
  }
  return read({ ...at, Domain, Addr }, context.role)
}

/**
 * Whether two endpoints can be the halves of one mapping: both carry bytes, or both datagrams, or what comes in names its
 * own targets and the other half is a way out for these.
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function checkPair(mapping: Mapping, domains: readonly KnownDomain[]): void {
  const { Listen, Forward } = mapping
  if (Listen.Domain === 'web' && /\?proxy=v[12]$/.test(Forward.Addr)) {
    throw bad(
      'proxy is not for web: its visitors share connections, and each request says whose it is (X-Forwarded-For)',
    )
  }
  const listen = carriedBy(Listen.Domain, domains)
  const forward = carriedBy(Forward.Domain, domains)
  // What is not known can be anything.
  if (listen === undefined || forward === undefined || listen === 'any' || listen === forward) return
  if (forward === 'any' && listen !== 'requests') return
  if (listen === 'requests') {
    throw bad(
      `${Listen.Domain} cannot be forwarded to ${Forward.Domain}: those who connect name their own targets; ` +
        'write tunnel:// for the other side, or tunnel://CHANNEL:PASSWORD@ for a node that offers one',
    )
  }
  const words = {
    stream: 'a stream of bytes',
    datagrams: 'datagrams',
    requests: 'connections with targets of their own',
    any: 'either',
  }
  throw bad(
    `${Listen.Domain} cannot be forwarded to ${Forward.Domain}: ` +
      `${Listen.Domain} carries ${words[listen]}, and ${Forward.Domain} ${words[forward]}`,
  )
}

function carriedBy(name: string, domains: readonly KnownDomain[]): Carries | undefined {
  const domain = domains.find((known) => typeof known !== 'string' && known.name === name)
  return typeof domain === 'object' ? (domain.carries ?? 'stream') : undefined
}

/** An error about a text, with the reason that `cause` gives; neither shows what may be a password. */
export function textError(what: string, text: string, cause: unknown): ProxyError {
  const { message } = specError('', cause)
  const words = text.split(SEPARATOR).flatMap((part) => (secretOf(part) ?? '').split(/[^\p{L}\p{N}]+/u))
  // A shorter one is found in any sentence.
  const secrets = words.filter((word) => word.length > 3)
  const reason = secrets.reduce((said, secret) => said.replaceAll(secret, '…'), message)
  return new ProxyError('PROXY_ERR_SPEC', `${what} ${shown(withoutSecrets(text))}${reason}`, { cause })
}

/** Between two URLs: elsewhere a comma is part of a path. */
export const SEPARATOR: RegExp = /,\s*(?=[a-z][a-z0-9+.-]*:\/\/)/i

/** What stands before an @, or behind a word like "Password", is not to be shown. */
export function withoutSecrets(text: string): string {
  const word = text.includes('{') ? text.search(/pass/i) : -1
  const open = word < 0 ? text : `${text.slice(0, word)}…`
  const parts = open.split(SEPARATOR).map((part) => {
    if (secretOf(part) === undefined && !part.includes('@')) return part
    const [start, at] = userIn(part)
    return `${part.slice(0, start)}…${at > start ? part.slice(at) : ''}`
  })
  return parts.join(',')
}

/** What may be a password: behind the first colon, before an @, or before where one seems to be missing. */
function secretOf(part: string): string | undefined {
  const [start, at] = userIn(part)
  const rest = part.slice(start, at > start ? at : undefined)
  if (start === 0 || (at <= start && isPlain(part, rest))) return undefined
  const colon = rest.search(/[:：]/)
  return colon < 0 ? undefined : rest.slice(colon + 1)
}

/** From where to where user information is, in a URL or without one. */
function userIn(part: string): [start: number, at: number] {
  const scheme = part.indexOf('://')
  return [scheme < 0 ? 0 : scheme + 3, Math.max(part.lastIndexOf('@'), part.lastIndexOf('＠'))]
}

/** Whether it is a host and perhaps a port, and perhaps a path and so on. */
function isPlain(part: string, rest: string): boolean {
  if (/^(?:channel|tunnel):/i.test(part)) return !rest.includes(':')
  return /^(?:[^:：]*|\[[^\]]*\]|[0-9a-f:]*)(?::[0-9]*)?(?:[/?#].*)?$/is.test(rest)
}

/** An error about `what`, with the reason that `cause` gives. */
export function specError(what: string, cause: unknown): ProxyError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new ProxyError('PROXY_ERR_SPEC', `${what}: ${reason}`, { cause })
}

/** `host:port/udp` is the endpoint `host:port` of the domain udp, whatever stood in front. */
function withSuffix(at: Endpoint): Endpoint {
  if (at.Domain !== 'tcp' && at.Domain !== 'udp') return at
  const [, addr, domain] = /^(.*)\/(tcp|udp)$/is.exec(at.Addr) ?? []
  return addr === undefined || domain === undefined ? at : { Domain: domain.toLowerCase(), Addr: addr }
}

/** Answers how its addresses are read. */
function checkDomain(name: string, context: EndpointContext): ReadEndpoint {
  const { domains, role } = context
  const known = domains.find((domain) => nameOf(domain) === name)
  const other = role === 'forward' ? WRITTEN_AS.get(name) : undefined
  if (other !== undefined && (typeof known !== 'object' || known.dial === undefined)) {
    if (domains.some((domain) => nameOf(domain) === other.name && can(domain, role))) return other.read
  }
  const able = domains.filter((domain) => can(domain, role)).map(nameOf)
  if (known === undefined) {
    const near = nearest(name, domains.map(nameOf))
    const meant = near === undefined ? '' : `: did you mean ${near}?`
    throw bad(`unknown domain ${shown(name)}${meant} (known: ${able.join(', ')})`)
  }
  if (!can(known, role)) {
    throw bad(`domain ${name} cannot be ${role === 'listen' ? 'listened on' : 'forwarded to'}: ${able.join(', ')} can`)
  }
  const byName = name === 'unix' ? readUnix : name === 'tcp' ? readTcp : readPlain
  return typeof known === 'string' ? byName : (known.read ?? byName)
}

function nameOf(domain: KnownDomain): string {
  return typeof domain === 'string' ? domain : domain.name
}

function can(domain: KnownDomain, role: Role): boolean {
  return typeof domain === 'string' || (role === 'listen' ? domain.listen : domain.dial) !== undefined
}

function readPlain({ Domain, Addr }: Endpoint, role: Role): Endpoint {
  return { Domain, Addr: readHostPort(Addr, Domain, role) }
}

/** The endpoint of a Unix socket: an absolute path, and to forward to perhaps `?proxy=v2` behind it. */
export function readUnix({ Domain, Addr }: Endpoint, role: Role): Endpoint {
  const { path, proxy } = splitUnix(Addr)
  if (proxy === undefined) return { Domain, Addr: unixPath(path) }
  if (role === 'listen') throw bad('proxy is for where connections go, and not for where they come in')
  return { Domain, Addr: `${unixPath(path)}?proxy=${proxy}` }
}

/** A path may have any other `?` in it. */
export function splitUnix(addr: string): { readonly path: string; readonly proxy?: ProxyVersion | undefined } {
  const [, path, version] = /^(.*)\?proxy=v([12])$/s.exec(addr) ?? []
  return path === undefined ? { path: addr } : { path, proxy: version === '1' ? 'v1' : 'v2' }
}

function unixPath(path: string): string {
  if (!path.startsWith('/')) throw bad(`the path ${shown(path)} is not absolute: write unix:///path/to/socket`)
  if (path.includes('\0')) throw bad('a path cannot contain a zero byte')
  if (path.endsWith('/')) throw bad(`the path ${shown(path)} names a folder: add the name of the socket`)
  const bytes = Buffer.byteLength(path)
  if (bytes > UNIX_PATH_BYTES) {
    throw bad(`the path ${shown(path)} has ${bytes} bytes: a Unix socket's has at most ${UNIX_PATH_BYTES}`)
  }
  return path
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_SPEC', message)
}
