import { ProxyError } from '../../../lib/core/errors.ts'
import type { WebFigures } from '../../../lib/domains/web-figures.ts'
import type { HubEvent } from '../../../lib/hub/events.ts'
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
  Totals,
} from '../../../lib/hub/operations.ts'

const NOTHING: Totals = { bytesIn: 0, bytesOut: 0, connections: 0, live: 0 }
export const START = '2026-01-02T03:04:05.000Z'

/** Operations with a state of their own and no tunnel behind them. */
export class FakeOperations implements Operations {
  readonly nodeList: NodeStatus[] = []
  readonly mappingList: MappingStatus[] = []
  readonly connectionList: ConnectionStatus[] = []
  readonly listeners: Set<(event: HubEvent) => void> = new Set()
  /** Every secret that it was given or has made. */
  readonly secrets: Map<string, string> = new Map()
  address = '127.0.0.1:925'
  totals: Totals = NOTHING
  certificates: ServerStatus['certificates'] = undefined
  webFigures?: () => WebFigures
  /** Thrown by the next call of a change. */
  failure: Error | undefined
  /** Changes wait for this. */
  gate: Promise<void> = Promise.resolve()
  report: ReloadReport = { changes: [], restart: [] }
  #made = 0

  status(): ServerStatus {
    const connected = this.nodeList.filter((node) => node.connected).length
    const ready = this.mappingList.filter((mapping) => mapping.state === 'ready').length
    return {
      version: '9.9.9',
      address: this.address,
      ...(this.certificates ? { certificates: this.certificates } : {}),
      started: START,
      nodes: { enrolled: this.nodeList.filter((node) => node.enrolled).length, connected },
      mappings: { count: this.mappingList.length, ready },
      totals: this.totals,
      memory: { held: 4096, rss: 64 * 1024 * 1024 },
    }
  }

  nodes(): NodeStatus[] {
    return [...this.nodeList]
  }

  async addNode({ id, secret, expires, grants, limits }: NodeRequest): Promise<AddedNode> {
    await this.#change()
    if (this.nodeList.some((node) => node.id === id)) {
      throw new ProxyError('PROXY_ERR_EXISTS', `there is a node ${id} already`)
    }
    this.nodeList.push({ ...someNode(id), created: START, expires, grants, limits })
    return this.#secret(id, secret)
  }

  async removeNode(id: string): Promise<void> {
    await this.#change()
    this.nodeList.splice(this.#node(id), 1)
  }

  async setNodeEnabled(id: string, enabled: boolean): Promise<void> {
    await this.#change()
    this.#patchNode(id, enabled ? { enabled } : { enabled, connected: false, instances: [] })
  }

  async rotateNode(id: string, secret?: string): Promise<AddedNode> {
    await this.#change()
    this.#node(id)
    return this.#secret(id, secret)
  }

  readonly added: MappingRequest[] = []
  /** What it was asked for, as it came. */
  readonly changes: (NodeChange | MappingChange)[] = []

  async changeNode(id: string, change: NodeChange): Promise<void> {
    await this.#change()
    this.#node(id)
    this.changes.push(change)
  }

  async changeMapping(id: string, change: MappingChange): Promise<MappingStatus> {
    await this.#change()
    this.#mapping(id)
    this.changes.push(change)
    return this.mappingList.find((mapping) => mapping.id === id) ?? someMapping(id)
  }

  async kickNode(id: string): Promise<number> {
    await this.#change()
    const count = this.nodeList[this.#node(id)]?.instances.length ?? 0
    this.#patchNode(id, { connected: false, instances: [] })
    return count
  }

  mappings(): MappingStatus[] {
    return [...this.mappingList]
  }

  async addMapping(request: MappingRequest): Promise<MappingStatus> {
    await this.#change()
    const { listen, forward, ...rest } = request
    if (listen === 'garbage') throw new ProxyError('PROXY_ERR_SPEC', 'bad endpoint "garbage"')
    const endpoint = (at: typeof listen) => (typeof at === 'string' ? { Domain: 'tcp', Addr: at } : at)
    this.added.push(request)
    const { basicAuth } = rest.http ?? {}
    const http = basicAuth ? { http: { ...rest.http, basicAuth: Object.keys(basicAuth) } } : {}
    const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
    const mapping = {
      ...someMapping(`m${++this.#made}`),
      listen: endpoint(listen),
      forward: endpoint(forward),
      ...given,
      ...http,
    }
    this.mappingList.push(mapping)
    return mapping
  }

  async removeMapping(id: string): Promise<void> {
    await this.#change()
    this.mappingList.splice(this.#mapping(id), 1)
  }

  async setMappingEnabled(id: string, enabled: boolean): Promise<void> {
    await this.#change()
    const index = this.#mapping(id)
    const before = this.mappingList[index]
    if (before) this.mappingList[index] = { ...before, enabled, state: enabled ? 'ready' : 'disabled' }
  }

  connections(limit = 1000): ConnectionStatus[] {
    return this.connectionList.slice(0, limit)
  }

  async reload(): Promise<ReloadReport> {
    await this.#change()
    return this.report
  }

  subscribe(listener: (event: HubEvent) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  emit(event: HubEvent): void {
    for (const listener of this.listeners) listener(event)
  }

  async #change(): Promise<void> {
    await this.gate
    const { failure } = this
    this.failure = undefined
    if (failure) throw failure
  }

  #secret(id: string, given: string | undefined): AddedNode {
    const secret = given ?? `symport_${id}${'x'.repeat(40)}${++this.#made}`
    this.secrets.set(id, secret)
    return given === undefined ? { id, secret } : { id }
  }

  #node(id: string): number {
    const index = this.nodeList.findIndex((node) => node.id === id)
    if (index < 0) throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no node ${id}`)
    return index
  }

  #patchNode(id: string, patch: Partial<NodeStatus>): void {
    const index = this.#node(id)
    const before = this.nodeList[index]
    if (before) this.nodeList[index] = { ...before, ...patch }
  }

  #mapping(id: string): number {
    const index = this.mappingList.findIndex((mapping) => mapping.id === id)
    if (index < 0) throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no mapping ${id}`)
    if (this.mappingList[index]?.source !== 'runtime') {
      throw new ProxyError('PROXY_ERR_READ_ONLY', `mapping ${id} comes from the configuration file: change it there`)
    }
    return index
  }
}

export function someNode(id: string, more: Partial<NodeStatus> = {}): NodeStatus {
  return {
    id,
    enrolled: true,
    enabled: true,
    connected: false,
    reconnects: 0,
    resumes: 0,
    totals: NOTHING,
    instances: [],
    ...more,
  }
}

/** A node with one process that is connected. */
export function connectedNode(id: string, totals: Totals = NOTHING): NodeStatus {
  const instance = '0b9c1d0e-0000-4000-8000-000000000001'
  const remote = '192.0.2.7:41234'
  const times = { firstConnected: START, lastConnected: START }
  const process = { instance, remote, transport: 'tcp', state: 'connected', connectedAt: START, rtt: 12.4 } as const
  return someNode(id, { connected: true, ...times, totals, instances: [{ ...process, resumes: 0, totals }] })
}

export function someMapping(id: string, more: Partial<MappingStatus> = {}): MappingStatus {
  return {
    id,
    listen: { Domain: 'tcp', Addr: ':8078' },
    forward: { Domain: 'tcp', Addr: '127.0.0.1:8077' },
    nodes: [],
    balance: 'first',
    note: '',
    enabled: true,
    wait: 5000,
    source: 'runtime',
    state: 'ready',
    targets: [],
    created: START,
    totals: NOTHING,
    ...more,
  }
}
