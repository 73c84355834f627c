import type { WriteStream } from 'node:tty'
import type { Row } from './part.ts'
import type { PartResult } from './results.ts'

const HEAD = ['part', 'what', 'symport', 'reference', 'ratio', 'goal', 'met'] as const
const RIGHT: ReadonlySet<string> = new Set(['symport', 'reference', 'ratio'])
const BOLD = 1
const RED = 31
const GREEN = 32

/** The table as text; in colour for a terminal. */
export function formatTable(parts: readonly PartResult[], colour: boolean): string {
  const rows = parts.flatMap((part) => part.rows.map((row) => cells(part.id, row)))
  const widths = HEAD.map((head, column) => Math.max(head.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]): string[] =>
    HEAD.map((head, column) => {
      const text = row[column] ?? ''
      const width = widths[column] ?? 0
      return RIGHT.has(head) ? text.padStart(width) : text.padEnd(width)
    })
  const paint = (code: number, text: string): string => (colour ? `\x1b[${code}m${text}\x1b[0m` : text)
  const out = [paint(BOLD, line(HEAD).join('  ').trimEnd())]
  for (const row of rows) {
    const texts = line(row)
    const met = texts.pop() ?? ''
    const verdict = row[6] === 'yes' ? paint(GREEN, met) : row[6] === 'no' ? paint(RED, met) : met
    out.push(`${texts.join('  ')}  ${verdict}`.trimEnd())
  }
  return out.join('\n')
}

export function wantsColour(stream: WriteStream): boolean {
  return stream.isTTY && (process.env.NO_COLOR ?? '') === ''
}

function cells(part: string, row: Row): string[] {
  const reference = row.reference === undefined ? '-' : `${figure(row.reference)} (${row.against ?? ''})`
  return [
    part,
    row.what,
    row.symport === undefined ? '-' : `${figure(row.symport)} ${row.unit}`,
    reference,
    row.ratio === undefined ? '-' : row.ratio.toFixed(2),
    row.goal === '' ? '-' : row.goal,
    row.met === undefined ? '-' : row.met ? 'yes' : 'no',
  ]
}

function figure(value: number): string {
  const magnitude = Math.abs(value)
  if (magnitude >= 1000) return Math.round(value).toLocaleString('en')
  return value.toFixed(magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : 2)
}
