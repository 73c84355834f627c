import * as v from 'valibot'
import type { Mapping } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import type { ChannelEndpoint } from './channel-address.ts'
import { Hidden } from './hidden.ts'
import { nearest } from './nearest.ts'
import { shown } from './text.ts'

const text = (name: string): v.StringSchema<string> => v.string(`${name} is not a string in quotes`)
const endpoint = (half: string) =>
  v.strictObject(
    {
      Domain: text(`${half}.Domain`),
      Addr: text(`${half}.Addr`),
      Password: v.optional(v.pipe(text(`${half}.Password`), v.maxLength(256, `${half}.Password is too long`))),
    },
    `${half} is not an object`,
  )

const schema = v.strictObject({
  Listen: endpoint('Listen'),
  Forward: endpoint('Forward'),
  Node: v.optional(v.pipe(text('Node'), v.minLength(1, 'Node is empty'))),
})

/** An endpoint as a person writes it. */
export interface WrittenEndpoint {
  readonly Domain: string
  readonly Addr: string
  readonly Password?: string | undefined
}

/** What the JSON form says, its shape checked and nothing else. */
export interface JsonSpec extends Mapping {
  readonly Node?: string | undefined
}

/**
 * The JSON form of a SPEC. The error says only what is wrong (and where), not with which text.
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function readJsonSpec(json: string): JsonSpec {
  const result = v.safeParse(schema, parse(json))
  if (result.success) {
    const { Listen, Forward, ...rest } = result.output
    return { ...rest, Listen: hidden(Listen), Forward: hidden(Forward) }
  }
  const [issue] = result.issues
  const path = v.getDotPath(issue)
  if (issue.type !== 'strict_object' || path === null) throw bad(issue.message)
  const key = path.split('.').at(-1) ?? path
  if (issue.expected !== 'never') {
    throw bad(issue.received === 'undefined' ? `the key ${shown(path)} is missing` : issue.message)
  }
  const meant = nearest(key, path.includes('.') ? ['Domain', 'Addr', 'Password'] : ['Listen', 'Forward', 'Node'])
  throw bad(`unknown key ${shown(path)}${meant === undefined ? '' : `: did you mean ${shown(meant)}?`}`)
}

/** The same endpoint, with a password that nobody sees. */
export function hidden({ Password, ...at }: WrittenEndpoint): ChannelEndpoint {
  return Password === undefined ? at : { ...at, Password: new Hidden(Password) }
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch (cause) {
    // The texts of JSON.parse differ between versions of Node, and not all of them have the position.
    const problem = findJsonProblem(json)
    if (problem === undefined) throw bad('malformed JSON', cause)
    const { offset, expected } = problem
    throw bad(`malformed JSON at ${place(json, offset)}: expected ${expected} ${found(json, offset)}`, cause)
  }
}

function place(json: string, offset: number): string {
  const lines = json.slice(0, offset).split('\n')
  const column = (lines.at(-1)?.length ?? 0) + 1
  return json.includes('\n') ? `line ${lines.length}, column ${column}` : `character ${column}`
}

/** Without what stands there, where that may be a password. */
function found(json: string, offset: number): string {
  if (offset >= json.length) return 'at the end'
  if (/pass|@/i.test(json)) return 'there'
  return `before ${shown(json.slice(offset, offset + 12))}`
}

/** Where a text stops being JSON (RFC 8259), as an offset in characters, and what is missing there. */
export function findJsonProblem(json: string): { offset: number; expected: string } | undefined {
  let offset = 0

  const eat = (pattern: RegExp): boolean => {
    pattern.lastIndex = offset
    if (!pattern.test(json)) return false
    offset = pattern.lastIndex
    return true
  }
  const space = (): true => eat(/[ \t\n\r]*/y) || true
  // Each of these leaves `offset` behind what it ate, and returns what it expected instead of what it found.
  const string = (instead: string): string | undefined => {
    if (json[offset] !== '"') return instead
    const start = offset
    for (offset++; offset < json.length; offset++) {
      const char = json[offset] ?? ''
      if (char === '"') {
        offset++
        return undefined
      }
      if (char < ' ') return 'the end of a string'
      if (char !== '\\') continue
      if (!eat(/\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y)) return 'an escape that JSON has'
      offset--
    }
    offset = start
    return 'a string that ends'
  }
  const member = (): string | undefined => {
    const wrong = string('a key in double quotes')
    if (wrong !== undefined) return wrong
    return space() && eat(/:/y) ? value() : "':'"
  }
  const list = (item: () => string | undefined, end: RegExp, close: string): string | undefined => {
    if (space() && eat(end)) return undefined
    do {
      space()
      const wrong = item()
      if (wrong !== undefined) return wrong
    } while (space() && eat(/,/y))
    return eat(end) ? undefined : `',' or '${close}'`
  }
  const value = (): string | undefined => {
    space()
    if (eat(/\{/y)) return list(member, /\}/y, '}')
    if (eat(/\[/y)) return list(value, /\]/y, ']')
    if (eat(/true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y)) return undefined
    return string('a value')
  }

  const expected = value() ?? (space() && offset === json.length ? undefined : 'nothing more')
  return expected === undefined ? undefined : { offset, expected }
}

/** Whether this was JSON until a shell took its quotes out (Windows PowerShell does), or was never quoted. */
export function isUnquotedJson(spec: string): boolean {
  return /^['"\s\\]*\{\s*(?:\\"|['\\]*\w+['\\]*\s*:)/.test(spec) && !/^\s*\{\s*"/.test(spec)
}

/** The same mapping in ssh's form, or as endpoint URLs if that has no room for it, with what can still be read. */
export function unquotedJsonAdvice(spec: string): string {
  const listen = unquotedHalf(spec, 'Listen')
  const forward = unquotedHalf(spec, 'Forward')
  const ssh = listen.domain === 'tcp' && forward.domain === 'tcp'
  const instead = ssh
    ? `${listen.addr ?? '[bind:]port'}:${forward.addr ?? 'host:hostport'}`
    : `${listen.domain}://${listen.addr ?? 'host:port'},${forward.domain}://${forward.addr ?? 'host:port'}`
  const node = /\bNode\b/.test(spec) ? ' (a Node needs the JSON: write \\" for each " of it)' : ''
  return `the JSON has lost its quotes, the shell took them: write ${instead} instead${node}`
}

function unquotedHalf(spec: string, name: string): { domain: string; addr: string | undefined } {
  const half = new RegExp(`\\b${name}\\b[^{]*\\{([^}]*)`).exec(spec)?.[1] ?? ''
  const domain = /\bDomain['"\\\s]*:['"\\\s]*([\w+.-]{1,32})/.exec(half)?.[1]?.toLowerCase() ?? 'tcp'
  const addr = /\bAddr['"\\\s]*:['"\\\s]*([^,'"\\\s\p{C}]{1,200})/u.exec(half)?.[1]
  // What stands before an @ may be a password.
  return { domain, addr: addr?.includes('@') ? undefined : addr }
}

function bad(message: string, cause?: unknown): ProxyError {
  return new ProxyError('PROXY_ERR_SPEC', message, cause === undefined ? {} : { cause })
}
