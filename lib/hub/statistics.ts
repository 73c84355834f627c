import {
  diagnostics,
  type Endpoint,
  type MainConnection,
  type Proxy,
  ProxyError,
  type SubConnection,
} from '../core/index.ts'
import type { JsonFile } from '../store/json-file.ts'
import type { StateFolder } from '../store/state-folder.ts'
import type { Connected } from './events.ts'
import {
  Ages,
  Calendar,
  Instance,
  Live,
  MappingRecord,
  Monthly,
  NodeRecord,
  RelayedLive,
  Sums,
  Table,
} from './figures.ts'
import type { Usage } from './limits.ts'
import type { ConnectionStatus, InstanceStatus, MappingStatus, NodeStatus, Totals } from './operations.ts'
import {
  openStatistics,
  type SavedMapping,
  type SavedNode,
  type SavedStatistics,
  savedSums,
} from './statistics-file.ts'

/** How often what has changed is written, in ms. */
const SAVE_EVERY = 10_000
const MAX_NODES = 10_000
const MAX_MAPPINGS = 10_000
const MAX_LISTED = 1000
/** Nothing that is dialled by name or path is longer; what is would only take memory. */
const MAX_ADDR = 300

export interface StatisticsOptions {
  /** Sub-connections that are nobody's, as those of health checks. Default: none. */
  ignore?: ((sub: SubConnection) => boolean) | undefined
  /** The file was damaged, or cannot be written: told once, and again only after it could meanwhile. */
  onProblem?: ((error: ProxyError) => void) | undefined
  /** Time between two writes, in ms. Default 10,000. */
  saveEvery?: number | undefined
  /** Nodes that are remembered: those that are enrolled, and as many that are not. Default 10,000. */
  maxNodes?: number | undefined
  /** Default 10,000. */
  maxMappings?: number | undefined
  /** A clock in ms since 1970, for what is counted by the month. Default `Date.now`. */
  now?: (() => number) | undefined
}

export interface Opened {
  /** The id of the mapping. */
  readonly mapping: string
  readonly peer: Connected
  /** Where it leads at the peer. */
  readonly to?: Endpoint | undefined
  /** It is in a channel. */
  readonly relayed?: boolean | undefined
}

export type NodeFigures = Pick<
  NodeStatus,
  'connected' | 'firstConnected' | 'lastConnected' | 'reconnects' | 'resumes' | 'totals' | 'quotaUsed' | 'instances'
>
export type MappingFigures = Pick<MappingStatus, 'firstConnected' | 'lastConnected' | 'totals' | 'quotaUsed'>

/**
 * What has gone through each node, mapping and sub-connection. It is told of main connections, and hears of
 * sub-connections from the core. Sums include what lives at the moment of the call, never go back, and survive a restart.
 */
export class Statistics implements AsyncDisposable, Usage {
  readonly #file: JsonFile<SavedStatistics> | undefined
  readonly #onProblem: (error: ProxyError) => void
  readonly #ignore: (sub: SubConnection) => boolean
  readonly #timer: NodeJS.Timeout | undefined
  readonly #total = new Sums()
  /** Apart: whoever knows the shared secret may take any name, and shall neither add to nor displace what is proven. */
  readonly #enrolled: Table<NodeRecord>
  readonly #others: Table<NodeRecord>
  readonly #mappings: Table<MappingRecord>
  readonly #instances = new WeakMap<MainConnection, Instance>()
  readonly #ages = new Ages()
  readonly #calendar: Calendar
  #month: string
  #changes = 0
  /** What `#mark` said when it was last written. */
  #saved = 0
  #saving: Promise<void> | undefined
  #failing = false
  #closed: Promise<void> | undefined

  /** Goes on with what `folder` has kept; without a folder nothing is. Never rejects for the sake of figures. */
  static async open(folder: StateFolder | undefined, options: StatisticsOptions = {}): Promise<Statistics> {
    const file = folder && (await openStatistics(folder, options.onProblem ?? (() => {})))
    return new Statistics(file, options)
  }

  private constructor(file: JsonFile<SavedStatistics> | undefined, options: StatisticsOptions) {
    const { onProblem = () => {}, saveEvery = SAVE_EVERY, maxNodes = MAX_NODES, maxMappings = MAX_MAPPINGS } = options
    this.#file = file
    this.#onProblem = onProblem
    this.#ignore = options.ignore ?? (() => false)
    this.#calendar = new Calendar(options.now)
    this.#month = this.#calendar.month
    this.#enrolled = new Table(maxNodes)
    this.#others = new Table(maxNodes)
    this.#mappings = new Table(maxMappings)
    if (file) {
      this.#load(file.value)
      this.#timer = setInterval(() => void this.#save(), saveEvery).unref()
    }
    this.#saved = this.#mark()
    diagnostics.subOpen.subscribe(this.#onSubOpen)
    diagnostics.subClose.subscribe(this.#onSubClose)
    diagnostics.mainResume.subscribe(this.#onResume)
  }

  // --- what it learns ---

  /** A new main connection. In the turn in which it got its Proxy: nothing can be missed then. */
  connected(peer: Connected): void {
    const { main, subConnections } = peer.proxy
    if (this.#closed || this.#instances.has(main)) return
    this.#changes++
    // The name of a credential is proven.
    const table = main.peer.credential === '' ? this.#others : this.#enrolled
    const at = peer.connectedAt.getTime()
    const node = table.get(peer.id) ?? table.add(new NodeRecord(peer.id, at, this.#thisMonth()))
    node.last = at
    node.mains++
    const instance = new Instance(peer, node)
    node.instances.add(instance)
    this.#instances.set(main, instance)
    for (const sub of subConnections) if (!sub.connecting) this.#open(instance, sub, undefined)
  }

  /** Its main connection is over, and with it all that was open in it. */
  disconnected(peer: Connected): void {
    const instance = this.#instances.get(peer.proxy.main)
    if (!instance || instance.over) return
    this.#changes++
    // A sub-connection may be slow to let go, and carries nothing more: it does not live any longer than this.
    for (const live of instance.lives.values()) this.#end(live)
    instance.over = true
    instance.node.instances.delete(instance)
  }

  /**
   * A mapping has opened a sub-connection: it counts for the mapping too. Those that nobody tells of here count for their
   * node only, and from the moment in which they have connected; these count at once, also if the dial fails later. What
   * is in a channel counts for the mapping only: for the node, what carries the channel does.
   */
  opened(sub: SubConnection, { mapping, peer, to, relayed = false }: Opened): void {
    const { main } = peer.proxy
    const instance = this.#instances.get(main)
    if (!instance || this.#closed) return
    if (relayed) {
      this.#relayed(new RelayedLive(sub, instance, to), mapping)
      return
    }
    const live = liveOf(instance, sub) ?? this.#open(instance, sub, to)
    if (live.mapping) return
    this.#add(live, mapping)
    live.to = to
    // It may have ended before anybody could tell.
    if (main.reason || instance.over || (sub.over && sub.destroyed)) this.#end(live)
  }

  #add(live: Live, mapping: string): void {
    const record =
      this.#mappings.get(mapping) ?? this.#mappings.add(new MappingRecord(mapping, live.created, this.#thisMonth()))
    record.last = live.created
    record.sums.connections++
    live.place = record.alive.add(live)
    live.mapping = record
  }

  #relayed(live: Live, mapping: string): void {
    const { sub } = live
    this.#changes++
    this.#add(live, mapping)
    // The core tells of it as one of a main connection that is not known here.
    const end = (): void => {
      this.#changes++
      this.#endOf(live)
    }
    if (sub.closed) end()
    else sub.once('close', end)
  }

  /** It was removed. What it has carried stays in `totals`. */
  forget(kind: 'node' | 'mapping', id: string): void {
    this.#changes++
    if (kind === 'mapping') {
      this.#mappings.delete(id)
    } else {
      this.#enrolled.delete(id)
      this.#others.delete(id)
    }
  }

  readonly #onSubOpen = (message: unknown): void => {
    const { proxy, sub, to } = message as { proxy: Proxy; sub: SubConnection; to: Endpoint }
    // The channel is one for the whole process.
    const instance = this.#instances.get(proxy.main)
    if (!instance || instance.over || liveOf(instance, sub) || this.#ignore(sub)) return
    // Where this side has opened it for a listener of the peer, that is where it came in, and not where it leads.
    const known = !instance.opens(sub.id) && to.Addr.length <= MAX_ADDR
    this.#open(instance, sub, known ? to : undefined)
  }

  readonly #onSubClose = (message: unknown): void => {
    const { main, sub } = message as { main: MainConnection; sub: SubConnection }
    const instance = this.#instances.get(main)
    const live = instance && liveOf(instance, sub)
    if (live) this.#end(live)
  }

  // Not the epoch: that is the peer's own count of its tries.
  readonly #onResume = (message: unknown): void => {
    const instance = this.#instances.get((message as { main: MainConnection }).main)
    if (!instance) return
    this.#changes++
    instance.resumes++
    instance.node.resumes++
  }

  #open(instance: Instance, sub: SubConnection, to: Endpoint | undefined): Live {
    this.#changes++
    this.#thisMonth()
    const live = new Live(sub, instance, to)
    instance.lives.set(sub.id, live)
    this.#ages.add(live)
    for (const sums of [this.#total, instance.node.sums, instance.sums]) sums.connections++
    return live
  }

  /** What was added to each call becomes part of the sums, in one go. */
  #end(live: Live): void {
    const { instance } = live
    this.#changes++
    instance.lives.delete(live.sub.id)
    this.#ages.delete(live)
    for (const sums of [this.#total, instance.node.sums, instance.sums]) sums.end(live)
    this.#endOf(live)
  }

  /** For its mapping. */
  #endOf(live: Live): void {
    const { mapping } = live
    if (!mapping) return
    mapping.alive.remove(live.place)
    live.mapping = undefined
    mapping.sums.end(live)
  }

  /** Where a new month has begun, what went through by now is of those before. */
  #thisMonth(): string {
    const { month } = this.#calendar
    if (month === this.#month) return month
    this.#month = month
    this.#changes++
    for (const table of [this.#enrolled, this.#others]) for (const node of table) usedBy(node, month)
    for (const mapping of this.#mappings) usedBy(mapping, month)
    return month
  }

  // --- what it tells ---

  ofMapping(id: string): number {
    const record = this.#mappings.get(id)
    return record ? usedBy(record, this.#thisMonth()) : 0
  }

  ofNode(id: string, enrolled: boolean): number {
    const record = (enrolled ? this.#enrolled : this.#others).get(id)
    return record ? usedBy(record, this.#thisMonth()) : 0
  }

  /** Of all, also of what was forgotten. */
  totals(): Totals {
    return this.#total.with(this.#ages)
  }

  /** `enrolled`: whether it has a credential of its own. Left out, the one that has, if both are known. */
  node(id: string, enrolled?: boolean | undefined): NodeFigures {
    const proven = enrolled === false ? undefined : this.#enrolled.get(id)
    const node = proven ?? (enrolled === true ? undefined : this.#others.get(id))
    const instances = [...(node?.instances ?? [])].map(({ peer }) => this.instance(peer))
    return {
      connected: instances.length > 0,
      firstConnected: node && isoTime(node.first),
      lastConnected: node && isoTime(node.last),
      reconnects: Math.max(0, (node?.mains ?? 0) - 1),
      resumes: node?.resumes ?? 0,
      totals: (node?.sums ?? new Sums()).with(node?.lives() ?? []),
      quotaUsed: node ? usedBy(node, this.#thisMonth()) : 0,
      instances,
    }
  }

  instance(peer: Connected): InstanceStatus {
    const { proxy, remote, connectedAt } = peer
    const { transport, rtt, lastPing } = proxy.main
    const instance = this.#instances.get(proxy.main)
    return {
      instance: peer.instance,
      remote,
      transport,
      state: proxy.state,
      connectedAt: connectedAt.toISOString(),
      rtt,
      lastPing: lastPing === undefined ? undefined : isoTime(lastPing),
      resumes: instance?.resumes ?? 0,
      totals: (instance?.sums ?? new Sums()).with(instance?.lives.values() ?? []),
    }
  }

  mapping(id: string): MappingFigures {
    const record = this.#mappings.get(id)
    return {
      firstConnected: record && isoTime(record.first),
      lastConnected: record && isoTime(record.last),
      totals: (record?.sums ?? new Sums()).with(record?.lives() ?? []),
      quotaUsed: record ? usedBy(record, this.#thisMonth()) : 0,
    }
  }

  /** Those that live, the newest first. */
  connections(limit: number = MAX_LISTED): ConnectionStatus[] {
    const list: ConnectionStatus[] = []
    for (const live of this.#ages) {
      if (!(list.length < limit)) break
      const { sub, instance, mapping, to, created, bytesIn, bytesOut } = live
      const { instance: uuid, id: node } = instance.peer
      const of = { instance: uuid, id: sub.id, node, mapping: mapping?.id, from: sub.remote, to }
      list.push({ ...of, created: isoTime(created), bytesIn, bytesOut })
    }
    return list
  }

  // --- what survives a restart ---

  /** Writes what has changed, and learns nothing from here on. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #close(): Promise<void> {
    clearInterval(this.#timer)
    diagnostics.subOpen.unsubscribe(this.#onSubOpen)
    diagnostics.subClose.unsubscribe(this.#onSubClose)
    diagnostics.mainResume.unsubscribe(this.#onResume)
    // What is being written now may lack the last of it.
    await this.#saving
    await this.#save()
  }

  /** Grows with everything that happens, and with every byte. */
  #mark(): number {
    const { bytesIn, bytesOut } = this.totals()
    return this.#changes + bytesIn + bytesOut
  }

  #save(): Promise<void> {
    this.#saving ??= this.#write().finally(() => {
      this.#saving = undefined
    })
    return this.#saving
  }

  async #write(): Promise<void> {
    this.#thisMonth()
    const mark = this.#mark()
    if (!this.#file || mark === this.#saved) return
    try {
      await this.#file.change(this.#state())
      this.#saved = mark
      this.#failing = false
    } catch (error) {
      const told = this.#failing
      this.#failing = true
      if (!told) this.#onProblem(ProxyError.from(error, 'PROXY_ERR_STATE'))
    }
  }

  #state(): SavedStatistics {
    const nodes = (table: Table<NodeRecord>): SavedNode[] =>
      [...table].map((node) => {
        const { id, first, last, mains, resumes, sums } = node
        return { id, first, last, mains, resumes, ...savedSums(sums, node.lives()), month: this.#savedMonth(node) }
      })
    return {
      total: savedSums(this.#total, this.#ages),
      enrolled: nodes(this.#enrolled),
      others: nodes(this.#others),
      mappings: [...this.#mappings].map((mapping) => {
        const { id, first, last, sums } = mapping
        return { id, first, last, ...savedSums(sums, mapping.lives()), month: this.#savedMonth(mapping) }
      }),
    }
  }

  #savedMonth(record: NodeRecord | MappingRecord): { of: string; bytes: number } {
    return { of: this.#month, bytes: Math.min(usedBy(record, this.#month), Number.MAX_SAFE_INTEGER) }
  }

  /** Of an older file nobody knows which bytes were of this month. */
  #monthlyOf({ month, bytesIn, bytesOut }: SavedMapping): Monthly {
    const total = bytesIn + bytesOut
    return month ? new Monthly(month.of, total - month.bytes) : new Monthly(this.#month, total)
  }

  #load({ total, enrolled, others, mappings }: SavedStatistics): void {
    Object.assign(this.#total, total)
    const nodes = (saved: readonly SavedNode[], table: Table<NodeRecord>): void => {
      for (const one of latest(saved, table.limit)) {
        const { id, first, last, mains, resumes, bytesIn, bytesOut, connections } = one
        const node = table.add(new NodeRecord(id, first, this.#month))
        Object.assign(node, { last, mains, resumes, monthly: this.#monthlyOf(one) })
        Object.assign(node.sums, { bytesIn, bytesOut, connections })
      }
    }
    nodes(enrolled, this.#enrolled)
    nodes(others, this.#others)
    for (const one of latest(mappings, this.#mappings.limit)) {
      const { id, first, last, bytesIn, bytesOut, connections } = one
      const mapping = this.#mappings.add(new MappingRecord(id, first, this.#month))
      Object.assign(mapping, { last, monthly: this.#monthlyOf(one) })
      Object.assign(mapping.sums, { bytesIn, bytesOut, connections })
    }
  }
}

function usedBy(record: NodeRecord | MappingRecord, month: string): number {
  const { bytesIn, bytesOut } = record.sums.with(record.lives())
  return record.monthly.used(month, bytesIn + bytesOut)
}

/** The file may be from a time when more were remembered. */
function latest<T extends { last: number }>(saved: readonly T[], limit: number): T[] {
  return [...saved].sort((a, b) => a.last - b.last).slice(-limit)
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString()
}

/** An id may be another one's by now. */
function liveOf({ lives }: Instance, sub: SubConnection): Live | undefined {
  const live = lives.get(sub.id)
  return live?.sub === sub ? live : undefined
}
