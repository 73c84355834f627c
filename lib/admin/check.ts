import * as v from 'valibot'
import { ProxyError } from '../core/errors.ts'
import { nearest } from '../domains/nearest.ts'
import { shown } from '../domains/text.ts'
import type { Schema } from './schemas.ts'

/**
 * What came from outside, checked; the error names the key that is wrong, and the one that was meant.
 *
 * @throws ProxyError PROXY_ERR_REQUEST
 */
export function check<T>(schema: Schema<T>, value: unknown): T {
  // To valibot a list is an object.
  if (Array.isArray(value)) throw new ProxyError('PROXY_ERR_REQUEST', 'the request is not an object')
  const result = v.safeParse(schema, value, { abortEarly: true })
  if (result.success) {
    const at = listAt(value, result.output)
    if (!at) return result.output
    throw new ProxyError('PROXY_ERR_REQUEST', `${shown(at.join('.'))} is not an object`)
  }
  throw new ProxyError('PROXY_ERR_REQUEST', describe(result.issues[0], schema))
}

/** As check, for a query string: what should be a number is one, if it looks like one. */
export function checkQuery<T>(schema: Schema<T>, query: unknown): T {
  if (typeof query !== 'object' || query === null) return check(schema, query)
  const numbers = entriesOf(schema)
  const read = ([name, value]: [string, unknown]): [string, unknown] => {
    const isNumber = coreOf(numbers?.[name])?.type === 'number'
    return [name, isNumber && typeof value === 'string' && /^-?[0-9]{1,9}$/.test(value) ? Number(value) : value]
  }
  return check(schema, Object.fromEntries(Object.entries(query).map(read)))
}

/** Where there is a list in the place of an object. */
function listAt(value: unknown, output: unknown): string[] | undefined {
  if (typeof value !== 'object' || value === null || typeof output !== 'object' || output === null) return undefined
  if (Array.isArray(value) && !Array.isArray(output)) return []
  const read = new Map(Object.entries(output))
  for (const [key, inner] of Object.entries(value)) {
    const at = listAt(inner, read.get(key))
    if (at) return [key, ...at]
  }
  return undefined
}

function describe(issue: v.BaseIssue<unknown>, schema: unknown): string {
  const keys = (issue.path ?? []).map(({ key }) => key)
  const place = keys.length === 0 ? 'the request' : shown(keys.map(String).join('.'))
  if (issue.type === 'strict_object' && issue.expected === 'never') {
    const known = Object.keys(entriesOf(keys.slice(0, -1).reduce(inside, schema)) ?? {})
    const meant = nearest(String(keys.at(-1)), known)
    const advice = meant === undefined ? ` (known: ${known.join(', ') || 'none'})` : `: did you mean ${shown(meant)}?`
    return `unknown key ${place}${advice}`
  }
  if (issue.received === 'undefined') return keys.length === 0 ? 'the request has no body' : `${place} is missing`
  // Valibot's own texts are for programmers; those of the schemas are not.
  if (!issue.message.startsWith('Invalid ')) return `${place} ${issue.message}`.replace(/" (?!is |has )/, '": ')
  switch (issue.type) {
    case 'min_length':
      return `${place} is empty`
    case 'max_length':
      return `${place} is too long: at most ${String(issue.requirement)}`
    case 'min_value':
    case 'max_value':
      return `${place} must be ${String(issue.expected).replace('>=', 'at least ').replace('<=', 'at most ')}`
    case 'picklist':
      return `${place} is not one of ${String(issue.expected).replace(/[()]/g, '').replaceAll(' | ', ', ')}`
  }
  return `${place} is not ${article(issue.expected)}`
}

const KINDS: ReadonlyMap<string, string> = new Map([
  ['Object', 'an object'],
  ['Array', 'a list'],
  ['string', 'a text'],
  ['number', 'a number'],
  ['boolean', 'true or false'],
])

function article(expected: string | null): string {
  return KINDS.get(expected ?? '') ?? String(expected)
}

interface Anything {
  readonly type?: unknown
  readonly entries?: unknown
  readonly item?: unknown
  readonly wrapped?: unknown
  readonly options?: unknown
  readonly pipe?: unknown
}

/** The schema within optional ones and pipes. */
function coreOf(schema: unknown): Anything | undefined {
  if (typeof schema !== 'object' || schema === null) return undefined
  const { wrapped, pipe }: Anything = schema
  if (wrapped !== undefined) return coreOf(wrapped)
  if (Array.isArray(pipe) && pipe[0] !== schema) return { ...schema, ...coreOf(pipe[0]) }
  return schema
}

function entriesOf(schema: unknown): Record<string, unknown> | undefined {
  const entries = coreOf(schema)?.entries
  return typeof entries === 'object' && entries !== null ? { ...entries } : undefined
}

/** The schema of what lies at `key` in an object or list. */
function inside(schema: unknown, key: unknown): unknown {
  const item = coreOf(schema)?.item
  return typeof key === 'number' && item !== undefined ? item : entriesOf(schema)?.[String(key)]
}
