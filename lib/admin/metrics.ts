import type { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { WebFigures } from '../domains/web-figures.ts'
import type { MappingStatus, NodeStatus, Operations, Totals } from '../hub/operations.ts'
import type { Tally } from './tally.ts'

/** Labels of their own; the others are summed up as `other`. Nodes under the shared secret choose their ids. */
const MOST_NODES = 2000
const MOST_MAPPINGS = 5000
const MOST_CERTIFICATES = 5000
const OTHER = 'other'

const NODE_STATES = ['connected', 'resuming', 'draining'] as const
const MAPPING_STATES = ['ready', 'no node', 'unhealthy', 'disabled', 'failed'] as const

/** What one scrape needs, each looked up once. */
interface Sources {
  readonly operations: Operations
  readonly tally: Tally
}

interface Labelled {
  readonly name: string
  readonly totals: Totals
}

export interface Metrics {
  readonly contentType: string
  text(): Promise<string>
}

/** The figures for Prometheus. They are read from the operations at each scrape: nothing is counted twice. */
export async function createMetrics(sources: Sources): Promise<Metrics> {
  // What it exports is looked up here and not by name: loaded for several at once, some of its names were still missing.
  const { Counter, Gauge, Histogram, Registry } = (await import('prom-client')).default
  const registry: Registry = new Registry()
  const registers = [registry]

  const totals = <Label extends string>(
    prefix: string,
    of: string,
    labelNames: readonly Label[],
  ): { bytesIn: Counter<Label>; bytesOut: Counter<Label>; connections: Counter<Label>; live: Gauge<Label> } => {
    const common = { labelNames: [...labelNames], registers }
    return {
      bytesIn: new Counter({
        ...common,
        name: `${prefix}_bytes_in_total`,
        help: `Bytes from visitors to targets${of}.`,
      }),
      bytesOut: new Counter({
        ...common,
        name: `${prefix}_bytes_out_total`,
        help: `Bytes from targets to visitors${of}.`,
      }),
      connections: new Counter({ ...common, name: `${prefix}_connections_total`, help: `Connections opened${of}.` }),
      live: new Gauge({ ...common, name: `${prefix}_connections`, help: `Connections open now${of}.` }),
    }
  }
  const gauge = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []): Gauge<Label> =>
    new Gauge({ name: `symport_${name}`, help, labelNames, registers })
  const counter = <Label extends string = never>(
    name: string,
    help: string,
    labelNames: Label[] = [],
  ): Counter<Label> => new Counter({ name: `symport_${name}_total`, help, labelNames, registers })

  const all = totals('symport', '', [])
  const byNode = totals('symport_node', ', by node', ['node'])
  const byMapping = totals('symport_mapping', ', by mapping', ['mapping'])
  const nodes = gauge('nodes_connected', 'Nodes that are connected.')
  const enrolled = gauge('nodes_enrolled', 'Nodes with a credential of their own.')
  const mappings = gauge('mappings', 'Mappings, by state.', ['state'])
  const main = gauge('main_connections', 'Main connections, by state.', ['state'])
  const mainTotal = counter('main_connections', 'Main connections accepted since the start.')
  const resumes = counter('resumes', 'Links taken over within a main connection since the start.')
  const certificateEnds = gauge(
    'certificate_not_after_timestamp_seconds',
    'When a certificate ends, in Unix time; 0 if one should be there and is not.',
    ['name'],
  )
  const rejected = counter('rejected_handshakes', 'Handshakes that failed since the start, by code.', ['code'])
  const limited = counter('limited', 'Visitors refused by limits of mappings and of nodes since the start.', [
    'mapping',
    'node',
    'kind',
  ])
  const requests = counter('http_requests', 'Requests to names of the web port since the start, by answer.', [
    'host',
    'code',
  ])
  let figures: WebFigures | undefined
  registry.registerMetric(
    histogram(Histogram, {
      name: 'symport_http_request_duration_seconds',
      help: 'From the head of a request at the web port to that of its answer.',
      read: () => figures?.durations,
    }),
  )
  const held = gauge('held_bytes', 'Bytes held for peers.')
  const rss = gauge('process_resident_memory_bytes', 'Resident memory.')
  const cpu = counter('process_cpu_seconds', 'Processor time, user and system.')
  const started = gauge('process_start_time_seconds', 'When the process started, in Unix time.')
  const info = gauge('info', 'The version, as a label.', ['version'])

  const collect = (): void => {
    const { operations, tally } = sources
    const status = operations.status()
    const nodeList = operations.nodes()
    const mappingList = operations.mappings()
    registry.resetMetrics()
    put(all, {}, status.totals)
    for (const { name, totals } of bounded(nodeList.map(nodeEntry), MOST_NODES)) put(byNode, { node: name }, totals)
    for (const { name, totals } of bounded(mappingList.map(mappingEntry), MOST_MAPPINGS)) {
      put(byMapping, { mapping: name }, totals)
    }
    nodes.set(status.nodes.connected)
    enrolled.set(status.nodes.enrolled)
    const instances = nodeList.flatMap((node) => node.instances)
    for (const state of NODE_STATES) main.set({ state }, instances.filter((one) => one.state === state).length)
    for (const state of MAPPING_STATES) {
      mappings.set({ state }, mappingList.filter((mapping) => mapping.state === state).length)
    }
    for (const { name, ends } of status.certificates?.slice(0, MOST_CERTIFICATES) ?? []) {
      certificateEnds.set({ name }, ends === undefined ? 0 : Date.parse(ends) / 1000)
    }
    mainTotal.inc(tally.connected)
    resumes.inc(tally.resumed)
    for (const { id, kind, count } of refusals(mappingList, MOST_MAPPINGS)) limited.inc({ mapping: id, kind }, count)
    for (const { id, kind, count } of refusals(nodeList, MOST_NODES)) limited.inc({ node: id, kind }, count)
    figures = operations.webFigures?.()
    for (const { host, code, count } of figures?.requests ?? []) requests.inc({ host, code }, count)
    for (const [code, count] of tally.rejected) rejected.inc({ code }, count)
    held.set(status.memory.held)
    rss.set(status.memory.rss)
    const { user, system } = process.cpuUsage()
    cpu.inc((user + system) / 1e6)
    started.set(Math.round(Date.now() / 1000 - process.uptime()))
    info.set({ version: status.version }, 1)
  }
  return {
    contentType: registry.contentType,
    // Collecting and printing happen in one turn: scrapes at the same time do not mix.
    async text(): Promise<string> {
      collect()
      return await registry.metrics()
    },
  }
}

interface HistogramOptions {
  readonly name: string
  readonly help: string
  read(): WebFigures['durations'] | undefined
}

/** One line of a metric. */
interface Sample {
  readonly metricName: string
  readonly labels: { readonly le?: number | string }
  readonly value: number
}

/** A histogram that is read, as all figures here are, and not observed. Its registry asks each one by this method. */
function histogram(Base: typeof Histogram, { name, help, read }: HistogramOptions): Histogram {
  class Read extends Base {
    async getForPromString(): Promise<{ name: string; help: string; type: 'histogram'; values: readonly Sample[] }> {
      const durations = read()
      const values: Sample[] = []
      let below = 0
      for (const [i, count] of durations?.counts.entries() ?? []) {
        below += count
        values.push({ metricName: `${name}_bucket`, labels: { le: durations?.bounds[i] ?? '+Inf' }, value: below })
      }
      if (durations) {
        values.push({ metricName: `${name}_sum`, labels: {}, value: durations.sum })
        values.push({ metricName: `${name}_count`, labels: {}, value: below })
      }
      return { name, help, type: 'histogram', values }
    }
  }
  return new Read({ name, help, buckets: [], registers: [] })
}

interface TotalMetrics<Label extends string> {
  readonly bytesIn: Counter<Label>
  readonly bytesOut: Counter<Label>
  readonly connections: Counter<Label>
  readonly live: Gauge<Label>
}

function put<Label extends string>(
  metrics: TotalMetrics<Label>,
  labels: Partial<Record<Label, string>>,
  totals: Totals,
): void {
  metrics.bytesIn.inc(labels, totals.bytesIn)
  metrics.bytesOut.inc(labels, totals.bytesOut)
  metrics.connections.inc(labels, totals.connections)
  metrics.live.set(labels, totals.live)
}

/** Those beyond `most` are one. */
function* refusals(
  list: readonly Pick<MappingStatus | NodeStatus, 'id' | 'limited'>[],
  most: number,
): Generator<{ id: string; kind: string; count: number }, void, undefined> {
  let named = 0
  for (const { id, limited } of list) {
    if (!limited) continue
    named++
    for (const [kind, count] of Object.entries(limited)) yield { id: named > most ? OTHER : id, kind, count }
  }
}

/** Enrolled nodes keep their labels when strangers crowd in. */
function nodeEntry({ id, enrolled, totals }: NodeStatus): Labelled & { first: boolean } {
  return { name: id, totals, first: enrolled }
}

function mappingEntry({ id, source, totals }: MappingStatus): Labelled & { first: boolean } {
  return { name: id, totals, first: source !== 'runtime' }
}

function bounded(list: readonly (Labelled & { first: boolean })[], most: number): Labelled[] {
  if (list.length <= most) return [...list]
  const sorted = [...list.filter(({ first }) => first), ...list.filter(({ first }) => !first)]
  const rest = sorted.slice(most).map(({ totals }) => totals)
  const sum = (key: keyof Totals): number => rest.reduce((total, totals) => total + totals[key], 0)
  const totals = {
    bytesIn: sum('bytesIn'),
    bytesOut: sum('bytesOut'),
    connections: sum('connections'),
    live: sum('live'),
  }
  return [...sorted.slice(0, most), { name: OTHER, totals }]
}
