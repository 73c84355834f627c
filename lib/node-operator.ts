import { ProxyError } from './core/index.ts'
import type { NodeOptions, SymportNode } from './create-node.ts'
import type { Inspection } from './domains/web-inspection.ts'
import type { HubEvent, OnEvent } from './hub/events.ts'
import { Feed } from './hub/feed.ts'
import type { ConnectionStatus, MappingStatus, NodeStatus, Operations, ServerStatus } from './hub/operations.ts'
import type { Statistics } from './hub/statistics.ts'

export interface NodeOperatorOptions {
  /** What the servers are called here, one for each main connection. */
  readonly servers: readonly string[]
  readonly statistics: Statistics
  readonly version: string
  /** See `Web.inspection`: of a node that serves requests itself. */
  readonly inspection?: (() => Promise<Inspection>) | undefined
}

/** The node of one main connection, as an operator looks at it. */
export interface ObservedNode {
  readonly server: string
  /** For `createNode`. */
  readonly hooks: Pick<NodeOptions, 'onOpened' | 'figures'> & { readonly onEvent: OnEvent }
  /** The node that got the hooks. */
  started(node: SymportNode): void
}

/**
 * What the operator of a running node can see: its servers stand where a server has its nodes. Nothing is changed here.
 * With several servers the ids of mappings say whose they are: `2.1` is the first one of the second.
 */
export class NodeOperator implements Operations {
  /** In the order of the servers. */
  readonly observed: readonly ObservedNode[]
  readonly inspection?: () => Promise<Inspection>
  readonly #options: NodeOperatorOptions
  readonly #feed = new Feed()
  readonly #nodes = new Map<number, SymportNode>()
  readonly #started = new Date()

  constructor(options: NodeOperatorOptions) {
    this.#options = options
    if (options.inspection) this.inspection = options.inspection
    this.observed = options.servers.map((server, number) => this.#observe(server, number))
  }

  #observe(server: string, number: number): ObservedNode {
    const { statistics } = this.#options
    const onEvent = (event: HubEvent): void => {
      if (event.type === 'connected') statistics.connected(event.peer)
      if (event.type === 'disconnected') statistics.disconnected(event.peer)
      const isMappings = 'mapping' in event && event.mapping !== undefined
      this.#feed.tell(isMappings ? { ...event, mapping: this.#idOf(number, event.mapping) } : event)
    }
    return {
      server,
      hooks: {
        onEvent,
        onOpened: (sub, opened) => statistics.opened(sub, { ...opened, mapping: this.#idOf(number, opened.mapping) }),
        figures: (mapping) => statistics.mapping(this.#idOf(number, mapping)),
      },
      started: (node) => this.#nodes.set(number, node),
    }
  }

  #idOf(number: number, mapping: string): string {
    return this.#several ? `${number + 1}.${mapping}` : mapping
  }

  get #several(): boolean {
    return this.#options.servers.length > 1
  }

  /** Each once: several main connections may lead to one of them. */
  get #servers(): ReadonlySet<string> {
    return new Set(this.#options.servers)
  }

  status(): ServerStatus {
    const { statistics, version } = this.#options
    const nodes = [...this.#nodes.values()]
    const sum = (figure: (node: SymportNode) => number): number => nodes.reduce((all, node) => all + figure(node), 0)
    return {
      version,
      role: 'node',
      address: [...this.#servers].join(', '),
      started: this.#started.toISOString(),
      nodes: { enrolled: 0, connected: sum((node) => (node.server ? 1 : 0)) },
      mappings: { count: sum((node) => node.mappings.size), ready: sum((node) => node.mappings.ready) },
      totals: statistics.totals(),
      memory: { held: sum((node) => node.heldBytes), rss: process.memoryUsage.rss() },
    }
  }

  nodes(): NodeStatus[] {
    const { statistics } = this.#options
    return [...this.#servers].map((id) => ({ id, enrolled: false, enabled: true, ...statistics.node(id) }))
  }

  mappings(): MappingStatus[] {
    return [...this.#nodes].flatMap(([number, node]) => {
      const mappings = node.mappings.status()
      const server = this.#options.servers[number]
      if (!this.#several || server === undefined) return mappings
      return mappings.map((one) => ({ ...one, id: this.#idOf(number, one.id), nodes: [server] }))
    })
  }

  connections(limit?: number | undefined): ConnectionStatus[] {
    return this.#options.statistics.connections(limit)
  }

  subscribe(listener: (event: HubEvent) => void): () => void {
    return this.#feed.subscribe(listener)
  }

  addNode: Operations['addNode'] = refuse
  removeNode: Operations['removeNode'] = refuse
  setNodeEnabled: Operations['setNodeEnabled'] = refuse
  rotateNode: Operations['rotateNode'] = refuse
  changeNode: Operations['changeNode'] = refuse
  kickNode: Operations['kickNode'] = refuse
  addMapping: Operations['addMapping'] = refuse
  removeMapping: Operations['removeMapping'] = refuse
  setMappingEnabled: Operations['setMappingEnabled'] = refuse
  changeMapping: Operations['changeMapping'] = refuse
  reload: Operations['reload'] = refuse
}

async function refuse(): Promise<never> {
  throw new ProxyError('PROXY_ERR_READ_ONLY', 'this is a node, which can only be looked at: ask its server')
}
