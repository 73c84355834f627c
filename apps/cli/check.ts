import { readFile, stat } from 'node:fs/promises'
import { parseHostPort } from '../../lib/domains/address.ts'
import { passwordOf } from '../../lib/domains/channel-address.ts'
import { parseDynamic as parseDynamicAddress } from '../../lib/domains/dynamic-address.ts'
import { type Endpoint, formatEndpoint, ProxyError, type Spec } from '../../lib/index.ts'
import { isGuessable, readToken } from '../../lib/store/secrets.ts'
import { command, type Runnable } from '../common/command.ts'
import {
  type ClientEntry,
  describe,
  type NodeConfig,
  type Problem,
  type ReadConfig,
  readConfig,
  type ServerConfig,
} from '../common/config.ts'
import { toPort } from '../common/flags.ts'
import { isLoopbackHost } from '../common/identity.ts'
import { httpText, limitsText } from '../common/operator-tables.ts'
import { createDomains, parseDynamic, parseSpecs } from '../common/options.ts'
import { formatTable } from '../common/table.ts'
import { parsePlace } from '../common/transports.ts'

const LINES = 1000

interface Findings {
  readonly role: 'server' | 'node'
  /** Whose file it is: as symport has them, or wsp. */
  readonly kind: 'symport' | 'wsp'
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
  /** What the file does, if it can be used. */
  readonly summary: readonly string[]
}

const check: Runnable = command({
  usage: 'symport check FILE [--role server|node] [--json]',
  summary: 'Says what is wrong with a configuration file, all of it, or "ok" and what it does. Nothing is started.',
  flags: [
    {
      name: 'role',
      kind: 'string',
      value: 'ROLE',
      help: 'What the file is for: server or node. Default: as the file says, or by its keys.',
    },
    { name: 'json', kind: 'boolean', help: 'For machines.' },
  ],
  examples: ['symport check /etc/symport/server.toml', 'symport check node.json --json'],
  async run(values, positionals) {
    const [path, ...more] = positionals
    if (path === undefined || path === '' || more.length > 0) {
      throw new ProxyError('PROXY_ERR_USAGE', 'check takes one file: symport check FILE')
    }
    const { role } = values
    if (role !== undefined && role !== 'server' && role !== 'node') {
      throw new ProxyError('PROXY_ERR_USAGE', '--role: server or node')
    }
    const findings = await examine(path, role)
    process.stdout.write(
      values.json ? `${JSON.stringify(report(path, findings), undefined, 2)}\n` : lines(path, findings),
    )
    return findings.problems.length === 0 ? 0 : 2
  },
})

export default check

function report(path: string, findings: Findings): object {
  return { file: path, ok: findings.problems.length === 0, ...findings }
}

function lines(path: string, { role, kind, problems, warnings, summary }: Findings): string {
  const told = problems.slice(0, LINES).map((problem) => `${path}: ${describe(problem)}`)
  if (problems.length > LINES) told.push(`${path}: and ${problems.length - LINES} more`)
  const warned = warnings.map((warning) => `${path}: warning: ${warning}`)
  const what = kind === 'wsp' ? 'ok, a file of wsp,' : 'ok,'
  const good = problems.length === 0 ? [`${path}: ${what} for a ${role}`, ...summary.map((line) => `  ${line}`)] : []
  return `${[...told, ...warned, ...good].join('\n')}\n`
}

async function examine(path: string, role: 'server' | 'node' | undefined): Promise<Findings> {
  let read: ReadConfig
  try {
    read = await readConfig(path, role)
  } catch (error) {
    if (!(error instanceof ProxyError) || error.code !== 'PROXY_ERR_CONFIG') throw error
    // The line names the file, as ours do.
    const message = error.message.startsWith(`${path}: `) ? error.message.slice(path.length + 2) : error.message
    return { role: role ?? 'server', kind: 'symport', problems: [{ key: '', message }], warnings: [], summary: [] }
  }
  const { config } = read
  if (!config) return { role: read.role, kind: 'symport', problems: read.problems, warnings: [], summary: [] }
  const servers = config.role === 'node' && config.clients.length > 0 ? config.clients.map(clientPlace) : []
  const place = servers[0] ?? placeOf(config)
  const own = 'problem' in place ? [] : [place.endpoint]
  const problems = [
    ...[place, ...servers.slice(1)].flatMap((found) => ('problem' in found ? [found.problem] : [])),
    ...(await missingFiles(config)),
    ...taken(config, own),
  ]
  const warnings = [...config.warnings, ...secretWarnings(config, place), ...(await portWarnings(config, own))]
  const kind = config.wsp ? 'wsp' : 'symport'
  return { role: config.role, kind, problems, warnings, summary: summarise(config, place) }
}

type PlaceFound =
  | { readonly name: string; readonly host: string; readonly endpoint: Endpoint | undefined }
  | { readonly problem: Problem }

/** Where main connections come in, or go. */
function placeOf({ role, values }: ServerConfig | NodeConfig): PlaceFound {
  const listening = role === 'server'
  const key = values.server === undefined ? 'host' : 'server'
  try {
    const port = values.port === undefined ? undefined : toPort(String(values.port), 'port', { allowZero: listening })
    const text = String(values[key] ?? (listening ? '0.0.0.0' : '127.0.0.1'))
    const { name, host, port: bound } = parsePlace(text, key, { port, listening })
    const tcp =
      bound === undefined ? undefined : { Domain: 'tcp', Addr: `${host.includes(':') ? `[${host}]` : host}:${bound}` }
    return { name, host, endpoint: listening ? tcp : undefined }
  } catch (error) {
    const message = error instanceof Error ? error.message.replace(`${key}: `, '') : String(error)
    return { problem: { key, message } }
  }
}

/** What the server is called: without the name and password that may stand in its URL. */
function nameOf(client: Pick<ClientEntry, 'key' | 'server'>): string {
  const place = clientPlace(client)
  return 'name' in place ? place.name : ''
}

/** Where one of several servers is. */
function clientPlace({ key, server = '' }: Pick<ClientEntry, 'key' | 'server'>): PlaceFound {
  try {
    const { name, host } = parsePlace(server, 'server', { port: undefined })
    return { name, host, endpoint: undefined }
  } catch (error) {
    const message = error instanceof Error ? error.message.replace('server: ', '') : String(error)
    return { problem: { key: `${key}.server`, message } }
  }
}

async function missingFiles(config: ServerConfig | NodeConfig): Promise<Problem[]> {
  const { values } = config
  const problems: Problem[] = []
  const clients = config.role === 'node' ? config.clients : []
  for (const [path, key] of [
    [values['uuid-file'], 'uuid-file'],
    [values.cert, config.wsp ? 'ssl.cert' : 'tls.cert'],
    [values.key, config.wsp ? 'ssl.key' : 'tls.key'],
    [values.ca, 'tls.ca'],
    [values['acme-ca'], 'tls.acme-ca'],
    [values['acme-eab-hmac-file'], 'tls.acme-eab-hmac-file'],
    [values['acme-dns-hook'], 'tls.acme-dns-hook'],
    ...clients.flatMap((client) => [
      [client.uuidFile, `${client.key}.uuid-file`] as const,
      [client.ca, `${client.key}.ca`] as const,
    ]),
  ] as const) {
    if (typeof path !== 'string') continue
    const found = await stat(path).catch((error: NodeJS.ErrnoException) => error.code ?? String(error))
    if (typeof found !== 'string' && !found.isDirectory()) continue
    const why = found === 'ENOENT' ? 'there is no such file' : typeof found === 'string' ? found : 'it is a folder'
    problems.push({ key, message: `${path}: ${why}` })
  }
  return problems
}

/** What this side listens on, by its key. */
function listening(config: ServerConfig | NodeConfig): { key: string; at: Endpoint }[] {
  const { listeners, listenerKeys } = config
  const mapped = listeners.flatMap(({ listen, enabled = true }, i) =>
    enabled ? [{ key: `${listenerKeys[i]}.listen`, at: listen }] : [],
  )
  return [...mapped, ...shortOf(config).flatMap((one) => (one.here ? [{ key: one.key, at: one.spec.Listen }] : []))]
}

/** What stands in one of the lists of texts. */
interface Short {
  readonly key: string
  readonly server: string | undefined
  /** Whether this side listens. */
  readonly here: boolean
  readonly spec: Spec
}

function shortOf(config: ServerConfig | NodeConfig): Short[] {
  if (config.role === 'server') return []
  const domains = createDomains()
  const { dynamic, local, remote } = config
  return [{ key: '', server: undefined, dynamic, local, remote }, ...config.clients].flatMap((entry) => {
    const found = (list: 'dynamic' | 'local' | 'remote', specs: readonly Spec[]): Short[] =>
      specs.map((spec, i) => ({
        ...{ spec, server: entry.server === undefined ? undefined : nameOf(entry), here: list !== 'remote' },
        key: `${entry.key === '' ? '' : `${entry.key}.`}${list}[${i}]`,
      }))
    return [
      ...found('dynamic', parseDynamic(entry.dynamic, domains)),
      ...found('local', parseSpecs(entry.local, domains, 'local')),
      ...found('remote', parseSpecs(entry.remote, domains, 'remote')),
    ]
  })
}

/** What of this machine it takes: a port, or a name. */
function bindOf({ Domain, Addr }: Endpoint): { kind: string; host: string | undefined; port: number | string } {
  const proxy = Domain === 'socks5' || Domain === 'http' || Domain === 'mixed'
  if (proxy) return { kind: 'tcp', ...parseDynamicAddress(Addr) }
  if (Domain !== 'tcp' && Domain !== 'udp') return { kind: Domain, host: undefined, port: Addr }
  return { kind: Domain, ...parseHostPort(Addr, { allowZero: true }) }
}

interface Taken {
  readonly key: string
  /** Undefined where there are no hosts, as in a path. */
  readonly host: string | undefined
}

/** The same place twice: the second one could not be had. */
function taken(config: ServerConfig | NodeConfig, own: readonly (Endpoint | undefined)[]): Problem[] {
  const problems: Problem[] = []
  /** By what has to be the same: the port, or the path. */
  const before = new Map<string, Taken[]>()
  const nodes = own.flatMap((at) => (at === undefined ? [] : [{ key: 'the port for nodes', at }]))
  for (const { key, at } of [...nodes, ...listening(config)]) {
    const { kind, host, port } = bindOf(at)
    // Any free port is another one each time.
    if (port === 0) continue
    const same = before.get(`${kind} ${port}`) ?? []
    const other = same.find((one) => collide(one.host, host))
    if (other) problems.push({ key, message: `${formatEndpoint(at)}: ${other.key} listens there` })
    same.push({ key, host })
    before.set(`${kind} ${port}`, same)
  }
  return problems
}

function collide(a: string | undefined, b: string | undefined): boolean {
  const all = (host: string | undefined): boolean => host === '' || host === '0.0.0.0' || host === '::'
  return a?.toLowerCase() === b?.toLowerCase() || all(a) || all(b)
}

function secretWarnings(config: ServerConfig | NodeConfig, place: PlaceFound): string[] {
  const { role, values } = config
  const { uuid } = values
  if (config.role === 'node' && uuid === undefined && values['uuid-file'] === undefined) {
    const bare = config.clients.filter(({ secret, uuidFile }) => secret === undefined && uuidFile === undefined)
    return bare.map(({ key, secretAdvice }) => `${key}: there is no secret: ${secretAdvice}`)
  }
  if (role === 'node' || typeof uuid !== 'string' || readToken(uuid) || !isGuessable(uuid)) return []
  if ('host' in place && isLoopbackHost(place.host)) return []
  return [
    `${config.wsp ? 'auth' : 'uuid'}: this secret can be guessed by whoever watches a connection: leave it out to get a strong one`,
  ]
}

async function portWarnings(
  config: ServerConfig | NodeConfig,
  own: readonly (Endpoint | undefined)[],
): Promise<string[]> {
  const least = await leastPort()
  const all = [...own.flatMap((at) => (at === undefined ? [] : [{ key: 'port', at }])), ...listening(config)]
  return all.flatMap(({ key, at }) => {
    const { port } = bindOf(at)
    if (typeof port === 'string' || port === 0 || port >= least) return []
    return [`${key}: port ${port} needs root, or CAP_NET_BIND_SERVICE (below ${least})`]
  })
}

/** Ports below this one are not for this user. */
async function leastPort(): Promise<number> {
  if (process.platform === 'win32' || process.getuid?.() === 0) return 0
  const text = await readFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8').catch(() => '1024')
  return Number(text) >= 0 ? Number(text) : 1024
}

function summarise(config: ServerConfig | NodeConfig, place: PlaceFound): string[] {
  const { role, listeners, peerListeners, values } = config
  const name = 'name' in place ? place.name : ''
  const several = config.role === 'node' && config.clients.length > 0
  const off = listeners.filter(({ enabled }) => enabled === false).length
  const rest = off === 0 ? '' : ` (${off} switched off)`
  const mapped = [
    `${listeners.length} ${listeners.length === 1 ? 'mapping listens' : 'mappings listen'} here${rest}`,
    ...listeners.slice(0, 10).map(mappingLine),
    ...(listeners.length > 10 ? [`  and ${listeners.length - 10} more`] : []),
    ...(peerListeners.length === 0 ? [] : [`${peerListeners.length} at the other side`]),
  ]
  const short = shortOf(config)
  const hasMapped = listeners.length + peerListeners.length > 0
  return [
    ...(role === 'server' ? [`nodes connect to ${name}`] : several ? connections(config) : [`connects to ${name}`]),
    ...(config.role === 'server' && config.wsp ? wspLines(config) : []),
    ...(config.role === 'server' ? [...grantLines(config), ...nodeLine(config)] : []),
    ...(hasMapped || (short.length === 0 && !several && !config.wsp) ? mapped : []),
    ...shortTable(short),
    ...(values.admin === undefined ? [] : [`the API listens on ${String(values.admin)}`]),
  ]
}

function mappingLine({ listen, forward, limits, http }: NodeConfig['listeners'][number]): string {
  const words = [limitsText(limits), httpText(http && { ...http, basicAuth: Object.keys(http.basicAuth ?? {}) })]
  const more = words.filter((one) => one !== '').join('; ')
  return `  ${formatEndpoint(listen)} -> ${formatEndpoint(forward)}${more === '' ? '' : ` (${more})`}`
}

function connections({ clients }: NodeConfig): string[] {
  const lines = clients.slice(0, 20).map((client) => `connects to ${nameOf(client)}`)
  return clients.length > 20 ? [...lines, `and ${clients.length - 20} more`] : lines
}

function wspLines({ values, wsp }: ServerConfig): string[] {
  const own = 'loopback, link-local and metadata addresses of this machine'
  const reach = wsp?.allow
    ? `${wsp.allow.join(', ') || 'nothing'}${wsp.allow.some((text) => text.startsWith('*')) ? ` (* does not cover ${own})` : ''}`
    : `all but ${own} ("allow" changes that)`
  return [
    `the WebSocket is at ${String(values.path)}`,
    ...(wsp?.ownName === undefined ? [] : [`its own name is ${wsp.ownName}`]),
    `nodes may dial: ${reach}`,
  ]
}

/** What nodes may have here, and who does HTTPS for it. */
function grantLines({ values }: ServerConfig): string[] {
  const said = (key: keyof typeof values): string => {
    const value = values[key]
    return Array.isArray(value) ? value.join(', ') : String(value ?? '')
  }
  const lines: readonly (readonly [keyof typeof values, string])[] = [
    ['domain', `nodes get names below ${said('domain')}`],
    ['allow-names', `nodes may have these names: ${said('allow-names')}`],
    ['allow-ports', `nodes may have these ports: ${said('allow-ports')}`],
    ['acme-email', `certificates come from ${said('acme-directory') || 'letsencrypt'}`],
    ['caddy', `Caddy at ${said('caddy')} gets a route for each name`],
  ]
  return lines.flatMap(([key, line]) => (said(key) === '' ? [] : [line]))
}

function nodeLine({ nodeLimits }: ServerConfig): string[] {
  const text = limitsText(nodeLimits)
  return text === '' ? [] : [`each node without limits of its own: ${text}`]
}

/** A line for each; passwords are not shown, only whether there is one. */
function shortTable(rows: readonly Short[]): string[] {
  if (rows.length === 0) return []
  const shown = rows.slice(0, 100)
  const table = formatTable(
    shown,
    [
      { title: 'SERVER', value: ({ server }) => server ?? '' },
      { title: 'LISTENS', value: ({ here }) => (here ? 'this side' : 'the server') },
      { title: 'AT', value: ({ spec }) => withoutPassword(spec.Listen) },
      { title: 'LEADS TO', value: ({ spec }) => withoutPassword(spec.Forward) },
    ],
    { width: 1000, color: false },
  )
  return rows.length > shown.length ? [...table, `and ${rows.length - shown.length} more`] : table
}

function withoutPassword(at: Endpoint): string {
  if (at.Domain === 'tunnel' && at.Addr === '') return 'whatever is asked for'
  const password = passwordOf(at)
  if (password === undefined) return formatEndpoint(at)
  return `${formatEndpoint(at)} (${password.reveal() === '' ? 'no password' : 'with its password'})`
}
