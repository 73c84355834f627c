import { readFile, stat } from 'node:fs/promises'
import { parseHostPort } from '../../lib/domains/address.ts'
import { type Endpoint, formatEndpoint, ProxyError } from '../../lib/index.ts'
import { isGuessable, readToken } from '../../lib/store/secrets.ts'
import { command, type Runnable } from '../common/command.ts'
import {
  describe,
  type NodeConfig,
  type Problem,
  type ReadConfig,
  readConfig,
  type ServerConfig,
} from '../common/config.ts'
import { toPort } from '../common/flags.ts'
import { isLoopbackHost } from '../common/identity.ts'
import { parsePlace } from '../common/transports.ts'

const LINES = 1000

interface Findings {
  readonly role: 'server' | 'node'
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

function lines(path: string, { role, problems, warnings, summary }: Findings): string {
  const told = problems.slice(0, LINES).map((problem) => `${path}: ${describe(problem)}`)
  if (problems.length > LINES) told.push(`${path}: and ${problems.length - LINES} more`)
  const warned = warnings.map((warning) => `${path}: warning: ${warning}`)
  const good = problems.length === 0 ? [`${path}: ok, for a ${role}`, ...summary.map((line) => `  ${line}`)] : []
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
    return { role: role ?? 'server', problems: [{ key: '', message }], warnings: [], summary: [] }
  }
  const { config } = read
  if (!config) return { role: read.role, problems: read.problems, warnings: [], summary: [] }
  const place = placeOf(config)
  const own = 'problem' in place ? [] : [place.endpoint]
  const problems = [
    ...('problem' in place ? [place.problem] : []),
    ...(await missingFiles(config)),
    ...taken(config, own),
  ]
  const warnings = [...config.warnings, ...secretWarnings(config, place), ...(await portWarnings(config, own))]
  return { role: config.role, problems, warnings, summary: summarise(config, place) }
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

async function missingFiles({ values }: ServerConfig | NodeConfig): Promise<Problem[]> {
  const problems: Problem[] = []
  for (const [name, key] of [
    ['uuid-file', 'uuid-file'],
    ['cert', 'tls.cert'],
    ['key', 'tls.key'],
    ['ca', 'tls.ca'],
  ] as const) {
    const path = values[name]
    if (typeof path !== 'string') continue
    const found = await stat(path).catch((error: NodeJS.ErrnoException) => error.code ?? String(error))
    if (typeof found !== 'string' && !found.isDirectory()) continue
    const why = found === 'ENOENT' ? 'there is no such file' : typeof found === 'string' ? found : 'it is a folder'
    problems.push({ key, message: `${path}: ${why}` })
  }
  return problems
}

/** What this side listens on, by its key. */
function listening({ listeners, listenerKeys }: ServerConfig | NodeConfig): { key: string; at: Endpoint }[] {
  return listeners.flatMap(({ listen, enabled = true }, i) =>
    enabled ? [{ key: `${listenerKeys[i]}.listen`, at: listen }] : [],
  )
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
    const tcp = at.Domain === 'tcp' || at.Domain === 'udp'
    const { host, port } = tcp ? parseHostPort(at.Addr, { allowZero: true }) : { host: undefined, port: at.Addr }
    // Any free port is another one each time.
    if (port === 0) continue
    const same = before.get(`${at.Domain} ${port}`) ?? []
    const other = same.find((one) => collide(one.host, host))
    if (other) problems.push({ key, message: `${formatEndpoint(at)}: ${other.key} listens there` })
    same.push({ key, host })
    before.set(`${at.Domain} ${port}`, same)
  }
  return problems
}

function collide(a: string | undefined, b: string | undefined): boolean {
  const all = (host: string | undefined): boolean => host === '' || host === '0.0.0.0' || host === '::'
  return a?.toLowerCase() === b?.toLowerCase() || all(a) || all(b)
}

function secretWarnings({ role, values }: ServerConfig | NodeConfig, place: PlaceFound): string[] {
  const { uuid } = values
  if (role === 'node' || typeof uuid !== 'string' || readToken(uuid) || !isGuessable(uuid)) return []
  if ('host' in place && isLoopbackHost(place.host)) return []
  return ['uuid: this secret can be guessed by whoever watches a connection: leave it out to get a strong one']
}

async function portWarnings(
  config: ServerConfig | NodeConfig,
  own: readonly (Endpoint | undefined)[],
): Promise<string[]> {
  const least = await leastPort()
  const all = [...own.flatMap((at) => (at === undefined ? [] : [{ key: 'port', at }])), ...listening(config)]
  return all.flatMap(({ key, at }) => {
    if (at.Domain !== 'tcp' && at.Domain !== 'udp') return []
    const { port } = parseHostPort(at.Addr, { allowZero: true })
    if (port === 0 || port >= least) return []
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
  const off = listeners.filter(({ enabled }) => enabled === false).length
  const rest = off === 0 ? '' : ` (${off} switched off)`
  return [
    role === 'server' ? `nodes connect to ${name}` : `connects to ${name}`,
    `${listeners.length} ${listeners.length === 1 ? 'mapping listens' : 'mappings listen'} here${rest}`,
    ...listeners.slice(0, 10).map(({ listen, forward }) => `  ${formatEndpoint(listen)} -> ${formatEndpoint(forward)}`),
    ...(listeners.length > 10 ? [`  and ${listeners.length - 10} more`] : []),
    `${peerListeners.length} at the other side`,
    ...(values.admin === undefined ? [] : [`the API listens on ${String(values.admin)}`]),
  ]
}
