import { ProxyError } from '../../lib/core/index.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import { type Flag, type FlagValues, parseFlags } from './flags.ts'
import { formatHelp } from './help.ts'

interface Command<Table extends readonly Flag[]> {
  readonly usage: string
  readonly summary: string
  readonly flags: Table
  readonly examples: readonly string[]
  /** Answers the exit status. Throws a ProxyError for `symport: ...` on standard error. */
  run(values: FlagValues<Table>, positionals: readonly string[]): Promise<number>
}

const HELP: Flag = { name: 'help', alias: 'h', kind: 'boolean', help: 'Show this.' }

/** Errors that lie in the command line or a file, not in the world. */
const USAGE = new Set(
  ['USAGE', 'CONFIG', 'SPEC', 'ADDRESS', 'PATTERN', 'SECRET', 'ENDPOINT'].map((name) => `PROXY_ERR_${name}`),
)

/** A command that can be run with its part of the command line; answers the exit status. */
export type Runnable = (argv: readonly string[]) => Promise<number>

/** Ties the types of a command's flags to those of its `run`, and adds `--help`. */
export function command<const Table extends readonly Flag[]>({ flags, run, ...help }: Command<Table>): Runnable {
  return async (argv) => {
    if (wantsHelp(argv)) {
      process.stdout.write(formatHelp({ ...help, flags: [...flags, HELP] }))
      return 0
    }
    const { values, positionals } = parseFlags(argv, flags)
    return await run(values, positionals)
  }
}

/** Whoever asks for help gets it, however wrong the rest of the line is. */
function wantsHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf('--')
  return (end < 0 ? argv : argv.slice(0, end)).some((word) => ['--help', '-help', '-h'].includes(word))
}

/** For commands without positionals. */
export function noPositionals(positionals: readonly string[]): void {
  const [first] = positionals
  if (first !== undefined) {
    throw new ProxyError('PROXY_ERR_USAGE', `there is nothing to do with "${first}": see --help`)
  }
}

/** One line on standard error, and the exit status. */
export function reportError(error: unknown): number {
  if (!(error instanceof ProxyError)) {
    process.stderr.write(`symport: internal error: ${error instanceof Error ? error.stack : String(error)}\n`)
    return 1
  }
  process.stderr.write(`symport: ${error.message.replace(/\s*\n\s*/g, ' ')}\n`)
  return USAGE.has(error.code) ? 2 : 1
}

export function unknownCommand(word: string, known: readonly string[]): ProxyError {
  const close = nearest(word, known)
  const advice = close ? `did you mean "symport ${close}"?` : `known are ${known.join(', ')}`
  return new ProxyError('PROXY_ERR_USAGE', `unknown command "${word.slice(0, 40)}": ${advice}`)
}
