import type { Bench } from './bench.ts'
import { openSsh, sshMissing } from './tunnels/ssh.ts'
import { openSymport, symportMissing } from './tunnels/symport.ts'

export type TunnelName = 'symport' | 'symport wss' | 'ssh' | 'nginx' | 'direct'

/** What `--only` calls them. */
export const CONTESTANTS: ReadonlyMap<string, TunnelName> = new Map([
  ['tcp', 'symport'],
  ['wss', 'symport wss'],
  ['ssh', 'ssh'],
  ['nginx', 'nginx'],
  ['direct', 'direct'],
])

/** A way to the targets, ready for use. */
export interface Tunnel {
  readonly name: TunnelName
  /** Where to connect on 127.0.0.1 for each target, in the order the targets were given. */
  readonly ports: readonly number[]
  /** The process that accepts users, and the one that dials the targets. */
  readonly pids: { readonly server: number; readonly node: number } | undefined
  close(): Promise<void>
}

/** What lies between the two sides of a tunnel: gives the port that leads to `port` by that way. */
export type Path = (port: number) => Promise<number>

/** What keeps this tunnel from being measured here, or undefined. */
export function tunnelMissing(name: TunnelName): string | undefined {
  if (name === 'symport' || name === 'symport wss') return symportMissing()
  if (name === 'ssh') return sshMissing()
  return undefined
}

/**
 * Opens a tunnel to ports of 127.0.0.1. Data goes the same way through all of them: symport's server and sshd hold
 * the mapped ports, symport's node and ssh's client dial the targets. `path` is what the main connection takes, or a direct
 * connection itself; by default the shortest.
 */
export async function openTunnel(
  name: TunnelName,
  bench: Bench,
  targets: readonly number[],
  path: Path = async (port) => port,
): Promise<Tunnel> {
  if (name === 'symport') return openSymport(bench, targets, bench.processes.folder(), { path })
  if (name === 'symport wss') return openSymport(bench, targets, bench.processes.folder(), { path, wss: true })
  if (name === 'ssh') return openSsh(bench.processes, targets, path)
  if (name === 'nginx') throw new Error('nginx is no tunnel: it is a reverse proxy, for names')
  return { name, ports: await Promise.all(targets.map(path)), pids: undefined, close: async () => {} }
}
