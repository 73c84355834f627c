import * as v from 'valibot'
import { checkEndpoint, type DomainPlugin, type Endpoint, type Mapping, ProxyError } from '../core/index.ts'
import { checkDomainEndpoint, checkPair, withoutSecrets } from '../domains/endpoint-url.ts'
import { nearest } from '../domains/nearest.ts'
import { type EndpointContext, parseEndpointUrl, type Role, type Spec } from '../domains/spec.ts'
import { DOMAINS, ownDomains, peerDomains } from '../domains/table.ts'
import { shown } from '../domains/text.ts'
import type { Balance, MappingRequest } from './operations.ts'

/** What an operator decides about a mapping, checked. What is left out is as the server has it. */
export interface MappingSettings extends Mapping {
  readonly nodes: readonly string[]
  readonly balance?: Balance | undefined
  readonly note: string
  readonly enabled: boolean
  readonly wait?: number | undefined
  readonly health?: { readonly interval: number; readonly timeout: number } | undefined
}

const MAX_NODES = 1000
const ID_BYTES = 64
const NOTE_LENGTH = 1000
const MAX_WAIT = 60_000
const INTERVAL = { default: 10_000, least: 100, most: 86_400_000 }
const TIMEOUT = { default: 5000, least: 10, most: 60_000 }
const ENDPOINT_LENGTH = 1100

const ms = (least: number, most: number) => {
  const text = `a whole number of milliseconds, ${least} to ${most}`
  return v.pipe(v.number(text), v.integer(text), v.minValue(least, text), v.maxValue(most, text))
}
const endpointText = v.pipe(v.string(), v.maxLength(ENDPOINT_LENGTH, 'too long'))
const endpoint = v.union(
  [endpointText, v.strictObject({ Domain: v.string(), Addr: v.string() })],
  'an address, or {"Domain": string, "Addr": string}',
)
const nodeId = v.pipe(
  v.string('the id of a node, in quotes'),
  v.check((id) => Buffer.byteLength(id) <= ID_BYTES && /^[^\s\p{C}]+$/u.test(id), 'an id has 1 to 64 bytes, no spaces'),
)
const fields = {
  nodes: v.optional(v.pipe(v.array(nodeId, 'a list of ids'), v.maxLength(MAX_NODES, `at most ${MAX_NODES} nodes`))),
  balance: v.optional(v.picklist(['first', 'round-robin', 'least-connections'])),
  note: v.optional(
    v.pipe(
      v.string('a text'),
      v.maxLength(NOTE_LENGTH, `at most ${NOTE_LENGTH} characters`),
      v.regex(/^[^\p{Cc}\p{Zl}\p{Zp}]*$/u, 'a note is one line'),
    ),
  ),
  enabled: v.optional(v.boolean('true or false')),
  wait: v.optional(ms(0, MAX_WAIT)),
  health: v.optional(
    v.strictObject({
      interval: v.optional(ms(INTERVAL.least, INTERVAL.most)),
      timeout: v.optional(ms(TIMEOUT.least, TIMEOUT.most)),
    }),
  ),
}

/** The shape of a `MappingRequest`, as a schema: what its addresses mean is checked by `readMappingRequest`. */
export const MAPPING_REQUEST: v.GenericSchema<unknown, MappingRequest> = v.strictObject({
  listen: endpoint,
  forward: endpoint,
  ...fields,
})

/** A domain and an address, as a file has them. */
export const ENDPOINT: v.GenericSchema<unknown, Endpoint> = v.object({ Domain: v.string(), Addr: v.string() })

/** The settings of a mapping, as a file has them. */
export const MAPPING_SETTINGS: v.GenericSchema<unknown, MappingSettings> = v.object({
  Listen: ENDPOINT,
  Forward: ENDPOINT,
  nodes: v.array(nodeId),
  balance: fields.balance,
  note: v.string(),
  enabled: v.boolean(),
  wait: fields.wait,
  health: v.optional(
    v.object({ interval: ms(INTERVAL.least, INTERVAL.most), timeout: ms(TIMEOUT.least, TIMEOUT.most) }),
  ),
})

/**
 * Checks what an operator asks for.
 *
 * @throws ProxyError PROXY_ERR_REQUEST, which says what makes no sense
 */
export function readMappingRequest(request: unknown, domains: readonly DomainPlugin[]): MappingSettings {
  const result = v.safeParse(MAPPING_REQUEST, request)
  if (!result.success) throw shapeError(result.issues[0])
  const { listen, forward, nodes, balance, note, enabled, wait, health } = result.output
  const halves = {
    Listen: readEndpoint(listen, 'listen', domains),
    Forward: readEndpoint(forward, 'forward', domains),
  }
  checkHalves(halves, domains)
  return {
    ...halves,
    nodes: [...new Set(nodes)],
    balance,
    note: note ?? '',
    enabled: enabled ?? true,
    wait,
    health: health && { interval: health.interval ?? INTERVAL.default, timeout: health.timeout ?? TIMEOUT.default },
  }
}

/** A mapping of the command line. It has been parsed, and what an embedder's own domain can do only that domain knows. */
export function settingsOf(spec: Spec): MappingSettings {
  const { Listen, Forward, Node } = spec
  return { Listen, Forward, nodes: Node === undefined ? [] : [Node], note: '', enabled: true }
}

/** What makes two mappings the same one: the order of the nodes does not. */
export function keyOf({ Listen, Forward, nodes }: MappingSettings): string {
  return JSON.stringify([Listen.Domain, Listen.Addr, Forward.Domain, Forward.Addr, ...[...nodes].sort()])
}

function readEndpoint(value: Endpoint | string, role: Role, plugins: readonly DomainPlugin[]): Endpoint {
  // Where to forward to is for the domains of the other side, which may have more of them.
  const domains = role === 'listen' ? ownDomains(plugins) : peerDomains(plugins)
  try {
    const at = typeof value === 'string' ? fromText(value.trim(), { domains, role }) : checkEndpoint(value)
    const Domain = at.Domain.toLowerCase()
    if (Domain === 'channel' || (Domain === 'tunnel' && at.Addr !== '')) {
      throw new ProxyError(
        'PROXY_ERR_REQUEST',
        'channels are between nodes, which offer them with -R and join them with -L',
      )
    }
    const known = DOMAINS.some((domain) => typeof domain === 'object' && domain.name === Domain)
    const foreign = role === 'forward' || plugins.some(({ name }) => name === at.Domain)
    return typeof value === 'string' || (foreign && !known) ? at : checkDomainEndpoint(at, { domains, role })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const text = typeof value === 'string' ? value : `${value.Domain}://${value.Addr}`
    const named = reason.startsWith('bad endpoint') ? reason : `${shown(withoutSecrets(text))}: ${reason}`
    throw new ProxyError('PROXY_ERR_REQUEST', `${role} ${named}`, { cause: error })
  }
}

function checkHalves(halves: Mapping, domains: readonly DomainPlugin[]): void {
  try {
    checkPair(halves, peerDomains(domains))
  } catch (error) {
    throw new ProxyError('PROXY_ERR_REQUEST', error instanceof Error ? error.message : String(error), { cause: error })
  }
}

function fromText(text: string, context: EndpointContext): Endpoint {
  if (text === '') throw new ProxyError('PROXY_ERR_REQUEST', 'it is empty: write host:port')
  if (text.includes('://')) return parseEndpointUrl(text, context)
  const Domain = text.startsWith('/') ? 'unix' : 'tcp'
  return checkDomainEndpoint({ Domain, Addr: text }, context)
}

function shapeError(issue: v.BaseIssue<unknown>): ProxyError {
  const path = v.getDotPath(issue) ?? ''
  const key = path.split('.').at(-1) ?? ''
  let text = path === '' ? 'a mapping is an object with listen and forward' : `${path}: ${issue.message}`
  if (path !== '' && issue.type === 'strict_object') {
    const known = path.startsWith('health.') ? ['interval', 'timeout'] : ['listen', 'forward', ...Object.keys(fields)]
    const meant = nearest(key, known)
    text = `${shown(path)} is not known here${meant === undefined ? '' : `: did you mean ${shown(meant)}?`}`
    if (issue.expected !== 'never') text = issue.received === 'undefined' ? `${path} is missing` : `${path}: an object`
  } else if (path !== '' && issue.type === 'picklist') {
    text = `${path}: one of first, round-robin, least-connections`
  }
  return new ProxyError('PROXY_ERR_REQUEST', text)
}
