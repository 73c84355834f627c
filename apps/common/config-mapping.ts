import { checkDomainEndpoint, checkPair, endpointFromUrl, type Role as Half } from '../../lib/domains/endpoint-url.ts'
import { parseSpec } from '../../lib/domains/spec.ts'
import type { Balance, HealthCheck, MappingRequest } from '../../lib/hub/operations.ts'
import type { DomainPlugin, Endpoint, Spec } from '../../lib/index.ts'
import { toDuration } from './flags.ts'

/** Half of a mapping as a file has it: `:8078`, `127.0.0.1:53/udp`, `unix:///run/x.sock`, an endpoint. */
export type FileHalf = string | Endpoint

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
export function readHalf(half: FileHalf, role: Half, plugins: readonly DomainPlugin[]): Endpoint {
  // Where to forward to is for the domains of the other side.
  const names = new Set(['tcp', 'udp', 'unix', ...plugins.map(({ name }) => name)])
  const context = { domains: role === 'listen' ? plugins : [...names], role }
  if (typeof half === 'object') return checkDomainEndpoint(half, context)
  const text = half.trim()
  if (text.includes('://')) return endpointFromUrl(text, context)
  return checkDomainEndpoint({ Domain: text.startsWith('/') ? 'unix' : 'tcp', Addr: text }, context)
}

/** Whether its halves go together. @throws ProxyError PROXY_ERR_SPEC, PROXY_ERR_ADDRESS */
export function checkHalves(listen: FileHalf, forward: FileHalf, plugins: readonly DomainPlugin[]): void {
  checkPair({ Listen: readHalf(listen, 'listen', plugins), Forward: readHalf(forward, 'forward', plugins) }, plugins)
}

/** What the file has, known to be well formed, as the hub takes it. */
export function readMapping(value: FileMapping, domains: readonly DomainPlugin[]): ConfigMapping {
  if (typeof value === 'string') {
    const { Listen, Forward, Node } = parseSpec(value, { domains })
    return { listen: Listen, forward: Forward, ...(Node === undefined ? {} : { nodes: [Node] }) }
  }
  if ('Listen' in value) {
    const { Listen, Forward, Node } = value
    return readMapping({ listen: Listen, forward: Forward, node: Node }, domains)
  }
  const { node, nodes = node, balance, note, enabled, wait, health } = value
  return {
    listen: readHalf(value.listen, 'listen', domains),
    forward: readHalf(value.forward, 'forward', domains),
    ...(nodes === undefined ? {} : { nodes: [...new Set([nodes].flat())] }),
    ...(balance === undefined ? {} : { balance }),
    ...(note === undefined ? {} : { note }),
    ...(enabled === undefined ? {} : { enabled }),
    ...(wait === undefined ? {} : { wait: toDuration(wait, 'wait') }),
    ...(health === undefined || health === false ? {} : { health: health === true ? {} : readHealth(health) }),
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

/** The same as SPECs, where a SPEC is all that is taken: one for each node, none for a mapping that is switched off. */
export function specsOf({ listen, forward, nodes = [], enabled = true }: ConfigMapping): Spec[] {
  const mapping = { Listen: listen, Forward: forward }
  if (!enabled) return []
  return nodes.length === 0 ? [mapping] : nodes.map((Node) => ({ ...mapping, Node }))
}
