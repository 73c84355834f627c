import { readdirSync, readFileSync } from 'node:fs'

/**
 * CPU seconds that a process and its descendants have used (sshd forks one for each client). From the scheduler's own
 * count in nanoseconds: the hundredths of a second in /proc/PID/stat miss what runs between two ticks, and an idle
 * process does nothing else.
 */
export function cpuSeconds(pid: number): number {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (/^\d+$/.test(name)) parents.set(Number(name), parentOf(Number(name)))
  }
  let nanoseconds = 0
  for (const candidate of parents.keys()) {
    if (descends(candidate, pid, parents)) nanoseconds += usedNanoseconds(candidate)
  }
  return nanoseconds / 1e9
}

/** What keeps CPU times from being read here, or undefined. */
export function cpuTimesMissing(): string | undefined {
  try {
    readFileSync('/proc/self/schedstat')
    return undefined
  } catch {
    return 'the CPU time of a process (/proc/PID/schedstat, Linux)'
  }
}

function descends(pid: number, from: number, parents: ReadonlyMap<number, number>): boolean {
  for (let ancestor = pid; ancestor > 0; ancestor = parents.get(ancestor) ?? 0) {
    if (ancestor === from) return true
  }
  return false
}

function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is the command in brackets, and may hold blanks and brackets itself.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0
  }
}

function usedNanoseconds(pid: number): number {
  let used = 0
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      used += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    }
  } catch {
    // It has ended meanwhile.
  }
  return used
}

/** How many files this process, and so those it starts, may hold open. */
export function openFilesLimit(): number {
  try {
    const limit = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
    return limit === undefined || limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit)
  } catch {
    return 0
  }
}
