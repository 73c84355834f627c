import { type Admin, startAdmin } from '../../lib/admin/admin.ts'
import { type DomainPlugin, type Policy, ProxyError, readToken } from '../../lib/core/index.ts'
import { createServer, type SymportServer } from '../../lib/create-server.ts'
import type { Spec } from '../../lib/domains/spec.ts'
import { Feed } from '../../lib/hub/feed.ts'
import { Identities } from '../../lib/hub/identities.ts'
import type { MappingRequest } from '../../lib/hub/operations.ts'
import { Statistics } from '../../lib/hub/statistics.ts'
import { Operator } from '../../lib/operator.ts'
import { parsePortRanges } from '../../lib/policy/patterns.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { loadCertificates } from '../../lib/store/certificates.ts'
import { isGuessable } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { version } from '../cli/version.ts'
import type { FlagValue, NodeConfig, ServerConfig } from '../common/config.ts'
import { logEvents } from '../common/events.ts'
import { isLoopbackHost, warnExposed } from '../common/identity.ts'
import { checkLogLevel, type Logger } from '../common/log.ts'
import { parsePatterns, parseTimes } from '../common/options.ts'
import type { ListenSettings } from '../common/transport-flags.ts'
import type { Place } from '../common/transports.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'
import { LivePolicy } from './live-policy.ts'
import type { OperatorSettings } from './operator-flags.ts'
import { serverSecret } from './secret.ts'
import { tellNode } from './tell-node.ts'

/** The flags that are read here: some of them may change while the server runs. */
export interface ServerValues {
  readonly listener: string[]
  readonly balance: boolean
  readonly allow: string[]
  readonly 'allow-ports': string | undefined
  readonly 'enrolled-only': boolean
  readonly 'drain-timeout': string | undefined
  readonly 'resume-timeout': string | undefined
  readonly keepalive: string | undefined
  readonly 'log-level': string | undefined
  readonly config: string | undefined
}

/** A command line that is known to be good. */
export interface ServeOptions<Values> extends ListenSettings, OperatorSettings {
  /** What the command line says, and the same completed by the file. */
  readonly flags: Values
  readonly values: Values
  readonly config: ServerConfig | NodeConfig | undefined
  readonly domains: readonly DomainPlugin[]
  readonly listeners: readonly Spec[]
  readonly configured: readonly MappingRequest[]
  readonly peerListeners: readonly Spec[]
  readonly place: Place
  readonly given: string | undefined
  readonly state: StateFolder
  readonly log: Logger
}

/** Runs a server until it is stopped. Answers the exit status. */
export async function serve<Values extends ServerValues & { readonly [name in keyof Values]: FlagValue }>(
  options: ServeOptions<Values>,
): Promise<number> {
  const { state, log } = options
  for (const warning of options.config?.warnings ?? []) log.warn(warning)
  const stop = stopSignal()
  // First of all: it keeps others from using the state folder.
  const admin = await startAdmin({
    ...{ folder: state, tcp: options.admin, webhook: options.webhook, onError: problemsTo(log) },
    onWarning: (message) => log.warn(message),
  })
  try {
    return await serveWith(admin, options, stop)
  } finally {
    await admin.close()
  }
}

async function serveWith<Values extends ServerValues & { readonly [name in keyof Values]: FlagValue }>(
  admin: Admin,
  options: ServeOptions<Values>,
  stop: Promise<NodeJS.Signals>,
): Promise<number> {
  const { flags, values, config, place, given, state, log, onePort, listeners } = options
  const enrolledOnly = values['enrolled-only']
  let times = parseTimes(values)
  const policy = new LivePolicy(policyOf(values))
  const identity = await serverSecret(state, given)
  warnExposed(log, state.path, identity.exposed)
  if (!enrolledOnly && !readToken(identity.secret) && isGuessable(identity.secret) && !isLoopbackHost(place.host)) {
    log.warn('this secret can be guessed by whoever watches a connection: leave --uuid out to get a strong one')
  }
  let server: SymportServer | undefined
  const identities = await Identities.open(state, { serverKey: async () => identity.publicKey })
  await using statistics = await Statistics.open(state, {
    onProblem: problemsTo(log),
    ignore: (sub) => server?.mappings.isCheck(sub) ?? false,
  })
  const certificates = await loadCertificates(state, {
    ...{ cert: options.cert, key: options.key, names: [place.host] },
    onWarning: (message) => log.warn(message),
    onReload: (message) => log.info(message),
  })
  using _ = { [Symbol.dispose]: () => certificates.close() }

  const feed = new Feed()
  feed.subscribe(logEvents(log, 'server', listeners.length > 0))
  feed.subscribe((event) => {
    if (event.type === 'connected') statistics.connected(event.peer)
    if (event.type === 'disconnected') statistics.disconnected(event.peer)
    if (event.type === 'listening' && !given && !enrolledOnly) {
      void tellNode(log, place, { address: event.address, path: onePort.path, certificates }, identity)
    }
  })
  const { configured, peerListeners, domains, onDuplicate } = options
  const running = await createServer({
    listen: (onLink) =>
      place.listen(onLink, {
        ...onePort,
        tls: () => certificates.context(),
        onRejected: (remote, reason) => feed.tell({ type: 'rejected', remote, reason }),
      }),
    ...{ secret: identity.secret, staticKey: identity.staticKey, identities, enrolledOnly, onDuplicate },
    ...{ listeners, configured, peerListeners, balance: values.balance, domains, policy, folder: state },
    ...{ keepalive: times.keepalive, resumeTimeout: times.resumeTimeout },
    trustedProxies: onePort.trustedProxies?.filter((net) => net !== 'unix'),
    ...config?.options,
    onOpened: (sub, opened) => statistics.opened(sub, opened),
    figures: (mapping) => statistics.mapping(mapping),
    onEvent: feed.tell,
  }).catch((error) => {
    throw withAdvice(error, place)
  })
  server = running

  const reload =
    flags.config === undefined || config === undefined
      ? undefined
      : (await import('./reloading.ts')).reloader({
          ...{ flags, path: flags.config, config },
          setMappings: (requests) => running.mappings.setConfigured(requests),
          prepare(next) {
            const [rules, durations, level] = [policyOf(next), parseTimes(next), checkLogLevel(next['log-level'])]
            return () => {
              policy.become(rules)
              times = durations
              log.level = level
            }
          },
        })
  const pin = (): Promise<string | undefined> => certificates.fingerprint()
  const operator = new Operator({ server, identities, statistics, feed, version: await version(), reload, pin })
  admin.serve(operator)
  if (admin.address !== undefined) log.info({ address: admin.address }, 'admin API ready')
  onHangUp(log, async () => {
    await certificates.reload()
    if (!reload) return { changes: [], restart: [] }
    return await admin.audit.record({ by: 'reload', action: 'config.reload', subject: '' }, reload, problemsTo(log))
  })
  return await untilStopped(running, { stop, timeout: () => times.drainTimeout, log })
}

function problemsTo(log: Logger): (error: ProxyError) => void {
  return (error) => log.warn({ code: error.code }, error.message)
}

/** What nodes may ask for, beyond what is granted to one of them. */
export function policyOf(values: { allow: readonly string[]; 'allow-ports': string | undefined }): Policy {
  const dial = values.allow.length > 0 ? parsePatterns(values.allow) : 'none'
  const listenPorts = values['allow-ports'] === undefined ? 'none' : parsePortRanges(values['allow-ports'])
  return createPolicy({ dial, listenPorts })
}

/** SIGHUP applies the changed configuration file, as services expect. */
function onHangUp(
  log: Logger,
  reload: () => Promise<{ changes: readonly string[]; restart: readonly string[] }>,
): void {
  if (process.platform === 'win32') return
  process.on('SIGHUP', () => {
    reload().then(
      ({ changes, restart }) => {
        for (const change of changes) log.info(`reload: ${change}`)
        for (const change of restart) log.warn(`reload: needs a restart: ${change}`)
        if (changes.length + restart.length === 0) log.info('reload: nothing has changed')
      },
      (error: Error) => log.error(`reload: ${error.message}`),
    )
  })
}

/** What to do when the server's own port cannot be had. */
function withAdvice(error: unknown, { port }: Place): unknown {
  if (!(error instanceof ProxyError) || port === undefined || !(error.cause instanceof Error)) return error
  const code = 'code' in error.cause ? error.cause.code : undefined
  // 925 becomes 8925.
  const other = port < 1024 ? 8000 + port : port + 1
  const advice =
    code === 'EACCES' ? `: try --port ${other}` : code === 'EADDRINUSE' ? ` (another server? try --port ${other})` : ''
  return new ProxyError(error.code, `${error.message}${advice}`, { cause: error })
}
