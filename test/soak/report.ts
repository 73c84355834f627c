import type { Sample } from './samples.ts'
import { type Bounds, median, type Shape, shape, windows } from './statistics.ts'

const MIB = 1024 * 1024
/** Samples before this many minutes are those of caches that fill. */
const WARM_UP = 1
/** Windows over which a median is taken, in minutes. */
const WINDOW = 1 / 6

/**
 * RSS breathes with the garbage collector: the young generation alone may take 32 MiB, and is given back late. What grows
 * by 20 bytes a connection, or by one record a cut, shows in the trend of ten minutes all the same. Handles are those of
 * connections under way at the moment: while a link is away all workers wait with one each, at either side.
 */
export const BOUNDS: Readonly<Record<'rss' | 'handles', Bounds>> = {
  rss: { rise: 8 * MIB, spread: 40 * MIB },
  handles: { rise: 3, spread: 16 },
}

export interface Minute {
  connections: number
  cuts: number
  errors: number
}

export type Samples = Readonly<Record<'server' | 'node', readonly Sample[]>>

/** A line for each minute. */
export function formatTable(minutes: readonly Minute[], samples: Samples): string {
  const head = ['minute', 'connections', 'cuts', 'server RSS', 'fds', 'node RSS', 'fds', 'errors']
  const rows = minutes.map(({ connections, cuts, errors }, minute) => {
    const sides = (['server', 'node'] as const).flatMap((side) => {
      const during = samples[side].filter(({ at }) => Math.floor(at) === minute)
      const rss = median(during.map(({ rss }) => rss))
      return [`${(rss / MIB).toFixed(1)} MiB`, String(median(during.map(({ handles }) => handles)))]
    })
    return [minute + 1, connections, cuts, ...sides, errors].map(String)
  })
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]): string =>
    cells.map((cell, column) => cell.padStart(widths[column] ?? 0)).join('  ')
  return [head, ...rows].map(line).join('\n')
}

export interface Verdict {
  readonly text: string
  readonly flat: boolean
}

/** What became of memory and handles after the first minute. */
export function judge(samples: Samples): Verdict[] {
  return (['server', 'node'] as const).flatMap((side) => {
    const settled = samples[side].filter(({ at }) => at >= WARM_UP)
    return (['rss', 'handles'] as const).map((what) => {
      const points = settled.map((sample) => ({ at: sample.at, value: sample[what] }))
      const found = shape(windows(points, WINDOW), BOUNDS[what])
      return { text: describe(side, what, found), flat: found.flat }
    })
  })
}

function describe(side: string, what: 'rss' | 'handles', { rise, spread, flat }: Shape): string {
  const figure = (value: number): string => (what === 'rss' ? `${(value / MIB).toFixed(1)} MiB` : value.toFixed(1))
  const bounds = BOUNDS[what]
  const name = what === 'rss' ? 'RSS' : 'open fds'
  return (
    `${side}, ${name}: ${flat ? 'flat' : 'NOT FLAT'}; trend ${figure(rise)} (at most ${figure(bounds.rise)}), ` +
    `spread ${figure(spread)} (at most ${figure(bounds.spread)})`
  )
}
