/** Something measured at a moment; `at` in any unit of time. */
export interface Point {
  readonly at: number
  readonly value: number
}

export interface Bounds {
  /** How much the trend may rise from the first point to the last. */
  readonly rise: number
  /** How far the highest point may lie above the lowest. */
  readonly spread: number
}

export interface Shape {
  readonly rise: number
  readonly spread: number
  readonly flat: boolean
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/**
 * The trend per unit of `at`: the median of the slopes between every two points (Theil and Sen). A peak here and there,
 * as a garbage collector makes them, does not move it; least squares would follow.
 */
export function trend(points: readonly Point[]): number {
  const slopes: number[] = []
  for (const [index, first] of points.entries()) {
    for (const second of points.slice(index + 1)) {
      if (second.at > first.at) slopes.push((second.value - first.value) / (second.at - first.at))
    }
  }
  return slopes.length > 0 ? median(slopes) : 0
}

/** The points as medians of windows of `width`, so that what lasts counts, and not each sample. */
export function windows(points: readonly Point[], width: number): Point[] {
  const byWindow = new Map<number, number[]>()
  for (const { at, value } of points) {
    const window = Math.floor(at / width)
    const values = byWindow.get(window) ?? []
    byWindow.set(window, values)
    values.push(value)
  }
  return [...byWindow]
    .sort(([a], [b]) => a - b)
    .map(([window, values]) => ({ at: (window + 0.5) * width, value: median(values) }))
}

/** Flat is what neither rises nor spreads beyond its bounds. A fall is not a fault, but it spreads. */
export function shape(points: readonly Point[], bounds: Bounds): Shape {
  const values = points.map(({ value }) => value)
  const first = points[0]
  const last = points.at(-1)
  const rise = first && last ? trend(points) * (last.at - first.at) : 0
  const spread = values.length > 0 ? Math.max(...values) - Math.min(...values) : 0
  return { rise, spread, flat: rise <= bounds.rise && spread <= bounds.spread }
}
