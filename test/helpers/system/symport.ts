import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { keptScrypt } from '../core/kept-scrypt.ts'
import { type Child, cleanEnvironment } from './child.ts'
import type { Stage } from './stage.ts'

/** The project's folder, seen from dist/test/helpers/system. */
export const ROOT: string = fileURLToPath(new URL('../../../../', import.meta.url))
/** The command under test. `SYMPORT_CLI` names another one, for instance that of an installed package. */
export const CLI: string = process.env.SYMPORT_CLI ?? `${ROOT}apps/cli/bin/symport.cjs`
const SECRET = 'a secret of the system tests 5d1f0c9e'

export interface Address {
  host: string
  port: number
}

export interface LogLine {
  msg: string
  [field: string]: unknown
}

/** Reads a line as one of pino's; anything else is no log line. */
export function parseLog(line: string): LogLine | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null && 'msg' in value && typeof value.msg === 'string') {
      return { ...value, msg: value.msg }
    }
  } catch {
    // Not JSON after all.
  }
  return undefined
}

/** Waits for a log line with this text that also satisfies `accept`. */
export function logged(child: Child, msg: string, from = 0, accept = (_: LogLine): boolean => true): Promise<LogLine> {
  const pick = (line: string): LogLine | undefined => {
    const log = parseLog(line)
    return log?.msg === msg && accept(log) ? log : undefined
  }
  return child.line(pick, `"${msg}"`, from)
}

/** "127.0.0.1:925", "[::1]:925" or either behind "tcp://". */
export function parseAddress(text: unknown): Address {
  const [, host, port] = /^(?:tcp:\/\/)?(.+):(\d+)$/.exec(String(text)) ?? []
  if (host === undefined || port === undefined) throw new Error(`not an address: ${String(text)}`)
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** An environment in which symport keeps everything below the stage's folder. */
export function symportEnvironment(stage: Stage, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  mkdirSync(stage.path('home'), { recursive: true })
  return cleanEnvironment({ HOME: stage.path('home'), XDG_STATE_HOME: stage.path('home'), ...keptScrypt(), ...more })
}

/** Starts `symport COMMAND ...` as a process of its own. */
export function startSymport(stage: Stage, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Child> {
  return stage.start(process.execPath, [CLI, ...args], { env: symportEnvironment(stage, env) })
}

export interface Running {
  child: Child
  address: Address
}

/** A server on a free port of 127.0.0.1, with a state folder of its own; it is ready when this returns. */
export async function startServer(stage: Stage, args: readonly string[] = []): Promise<Running> {
  const state = ['--state', stage.path('server-state')]
  const child = await startSymport(stage, ['server', '--host', '127.0.0.1', '--port', '0', ...state, ...args], {
    SYMPORT_UUID: SECRET,
  })
  return { child, address: parseAddress((await logged(child, 'listening')).address) }
}

/** A node of that server; it is connected when this returns. */
export async function startNode(stage: Stage, server: Address, args: readonly string[] = []): Promise<Child> {
  const { host, port } = server
  const state = ['--state', stage.path('node-state')]
  const child = await startSymport(stage, ['node', '--host', host, '--port', String(port), ...state, ...args], {
    SYMPORT_UUID: SECRET,
  })
  await logged(child, 'connected')
  return child
}

/** The `number`th (from 0) listener that is ready by the log of the side it was given to: the address really bound. */
export async function listenerAddress(child: Child, number = 0, from = 0): Promise<string> {
  let left = number
  const { listen } = await logged(child, 'listener ready', from, () => left-- === 0)
  return String(listen)
}

export interface Tunnel {
  server: Child
  node: Child
  /** Where the mapping's connections come in. */
  address: Address
}

/**
 * A server, a node and one mapping between them, given as a flag of the server: with `listener` the server listens and
 * the node forwards, with `peer_listener` the other way round. `forward` is an endpoint URL.
 */
export async function startTunnel(stage: Stage, flag: 'listener' | 'peer_listener', forward: string): Promise<Tunnel> {
  const server = await startServer(stage, [`--${flag}`, spec('tcp://127.0.0.1:0', forward)])
  const node = await startNode(stage, server.address)
  return { server: server.child, node, address: parseAddress(await listenerAddress(server.child)) }
}

/** A mapping in JSON, as the goproxy seed writes it. */
export function spec(listen: string, forward: string): string {
  return JSON.stringify({ Listen: endpoint(listen), Forward: endpoint(forward) })
}

function endpoint(url: string): { Domain: string; Addr: string } {
  const [domain = '', ...rest] = url.split('://')
  return { Domain: domain, Addr: rest.join('://') }
}
