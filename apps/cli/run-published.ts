import { type DomainPlugin, type Endpoint, ProxyError } from '../../lib/core/index.ts'
import { createNode, type NodeOptions } from '../../lib/create-node.ts'
import { formatHostPort, parseHostPort } from '../../lib/domains/address.ts'
import type { HttpSettings } from '../../lib/domains/http-settings.ts'
import { type SeenRequest, watched } from '../../lib/domains/http-watch.ts'
import type { Front } from '../../lib/domains/web-front.ts'
import type { HubEvent } from '../../lib/index.ts'
import { createPolicy } from '../../lib/policy/policy.ts'
import { loadNodeKey } from '../../lib/store/secrets.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { reportError } from '../common/command.ts'
import { logEvents } from '../common/events.ts'
import { warnExposed } from '../common/identity.ts'
import { createLog, type Logger, type LogOptions } from '../common/log.ts'
import { createDomains } from '../common/options.ts'
import { untilStopped } from '../common/until-stopped.ts'
import type { ReadyPlan } from '../node/find-secrets.ts'
import type { Observer } from '../node/observe.ts'
import { dnsAdvice } from './dns-advice.ts'
import { type PublishTarget, targetProblem } from './publish-target.ts'
import { RequestLines } from './request-lines.ts'
import { logToStderr } from './stderr-log.ts'

export interface PublishedOptions {
  readonly target: PublishTarget
  /** What stands in front of a web service. Default: nothing, and what passes is not looked into. */
  readonly http?: HttpSettings | undefined
  /** What is asked of the server. */
  readonly listen: Endpoint
  readonly state: StateFolder
  readonly exposed: boolean
  readonly warnings: readonly string[]
  readonly stop: Promise<NodeJS.Signals>
  readonly json: boolean
  readonly logging: LogOptions & { readonly 'log-level': string }
  readonly limits: NodeOptions['limits']
  readonly times: { readonly drainTimeout: number } & Pick<NodeOptions, 'keepalive' | 'resumeTimeout'>
}

/** No later try will do better; of what has been good before the operator may think better again. */
const WRONG: ReadonlySet<string> = new Set(['PROXY_ERR_REFUSED', 'PROXY_ERR_ID_TAKEN', 'PROXY_ERR_TLS'])
/** The server will be another one soon. */
const PASSES: ReadonlySet<string> = new Set(['PROXY_ERR_DRAINING', 'PROXY_ERR_CLOSED', 'PROXY_ERR_REPLACED'])
/** What had been given can be had again, when what holds it lets go. */
const MAY_COME_BACK: ReadonlySet<string> = new Set(['PROXY_ERR_LISTEN_FAILED', 'PROXY_ERR_NAME_TAKEN'])
/** How long the target may take to answer at the start, in ms. */
const FIRST_LOOK = 3000
/** Bytes of lines that a reader may leave. */
const MOST_UNREAD = 262_144
const SCHEMES = ['http', 'https', 'tls', 'tcp', 'udp']

/** Publishes a target until it is stopped, or cannot. Answers the exit status. */
export async function runPublished(plan: ReadyPlan, options: PublishedOptions): Promise<number> {
  const { target, listen, state, stop, json, logging, limits, times } = options
  const log = logging['log-file'] === undefined ? logToStderr(logging['log-level']) : await createLog(logging)
  for (const warning of options.warnings) log.warn(warning)
  const key = await loadNodeKey(state)
  warnExposed(log, state.path, options.exposed || key.exposed)
  const onTerminal = process.stdout.isTTY === true
  const write = (text: string): void => void process.stdout.write(text)
  // A pipe that nobody reads costs lines, and neither the tunnel nor memory without end.
  const isFull = (): boolean => process.stdout.writableLength > MOST_UNREAD
  const color = onTerminal && process.env.NO_COLOR === undefined && process.env.TERM !== 'dumb'
  const lines = new RequestLines({ json, color, write, isFull })
  const isWeb = listen.Addr.startsWith('http')
  const plain = createDomains({ onWarning: (text) => log.warn(text) })
  const published = new Published({ target, host: plan.place.host, json, onTerminal, write, log })
  const served = isWeb
    ? await withWatch(plain, options, lines, () => published.isNamed)
    : { domains: plain, close: () => {} }
  const start = new AbortController()
  // However it ends, also if the node does not start at all.
  using _ = {
    [Symbol.dispose]: () => {
      start.abort()
      served.close()
    },
  }
  await using inspector = served.inspection && (await openInspector(state, plan.place.name, log, served.inspection))
  const observed = inspector?.observed[0]

  void lookAtTarget(target, plain, start.signal, log)
  const node = await createNode({
    dial: (dialOptions) => plan.place.dial(dialOptions),
    server: plan.place.name,
    ...{ secret: plan.secret, credential: plan.credential, id: plan.id, name: plan.name, identity: key.privateKey },
    ...{ domains: served.domains, limits, keepalive: times.keepalive, resumeTimeout: times.resumeTimeout },
    peerListeners: [{ Listen: listen, Forward: target.forward }],
    // It is here for one target, and for nothing else that the server may want.
    policy: createPolicy({ dial: 'none', listenPorts: 'none' }),
    ...observed?.hooks,
    onEvent(event) {
      published.onEvent(event)
      observed?.hooks.onEvent(event)
    },
  })
  observed?.started(node)
  inspector?.serve()
  const stopped = untilStopped(node, { stop, timeout: () => times.drainTimeout, log })
  const outcome = await Promise.race([stopped, published.failed])
  lines.flush()
  if (typeof outcome === 'number') return outcome
  await node.close()
  // Whatever it is, the command line is not to blame.
  reportError(outcome)
  return 1
}

interface Served {
  readonly domains: readonly DomainPlugin[]
  /** Of what is to be inspected. */
  readonly inspection?: Front['inspection'] | undefined
  close(): void
}

/** Tells of requests, and puts in front of the target what stands there. */
async function withWatch(
  domains: readonly DomainPlugin[],
  { target: { forward }, http }: Pick<PublishedOptions, 'target' | 'http'>,
  lines: RequestLines,
  isNamed: () => boolean,
): Promise<Served> {
  const own = domains.find(({ name }) => name === forward.Domain)
  const put = (plugin: DomainPlugin): DomainPlugin[] => domains.map((one) => (one === own ? plugin : one))
  if (!own) return { domains, close: () => {} }
  if (!http) return { domains: put(watched(own, lines.add)), close: () => {} }
  const { webFront } = await import('../../lib/domains/web-front.ts')
  // What answers then is in front of the target, and says nothing to visitors of why that does not.
  let failure: { readonly at: Date; readonly problem: string } | undefined
  const onFailed = ({ message }: ProxyError): void => {
    failure = { at: new Date(), problem: message }
  }
  const add = (request: SeenRequest): void => {
    const failed = request.status === 502 && failure !== undefined && failure.at >= request.at
    lines.add(failed ? { ...request, problem: request.problem ?? failure?.problem } : request)
  }
  const front: Front = await webFront(own, { settings: http, forward, isNamed, onFailed })
  const inspection = http.inspect ? () => front.inspection() : undefined
  return { domains: put(watched(front.plugin, add)), inspection, close: () => front.close() }
}

/** Lets `symport requests` look at them, at a socket of this process. */
async function openInspector(
  folder: StateFolder,
  server: string,
  log: Logger,
  inspection: Front['inspection'],
): Promise<Observer> {
  const [{ observe }, { publishSocket, removeOldSockets }] = await Promise.all([
    import('../node/observe.ts'),
    import('../../lib/admin/socket-path.ts'),
  ])
  await removeOldSockets(folder)
  return await observe({ folder, socket: publishSocket(folder), servers: [server], log, inspection })
}

/** A target may come up later: it is only said. */
async function lookAtTarget(
  target: PublishTarget,
  domains: readonly DomainPlugin[],
  signal: AbortSignal,
  log: Logger,
): Promise<void> {
  const problem = await targetProblem(target, domains, AbortSignal.any([signal, AbortSignal.timeout(FIRST_LOOK)]))
  if (problem !== undefined) log.warn(`the target does not answer yet: ${problem}`)
}

export interface PublishedContext {
  readonly target: Pick<PublishTarget, 'name'>
  /** Where the node has found the server. */
  readonly host: string
  readonly json: boolean
  readonly onTerminal: boolean
  readonly write: (text: string) => void
  readonly log: Logger
}

/** What becomes of it, as the events of the node tell. */
export class Published {
  /** Resolves with the reason why there is no going on. */
  readonly failed: Promise<ProxyError>
  readonly #context: PublishedContext
  readonly #tell: (event: HubEvent) => void
  #fail: (reason: ProxyError) => void = () => {}
  #url: string | undefined
  #isNamed = false

  constructor(context: PublishedContext) {
    this.#context = context
    this.#tell = logEvents(context.log, 'node', false)
    this.failed = new Promise((resolve) => {
      this.#fail = resolve
    })
  }

  /** Whether it is at the web port of the server, and not at a port of its own. */
  get isNamed(): boolean {
    return this.#isNamed
  }

  readonly onEvent = (event: HubEvent): void => {
    if (event.type === 'listener-ready') {
      this.#onReady(event.bound)
    } else if (event.type === 'listener-failed') {
      if (this.#isFinal(event.reason)) this.#fail(plain(event.reason))
      else this.#tell(event)
    } else if (event.type === 'retrying' && this.#isWrong(event.reason)) {
      this.#fail(event.reason)
    } else if (event.type !== 'refused' || event.by === 'here') {
      // What the server refuses is told as what has failed.
      this.#tell(event)
    }
  }

  #isWrong({ code }: ProxyError): boolean {
    return WRONG.has(code) && this.#url === undefined
  }

  #isFinal({ code }: ProxyError): boolean {
    return !PASSES.has(code) && !(this.#url !== undefined && MAY_COME_BACK.has(code))
  }

  #onReady(bound: Endpoint): void {
    const { target, host: server, json, onTerminal, write, log } = this.#context
    const url = publicUrl(bound, server)
    if (url === undefined) {
      this.#fail(new ProxyError('PROXY_ERR_ENDPOINT', 'the server does not say where it is: it may be an older one'))
      return
    }
    this.#isNamed = !bound.Addr.startsWith(':')
    log.info({ url }, 'published')
    if (url === this.#url) return
    this.#url = url
    if (json) write(`${JSON.stringify({ url, target: target.name })}\n`)
    else write(onTerminal ? `\n  ${url}  ->  ${target.name}\n\n` : `${url} -> ${target.name}\n`)
    if (!/^(?:https?|tls)$/.test(bound.Domain) || bound.Addr.startsWith(':')) return
    const host = bound.Addr.replace(/:\d+$/, '')
    void dnsAdvice(host, server).then((advice) => advice !== undefined && log.warn(advice))
  }
}

/** Where visitors go. What the server has no name for is where the node found the server. */
export function publicUrl({ Domain, Addr }: Endpoint, server: string): string | undefined {
  if (!SCHEMES.includes(Domain) || !/^[a-z0-9.-]{0,253}(?::\d{1,5})?$/i.test(Addr) || Addr === '') return undefined
  if (!Addr.startsWith(':')) return `${Domain}://${Addr}`
  const { port } = parseHostPort(Addr)
  return `${Domain}://${formatHostPort({ host: server === '' ? 'localhost' : server, port })}`
}

function plain(reason: ProxyError): ProxyError {
  if (reason.code === 'PROXY_ERR_UNKNOWN_DOMAIN') {
    return new ProxyError(reason.code, `the server knows nothing of that: it may be an older one (${reason.message})`)
  }
  if (reason.code !== 'PROXY_ERR_LISTEN_DENIED') return reason
  return new ProxyError(reason.code, `not allowed by the server: ${reason.message}`, { cause: reason })
}
