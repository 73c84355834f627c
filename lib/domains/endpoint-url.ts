import type { Carries } from '../core/domain.ts'
import type { Endpoint, Mapping } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { formatHostPort, parseHostPort } from './address.ts'
import type { KnownDomain, ReadEndpoint, Role } from './domain.ts'
import { nearest } from './nearest.ts'
import { shown } from './text.ts'

export type { KnownDomain, Role } from './domain.ts'

export interface EndpointContext {
  readonly domains: readonly KnownDomain[]
  readonly role: Role
}

// sun_path is 108 bytes on Linux, the last one a zero (unix(7)).
const UNIX_PATH_BYTES = 107

/**
 * `tcp://host:port`, `udp://host:port` (or `tcp://host:port/udp`) or `unix:///path`. The result is normalised: an empty host to forward to is
 * 127.0.0.1, an empty one to listen on stays (`:80`, all interfaces).
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function parseEndpointUrl(text: string, context: EndpointContext): Endpoint {
  try {
    return endpointFromUrl(text.trim(), context)
  } catch (error) {
    throw specError(`bad endpoint ${shown(text)}`, error)
  }
}

/** As parseEndpointUrl; the error says only what is wrong, not with which text. */
export function endpointFromUrl(text: string, context: EndpointContext): Endpoint {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text)
  const [, scheme, rest] = match ?? []
  if (scheme === undefined || rest === undefined) {
    const path = /^(?:unix:)?(\/\P{C}{1,120})$/iu.exec(text)?.[1]
    throw bad(`${shown(text)} is not an endpoint: write ${path === undefined ? 'tcp://host:port' : `unix://${path}`}`)
  }
  return checkDomainEndpoint({ Domain: scheme, Addr: rest }, context)
}

/** Checks an endpoint, however it was written, and normalises it. The error says only what is wrong. */
export function checkDomainEndpoint(at: Endpoint, context: EndpointContext): Endpoint {
  const { Domain, Addr } = withSuffix({ Domain: at.Domain.toLowerCase(), Addr: at.Addr })
  return checkDomain(Domain, context)({ ...at, Domain, Addr }, context.role)
}

/**
 * Whether two endpoints can be the halves of one mapping: both carry bytes, or both datagrams.
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function checkPair(mapping: Mapping, domains: readonly KnownDomain[]): void {
  const { Listen, Forward } = mapping
  const listen = carriedBy(Listen.Domain, domains)
  const forward = carriedBy(Forward.Domain, domains)
  if (listen === 'any' || forward === 'any' || listen === forward) return
  const words = {
    stream: 'a stream of bytes',
    datagrams: 'datagrams',
    requests: 'connections with targets of their own',
  }
  throw bad(
    `${Listen.Domain} cannot be forwarded to ${Forward.Domain}: ` +
      `${Listen.Domain} carries ${words[listen]}, and ${Forward.Domain} ${words[forward]}`,
  )
}

/** What is not known can be anything. */
function carriedBy(name: string, domains: readonly KnownDomain[]): Carries {
  const domain = domains.find((known) => typeof known !== 'string' && known.name === name)
  return typeof domain === 'object' ? (domain.carries ?? 'stream') : 'any'
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
function checkDomain(name: string, { domains, role }: EndpointContext): ReadEndpoint {
  const names = domains.map((domain) => (typeof domain === 'string' ? domain : domain.name))
  const known = domains[names.indexOf(name)]
  if (known === undefined) {
    const near = nearest(name, names)
    const meant = near === undefined ? '' : `: did you mean ${near}?`
    throw bad(`unknown domain ${shown(name)}${meant} (known: ${names.join(', ')})`)
  }
  const byName = name === 'unix' ? readUnix : readHostPort
  if (typeof known === 'string') return byName
  if (role === 'listen' && known.listen === undefined) throw bad(`domain ${name} cannot be listened on`)
  if (role === 'forward' && known.dial === undefined) throw bad(`domain ${name} cannot be forwarded to`)
  return known.read ?? byName
}

function readHostPort({ Domain, Addr }: Endpoint, role: Role): Endpoint {
  return { Domain, Addr: hostPort(Addr, Domain, role) }
}

function hostPort(addr: string, domain: string, role: Role): string {
  if (addr.includes('@')) {
    throw bad(`user information ("…@") is not known here: write ${domain}://host:port without it`)
  }
  const { host, port } = parseHostPort(addr, { allowZero: role === 'listen' })
  return formatHostPort({ host: host === '' && role === 'forward' ? '127.0.0.1' : host, port })
}

/** The endpoint of a Unix socket: an absolute path. */
export function readUnix(at: Endpoint): Endpoint {
  return { Domain: at.Domain, Addr: unixPath(at.Addr) }
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
