export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string
  readonly align?: 'right' | undefined
  /** May be cut to this width where there is no room; the others never are. */
  readonly shrinkTo?: number | undefined
  /** Left out where there is no room: the highest first. */
  readonly rank?: number | undefined
  readonly color?: ((row: Row) => Color | undefined) | undefined
}

export type Color = 'green' | 'yellow' | 'red' | 'dim'

export interface TableOptions {
  /** Of the terminal, in columns. */
  readonly width: number
  readonly color: boolean
}

const CODES: Record<Color, number> = { green: 32, yellow: 33, red: 31, dim: 2 }
const GAP = 2

/** Lines of a table that fits the width: notes are cut, then columns left out; what names a thing stays whole. */
export function formatTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  options: TableOptions,
): string[] {
  const cells = columns.map((column) => rows.map((row) => printable(column.value(row))))
  let shown = columns
    .map((column, index) => ({ column, cells: cells[index] ?? [] }))
    // A column in which nothing stands says nothing.
    .filter(({ cells }) => cells.length === 0 || cells.some((cell) => cell !== ''))
    .map((one) => ({ ...one, whole: Math.max(...[one.column.title, ...one.cells].map(textWidth)) }))
    .map((one) => ({ ...one, width: one.whole }))
  const excess = (): number =>
    shown.reduce((sum, { width }) => sum + width, GAP * Math.max(0, shown.length - 1)) - options.width

  for (const one of [...shown].sort((a, b) => b.width - a.width)) {
    const { shrinkTo } = one.column
    if (shrinkTo === undefined || excess() <= 0) continue
    one.width = Math.max(Math.min(one.width, shrinkTo), one.width - excess())
  }
  const ranks = shown.map(({ column }) => column.rank ?? 0).filter((rank) => rank > 0)
  for (const rank of ranks.sort((a, b) => b - a)) {
    if (excess() > 0) shown = shown.filter(({ column }) => column.rank !== rank)
  }
  // What a column that was left out needed is theirs.
  for (const one of shown) one.width = Math.min(one.whole, one.width + Math.max(0, -excess()))

  const line = (texts: readonly string[], colors: readonly (Color | undefined)[] = []): string => {
    const parts = texts.map((text, index) => {
      const { column, width = 0 } = shown[index] ?? {}
      const cut = cutTo(text, width)
      const space = ' '.repeat(Math.max(0, width - textWidth(cut)))
      const color = options.color ? colors[index] : undefined
      const painted = color === undefined || cut === '' ? cut : `\x1b[${CODES[color]}m${cut}\x1b[0m`
      return column?.align === 'right' ? space + painted : painted + space
    })
    return parts.join(' '.repeat(GAP)).trimEnd()
  }
  const head = line(shown.map(({ column }) => column.title))
  const body = rows.map((row, index) =>
    line(
      shown.map(({ cells }) => cells[index] ?? ''),
      shown.map(({ column }) => column.color?.(row)),
    ),
  )
  return [head, ...body]
}

/** Text from outside as a terminal may show it: on one line, and nothing that steers the terminal. */
export function printable(text: string): string {
  return text.replace(/[\r\n\t]+/g, ' ').replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, '')
}

/** Columns on a terminal: two for East Asian wide characters and emoji, none for marks that combine. */
export function textWidth(text: string): number {
  let width = 0
  for (const char of text) width += charWidth(char)
  return width
}

function charWidth(char: string): number {
  const code = char.codePointAt(0) ?? 0
  if (code < 0x300) return 1
  if (/^\p{M}$/u.test(char)) return 0
  const wide =
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf && code !== 0x303f) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) ||
    (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd)
  return wide ? 2 : 1
}

/** The text, or as much of it as fits with an ellipsis behind. */
export function cutTo(text: string, width: number): string {
  if (textWidth(text) <= width) return text
  let cut = ''
  let used = 1
  for (const char of text) {
    used += charWidth(char)
    if (used > width) break
    cut += char
  }
  return `${cut.trimEnd()}…`
}

/** `1 node`, `2 nodes`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `0 B`, `999 B`, `1.2 KiB`, `34 MiB`: three figures at most. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 'B'
  for (const next of UNITS) {
    if (Math.round(value) < 1000) break
    value /= 1024
    unit = next
  }
  const figures = unit === 'B' || value >= 9.95 ? String(Math.round(value)) : value.toFixed(1)
  return `${figures} ${unit}`
}

const AGES: readonly (readonly [ms: number, unit: string])[] = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'm'],
  [1000, 's'],
]

/** `3m`, `2h`, `14d`: how long ago a time was, or how long something took, in ms. */
export function formatAge(ms: number): string {
  for (const [size, unit] of AGES) if (ms >= size) return `${Math.floor(ms / size)}${unit}`
  return '0s'
}

/** How long ago a time in ISO 8601 was; empty if there is none. */
export function formatSince(time: string | undefined, now: number): string {
  const at = Date.parse(time ?? '')
  return Number.isNaN(at) ? '' : formatAge(Math.max(0, now - at))
}
