/**
 * Which of `words` a person most likely meant by `word`: the one with the fewest typing mistakes (a letter added, left
 * out, changed, or two neighbours swapped; case does not count), at most one for every three letters. If there is none,
 * the first one that `word` is the beginning of.
 */
export function nearest(word: string, words: Iterable<string>): string | undefined {
  const meant = word.toLowerCase()
  let best: string | undefined
  let bestDistance = Number.POSITIVE_INFINITY
  let longer: string | undefined
  for (const candidate of words) {
    const known = candidate.toLowerCase()
    const allowed = Math.max(1, Math.floor(Math.max(meant.length, known.length) / 3))
    const distance = typingDistance(meant, known, Math.min(allowed, bestDistance - 1))
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
    if (meant.length > 1 && known.startsWith(meant)) longer ??= candidate
  }
  return best ?? longer
}

/** Damerau-Levenshtein (optimal string alignment), or Infinity as soon as it is known to be more than `limit`. */
export function typingDistance(a: string, b: string, limit: number = Number.POSITIVE_INFINITY): number {
  if (Math.abs(a.length - b.length) > limit) return Number.POSITIVE_INFINITY
  let beforePrevious: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    let smallest = i
    for (let j = 1; j <= b.length; j++) {
      const changed = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min(at(previous, j) + 1, at(row, j - 1) + 1, at(previous, j - 1) + changed)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, at(beforePrevious, j - 2) + 1)
      }
      row.push(cost)
      smallest = Math.min(smallest, cost)
    }
    // A swap reaches back two rows, but costs one: the smallest of one row bounds all that come after it.
    if (smallest > limit) return Number.POSITIVE_INFINITY
    beforePrevious = previous
    previous = row
  }
  const distance = at(previous, b.length)
  return distance > limit ? Number.POSITIVE_INFINITY : distance
}

function at(row: number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY
}
