import { ProxyError } from '../../lib/core/errors.ts'
import { nearest } from '../../lib/domains/nearest.ts'

// Sizes as people write them, on the command line and in files.

const BYTES: ReadonlyMap<string, number> = new Map([
  ['B', 1],
  ['kB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
  ['bit', 1 / 8],
  ['kbit', 1e3 / 8],
  ['Mbit', 1e6 / 8],
  ['Gbit', 1e9 / 8],
])
/** Other spellings of those. `Mb` is none: it may be either. */
const SPELLINGS: ReadonlyMap<string, string> = new Map([
  ...['KB', 'kb'].map((unit) => [unit, 'kB'] as const),
  ...['mb', 'gb', 'tb'].map((unit) => [unit, unit.toUpperCase()] as const),
  ...['kiB', 'Kbit'].map((unit) => [unit, unit === 'kiB' ? 'KiB' : 'kbit'] as const),
])

/** How a size is written, and how a rate is: for editors that check a file. */
export const SIZE_PATTERN: RegExp = /^[0-9]+(?:\.[0-9]+)? ?(?:B|[kKMGT]B|[kmgt]b|[kKMGT]iB|[kKMG]?bit)?$/
export const RATE_PATTERN: RegExp =
  /^[0-9]+(?:\.[0-9]+)? ?(?:(?:B|[kKMGT]B|[kmgt]b|[kKMGT]iB|[kKMG]?bit)?(?:\/s)?|[kKMG]?bps)$/

/**
 * `500KB`, `1.5 GiB`, `10Mbit` or a number of bytes, in bytes. `what`: where it stands, as `--quota`; may be empty.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function toSize(text: string, what: string): number {
  return read(text, what, '')
}

/** The same each second, `1MB/s`, `10Mbit/s` or `10Mbps`; the second may be left out. */
export function toRate(text: string, what: string): number {
  return read(text.replace(/bps$/, 'bit/s').replace(/\/s$/, ''), what, '/s')
}

function read(text: string, what: string, per: '' | '/s'): number {
  const bad = (why: string): ProxyError =>
    new ProxyError('PROXY_ERR_USAGE', `${what === '' ? '' : `${what}: `}${JSON.stringify(text.slice(0, 40))} ${why}`)
  const forms = `write 500KB${per}, 1.5MiB${per}, 10Mbit${per} or a number of bytes`
  const [, amount, unit = 'B'] = /^([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([a-zA-Z]{1,20})?$/.exec(text.trim()) ?? []
  if (amount === undefined) throw bad(`is no size: ${forms}`)
  const bytes = BYTES.get(SPELLINGS.get(unit) ?? unit)
  if (bytes === undefined) {
    if (/^[KMG]b$/.test(unit)) throw bad(`may be bytes or bits: write ${unit.slice(0, 1)}B or ${unit.slice(0, 1)}bit`)
    const meant = nearest(unit, [...BYTES.keys()])
    throw bad(`has a unit that is not known: ${meant === undefined ? forms : `did you mean ${amount}${meant}${per}?`}`)
  }
  const size = Math.round(Number(amount) * bytes)
  if (size < 1) throw bad('is less than a byte')
  if (size > Number.MAX_SAFE_INTEGER) throw bad('is too large')
  return size
}

/** `500 B`, `1.5 MB`: as short as it can be said, and read again. */
export function formatSize(bytes: number): string {
  for (const unit of ['TB', 'TiB', 'GB', 'GiB', 'MB', 'MiB', 'kB', 'KiB']) {
    const amount = bytes / (BYTES.get(unit) ?? 1)
    if (amount >= 1 && Number.isInteger(amount * 100)) return `${amount}${unit}`
  }
  for (const unit of ['TB', 'GB', 'MB', 'kB']) {
    const amount = bytes / (BYTES.get(unit) ?? 1)
    if (amount >= 1) return `${amount.toFixed(1)}${unit}`
  }
  return `${bytes}B`
}
