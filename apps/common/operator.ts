import { ProxyError } from '../../lib/core/index.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import type { MappingStatus } from '../../lib/hub/operations.ts'
import {
  type AdminClient,
  type BatchResult,
  createClient,
  localPlace,
  noServer,
  remotePlace,
  serverRuns,
} from './admin-client.ts'
import type { Runnable } from './command.ts'
import type { Flag, StringFlag } from './flags.ts'
import { formatHelp } from './help.ts'
import { stateFolder } from './identity.ts'
import type { OfflineOperations } from './offline.ts'
import { type Column, formatTable, printable, type TableOptions } from './table.ts'

type BooleanFlag<Name extends string> = Flag & { readonly name: Name; readonly kind: 'boolean' }

/** Which server is meant, and how its answers are shown. */
export const OPERATOR_FLAGS: readonly [
  StringFlag<'state'>,
  StringFlag<'admin'>,
  StringFlag<'token-file'>,
  BooleanFlag<'json'>,
] = [
  { name: 'state', kind: 'string', value: 'DIR', help: "The server's state folder." },
  {
    name: 'admin',
    kind: 'string',
    value: 'URL',
    help: 'A server elsewhere, started with --admin: http://host:port.',
  },
  {
    name: 'token-file',
    kind: 'string',
    value: 'FILE',
    help: "Its admin token. Default: the one in the state folder's admin-token.",
  },
  { name: 'json', kind: 'boolean', help: 'JSON, as the API answers it. Default where the output is no terminal.' },
]

export interface OperatorValues {
  readonly state: string | undefined
  readonly admin: string | undefined
  readonly 'token-file': string | undefined
  readonly json: boolean
}

/** The server that is meant. */
export async function openServer(values: OperatorValues): Promise<AdminClient> {
  const folder = stateFolder(values.state)
  if (values.admin === undefined) {
    if (values['token-file'] !== undefined) {
      throw new ProxyError('PROXY_ERR_USAGE', '--token-file goes with --admin: the local socket needs no token')
    }
    return createClient(await localPlace(folder))
  }
  return createClient(await remotePlace(values.admin, values['token-file'] ?? folder.file('admin-token')))
}

/** Does something at the server that is meant, or, where none runs, to the files of the state folder. */
export async function atServerOrFiles<T>(values: OperatorValues, act: (client: AdminClient) => Promise<T>): Promise<T> {
  const client = await openServer(values)
  const folder = stateFolder(values.state)
  if (values.admin !== undefined || (await serverRuns(await localPlace(folder)))) return await act(client)
  const { openOffline } = await import('./offline.ts')
  const files = await openOffline(folder)
  process.stderr.write(
    `symport: no server runs with ${folder.path}: this is about its files, for the next one that does\n`,
  )
  try {
    return await act(offlineClient(files, folder.path))
  } finally {
    await files[Symbol.asyncDispose]()
  }
}

function offlineClient(files: OfflineOperations, path: string): AdminClient {
  const running = async (): Promise<never> => {
    throw noServer(path)
  }
  return {
    status: running,
    connections: running,
    reload: running,
    kickNode: running,
    nodes: async () => files.nodes(),
    addNode: (request) => files.addNode(request),
    addNodes: (requests) =>
      Promise.all(
        requests.map(async (request): Promise<BatchResult> => {
          try {
            return await files.addNode(request)
          } catch (error) {
            const { code, message } = ProxyError.from(error, 'PROXY_ERR_INTERNAL')
            return { id: request.id, error: { code, message } }
          }
        }),
      ),
    removeNode: (id) => files.removeNode(id),
    async setNodeEnabled(id, enabled) {
      await files.setNodeEnabled(id, enabled)
      return named(files.nodes(), id)
    },
    rotateNode: (id, secret) => files.rotateNode(id, secret),
    async changeNode(id, change) {
      await files.changeNode(id, change)
      return named(files.nodes(), id)
    },
    mappings: async () => files.mappings().map(unserved),
    addMapping: async (request) => unserved(await files.addMapping(request)),
    removeMapping: (id) => files.removeMapping(id),
    changeMapping: async (id, change) => unserved(await files.changeMapping(id, change)),
    async setMappingEnabled(id, enabled) {
      await files.setMappingEnabled(id, enabled)
      return unserved(named(files.mappings(), id))
    },
  }
}

/** That nothing listens is no failure where nothing runs. */
function unserved(mapping: MappingStatus): MappingStatus {
  const { problem: _, ...rest } = mapping
  return mapping.state === 'failed' ? { ...rest, state: 'no node' } : mapping
}

function named<T extends { readonly id: string }>(list: readonly T[], id: string): T {
  const one = list.find((entry) => entry.id === id)
  if (one) return one
  throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no ${id}`)
}

/** What follows a command's name: `list` in `symport nodes list`. */
export interface SubCommand {
  /** `add ID [SECRET]`. */
  readonly usage: string
  readonly summary: string
  readonly flags: readonly Flag[]
  readonly run: Runnable
}

/** A command made of others, each with flags and `--help` of its own. Without a word it is the first one. */
export function dispatch(
  name: string,
  { summary, examples }: { readonly summary: string; readonly examples: readonly string[] },
  subCommands: Record<string, SubCommand>,
): Runnable {
  const words = Object.keys(subCommands)
  return async (argv) => {
    const at = firstPositional(
      argv,
      Object.values(subCommands).flatMap(({ flags }) => flags),
    )
    const word = at === undefined ? undefined : argv[at]
    const own = at === undefined ? argv : argv.toSpliced(at, 1)
    if (word === undefined && own.some((flag) => ['--help', '-help', '-h'].includes(flag))) {
      process.stdout.write(overview({ name, summary, examples }, subCommands))
      return 0
    }
    const chosen = word ?? words[0] ?? ''
    const subCommand = Object.hasOwn(subCommands, chosen) ? subCommands[chosen] : undefined
    if (subCommand) return await subCommand.run(own)
    const close = nearest(chosen, words)
    const advice = close === undefined ? `known are ${words.join(', ')}` : `did you mean "symport ${name} ${close}"?`
    throw new ProxyError('PROXY_ERR_USAGE', `unknown command "${name} ${chosen.slice(0, 40)}": ${advice}`)
  }
}

function overview(
  { name, summary, examples }: { name: string; summary: string; examples: readonly string[] },
  subCommands: Record<string, SubCommand>,
): string {
  const help = { usage: `symport ${name} COMMAND [flags]`, summary, flags: [], examples }
  const width = Math.max(...Object.values(subCommands).map(({ usage }) => usage.length))
  const list = Object.values(subCommands).map(({ usage, summary }) => `  ${usage.padEnd(width)}  ${summary}`)
  const [first] = Object.keys(subCommands)
  return `${formatHelp(help)}\nCommands (each has --help; without one: ${first}):\n${list.join('\n')}\n`
}

/** Where the first word stands that is neither a flag nor the value of one. */
function firstPositional(argv: readonly string[], flags: readonly Flag[]): number | undefined {
  const plain = (name: string): string => name.replaceAll('_', '-')
  const withValue = new Set(flags.filter(({ kind }) => kind !== 'boolean').map(({ name }) => plain(name)))
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (word === '--') return undefined
    if (!word.startsWith('-') || word === '-') return i
    if (!word.includes('=') && withValue.has(plain(word.replace(/^--?/, '')))) i++
  }
  return undefined
}

const TIME = /^[0-9]+(?:\.[0-9]+)?[a-z]*$/

/**
 * Gives a flag that may stand alone its value: `--watch` becomes `--watch=2s`, `--watch 5s` becomes `--watch=5s`. The next
 * word is its own if it looks so.
 */
export function withDefault(run: Runnable, name: string, value: string, isOwn: RegExp = TIME): Runnable {
  return (argv) => {
    const words: string[] = []
    for (let i = 0; i < argv.length; i++) {
      const word = argv[i] ?? ''
      if (word === '--') return run([...words, ...argv.slice(i)])
      const isFlag = word === `--${name}` || word === `-${name}`
      const next = argv[i + 1] ?? ''
      const hasValue = isFlag && isOwn.test(next)
      words.push(isFlag ? `--${name}=${hasValue ? next : value}` : word)
      if (hasValue) i++
    }
    return run(words)
  }
}

/** The only word that is left, or the only two. */
export function takeId(positionals: readonly string[], what: string, usage: string): string {
  const [id, more] = positionals
  if (id === undefined || id === '') throw new ProxyError('PROXY_ERR_USAGE', `which ${what}? write: ${usage}`)
  if (more !== undefined) {
    throw new ProxyError('PROXY_ERR_USAGE', `one ${what} at a time: there is nothing to do with "${more.slice(0, 40)}"`)
  }
  return id
}

/** Whether the answer is for a machine. */
export function wantsJson(values: { readonly json: boolean }): boolean {
  return values.json || !process.stdout.isTTY
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`)
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** About something that was done all the same. On standard error: what is printed may be for a machine. */
export function warn(line: string): void {
  process.stderr.write(`symport: warning: ${printable(line)}\n`)
}

/** What the terminal is like just now. */
export function terminal(): TableOptions {
  // A terminal without a size says 0.
  return {
    width: process.stdout.columns || 80,
    color: process.env.NO_COLOR === undefined && process.env.TERM !== 'dumb',
  }
}

export function printTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[], empty: string): void {
  if (rows.length === 0) print(empty)
  else for (const line of formatTable(rows, columns, terminal())) print(line)
}
