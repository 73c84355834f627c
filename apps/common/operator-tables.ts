import type {
  CertificateStatus,
  ConnectionStatus,
  MappingStatus,
  NodeStatus,
  Totals,
} from '../../lib/hub/operations.ts'
import { type Endpoint, formatEndpoint } from '../../lib/index.ts'
import type { FlowLimits, TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import { formatSize } from './sizes.ts'
import { type Color, type Column, counted, formatBytes, formatSince, printable } from './table.ts'

/** Bytes a second since the last look. */
export interface Rates {
  readonly in: number
  readonly out: number
}

export interface TableContext {
  readonly now: number
  /** By what a row is called; only where one watches. */
  readonly rates?: ReadonlyMap<string, Rates> | undefined
}

/** The key of a row's rates. */
export function rateKey(kind: 'node' | 'mapping', id: string): string {
  return `${kind} ${id}`
}

function nodeState(node: NodeStatus): string {
  if (!node.enabled) return 'disabled'
  if (!node.connected) return 'away'
  return node.instances.some(({ state }) => state === 'connected')
    ? 'connected'
    : (node.instances[0]?.state ?? 'connected')
}

const NODE_COLORS: Record<string, Color> = {
  connected: 'green',
  resuming: 'yellow',
  draining: 'yellow',
  away: 'dim',
  disabled: 'dim',
}

export function nodeColumns(context: TableContext): Column<NodeStatus>[] {
  const { now } = context
  return [
    { title: 'NODE', value: ({ id }) => id },
    { title: 'STATE', value: nodeState, color: (node) => NODE_COLORS[nodeState(node)] },
    { title: 'FROM', value: ({ instances }) => some(instances.map(({ remote }) => remote ?? '')), rank: 3 },
    { title: 'VIA', value: ({ instances }) => instances[0]?.transport ?? '', rank: 7 },
    { title: 'RTT', value: ({ instances }) => milliseconds(instances[0]?.rtt), align: 'right', rank: 5 },
    ...totalColumns<NodeStatus>(context, 'node'),
    { title: 'SINCE', value: (node) => formatSince(sinceOf(node), now), align: 'right', rank: 4 },
    { title: 'LIMITS', value: ({ limits }) => limitsText(limits), shrinkTo: 12, rank: 6 },
    { title: 'EXPIRES', value: ({ expires }) => expires?.slice(0, 10) ?? '', rank: 7 },
    { title: 'SHARED', value: ({ enrolled }) => (enrolled ? '' : 'yes'), rank: 8 },
  ]
}

/** What a node tells about its server. */
export function serverColumns(context: TableContext): Column<NodeStatus>[] {
  return nodeColumns(context)
    .filter(({ title }) => title !== 'SHARED')
    .map((column) => (column.title === 'NODE' ? { ...column, title: 'SERVER' } : column))
}

const MAPPING_COLORS: Record<MappingStatus['state'], Color> = {
  ready: 'green',
  'no node': 'yellow',
  unhealthy: 'yellow',
  disabled: 'dim',
  failed: 'red',
}

export function mappingColumns(context: TableContext): Column<MappingStatus>[] {
  return [
    { title: 'MAPPING', value: ({ id }) => id },
    { title: 'STATE', value: ({ state }) => state, color: ({ state }) => MAPPING_COLORS[state] },
    { title: 'LISTEN', value: ({ bound, listen }) => short(bound ?? listen), rank: 1 },
    { title: 'TARGET', value: ({ forward }) => short(forward), rank: 2 },
    { title: 'NODES', value: ({ nodes }) => some(nodes) || 'any', rank: 3 },
    ...totalColumns<MappingStatus>(context, 'mapping'),
    { title: 'LIMITS', value: ({ limits }) => limitsText(limits), shrinkTo: 12, rank: 6 },
    { title: 'HTTP', value: ({ http }) => httpText(http), shrinkTo: 12, rank: 7 },
    { title: 'FROM', value: ({ source }) => (source === 'runtime' ? '' : source), rank: 8 },
    { title: 'NOTE', value: ({ note }) => note, shrinkTo: 12, rank: 4 },
  ]
}

/** `in 1MB/s, out 500kB/s, 100 open, 10/s, 50GB a month`. */
export function limitsText(limits: TrafficLimits | undefined): string {
  if (!limits) return ''
  const { quota, visitor, allow, deny, ...flow } = limits
  const parts = [
    ...flowTexts(flow),
    quota === undefined ? '' : `${formatSize(quota)} a month`,
    visitor === undefined || Object.keys(visitor).length === 0 ? '' : `a visitor ${flowTexts(visitor).join(' and ')}`,
    allow === undefined ? '' : `from ${netsText(allow)}`,
    deny === undefined ? '' : `not from ${netsText(deny)}`,
  ]
  return parts.filter((part) => part !== '').join(', ')
}

function flowTexts({ in: inward, out, connections, rate }: FlowLimits): string[] {
  return [
    ...(inward === undefined ? [] : [`in ${formatSize(inward)}/s`]),
    ...(out === undefined ? [] : [`out ${formatSize(out)}/s`]),
    ...(connections === undefined ? [] : [`${connections} open`]),
    ...(rate === undefined ? [] : [`${rate} new/s`]),
  ]
}

function netsText(nets: readonly string[]): string {
  return nets.length === 0 ? 'nowhere' : some(nets)
}

/** What is done to requests, in a word each. */
export function httpText(http: MappingStatus['http']): string {
  if (!http) return ''
  const { basicAuth, requestHeaders, responseHeaders, hostHeader, maintenance, inspect } = http
  const words = [
    maintenance === undefined || maintenance === false ? '' : 'maintenance',
    basicAuth && basicAuth.length > 0 ? counted(basicAuth.length, 'user') : '',
    hostHeader === undefined ? '' : `host ${hostHeader}`,
    requestHeaders || responseHeaders ? 'headers' : '',
    inspect ? 'inspected' : '',
  ]
  return words.filter((word) => word !== '').join(', ')
}

/** Why mappings do not work: too long for a table, and too important to be cut. */
export function problemLines(
  mappings: readonly MappingStatus[],
  certificates: readonly CertificateStatus[] = [],
): string[] {
  const all = [
    ...mappings.map(({ id, problem }) => ({ what: `mapping ${id}`, problem })),
    ...certificates.map(({ name, problem }) => ({ what: `certificate ${name}`, problem })),
  ]
  return all.flatMap(({ what, problem }) => (problem === undefined ? [] : [printable(`${what}: ${problem}`)]))
}

export function connectionColumns({ now }: TableContext): Column<ConnectionStatus>[] {
  return [
    { title: 'FROM', value: ({ from }) => from ?? '' },
    { title: 'TO', value: ({ to }) => (to ? short(to) : ''), rank: 3 },
    { title: 'NODE', value: ({ node }) => node },
    { title: 'MAPPING', value: ({ mapping }) => mapping ?? '', rank: 4 },
    { title: 'IN', value: ({ bytesIn }) => formatBytes(bytesIn), align: 'right', rank: 1 },
    { title: 'OUT', value: ({ bytesOut }) => formatBytes(bytesOut), align: 'right', rank: 1 },
    { title: 'AGE', value: ({ created }) => formatSince(created, now), align: 'right', rank: 2 },
  ]
}

function totalColumns<Row extends { readonly id: string; readonly totals: Totals }>(
  { rates }: TableContext,
  kind: 'node' | 'mapping',
): Column<Row>[] {
  const rate = (row: Row, way: keyof Rates): string => {
    const value = rates?.get(rateKey(kind, row.id))?.[way] ?? 0
    return value === 0 ? '' : `${formatBytes(value)}/s`
  }
  return [
    { title: 'IN', value: ({ totals }) => formatBytes(totals.bytesIn), align: 'right', rank: 1 },
    { title: 'IN/S', value: (row) => rate(row, 'in'), align: 'right', rank: 5 },
    { title: 'OUT', value: ({ totals }) => formatBytes(totals.bytesOut), align: 'right', rank: 1 },
    { title: 'OUT/S', value: (row) => rate(row, 'out'), align: 'right', rank: 5 },
    { title: 'OPEN', value: ({ totals }) => String(totals.live), align: 'right', rank: 5 },
    { title: 'TOTAL', value: ({ totals }) => String(totals.connections), align: 'right', rank: 9 },
  ]
}

export function certificateColumns({ now }: TableContext): Column<CertificateStatus>[] {
  // Whoever cannot renew one has a third of its life to find out.
  const soon = ({ begins, ends }: CertificateStatus): boolean => {
    if (ends === undefined) return true
    const [from, to] = [Date.parse(begins ?? ends), Date.parse(ends)]
    return to - now < Math.min(7 * 86_400_000, (to - from) / 4)
  }
  return [
    { title: 'CERTIFICATE', value: ({ name }) => name },
    {
      title: 'ENDS',
      value: ({ ends }) => (ends === undefined ? 'none' : `${ends.slice(0, 16).replace('T', ' ')} UTC`),
      color: (one) => (soon(one) ? 'yellow' : undefined),
    },
  ]
}

/** tcp goes without saying. */
export function short(at: Endpoint): string {
  return at.Domain === 'tcp' ? at.Addr : formatEndpoint(at)
}

/** The first of them, and how many more there are. */
function some(names: readonly string[]): string {
  const [first = '', ...more] = names
  return more.length === 0 ? first : `${first} +${more.length}`
}

function sinceOf({ connected, instances, lastConnected }: NodeStatus): string | undefined {
  return connected ? (instances[0]?.connectedAt ?? lastConnected) : lastConnected
}

function milliseconds(rtt: number | undefined): string {
  if (rtt === undefined) return ''
  return `${rtt < 10 ? rtt.toFixed(1) : Math.round(rtt)} ms`
}
