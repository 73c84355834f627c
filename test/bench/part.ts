import type { Bench } from './bench.ts'
import type { Program } from './programs.ts'
import { median, medianRatio } from './statistics.ts'
import type { TunnelName } from './tunnels.ts'

/** One part of the bench: a file in parts/, and a line in parts/index.ts. */
export interface Part {
  readonly id: string
  readonly title: string
  /** Programs without which there is nothing to measure. (ssh is not one of these: it is only what is compared with.) */
  readonly needs: readonly Program[]
  /** What this machine lacks otherwise, in words, or undefined. */
  lacks?(): string | undefined
  run(bench: Bench): Promise<Findings>
}

/** What a part found: every round's raw values, and the rows for the table. */
export interface Findings {
  readonly series: Series
  readonly rows: readonly Row[]
}

export interface Row {
  readonly what: string
  readonly unit: string
  /** Medians over the rounds. Undefined: not measured here. */
  readonly symport: number | undefined
  readonly reference: number | undefined
  readonly against: TunnelName | 'symport tcp' | undefined
  /** Median of the rounds' ratios. */
  readonly ratio: number | undefined
  readonly goal: string
  /** Undefined: cannot be said, because a half is missing. */
  readonly met: boolean | undefined
}

export interface Goal {
  readonly text: string
  test(value: number): boolean
}

export function atLeast(limit: number, unit: string): Goal {
  return { text: `>= ${limit} ${unit}`, test: (value) => value >= limit }
}

export function atMost(limit: number, unit: string): Goal {
  return { text: `<= ${limit} ${unit}`, test: (value) => value <= limit }
}

export function under(limit: number, unit: string): Goal {
  return { text: `< ${limit} ${unit}`, test: (value) => value < limit }
}

const NO_GOAL: Goal = { text: '', test: () => true }

/** Raw values: metric, then tunnel, then one value a round. */
export class Series {
  readonly #metrics = new Map<string, Map<TunnelName, number[]>>()

  add(metric: string, tunnel: TunnelName, value: number): void {
    const tunnels = this.#metrics.get(metric) ?? new Map<TunnelName, number[]>()
    this.#metrics.set(metric, tunnels)
    const values = tunnels.get(tunnel) ?? []
    tunnels.set(tunnel, values)
    values.push(value)
  }

  values(metric: string, tunnel: TunnelName): readonly number[] {
    return this.#metrics.get(metric)?.get(tunnel) ?? []
  }

  toJSON(): Record<string, Record<string, number[]>> {
    const out: Record<string, Record<string, number[]>> = {}
    for (const [metric, tunnels] of this.#metrics) {
      out[metric] = Object.fromEntries([...tunnels].map(([name, values]) => [name, values.map(shorten)]))
    }
    return out
  }

  /** A row whose goal is about symport's share of another tunnel's figure. */
  ratioRow(metric: string, o: { what: string; unit: string; against: TunnelName; goal: Goal }): Row {
    const ours = this.values(metric, 'symport')
    const theirs = this.values(metric, o.against)
    const ratio = orUndefined(medianRatio(ours, theirs))
    return {
      what: o.what,
      unit: o.unit,
      symport: orUndefined(median(ours)),
      reference: orUndefined(median(theirs)),
      against: o.against,
      ratio,
      goal: o.goal.text,
      met: ratio === undefined ? undefined : o.goal.test(ratio),
    }
  }

  /** A row whose goal is about symport's own figure; ssh's (or another's) stands beside it where it was measured. */
  valueRow(metric: string, o: { what: string; unit: string; beside?: TunnelName; goal: Goal }): Row {
    const beside = o.beside ?? 'ssh'
    const ours = this.values(metric, 'symport')
    const theirs = this.values(metric, beside)
    const value = orUndefined(median(ours))
    return {
      what: o.what,
      unit: o.unit,
      symport: value,
      reference: orUndefined(median(theirs)),
      against: theirs.length > 0 ? beside : undefined,
      ratio: orUndefined(medianRatio(ours, theirs)),
      goal: o.goal.text,
      met: value === undefined ? undefined : o.goal.test(value),
    }
  }

  /** A row without a goal, for the record. */
  plainRow(metric: string, o: { what: string; unit: string; beside?: TunnelName }): Row {
    return { ...this.valueRow(metric, { ...o, goal: NO_GOAL }), met: undefined }
  }

  /**
   * Rows of symport over wss beside the same over tcp: reported, without a goal. `over` makes a figure one against
   * another of the same tunnel. None where wss was not measured.
   */
  wssRows(rows: readonly { metric: string; over?: string; what: string; unit: string }[]): readonly Row[] {
    return rows.flatMap(({ metric, over, what, unit }) => {
      const values = (tunnel: TunnelName): readonly number[] => {
        const figures = this.values(metric, tunnel)
        if (over === undefined) return figures
        return figures.map((value, round) => value / (this.values(over, tunnel)[round] ?? Number.NaN))
      }
      const [ours, theirs] = [values('symport wss'), values('symport')]
      if (ours.length === 0) return []
      const reference = orUndefined(median(theirs))
      return {
        what: `${what}, wss`,
        unit,
        symport: orUndefined(median(ours)),
        reference,
        against: reference === undefined ? undefined : ('symport tcp' as const),
        ratio: orUndefined(medianRatio(ours, theirs)),
        goal: 'reported',
        met: undefined,
      }
    })
  }

  /** A row about one figure against another of the same tunnel, as p99 against p50. */
  spreadRow(metric: string, over: string, o: { what: string; goal: Goal }): Row {
    const spread = (tunnel: TunnelName): number | undefined =>
      orUndefined(medianRatio(this.values(metric, tunnel), this.values(over, tunnel)))
    const ours = spread('symport')
    const theirs = spread('ssh')
    return {
      what: o.what,
      unit: 'x',
      symport: ours,
      reference: theirs,
      against: theirs === undefined ? undefined : 'ssh',
      ratio: undefined,
      goal: o.goal.text,
      met: ours === undefined ? undefined : o.goal.test(ours),
    }
  }
}

function orUndefined(value: number): number | undefined {
  return Number.isFinite(value) ? value : undefined
}

/** Five significant digits: what lies beyond is noise, and makes the file hard to read. */
export function shorten(value: number): number {
  return Number(value.toPrecision(5))
}
