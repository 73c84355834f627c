import minimist from 'minimist'
import { ProxyError } from '../../lib/core/errors.ts'
import { parsePort } from '../../lib/domains/address.ts'
import { nearest } from '../../lib/domains/nearest.ts'

/** One flag of a command: what parseFlags takes, and what formatHelp prints. */
export interface Flag {
  /** Without dashes in front. `peer_listener` and `peer-listener` are the same flag. */
  readonly name: string
  /** A short name, without its dash: `L`. */
  readonly alias?: string
  /** `string` may be given once, `list` again and again, `boolean` takes no value. */
  readonly kind: 'string' | 'boolean' | 'list'
  readonly help: string
  /** What stands for the value in the help: `HOST`. Empty: nothing, as most write it alone. */
  readonly value?: string
}

/** Flags whose names the compiler knows, for tables that several commands share. */
export type StringFlag<Name extends string> = Flag & { readonly name: Name; readonly kind: 'string' }
export type ListFlag<Name extends string> = Flag & { readonly name: Name; readonly kind: 'list' }

/** The values by flag name, as the table spells it: a flag not given is `undefined`, `[]` or `false`. */
export type FlagValues<Table extends readonly Flag[]> = {
  [F in Table[number] as F['name']]: F['kind'] extends 'boolean'
    ? boolean
    : F['kind'] extends 'list'
      ? string[]
      : string | undefined
}

export interface ParsedFlags<Table extends readonly Flag[]> {
  readonly values: FlagValues<Table>
  readonly positionals: string[]
}

/**
 * Reads a command line (without the program and the command): `--flag value`, `--flag=value`, and both with one dash.
 * Every value is a string, as it stands there. `--` ends the flags.
 *
 * @throws ProxyError PROXY_ERR_USAGE, which never shows a value: it may be a secret
 */
export function parseFlags<const Table extends readonly Flag[]>(
  argv: readonly string[],
  table: Table,
): ParsedFlags<Table> {
  const { flags, positionals } = normalise(argv, table)
  // Only names from the table reach minimist (no dots, no __proto__), each with its value in one word, so that it has
  // nothing to guess.
  const named = (boolean: boolean): string[] =>
    table.filter((flag) => (flag.kind === 'boolean') === boolean).map(({ name }) => name)
  const parsed = minimist([...flags, '--', ...positionals], { string: ['_', ...named(false)], boolean: named(true) })

  const values: Record<string, string | string[] | boolean | undefined> = {}
  for (const { name, kind } of table) {
    const value: unknown = parsed[name]
    if (kind === 'boolean') values[name] = value === true
    else if (kind === 'list') values[name] = value === undefined ? [] : [value].flat().map(String)
    else if (Array.isArray(value)) throw usage(`flag --${name} is given twice: keep one`)
    else values[name] = value === undefined ? undefined : String(value)
  }
  return { values: values as FlagValues<Table>, positionals: parsed._ }
}

/** The command line with each flag as one word, `--name=value` or `--name`, and the name as the table spells it. */
function normalise(argv: readonly string[], table: readonly Flag[]): { flags: string[]; positionals: string[] } {
  const known = new Map<string, Flag>()
  for (const flag of table) {
    known.set(plain(flag.name), flag)
    if (flag.alias !== undefined) known.set(flag.alias, flag)
  }
  const flags: string[] = []
  const positionals: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (word === '--') {
      positionals.push(...argv.slice(i + 1))
      break
    }
    const name = nameIn(word)
    if (name === undefined) {
      positionals.push(word)
      continue
    }
    const flag = known.get(name)
    if (flag === undefined) throw unknownFlag(word, name, table)
    const equals = word.indexOf('=')
    if (flag.kind === 'boolean') {
      if (equals >= 0) throw usage(`flag --${flag.name} takes no value: write --${flag.name} alone, or leave it out`)
      flags.push(`--${flag.name}`)
      continue
    }
    const value = equals >= 0 ? word.slice(equals + 1) : argv[++i]
    const isFlag = equals < 0 && value !== undefined && (value === '--' || known.has(nameIn(value) ?? ''))
    if (value === undefined || isFlag) {
      throw usage(`flag --${flag.name} needs a value: --${flag.name} ${flag.value ?? 'VALUE'}`)
    }
    flags.push(`--${flag.name}=${value}`)
  }
  return { flags, positionals }
}

/** The name in a word that begins with a dash, without its value. A dash alone is not a flag. */
function nameIn(word: string): string | undefined {
  if (!word.startsWith('-') || word === '-') return undefined
  return plain(word.replace(/^--?/, '').replace(/=.*$/s, ''))
}

function plain(name: string): string {
  return name.replaceAll('_', '-')
}

function unknownFlag(word: string, name: string, table: readonly Flag[]): ProxyError {
  const near = nearest(
    name,
    table.map((flag) => plain(flag.name)),
  )
  const spelled = table.find((flag) => plain(flag.name) === near)?.name
  const shown = (/^[^=]*/.exec(word)?.[0] ?? word).replace(/\p{C}/gu, ' ').slice(0, 40)
  return usage(`unknown flag ${shown}: ${spelled === undefined ? 'see --help' : `did you mean --${spelled}?`}`)
}

// Values are converted by the commands, which know which flag is what. `flag` is the name, for the message.

/** A port number; 0 only where it means "any free port". */
export function toPort(text: string, flag: string, options: { allowZero?: boolean } = {}): number {
  try {
    return parsePort(text, options)
  } catch (cause) {
    throw usage(`--${flag}: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
}

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
])
// The longest that a timer of Node waits: 24 days.
const LONGEST_MS = 2 ** 31 - 1

/** `30s`, `2m`, `500ms`, `1.5h`, in milliseconds. */
export function toDuration(text: string, flag: string): number {
  const [, amount, unit] = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)$/.exec(text) ?? []
  const factor = UNIT_MS.get(unit ?? '')
  if (amount === undefined || factor === undefined) {
    throw usage(`--${flag}: ${JSON.stringify(text.slice(0, 40))} is not a duration: write 30s, 2m or 500ms`)
  }
  const ms = Math.round(Number(amount) * factor)
  if (ms > LONGEST_MS) throw usage(`--${flag}: ${text.slice(0, 40)} is too long: 24 days are the most (576h)`)
  return ms
}

/** A value that cannot be empty, as from `--state "$UNSET"`; undefined stays undefined. */
export function notEmpty(text: string | undefined, flag: string): string | undefined {
  if (text === '') throw usage(`--${flag}: the value is empty: give one, or leave the flag out`)
  return text
}

function usage(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message, cause === undefined ? {} : { cause })
}
