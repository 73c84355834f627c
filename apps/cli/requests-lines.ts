import type { InspectedExchange, InspectedRequest } from '../../lib/domains/web-inspection.ts'
import { type Color, type Column, formatBytes, printable } from '../common/table.ts'

const BY_STATUS: readonly (Color | undefined)[] = [undefined, 'dim', 'green', 'dim', 'yellow', 'red']
const CODES: Record<Color, number> = { green: 32, yellow: 33, red: 31, dim: 2 }

export function requestColumns(): Column<InspectedRequest>[] {
  return [
    { title: 'REQUEST', value: ({ id }) => id },
    { title: 'TIME', value: ({ time }) => clock(time), rank: 2 },
    { title: 'METHOD', value: ({ method }) => method },
    { title: 'HOST', value: ({ url }) => hostAndPath(url)[0], rank: 3 },
    { title: 'PATH', value: ({ url }) => hostAndPath(url)[1], shrinkTo: 24 },
    { title: 'STATUS', value: statusText, color: colorOf },
    { title: 'AFTER', value: ({ waited }) => duration(waited), align: 'right', rank: 1 },
    { title: 'IN', value: ({ bytesIn }) => formatBytes(bytesIn), align: 'right', rank: 5 },
    { title: 'OUT', value: ({ bytesOut }) => formatBytes(bytesOut), align: 'right', rank: 5 },
    { title: 'MAPPING', value: ({ mapping }) => mapping ?? '', rank: 6 },
    { title: 'FROM', value: ({ from }) => from ?? '', rank: 7 },
    { title: 'NOTE', value: noteOf, shrinkTo: 12, rank: 4 },
  ]
}

/** `kxb12  12:03:04 POST    200    31 ms  shop.example.com/cart` */
export function requestLine(request: InspectedRequest, color: boolean): string {
  const { id, time, method, url, waited } = request
  const status = painted(statusText(request).padEnd(3), color ? colorOf(request) : undefined)
  const start = `${id.padEnd(8)} ${clock(time)} ${printable(method).padEnd(7)}`
  const note = noteOf(request)
  return `${start} ${status} ${duration(waited).padStart(8)}  ${printable(withoutScheme(url))}${note === '' ? '' : `  (${printable(note)})`}`
}

/** Request and answer as they were sent, for people: nothing in it steers a terminal. */
export function exchangeLines(exchange: InspectedExchange): string[] {
  const { id, time, method, url, httpVersion, mapping, from, waited, took, request, answer, by, replayOf } = exchange
  const about = [
    `${id}, ${time.slice(0, 19).replace('T', ' ')} UTC`,
    from === undefined ? '' : `from ${from}`,
    mapping === undefined ? '' : `mapping ${mapping}`,
    waited === undefined ? '' : `answered after ${duration(waited)}`,
    took === undefined ? 'still under way' : `${duration(took)} in all`,
    replayOf === undefined ? '' : `replay of ${replayOf}`,
  ]
  const lines = [about.filter((part) => part !== '').join(', ')]
  if (exchange.problem !== undefined) lines.push(`the target: ${exchange.problem}`)
  lines.push('', `${method} ${url} HTTP/${httpVersion}`, ...messageLines(request))
  if (answer) {
    const whose = by === 'here' ? '  (a page of symport itself)' : ''
    lines.push('', `HTTP/${httpVersion} ${answer.status} ${answer.reason}${whose}`, ...messageLines(answer))
  } else {
    lines.push('', exchange.state === 'open' ? '(no answer yet)' : '(there was no answer)')
  }
  return lines.map(printable)
}

/** JSON in which strangers' text steers no terminal: what does not show is written as an escape. */
export function safeJson(value: unknown, indent?: number): string {
  const json = JSON.stringify(value, undefined, indent)
  return json.replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, (char) => {
    const units = Array.from({ length: char.length }, (_, i) => char.charCodeAt(i))
    return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
  })
}

function messageLines({ headers, trailers = [], cut, body }: InspectedExchange['request']): string[] {
  const lines = headers.map(({ name, value }) => `${name}: ${value}`)
  if (cut) lines.push('(and more headers, which were not kept)')
  if (body) {
    const { size, type, encoding, text, truncated, coding } = body
    const kind = `${formatBytes(size)}${type === undefined ? '' : ` of ${type}`}${coding === undefined ? '' : `, ${coding}`}`
    lines.push('', ...(encoding === 'base64' ? [`(${kind}: no text; --json has it)`] : text.split(/\r\n|[\r\n]/)))
    if (truncated && encoding === 'utf8') lines.push(`(... of ${kind} only this was kept)`)
  }
  if (trailers.length > 0) lines.push('', ...trailers.map(({ name, value }) => `${name}: ${value}`))
  return lines
}

function statusText({ status, state, websocket }: InspectedRequest): string {
  if (status === undefined) return state === 'open' ? '...' : '-'
  return websocket && state === 'open' ? `${status} open` : String(status)
}

function colorOf({ status, state }: InspectedRequest): Color | undefined {
  if (status === undefined) return state === 'open' ? 'dim' : 'yellow'
  return BY_STATUS[Math.floor(status / 100)]
}

function noteOf({ problem, replayOf, state, status }: InspectedRequest): string {
  if (problem !== undefined) return problem
  if (state === 'cut') return status === undefined ? 'the visitor left' : 'broken off'
  return replayOf === undefined ? '' : `replay of ${replayOf}`
}

function clock(time: string): string {
  const at = new Date(time)
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':')
}

function duration(ms: number | undefined): string {
  if (ms === undefined) return ''
  return ms < 9999.5 ? `${Math.round(ms)} ms` : `${Math.round(ms / 1000)} s`
}

function hostAndPath(url: string): [host: string, path: string] {
  const [, host = '', path = ''] = /^([^/]*)(.*)$/s.exec(withoutScheme(url)) ?? []
  return [host, path]
}

function withoutScheme(url: string): string {
  return url.replace(/^https?:\/\//, '')
}

function painted(text: string, color: Color | undefined): string {
  return color === undefined ? text : `\x1b[${CODES[color]}m${text}\x1b[0m`
}
