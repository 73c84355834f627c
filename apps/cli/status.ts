import { ProxyError } from '../../lib/core/index.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import type { ConnectionStatus, MappingStatus, NodeStatus, ServerStatus, Totals } from '../../lib/hub/operations.ts'
import type { AdminClient } from '../common/admin-client.ts'
import { command, noPositionals, type Runnable } from '../common/command.ts'
import { notEmpty, toDuration } from '../common/flags.ts'
import { OPERATOR_FLAGS, openServer, print, printJson, terminal, wantsJson, withDefault } from '../common/operator.ts'
import {
  certificateColumns,
  connectionColumns,
  limitsText,
  mappingColumns,
  nodeColumns,
  problemLines,
  type Rates,
  rateKey,
  serverColumns,
} from '../common/operator-tables.ts'
import { counted, formatBytes, formatSince, formatTable, printable, type TableOptions } from '../common/table.ts'
import { watch } from '../common/watch.ts'

const EVERY = '2s'
/** Asking more often costs more than it shows, in ms. */
const SHORTEST = 200

const FLAGS = [
  { name: 'node', kind: 'string', value: 'ID', help: 'Only this node, and the mappings that it may serve.' },
  { name: 'mapping', kind: 'string', value: 'ID', help: 'Only this mapping, and the nodes that may serve it.' },
  { name: 'connections', kind: 'boolean', help: 'The open connections too, the newest first.' },
  { name: 'watch', kind: 'string', value: '[TIME]', help: `Again and again, with rates. Alone: every ${EVERY}.` },
  ...OPERATOR_FLAGS,
] as const

interface Filter {
  readonly node: string | undefined
  readonly mapping: string | undefined
  readonly connections: boolean
}

/** What the command prints as JSON, each part as the API has it. */
interface Status {
  readonly server: ServerStatus
  readonly nodes: readonly NodeStatus[]
  readonly mappings: readonly MappingStatus[]
  readonly connections?: readonly ConnectionStatus[]
}

const once: Runnable = command({
  usage: 'symport status [flags]',
  summary: 'Shows what a server does: its nodes, its mappings, and what goes through them.',
  flags: FLAGS,
  examples: ['symport status', 'symport status --watch', 'symport status --node office --connections --json'],
  async run(values, positionals) {
    noPositionals(positionals)
    const every = values.watch === undefined ? undefined : toDuration(values.watch, 'watch')
    if (every !== undefined && every < SHORTEST) {
      throw new ProxyError('PROXY_ERR_USAGE', `--watch: at least ${SHORTEST}ms`)
    }
    const filter = {
      node: notEmpty(values.node, 'node'),
      mapping: notEmpty(values.mapping, 'mapping'),
      connections: values.connections,
    }
    const client = await openServer(values)
    const json = wantsJson(values)
    if (every === undefined) {
      const now = await look(client, filter)
      if (json) printJson(now)
      else for (const line of render(now, undefined, terminal())) print(line)
      return 0
    }
    let before: Sample | undefined
    return await watch({
      every,
      json,
      async frame() {
        const now = { status: await look(client, filter), at: performance.now() }
        const shown = { ...now, before }
        before = now
        if (json) return [JSON.stringify(shown.status)]
        return (options) => render(shown.status, ratesOf(shown.before, now), options)
      },
    })
  },
})

const status: Runnable = withDefault(once, 'watch', EVERY)

export default status

interface Sample {
  readonly status: Status
  readonly at: number
}

async function look(client: AdminClient, filter: Filter): Promise<Status> {
  const { node, mapping } = filter
  const [server, allNodes, allMappings, connections] = await Promise.all([
    client.status(),
    client.nodes(),
    client.mappings(),
    filter.connections ? client.connections({ node, mapping }) : undefined,
  ])
  const oneNode = node === undefined ? undefined : named(allNodes, node, 'node')
  const oneMapping = mapping === undefined ? undefined : named(allMappings, mapping, 'mapping')
  const serves = (id: string, { nodes }: MappingStatus): boolean => nodes.length === 0 || nodes.includes(id)
  return {
    server,
    nodes: oneNode ? [oneNode] : oneMapping ? allNodes.filter(({ id }) => serves(id, oneMapping)) : allNodes,
    mappings: oneMapping ? [oneMapping] : oneNode ? allMappings.filter((one) => serves(oneNode.id, one)) : allMappings,
    ...(connections ? { connections } : {}),
  }
}

function named<T extends { readonly id: string }>(list: readonly T[], id: string, what: string): T {
  const one = list.find((entry) => entry.id === id)
  if (one) return one
  const close = nearest(
    id,
    list.map((entry) => entry.id),
  )
  const advice = close === undefined ? '' : `: did you mean ${close}?`
  throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no ${what} ${id.slice(0, 64)}${advice}`)
}

function render(status: Status, rates: ReadonlyMap<string, Rates> | undefined, options: TableOptions): string[] {
  const { server, nodes, mappings, connections } = status
  const context = { now: Date.now(), rates }
  const { totals, memory } = server
  const total = rates?.get(ALL)
  const speed = (way: keyof Rates): string => (total ? ` (${formatBytes(total[way])}/s)` : '')
  const isNode = server.role === 'node'
  const { enrolled, connected } = server.nodes
  const peers = isNode
    ? `${connected === 0 ? 'not ' : ''}connected`
    : `${counted(connected, 'node')} connected (${enrolled} enrolled)`
  const columns = isNode ? serverColumns(context) : nodeColumns(context)
  const lines = [
    `symport ${server.version} ${isNode ? 'node of' : 'at'} ${server.address}, up ${formatSince(server.started, context.now)}`,
    `${peers}, ${server.mappings.ready} of ${counted(server.mappings.count, 'mapping')} ready`,
    `in ${formatBytes(totals.bytesIn)}${speed('in')}, out ${formatBytes(totals.bytesOut)}${speed('out')}, ${counted(totals.live, 'connection')} open (${totals.connections} in all), ${formatBytes(memory.rss)} of memory`,
    ...(server.nodeLimits ? [`each node without limits of its own: ${limitsText(server.nodeLimits)}`] : []),
  ].map(printable)
  if (nodes.length > 0) lines.push('', ...formatTable(nodes, columns, options))
  if (mappings.length > 0) lines.push('', ...formatTable(mappings, mappingColumns(context), options))
  const { certificates = [] } = server
  const problems = problemLines(mappings, certificates)
  if (problems.length > 0) lines.push('', ...problems)
  if (certificates.length > 0) lines.push('', ...formatTable(certificates, certificateColumns(context), options))
  if (connections?.length === 0) lines.push('', 'no connections are open')
  else if (connections) lines.push('', ...formatTable(connections, connectionColumns(context), options))
  return lines
}

const ALL = 'all'

/** Bytes a second between two looks; undefined after the first. */
function ratesOf(before: Sample | undefined, now: Sample): ReadonlyMap<string, Rates> | undefined {
  if (!before) return undefined
  const seconds = Math.max(0.001, (now.at - before.at) / 1000)
  const earlier = totalsOf(before.status)
  const rates = [...totalsOf(now.status)].map(([key, totals]): [string, Rates] => {
    const was = earlier.get(key) ?? totals
    // The counters of a server that was started again may be behind.
    const rate = (way: 'bytesIn' | 'bytesOut'): number => Math.max(0, totals[way] - was[way]) / seconds
    return [key, { in: rate('bytesIn'), out: rate('bytesOut') }]
  })
  return new Map(rates)
}

function totalsOf({ server, nodes, mappings }: Status): Map<string, Totals> {
  return new Map([
    [ALL, server.totals],
    ...nodes.map(({ id, totals }): [string, Totals] => [rateKey('node', id), totals]),
    ...mappings.map(({ id, totals }): [string, Totals] => [rateKey('mapping', id), totals]),
  ])
}
