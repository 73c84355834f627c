import { ProxyError } from './core/index.ts'
import type { SymportNode } from './create-node.ts'
import type { HubEvent } from './hub/events.ts'
import type { Feed } from './hub/feed.ts'
import type { ConnectionStatus, MappingStatus, NodeStatus, Operations, ServerStatus } from './hub/operations.ts'
import type { Statistics } from './hub/statistics.ts'

export interface NodeOperatorOptions {
  readonly node: SymportNode
  /** What the server is called here. */
  readonly server: string
  readonly statistics: Statistics
  /** What the node tells. */
  readonly feed: Feed
  readonly version: string
}

/** What the operator of a running node can see: its server stands where a server has its nodes. Nothing is changed here. */
export class NodeOperator implements Operations {
  readonly #options: NodeOperatorOptions
  readonly #started = new Date()

  constructor(options: NodeOperatorOptions) {
    this.#options = options
  }

  status(): ServerStatus {
    const { node, server, statistics, version } = this.#options
    return {
      version,
      role: 'node',
      address: server,
      started: this.#started.toISOString(),
      nodes: { enrolled: 0, connected: node.server ? 1 : 0 },
      mappings: { count: node.mappings.size, ready: node.mappings.ready },
      totals: statistics.totals(),
      memory: { held: node.heldBytes, rss: process.memoryUsage.rss() },
    }
  }

  nodes(): NodeStatus[] {
    const { server, statistics } = this.#options
    return [{ id: server, enrolled: false, enabled: true, ...statistics.node(server) }]
  }

  mappings(): MappingStatus[] {
    return this.#options.node.mappings.status()
  }

  connections(limit?: number | undefined): ConnectionStatus[] {
    return this.#options.statistics.connections(limit)
  }

  subscribe(listener: (event: HubEvent) => void): () => void {
    return this.#options.feed.subscribe(listener)
  }

  addNode: Operations['addNode'] = refuse
  removeNode: Operations['removeNode'] = refuse
  setNodeEnabled: Operations['setNodeEnabled'] = refuse
  rotateNode: Operations['rotateNode'] = refuse
  kickNode: Operations['kickNode'] = refuse
  addMapping: Operations['addMapping'] = refuse
  removeMapping: Operations['removeMapping'] = refuse
  setMappingEnabled: Operations['setMappingEnabled'] = refuse
  reload: Operations['reload'] = refuse
}

async function refuse(): Promise<never> {
  throw new ProxyError('PROXY_ERR_READ_ONLY', 'this is a node, which can only be looked at: ask its server')
}
