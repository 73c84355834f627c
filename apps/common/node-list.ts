import { check } from '../../lib/admin/check.ts'
import { nodeRequest } from '../../lib/admin/schemas.ts'
import { ProxyError } from '../../lib/core/index.ts'
import type { NodeRequest } from '../../lib/hub/operations.ts'

const MOST_NODES = 10_000

/**
 * Nodes to add: lines with `id` or `id,secret` (empty ones and those that begin with # do not count), or a JSON array of
 * ids and objects as the API takes them.
 *
 * @throws ProxyError PROXY_ERR_USAGE, which never shows a secret
 */
export function readNodeList(text: string): NodeRequest[] {
  const nodes = text.trimStart().startsWith('[') ? fromJson(text) : fromLines(text)
  if (nodes.length === 0) throw bad('there is no node in it')
  if (nodes.length > MOST_NODES) throw bad(`more than ${MOST_NODES} nodes`)
  const seen = new Set<string>()
  for (const { id } of nodes) {
    if (seen.has(id)) throw bad(`node ${id} stands there twice`)
    seen.add(id)
  }
  return nodes
}

function fromJson(text: string): NodeRequest[] {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch (cause) {
    // The text of the error may quote a secret.
    throw bad('it begins like JSON, and is none', cause)
  }
  if (!Array.isArray(list)) throw bad('the JSON is no array')
  return list.map((entry: unknown, index) =>
    checked(typeof entry === 'string' ? { id: entry } : entry, `entry ${index + 1}`),
  )
}

function fromLines(text: string): NodeRequest[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    if (line.trim() === '' || line.trimStart().startsWith('#')) return []
    const comma = line.indexOf(',')
    const id = (comma < 0 ? line : line.slice(0, comma)).trim()
    const secret = comma < 0 ? undefined : line.slice(comma + 1).trim()
    return [checked({ id, ...(secret === undefined ? {} : { secret }) }, `line ${index + 1}`)]
  })
}

function checked(value: unknown, where: string): NodeRequest {
  try {
    const request = check(nodeRequest, value)
    return request.expires === undefined ? request : { ...request, expires: parseExpiry(request.expires, Date.now()) }
  } catch (error) {
    throw bad(`${where}: ${error instanceof Error ? error.message : String(error)}`, error)
  }
}

function bad(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', `--from: ${message}`, cause === undefined ? {} : { cause })
}

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
  ['w', 604_800_000],
])
/** What a date may have: the year 9999. */
const LAST = Date.UTC(9999, 11, 31)

/**
 * `30d`, `12h`, `2026-12-31` (the end of that day in UTC) or a time in ISO 8601, as a time in ISO 8601.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseExpiry(text: string, now: number): string {
  const [, amount, unit] = /^([0-9]{1,9})([mhdw])$/.exec(text) ?? []
  const [, day] = /^(\d{4}-\d\d-\d\d)$/.exec(text) ?? []
  const isTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)$/.test(text)
  let time = Number.NaN
  if (amount !== undefined) time = now + Number(amount) * (UNIT_MS.get(unit ?? '') ?? Number.NaN)
  else if (day !== undefined) time = Date.parse(`${day}T23:59:59.999Z`)
  else if (isTime) time = Date.parse(text)
  if (Number.isNaN(time) || time > LAST || (day !== undefined && !new Date(time).toISOString().startsWith(day))) {
    throw new ProxyError('PROXY_ERR_USAGE', '--expires: write 30d, 12h, 2026-12-31 or 2026-12-31T18:00:00Z')
  }
  if (time <= now) throw new ProxyError('PROXY_ERR_USAGE', '--expires: that is over already')
  return new Date(time).toISOString()
}
