import type { HubEvent } from '../hub/events.ts'

/** `connected` becomes `{ "type": "connected", "time": "...", "peer": { "id": ... }, ... }`. */
export interface EventJson {
  readonly type: string
  readonly time: string
  readonly [key: string]: unknown
}

const DEEPEST = 5
const LONGEST_LIST = 100
const LONGEST_TEXT = 1000
const PEER_KEYS = ['id', 'instance', 'connectedAt', 'remote', 'transport', 'enrolled']
const SECRET_KEYS = /secret|token|password|passphrase|psk|private/i
/** symport's tokens, and what stands before the @ of a URL. */
const SECRET_TEXT = /symport_[\w-]+|(?<=:\/\/)[^\s/@"]+(?=@)/g

/** An event as plain JSON: a peer is what is known of it, an error its code and text, and secrets are left out. */
export function eventJson(event: HubEvent, now: Date = new Date()): EventJson {
  const plain = toPlain(event, 0)
  return { ...(isRecord(plain) ? plain : {}), type: event.type, time: now.toISOString() }
}

function toPlain(value: unknown, depth: number): unknown {
  if (typeof value === 'string') {
    const text = value.length > LONGEST_TEXT ? `${value.slice(0, LONGEST_TEXT)}…` : value
    return text.replace(SECRET_TEXT, '…')
  }
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (typeof value !== 'object' || depth > DEEPEST) return undefined
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Error) {
    return { code: 'code' in value ? String(value.code) : undefined, message: toPlain(value.message, depth + 1) }
  }
  if (Array.isArray(value)) return value.slice(0, LONGEST_LIST).map((item) => toPlain(item, depth + 1))
  const entries = Object.entries('proxy' in value ? pick(value) : value)
  return Object.fromEntries(
    entries.filter(([key]) => !SECRET_KEYS.test(key)).map(([key, inner]) => [key, toPlain(inner, depth + 1)]),
  )
}

/** Named one by one: they may be getters of a class. */
function pick(peer: object): Record<string, unknown> {
  return Object.fromEntries(PEER_KEYS.map((key) => [key, Reflect.get(peer, key)]))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
