import { type FileHandle, open } from 'node:fs/promises'
import { extname } from 'node:path'
import { ProxyError } from '../../lib/core/index.ts'
import { findJsonProblem } from '../../lib/domains/spec-json.ts'
import { shown } from '../../lib/domains/text.ts'

/** A configuration file is read by people; anything longer is something else. */
const FILE_BYTES = 1024 * 1024
// The deepest that a file has anything: mapping, list, table, health, interval.
const DEPTH = 12
const OTHERS = 0o004

export interface ConfigText {
  readonly text: string
  /** Whether every user of this machine can read it. */
  readonly exposed: boolean
}

/**
 * Reads at most 1 MiB.
 *
 * @throws ProxyError PROXY_ERR_CONFIG
 */
export async function readConfigText(path: string): Promise<ConfigText> {
  let handle: FileHandle | undefined
  try {
    handle = await open(path, 'r')
    const exposed = process.platform !== 'win32' && ((await handle.stat()).mode & OTHERS) !== 0
    const bytes = await readAtMost(handle, FILE_BYTES + 1)
    if (bytes.length > FILE_BYTES) throw configError(path, 'it is larger than 1 MiB')
    return { text: decode(bytes, path), exposed }
  } catch (error) {
    if (error instanceof ProxyError) throw error
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw configError(path, REASONS.get(code) ?? `it cannot be read: ${code}`, error)
  } finally {
    await handle?.close()
  }
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'there is no such file'],
  ['EACCES', 'it cannot be read: permission denied'],
  ['EISDIR', 'it is a folder'],
])

/** From a pipe, too, which has no size and comes in pieces. */
async function readAtMost(handle: FileHandle, most: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  let length = 0
  while (length < most) {
    const { buffer, bytesRead } = await handle.read(new Uint8Array(Math.min(65_536, most - length)))
    if (bytesRead === 0) break
    pieces.push(buffer.subarray(0, bytesRead))
    length += bytesRead
  }
  return Buffer.concat(pieces)
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw configError(path, 'it is not UTF-8 text', cause)
  }
}

/**
 * The value of a TOML or JSON file: by its name's end, otherwise by how it begins. Dashes stand for the underscores in its
 * keys.
 *
 * @throws ProxyError PROXY_ERR_CONFIG, with line and column
 */
export async function parseConfigText(text: string, path: string): Promise<unknown> {
  return withDashes(isJsonText(text, path) ? parseJson(text, path) : await parseToml(text, path), path, DEPTH)
}

/** Whether it is JSON that is meant, and not TOML. */
export function isJsonText(text: string, path: string): boolean {
  const extension = extname(path).toLowerCase()
  return extension === '.json' || (extension !== '.toml' && /^\s*\{/.test(text))
}

/** What looks like the punctuation of JSON on a Chinese or Japanese keyboard. */
const WIDE: ReadonlyMap<string, string> = new Map([
  ['，', ','],
  ['：', ':'],
  ['“', '"'],
  ['”', '"'],
  ['＂', '"'],
  ['｛', '{'],
  ['｝', '}'],
  ['［', '['],
  ['］', ']'],
  ['【', '['],
  ['】', ']'],
  ['　', ' '],
])

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const problem = jsonProblem(text)
    if (problem === undefined) throw configError(path, 'it is not JSON', cause)
    const { offset, expected } = problem
    const found = text.charAt(offset)
    const narrow = WIDE.get(found)
    const what =
      narrow === undefined
        ? `expected ${expected}${/string|escape/.test(expected) ? '' : ` ${foundAt(text, offset)}`}`
        : `a full-width "${found}" stands there: write "${narrow}"`
    throw configError(path, `${lineAndColumn(text, offset)}: malformed JSON: ${what}`, cause)
  }
}

/** Nothing that may be a part of a secret: neither a text in quotes nor whole words. */
function foundAt(text: string, offset: number): string {
  if (offset >= text.length) return 'at the end'
  const [plain] = /^(?:[^"@\w]|\w{1,2}(?!\w))*/.exec(text.slice(offset, offset + 12)) ?? []
  return plain ? `before ${shown(plain)}` : 'there'
}

/** `line 3, column 5`. */
export function lineAndColumn(text: string, offset: number): string {
  const before = text.slice(0, offset).split('\n')
  return `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}`
}

function jsonProblem(text: string): { offset: number; expected: string } | undefined {
  try {
    return findJsonProblem(text)
  } catch {
    // Nested deeper than the stack.
    return undefined
  }
}

async function parseToml(text: string, path: string): Promise<unknown> {
  const { parse, TomlError } = await import('smol-toml')
  try {
    return parse(text, { maxDepth: 64 })
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw configError(path, 'it is not TOML', cause)
    // Behind the first line it draws a picture of the place.
    const [first = ''] = cause.message.replace(/^Invalid TOML document: /, '').split('\n')
    throw configError(path, `line ${cause.line}, column ${cause.column}: malformed TOML: ${first}`, cause)
  }
}

/** A copy in which `log_level` is `log-level`, and no key reaches a prototype. */
function withDashes(value: unknown, path: string, depth: number): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value
  if (depth === 0) throw configError(path, 'tables and lists are nested too deeply')
  if (Array.isArray(value)) return value.map((item) => withDashes(item, path, depth - 1))
  const keys = new Set<string>()
  const entries = Object.entries(value).map(([written, item]) => {
    const key = written.replaceAll('_', '-')
    if (keys.has(key))
      throw configError(path, `${shown(written)}: this key is given twice, with dashes and with underscores`)
    // Copying loses these two.
    if (key === 'constructor' || key === 'prototype') throw configError(path, `${shown(written)}: unknown key`)
    keys.add(key)
    return [key, withDashes(item, path, depth - 1)] as const
  })
  return Object.fromEntries(entries)
}

export function configError(path: string, message: string, cause?: unknown): ProxyError {
  const text = `${path}: ${message}`
  return new ProxyError('PROXY_ERR_CONFIG', text, cause === undefined ? {} : { cause })
}
