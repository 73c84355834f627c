import { createHash } from 'node:crypto'
import { type Endpoint, ProxyError } from '../../lib/core/index.ts'
import type { HttpSettings } from '../../lib/domains/http-settings.ts'
import { formatPublic, PUBLIC, readLabel } from '../../lib/domains/public-address.ts'
import type { ProxyVersion } from '../../lib/domains/tcp-address.ts'
import { command, type Runnable } from '../common/command.ts'
import { applyConfig, CONFIG_FLAG } from '../common/config-flag.ts'
import { type Flag, type StringFlag, toPort } from '../common/flags.ts'
import { withHttpFlags } from '../common/http-flags.ts'
import { stateFolder } from '../common/identity.ts'
import { checkLogLevel, STDERR_LOG_FLAGS } from '../common/log.ts'
import { createDomains, parseTimes } from '../common/options.ts'
import { askSecret, SECRET_FLAGS } from '../common/secret.ts'
import { DIAL_FLAGS } from '../common/transport-flags.ts'
import { stopSignal } from '../common/until-stopped.ts'
import { findSecrets } from '../node/find-secrets.ts'
import { loadLogin, onlyServer, planServers } from '../node/plan.ts'
import { SERVER_FLAGS } from '../node/server-flags.ts'
import { FRONT_FLAGS, readFrontFlags } from './front-flags.ts'
import { type PublishKind, readPublishTarget } from './publish-target.ts'

const FLAGS = [
  ...SERVER_FLAGS,
  ...DIAL_FLAGS,
  ...SECRET_FLAGS,
  CONFIG_FLAG,
  { name: 'state', kind: 'string', value: 'DIR', help: 'The folder for the key of this node, and secrets of servers.' },
  {
    name: 'drain-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long open connections may take to finish at the end. Default: 30s.',
  },
  {
    name: 'resume-timeout',
    kind: 'string',
    value: 'TIME',
    help: 'How long open connections wait for a lost link to come back; 0s: not at all. Default: 120s.',
  },
  {
    name: 'keepalive',
    kind: 'string',
    value: 'TIME',
    help: 'The server is asked for a sign of life after this long in silence; 10 s later the link is lost. Default: 15s.',
  },
  ...STDERR_LOG_FLAGS,
] as const

const JSON_FLAG: Flag & { readonly name: 'json'; readonly kind: 'boolean' } = {
  name: 'json',
  kind: 'boolean',
  help: 'What is told on standard output is JSON, an object on each line.',
}
const NAME_FLAG: StringFlag<'name'> = {
  name: 'name',
  kind: 'string',
  value: 'NAME',
  help: "The name below the server's domain. Default: one that is made up, and stays the same for this node and target.",
}
const PORT_FLAG: StringFlag<'remote-port'> = {
  name: 'remote-port',
  kind: 'string',
  value: 'PORT',
  help: 'The port at the server, which has to allow it (--allow-ports). Default: any that it allows.',
}

/** What the file of a node may say besides, and what is not for these commands. */
const NOT_HERE: {
  readonly [name in 'dynamic' | 'listener' | 'peer_listener' | 'allow']: readonly string[]
} & { readonly admin: undefined } = { dynamic: [], listener: [], peer_listener: [], allow: [], admin: undefined }

/** `symport http` */
export const http: Runnable = withHttpFlags(
  command({
    usage: 'symport http [flags] TARGET',
    summary: 'Publishes a web service of this side: prints its public URL, and a line for each request.',
    flags: [NAME_FLAG, ...FRONT_FLAGS, JSON_FLAG, ...FLAGS],
    examples: [
      '# once: keeps the server and its secret; then no more flags are needed',
      'symport login tcp://server.example.com:925',
      'symport http 3000',
      '# https://checkout.example.com, on a server with --domain example.com',
      'symport http 3000 --name checkout',
      '# another machine, a path of it, or a service that speaks TLS',
      'symport http http://192.168.1.5:8080/app/',
      "symport http 'https://127.0.0.1:8443?verify=off'",
      '# behind a password, and for a development server that wants to be asked by its own name',
      'symport http 3000 --basic-auth ann:correct-horse --host-header rewrite',
    ],
    run: async (flags, positionals) => {
      const name = flags.name === undefined ? undefined : checkName(flags.name)
      return await publish('http', flags, positionals, { name }, { http: await readFrontFlags(flags) })
    },
  }),
)

const TLS_NAME_FLAG: StringFlag<'name'> = {
  name: 'name',
  kind: 'string',
  value: 'NAME',
  help: "Of a service that speaks TLS from its first byte: the name below the server's domain, at the server's own port.",
}

const PROXY_FLAG: StringFlag<'proxy-protocol'> = {
  name: 'proxy-protocol',
  kind: 'string',
  value: 'v2',
  help: "The target gets a PROXY header with the visitor's address first: v2, or v1. It has to expect it.",
}

/** `symport tcp` */
export const tcp: Runnable = command({
  usage: 'symport tcp [flags] TARGET',
  summary: 'Publishes a TCP port of this side at a port of the server.',
  flags: [PORT_FLAG, TLS_NAME_FLAG, PROXY_FLAG, JSON_FLAG, ...FLAGS],
  examples: [
    '# ssh -p 9000 server.example.com, on a server with --allow-ports 9000-9999',
    'symport tcp 22 --remote-port 9000 --server tcp://server.example.com:925',
    'symport tcp 192.168.1.5:5432',
    '# tls://db.example.com, on a server with --domain example.com: what ends TLS itself, and is passed on undecrypted',
    'symport tcp 8443 --name db',
  ],
  run: (flags, positionals) =>
    publish('tcp', flags, positionals, tcpWanted(flags), { proxy: proxyOf(flags['proxy-protocol']) }),
})

/** `symport udp` */
export const udp: Runnable = command({
  usage: 'symport udp [flags] TARGET',
  summary: 'Publishes a UDP port of this side at a port of the server.',
  flags: [PORT_FLAG, JSON_FLAG, ...FLAGS],
  examples: ['symport udp 51820 --remote-port 9051 --server tcp://server.example.com:925'],
  run: (flags, positionals) => publish('udp', flags, positionals, portOf(flags)),
})

type Values = { readonly [name in (typeof FLAGS)[number]['name']]: string | undefined } & { readonly json: boolean }

interface Wanted {
  /** What the server has to make of it, if that is not what the command says. */
  readonly kind?: 'tls'
  readonly name?: string | undefined
  readonly port?: number | undefined
}

/** What is between visitors and the target on this side, of which the server knows nothing. */
interface Extras {
  readonly http?: HttpSettings | undefined
  readonly proxy?: ProxyVersion | undefined
}

async function publish(
  kind: PublishKind,
  flags: Values,
  positionals: readonly string[],
  wanted: Wanted,
  { http, proxy }: Extras = {},
): Promise<number> {
  const [text, another] = positionals
  if (text === undefined || another !== undefined) {
    const given = another === undefined ? '' : `, and not ${positionals.slice(0, 2).map(quoted).join(' and ')}`
    throw usage(`symport ${kind} takes one target: a port, host:port${kind === 'http' ? ' or a URL' : ''}${given}`)
  }
  const plain = readPublishTarget(kind, text)
  const { Domain, Addr } = plain.forward
  const target = proxy === undefined ? plain : { ...plain, forward: { Domain, Addr: `${Addr}?proxy=${proxy}` } }
  // Those of the file are about the node that runs with it.
  const logging = { 'log-level': flags['log-level'] ?? 'warn', 'log-file': flags['log-file'] }
  checkLogLevel(logging['log-level'])
  const { values, config } = await applyConfig('node', { ...flags, ...NOT_HERE })
  const nodeConfig = config?.role === 'node' ? config : undefined
  const state = stateFolder(values.state)
  const domains = createDomains()
  const plans = await planServers({ ...values, ...NOT_HERE }, [], {
    config: nodeConfig,
    domains,
    login: () => loadLogin(state),
  })
  const plan = onlyServer(plans)
  const times = parseTimes(values)
  const stop = stopSignal()
  const secretAdvice = nodeConfig ? plan.secretAdvice : '"symport login URL" keeps a server and its secret'
  const { ready, exposed } = await findSecrets([{ ...plan, secretAdvice }], state, askSecret)
  const [only] = ready
  if (only === undefined) return 1
  const at = formatPublic({ kind, base: target.base, use: useOf(kind, plain.forward), ...wanted })
  const { runPublished } = await import('./run-published.ts')
  return await runPublished(only, {
    ...{ target, http, listen: { Domain: PUBLIC, Addr: at }, state, exposed, stop, json: flags.json, logging },
    ...{ warnings: config?.warnings ?? [], limits: config?.options.limits, times },
  })
}

/** In no words that the server could read: where it leads to is nothing to it. */
function useOf(kind: PublishKind, { Domain, Addr }: Endpoint): string {
  return createHash('sha256').update(`${kind} ${Domain} ${Addr}`).digest('base64url').slice(0, 22)
}

function checkName(name: string): string {
  try {
    return readLabel(name)
  } catch (error) {
    throw usage(`--name: ${error instanceof Error ? error.message : error}`)
  }
}

function portOf(flags: { readonly 'remote-port': string | undefined }): { readonly port: number | undefined } {
  const text = flags['remote-port']
  return { port: text === undefined ? undefined : toPort(text, 'remote-port') }
}

function proxyOf(version: string | undefined): ProxyVersion | undefined {
  if (version === undefined || version === 'v1' || version === 'v2') return version
  throw usage('--proxy-protocol: v2 is known, and v1')
}

/** With a name it is one of those who are told apart by what a client of TLS says first. */
function tcpWanted(flags: { readonly 'remote-port': string | undefined; readonly name: string | undefined }): Wanted {
  if (flags.name === undefined) return portOf(flags)
  if (flags['remote-port'] !== undefined) {
    throw usage("--name and --remote-port exclude each other: a name is at the server's own port")
  }
  return { kind: 'tls', name: checkName(flags.name) }
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 40))
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
