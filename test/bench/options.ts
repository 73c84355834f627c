import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { BenchOptions } from './bench.ts'
import type { Part } from './part.ts'
import { CONTESTANTS, type TunnelName } from './tunnels.ts'

const QUICK_ROUNDS = 3
const FULL_ROUNDS = 5

export const USAGE = `npm run bench                      every part, five rounds each; writes test/bench/results.json
npm run bench -- P2                one part; the others' figures in that file stay
npm run bench -- P1 P3 --rounds 9  several parts, more rounds
npm run bench -- --quick           a first look: shorter, three rounds, writes nothing
npm run bench -- --only tcp,ssh    without the others of tcp, wss, ssh, nginx and direct; writes nothing
npm run bench -- P1 --profile DIR  CPU profiles of both symport sides over tcp (or --only wss) in DIR; writes nothing else`

export interface Options extends BenchOptions {
  readonly help: boolean
  readonly parts: readonly Part[]
  /** The command line as somebody else would type it. */
  readonly command: string
}

/** A wrong command line: its message is for people, and the exit status is 2. */
export class UsageError extends Error {}

export function parseOptions(args: readonly string[], all: readonly Part[]): Options {
  const { values, positionals } = parse(args)
  const quick = values.quick ?? false
  const rounds = values.rounds === undefined ? (quick ? QUICK_ROUNDS : FULL_ROUNDS) : Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) throw new UsageError('--rounds takes 1 to 100')
  if (values.profile !== undefined && /^P\d+$/i.test(values.profile)) {
    throw new UsageError(`--profile takes a folder, not ${values.profile}`)
  }
  const wanted = positionals.map((id) => findPart(id, all))
  const only = values.only?.split(',').map(findContestant)
  return {
    help: values.help ?? false,
    quick,
    rounds,
    profile: values.profile === undefined ? undefined : resolve(values.profile),
    // A profile is of symport alone, not of its waiting for the others.
    only: only ?? (values.profile === undefined ? undefined : ['symport']),
    parts: wanted.length === 0 ? all : all.filter((part) => wanted.includes(part)),
    command: ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' '),
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        quick: { type: 'boolean' },
        rounds: { type: 'string' },
        only: { type: 'string' },
        profile: { type: 'string' },
      },
    })
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    // What follows the first sentence is advice for programs whose positionals may begin with a dash.
    throw new UsageError(`${message.split('. ')[0]}; --help shows what there is`)
  }
}

function findPart(id: string, all: readonly Part[]): Part {
  const part = all.find((candidate) => candidate.id === id.toUpperCase())
  if (part === undefined) throw new UsageError(`no part ${id}: there are ${all.map(({ id }) => id).join(', ')}`)
  return part
}

function findContestant(word: string): TunnelName {
  const name = CONTESTANTS.get(word.trim().toLowerCase())
  if (name === undefined) throw new UsageError(`--only takes ${[...CONTESTANTS.keys()].join(', ')}, not ${word}`)
  return name
}
