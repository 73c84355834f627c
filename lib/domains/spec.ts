import type { Endpoint, Mapping } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import {
  checkDomainEndpoint,
  checkPair,
  endpointFromUrl,
  type KnownDomain,
  type Role,
  specError,
} from './endpoint-url.ts'
import { isUnquotedJson, readJsonSpec, unquotedJsonAdvice } from './spec-json.ts'
import { shown } from './text.ts'

export { checkPair, type EndpointContext, type KnownDomain, parseEndpointUrl, type Role } from './endpoint-url.ts'

/** A mapping as a person asks for it; `Node` pins it to the node of that id. */
export interface Spec extends Mapping {
  readonly Node?: string
}

export interface SpecContext {
  readonly domains: readonly KnownDomain[]
}

const SPEC_LENGTH = 4096
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
    checkPair(spec, context.domains)
    return spec
  } catch (error) {
    throw specError(`bad SPEC ${shown(text)}`, error)
  }
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
  // Elsewhere a comma is part of a path.
  const [listen, forward, more] = text.split(/,\s*(?=[a-z][a-z0-9+.-]*:\/\/)/i)
  if (listen === undefined || forward === undefined || more !== undefined) {
    const count = more === undefined ? 'one endpoint' : 'more than two endpoints'
    throw bad(`it has ${count}: write where to listen, a comma, and where to forward (tcp://host:port,tcp://host:port)`)
  }
  return {
    Listen: half('listen', () => endpointFromUrl(listen, { ...context, role: 'listen' })),
    Forward: half('forward', () => endpointFromUrl(forward, { ...context, role: 'forward' })),
  }
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
  return {
    Listen: half('listen', () => checkDomainEndpoint(listen, { ...context, role: 'listen' })),
    Forward: half('forward', () => checkDomainEndpoint(forward, { ...context, role: 'forward' })),
  }
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
