import * as v from 'valibot'
import { ProxyError, readToken, type Suite } from '../core/index.ts'
import { isChannelName } from '../domains/channel-address.ts'
import { parseWeb } from '../domains/web-address.ts'
import { parseNamePattern } from '../policy/names.ts'
import { parsePattern, parsePortRanges } from '../policy/patterns.ts'
import { TRAFFIC_LIMITS, type TrafficLimits } from '../policy/traffic-limits.ts'
import { isEmpty, mergePatch, patchSchema } from './merge-patch.ts'
import type { Grants, NodeChange, NodeRequest } from './operations.ts'

/** A node as it is kept: of its secret only what was made of it, in base64. */
export interface KeptNode {
  readonly id: string
  readonly enabled: boolean
  /** `NKpsk0` for a token, `NNpsk0` for a secret that a person chose. */
  readonly suite: Suite
  readonly psk: string
  readonly created: string
  readonly expires?: string | undefined
  readonly grants?: Grants | undefined
  readonly limits?: TrafficLimits | undefined
}

/** What the preamble of a handshake can carry. */
const MAX_ID = 64
const MAX_SECRET = 1024
/** Patterns, or channels, of one node, and all of its grants as JSON: what 10,000 nodes have fits into one file. */
const MAX_GRANTS = 64
const MAX_GRANTED_BYTES = 4096
/** The same of its limits. */
const MAX_LIMITS_BYTES = 4096

const text = (longest: number): v.GenericSchema<string> => v.pipe(v.string(), v.minLength(1), v.maxLength(longest))
const list = (check: (item: string) => unknown): v.GenericSchema<string[]> =>
  v.pipe(v.array(v.pipe(text(256), v.check(succeeds(check)))), v.maxLength(MAX_GRANTS))
const time = v.pipe(v.string(), v.isoTimestamp())

const GRANTS = {
  listen: v.optional(v.pipe(text(1024), v.check(succeeds(parsePortRanges)))),
  dial: v.optional(list(parsePattern)),
  channels: v.optional(list(parseChannelPattern)),
  names: v.optional(list((pattern) => parseNamePattern(pattern, parseWeb))),
}
const ASKED_GRANTS = v.pipe(
  v.strictObject(GRANTS),
  v.check(
    (grants) => Buffer.byteLength(JSON.stringify(grants)) <= MAX_GRANTED_BYTES,
    `more than ${MAX_GRANTED_BYTES} bytes`,
  ),
)
const ASKED_LIMITS = v.pipe(
  TRAFFIC_LIMITS,
  v.check(
    (limits) => Buffer.byteLength(JSON.stringify(limits)) <= MAX_LIMITS_BYTES,
    `more than ${MAX_LIMITS_BYTES} bytes`,
  ),
)
/** Files of older versions have channels of any name. Such a one is nobody's. */
const KEPT_GRANTS = v.strictObject({ ...GRANTS, channels: v.optional(list(() => {})) })
/** The nodes of a server, as they are kept. */
export const KEPT_NODES: v.GenericSchema<unknown, KeptNode[]> = v.array(
  v.object({
    id: v.pipe(v.string(), v.check(isId)),
    suite: v.picklist(['NNpsk0', 'NKpsk0']),
    psk: v.pipe(
      v.string(),
      v.base64(),
      v.check((psk) => Buffer.from(psk, 'base64').length === 32),
    ),
    created: time,
    expires: v.optional(time),
    enabled: v.boolean(),
    grants: v.optional(KEPT_GRANTS),
    limits: v.optional(TRAFFIC_LIMITS),
  }),
)
const REQUEST = v.strictObject({
  id: v.string(),
  secret: v.optional(v.string()),
  expires: v.optional(v.string()),
  grants: v.optional(ASKED_GRANTS),
  limits: v.optional(ASKED_LIMITS),
})
/** What of a node can be changed, as it is when it is changed. */
const CHANGEABLE = v.strictObject({
  expires: v.optional(v.string()),
  grants: v.optional(ASKED_GRANTS),
  limits: v.optional(ASKED_LIMITS),
})
/** The shape of a `NodeChange`. */
export const NODE_CHANGE: v.GenericSchema<unknown, NodeChange> = patchSchema(CHANGEABLE)

/** What is asked for, its expiry as it is kept. */
export interface AskedNode {
  readonly id: string
  readonly secret?: string | undefined
  readonly expires?: string | undefined
  readonly grants?: Grants | undefined
  readonly limits?: TrafficLimits | undefined
}

/**
 * It comes from an operator, and by way of an API from anywhere.
 *
 * @throws ProxyError PROXY_ERR_REQUEST
 */
export function readNodeRequest(request: NodeRequest): AskedNode {
  const output = checked(REQUEST, request)
  if (!isId(output.id))
    throw badRequest(`${shownId(output.id)}: an id has 1 to ${MAX_ID} bytes, no spaces or control characters`)
  return { ...output, expires: output.expires === undefined ? undefined : readExpiry(output.expires) }
}

/**
 * Checks a change by itself. What comes of it is checked when it is made.
 *
 * @throws ProxyError PROXY_ERR_REQUEST
 */
export function readNodeChange(change: NodeChange): NodeChange {
  const patch = checked(NODE_CHANGE, change)
  // To valibot a list is an object.
  const { grants, limits } = change
  if ([change, grants, limits, limits?.visitor].some((one) => Array.isArray(one))) {
    throw badRequest('a list is no change')
  }
  if (typeof patch.expires === 'string') readExpiry(patch.expires)
  return patch
}

/** @throws ProxyError PROXY_ERR_REQUEST */
export function changedNode({ expires, grants, limits, ...rest }: KeptNode, patch: NodeChange): KeptNode {
  const after = checked(CHANGEABLE, mergePatch({ expires, grants, limits }, patch, new Set()))
  // One that stays has been read before, and may have passed since.
  const at = typeof patch.expires === 'string' ? readExpiry(patch.expires) : after.expires
  const granted = isEmpty(after.grants) ? undefined : after.grants
  const limited = isEmpty(after.limits) ? undefined : after.limits
  return {
    ...rest,
    ...(at && { expires: at }),
    ...(granted && { grants: granted }),
    ...(limited && { limits: limited }),
  }
}

/** @throws ProxyError PROXY_ERR_REQUEST */
function checked<T>(schema: v.GenericSchema<unknown, T>, given: unknown): T {
  const { success, output, issues } = v.safeParse(schema, given)
  if (success) return output
  const [issue] = issues
  const at = issue && v.getDotPath(issue)
  throw badRequest(`${at ?? 'a node'}: ${at?.startsWith('limits') ? issue.message : whyNot(given, issue?.message)}`)
}

/** What is wrong with the grants, in the words of whoever reads patterns. */
function whyNot(request: unknown, otherwise = 'it makes no sense'): string {
  const given = typeof request === 'object' && request !== null && 'grants' in request ? request.grants : undefined
  const grants: { readonly [name in keyof Grants]?: unknown } = typeof given === 'object' && given !== null ? given : {}
  const each = (given: unknown, check: (pattern: string) => unknown): void => {
    if (Array.isArray(given)) for (const pattern of given) if (typeof pattern === 'string') check(pattern)
  }
  try {
    if (typeof grants.listen === 'string') parsePortRanges(grants.listen)
    each(grants.dial, parsePattern)
    each(grants.channels, parseChannelPattern)
    each(grants.names, (pattern) => parseNamePattern(pattern, parseWeb))
  } catch (error) {
    if (error instanceof ProxyError) return error.message
  }
  return otherwise
}

/** @throws ProxyError PROXY_ERR_PATTERN */
function parseChannelPattern(pattern: string): void {
  if (pattern === '*' || isChannelName(pattern.replace(/\*$/, ''))) return
  const why = 'write a name of letters, digits, ".", "_" and "-", or how names begin: office-*'
  throw new ProxyError('PROXY_ERR_PATTERN', `bad channel ${shownId(pattern)}: ${why}`)
}

function isId(id: string): boolean {
  return id !== '' && Buffer.byteLength(id) <= MAX_ID && !/[\p{C}\p{Z}]/u.test(id)
}

const ISO = /^(\d{4}-\d\d-\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d))?$/

/** ISO 8601; a day alone stands for its end in UTC, as a person means it. What `Date` would only guess at is refused, also 30 February. */
function readExpiry(given: string): string {
  const [, day] = ISO.exec(given) ?? []
  const at = Date.parse(day === given ? `${day}T23:59:59.999Z` : given)
  if (day === undefined || Number.isNaN(at) || new Date(`${day}T00:00Z`).toISOString().slice(0, 10) !== day) {
    throw badRequest(`${shownId(given)} is no time: write 2030-12-31 or 2030-12-31T18:00:00Z`)
  }
  if (at <= Date.now()) throw badRequest(`${shownId(given)} has passed already`)
  return new Date(at).toISOString()
}

/** @throws ProxyError PROXY_ERR_SECRET */
export function assertUsable(secret: string, serverKey: Uint8Array, id: string): void {
  const refuse = (why: string): ProxyError => new ProxyError('PROXY_ERR_SECRET', `node ${shownId(id)}: ${why}`)
  if (secret === '') throw refuse('the secret is empty')
  if (Buffer.byteLength(secret) > MAX_SECRET) throw refuse(`the secret has more than ${MAX_SECRET} bytes`)
  if (!secret.startsWith('symport_')) return
  const token = readToken(secret)
  if (!token) throw refuse('the token is damaged: leave it out, and a new one is made')
  // No node could ever connect with it.
  if (!token.publicKey.equals(serverKey)) {
    throw refuse('the token was made for another server: leave it out, and a new one is made')
  }
}

/** As a check that answers. */
export function succeeds<T extends unknown[]>(check: (...given: T) => unknown): (...given: T) => boolean {
  return (...given) => {
    try {
      check(...given)
      return true
    } catch {
      return false
    }
  }
}

export function shownId(given: string): string {
  return JSON.stringify(given.length > 80 ? `${given.slice(0, 79)}…` : given)
}

export function badRequest(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_REQUEST', message)
}
