import { readFileSync } from 'node:fs'

/** What a process has in memory, in KiB. /proc/PID/status has it too, but late by up to some pages for each thread. */
export function residentKib(pid: number): number {
  return parseRss(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))
}

export function parseRss(rollup: string): number {
  const kib = /^Rss:\s+(\d+) kB$/m.exec(rollup)?.[1]
  if (kib === undefined) throw new Error('no resident memory in smaps_rollup')
  return Number(kib)
}

/** What keeps the memory of a process from being read here, or undefined. */
export function memoryMissing(): string | undefined {
  try {
    residentKib(process.pid)
    return undefined
  } catch {
    return 'the memory of a process (/proc/PID/smaps_rollup, Linux)'
  }
}
