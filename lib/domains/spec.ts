import type { Endpoint, Mapping } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { passwordOf } from './channel-address.ts'
import {
  checkDomainEndpoint,
  checkPair,
  type KnownDomain,
  type Role,
  SEPARATOR,
  specError,
  splitUrl,
  textError,
} from './endpoint-url.ts'
import { isUnquotedJson, readJsonSpec, unquotedJsonAdvice } from './spec-json.ts'
import { ownDomains, peerDomains } from './table.ts'

export { checkPair, type EndpointContext, type KnownDomain, parseEndpointUrl, type Role } from './endpoint-url.ts'

/** A mapping as a person asks for it; `Node` pins it to the node of that id. */
export interface Spec extends Mapping {
  readonly Node?: string
}

export interface SpecContext {
  /** What this side can do. */
  readonly domains: readonly KnownDomain[]
  /**
   * Which half is for this side: `local`, it listens and the other one forwards; `remote`, the other way round. The other
   * half may be of any domain there is. Without it, both halves are for these domains.
   */
  readonly use?: 'local' | 'remote' | undefined
}

export const SPEC_LENGTH = 4096
const FORMS = 'write [bind:]port:host:hostport, or tcp://host:port,tcp://host:port, or JSON'

/**
 * A SPEC in any of its three forms: JSON (`{"Listen":{"Domain":"tcp","Addr":":1080"},"Forward":{...}}`), two endpoint
 * URLs with a comma, or ssh's `[bind:]port:host:hostport`, in which a path (`/run/x.sock`) may stand for either half.
 * All come out the same: addresses normalised, an empty host to forward to as 127.0.0.1.
 *
 * @throws ProxyError PROXY_ERR_SPEC, on one line, with the text and what is wrong with it
 */
export function parseSpec(text: string, context: SpecContext): Spec {
  try {
    const spec = readSpec(text.trim(), context)
    checkPair(spec, context.use === undefined ? context.domains : peerDomains(context.domains))
    return spec
  } catch (error) {
    throw textError('bad SPEC', text, error)
  }
}

/** A SPEC as text that parseSpec takes. Passwords stand in it. */
export function formatSpec({ Listen, Forward, Node }: Spec): string {
  return JSON.stringify({
    Listen: revealed(Listen),
    Forward: revealed(Forward),
    ...(Node === undefined ? {} : { Node }),
  })
}

function revealed(at: Endpoint): object {
  const { Domain, Addr } = at
  const password = passwordOf(at)
  return password === undefined ? { Domain, Addr } : { Domain, Addr, Password: password.reveal() }
}

function readSpec(text: string, context: SpecContext): Spec {
  if (text === '') throw bad(`it is empty: ${FORMS}`)
  if (text.length > SPEC_LENGTH) throw bad(`it is longer than ${SPEC_LENGTH} characters`)
  if (isUnquotedJson(text)) throw bad(unquotedJsonAdvice(text))
  if (text.startsWith('{')) return fromJson(text, context)
  if (/^\[\s*[{"]/.test(text)) throw bad('one SPEC is one JSON object: give the flag once for each')
  if (text.includes('://')) return fromUrls(text, context)
  return fromSsh(text, context)
}

function fromJson(text: string, context: SpecContext): Spec {
  const { Listen, Forward, Node } = readJsonSpec(text)
  return { ...mapping(Listen, Forward, context), ...(Node === undefined ? {} : { Node }) }
}

function fromUrls(text: string, context: SpecContext): Spec {
  const [listen, forward, more] = text.split(SEPARATOR)
  if (listen === undefined || forward === undefined || more !== undefined) {
    const count = more === undefined ? 'one endpoint' : 'more than two endpoints'
    throw bad(`it has ${count}: write where to listen, a comma, and where to forward (tcp://host:port,tcp://host:port)`)
  }
  return mapping(
    half('listen', () => splitUrl(listen)),
    half('forward', () => splitUrl(forward)),
    context,
  )
}

function fromSsh(text: string, context: SpecContext): Spec {
  const fields = splitFields(text)
  const udp = /^([0-9]+)\/(tcp|udp)$/i.exec(fields.at(-1) ?? '')
  const domain = udp?.[2] ?? 'tcp'
  if (udp?.[1] !== undefined) fields.splice(-1, 1, udp[1])

  const path = (field: string | undefined): Endpoint | undefined =>
    field?.startsWith('/') ? { Domain: 'unix', Addr: field } : undefined
  let listen = path(fields[0])
  if (listen !== undefined) fields.shift()
  let forward = path(fields.at(-1))
  if (forward !== undefined) fields.pop()
  if (forward === undefined) {
    const [host, port] = fields.splice(-2)
    if (host === undefined || port === undefined) throw bad(FORMS)
    forward = { Domain: domain, Addr: `${host}:${port}` }
  }
  if (listen === undefined) {
    const port = fields.pop()
    if (port === undefined) throw bad(FORMS)
    // As in ssh: no bind is loopback, an empty one and "*" are all interfaces.
    const bind = fields.pop() ?? '127.0.0.1'
    listen = { Domain: domain, Addr: `${bind === '*' ? '' : bind}:${port}` }
  }
  if (fields.length > 0) throw bad(`it has too many fields (is an IPv6 address without brackets?): ${FORMS}`)
  return mapping(listen, forward, context)
}

/** What stands between colons; those in brackets do not count. */
function splitFields(text: string): string[] {
  const fields = text.match(/(?:\[[^\]]*\]|[^:[])+|(?<=:|^)(?=:|$)/g) ?? []
  if (fields.join(':') !== text) throw bad(`a bracket is not closed: ${FORMS}`)
  return fields
}

function mapping(listen: Endpoint, forward: Endpoint, context: SpecContext): Mapping {
  const [at, to] = withBase(listen, forward)
  return {
    Listen: half('listen', () => checkDomainEndpoint(at, { domains: domainsFor('listen', context), role: 'listen' })),
    Forward: half('forward', () =>
      checkDomainEndpoint(to, { domains: domainsFor('forward', context), role: 'forward' }),
    ),
  }
}

/** What can be in this half, here or at the other side. */
function domainsFor(role: Role, { domains, use }: SpecContext): readonly KnownDomain[] {
  if (use === undefined) return domains
  return (use === 'local') === (role === 'listen') ? ownDomains(domains) : peerDomains(domains)
}

/** Of `web://x.com,http://host:port/base/`, the path of the target belongs to what asks over HTTP. */
function withBase(listen: Endpoint, forward: Endpoint): [listen: Endpoint, forward: Endpoint] {
  if (!/^web$/i.test(listen.Domain) || !/^https?$/i.test(forward.Domain)) return [listen, forward]
  const [, place = '', path = '', query = ''] = /^([^/?#]*)([^?]*)(.*)$/s.exec(forward.Addr) ?? []
  if (path === '' || path === '/') return [listen, forward]
  if (listen.Addr.includes('?')) throw bad('the base and the path of the target are both given: keep one')
  return [
    { ...listen, Addr: `${listen.Addr}?base=${path.replaceAll('&', '%26')}` },
    { ...forward, Addr: `${place}${query}` },
  ]
}

function half(role: Role, read: () => Endpoint): Endpoint {
  try {
    return read()
  } catch (error) {
    throw specError(role === 'listen' ? 'Listen' : 'Forward', error)
  }
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_SPEC', message)
}
