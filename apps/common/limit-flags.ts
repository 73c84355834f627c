import type { GenericSchema } from 'valibot'
import { ProxyError } from '../../lib/core/errors.ts'
import type { HttpRequest } from '../../lib/domains/http-settings.ts'
import type { Patch } from '../../lib/hub/merge-patch.ts'
import type { FlowLimits, TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import type { ListFlag, StringFlag } from './flags.ts'
import { readInput } from './read-input.ts'
import { toRate, toSize } from './sizes.ts'

// Limits of mappings and of nodes, and what is done to requests, as flags.

/** What takes something away, in `set`. */
export const NONE = 'none'
/** What a flag has that may stand alone. */
export const ALONE = 'yes'
/** What `--maintenance` takes for its file: anything else is the next word of the command. */
export const PAGE: RegExp = /^(?:none|(?:\.{0,2}|~|[A-Za-z]:)[\\/].*|.*\.(?:html?|txt))$/is
export const YES: RegExp = /^(?:yes|none)$/

export const LIMIT_FLAGS: readonly [
  StringFlag<'limit-in'>,
  StringFlag<'limit-out'>,
  StringFlag<'connections'>,
  StringFlag<'rate'>,
  StringFlag<'quota'>,
  StringFlag<'visitor-limit-in'>,
  StringFlag<'visitor-limit-out'>,
  StringFlag<'visitor-connections'>,
  StringFlag<'visitor-rate'>,
  ListFlag<'allow-from'>,
  ListFlag<'deny-from'>,
] = [
  {
    name: 'limit-in',
    kind: 'string',
    value: 'RATE',
    help: 'Bytes per second from visitors: 1MB/s, 500KiB/s, 10Mbit/s.',
  },
  { name: 'limit-out', kind: 'string', value: 'RATE', help: 'The same to visitors.' },
  { name: 'connections', kind: 'string', value: 'N', help: 'Connections that are open at once.' },
  { name: 'rate', kind: 'string', value: 'N', help: 'New connections per second.' },
  { name: 'quota', kind: 'string', value: 'SIZE', help: 'Bytes in a calendar month (UTC), both ways together: 50GB.' },
  { name: 'visitor-limit-in', kind: 'string', value: 'RATE', help: 'What one visitor may have of --limit-in.' },
  { name: 'visitor-limit-out', kind: 'string', value: 'RATE', help: 'What one visitor may have of --limit-out.' },
  { name: 'visitor-connections', kind: 'string', value: 'N', help: 'Connections that one visitor may have open.' },
  { name: 'visitor-rate', kind: 'string', value: 'N', help: 'New connections per second of one visitor.' },
  { name: 'allow-from', kind: 'list', value: 'CIDR', help: 'Addresses of those who may come. Default: all.' },
  {
    name: 'deny-from',
    kind: 'list',
    value: 'CIDR',
    help: 'Addresses of those who may not come, also where --allow-from has them.',
  },
]

export const HTTP_FLAGS: readonly [
  ListFlag<'basic-auth'>,
  StringFlag<'basic-auth-file'>,
  StringFlag<'host-header'>,
  ListFlag<'request-header'>,
  ListFlag<'response-header'>,
  StringFlag<'maintenance'>,
  StringFlag<'inspect'>,
] = [
  { name: 'basic-auth', kind: 'list', value: 'NAME:PASSWORD', help: 'At the web port: who may come in.' },
  {
    name: 'basic-auth-file',
    kind: 'string',
    value: 'FILE',
    help: 'The same, a line each, which no list of processes shows; - is standard input.',
  },
  {
    name: 'host-header',
    kind: 'string',
    value: 'HOST',
    help: 'What the target gets as Host; rewrite is its own address. Default: what the visitor wrote.',
  },
  {
    name: 'request-header',
    kind: 'list',
    value: "'NAME: VALUE'",
    help: "A header that the target gets instead; 'NAME:' for one that goes.",
  },
  { name: 'response-header', kind: 'list', value: "'NAME: VALUE'", help: 'The same of answers, for visitors.' },
  {
    name: 'maintenance',
    kind: 'string',
    value: '[FILE]',
    help: 'Every visitor gets the page in this file, with status 503. Alone: a page of our own.',
  },
  { name: 'inspect', kind: 'string', value: '[none]', help: 'Keep the last requests and answers, to look at.' },
]

type Values<Table extends readonly { readonly name: string; readonly kind: string }[]> = {
  readonly [F in Table[number] as F['name']]: F['kind'] extends 'list' ? readonly string[] : string | undefined
}
export type LimitValues = Values<typeof LIMIT_FLAGS>
export type HttpValues = Values<typeof HTTP_FLAGS>

/**
 * What the flags say: `null` for `none`. Undefined if they say nothing.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function readLimitFlags(values: LimitValues): Patch<TrafficLimits> | undefined {
  const rate = (name: 'limit-in' | 'limit-out' | 'visitor-limit-in' | 'visitor-limit-out') =>
    orNone(values[name], (text) => toRate(text, `--${name}`))
  const number = (name: 'connections' | 'rate' | 'visitor-connections' | 'visitor-rate') =>
    orNone(values[name], (text) => toCount(text, name))
  const visitor: Patch<FlowLimits> = given({
    in: rate('visitor-limit-in'),
    out: rate('visitor-limit-out'),
    connections: number('visitor-connections'),
    rate: number('visitor-rate'),
  })
  const limits = given({
    in: rate('limit-in'),
    out: rate('limit-out'),
    connections: number('connections'),
    rate: number('rate'),
    quota: orNone(values.quota, (text) => toSize(text, '--quota')),
    visitor: Object.keys(visitor).length === 0 ? undefined : visitor,
    allow: listOrNone(values['allow-from'], 'allow-from', (list) => list),
    deny: listOrNone(values['deny-from'], 'deny-from', (list) => list),
  })
  return Object.keys(limits).length === 0 ? undefined : limits
}

/**
 * What the flags say: `null` for `none`. Undefined if they say nothing.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function readHttpFlags(values: HttpValues): Promise<Patch<HttpRequest> | undefined> {
  const file = values['basic-auth-file']
  const texts = [...values['basic-auth'], ...(file === undefined ? [] : await readUserLines(file))]
  const flags = [texts, values['request-header'], values['response-header']]
  const rest = [values['host-header'], values.maintenance, values.inspect]
  if (flags.every(({ length }) => length === 0) && rest.every((one) => one === undefined)) return undefined
  // They come with the schemas.
  const [{ checkPart, readHeaders, readUsers }, { readPage }] = await Promise.all([
    import('./http-rules.ts'),
    import('./config-http.ts'),
  ])
  const hostHeader = orNone(values['host-header'], (text) => {
    checkPart({ hostHeader: text }, '--host-header')
    return text
  })
  const headers = (name: 'request-header' | 'response-header') =>
    listOrNone(values[name], name, (list) => readHeaders(list, `--${name}`))
  return given({
    basicAuth: listOrNone(texts, 'basic-auth', (list) => readUsers(list, '--basic-auth')),
    requestHeaders: headers('request-header'),
    responseHeaders: headers('response-header'),
    hostHeader,
    maintenance: await pageOf(values.maintenance, readPage),
    inspect:
      values.inspect === undefined ? undefined : values.inspect === NONE ? null : toYes(values.inspect, 'inspect'),
  })
}

/**
 * The same for a new thing, of which there is nothing to take away.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function newLimits(values: LimitValues): Promise<TrafficLimits | undefined> {
  assertNoNone(values, LIMIT_FLAGS)
  const limits = readLimitFlags(values)
  if (!limits) return undefined
  const { TRAFFIC_LIMITS } = await import('../../lib/policy/traffic-limits.ts')
  return await settled(TRAFFIC_LIMITS, limits)
}

/** @throws ProxyError PROXY_ERR_USAGE */
export async function newHttp(values: HttpValues): Promise<HttpRequest | undefined> {
  assertNoNone(values, HTTP_FLAGS)
  const http = await readHttpFlags(values)
  if (!http) return undefined
  const { HTTP_REQUEST } = await import('../../lib/domains/http-settings.ts')
  return await settled(HTTP_REQUEST, http)
}

async function settled<T>(schema: GenericSchema<unknown, T>, value: unknown): Promise<T> {
  const { check } = await import('../../lib/admin/check.ts')
  try {
    return check(schema, value)
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error), error)
  }
}

function assertNoNone<Name extends string>(
  values: { readonly [name in Name]: string | readonly string[] | undefined },
  flags: readonly { readonly name: Name }[],
): void {
  const names = flags.map(({ name }) => name)
  const isNone = (value: string | readonly string[] | undefined): boolean =>
    typeof value === 'string' ? value === NONE : (value ?? []).includes(NONE)
  const none = names.find((name) => isNone(values[name]))
  if (none !== undefined) throw usage(`--${none}: there is nothing to take away yet: leave the flag out`)
}

async function readUserLines(file: string): Promise<string[]> {
  const lines = (await readInput(file, '--basic-auth-file')).split(/\r?\n/)
  const users = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (users.length === 0) throw usage('--basic-auth-file: there is nobody in it')
  return users
}

async function pageOf(
  text: string | undefined,
  readPage: (path: string) => Promise<string>,
): Promise<string | true | null | undefined> {
  if (text === undefined || text === NONE) return text === undefined ? undefined : null
  if (text === ALONE) return true
  try {
    return await readPage(text)
  } catch (error) {
    throw usage(`--maintenance: ${error instanceof Error ? error.message : String(error)}`, error)
  }
}

/** Without what nobody said. */
function given<T extends object>(values: T): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T
}

export function orNone<T>(text: string | undefined, read: (text: string) => T): T | null | undefined {
  return text === undefined ? undefined : text === NONE ? null : read(text)
}

/** @throws ProxyError PROXY_ERR_USAGE if `none` is not alone */
export function listOrNone<T>(
  list: readonly string[],
  name: string,
  read: (list: readonly string[]) => T,
): T | null | undefined {
  if (list.length === 0) return undefined
  if (!list.includes(NONE)) return read(list)
  if (list.length > 1) throw usage(`--${name}: none stands alone`)
  return null
}

function toCount(text: string, name: string): number {
  if (/^[1-9][0-9]{0,8}$/.test(text)) return Number(text)
  throw usage(`--${name}: ${JSON.stringify(text.slice(0, 40))} is no whole number from 1 up`)
}

function toYes(text: string, name: string): true {
  if (text === ALONE) return true
  throw usage(`--${name}: write --${name} alone, or --${name} none`)
}

function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
