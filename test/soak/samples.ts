import { readdirSync, readFileSync } from 'node:fs'

/** Of one process, at one moment. */
export interface Sample {
  /** Minutes since the beginning. */
  readonly at: number
  /** Bytes. */
  readonly rss: number
  readonly handles: number
}

/** @throws where there is no /proc, or no such process */
export function look(pid: number, at: number): Sample {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  if (kilobytes === undefined) throw new Error(`process ${pid} has no memory`)
  return { at, rss: Number(kilobytes) * 1024, handles: readdirSync(`/proc/${pid}/fd`).length }
}
