import * as v from 'valibot'
import { MAPPING_CHANGE, MAPPING_REQUEST } from '../hub/mapping-request.ts'
import { NODE_CHANGE } from '../hub/node-request.ts'
import type {
  AddedNode,
  ConnectionStatus,
  Grants,
  MappingChange,
  MappingRequest,
  MappingStatus,
  NodeChange,
  NodeRequest,
  NodeStatus,
  ReloadReport,
  ServerStatus,
} from '../hub/operations.ts'
import { TRAFFIC_LIMITS } from '../policy/traffic-limits.ts'

// One schema for each shape that goes in or out. What comes in is strict: an unknown key is a mistake that somebody should
// hear of. What goes out is loose, so that a client understands a newer server.

/** The shape of a `T`. What it is checked against may be anything. */
export type Schema<T> = v.GenericSchema<unknown, T>

export interface ConnectionsQuery {
  readonly limit?: number | undefined
  readonly node?: string | undefined
  readonly mapping?: string | undefined
}

/** An error as the API answers it. */
export interface Failure {
  readonly code: string
  readonly message: string
}

/** For each node of the request, in its order, what came of it. */
export interface BatchAnswer {
  readonly nodes: readonly (AddedNode & { readonly error?: Failure | undefined })[]
}

/** An AuditEntry as it is read back. */
export interface AuditLine {
  readonly at: string
  readonly by: string
  readonly action: string
  readonly subject: string
  readonly error?: string | undefined
}

export interface Readiness {
  readonly ready: boolean
  readonly reason?: string | undefined
}

const ID_RULE = 'has a space in it, or a character that does not show'
/** A node's id, 1 to 64 bytes without spaces and control characters. */
const nodeId = v.pipe(v.string(), v.minLength(1), v.maxLength(64), v.regex(/^[^\s\p{C}]+$/u, ID_RULE))
const someText = (longest: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(longest))
const secret = someText(1024)
const patterns = v.pipe(v.array(someText(300)), v.maxLength(1000))
const limit = v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(10_000)))

export const grants: Schema<Grants> = v.strictObject({
  listen: v.optional(someText(1000)),
  dial: v.optional(patterns),
  channels: v.optional(patterns),
  names: v.optional(patterns),
})

const expires = v.pipe(
  v.string(),
  v.regex(
    /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d))?$/,
    'is not a date in ISO 8601: write 2026-12-31 or 2026-12-31T23:59:59Z',
  ),
)

export const nodeRequest: Schema<NodeRequest> = v.strictObject({
  id: nodeId,
  secret: v.optional(secret),
  expires: v.optional(expires),
  grants: v.optional(grants),
  limits: v.optional(TRAFFIC_LIMITS),
})
/** What a node may become is the hub's to say, but for how a day is written. */
export const nodeChange: Schema<NodeChange> = NODE_CHANGE
export const expiryChange: Schema<{ expires?: string | null | undefined }> = v.object({ expires: v.nullish(expires) })

/** Nodes that one request may add. */
const MOST_NODES = 1000

export const batchRequest: Schema<{ nodes: NodeRequest[] }> = v.strictObject({
  nodes: v.pipe(v.array(nodeRequest), v.maxLength(MOST_NODES)),
})
export const rotateRequest: Schema<{ secret?: string | undefined } | undefined> = v.optional(
  v.strictObject({ secret: v.optional(secret) }),
)
export const nothing: Schema<object | undefined> = v.optional(v.strictObject({}))

/** What a mapping may be is the hub's to say. */
export const mappingRequest: Schema<MappingRequest> = MAPPING_REQUEST
export const mappingChange: Schema<MappingChange> = MAPPING_CHANGE

export const nodeParams: Schema<{ id: string }> = v.strictObject({ id: nodeId })
export const mappingParams: Schema<{ id: string }> = v.strictObject({ id: someText(200) })
export const auditQuery: Schema<{ limit?: number | undefined }> = v.strictObject({ limit })
export const connectionsQuery: Schema<ConnectionsQuery> = v.strictObject({
  limit,
  node: v.optional(nodeId),
  mapping: v.optional(someText(200)),
})

/** A list of things that have a schema. */
export function listOf<T>(schema: Schema<T>): Schema<T[]> {
  return v.array(schema)
}

const count = v.number()
const time = v.string()
const endpoint = v.looseObject({ Domain: v.string(), Addr: v.string() })
const totals = v.looseObject({ bytesIn: count, bytesOut: count, connections: count, live: count })
const flow = { in: v.optional(count), out: v.optional(count), connections: v.optional(count), rate: v.optional(count) }
const limits = v.optional(
  v.looseObject({
    ...flow,
    quota: v.optional(count),
    visitor: v.optional(v.looseObject(flow)),
    allow: v.optional(v.array(v.string())),
    deny: v.optional(v.array(v.string())),
  }),
)
const headers = v.optional(v.record(v.string(), v.nullable(v.string())))
const failure = v.looseObject({ code: v.string(), message: v.string() })

export const errorAnswer: Schema<{ error: Failure }> = v.looseObject({ error: failure })
export const addedNode: Schema<AddedNode> = v.looseObject({ id: v.string(), secret: v.optional(v.string()) })
export const batchAnswer: Schema<BatchAnswer> = v.looseObject({
  nodes: v.array(
    v.looseObject({
      id: v.string(),
      secret: v.optional(v.string()),
      guessable: v.optional(v.boolean()),
      error: v.optional(failure),
    }),
  ),
})
export const kicked: Schema<{ kicked: number }> = v.looseObject({ kicked: count })

export const nodeStatus: Schema<NodeStatus> = v.looseObject({
  id: v.string(),
  enrolled: v.boolean(),
  enabled: v.boolean(),
  created: v.optional(time),
  expires: v.optional(time),
  grants: v.optional(
    v.looseObject({
      listen: v.optional(v.string()),
      dial: v.optional(v.array(v.string())),
      channels: v.optional(v.array(v.string())),
      names: v.optional(v.array(v.string())),
    }),
  ),
  limits,
  connected: v.boolean(),
  firstConnected: v.optional(time),
  lastConnected: v.optional(time),
  reconnects: count,
  resumes: count,
  totals,
  quotaUsed: v.optional(count),
  limited: v.optional(v.record(v.string(), count)),
  instances: v.array(
    v.looseObject({
      instance: v.string(),
      remote: v.optional(v.string()),
      transport: v.optional(v.string()),
      state: v.picklist(['connected', 'resuming', 'draining', 'closed']),
      connectedAt: time,
      rtt: v.optional(count),
      lastPing: v.optional(time),
      resumes: count,
      totals,
    }),
  ),
})

export const mappingStatus: Schema<MappingStatus> = v.looseObject({
  id: v.string(),
  listen: endpoint,
  forward: endpoint,
  bound: v.optional(endpoint),
  nodes: v.array(v.string()),
  balance: v.picklist(['first', 'round-robin', 'least-connections']),
  note: v.string(),
  enabled: v.boolean(),
  wait: count,
  health: v.optional(v.looseObject({ interval: v.optional(count), timeout: v.optional(count) })),
  limits,
  http: v.optional(
    v.looseObject({
      basicAuth: v.optional(v.array(v.string())),
      requestHeaders: headers,
      responseHeaders: headers,
      hostHeader: v.optional(v.string()),
      maintenance: v.optional(v.union([v.boolean(), v.string()])),
      inspect: v.optional(v.boolean()),
    }),
  ),
  source: v.picklist(['command line', 'config', 'runtime']),
  state: v.picklist(['ready', 'no node', 'unhealthy', 'disabled', 'failed']),
  problem: v.optional(v.string()),
  targets: v.array(v.looseObject({ node: v.string(), healthy: v.boolean(), problem: v.exactOptional(v.string()) })),
  created: time,
  firstConnected: v.optional(time),
  lastConnected: v.optional(time),
  totals,
  quotaUsed: v.optional(count),
  limited: v.optional(v.record(v.string(), count)),
})

export const connectionStatus: Schema<ConnectionStatus> = v.looseObject({
  instance: v.string(),
  id: count,
  node: v.string(),
  mapping: v.optional(v.string()),
  from: v.optional(v.string()),
  to: v.optional(endpoint),
  created: time,
  bytesIn: count,
  bytesOut: count,
})

export const serverStatus: Schema<ServerStatus> = v.looseObject({
  version: v.string(),
  role: v.optional(v.picklist(['server', 'node'])),
  address: v.string(),
  pin: v.optional(v.string()),
  certificates: v.optional(
    v.array(
      v.looseObject({
        name: v.string(),
        begins: v.optional(time),
        ends: v.optional(time),
        problem: v.optional(v.string()),
      }),
    ),
  ),
  nodeLimits: limits,
  started: time,
  nodes: v.looseObject({ enrolled: count, connected: count }),
  mappings: v.looseObject({ count, ready: count }),
  totals,
  memory: v.looseObject({ held: count, rss: count }),
})

export const reloadReport: Schema<ReloadReport> = v.looseObject({
  changes: v.array(v.string()),
  restart: v.array(v.string()),
})
export const auditEntry: Schema<AuditLine> = v.looseObject({
  at: time,
  by: v.string(),
  action: v.string(),
  subject: v.string(),
  error: v.optional(v.string()),
})
export const ready: Schema<Readiness> = v.looseObject({ ready: v.boolean(), reason: v.optional(v.string()) })
