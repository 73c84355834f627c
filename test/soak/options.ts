import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'

export const USAGE = `npm run soak                        ten minutes of connections over a link that is cut every few seconds
npm run soak -- --minutes 60        longer; the first minute only warms up
npm run soak -- --seed 7            with the same cuts and contents`

export interface Options {
  readonly help: boolean
  readonly minutes: number
  readonly seed: number
}

/** A wrong command line: its message is for people, and the exit status is 2. */
export class UsageError extends Error {}

export function parseOptions(args: readonly string[]): Options {
  const values = parse(args)
  const minutes = Number(values.minutes ?? 10)
  const seed = Number(values.seed ?? randomInt(2 ** 31))
  // Less than one minute behind the first shows no trend.
  if (!Number.isInteger(minutes) || minutes < 2 || minutes > 10_000) throw new UsageError('--minutes takes 2 to 10000')
  if (!Number.isSafeInteger(seed) || seed < 0) throw new UsageError('--seed takes a whole number')
  return { help: values.help ?? false, minutes, seed }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: { help: { type: 'boolean', short: 'h' }, minutes: { type: 'string' }, seed: { type: 'string' } },
    }).values
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new UsageError(`${message.split('. ')[0]}; --help shows what there is`)
  }
}
