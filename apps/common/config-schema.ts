import * as v from 'valibot'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import type { Limits } from '../../lib/index.ts'
import { parsePattern } from '../../lib/policy/patterns.ts'
import type { TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import { limitsSchema, readLimits } from './config-limits.ts'
import { MAPPING_ABOUT, MAPPING_LISTS, mappingsSchema } from './config-mapping-schema.ts'
import { either, type FileTable, isTable, items, list, type Role, sizeOf, table, text } from './config-parts.ts'
import { ABOUT, caText, checkId, pinText, proxyText, shortLists, tables } from './config-tables.ts'
import { toDuration } from './flags.ts'
import { checkSecret } from './secret.ts'

export type { FileTable, Role } from './config-parts.ts'

/** What is wrong with a file: where, as a dotted path (empty for the whole file), and what, on one line. */
export interface Problem {
  readonly key: string
  readonly message: string
}

/** Keys of a file that have other names, or another place, than the flag that says the same. */
const PLACES: ReadonlyMap<string, string> = new Map([
  ['http.path', 'path'],
  ['http.trusted-proxies', 'trusted-proxies'],
  ['http.real-ip-header', 'real-ip-header'],
  ['http.proxy-protocol', 'proxy-protocol'],
  ['http.caddy', 'caddy'],
  ['http.caddy-server', 'caddy-server'],
  ['tls.cert', 'cert'],
  ['tls.key', 'key'],
  ['tls.acme-email', 'acme-email'],
  ['tls.acme-directory', 'acme-directory'],
  ['tls.acme-ca', 'acme-ca'],
  ['tls.acme-eab-kid', 'acme-eab-kid'],
  ['tls.acme-eab-hmac-file', 'acme-eab-hmac-file'],
  ['tls.acme-dns-hook', 'acme-dns-hook'],
  ['tls.acme-dns-wait', 'acme-dns-wait'],
  ['tls.ca', 'ca'],
  ['tls.pin', 'pin'],
  ['admin.listen', 'admin'],
  ['admin.webhook', 'webhook'],
  ['log.level', 'log-level'],
  ['log.file', 'log-file'],
])

/** Which limit of the library a key sets. */
const LIMIT_KEYS: ReadonlyMap<string, keyof Limits> = new Map([
  ['limits.sub-connections', 'subConnections'],
  ['limits.pending-opens', 'pendingOpens'],
  ['limits.opens-per-second', 'opensPerSecond'],
  ['limits.open-timeout', 'openTimeout'],
  ['limits.listeners', 'listeners'],
  ['buffers.kept', 'keptBytes'],
  ['buffers.window', 'windowBytes'],
])

export interface FileOptions {
  readonly limits?: Partial<Limits> | undefined
  readonly heldBytes?: number | undefined
  readonly maxHandshakes?: number | undefined
  readonly handshakesPerAddress?: number | undefined
  readonly maxSessions?: number | undefined
}

const OPTION_KEYS: ReadonlyMap<string, keyof Omit<FileOptions, 'limits'>> = new Map([
  ['buffers.held', 'heldBytes'],
  ['limits.max-handshakes', 'maxHandshakes'],
  ['limits.handshakes-per-address', 'handshakesPerAddress'],
  ['limits.max-sessions', 'maxSessions'],
])

/** What each node may have, as a mapping's `limits` are. */
const NODE_LIMITS = 'node-limits'

/** Where every known key stands: `limits.listeners`, by role. */
function placesOf(role: Role): string[] {
  const all = Object.entries(tables(role)).flatMap(([name, entries]) =>
    Object.keys(entries).map((key) => (name === '' ? key : `${name}.${key}`)),
  )
  const others = role === 'node' ? ['client'] : [NODE_LIMITS]
  return [...all, ...MAPPING_LISTS[role], ...others, ...Object.keys(tables(role)).filter((name) => name !== '')]
}

/** Every key that can stand above all tables, of either role. */
export function topKeys(): Set<string> {
  return new Set((['server', 'node'] as const).flatMap(placesOf).filter((place) => !place.includes('.')))
}

/** What people write above all tables and means something here: keys, wherever they stand, and flags. */
export function ownWords(): Set<string> {
  const places = (['server', 'node'] as const).flatMap(placesOf)
  return new Set([...places.map((place) => place.slice(place.lastIndexOf('.') + 1)), ...PLACES.values(), 'config'])
}

function unknownKey(role: Role, at: string, here: readonly string[]): (key: string) => string {
  const places = placesOf(role)
  const others = placesOf(role === 'server' ? 'node' : 'server')
  const inside = (place: string): string => place.slice(place.lastIndexOf('.') + 1)
  return (key) => {
    // By the flag's name, or by the key's own in another table.
    const flag = [...PLACES].find(([place, name]) => name === key && places.includes(place))?.[0]
    const place = flag ?? places.find((other) => inside(other) === key && other !== (at === '' ? key : `${at}.${key}`))
    if (place !== undefined) return `unknown key: write it as ${where(place)}`
    const close = nearest(key, here)
    if (close !== undefined) return `unknown key: did you mean ${close}?`
    if (others.includes(at === '' ? key : `${at}.${key}`))
      return `unknown key: it is for a ${role === 'server' ? 'node' : 'server'}`
    const far = nearest(key, places.map(inside))
    const meant = far === undefined ? undefined : places.find((other) => inside(other) === far)
    if (meant !== undefined) return `unknown key: did you mean ${where(meant)}?`
    return here.length > 10 ? 'unknown key: doc/config.md has all of them' : `unknown key: known are ${here.join(', ')}`
  }
}

function where(place: string): string {
  const [name = '', key] = place.split('.')
  return key === undefined ? `${name}, above all tables` : `${key} in [${name}]`
}

/** One server of several that a node has. */
const CLIENT_SECRETS = ['uuid', 'uuid-file', 'auth'] as const

function clientSchema(): v.GenericSchema {
  const secret = (about: string): v.GenericSchema<string> => text(about, (value) => checkSecret(value, '--uuid'))
  const entries: v.ObjectEntries = {
    server: text('The server: host, host:port, tcp://host:port, wss://host/symport.'),
    uuid: v.optional(secret('The secret both sides know. Better in a file of its own: uuid-file.')),
    'uuid-file': v.optional(text('A file that holds the secret.')),
    auth: v.optional(secret('The same as uuid, as wsp has it.')),
    id: v.optional(text('What this node calls itself there. Default: as above all tables.', checkId)),
    ca: v.optional(caText()),
    pin: v.optional(pinText()),
    proxy: v.optional(proxyText()),
    allow: v.optional(list('What this server may have dialled here.', parsePattern)),
    ...shortLists(),
    ...Object.fromEntries(
      MAPPING_LISTS.node.map((name) => [
        name,
        v.optional(mappingsSchema('node', name, MAPPING_ABOUT.node[name] ?? '')),
      ]),
    ),
  }
  const keys = Object.keys(entries)
  const one = v.pipe(
    table('A server.', entries, (key) => {
      const close = nearest(key, keys)
      return close === undefined ? `unknown key: known are ${keys.join(', ')}` : `unknown key: did you mean ${close}?`
    }),
    v.rawCheck(({ dataset: { value }, addIssue }) => {
      if (!isTable(value)) return
      const secrets = CLIENT_SECRETS.filter((key) => key in value)
      if (secrets.length > 1) addIssue({ message: `${secrets.join(' and ')} are both there: keep one` })
      if ('ca' in value && 'pin' in value) addIssue({ message: 'ca and pin are both there: keep one' })
    }),
    v.title('server-of-a-node'),
  )
  return v.pipe(
    either(one, items(one), (value) => Array.isArray(value)),
    v.description('A server that this node connects to, among others. Each has a main connection of its own.'),
  )
}

/** The schema of a file for this role. */
export function schemaOf(role: Role): v.GenericSchema<FileTable> {
  const { '': top = {}, ...rest } = tables(role)
  const nested = Object.entries(rest).map(([name, entries]) => [
    name,
    v.optional(table(ABOUT[name] ?? '', entries, unknownKey(role, name, Object.keys(entries)))),
  ])
  const mappings = MAPPING_LISTS[role].map((name) => [
    name,
    v.optional(mappingsSchema(role, name, MAPPING_ABOUT[role][name] ?? '')),
  ])
  const others =
    role === 'node'
      ? [['client', v.optional(clientSchema())]]
      : [[NODE_LIMITS, v.optional(limitsSchema('What may go through each node that has no limits of its own.'))]]
  const entries: v.ObjectEntries = { ...top, ...Object.fromEntries([...nested, ...mappings, ...others]) }
  return v.pipe(
    table(`What "symport ${role}" does.`, entries, unknownKey(role, '', Object.keys(entries))),
    v.title(`symport ${role}`),
  )
}

/** A file whose shape is known, or what is wrong with it. */
export interface CheckedFile {
  readonly role: Role
  readonly problems: readonly Problem[]
  readonly file?: FileTable | undefined
}

/** Checks the shape of a file, and each value by itself. Without `role`, the file says what it is for. */
export function checkFile(raw: unknown, wanted?: Role): CheckedFile {
  const table = isTable(raw) ? raw : {}
  const role = wanted ?? roleOf(table)
  const other = role === 'server' ? 'node' : 'server'
  // Nothing in it is meant for this command.
  if (table.role === other) return { role, problems: [{ key: 'role', message: `the file is for "symport ${other}"` }] }
  const result = v.safeParse(schemaOf(role), raw)
  const issues = (result.issues ?? []).map(({ path = [], message }) => ({ key: dotted(path), message }))
  // What is wrong in two ways is told once.
  const byKey = new Map([...issues, ...pairProblems(table, role)].reverse().map((problem) => [problem.key, problem]))
  const problems = [...byKey.values()].reverse()
  return problems.length > 0 || !result.success ? { role, problems } : { role, problems, file: result.output }
}

function dotted(path: readonly v.IssuePathItem[]): string {
  return path
    .map(({ key }, i) => (typeof key === 'number' ? `[${key}]` : `${i === 0 ? '' : '.'}${quoted(String(key))}`))
    .join('')
}

/** A key as a person would find it in the file; one with strange characters in quotes. */
function quoted(key: string): string {
  return /^[\w$-]{1,64}$/.test(key) ? key : shown(key)
}

/** Keys that only go together, or never. */
function pairProblems(file: FileTable, role: Role): Problem[] {
  const problems: Problem[] = []
  const keys = new Set(flatten(file).map(([key]) => key))
  const never = (a: string, b: string): void => {
    if (keys.has(a) && keys.has(b)) problems.push({ key: b, message: `${a} is there, too: keep one` })
  }
  const needs = (a: string, b: string): void => {
    if (keys.has(a) && !keys.has(b)) problems.push({ key: b, message: `it is missing: ${a} needs it` })
  }
  never('uuid', 'uuid-file')
  if (role === 'node') {
    never('host', 'server')
    never('tls.ca', 'tls.pin')
    for (const key of 'client' in file ? OF_CLIENTS : []) {
      if (key in file) problems.push({ key, message: 'write it in the [[client]] that it is for' })
    }
    return problems
  }
  needs('tls.cert', 'tls.key')
  needs('tls.key', 'tls.cert')
  needs('tls.acme-directory', 'tls.acme-email')
  needs('tls.acme-ca', 'tls.acme-email')
  needs('tls.acme-eab-kid', 'tls.acme-email')
  needs('tls.acme-eab-kid', 'tls.acme-eab-hmac-file')
  needs('tls.acme-eab-hmac-file', 'tls.acme-eab-kid')
  needs('tls.acme-dns-hook', 'tls.acme-email')
  needs('tls.acme-dns-hook', 'domain')
  needs('tls.acme-dns-wait', 'tls.acme-dns-hook')
  needs('http.proxy-protocol', 'http.trusted-proxies')
  needs('http.real-ip-header', 'http.trusted-proxies')
  needs('http.caddy-server', 'http.caddy')
  never('http.caddy', 'tls.acme-email')
  return problems
}

/** What one server has, where there are several. */
const OF_CLIENTS = ['host', 'server', 'port', 'dynamic', 'local', 'remote', ...MAPPING_LISTS.node]

// Relative ones are relative to the file.
const PATHS: ReadonlySet<string> = new Set([
  ...['uuid-file', 'state', 'tls.cert', 'tls.key', 'tls.ca', 'tls.acme-ca', 'log.file'],
  ...['tls.acme-eab-hmac-file', 'tls.acme-dns-hook'],
])

/** Every value that stands alone, by its dotted key. Mappings are no such values. */
function flatten(file: FileTable): [string, unknown][] {
  return Object.entries(file).flatMap(([key, value]): [string, unknown][] => {
    if (MAPPING_LISTS.server.some((name) => name === key) || key === 'client' || key === NODE_LIMITS) return []
    return isTable(value) ? Object.entries(value).map(([inner, one]) => [`${key}.${inner}`, one]) : [[key, value]]
  })
}

/** What a file says that flags say, too, by the names of the flags. */
export function fileValues(
  file: FileTable,
  absolute: (path: string) => string,
): Record<string, string | string[] | boolean> {
  // The last three hold passwords, and are kept apart.
  const apart = ['role', '$schema', 'dynamic', 'local', 'remote']
  const values: Record<string, string | string[] | boolean> = {}
  for (const [key, value] of flatten(file)) {
    if (apart.includes(key) || /^(?:limits|buffers)\./.test(key)) continue
    const name = PLACES.get(key) ?? key
    if (typeof value === 'boolean') values[name] = value
    // The one flag whose list is one text.
    else if (name === 'allow-ports') values[name] = [value].flat().join(',')
    else if (LISTS.has(name)) values[name] = [value].flat().map(String)
    else values[name] = PATHS.has(key) ? absolute(String(value)) : String(value)
  }
  return values
}

const LISTS: ReadonlySet<string> = new Set(['allow', 'allow-names', 'trusted-proxies'])

/** What a file says that no flag does. */
export function fileOptions(file: FileTable): FileOptions {
  const limits: Partial<Record<keyof Limits, number>> = {}
  const options: Partial<Record<keyof Omit<FileOptions, 'limits'>, number>> = {}
  for (const [key, value] of flatten(file)) {
    if (typeof value !== 'string' && typeof value !== 'number') continue
    const limit = LIMIT_KEYS.get(key)
    const option = OPTION_KEYS.get(key)
    if (limit !== undefined) limits[limit] = limit === 'openTimeout' ? toDuration(String(value), key) : sizeOf(value)
    else if (option !== undefined) options[option] = sizeOf(value)
  }
  return { ...options, ...(Object.keys(limits).length === 0 ? {} : { limits }) }
}

/** What each node may have, of a server's file. */
export function fileNodeLimits(file: FileTable): TrafficLimits {
  const result = v.safeParse(limitsSchema(''), file[NODE_LIMITS])
  return result.success ? readLimits(result.output) : {}
}

/** What a file is for: as it says, or by keys that only one of the commands has; otherwise a server. */
function roleOf(file: FileTable): Role {
  if (file.role === 'server' || file.role === 'node') return file.role
  const own = (role: Role, other: Role): number => {
    const shared = placesOf(other)
    const known = placesOf(role).filter((key) => !shared.includes(key))
    const keys = new Set([...Object.keys(file), ...flatten(file).map(([key]) => key)])
    return known.filter((key) => keys.has(key)).length
  }
  return own('node', 'server') > own('server', 'node') ? 'node' : 'server'
}
