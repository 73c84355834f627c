import { hostname } from 'node:os'
import { type DomainPlugin, ProxyError } from '../../lib/core/index.ts'
import { createNode } from '../../lib/create-node.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { keepSecret, loadNodeKey, readSecret, secretFileFor } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { parseAdminAddress } from '../common/admin-address.ts'
import { command, type Runnable } from '../common/command.ts'
import { applyConfig, CONFIG_FLAG } from '../common/config-flag.ts'
import { logEvents } from '../common/events.ts'
import { toPort } from '../common/flags.ts'
import { isLoopbackHost, stateFolder, warnExposed } from '../common/identity.ts'
import { checkLogLevel, createLog } from '../common/log.ts'
import { COMMON_FLAGS, createDomains, parsePatterns, parseSpecs, parseTimes } from '../common/options.ts'
import { askSecret, givenSecret } from '../common/secret.ts'
import { DIAL_FLAGS, type DialSettings, parseDialFlags } from '../common/transport-flags.ts'
import { DEFAULT_PORT, type Place, parsePlace } from '../common/transports.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'
import { observe } from './observe.ts'

const FLAGS = [
  { name: 'host', kind: 'string', value: 'HOST', help: 'The server: host, host:port or a URL. Default: 127.0.0.1.' },
  { name: 'port', kind: 'string', value: 'PORT', help: `Default: ${DEFAULT_PORT}.` },
  {
    name: 'server',
    kind: 'string',
    value: 'URL',
    help: 'The same as --host, as a URL: tcp://host:port, tls://host:port, wss://host/symport, ws:// or unix:///path.',
  },
  {
    name: 'id',
    kind: 'string',
    value: 'NAME',
    help: 'What this node calls itself. Default: the name of this machine.',
  },
  {
    name: 'listener',
    alias: 'L',
    kind: 'list',
    value: 'SPEC',
    help: 'This side listens, the server forwards (if it allows).',
  },
  {
    name: 'peer_listener',
    alias: 'R',
    kind: 'list',
    value: 'SPEC',
    help: 'The server listens (if it allows), this side forwards.',
  },
  ...DIAL_FLAGS,
  {
    name: 'admin',
    kind: 'string',
    value: 'ADDR',
    help: 'Serve "symport status", the API and /metrics of this node here, for whoever has the token in the state folder, and on a socket there: 127.0.0.1:9251.',
  },
  CONFIG_FLAG,
  ...COMMON_FLAGS,
] as const

const node: Runnable = command({
  usage: 'symport node [flags] [URL]',
  summary: 'Connects to a server and stays connected; the server maps ports to here.',
  flags: FLAGS,
  examples: [
    'symport node --host server.example.com --uuid-file secret.txt',
    '# through nothing but a web port, with a proxy on the way out',
    'symport node --server wss://server.example.com/symport --proxy http://proxy.corp:3128',
    '# reach the database of the server as if it were here (the server runs with --allow 127.0.0.1:5432)',
    'symport node --host server.example.com -L 5432:127.0.0.1:5432',
    '# only the remote desktop may be reached through this node',
    'symport node --host server.example.com --allow 127.0.0.1:3389',
  ],
  async run(flags, positionals) {
    const { values, config } = await applyConfig('node', flags, { named: positionals.length > 0 })
    // All of the command line is known to be good before anything is bound or dialled.
    const domains: DomainPlugin[] = createDomains()
    const listeners = parseSpecs(values.listener, domains)
    const peerListeners = parseSpecs(values.peer_listener, domains)
    const place = serverPlace(values, positionals, await parseDialFlags(values))
    const dial = values.allow.length > 0 ? parsePatterns(values.allow) : 'any'
    const { drainTimeout: timeout, ...times } = parseTimes(values)
    const tcp = parseAdminAddress(values.admin)
    const id = checkId(values.id ?? hostname().slice(0, 64))
    const given = await givenSecret(values)
    const state = stateFolder(values.state)
    checkLogLevel(values['log-level'])

    const found = given === undefined ? await findSecret(state, place) : { secret: given, exposed: false }
    const log = await createLog(values)
    for (const warning of config?.warnings ?? []) log.warn(warning)
    const { privateKey, exposed } = await loadNodeKey(state)
    warnExposed(log, state.path, found.exposed || exposed)
    const stop = stopSignal()
    await using observer = tcp && (await observe({ tcp, folder: state, server: place.name, log }))
    const onEvent = logEvents(log, 'node', false)
    const node = await createNode({
      dial: (options) => place.dial(options),
      server: place.name,
      secret: found.secret,
      id,
      name: values.id,
      identity: privateKey,
      listeners,
      peerListeners,
      domains,
      ...times,
      ...config?.options,
      policy: createPolicy({ dial, listenPorts: 'any' }),
      ...observer?.hooks,
      onEvent(event) {
        onEvent(event)
        observer?.hooks.onEvent(event)
      },
    })
    observer?.serve(node)
    return await untilStopped(node, { stop, timeout: () => timeout, log })
  },
})

export default node

function serverPlace(
  values: { host: string | undefined; server: string | undefined; port: string | undefined },
  positionals: readonly string[],
  dialling: DialSettings,
): Place {
  const named = [
    ...(values.host === undefined ? [] : [['--host', values.host] as const]),
    ...(values.server === undefined ? [] : [['--server', values.server] as const]),
    ...positionals.map((text) => ['the server', text] as const),
  ]
  if (named.length > 1) throw new ProxyError('PROXY_ERR_USAGE', `the server is named ${named.length} times: keep one`)
  const [flag, text] = named[0] ?? ['--host', '127.0.0.1']
  const port = values.port === undefined ? undefined : toPort(values.port, 'port')
  return parsePlace(text, flag, { port, dialling })
}

function checkId(id: string): string {
  if (id !== '' && Buffer.byteLength(id) <= 64 && !/[\p{C}\p{Z}]/u.test(id)) return id
  throw new ProxyError('PROXY_ERR_USAGE', '--id: a name has 1 to 64 bytes, and no spaces')
}

/** What was kept for this server, the secret of a server on this machine, or what a person types. */
async function findSecret(state: StateFolder, place: Place): Promise<{ secret: string; exposed: boolean }> {
  const file = secretFileFor(place.name)
  const kept = await readSecret(state, file)
  if (kept) return kept
  const local = place.port === undefined || isLoopbackHost(place.host) ? await readSecret(state) : undefined
  if (local) return local
  const secret = await askSecret(`Secret of ${place.name} ("symport uuid" on the server shows it): `)
  if (secret === undefined) {
    throw new ProxyError(
      'PROXY_ERR_SECRET',
      `the secret of ${place.name} is missing: "symport uuid" on the server shows the command line`,
    )
  }
  await keepSecret(state, secret, file)
  return { secret, exposed: false }
}
