import { join } from 'node:path'
import { ROOT } from '../bench/paths.ts'
import type { Processes, Running } from '../bench/processes.ts'
import { type FaultRelay, startFaultRelay } from '../helpers/faults/fault-relay.ts'
import { type LogLine, parseAddress, parseLog } from '../helpers/system/symport.ts'
import type { Ports } from './workers.ts'

const ENTRY = join(ROOT, 'apps', 'cli', 'bin', 'symport.cjs')

/** A server and a node, each a process of its own, and a relay between them. */
export interface Tunnel {
  readonly server: Running
  readonly node: Running
  readonly relay: FaultRelay
  readonly ports: Ports
}

/** The server listens, the node dials `targets`. */
export async function openTunnel(processes: Processes, targets: Ports): Promise<Tunnel> {
  const state = processes.folder()
  const start = (side: 'server' | 'node', port: number, more: readonly string[]): Running => {
    const where = ['--host', '127.0.0.1', '--port', String(port), '--state', state]
    return processes.start(process.execPath, [ENTRY, side, ...where, ...more], `symport ${side}`)
  }
  const mappings = Object.values(targets).flatMap((port) => ['--listener', `tcp://127.0.0.1:0,tcp://127.0.0.1:${port}`])
  const server = start('server', 0, mappings)
  const bound = new Map<number, number>()
  let at: number | undefined
  await server.waitFor('listening', (line) => {
    const log = parseLog(line)
    if (log?.msg === 'listener ready') bound.set(portIn(log, 'forward'), portIn(log, 'listen'))
    if (log?.msg === 'listening') at = portIn(log, 'address')
    return at !== undefined && bound.size === Object.keys(targets).length ? true : undefined
  })
  const relay = await startFaultRelay({ target: { host: '127.0.0.1', port: at ?? 0 } })
  const node = start('node', relay.port, [])
  await node.waitFor('connected', (line) => (parseLog(line)?.msg === 'connected' ? true : undefined))
  const ports = { echo: bound.get(targets.echo) ?? 0, digest: bound.get(targets.digest) ?? 0 }
  return { server, node, relay, ports }
}

function portIn(log: LogLine, field: string): number {
  return parseAddress(log[field]).port
}
