import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Bench } from '../bench.ts'
import { ROOT } from '../paths.ts'
import type { Running } from '../processes.ts'
import type { Path, Tunnel } from '../tunnels.ts'

const ENTRY = join(ROOT, 'apps', 'cli', 'bin', 'symport.cjs')

export function symportMissing(): string | undefined {
  return existsSync(ENTRY) ? undefined : 'symport itself (apps/cli/bin/symport.cjs; npm run build makes what it needs)'
}

/** Starts one side as its own process, the way a user would, through the bin. */
export function startSide(bench: Bench, side: 'server' | 'node', args: readonly string[]): Running {
  const profile = bench.profileFlags(side)
  return bench.processes.start(process.execPath, [...profile, ENTRY, side, ...args], `symport ${side}`)
}

/** Flags of every server: the state folder holds the secret that it generates at its first start. */
export function serverFlags(state: string, port: number): readonly string[] {
  return ['--host', '127.0.0.1', '--port', String(port), '--state', state, '--drain-timeout', '1s']
}

/** Flags of every node: on the same machine it finds the secret in the server's state folder. */
export function nodeFlags(state: string, port: number): readonly string[] {
  return ['--host', '127.0.0.1', '--port', String(port), '--state', state, '--drain-timeout', '1s']
}

/** The same through TLS and WebSocket: `pin` is of the CA that the server made for itself. */
function wssFlags(state: string, port: number, pin: string): readonly string[] {
  const url = `wss://127.0.0.1:${port}/symport`
  return ['--server', url, '--pin', pin, '--proxy', 'none', '--state', state, '--drain-timeout', '1s']
}

export function listenerFlags(listen: number, target: number): readonly string[] {
  return ['--listener', `tcp://127.0.0.1:${listen},tcp://127.0.0.1:${target}`]
}

export async function openSymport(
  bench: Bench,
  targets: readonly number[],
  state: string,
  { path = async (port) => port, wss = false }: { path?: Path; wss?: boolean } = {},
): Promise<Tunnel> {
  const listeners = targets.flatMap((target) => listenerFlags(0, target))
  const server = startSide(bench, 'server', [...serverFlags(state, 0), ...listeners])
  const bound = new Map<number, number>()
  // A listener may be ready before or after the server itself is, so both kinds of line are looked at throughout.
  const note = (line: string): number | undefined => {
    const entry = parseLog(line)
    if (entry?.msg === 'listener ready') bound.set(portOf(entry.forward), portOf(entry.listen))
    return entry?.msg === 'listening' ? portOf(entry.address) : undefined
  }
  const port = await server.waitFor('listening', note)
  const entry = await path(port)
  let flags = nodeFlags(state, entry)
  if (wss) {
    const pin = await server.waitFor('on the other machine', (line) => {
      note(line)
      return /--pin (sha256:[0-9a-f]+)/i.exec(line)?.[1]
    })
    flags = wssFlags(state, entry, pin)
  }
  const node = startSide(bench, 'node', flags)
  await node.waitFor('connected', (line) => (parseLog(line)?.msg === 'connected' ? true : undefined))
  if (bound.size < targets.length) {
    await server.waitFor('listener ready', (line) => {
      note(line)
      return bound.size === targets.length ? true : undefined
    })
  }
  return {
    name: wss ? 'symport wss' : 'symport',
    ports: targets.map((target) => bound.get(target) ?? 0),
    pids: { server: server.pid, node: node.pid },
    close: async () => {
      await node.stop()
      await server.stop()
    },
  }
}

function parseLog(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? { ...value } : undefined
  } catch {
    return undefined
  }
}

function portOf(address: unknown): number {
  const port = /:(\d+)$/.exec(String(address))?.[1]
  if (port === undefined) throw new Error(`symport's log names an address without a port: ${String(address)}`)
  return Number(port)
}
