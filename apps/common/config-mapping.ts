import type { KnownDomain } from '../../lib/domains/domain.ts'
import { checkDomainEndpoint, checkPair, endpointFromUrl, type Role as Half } from '../../lib/domains/endpoint-url.ts'
import { parseListenerFlag } from '../../lib/domains/short-spec.ts'
import { formatSpec } from '../../lib/domains/spec.ts'
import { hidden, type WrittenEndpoint } from '../../lib/domains/spec-json.ts'
import { DOMAINS, ownDomains, peerDomains } from '../../lib/domains/table.ts'
import type { Balance, HealthCheck, MappingRequest } from '../../lib/hub/operations.ts'
import type { Endpoint, Spec } from '../../lib/index.ts'
import { type FileHttp, readHttp } from './config-http.ts'
import { type FileLimits, readLimits } from './config-limits.ts'
import { toDuration } from './flags.ts'
import { createDomains } from './options.ts'

/** Half of a mapping as a file has it: `:8078`, `127.0.0.1:53/udp`, `unix:///run/x.sock`, an endpoint. */
export type FileHalf = string | WrittenEndpoint

/** Who listens, and what can be listened on and forwarded to at this side. */
export interface FileContext {
  readonly use: 'local' | 'remote'
  readonly domains: readonly KnownDomain[]
}

/** What can be listened on only at the port of a server. */
const WEB_PORT = ['web', 'ws', 'tls']

/** What the file's side has. The web port is only a server's. */
export function contextOf(role: 'server' | 'node', use: FileContext['use']): FileContext {
  const own = createDomains()
  if (role !== 'server') return { use, domains: own }
  const web = DOMAINS.filter((domain) => typeof domain === 'object' && WEB_PORT.includes(domain.name))
  return { use, domains: [...own.filter(({ name }) => !WEB_PORT.includes(name)), ...web] }
}

/** A mapping as a file has it: a SPEC in any of its forms, or a table. */
export type FileMapping = string | SpecTable | MappingTable

export interface MappingTable {
  readonly listen: FileHalf
  readonly forward: FileHalf
  readonly node?: string | undefined
  readonly nodes?: string | readonly string[] | undefined
  readonly balance?: Balance | undefined
  readonly note?: string | undefined
  readonly enabled?: boolean | undefined
  readonly wait?: string | undefined
  readonly health?:
    | boolean
    | { readonly interval?: string | undefined; readonly timeout?: string | undefined }
    | undefined
  readonly limits?: FileLimits | undefined
  readonly http?: FileHttp | undefined
}

/** The JSON form of a SPEC, as an object of the file. */
export interface SpecTable {
  readonly Listen: FileHalf
  readonly Forward: FileHalf
  readonly Node?: string | undefined
}

/** A mapping whose halves have been read. */
export interface ConfigMapping extends MappingRequest {
  readonly listen: Endpoint
  readonly forward: Endpoint
}

/** @throws ProxyError PROXY_ERR_SPEC, PROXY_ERR_ADDRESS */
export function readHalf(half: FileHalf, role: Half, { use, domains }: FileContext): Endpoint {
  const here = (use === 'local') === (role === 'listen')
  const context = { domains: here ? ownDomains(domains) : peerDomains(domains), role }
  if (typeof half === 'object') return checkDomainEndpoint(hidden(half), context)
  const text = half.trim()
  if (text.includes('://')) return endpointFromUrl(text, context)
  return checkDomainEndpoint({ Domain: text.startsWith('/') ? 'unix' : 'tcp', Addr: text }, context)
}

/** Whether its halves go together. @throws ProxyError PROXY_ERR_SPEC, PROXY_ERR_ADDRESS */
export function checkHalves(listen: FileHalf, forward: FileHalf, context: FileContext): void {
  const halves = { Listen: readHalf(listen, 'listen', context), Forward: readHalf(forward, 'forward', context) }
  checkPair(halves, peerDomains(context.domains))
}

/** What the file has, known to be well formed, as the hub takes it. */
export function readMapping(value: FileMapping, context: FileContext): ConfigMapping {
  if (typeof value === 'string') {
    const { Listen, Forward, Node } = parseListenerFlag(value, context.use, context)
    return { listen: Listen, forward: Forward, ...(Node === undefined ? {} : { nodes: [Node] }) }
  }
  if ('Listen' in value) {
    const { Listen, Forward, Node } = value
    return readMapping({ listen: Listen, forward: Forward, node: Node }, context)
  }
  const { node, nodes = node, balance, note, enabled, wait, health, limits, http } = value
  return {
    listen: readHalf(value.listen, 'listen', context),
    forward: readHalf(value.forward, 'forward', context),
    ...(nodes === undefined ? {} : { nodes: [...new Set([nodes].flat())] }),
    ...(balance === undefined ? {} : { balance }),
    ...(note === undefined ? {} : { note }),
    ...(enabled === undefined ? {} : { enabled }),
    ...(wait === undefined ? {} : { wait: toDuration(wait, 'wait') }),
    ...(health === undefined || health === false ? {} : { health: health === true ? {} : readHealth(health) }),
    ...(limits === undefined ? {} : { limits: readLimits(limits) }),
    ...(http === undefined ? {} : { http: readHttp(http) }),
  }
}

function readHealth({
  interval,
  timeout,
}: {
  interval?: string | undefined
  timeout?: string | undefined
}): HealthCheck {
  return {
    ...(interval === undefined ? {} : { interval: toDuration(interval, 'interval') }),
    ...(timeout === undefined ? {} : { timeout: toDuration(timeout, 'timeout') }),
  }
}

/** As -L and -R take it: one SPEC for each node, none for a mapping that is switched off. Passwords stand in it. */
export function textsOf(mapping: ConfigMapping): string[] {
  return specsOf(mapping).map(formatSpec)
}

function specsOf({ listen, forward, nodes = [], enabled = true }: ConfigMapping): Spec[] {
  const mapping = { Listen: listen, Forward: forward }
  if (!enabled) return []
  return nodes.length === 0 ? [mapping] : nodes.map((Node) => ({ ...mapping, Node }))
}
