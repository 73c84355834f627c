import * as v from 'valibot'
import { checkEndpoint, type DomainPlugin, type Endpoint, type Mapping, ProxyError } from '../core/index.ts'
import { checkDomainEndpoint, checkPair, withoutSecrets } from '../domains/endpoint-url.ts'
import { HTTP_REQUEST, HTTP_SETTINGS, type HttpRequest, type HttpSettings } from '../domains/http-settings.ts'
import { nearest } from '../domains/nearest.ts'
import { type EndpointContext, parseEndpointUrl, type Role, type Spec } from '../domains/spec.ts'
import { DOMAINS, ownDomains, peerDomains } from '../domains/table.ts'
import { shown } from '../domains/text.ts'
import { TRAFFIC_LIMITS, type TrafficLimits } from '../policy/traffic-limits.ts'
import { withUnshown } from './mapping-http.ts'
import { isEmpty, mergePatch, patchSchema } from './merge-patch.ts'
import type { Balance, MappingChange, MappingRequest } from './operations.ts'

/** What an operator decides about a mapping, checked. What is left out is as the server has it. */
export interface MappingSettings extends Mapping {
  readonly nodes: readonly string[]
  readonly balance?: Balance | undefined
  readonly note: string
  readonly enabled: boolean
  readonly wait?: number | undefined
  readonly health?: { readonly interval: number; readonly timeout: number } | undefined
  readonly limits?: TrafficLimits | undefined
  readonly http?: HttpSettings | undefined
}

/** The same with the passwords that were told, which become hashes: see mapping-http.ts. */
export interface AskedMapping extends Omit<MappingSettings, 'http'> {
  readonly http?: HttpRequest | undefined
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
  limits: v.optional(TRAFFIC_LIMITS),
  http: v.optional(HTTP_REQUEST),
}
const { enabled: _, ...changeable } = fields
/** What of its settings can be changed, and what they have to be then. */
const CHANGED = v.strictObject({ ...changeable, http: v.optional(HTTP_SETTINGS) })
/** Whose values are lists. */
const LISTS: ReadonlySet<string> = new Set(['nodes', 'allow', 'deny'])
/** Here `null` is a rule: the header goes. */
const WHOLE: ReadonlySet<string> = new Set(['requestHeaders', 'responseHeaders'])

/** The shape of a `MappingRequest`, as a schema: what its addresses mean is checked by `readMappingRequest`. */
export const MAPPING_REQUEST: v.GenericSchema<unknown, MappingRequest> = v.strictObject({
  listen: endpoint,
  forward: endpoint,
  ...fields,
})

/** The shape of a `MappingChange`. */
export const MAPPING_CHANGE: v.GenericSchema<unknown, MappingChange> = patchSchema(v.strictObject(changeable))

/** A domain and an address, as a file has them. */
const ENDPOINT: v.GenericSchema<unknown, Endpoint> = v.object({ Domain: v.string(), Addr: v.string() })

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
  limits: fields.limits,
  http: v.optional(HTTP_SETTINGS),
})

/**
 * Checks what an operator asks for.
 *
 * @throws ProxyError PROXY_ERR_REQUEST, which says what makes no sense
 */
export function readMappingRequest(request: unknown, domains: readonly DomainPlugin[]): AskedMapping {
  const result = v.safeParse(MAPPING_REQUEST, request)
  if (!result.success) throw shapeError(result.issues[0])
  const { listen, forward, enabled = true, ...rest } = result.output
  const halves = {
    Listen: readEndpoint(listen, 'listen', domains),
    Forward: readEndpoint(forward, 'forward', domains),
  }
  checkHalves(halves, domains)
  assertHttp(halves.Listen, rest.http)
  return { ...halves, enabled, ...settled(rest) }
}

/**
 * Checks the shape of a change. What comes of it is checked when it is made.
 *
 * @throws ProxyError PROXY_ERR_REQUEST
 */
export function readMappingChange(change: unknown): MappingChange {
  const result = v.safeParse(MAPPING_CHANGE, change)
  if (!result.success) throw shapeError(result.issues[0], 'a change is an object')
  if (listAt(change)) throw new ProxyError('PROXY_ERR_REQUEST', 'a change is an object, and what it changes in one')
  return result.output
}

/** Whether there is a list where an object is meant: to valibot a list is one. */
function listAt(change: unknown): boolean {
  if (Array.isArray(change)) return true
  if (typeof change !== 'object' || change === null) return false
  return Object.entries(change).some(([key, value]) => !LISTS.has(key) && listAt(value))
}

/**
 * The settings with a change, in which there are hashes for passwords.
 *
 * @throws ProxyError PROXY_ERR_REQUEST
 */
export function changedSettings(before: MappingSettings, change: MappingChange): MappingSettings {
  const { Listen, Forward, enabled, ...rest } = before
  const http = change.http && withUnshown(change.http, before.http)
  const result = v.safeParse(CHANGED, mergePatch(rest, http ? { ...change, http } : change, WHOLE))
  if (!result.success) throw shapeError(result.issues[0])
  assertHttp(Listen, result.output.http)
  return { Listen, Forward, enabled, ...settled(result.output) }
}

/** With what goes without saying; what says nothing is left out. */
function settled<H extends object>(
  asked: Omit<MappingRequest, 'listen' | 'forward' | 'http'> & { http?: H | undefined },
) {
  const { nodes, balance, note, wait, health, limits, http } = asked
  return {
    nodes: [...new Set(nodes)],
    balance,
    note: note ?? '',
    wait,
    health: health && { interval: health.interval ?? INTERVAL.default, timeout: health.timeout ?? TIMEOUT.default },
    limits: isEmpty(limits) ? undefined : limits,
    http: isEmpty(http) ? undefined : http,
  }
}

function assertHttp({ Domain }: Endpoint, http: object | undefined): void {
  if (isEmpty(http) || Domain === 'web' || Domain === 'ws') return
  throw new ProxyError('PROXY_ERR_REQUEST', 'http is for mappings that listen at the web port: web://HOST')
}

/** A mapping of the command line. It has been parsed, and what an embedder's own domain can do only that domain knows. */
export function settingsOf(spec: Spec): MappingSettings {
  const { Listen, Forward, Node } = spec
  return { Listen, Forward, nodes: Node === undefined ? [] : [Node], note: '', enabled: true }
}

/** What makes two mappings the same one: the order of the nodes does not. */
export function keyOf({ Listen, Forward, nodes }: Pick<MappingSettings, 'Listen' | 'Forward' | 'nodes'>): string {
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

function shapeError(
  issue: v.BaseIssue<unknown>,
  whole: string = 'a mapping is an object with listen and forward',
): ProxyError {
  const path = v.getDotPath(issue) ?? ''
  const key = path.split('.').at(-1) ?? ''
  let text = path === '' ? whole : `${path}: ${issue.message}`
  if (path !== '' && issue.type === 'strict_object') {
    const meant = nearest(key, knownIn(path.split('.').slice(0, -1)))
    text = `${shown(path)} is not known here${meant === undefined ? '' : `: did you mean ${shown(meant)}?`}`
    if (issue.expected !== 'never') text = issue.received === 'undefined' ? `${path} is missing` : `${path}: an object`
  } else if (path !== '' && issue.type === 'picklist') {
    text = `${path}: one of first, round-robin, least-connections`
  }
  return new ProxyError('PROXY_ERR_REQUEST', text)
}

/** The keys of an object within a request. */
function knownIn(path: readonly string[]): string[] {
  let schema: unknown = MAPPING_REQUEST
  for (const key of path) schema = entriesOf(schema)[key]
  return Object.keys(entriesOf(schema))
}

function entriesOf(schema: unknown): { readonly [key: string]: unknown } {
  const isObject = typeof schema === 'object' && schema !== null
  if (isObject && 'wrapped' in schema) return entriesOf(schema.wrapped)
  const entries = isObject && 'entries' in schema ? schema.entries : undefined
  return typeof entries === 'object' && entries !== null ? { ...entries } : {}
}
