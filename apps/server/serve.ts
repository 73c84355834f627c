import { type Admin, startAdmin } from '../../lib/admin/admin.ts'
import { type Credential, ProxyError, readToken } from '../../lib/core/index.ts'
import { createServer, type SymportServer } from '../../lib/create-server.ts'
import type { Spec } from '../../lib/domains/spec.ts'
import { ChannelNames } from '../../lib/hub/channel-names.ts'
import { channelRelay } from '../../lib/hub/channels.ts'
import { Feed } from '../../lib/hub/feed.ts'
import { Identities } from '../../lib/hub/identities.ts'
import type { MappingRequest } from '../../lib/hub/operations.ts'
import { isReservedHost, Publisher } from '../../lib/hub/publisher.ts'
import { Statistics } from '../../lib/hub/statistics.ts'
import { Operator } from '../../lib/operator.ts'
import type { OwnNames } from '../../lib/policy/names.ts'
import { wspReachText } from '../../lib/policy/reach.ts'
import { loadCertificates } from '../../lib/store/certificates.ts'
import { isGuessable } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { version } from '../cli/version.ts'
import type { AcmeSettings } from '../common/acme-flags.ts'
import type { CaddySettings } from '../common/caddy-flags.ts'
import type { FlagValue, ServerConfig } from '../common/config.ts'
import type { PublicDomain } from '../common/domain.ts'
import { logEvents } from '../common/events.ts'
import { isLoopbackHost, warnExposed } from '../common/identity.ts'
import { checkLogLevel, type Logger } from '../common/log.ts'
import { parseTimes } from '../common/options.ts'
import type { ListenSettings } from '../common/transport-flags.ts'
import type { Place } from '../common/transports.ts'
import { stopSignal, untilStopped } from '../common/until-stopped.ts'
import { openHttps } from './https.ts'
import { LivePolicy } from './live-policy.ts'
import type { OperatorSettings } from './operator-flags.ts'
import { allowedNames, allowedPorts, givesNames, policyOf, wspAllow } from './policy.ts'
import { PublicPlaces } from './public-places.ts'
import { serverSecret } from './secret.ts'
import type { ServerDomains } from './server-domains.ts'
import { tellDomain, tellNames, tellNode } from './tell-node.ts'

/** The flags that are read here: some of them may change while the server runs. */
export interface ServerValues {
  readonly listener: string[]
  readonly balance: boolean
  readonly allow: string[]
  readonly 'allow-ports': string | undefined
  readonly 'allow-names': string[]
  readonly 'enrolled-only': boolean
  readonly 'drain-timeout': string | undefined
  readonly 'resume-timeout': string | undefined
  readonly keepalive: string | undefined
  readonly 'log-level': string | undefined
  readonly config: string | undefined
}

/** A command line that is known to be good. */
export interface ServeOptions<Values> extends Omit<ListenSettings, 'onePort'>, OperatorSettings {
  readonly onePort: Omit<ListenSettings['onePort'], 'path'> & { readonly path: readonly string[] }
  /** What the command line says, and the same completed by the file. */
  readonly flags: Values
  readonly values: Values
  readonly config: ServerConfig | undefined
  readonly domains: ServerDomains
  readonly listeners: readonly Spec[]
  readonly configured: readonly MappingRequest[]
  readonly peerListeners: readonly Spec[]
  readonly place: Place
  /** Below it nodes get names. */
  readonly domain: PublicDomain | undefined
  /** Where its certificates come from, if they come by themselves. */
  readonly acme: AcmeSettings | undefined
  /** What serves the names in front, if anything does. */
  readonly caddy: CaddySettings | undefined
  readonly given: string | undefined
  /** What is made of the secret that is most likely the one: it is under way. */
  readonly credential: { readonly secret: string; readonly made: Promise<Credential> } | undefined
  readonly state: StateFolder
  /** Whether others could read the secret that is kept there. */
  readonly exposed: boolean
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
  const { flags, values, config, place, domain, given, state, log, listeners } = options
  const enrolledOnly = values['enrolled-only']
  let times = parseTimes(values)
  const wsp = config?.wsp
  const { onePort } = options
  const paths = onePort.path
  // A WebSocket at `/` leaves all other requests there to whoever has the name.
  const own: OwnNames = {
    paths: paths.filter((path) => path !== '/'),
    hosts: [wsp?.ownName, domain?.host].filter((host) => host !== undefined),
    reserved: (host) => isReservedHost(host, domain?.host),
    tls: (host) => host === place.host || certificates.says(host),
  }
  const policy = new LivePolicy(policyOf(values, { own, wsp, domain }))
  const identity = await serverSecret(state, given)
  warnExposed(log, state.path, options.exposed || identity.exposed)
  if (!enrolledOnly && !readToken(identity.secret) && isGuessable(identity.secret) && !isLoopbackHost(place.host)) {
    log.warn('this secret can be guessed by whoever watches a connection: leave --uuid out to get a strong one')
  }
  let server: SymportServer | undefined
  const identities = await Identities.open(state, { serverKey: async () => identity.publicKey, ownNames: own })
  identities.defaultLimits = config?.nodeLimits ?? {}
  await using names = await ChannelNames.open(state, { identities, onProblem: problemsTo(log) })
  await using statistics = await Statistics.open(state, {
    onProblem: problemsTo(log),
    ignore: (sub) => server?.mappings.isCheck(sub) ?? false,
  })
  const certificates = await loadCertificates(state, {
    ...{ cert: options.cert, key: options.key },
    names: [place.host, ...(domain ? [domain.host, `*.${domain.host}`] : [])],
    onWarning: (message) => log.warn(message),
    onReload: (message) => log.info(message),
  })
  using _ = { [Symbol.dispose]: () => certificates.close() }

  const { domains, web, tlsNames, channels } = options.domains
  const trustedProxies = onePort.trustedProxies
  await using caddy =
    options.caddy &&
    (await import('./caddy.ts')).openCaddy({
      ...{ settings: options.caddy, web, place, publicKey: identity.publicKey, trustedProxies, log },
    })
  await using https = await openHttps({
    ...{ state, acme: options.acme, certificates, domain: domain?.host, log },
    isName: (name) => web.hasHost(name),
    onRequest: caddy?.onRequest ?? web.onRequest,
    route: tlsNames.route,
  })
  const places = new PublicPlaces(place, {
    domain,
    isTrusted: (host) => certificates.covers(host) || https.isTrusted(host),
    front: caddy,
  })

  const feed = new Feed()
  feed.subscribe(logEvents(log, 'server', listeners.length > 0))
  feed.subscribe((event) => {
    if (event.type === 'connected') statistics.connected(event.peer)
    if (event.type === 'disconnected') statistics.disconnected(event.peer)
    if (event.type !== 'listening') return
    places.listening(event.address)
    https.listening()
    caddy?.listening(event.address)
    if (domain) tellDomain(log, domain, allowedNames(values, domain))
    if (givesNames(values, wsp)) tellNames(log, place, event.address)
    if (given || enrolledOnly) return
    void tellNode(log, place, { address: event.address, path: paths[0], certificates }, identity)
  })
  let reach = wsp && wspReachText(wspAllow(values, wsp), values['allow-names'])
  if (reach !== undefined) log.info(reach)
  const { configured, peerListeners, onDuplicate } = options
  using _web = { [Symbol.dispose]: () => web.close() }
  let ports = allowedPorts(values)
  await using publisher = await Publisher.open(state, {
    ...{ domain: domain?.host, domains, identities, onProblem: problemsTo(log) },
    bind: place.port === undefined ? '' : place.host,
    ports: () => ports,
    placeOf: (host, tls) => places.of(host, tls),
  })
  const running = await createServer({
    listen: (onLink) =>
      place.listen(onLink, {
        ...onePort,
        ...{ onUpgrade: caddy?.onUpgrade ?? web.onUpgrade, claims: web.claims, routes: tlsNames.takes },
        ...https.options,
        onRejected: (remote, reason) => feed.tell({ type: 'rejected', remote, reason }),
      }),
    credential: options.credential?.secret === identity.secret ? options.credential.made : undefined,
    ...{ secret: identity.secret, staticKey: identity.staticKey, identities, enrolledOnly, onDuplicate },
    ...{ listeners, configured, peerListeners, balance: values.balance, domains, policy, folder: state },
    policyFor: (main) => names.policyFor(main, publisher.policyFor(policy)),
    domainsFor: (...peer) => publisher.domainsFor(...peer),
    relay: channelRelay({ way: channels.open }),
    ...{ keepalive: times.keepalive, resumeTimeout: times.resumeTimeout },
    trustedProxies: onePort.trustedProxies?.filter((net) => net !== 'unix'),
    ...config?.options,
    onOpened: (sub, opened) => statistics.opened(sub, opened),
    figures: (mapping) => statistics.mapping(mapping),
    usage: statistics,
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
          prepare(next, file) {
            // What has become a file of symport's own has none of wsp's generosity, at once.
            const as = wsp && (file.wsp ?? { allow: [] })
            const rules = policyOf(next, { own, wsp: as, domain })
            const nextPorts = allowedPorts(next)
            const nextReach = as && wspReachText(wspAllow(next, as), next['allow-names'])
            const [durations, level] = [parseTimes(next), checkLogLevel(next['log-level'])]
            return () => {
              policy.become(rules)
              identities.defaultLimits = file.nodeLimits ?? {}
              ports = nextPorts
              if (nextReach !== undefined && nextReach !== reach) log.info(nextReach)
              reach = nextReach
              times = durations
              log.level = level
            }
          },
        })
  const pin = (): Promise<string | undefined> => certificates.fingerprint()
  const operator = new Operator({
    ...{ server, identities, statistics, feed, version: await version(), reload, pin },
    certificates: () => https.list(),
    inspection: () => web.inspection(),
    webFigures: web.figures,
  })
  admin.serve(operator)
  if (admin.address !== undefined) log.info({ address: admin.address }, 'admin API ready')
  onHangUp(log, async () => {
    await certificates.reload()
    // A disk that is full must not keep the configuration from being read.
    await https.retry().catch(problemsTo(log))
    if (!reload) return { changes: [], restart: [] }
    return await admin.audit.record({ by: 'reload', action: 'config.reload', subject: '' }, reload, problemsTo(log))
  })
  return await untilStopped(running, { stop, timeout: () => times.drainTimeout, log })
}

function problemsTo(log: Logger): (error: ProxyError) => void {
  return (error) => log.warn({ code: error.code }, error.message)
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
