import { dirname, resolve } from 'node:path'
import type { ProxyError } from '../../lib/index.ts'
import { configError, isJsonText, parseConfigText, readConfigText } from './config-file.ts'
import { type ConfigMapping, contextOf, readMapping, textsOf } from './config-mapping.ts'
import type { FileTable, Problem, Role } from './config-schema.ts'
import type { FlagValue, NodeConfig, ReadConfig, ServerConfig } from './config-types.ts'
import { createDomains } from './options.ts'

export type { ConfigMapping } from './config-mapping.ts'
export type { Problem, Role } from './config-schema.ts'
export type { ClientEntry, FlagValue, NodeConfig, ReadConfig, ServerConfig, WspServer } from './config-types.ts'

/**
 * The configuration in a TOML or JSON file, for the command that asks.
 *
 * @throws ProxyError PROXY_ERR_CONFIG: where and what the first problem is, and how many more there are
 */
export function loadConfig(path: string, role: 'server'): Promise<ServerConfig>
export function loadConfig(path: string, role: 'node'): Promise<NodeConfig>
export function loadConfig(path: string, role?: Role): Promise<ServerConfig | NodeConfig>
export async function loadConfig(path: string, role?: Role): Promise<ServerConfig | NodeConfig> {
  const { config, problems } = await readConfig(path, role)
  if (config) return config
  throw problemsError(path, problems)
}

function problemsError(path: string, [first, ...more]: readonly Problem[]): ProxyError {
  const said = first === undefined ? 'it cannot be used' : describe(first)
  const rest = more.length === 0 ? '' : ` (and ${more.length} more: symport check ${path})`
  return configError(path, `${said}${rest}`)
}

/** A problem on one line. */
export function describe({ key, message }: Problem): string {
  return key === '' ? message : `${key}: ${message}`
}

/**
 * As loadConfig, with all problems instead of the first one. Without `role`, the file says what it is for.
 *
 * @throws ProxyError PROXY_ERR_CONFIG if it cannot be read, or is neither TOML nor JSON
 */
export async function readConfig(path: string, role?: Role): Promise<ReadConfig> {
  const { text, exposed } = await readConfigText(path)
  const raw = await parseConfigText(text, path)
  if (isJsonText(text, path)) {
    const { isWspFile, readWsp } = await import('./wsp-config.ts')
    if (isWspFile(raw, role)) return readWsp(raw, { text, path, exposed, wanted: role })
  }
  // Its parts are heavy, and most starts have no file.
  const { checkFile } = await import('./config-schema.ts')
  // A server that reads thousands of mappings again has other work too: each step is a turn of its own.
  await nextTurn()
  const { file, ...checked } = checkFile(raw, role)
  if (!file) return checked
  await nextTurn()
  return { ...checked, config: await build(file, { path, role: checked.role, exposed }) }
}

/** Behind what is to be read and written: the first of two immediates may come before that. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
}

interface Source {
  readonly path: string
  readonly role: Role
  readonly exposed: boolean
}

/** A file in which nothing is wrong, as the commands take it. */
async function build(file: FileTable, { path, role, exposed }: Source): Promise<ServerConfig | NodeConfig> {
  const { fileNodeLimits, fileOptions, fileValues } = await import('./config-schema.ts')
  const { fileMappings } = await import('./config-mapping-schema.ts')
  const { withPage } = await import('./config-http.ts')
  const { isTable } = await import('./config-parts.ts')
  const absolute = (name: string): string => resolve(dirname(path), name)
  const mappings = async (name: string): Promise<ConfigMapping[]> => {
    const context = contextOf(role, name === 'peer-listener' ? 'remote' : 'local')
    const list = fileMappings(file, name, role).map((one) => readMapping(one, context))
    for (const [i, mapping] of list.entries()) {
      const { http } = mapping
      const key = `${name}[${i}]`
      if (http) list[i] = { ...mapping, http: await withPage(http, { config: path, key, absolute }) }
    }
    return list
  }
  const lists = { listener: await mappings('listener'), mapping: await mappings('mapping') }
  const values = fileValues(file, absolute)
  const common = {
    ...{ path, values },
    listeners: Object.values(lists).flat(),
    peerListeners: await mappings('peer-listener'),
    listenerKeys: Object.entries(lists).flatMap(([name, list]) => list.map((_, i) => `${name}[${i}]`)),
    options: fileOptions(file),
  }
  const hasUsers = common.listeners.some(({ http }) => http?.basicAuth !== undefined)
  const hasSecret = hasUsers || values.uuid !== undefined || /@/.test(String(values.proxy ?? ''))
  const { clientEntry, exposedWarnings, hasSecrets, topLists, withoutTwins } = await import('./config-client.ts')
  if (role === 'server') {
    return { ...common, role, nodeLimits: fileNodeLimits(file), warnings: exposedWarnings(path, exposed && hasSecret) }
  }
  const domains = createDomains()
  const written = [file.client ?? []].flat().filter((client) => isTable(client))
  const clients = withoutTwins(
    written.map((client, i) => clientEntry(client, `client[${i}]`, absolute)),
    domains,
  )
  const top = withoutTwins([{ key: '', server: undefined, ...topLists(file) }], domains)
  const { dynamic = [], local = [], remote = [] } = top.entries[0] ?? {}
  const holdsSecret = hasSecret || clients.entries.some(hasSecrets) || hasSecrets({ dynamic, local, remote })
  return {
    ...{ ...common, role, clients: clients.entries, dynamic, local, remote, wsp: false },
    warnings: [...exposedWarnings(path, exposed && holdsSecret), ...top.warnings, ...clients.warnings],
  }
}

/** What else there is to say about a command line. */
export interface MergeOptions {
  /** Whether the server was named without a flag, as in `symport node URL`. */
  readonly named?: boolean | undefined
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/**
 * The values of a command line, completed: what it says goes first, then the environment, then the file. A list on the
 * command line takes the place of the one in the file. `listener` of a server stays what the command line has: see
 * configMappings.
 *
 * @throws ProxyError PROXY_ERR_CONFIG if the file says something that this command has no flag for
 */
export function mergeConfig<Values extends { readonly [name in keyof Values]: FlagValue }>(
  values: Values,
  config: ServerConfig | NodeConfig | undefined,
  options: MergeOptions = {},
): Values {
  if (!config) return values
  const merged: Record<string, FlagValue> = { ...values }
  for (const [name, value] of Object.entries(fromFile(config, values, options))) {
    if (!Object.hasOwn(values, name)) throw configError(config.path, `"symport ${config.role}" has no --${name}`)
    if (!isGiven(merged[name])) merged[name] = typeof value === 'object' ? [...value] : value
  }
  return merged as Values
}

function isGiven(value: FlagValue): boolean {
  return value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0)
}

/** What the file says, without what the command line or the environment says in another word. */
function fromFile(
  config: ServerConfig | NodeConfig,
  flags: Readonly<Record<string, FlagValue>>,
  { named = false, env = process.env }: MergeOptions,
): Record<string, string | readonly string[] | boolean> {
  const values = { ...config.values }
  const drop = (...names: readonly string[]): void => {
    for (const name of names) delete values[name]
  }
  if (isGiven(flags.uuid) || isGiven(flags['uuid-file']) || env.SYMPORT_UUID !== undefined) drop('uuid', 'uuid-file')
  const place = [flags.host, flags.server].find(isGiven)
  if (named || place !== undefined) drop('host', 'server')
  // A place with a port of its own, or of its kind.
  if (named || (typeof place === 'string' && /:[0-9]+(?:\/|$)|^(?:wss?|unix):/i.test(place))) drop('port')
  if (isGiven(flags.port) && typeof values.host === 'string') values.host = withoutPort(values.host)
  const peerListeners = config.peerListeners.flatMap(textsOf)
  if (config.role === 'server') return { ...values, peer_listener: peerListeners }
  return {
    ...values,
    listener: [...config.listeners.flatMap(textsOf), ...config.local],
    peer_listener: [...peerListeners, ...config.remote],
    ...(config.dynamic.length === 0 ? {} : { dynamic: config.dynamic }),
  }
}

/** `host:port` without its port; a URL, or an IPv6 address without brackets, as it is. */
function withoutPort(host: string): string {
  return host.includes('://') ? host : host.replace(/^(\[[^\]]*\]|[^:]*):[0-9]+$/, '$1')
}

/** The mappings of a server's file, unless its command line has listeners, which take their place. */
export function configMappings(
  values: { readonly listener: readonly string[] },
  config: ServerConfig | NodeConfig | undefined,
): readonly ConfigMapping[] {
  return values.listener.length > 0 ? [] : (config?.listeners ?? [])
}
