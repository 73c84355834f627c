import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import type { Child, ChildOptions } from '../system/child.ts'
import type { Stage } from '../system/stage.ts'
import {
  type Address,
  CLI,
  type LogLine,
  logged,
  parseAddress,
  parseLog,
  symportEnvironment,
} from '../system/symport.ts'

/** Strong enough that no warning about it stands in the logs. */
export const SECRET = 'e2e-9d3c1f7b60a8-chosen-by-hand'

export interface Result {
  status: number | null
  stdout: string
  /** Its lines, joined. */
  stderr: string
}

let runs = 0

/** Runs `symport ARGS` to its end; what is not ended after `timeoutMs` is killed and has the status null. */
export async function run(
  stage: Stage,
  args: readonly string[],
  options: Omit<ChildOptions, 'stdin' | 'stdout'> & { timeoutMs?: number } = {},
): Promise<Result> {
  const to = stage.path(`stdout-${++runs}`)
  const env = options.env ?? symportEnvironment(stage)
  const { status, output } = await stage.run(process.execPath, [CLI, ...args], {
    timeoutMs: 20_000,
    ...options,
    env,
    to,
  })
  return { status, stdout: readFileSync(to, 'utf8'), stderr: output }
}

/** Starts `symport ARGS`; it is ended with the test. */
export async function start(
  stage: Stage,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; user?: { uid: number; gid: number } } = {},
): Promise<Child> {
  const { env = {}, user } = options
  return await stage.start(process.execPath, [CLI, ...args], {
    env: symportEnvironment(stage, env),
    graceMs: 500,
    ...(user ? { user } : {}),
  })
}

export interface PeerOptions {
  /** Which state folder it has; different ones are different machines. */
  state?: string
  /** `undefined`: none is given. */
  secret?: string | undefined
  /** Default: any free one. */
  port?: number
}

function secretOf(options: PeerOptions): NodeJS.ProcessEnv {
  const secret = 'secret' in options ? options.secret : SECRET
  return secret === undefined ? {} : { SYMPORT_UUID: secret }
}

/** A server on 127.0.0.1 that listens when this returns. */
export async function startServer(
  stage: Stage,
  args: readonly string[] = [],
  options: PeerOptions = {},
): Promise<{ server: Child; at: Address }> {
  const where = [
    '--host',
    '127.0.0.1',
    '--port',
    String(options.port ?? 0),
    '--state',
    stateOf(stage, options, 'server'),
  ]
  const server = await start(stage, ['server', ...where, ...args], { env: secretOf(options) })
  return { server, at: parseAddress((await logged(server, 'listening')).address) }
}

/** A node of that server; whether it connects is for the caller to wait for. */
export async function startNode(
  stage: Stage,
  at: Address,
  args: readonly string[] = [],
  options: PeerOptions = {},
): Promise<Child> {
  const where = ['--host', at.host, '--port', String(at.port), '--state', stateOf(stage, options, 'node')]
  return await start(stage, ['node', ...where, ...args], { env: secretOf(options) })
}

/** As startNode, and it is connected when this returns. */
export async function connectNode(
  stage: Stage,
  at: Address,
  args: readonly string[] = [],
  options: PeerOptions = {},
): Promise<Child> {
  const node = await startNode(stage, at, args, options)
  await logged(node, 'connected')
  return node
}

function stateOf(stage: Stage, options: PeerOptions, name: string): string {
  return stage.path(options.state ?? name)
}

/** Where the listener is that was asked for with this address: what it bound, as an endpoint URL. */
export async function boundAt(child: Child, number = 0): Promise<string> {
  let left = number
  return String((await logged(child, 'listener ready', 0, () => left-- === 0)).listen)
}

/** The first log line, of those from `from` on and those to come, that `accept` takes. */
export function logLine(child: Child, what: string, accept: (log: LogLine) => boolean, from = 0): Promise<LogLine> {
  const pick = (line: string): LogLine | undefined => {
    const log = parseLog(line)
    return log && accept(log) ? log : undefined
  }
  return child.line(pick, what, from)
}

/** The log line with this code. */
export function coded(child: Child, code: string, from = 0): Promise<LogLine> {
  return logLine(child, code, (log) => log.code === code, from)
}

export function logs(child: Child): LogLine[] {
  return child.lines.map(parseLog).filter((log) => log !== undefined)
}

/** Everything that symport has kept for the person who runs it, in a folder nobody named: there should be nothing. */
export function keptAtHome(stage: Stage): string[] {
  mkdirSync(stage.path('home'), { recursive: true })
  return readdirSync(stage.path('home'))
}
