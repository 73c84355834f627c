import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'

export const USAGE = `npm run fuzz                             a million mutated frames and ten thousand mutated handshakes
npm run fuzz -- --seed 7                 with that seed; without one it is chosen, and printed
npm run fuzz -- --frames N --handshakes N
npm run fuzz -- --seed 7 --only 12345    that one session (below 0: handshake) again, as a failure names it`

export interface Options {
  readonly help: boolean
  readonly seed: number
  readonly frames: number
  readonly handshakes: number
  readonly only: number | undefined
}

/** A wrong command line: its message is for people, and the exit status is 2. */
export class UsageError extends Error {}

export function parseOptions(args: readonly string[]): Options {
  const values = parse(args)
  return {
    help: values.help ?? false,
    seed: whole('seed', values.seed, randomInt(2 ** 31)),
    frames: whole('frames', values.frames, 1_000_000),
    handshakes: whole('handshakes', values.handshakes, 10_000),
    only: values.only === undefined ? undefined : whole('only', values.only, 0, -(2 ** 31)),
  }
}

function parse(args: readonly string[]) {
  try {
    const type = 'string'
    return parseArgs({
      // A number below 0 is the value of the flag in front of it.
      args: args
        .join(' ')
        .replaceAll(/ (-\d)/g, '=$1')
        .split(' ')
        .filter(Boolean),
      options: {
        help: { type: 'boolean', short: 'h' },
        seed: { type },
        frames: { type },
        handshakes: { type },
        only: { type },
      },
    }).values
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new UsageError(`${message.split('. ')[0]}; --help shows what there is`)
  }
}

function whole(name: string, text: string | undefined, otherwise: number, least = 0): number {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < least) {
    throw new UsageError(`--${name} takes a whole number`)
  }
  return value
}
