/** The value at `fraction` (0 to 1) of the values in order; the nearest rank, so always one that was measured. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(fraction * sorted.length) - 1))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Pair by pair, then the median: what slowed the whole machine for a while slowed both halves of a pair. */
export function medianRatio(values: readonly number[], references: readonly number[]): number {
  const ratios: number[] = []
  for (const [round, value] of values.entries()) {
    const reference = references[round]
    if (reference !== undefined && reference > 0) ratios.push(value / reference)
  }
  return median(ratios)
}
