import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Child } from './child.ts'
import { findProgram, isRoot } from './programs.ts'
import type { Stage } from './stage.ts'
import type { Address } from './symport.ts'

const MAIN = fileURLToPath(new URL('./crowd-main.js', import.meta.url))

/** An echo service with room for many: gives its port. */
export async function startCrowdEcho(stage: Stage): Promise<number> {
  const child = await stage.start(process.execPath, [MAIN, 'echo'])
  return await child.line((line) => (/^\d+$/.test(line) ? Number(line) : undefined), 'its port')
}

/** Connections that say nothing: they are open, or have been, when this returns. */
export async function startStrangers(stage: Stage, to: Address, count: number): Promise<Child> {
  const child = await stage.start(process.execPath, [MAIN, 'strangers', to.host, String(to.port), String(count)])
  await said(child, `opened ${count}`, 30_000)
  return child
}

/** Connections of which the first is never read, and the others are used when all of them are open. */
export async function startVisitors(stage: Stage, to: Address, count: number): Promise<Child> {
  return await stage.start(process.execPath, [MAIN, 'visitors', to.host, String(to.port), String(count)])
}

export function said(child: Child, what: string, timeoutMs: number): Promise<true> {
  return child.line((line) => (line === what ? true : undefined), JSON.stringify(what), 0, timeoutMs)
}

/** Lets this process, and those it starts, hold so many files open, where that is allowed; answers how many they may. */
export async function raiseOpenFiles(stage: Stage, wanted: number): Promise<number> {
  const limit = openFiles()
  const prlimit = findProgram('prlimit')
  if (limit >= wanted || prlimit === undefined || !isRoot()) return limit
  await stage.run(prlimit, [`--nofile=${wanted}:${wanted}`, '--pid', String(process.pid)])
  return openFiles()
}

/** Node.js has raised it to what is allowed. */
function openFiles(): number {
  const limit = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit)
}

/** How many files a process has open. */
export function filesOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** What a process has in memory, in MiB. */
export function memoryOf(pid: number): number {
  const kib = /^Rss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]
  if (kib === undefined) throw new Error('no resident memory in smaps_rollup')
  return Number(kib) / 1024
}

/** Seconds that a process has spent on a processor, its threads together. */
export function cpuOf(pid: number): number {
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  }
  return nanoseconds / 1e9
}
