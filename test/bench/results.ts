import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { type Findings, type Part, type Row, shorten } from './part.ts'
import { ROOT } from './paths.ts'
import type { Processes } from './processes.ts'
import { sshVersion } from './tunnels/ssh.ts'

const FILE = join(ROOT, 'test', 'bench', 'results.json')

/** What the figures depend on, and nothing that tells whose machine it was. */
interface Machine {
  readonly node: string
  readonly cpu: { readonly model: string; readonly cores: number }
  readonly ssh: string | null
}

export interface PartResult {
  readonly id: string
  readonly title: string
  /** What was typed to get these figures. */
  readonly command: string
  readonly rounds: number
  readonly rows: readonly Row[]
  /** Raw values: metric, tunnel, one value a round. */
  readonly series: Record<string, Record<string, readonly number[]>>
}

interface Results extends Machine {
  readonly command: string
  readonly parts: readonly PartResult[]
}

export async function describeMachine(processes: Processes): Promise<Machine> {
  const cores = cpus()
  return {
    node: process.version,
    cpu: { model: cores[0]?.model.trim() ?? 'unknown', cores: cores.length },
    ssh: (await sshVersion(processes)) ?? null,
  }
}

export function partResult(part: Part, findings: Findings, command: string, rounds: number): PartResult {
  const rows = findings.rows.map((row) => ({
    ...row,
    symport: row.symport === undefined ? undefined : shorten(row.symport),
    reference: row.reference === undefined ? undefined : shorten(row.reference),
    ratio: row.ratio === undefined ? undefined : shorten(row.ratio),
  }))
  return { id: part.id, title: part.title, command, rounds, rows, series: findings.series.toJSON() }
}

/**
 * Puts the parts into the file in place of their older figures; the other parts stay as they are. Says so if it had
 * to drop those: figures of another machine or another Node.js do not belong in one table.
 */
export function writeResults(machine: Machine, parts: readonly PartResult[]): string {
  const old = readResults()
  const comparable = old !== undefined && same(old, machine)
  const kept = comparable ? old.parts.filter(({ id }) => !parts.some((part) => part.id === id)) : []
  const all = [...kept, ...parts].sort((a, b) => a.id.localeCompare(b.id, 'en', { numeric: true }))
  const { node, cpu, ssh } = machine
  const results: Results = { command: 'npm run bench', node, cpu, ssh, parts: all }
  // One line for each row of raw values: easier to read, and to compare two versions of.
  const text = JSON.stringify(results, null, 2).replace(/\[[\d\s.,eE+-]*\]/g, (list) => list.replace(/\s+/g, ' '))
  writeFileSync(FILE, `${text}\n`)
  return old !== undefined && !comparable ? 'test/bench/results.json begun anew: it came from another machine' : ''
}

function readResults(): Results | undefined {
  try {
    return JSON.parse(readFileSync(FILE, 'utf8'))
  } catch {
    return undefined
  }
}

function same(a: Machine, b: Machine): boolean {
  return a.node === b.node && a.ssh === b.ssh && a.cpu.model === b.cpu.model && a.cpu.cores === b.cpu.cores
}
