import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { type DomainPlugin, ProxyError } from '../../lib/core/index.ts'
import type { Pattern, Spec } from '../../lib/index.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import type { ClientEntry, NodeConfig } from '../common/config.ts'
import { toPort } from '../common/flags.ts'
import { parseDynamic, parsePatterns, parseSpecs } from '../common/options.ts'
import { givenSecret, type SecretOptions } from '../common/secret.ts'
import { type DialFlagValues, type DialSettings, parseDialFlags } from '../common/transport-flags.ts'
import { type Place, parsePlace } from '../common/transports.ts'
import { LOGIN_FILE, type Login } from './login-file.ts'

/** The flags of a node that are about its servers, completed by its file. */
export interface PlanValues extends DialFlagValues, SecretOptions {
  readonly host: string | undefined
  readonly server: string | undefined
  readonly port: string | undefined
  readonly id: string | undefined
  readonly dynamic: readonly string[]
  readonly listener: readonly string[]
  readonly peer_listener: readonly string[]
  readonly allow: readonly string[]
}

/** One server, and what this node does for it and through it. */
export interface ServerPlan {
  readonly place: Place
  /** What the node calls itself. */
  readonly id: string
  /** The same, if somebody has named it: it may be enrolled under that name. */
  readonly name: string | undefined
  /** The secret that was given, if one was. */
  readonly secret: string | undefined
  /** What to say if there is none anywhere. */
  readonly secretAdvice: string
  readonly listeners: readonly Spec[]
  readonly peerListeners: readonly Spec[]
  /** What the server may have dialled here. */
  readonly dial: readonly Pattern[] | 'any'
}

const LOCAL_FLAGS = [
  ['-D', 'dynamic'],
  ['-L', 'listener'],
] as const

/**
 * The servers of a command line and its file. A server that is named on the command line is the only one of the file's
 * that counts. All is checked here, before anything is bound or dialled.
 *
 * @throws ProxyError for whatever is wrong with them
 */
export async function planServers(
  values: PlanValues,
  positionals: readonly string[],
  { config, domains, login }: PlanContext,
): Promise<ServerPlan[]> {
  const named = namedServers(values, positionals)
  const common = { values, domains, secret: await givenSecret(values) }
  const clients = config?.clients ?? []
  if (config === undefined || clients.length === 0) {
    const known = named.length === 0 && values.port === undefined ? await login?.() : undefined
    if (known) return [await planLogin(known, common)]
    const servers = named.length > 0 ? named : [['--host', '127.0.0.1'] as const]
    assertOneListens(values, servers.length)
    const dialling = await parseDialFlags(values)
    return servers.map(([flag, text]) => planNamed(parsePlace(text, flag, placeOptions(values, dialling)), common))
  }
  const all = await Promise.all(clients.map((client) => planClient(client, { ...common, config })))
  const chosen = named.length === 0 ? all : chooseServers(all, named, { values, config })
  assertOneListens(values, chosen.length)
  return chosen
}

export interface PlanContext {
  readonly config: NodeConfig | undefined
  readonly domains: readonly DomainPlugin[]
  /** The server that is meant where none is named. Default: one on this machine. */
  readonly login?: (() => Promise<Login | undefined>) | undefined
}

/** The server of `symport login`. What reads it is loaded where there was one. */
export async function loadLogin(state: StateFolder): Promise<Login | undefined> {
  if (!existsSync(state.file(LOGIN_FILE))) return undefined
  const { readLogin } = await import('./login.ts')
  return await readLogin(state)
}

/**
 * For a command that has one server.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function onlyServer(plans: readonly ServerPlan[]): ServerPlan {
  const [plan, another] = plans
  if (plan !== undefined && another === undefined) return plan
  const known = [...new Set(plans.map(({ place }) => place.name))]
  // Entries of one server differ in what they listen on, and not in how to get there.
  if (plan !== undefined && known.length === 1) return plan
  throw usage(`the file has ${known.length} servers: say which with --server (${known.slice(0, 5).join(', ')})`)
}

type Named = readonly [flag: string, text: string]

function namedServers({ host, server }: PlanValues, positionals: readonly string[]): Named[] {
  const urls = positionals.map((text): Named => ['the server', text])
  const [flag, another] = [
    ...(host === undefined ? [] : [['--host', host] as const]),
    ...(server === undefined ? [] : [['--server', server] as const]),
  ]
  if (flag !== undefined && another !== undefined) throw usage('--host and --server are both given: keep one')
  if (flag !== undefined && urls.length > 0) {
    throw usage(`the server is named with ${flag[0]} and without: keep one, or write several URLs without a flag`)
  }
  return flag === undefined ? urls : [flag]
}

/** A port of this machine can lead to one server only. */
function assertOneListens(values: PlanValues, servers: number): void {
  if (servers < 2) return
  for (const [flag, name] of LOCAL_FLAGS) {
    if (values[name].length === 0) continue
    throw usage(
      `${flag} with ${servers} servers: connections could go to one of them only. ` +
        'Say which in a file, with a [[client]] for each server (doc/config.md), or run a node for each',
    )
  }
}

interface Common {
  readonly values: PlanValues
  readonly domains: readonly DomainPlugin[]
  readonly secret: string | undefined
  readonly secretAdvice?: string | undefined
}

function planNamed(place: Place, { values, domains, secret, secretAdvice }: Common): ServerPlan {
  return {
    ...{ place, secret, ...identityOf(values.id) },
    secretAdvice: secretAdvice ?? '"symport uuid" on the server shows the command line',
    listeners: [...parseSpecs(values.listener, domains, 'local'), ...parseDynamic(values.dynamic, domains)],
    peerListeners: parseSpecs(values.peer_listener, domains, 'remote'),
    dial: patternsOf(values.allow),
  }
}

/** As `symport login` was told, but for what this command line says. */
async function planLogin({ server, id, ca, pin, proxy }: Login, common: Common): Promise<ServerPlan> {
  const { values } = common
  const verify = values.ca === undefined && values.pin === undefined ? { ca, pin } : values
  const all = { ...values, id: values.id ?? id, proxy: values.proxy ?? proxy, ca: verify.ca, pin: verify.pin }
  const dialling = await parseDialFlags(all)
  const place = parsePlace(server, 'the server of "symport login"', { port: undefined, dialling })
  return planNamed(place, { ...common, values: all, secretAdvice: '"symport login" asks for it' })
}

/** What an entry of a file leaves out is as for all of them. */
async function planClient(
  client: ClientEntry,
  { values, domains, secret, config }: Common & { config: NodeConfig },
): Promise<ServerPlan> {
  const where = `${config.path}: ${client.key}`
  const own = { uuid: client.secret, 'uuid-file': client.uuidFile }
  const ownVerify = client.ca !== undefined || client.pin !== undefined
  const { ca, pin } = ownVerify ? client : values
  const proxy = client.proxy ?? values.proxy
  return await inFile(where, async () => ({
    place: parsePlace(
      client.server ?? '127.0.0.1',
      'server',
      placeOptions(client.server === undefined ? values : undefined, await parseDialFlags({ ca, pin, proxy })),
    ),
    ...identityOf(client.id ?? values.id),
    secret: own.uuid === undefined && own['uuid-file'] === undefined ? secret : await givenSecret(own),
    secretAdvice: client.secretAdvice,
    listeners: [
      ...parseSpecs([...client.local, ...values.listener], domains, 'local'),
      ...parseDynamic([...client.dynamic, ...values.dynamic], domains),
    ],
    peerListeners: parseSpecs([...client.remote, ...values.peer_listener], domains, 'remote'),
    dial: patternsOf(client.allow.length > 0 ? client.allow : values.allow),
  }))
}

/** Of the servers of a file those that the command line names. */
function chooseServers(
  all: readonly ServerPlan[],
  named: readonly Named[],
  { values, config }: { values: PlanValues; config: NodeConfig },
): ServerPlan[] {
  const names = new Set<string>()
  for (const [flag, text] of named) {
    const { name } = parsePlace(text, flag, placeOptions(values, undefined))
    if (!all.some(({ place }) => place.name === name)) {
      const known = [...new Set(all.map(({ place }) => place.name))].slice(0, 5).join(', ')
      throw usage(`${flag}: ${config.path} has no server ${name}: it has ${known}`)
    }
    names.add(name)
  }
  return all.filter(({ place }) => names.has(place.name))
}

function placeOptions(
  values: { readonly port: string | undefined } | undefined,
  dialling: DialSettings | undefined,
): { port: number | undefined; dialling: DialSettings | undefined } {
  return { port: values?.port === undefined ? undefined : toPort(values.port, 'port'), dialling }
}

function identityOf(name: string | undefined): Pick<ServerPlan, 'id' | 'name'> {
  return { id: checkId(name ?? hostname().slice(0, 64)), name }
}

function checkId(id: string): string {
  if (id !== '' && Buffer.byteLength(id) <= 64 && !/[\p{C}\p{Z}]/u.test(id)) return id
  throw usage('--id: a name has 1 to 64 bytes, and no spaces')
}

function patternsOf(allow: readonly string[]): ServerPlan['dial'] {
  return allow.length > 0 ? parsePatterns(allow) : 'any'
}

/** Says where in the file it is that something is wrong. */
async function inFile<T>(where: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    // Parsers of flags begin with the name of the flag.
    const message = ProxyError.from(error, 'PROXY_ERR_CONFIG').message.replace(/^--([a-z-]*): /, '$1: ')
    throw new ProxyError('PROXY_ERR_CONFIG', `${where}: ${message}`, { cause: error })
  }
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
