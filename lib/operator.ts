import { ProxyError } from './core/index.ts'
import type { SymportServer } from './create-server.ts'
import type { WebFigures } from './domains/web-figures.ts'
import type { Inspection } from './domains/web-inspection.ts'
import type { Connected, HubEvent } from './hub/events.ts'
import type { Feed } from './hub/feed.ts'
import type { Identities, Identity } from './hub/identities.ts'
import { isEmpty } from './hub/merge-patch.ts'
import type {
  AddedNode,
  ConnectionStatus,
  MappingChange,
  MappingRequest,
  MappingStatus,
  NodeChange,
  NodeRequest,
  NodeStatus,
  Operations,
  ReloadReport,
  ServerStatus,
} from './hub/operations.ts'
import type { Statistics } from './hub/statistics.ts'

export interface OperatorOptions {
  readonly server: SymportServer
  readonly identities: Identities
  readonly statistics: Statistics
  /** What the server tells. */
  readonly feed: Feed
  readonly version: string
  /** The fingerprint of the server's certificate, where it is one of its own. */
  readonly pin?: (() => Promise<string | undefined>) | undefined
  /** Those that the server was given, or gets by itself. */
  readonly certificates?: (() => ServerStatus['certificates']) | undefined
  /** Applies the changed configuration file. Without one there is nothing to reload. */
  readonly reload?: (() => Promise<ReloadReport>) | undefined
  /** See `Web.inspection`. */
  readonly inspection?: (() => Promise<Inspection>) | undefined
  /** See `Web.figures`. */
  readonly webFigures?: (() => WebFigures) | undefined
}

/** What the operator of a running server can do and see, put together from its parts. */
export class Operator implements Operations {
  readonly inspection?: () => Promise<Inspection>
  readonly webFigures?: () => WebFigures
  readonly #options: OperatorOptions
  readonly #started = new Date()
  /** Known once a node was added: making a certificate is for who needs it. */
  #pin: string | undefined

  constructor(options: OperatorOptions) {
    this.#options = options
    if (options.inspection) this.inspection = options.inspection
    if (options.webFigures) this.webFigures = options.webFigures
  }

  status(): ServerStatus {
    const { server, identities, statistics, version } = this.#options
    return {
      version,
      address: server.address,
      pin: this.#pin,
      certificates: this.#options.certificates?.(),
      nodeLimits: isEmpty(identities.defaultLimits) ? undefined : identities.defaultLimits,
      started: this.#started.toISOString(),
      nodes: { enrolled: identities.size, connected: server.nodes.size },
      mappings: { count: server.mappings.size, ready: server.mappings.ready },
      totals: statistics.totals(),
      memory: { held: server.heldBytes, rss: process.memoryUsage.rss() },
    }
  }

  // --- nodes ---

  nodes(): NodeStatus[] {
    const { server, identities } = this.#options
    const enrolled = identities.list().map((identity) => this.#enrolled(identity))
    const others = new Set([...server.nodes].filter((peer) => !isEnrolled(peer)).map(({ id }) => id))
    return [...enrolled, ...[...others].map((id) => this.#other(id))]
  }

  async addNode(request: NodeRequest): Promise<AddedNode> {
    await this.#learnPin()
    return await this.#options.identities.add(request)
  }

  async removeNode(id: string): Promise<void> {
    this.#assertEnrolled(id)
    await this.#options.identities.remove(id)
    this.#options.statistics.forget('node', id)
  }

  async setNodeEnabled(id: string, enabled: boolean): Promise<void> {
    this.#assertEnrolled(id)
    await this.#options.identities.setEnabled(id, enabled)
  }

  async rotateNode(id: string, secret?: string | undefined): Promise<AddedNode> {
    this.#assertEnrolled(id)
    await this.#learnPin()
    return await this.#options.identities.rotate(id, secret)
  }

  async changeNode(id: string, change: NodeChange): Promise<void> {
    this.#assertEnrolled(id, '; the limits that hold for it are those of [node-limits]')
    await this.#options.identities.change(id, change)
  }

  async kickNode(id: string): Promise<number> {
    const { server, identities } = this.#options
    const peers = [...server.nodes].filter((peer) => peer.id === id)
    if (peers.length === 0 && !identities.has(id)) {
      throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no node ${JSON.stringify(id)}`)
    }
    for (const { proxy } of peers) {
      proxy.main.close(new ProxyError('PROXY_ERR_CLOSED', 'the operator of the server ended it', { retryable: true }))
    }
    return peers.length
  }

  /** A node that is there by the shared secret is listed as well, and nothing is kept about it that could change. */
  #assertEnrolled(id: string, more: string = ''): void {
    const { server, identities } = this.#options
    if (identities.has(id) || ![...server.nodes].some((peer) => peer.id === id)) return
    const text = `node ${JSON.stringify(id)} is not enrolled: it came by the shared secret${more}`
    throw new ProxyError('PROXY_ERR_NOT_FOUND', text)
  }

  /** What a new node may pin. Without a certificate there is no TLS, and all else works. */
  async #learnPin(): Promise<void> {
    this.#pin ??= await this.#options.pin?.().catch(() => undefined)
  }

  #enrolled(identity: Identity): NodeStatus {
    const { id, enabled, created, expires, grants, limits } = identity
    const figures = this.#options.statistics.node(id, true)
    const limited = this.#options.server.limiter.refusedAt({ id, enrolled: true })
    return { id, enrolled: true, enabled, created, expires, grants, limits, limited, ...figures }
  }

  #other(id: string): NodeStatus {
    const limited = this.#options.server.limiter.refusedAt({ id, enrolled: false })
    return { id, enrolled: false, enabled: true, limited, ...this.#options.statistics.node(id, false) }
  }

  // --- mappings ---

  mappings(): MappingStatus[] {
    return this.#options.server.mappings.status()
  }

  async addMapping(request: MappingRequest): Promise<MappingStatus> {
    return await this.#options.server.mappings.add(request)
  }

  async removeMapping(id: string): Promise<void> {
    await this.#options.server.mappings.remove(id)
    this.#options.statistics.forget('mapping', id)
  }

  async setMappingEnabled(id: string, enabled: boolean): Promise<void> {
    await this.#options.server.mappings.setEnabled(id, enabled)
  }

  async changeMapping(id: string, change: MappingChange): Promise<MappingStatus> {
    return await this.#options.server.mappings.change(id, change)
  }

  // --- the rest ---

  connections(limit?: number | undefined): ConnectionStatus[] {
    return this.#options.statistics.connections(limit)
  }

  async reload(): Promise<ReloadReport> {
    const { reload } = this.#options
    if (!reload) throw new ProxyError('PROXY_ERR_REQUEST', 'the server was started without a configuration file')
    return await reload()
  }

  subscribe(listener: (event: HubEvent) => void): () => void {
    return this.#options.feed.subscribe(listener)
  }
}

function isEnrolled({ proxy }: Connected): boolean {
  return proxy.main.peer.credential !== ''
}
