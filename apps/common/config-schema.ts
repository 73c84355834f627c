import * as v from 'valibot'
import { nearest } from '../../lib/domains/nearest.ts'
import { parseListenerFlag, parseShort } from '../../lib/domains/short-spec.ts'
import { shown } from '../../lib/domains/text.ts'
import { parseWeb } from '../../lib/domains/web-address.ts'
import { type Limits, parsePattern, parsePortRanges } from '../../lib/index.ts'
import { parseNamePattern } from '../../lib/policy/names.ts'
import { parseNet } from '../../lib/sockets/ip.ts'
import { parsePin } from '../../lib/sockets/verify.ts'
import { parseVia } from '../../lib/transports/via-proxy.ts'
import { parseAcmeDirectory, parseAcmeEmail } from './acme-flags.ts'
import {
  checkHalves,
  contextOf,
  type FileContext,
  type FileHalf,
  type FileMapping,
  readHalf,
  type SpecTable,
} from './config-mapping.ts'
import {
  checked,
  count,
  duration,
  either,
  isTable,
  items,
  list,
  oneOf,
  port,
  size,
  sizeOf,
  table,
  text,
  yes,
} from './config-parts.ts'
import { parseDomain } from './domain.ts'
import { toDuration } from './flags.ts'
import { checkSecret } from './secret.ts'

export type Role = 'server' | 'node'

/** What is wrong with a file: where, as a dotted path (empty for the whole file), and what, on one line. */
export interface Problem {
  readonly key: string
  readonly message: string
}

/** A file whose shape has been checked, by the names of its keys. */
export type FileTable = Readonly<Record<string, unknown>>

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const
const BALANCES = ['first', 'round-robin', 'least-connections'] as const
const ID_BYTES = 64
const NOTE_LENGTH = 1000

/** Keys of a file that have other names, or another place, than the flag that says the same. */
const PLACES: ReadonlyMap<string, string> = new Map([
  ['http.path', 'path'],
  ['http.trusted-proxies', 'trusted-proxies'],
  ['http.real-ip-header', 'real-ip-header'],
  ['http.proxy-protocol', 'proxy-protocol'],
  ['tls.cert', 'cert'],
  ['tls.key', 'key'],
  ['tls.acme-email', 'acme-email'],
  ['tls.acme-directory', 'acme-directory'],
  ['tls.acme-ca', 'acme-ca'],
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

const COUNTS = 1_000_000

/** All tables of one role; each says of an unknown key which one is meant, or where it belongs. */
function tables(role: Role): Record<string, v.ObjectEntries> {
  const server = role === 'server'
  const peer = server ? 'node' : 'server'
  const common: v.ObjectEntries = {
    role: v.optional(oneOf('Which command the file is for. Without it, the command that reads it says so.', [role])),
    $schema: v.optional(text('For editors: where the JSON Schema of this file is.')),
    port: v.optional(
      port(`The port of the server: ${server ? '0 is any free one. ' : ''}Default 925.`, server ? 0 : 1),
    ),
    uuid: v.optional(
      text('The secret both sides know. Better in a file of its own: uuid-file.', (value) =>
        checkSecret(value, '--uuid'),
      ),
    ),
    'uuid-file': v.optional(text('A file that holds the secret.')),
    state: v.optional(text('The folder for keys, secrets and what must survive a restart.')),
    allow: v.optional(
      list(`What the ${peer} may have dialled here: HOST:PORT, CIDR:PORT-PORT, *.suffix:*, unix:/path.`, parsePattern),
    ),
    'drain-timeout': v.optional(duration('How long open connections may take to finish at the end. Default 30s.')),
    'resume-timeout': v.optional(
      duration('How long open connections wait for a lost link to come back; 0s: not at all. Default 120s.'),
    ),
    keepalive: v.optional(
      duration('The other side is asked for a sign of life after this long in silence. Default 15s.', 1000),
    ),
  }
  const limits: v.ObjectEntries = {
    'sub-connections': v.optional(count(`Connections at once through one ${peer}. Default 16384.`, 16_384)),
    'pending-opens': v.optional(count('Of those, how many may wait for their target. Default 1024.', 1024)),
    'opens-per-second': v.optional(count(`Connections that one ${peer} opens in a second. Default 20000.`, COUNTS)),
    'open-timeout': v.optional(duration('How long opening a connection may take. Default 30s.', 1)),
    listeners: v.optional(count(`Listeners that one ${peer} may have here. Default 1024.`, 65_535)),
  }
  const log: v.ObjectEntries = {
    level: v.optional(oneOf('Default info.', LOG_LEVELS)),
    file: v.optional(text('Append the log to this file, as JSON lines.')),
  }
  const buffers: v.ObjectEntries = {
    window: v.optional(
      size(
        `What one ${peer} may have on its way to connections here that nobody has taken yet. Default 64MiB.`,
        65_536,
      ),
    ),
    kept: v.optional(
      size(`What is kept for one ${peer} until it is acknowledged, to be sent again. Default 32MiB.`, 65_536),
    ),
    held: v.optional(size('Both of these, all main connections together. Default 512MiB.', 1_048_576)),
  }
  if (!server) {
    return {
      '': {
        ...common,
        host: v.optional(text('The server: host, host:port or a URL. Default 127.0.0.1.')),
        server: v.optional(text('The same as host, as a URL: tcp://host:port, wss://host/symport.')),
        id: v.optional(text('What this node calls itself. Default: the name of this machine.', checkId)),
        proxy: v.optional(proxyText()),
        ...shortLists(),
      },
      tls: { ca: v.optional(caText()), pin: v.optional(pinText()) },
      admin: { listen: v.optional(text('Where the API of the node is served over TCP: host:port.')) },
      log,
      limits,
      buffers,
    }
  }
  return {
    '': {
      ...common,
      host: v.optional(text('Where nodes connect: host, host:port, tcp:// or unix://. Default 0.0.0.0.')),
      balance: v.optional(yes('Share new connections out among the nodes, instead of the first one serving.')),
      'allow-ports': v.optional(
        list('Ports that nodes may have listened on here: 9000-9999,22.', (value) => parsePortRanges(value)),
      ),
      'allow-names': v.optional(
        list('Names of the web port that nodes may have: app.example.com, *.example.com, /path, or *.', (value) =>
          parseNamePattern(value, parseWeb),
        ),
      ),
      domain: v.optional(
        text('The name below which nodes get names of the web port, or the URL where visitors find it.', parseDomain),
      ),
      'enrolled-only': v.optional(yes('Only nodes with a credential of their own: the shared secret is off.')),
      'on-duplicate': v.optional(
        oneOf('What happens when a second process connects with the same id. Default allow.', [
          'allow',
          'refuse',
          'replace',
        ]),
      ),
    },
    tls: {
      cert: v.optional(text('The certificate and those above it, in PEM.')),
      key: v.optional(text('Its private key, in PEM.')),
      'acme-email': v.optional(
        text(
          'Whom a public CA knows you as, which then gives a certificate for each name. Agrees to its terms.',
          parseAcmeEmail,
        ),
      ),
      'acme-directory': v.optional(
        text(
          "That CA: letsencrypt (the default), letsencrypt-staging, or its directory's https:// URL.",
          parseAcmeDirectory,
        ),
      ),
      'acme-ca': v.optional(text('The certificates to believe when that directory is asked, in PEM.')),
    },
    http: {
      path: v.optional(
        text('Where WebSocket links come in. Default /symport.', (value) => {
          if (!/^\/[^\s\p{C}?#]*$/u.test(value)) throw new Error('a path begins with /, and has no spaces, ? or #')
        }),
      ),
      'trusted-proxies': v.optional(
        list('Proxies in front, which are believed when they tell the address of a client: CIDR.', checkNets),
      ),
      'real-ip-header': v.optional(
        text('The header in which they tell it, if neither X-Forwarded-For nor Forwarded.', (value) => {
          if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$/.test(value))
            throw new Error(`${shown(value)} is not a header's name`)
        }),
      ),
      'proxy-protocol': v.optional(yes('The trusted proxies begin each connection with a PROXY header (v1 or v2).')),
    },
    admin: {
      listen: v.optional(text('Where the API is served over TCP, besides its Unix socket: host:port.')),
      webhook: v.optional(
        text('A URL that is told when a node goes and comes.', (value) => {
          if (!URL.canParse(value) || !/^https?:\/\//i.test(value)) throw new Error('write a http:// or https:// URL')
        }),
      ),
    },
    log,
    limits: {
      ...limits,
      'max-handshakes': v.optional(count('Handshakes at once. Default 1024.', COUNTS)),
      'handshakes-per-address': v.optional(count('Of those, how many from one address. Default 64.', COUNTS)),
      'max-sessions': v.optional(count('Main connections at once. Default 4096.', COUNTS)),
    },
    buffers,
  }
}

function proxyText(): v.GenericSchema<string> {
  return text('The proxy to dial through: http://host:port, socks5://host:port, or none.', (value) => {
    if (value !== 'none') parseVia(value)
  })
}

function caText(): v.GenericSchema<string> {
  return text("A file with the certificates of the authorities to believe, instead of the system's.")
}

function pinText(): v.GenericSchema<string> {
  return text('The certificate to believe, or that of the CA behind it: sha256:HEX.', parsePin)
}

/** What -D, -L and -R take, as lists of texts. */
function shortLists(): v.ObjectEntries {
  const context = contextOf('node', 'local')
  return {
    dynamic: v.optional(
      list('Proxies here: socks5://[CHANNEL:PASSWORD@][bind]:port, http://, mixed://, or [bind:]port.', (value) =>
        parseShort(value, 'dynamic', context),
      ),
    ),
    local: v.optional(
      list('This side listens, and joins a channel: tcp://CHANNEL:PASSWORD@[bind]:port; or a SPEC.', (value) =>
        parseListenerFlag(value, 'local', context),
      ),
    ),
    remote: v.optional(
      list(
        'What is offered at the server: tcp://CHANNEL:PASSWORD@host:port, tunnel://CHANNEL:PASSWORD@, http://host:port?mode=path&value=NAME; or a SPEC.',
        (value) => parseListenerFlag(value, 'remote', context),
      ),
    ),
  }
}

const ABOUT: Readonly<Record<string, string>> = {
  tls: 'Certificates.',
  http: 'The web side of the port.',
  admin: 'What the operator sees and does.',
  log: 'The log.',
  limits: 'What one peer may have here.',
  buffers: 'Memory. All that is above these waits at the sender.',
}

const MAPPING_LISTS = {
  server: ['listener', 'peer-listener', 'mapping'],
  node: ['listener', 'peer-listener'],
} as const satisfies Record<Role, readonly string[]>

/** Where every known key stands: `limits.listeners`, by role. */
function placesOf(role: Role): string[] {
  const all = Object.entries(tables(role)).flatMap(([name, entries]) =>
    Object.keys(entries).map((key) => (name === '' ? key : `${name}.${key}`)),
  )
  const clients = role === 'node' ? ['client'] : []
  return [...all, ...MAPPING_LISTS[role], ...clients, ...Object.keys(tables(role)).filter((name) => name !== '')]
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

function checkId(id: string): void {
  if (Buffer.byteLength(id) > ID_BYTES || /[\p{C}\p{Z}]/u.test(id)) {
    throw new Error(`an id has 1 to ${ID_BYTES} bytes, and no spaces`)
  }
}

function checkNets(text: string): void {
  const wrong = text.split(',').find((net) => !parseNet(net.trim()))
  if (wrong !== undefined) throw new Error(`${shown(wrong)} is no address and no CIDR`)
}

function checkNote(note: string): void {
  if (note.length > NOTE_LENGTH) throw new Error(`at most ${NOTE_LENGTH} characters`)
}

/** The keys of a mapping's table. What belongs to the sharing out among nodes is for listeners of the server only. */
function mappingKeys(context: FileContext) {
  const half = (about: string, side: 'listen' | 'forward'): v.GenericSchema<FileHalf> => {
    const endpoint = table(
      'An endpoint.',
      {
        Domain: text('tcp, udp, unix, and what else doc/config.md has.'),
        // Of a tunnel to the other side, it is empty.
        Addr: v.pipe(
          either(text(''), v.literal(''), (value) => value === ''),
          v.description('host:port, or what else the domain has.'),
        ),
        Password: v.optional(
          v.pipe(
            either(text(''), v.literal(''), (value) => value === ''),
            v.description("A channel's; empty: it has none."),
          ),
        ),
      },
      () => 'unknown key: an endpoint has Domain, Addr and perhaps a Password',
    )
    return v.pipe(
      either(text('host:port, :port, a URL or a path.'), endpoint, isTable),
      checked((value) => readHalf(value, side, context)),
      v.description(about),
    )
  }
  const plain = {
    listen: half('Where connections come in.', 'listen'),
    forward: half('Where the other side takes them.', 'forward'),
    note: v.optional(text('For people.', checkNote)),
    enabled: v.optional(yes('Default true.')),
  }
  const pinned = {
    ...plain,
    node: v.optional(text('The node that serves it. Default: any.', checkId)),
    nodes: v.optional(list('The nodes that serve it.', checkId)),
  }
  const health = table(
    'How the target is checked.',
    {
      interval: v.optional(duration('Time between two checks. Default 10s.', 100, 86_400_000)),
      timeout: v.optional(duration('How long the target may take to answer. Default 5s.', 10, 60_000)),
    },
    () => 'unknown key: known are interval and timeout',
  )
  const shared = {
    ...pinned,
    balance: v.optional(oneOf('How connections are shared out among its nodes. Default first.', BALANCES)),
    wait: v.optional(duration('How long a connection waits for a node that is away. Default 5s.', 0, 60_000)),
    health: v.optional(
      v.pipe(
        either(yes('Whether the target is checked.'), health, isTable),
        v.description('A node whose target does not answer is left out.'),
      ),
    ),
  }
  return { plain, pinned, shared }
}

/** A SPEC in any of its forms, or a table with these keys. */
function mappingSchema<const E extends v.ObjectEntries>(
  entries: E,
  title: string,
  context: FileContext,
): v.GenericSchema<string | SpecTable | v.InferOutput<v.ObjectSchema<E, undefined>>> {
  const { plain } = mappingKeys(context)
  const keys = Object.keys(entries)
  const named = table('A mapping.', entries, (key) => {
    const close = nearest(key, keys)
    return close === undefined ? `unknown key: known are ${keys.join(', ')}` : `unknown key: did you mean ${close}?`
  })
  const halves = v.object({ listen: plain.listen, forward: plain.forward })
  const one = v.pipe(
    named,
    v.rawCheck(({ dataset: { value }, addIssue }) => {
      if (isTable(value) && 'node' in value && 'nodes' in value) {
        addIssue({ message: 'node and nodes are both there: keep one' })
      }
    }),
    checked((value) => {
      if (v.is(halves, value)) checkHalves(value.listen, value.forward, context)
    }),
  )
  const spec = text('A SPEC: [bind:]port:host:hostport, or two endpoint URLs with a comma.', (value) =>
    parseListenerFlag(value, context.use, context),
  )
  const json = v.pipe(
    table(
      'A SPEC as JSON has it.',
      { Listen: plain.listen, Forward: plain.forward, Node: v.optional(text('The node that serves it.')) },
      () => 'unknown key: a SPEC has Listen, Forward and Node',
    ),
    checked(({ Listen, Forward }) => checkHalves(Listen, Forward, context)),
  )
  const tabular = either(one, json, (value) => isTable(value) && 'Listen' in value)
  return v.pipe(
    either(spec, tabular, (value) => typeof value !== 'string'),
    v.title(title),
  )
}

/** The mappings of a list of the file (or of a client in it), whose shape has been checked. */
export function fileMappings(file: FileTable, name: string, role: Role): FileMapping[] {
  const value = file[name]
  if (value === undefined) return []
  const context = contextOf(role, useOf(name))
  const schema = mappingSchema(mappingKeys(context).shared, name, context)
  return v.parse(v.array(schema), Array.isArray(value) ? value : [value])
}

/** Who listens. */
function useOf(name: string): FileContext['use'] {
  return name === 'peer-listener' ? 'remote' : 'local'
}

/** One mapping, or a list of them. */
function mappingsSchema(role: Role, name: string, about: string): v.GenericSchema {
  const context = contextOf(role, useOf(name))
  const { plain, pinned, shared } = mappingKeys(context)
  const [keys, title] =
    role === 'node'
      ? [plain, 'mapping-of-a-node']
      : name === 'peer-listener'
        ? [pinned, 'mapping-at-nodes']
        : [shared, 'mapping-of-a-server']
  const mapping = mappingSchema(keys, title, context)
  const many = either(mapping, items(mapping), (value) => Array.isArray(value))
  return v.pipe(many, v.description(about))
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
  const clients = role === 'node' ? [['client', v.optional(clientSchema())]] : []
  const entries: v.ObjectEntries = { ...top, ...Object.fromEntries([...nested, ...mappings, ...clients]) }
  return v.pipe(
    table(`What "symport ${role}" does.`, entries, unknownKey(role, '', Object.keys(entries))),
    v.title(`symport ${role}`),
  )
}

const MAPPING_ABOUT: Record<Role, Readonly<Record<string, string>>> = {
  server: {
    listener: 'The server listens, a node forwards.',
    'peer-listener': 'Each node listens, the server forwards.',
    mapping: 'The same as listener.',
  },
  node: {
    listener: 'This side listens, the server forwards (if it allows).',
    'peer-listener': 'The server listens (if it allows), this side forwards.',
  },
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
  needs('http.proxy-protocol', 'http.trusted-proxies')
  needs('http.real-ip-header', 'http.trusted-proxies')
  return problems
}

/** What one server has, where there are several. */
const OF_CLIENTS = ['host', 'server', 'port', 'dynamic', 'local', 'remote', ...MAPPING_LISTS.node]

// Relative ones are relative to the file.
const PATHS: ReadonlySet<string> = new Set([
  ...['uuid-file', 'state', 'tls.cert', 'tls.key', 'tls.ca', 'tls.acme-ca', 'log.file'],
])

/** Every value that stands alone, by its dotted key. Mappings are no such values. */
function flatten(file: FileTable): [string, unknown][] {
  return Object.entries(file).flatMap(([key, value]): [string, unknown][] => {
    if (MAPPING_LISTS.server.some((name) => name === key) || key === 'client') return []
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
