import type { Flag } from './flags.ts'

export interface Help {
  /** The command line, without "Usage:": `symport server [flags]`. */
  readonly usage: string
  readonly summary: string
  readonly flags: readonly Flag[]
  /** Command lines as they can be pasted; a line that begins with `#` explains the next one. */
  readonly examples: readonly string[]
}

const WIDTH = 80
const INDENT = 2
// Flags longer than this have their help on the next line.
const FLAG_COLUMN = 26

/** What `--help` prints. Lines are at most 80 characters, but for examples, which stay whole to be pasted. */
export function formatHelp({ usage, summary, flags, examples }: Help): string {
  const parts = [`Usage: ${usage}`, wrap(summary, WIDTH).join('\n')]
  if (flags.length > 0) parts.push(['Flags:', ...flags.flatMap(formatFlag)].join('\n'))
  if (examples.length > 0) parts.push(['Examples:', ...examples.map((line) => ' '.repeat(INDENT) + line)].join('\n'))
  return `${parts.join('\n\n')}\n`
}

function formatFlag({ name, alias, kind, help, value }: Flag): string[] {
  const short = alias === undefined ? '    ' : `-${alias}, `
  const placeholder = kind === 'boolean' || value === '' ? '' : ` ${value ?? 'VALUE'}${kind === 'list' ? '...' : ''}`
  const left = `${' '.repeat(INDENT)}${short}--${name}${placeholder}`
  const margin = ' '.repeat(INDENT + FLAG_COLUMN + 2)
  const lines = wrap(help, WIDTH - margin.length).map((line) => margin + line)
  if (left.length + 2 > margin.length) return [left, ...lines]
  return [left.padEnd(margin.length) + (lines[0] ?? '').slice(margin.length), ...lines.slice(1)].map((l) => l.trimEnd())
}

/** Breaks at blanks; a word longer than `width` has a line of its own. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = ''
    }
    line += (line === '' ? '' : ' ') + word
  }
  return [...lines, line]
}
