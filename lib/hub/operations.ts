import type { Endpoint, ProxyError } from '../core/index.ts'
import type { HttpRequest, HttpSettings } from '../domains/http-settings.ts'
import type { WebFigures } from '../domains/web-figures.ts'
import type { Inspection } from '../domains/web-inspection.ts'
import type { Refusals, TrafficLimits } from '../policy/traffic-limits.ts'
import type { HubEvent } from './events.ts'
import type { Patch } from './merge-patch.ts'

/**
 * What the operator of a server can do and see while it runs: the one list behind the command line, the HTTP API and
 * the configuration. All shapes are plain JSON; times are ISO 8601 in UTC, durations and ages in ms, sizes in bytes.
 * `in` is from visitors towards the target, `out` is back.
 *
 * Every change is on disk when its promise resolves. All of them throw a ProxyError: PROXY_ERR_NOT_FOUND,
 * PROXY_ERR_EXISTS, PROXY_ERR_READ_ONLY, PROXY_ERR_REQUEST for what makes no sense, PROXY_ERR_STATE for the disk.
 */
export interface Operations {
  status(): ServerStatus
  /** Enrolled nodes, connected or not, and those that are connected under the shared secret. */
  nodes(): NodeStatus[]
  /** The secret is told once, here, if it was made here. */
  addNode(request: NodeRequest): Promise<AddedNode>
  /** Ends its main connections, as disabling and rotating do. */
  removeNode(id: string): Promise<void>
  setNodeEnabled(id: string, enabled: boolean): Promise<void>
  rotateNode(id: string, secret?: string | undefined): Promise<AddedNode>
  /** Its main connections stay; limits hold at once. */
  changeNode(id: string, change: NodeChange): Promise<void>
  /** Ends the main connections of a node, which may connect again. Answers how many there were. */
  kickNode(id: string): Promise<number>
  mappings(): MappingStatus[]
  addMapping(request: MappingRequest): Promise<MappingStatus>
  removeMapping(id: string): Promise<void>
  setMappingEnabled(id: string, enabled: boolean): Promise<void>
  /** What is open goes on, and so does the listener. */
  changeMapping(id: string, change: MappingChange): Promise<MappingStatus>
  /** The sub-connections that are open, the newest first, at most `limit` (1,000). */
  connections(limit?: number | undefined): ConnectionStatus[]
  /** Applies the changed configuration file. A bad one changes nothing: PROXY_ERR_CONFIG says why. */
  reload(): Promise<ReloadReport>
  /** Live events from now on, until the returned function is called. */
  subscribe(listener: (event: HubEvent) => void): () => void
  /** The last requests of mappings that ask for it, where requests are served at all. */
  inspection?(): Promise<Inspection>
  /** What has been asked for at the web port, where there is one. */
  webFigures?(): WebFigures
}

/** What a node may do beyond carrying what the operator maps. Patterns as in `--allow`, ports as in `--allow-ports`. */
export interface Grants {
  /** Ports that it may have listened on at the server: `9000-9999,22`. */
  readonly listen?: string | undefined
  /** What it may have the server dial. */
  readonly dial?: readonly string[] | undefined
  /** Channels that it alone may register, as `ssh` or `office-*`; those of nobody in particular are for all. */
  readonly channels?: readonly string[] | undefined
  /** Names of the web port that it may have, as in `--allow-names`. */
  readonly names?: readonly string[] | undefined
}

export interface NodeRequest {
  /** 1 to 64 bytes, no spaces. */
  readonly id: string
  /** A secret that a person chose. Left out, a token is made. */
  readonly secret?: string | undefined
  readonly expires?: string | undefined
  readonly grants?: Grants | undefined
  /** Over all that goes through it. */
  readonly limits?: TrafficLimits | undefined
}

/** What changes of a node. `null` takes it away; grants and limits are merged (RFC 7396). */
export type NodeChange = Patch<Pick<NodeRequest, 'expires' | 'grants' | 'limits'>>

export interface AddedNode {
  readonly id: string
  /** Only if it was made here. It is not kept. */
  readonly secret?: string | undefined
  /** The secret was chosen by a person, and somebody who tries would find it. */
  readonly guessable?: boolean | undefined
}

/** Sums since the beginning; they survive a restart. */
export interface Totals {
  readonly bytesIn: number
  readonly bytesOut: number
  /** Sub-connections: opened in all, and open now. */
  readonly connections: number
  readonly live: number
}

export interface NodeStatus {
  readonly id: string
  /** Whether it has a credential of its own. */
  readonly enrolled: boolean
  readonly enabled: boolean
  readonly created?: string | undefined
  readonly expires?: string | undefined
  readonly grants?: Grants | undefined
  /** Its own. What they leave out is in the `nodeLimits` of the server. */
  readonly limits?: TrafficLimits | undefined
  readonly connected: boolean
  readonly firstConnected?: string | undefined
  readonly lastConnected?: string | undefined
  /** Main connections over time, and links taken over within them. */
  readonly reconnects: number
  readonly resumes: number
  readonly totals: Totals
  /** Bytes of this calendar month (UTC), both directions together. */
  readonly quotaUsed?: number | undefined
  /** Visitors that its limits have refused, since the start. */
  readonly limited?: Readonly<Refusals> | undefined
  readonly instances: readonly InstanceStatus[]
}

/** One process of a node: one main connection. */
export interface InstanceStatus {
  /** A UUID that the server gives each main connection. */
  readonly instance: string
  readonly remote?: string | undefined
  /** `tcp`, `tls`, `ws`, `wss` or `unix`. */
  readonly transport?: string | undefined
  readonly state: 'connected' | 'resuming' | 'draining' | 'closed'
  readonly connectedAt: string
  /** Smoothed round trip in ms. */
  readonly rtt?: number | undefined
  readonly lastPing?: string | undefined
  readonly resumes: number
  readonly totals: Totals
}

/**
 * How connections are shared out among the instances of a mapping's nodes. `first`: in the order in which the nodes are
 * named, or else in which they connected, the first that is there; the others stand by.
 */
export type Balance = 'first' | 'round-robin' | 'least-connections'

export interface HealthCheck {
  /** Time between two checks of one node's target, in ms. Default 10,000. */
  readonly interval?: number | undefined
  readonly timeout?: number | undefined
}

export interface MappingRequest {
  /** In any form that a SPEC half has: `:8078`, `127.0.0.1:53/udp`, `tcp://0.0.0.0:80`, an endpoint. */
  readonly listen: Endpoint | string
  readonly forward: Endpoint | string
  /** The nodes that serve it, by id. Default: any. */
  readonly nodes?: readonly string[] | undefined
  readonly balance?: Balance | undefined
  readonly note?: string | undefined
  readonly enabled?: boolean | undefined
  /** How long a connection waits for a node that is away, in ms. Default 5,000. */
  readonly wait?: number | undefined
  readonly health?: HealthCheck | undefined
  readonly limits?: TrafficLimits | undefined
  /** For those that listen at the web port. */
  readonly http?: HttpRequest | undefined
}

/** `HttpSettings` as they are shown. */
export interface HttpStatus extends Omit<HttpSettings, 'basicAuth'> {
  /** The names, without what proves them. */
  readonly basicAuth?: readonly string[] | undefined
}

/**
 * What changes of a mapping. `null` makes it what it is without; objects are merged (RFC 7396), but for the two lists of
 * headers, which take the place of what was there: `null` is a rule in them.
 */
export type MappingChange = Patch<
  Pick<MappingRequest, 'nodes' | 'balance' | 'note' | 'wait' | 'health' | 'limits' | 'http'>
>

export interface MappingStatus {
  readonly id: string
  readonly listen: Endpoint
  readonly forward: Endpoint
  /** Where it really listens, while it does. */
  readonly bound?: Endpoint | undefined
  readonly nodes: readonly string[]
  readonly balance: Balance
  readonly note: string
  readonly enabled: boolean
  readonly wait: number
  readonly health?: HealthCheck | undefined
  readonly limits?: TrafficLimits | undefined
  readonly http?: HttpStatus | undefined
  /** Who said so. Only what came at run time can be changed at run time. */
  readonly source: 'command line' | 'config' | 'runtime'
  /** `no node`: it is bound, and nobody who could serve it is connected. */
  readonly state: 'ready' | 'no node' | 'unhealthy' | 'disabled' | 'failed'
  /** Why it failed. */
  readonly problem?: string | undefined
  /** The instances that serve it now. Of a mapping of any node, which nobody checks, none is named. */
  readonly targets: readonly { readonly node: string; readonly healthy: boolean; readonly problem?: string }[]
  readonly created: string
  readonly firstConnected?: string | undefined
  readonly lastConnected?: string | undefined
  readonly totals: Totals
  /** Bytes of this calendar month (UTC), both directions together. */
  readonly quotaUsed?: number | undefined
  /** Visitors that its limits have refused, since the start. */
  readonly limited?: Readonly<Refusals> | undefined
}

export interface ConnectionStatus {
  /** The instance and the id of the sub-connection in it. */
  readonly instance: string
  readonly id: number
  readonly node: string
  readonly mapping?: string | undefined
  readonly from?: string | undefined
  readonly to?: Endpoint | undefined
  readonly created: string
  readonly bytesIn: number
  readonly bytesOut: number
}

export interface CertificateStatus {
  /** The first name that it is for; `*.example.com` is for `example.com` as well. */
  readonly name: string
  /** From when to when the one in use is good. Both are missing if there is none. */
  readonly begins?: string | undefined
  readonly ends?: string | undefined
  /** Why it could not be had, renewed or read last; there until that is mended. */
  readonly problem?: string | undefined
}

export interface ServerStatus {
  readonly version: string
  /** `node`: it is a node that tells, and its server stands where a server has its nodes. Default `server`. */
  readonly role?: 'server' | 'node' | undefined
  /** Where it listens for nodes; of a node the server. */
  readonly address: string
  /** The fingerprint that nodes pin over TLS, where the certificate is one of the server's own. */
  readonly pin?: string | undefined
  /** The certificates that a server was given, or gets by itself. */
  readonly certificates?: readonly CertificateStatus[] | undefined
  /** What holds for each node that has no limits of its own. */
  readonly nodeLimits?: TrafficLimits | undefined
  readonly started: string
  readonly nodes: { readonly enrolled: number; readonly connected: number }
  readonly mappings: { readonly count: number; readonly ready: number }
  readonly totals: Totals
  /** Bytes held for peers, and of RSS. */
  readonly memory: { readonly held: number; readonly rss: number }
}

export interface ReloadReport {
  /** What changed, a line each; empty if nothing did. */
  readonly changes: readonly string[]
  /** What a restart is needed for. */
  readonly restart: readonly string[]
}

/** A change that an operator made, as the audit log has it. */
export interface AuditEntry {
  readonly at: string
  /** `cli`, `api 192.0.2.1`, `reload`. */
  readonly by: string
  /** `node.add`, `mapping.remove`, ... */
  readonly action: string
  readonly subject: string
  readonly error?: ProxyError['code'] | undefined
}
