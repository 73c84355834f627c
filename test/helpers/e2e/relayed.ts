import { type FaultRelay, startFaultRelay } from '../faults/fault-relay.ts'
import type { Child } from '../system/child.ts'
import type { Stage } from '../system/stage.ts'
import { type Address, type LogLine, logged, parseLog } from '../system/symport.ts'
import { boundAt, connectNode, startServer } from './cli.ts'

export interface RelayedOptions {
  /** For both commands, for the server's, and for the node's. */
  both?: readonly string[]
  server?: readonly string[]
  node?: readonly string[]
}

/** A server, and a node that reaches it through a relay. */
export interface Relayed {
  readonly server: Child
  readonly node: Child
  readonly relay: FaultRelay
  /** Where the server is, and where the node takes it to be. */
  readonly at: Address
  readonly via: Address
}

export async function startRelayed(stage: Stage, options: RelayedOptions = {}): Promise<Relayed> {
  const { both = [] } = options
  const { server, at } = await startServer(stage, [...both, ...(options.server ?? [])])
  const relay = await startFaultRelay({ target: at })
  stage.defer(() => relay.close())
  const via = { host: '127.0.0.1', port: relay.port }
  const node = await connectNode(stage, via, [...both, ...(options.node ?? [])])
  return { server, node, relay, at, via }
}

/** The same with a mapping of the server's to `target`, an endpoint URL; `listen` is another. */
export async function startMapped(
  stage: Stage,
  target: string,
  options: RelayedOptions = {},
): Promise<Relayed & { readonly listen: string }> {
  const mapping = ['--listener', `tcp://127.0.0.1:0,${target}`]
  const relayed = await startRelayed(stage, { ...options, server: [...mapping, ...(options.server ?? [])] })
  return { ...relayed, listen: await boundAt(relayed.server) }
}

/** The log line of a side that has lost its link, and may go on. */
export function linkLost(child: Child, from = 0, timeoutMs?: number): Promise<LogLine> {
  const pick = (line: string): LogLine | undefined => {
    const log = parseLog(line)
    return log && /^lost the link to the (server|node), open connections wait: /.test(log.msg) ? log : undefined
  }
  return child.line(pick, 'a lost link', from, timeoutMs)
}

/** The log line of a side that goes on. */
export function goesOn(child: Child, from = 0): Promise<LogLine> {
  return logged(child, 'goes on with a new link: nothing is lost', from)
}

/** What both sides have logged up to now, to wait for what comes after it. */
export function mark({ server, node }: Relayed): { server: number; node: number } {
  return { server: server.lines.length, node: node.lines.length }
}

export function timeOf(log: LogLine): number {
  return Date.parse(String(log.time))
}
