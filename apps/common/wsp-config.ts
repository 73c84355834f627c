import { dirname, resolve } from 'node:path'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import { hostName } from '../../lib/domains/web-address.ts'
import { parsePattern } from '../../lib/policy/patterns.ts'
import { wspReachText } from '../../lib/policy/reach.ts'
import { parseIp } from '../../lib/sockets/ip.ts'
import { exposedWarnings, hasSecrets, withoutTwins } from './config-client.ts'
import { lineAndColumn } from './config-file.ts'
import { isTable } from './config-parts.ts'
import { ownWords, type Problem, type Role, topKeys } from './config-schema.ts'
import type { ClientEntry, NodeConfig, ReadConfig, ServerConfig } from './config-types.ts'
import { toPort } from './flags.ts'
import { createDomains, parseDynamic, parseSpecs } from './options.ts'
import { checkSecret } from './secret.ts'
import { parsePlace } from './transports.ts'

// Configuration files as wsp has them (JSON, keys in any case), read into what ours become. One key is ours: `allow`.

const SERVER_KEYS = ['log', 'ssl', 'host', 'auth', 'path', 'port', 'allow'] as const
const NODE_KEYS = ['log', 'client', 'allow'] as const
const ALL_KEYS: readonly string[] = [...SERVER_KEYS, 'client']
const LOG_KEYS = ['level', 'output'] as const
const CLIENT_KEYS = ['server', 'auth', 'dynamic', 'remote', 'local', 'allow'] as const
/** None of these stands above all tables of our own files, but for `client`. */
const MARKS = ['auth', 'ssl', 'path', 'client']
/** What only our own files have in the same places. */
const OUR_CLIENT_KEYS = ['uuid', 'uuid-file', 'id', 'ca', 'pin', 'proxy', 'listener', 'peer-listener']
const LEVELS = ['error', 'info', 'debug', 'trace', 'warn', 'silent']
const DEFAULT_LEVEL_WORDS = 'error, info, debug, trace'
const LONGEST_LIST = 10_000
/** Whoever has more mistakes than this in a file means something else. */
const PLACES = 20
const WARNINGS = 100
/** Of keys that nobody knows: what is behind these does not make a file another one's. */
const STRANGE = 1000

/**
 * Whether JSON is a file of wsp: by its keys, of which none is only ours, or nearly so. A file of ours that were taken for
 * one would let nodes dial what it does not name, so that a file without anything that is wsp's alone has to look like one
 * for `wanted`, too.
 */
export function isWspFile(raw: unknown, wanted?: Role): raw is Record<string, unknown> {
  if (!isTable(raw)) return false
  const table = new Map(Object.entries(raw).map(([key, value]) => [key.toLowerCase(), value]))
  const keys = [...table.keys()]
  if (!keys.some(isOne(ALL_KEYS))) return false
  const ours = [...topKeys()].filter(isNone(ALL_KEYS))
  if (keys.some(isOne(ours)) || isNearOurs(keys, ALL_KEYS, ours)) return false
  if (hasOurs([table.get('log')], LOG_KEYS, ['file'])) return false
  if (hasOurs([table.get('client')].flat(), CLIENT_KEYS, OUR_CLIENT_KEYS)) return false
  if (isMarked(keys)) return true
  const strange = keys.filter(isNone(ALL_KEYS))
  const words = ownWords()
  if (strange.length > STRANGE || strange.some((key) => nearest(key, words) !== undefined)) return false
  if (isBindAddress(table.get('host'))) return false
  // Where a node connects, or nothing of a server's.
  return wanted !== 'node' || (table.has('port') && !table.has('host'))
}

/** Whether a file with these keys, in small letters, is wsp's for certain. */
function isMarked(keys: readonly string[]): boolean {
  return keys.some(isOne(MARKS))
}

function isOne(known: readonly string[]): (key: string) => boolean {
  return (key) => known.includes(key)
}

function isNone(known: readonly string[]): (key: string) => boolean {
  return (key) => !known.includes(key)
}

function hasOurs(tables: readonly unknown[], known: readonly string[], ours: readonly string[]): boolean {
  const keys = new Set(tables.flatMap((one) => (isTable(one) ? Object.keys(one).map((key) => key.toLowerCase()) : [])))
  return ours.some((key) => keys.has(key)) || isNearOurs([...keys], known, ours)
}

/** Whether a key that wsp does not know is most likely meant to be one of ours. */
function isNearOurs(keys: readonly string[], known: readonly string[], ours: readonly string[]): boolean {
  const strange = keys.filter(isNone(known)).slice(0, STRANGE)
  return strange.some((key) => ours.includes(nearest(key, [...known, ...ours]) ?? ''))
}

/** What `host` is in our own files, and not the name of a server. */
function isBindAddress(host: unknown): boolean {
  if (host === undefined || host === null) return false
  if (typeof host !== 'string' || host.includes('://')) return true
  const name = withoutPort(host.trim())
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase()
    .replace(/\.$/, '')
  return name === '' || name === '*' || name === 'localhost' || parseIp(name.replace(/%.*$/, '')) !== undefined
}

/** `host:port` without its port; a bare IPv6 address as it is. */
function withoutPort(host: string): string {
  return host.replace(/^(\[[^\]]*\]|[^:]*):[0-9]*$/, '$1')
}

export interface WspSource {
  readonly text: string
  readonly path: string
  readonly exposed: boolean
  /** The command that reads it. */
  readonly wanted: Role | undefined
}

type Path = readonly (string | number)[]

/** A value of the file, and where it stands. */
interface Field {
  readonly value: unknown
  readonly path: Path
}

/** What is in such a file, and all that is wrong with it. */
export function readWsp(raw: Record<string, unknown>, source: WspSource): ReadConfig {
  const role = Object.keys(raw).some((key) => key.toLowerCase() === 'client') ? 'node' : 'server'
  if (source.wanted !== undefined && source.wanted !== role) {
    const message = `this is a file of wsp for a ${role}: start "symport ${role}" with it`
    return { role: source.wanted, problems: [{ key: '', message }] }
  }
  const reader = new Reader(source)
  const config = role === 'node' ? readNode(raw, reader) : readServer(raw, reader)
  return reader.problems.length > 0 ? { role, problems: reader.problems } : { role, problems: [], config }
}

/** Takes values out of the file; what is wrong is kept, with its place, and read on. */
class Reader {
  readonly problems: Problem[] = []
  readonly warnings: string[] = []
  readonly path: string
  readonly exposed: boolean
  readonly #text: string

  constructor({ text, path, exposed }: WspSource) {
    this.#text = text
    this.path = path
    this.exposed = exposed
  }

  /** The fields of a table by their names as we write them. Those that are null are left out, as wsp does. */
  fields<Key extends string>(
    table: Record<string, unknown>,
    known: readonly Key[],
    at: Path,
    strange: (key: string) => string | undefined = () => undefined,
  ): Partial<Record<Key, Field>> {
    const fields: Partial<Record<Key, Field>> = {}
    for (const [key, value] of Object.entries(table)) {
      const path = [...at, key]
      const name = known.find((one) => one === key.toLowerCase())
      if (name === undefined) {
        const close = nearest(key, known)
        // Nobody would hear that it does not hold.
        if (close === 'allow') {
          this.wrong(path, 'unknown key: did you mean allow?')
          continue
        }
        if (this.warnings.length >= WARNINGS) continue
        const about = strange(key) ?? (close === undefined ? `known are ${known.join(', ')}` : `did you mean ${close}?`)
        this.warnings.push(`${dotted(path)}: unknown key, left out: ${about}`)
      } else if (fields[name] !== undefined) {
        this.wrong(path, `${name} is given twice, in capitals and without`)
      } else if (value !== null) {
        fields[name] = { value, path }
      }
    }
    return fields
  }

  /** Undefined if it is empty, or no text. */
  text(field: Field | undefined, check: (text: string) => unknown = () => undefined): string | undefined {
    if (field === undefined || field.value === '') return undefined
    const { value, path } = field
    if (typeof value !== 'string') return this.wrong(path, 'write text, in quotes')
    return this.try(path, () => {
      if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(value)) throw new Error('it has a control character, or a line break')
      check(value)
      return value
    })
  }

  /** Undefined for what is no text. */
  texts(field: Field | undefined, check: (text: string) => unknown): string[] {
    if (field === undefined) return []
    const list: unknown[] = [field.value].flat()
    if (list.length > LONGEST_LIST) {
      this.wrong(field.path, `at most ${LONGEST_LIST} entries`)
      return []
    }
    return list.flatMap((value, i) => {
      const path = Array.isArray(field.value) ? [...field.path, i] : field.path
      if (value === '') this.wrong(path, 'it is empty')
      return this.text({ value, path }, check) ?? []
    })
  }

  table(field: Field | undefined): Record<string, unknown> {
    if (field === undefined) return {}
    if (isTable(field.value)) return field.value
    this.wrong(field.path, 'write a table, in {braces}')
    return {}
  }

  try<T>(path: Path, read: () => T): T | undefined {
    try {
      return read()
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      // Parsers of flags begin with the name of the flag.
      return this.wrong(path, message.replace(/^(?:--[a-z-]+|server): /, ''))
    }
  }

  wrong(path: Path, message: string): undefined {
    // Each time the file is read from its beginning.
    const offset = this.problems.length < PLACES ? offsetOf(this.#text, path) : undefined
    const place = offset === undefined ? '' : `${lineAndColumn(this.#text, offset)}: `
    this.problems.push({ key: dotted(path), message: `${place}${message}` })
    return undefined
  }

  absolute(file: string): string {
    return resolve(dirname(this.path), file)
  }
}

type Values = Record<string, string | readonly string[] | boolean>

function readServer(raw: Record<string, unknown>, reader: Reader): ServerConfig {
  const fields = reader.fields(raw, SERVER_KEYS, [])
  // All interfaces of both kinds, as far as there are any.
  const values: Values = { ...readLog(fields.log, reader), host: 'tcp://', path: '/' }
  const port = readPort(fields.port, reader)
  if (port !== undefined) values.port = port
  const auth = reader.text(fields.auth, (text) => checkSecret(text, 'auth'))
  if (auth !== undefined) values.uuid = auth
  const path = reader.text(fields.path, (text) => {
    if (!/^[^\s\p{C}?#]*$/u.test(text)) throw new Error('a path has no spaces, ? or #')
  })
  if (path !== undefined) values.path = `/${path.replace(/^\//, '')}`
  Object.assign(values, readSsl(fields.ssl, reader))
  const allow = fields.allow === undefined ? undefined : reader.texts(fields.allow, parsePattern)
  if (allow !== undefined) values.allow = allow
  const host = reader.text(fields.host, (text) => {
    if (hostOf(text) === undefined) throw new Error(`${shown(text)} is not the name of a host`)
  })
  if (!isMarked(Object.keys(raw).map((key) => key.toLowerCase()))) reader.warnings.unshift(unmarked(allow))
  return {
    ...common(reader, values, auth !== undefined),
    ...{ role: 'server', wsp: { ownName: host === undefined ? undefined : hostOf(host), allow } },
  }
}

/** As the names are that nodes take at the web port, to be compared with them. */
function hostOf(text: string): string | undefined {
  const host = withoutPort(text)
  return hostName(host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)
}

function unmarked(allow: readonly string[] | undefined): string {
  return `this file is read as one of wsp: ${wspReachText(allow)}; with "role": "server" it is symport's own, and allows only what it names`
}

function readPort(field: Field | undefined, reader: Reader): string | undefined {
  if (field === undefined) return undefined
  const { value, path } = field
  if (typeof value !== 'number' && typeof value !== 'string') {
    return reader.wrong(path, 'a port is a number from 0 to 65535')
  }
  return reader.try(path, () => String(toPort(String(value), 'port', { allowZero: true })))
}

function readSsl(field: Field | undefined, reader: Reader): Values {
  const at = field?.path ?? []
  const { enable, key, cert } = reader.fields(reader.table(field), ['enable', 'key', 'cert'], at)
  if (enable !== undefined && typeof enable.value !== 'boolean') {
    reader.wrong(enable.path, 'write true or false, without quotes')
  }
  const files = { cert: reader.text(cert), key: reader.text(key) }
  if (enable?.value !== true) return {}
  for (const [name, file] of Object.entries(files)) {
    if (file === undefined) reader.wrong(at, `${name} is missing: write where the PEM file is, or enable: false`)
  }
  if (files.cert === undefined || files.key === undefined) return {}
  return { cert: reader.absolute(files.cert), key: reader.absolute(files.key) }
}

/** The file, or standard output for an empty one. */
function readLog(field: Field | undefined, reader: Reader): Values {
  const { level, output } = reader.fields(reader.table(field), LOG_KEYS, field?.path ?? [])
  const values: Values = {}
  const word = reader.text(level, (text) => {
    if (LEVELS.includes(text.toLowerCase())) return
    const close = nearest(text, LEVELS)
    const meant = close === undefined ? `one of ${DEFAULT_LEVEL_WORDS}` : `did you mean ${close}?`
    throw new Error(`${shown(text)} is not known: ${meant}`)
  })
  if (word !== undefined) values['log-level'] = word.toLowerCase()
  const file = reader.text(output)
  if (file !== undefined && file.toLowerCase() !== 'stdout') values['log-file'] = reader.absolute(file)
  return values
}

function readNode(raw: Record<string, unknown>, reader: Reader): NodeConfig {
  const fields = reader.fields(raw, NODE_KEYS, [], (key) =>
    SERVER_KEYS.some((one) => one === key.toLowerCase()) ? 'it is for the file of a server' : undefined,
  )
  const values = readLog(fields.log, reader)
  if (fields.allow !== undefined) values.allow = readAllow(fields.allow, reader)
  const list = fields.client?.value
  const at = fields.client?.path ?? []
  const written: unknown[] = Array.isArray(list) ? list : [list]
  if (written.length === 0 || list === undefined) reader.wrong(at.length > 0 ? at : ['client'], 'it names no server')
  if (written.length > LONGEST_LIST) reader.wrong(at, `at most ${LONGEST_LIST} entries`)
  const domains = createDomains()
  const entries = written.slice(0, LONGEST_LIST).flatMap((value, i) => {
    const path = Array.isArray(list) ? [...at, i] : at
    return list === undefined ? [] : (readClient({ value, path }, reader, domains) ?? [])
  })
  const unique = reader.problems.length > 0 ? { entries, warnings: [] } : withoutTwins(entries, domains)
  reader.warnings.push(...unique.warnings)
  return {
    ...common(reader, values, unique.entries.some(hasSecrets)),
    ...{ role: 'node', clients: unique.entries, dynamic: [], local: [], remote: [], wsp: true },
  }
}

function readClient(field: Field, reader: Reader, domains: ReturnType<typeof createDomains>): ClientEntry | undefined {
  if (!isTable(field.value)) return reader.wrong(field.path, 'write a table, in {braces}')
  const { server, auth, dynamic, local, remote, allow } = reader.fields(field.value, CLIENT_KEYS, field.path)
  const url = reader.text(server, (text) => parsePlace(withPath(text), 'server', { port: undefined }))
  if (server === undefined || server.value === '') {
    reader.wrong(field.path, 'server is missing: write "server": "ws://host:port"')
  }
  const key = dotted(field.path)
  return {
    key,
    server: url === undefined ? undefined : withPath(url),
    secret: reader.text(auth, (text) => checkSecret(text, 'auth')),
    secretAdvice: `add "auth" to ${key}: it is the "auth" of the server's file, or what "symport uuid" shows there`,
    allow: readAllow(allow, reader),
    dynamic: reader.texts(dynamic, (text) => parseDynamic([text], domains)),
    local: reader.texts(local, (text) => parseSpecs([text], domains, 'local')),
    remote: reader.texts(remote, (text) => parseSpecs([text], domains, 'remote')),
  }
}

/** Of a node, where none at all is everything. */
function readAllow(field: Field | undefined, reader: Reader): string[] {
  if (Array.isArray(field?.value) && field.value.length === 0) {
    reader.wrong(field.path, 'it is empty: leave it out, or write what others may have dialled here')
  }
  return reader.texts(field, parsePattern)
}

/** wsp's WebSocket is at the root where nothing else is said, and ours elsewhere. */
function withPath(url: string): string {
  return /^wss?:\/\/[^/?#]*$/i.test(url) ? `${url}/` : url
}

function common(
  { path, exposed, warnings }: Reader,
  values: Values,
  holdsSecret: boolean,
): Pick<NodeConfig, 'path' | 'values' | 'listeners' | 'peerListeners' | 'listenerKeys' | 'options' | 'warnings'> {
  return {
    ...{ path, values, listeners: [], peerListeners: [], listenerKeys: [], options: {} },
    warnings: [...exposedWarnings(path, exposed && holdsSecret), ...warnings],
  }
}

function dotted(path: Path): string {
  return path
    .map((key, i) =>
      typeof key === 'number' ? `[${key}]` : `${i === 0 ? '' : '.'}${/^[\w$-]{1,64}$/.test(key) ? key : shown(key)}`,
    )
    .join('')
}

/** Where a value stands in JSON that is known to be well formed, and not deep. Of a key that is there twice, the last one. */
function offsetOf(json: string, path: Path): number | undefined {
  let offset = 0
  let found: number | undefined
  const take = (pattern: RegExp): string => {
    pattern.lastIndex = offset
    const [text = ''] = pattern.exec(json) ?? []
    offset += text.length
    return text
  }
  const space = (): string => take(/[\s\ufeff]*/y)
  const string = (): string => take(/"(?:[^"\\]+|\\.)*"/y)
  // `rest` is what is left of the path; undefined beside it.
  const value = (rest: Path | undefined): void => {
    space()
    if (rest?.length === 0) found = offset
    const inner = (key: string | number): Path | undefined => (rest?.[0] === key ? rest.slice(1) : undefined)
    if (take(/\{/y) !== '') {
      for (;;) {
        space()
        if (take(/\}/y) !== '' || offset >= json.length) return
        const key: unknown = JSON.parse(string() || '""')
        space()
        take(/:/y)
        value(inner(String(key)))
        space()
        if (take(/,/y) === '' && json[offset] !== '}') return
      }
    } else if (take(/\[/y) !== '') {
      for (let i = 0; ; i++) {
        space()
        if (take(/\]/y) !== '' || offset >= json.length) return
        value(inner(i))
        space()
        if (take(/,/y) === '' && json[offset] !== ']') return
      }
    } else if (string() === '') {
      take(/[^\s,\]}]+/y)
    }
  }
  value(path)
  return found
}
