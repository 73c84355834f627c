import { ProxyError, pause } from '../core/index.ts'
import { type CaddyAnswer, type CaddyApi, caddyError, reasonOf } from '../sockets/caddy-api.ts'
import { type CaddyPlan, planRoute, type WantedRoute } from './caddy-routes.ts'

/** In ms. */
export interface CaddyTimes {
  /** Names that come in so short a time go in one change. */
  readonly gather: number
  /** Between two looks, however often names change, or Caddy closes the connection that tells of another config. */
  readonly pace: number
  /** What becomes of `pace` for names that come and go without end. */
  readonly slowPace: number
  /** Between two looks if nothing tells that one is needed. */
  readonly poll: number
  /** Before the first try after a failure; doubled for each more. */
  readonly firstBackoff: number
  readonly longestBackoff: number
  /** How long somebody waits for a name to be there. */
  readonly patience: number
  /** For taking all away at the end. */
  readonly lastWords: number
}

const TIMES: CaddyTimes = {
  gather: 30,
  pace: 1000,
  slowPace: 10_000,
  poll: 60_000,
  firstBackoff: 250,
  longestBackoff: 10_000,
  patience: 5000,
  lastWords: 5000,
}
/**
 * Each change has Caddy start all of its config anew, and may end WebSockets of others: after so many there is one each
 * `slowPace` only, and in that time one is forgiven.
 */
const QUICK_CHANGES = 20
/** Changes for one look, and how often others may change something in between. */
const MOST_CHANGES = 16
const MOST_CLASHES = 10
/** Reasons that are told of one failure, if they change. */
const MOST_REASONS = 5

export type CaddyEvent =
  /** It is as it should be, for the first time or again. */
  | { readonly type: 'ready'; readonly server: string; readonly scheme: 'http' | 'https'; readonly port: number }
  | { readonly type: 'names'; readonly added: readonly string[]; readonly removed: readonly string[] }
  /** Told once for each reason until it is ready again. At the end: what is in Caddy's config stays there. */
  | { readonly type: 'failed'; readonly reason: ProxyError; readonly atEnd: boolean }
  /** These hosts are not ours to serve there: somebody else's route names them, or Caddy cannot have them. */
  | { readonly type: 'left'; readonly why: 'other' | 'impossible'; readonly hosts: readonly string[] }

export interface CaddyNamesOptions extends Omit<WantedRoute, 'hosts' | 'streams'> {
  readonly hosts: () => readonly string[]
  readonly onEvent: (event: CaddyEvent) => void
  readonly times?: Partial<CaddyTimes> | undefined
}

type Hosts = ReadonlySet<string>

/** Keeps the hosts of a web port in the config of a Caddy in front of it, whatever happens to that. */
export class CaddyNames implements AsyncDisposable {
  readonly #api: CaddyApi
  readonly #options: CaddyNamesOptions
  readonly #times: CaddyTimes
  readonly #closing = new AbortController()
  #closed = false
  #running: Promise<void> | undefined
  #wake: () => void = () => {}
  /** What there may be to do, besides what is looked at now. */
  #isHostNew = false
  #isConfigNew = false
  /** Quick changes that are left, as of a moment in ms. */
  #quick: number = QUICK_CHANGES
  #quickAt = performance.now()
  /** What has been looked at last, and what of it is in Caddy. */
  #plan: CaddyPlan | undefined
  #seen: Hosts = new Set()
  #inside: Hosts = new Set()
  #left: Hosts = new Set()
  /** What is wrong, as far as it was told; undefined: nothing. */
  #told: Set<string> | undefined
  #isReady = false
  #streams = true
  #isStreamsKnown = false
  #waiting: (() => void)[] = []

  constructor(api: CaddyApi, options: CaddyNamesOptions) {
    this.#api = api
    this.#options = options
    this.#times = { ...TIMES, ...options.times }
    api.onClosed = () => {
      this.#isConfigNew = true
      this.#wake()
    }
  }

  /** From now on they are kept there. */
  start(): void {
    if (!this.#closed) this.#running ??= this.#run()
  }

  /** A host has come or gone. */
  changed(): void {
    this.#isHostNew = true
    this.#wake()
  }

  /**
   * Where visitors find a host, once it is there: it waits for that, but not for long, and not if something is wrong.
   *
   * @throws ProxyError PROXY_ERR_NAME_TAKEN if Caddy has it for somebody else
   */
  async placeOf(host: string): Promise<{ readonly scheme: 'http' | 'https'; readonly port: number }> {
    const end = performance.now() + this.#times.patience
    while (!this.#seen.has(host) && !this.#told && !this.#closed && this.#running) {
      const left = end - performance.now()
      if (left <= 0) break
      await this.#round(left)
    }
    if (this.#left.has(host)) {
      throw new ProxyError('PROXY_ERR_NAME_TAKEN', `name taken: the Caddy in front has ${host} for something else`)
    }
    return { scheme: this.#plan?.scheme ?? 'https', port: this.#plan?.port ?? 443 }
  }

  /** Takes all of it away, as far as Caddy lets itself be asked. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const timer = setTimeout(() => this.#closing.abort(), this.#times.lastWords)
    this.#wake()
    await this.#running
    try {
      if (this.#running) await this.#look([])
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_CADDY')
      if (this.#inside.size > 0) this.#options.onEvent({ type: 'failed', reason, atEnd: true })
    } finally {
      clearTimeout(timer)
      this.#closing.abort()
      this.#api.close()
      this.#endRound()
    }
  }

  async #run(): Promise<void> {
    const { firstBackoff, longestBackoff } = this.#times
    let backoff = firstBackoff
    while (!this.#closed) {
      this.#isHostNew = false
      this.#isConfigNew = false
      const since = performance.now()
      try {
        await this.#look(this.#options.hosts())
        backoff = firstBackoff
        this.#endRound()
        await this.#sleep(since)
      } catch (error) {
        if (this.#closed) return
        this.#tell(ProxyError.from(error, 'PROXY_ERR_CADDY'))
        this.#endRound()
        await this.#nap(backoff * (0.5 + Math.random() / 2), () => this.#closed)
        backoff = Math.min(longestBackoff, backoff * 2)
      }
    }
  }

  /** Until another look is needed, and may be had. */
  async #sleep(since: number): Promise<void> {
    const { gather, pace, poll } = this.#times
    await this.#nap(poll, () => this.#isHostNew || this.#isConfigNew || this.#closed)
    if (this.#isConfigNew) await this.#nap(pace - (performance.now() - since), () => this.#isHostNew || this.#closed)
    if (!this.#isHostNew) return
    const wait = this.#quick < 1 ? this.#times.slowPace : this.#quick < QUICK_CHANGES - 1 ? pace : 0
    await this.#nap(Math.max(gather, wait - (performance.now() - since)), () => this.#closed)
  }

  /** Waits so many ms, or until something happens that is enough. */
  async #nap(ms: number, isEnough: () => boolean): Promise<void> {
    const end = performance.now() + ms
    for (let left = ms; left > 0 && !isEnough(); left = end - performance.now()) {
      const stop = new AbortController()
      this.#wake = () => stop.abort()
      await pause(left, stop.signal)
    }
  }

  /** One more change was made. */
  #count(): void {
    const now = performance.now()
    const forgiven = (now - this.#quickAt) / this.#times.slowPace
    this.#quick = Math.max(0, Math.min(QUICK_CHANGES, this.#quick + forgiven) - 1)
    this.#quickAt = now
  }

  /** Looks at what Caddy has, and changes it until it is as it should be. */
  async #look(wanted: readonly string[]): Promise<void> {
    const hosts = [...new Set(wanted)]
    let clashes = 0
    for (let changes = 0; changes < MOST_CHANGES; ) {
      const { config, etag } = await this.#read()
      const plan = planRoute(config, { ...this.#options, hosts, streams: this.#streams })
      if (!plan.change) return this.#onDone(plan, hosts)
      if (etag === undefined) {
        throw caddyError('this Caddy does not say which state of its config it shows (no ETag): take a newer one')
      }
      const { method, path, body } = plan.change
      const answer = await this.#call({ method, path: `/config/apps/http${path}`, body, etag })
      if (answer.status === 412) {
        // Somebody else was quicker: what they have made of it is looked at anew.
        if (++clashes >= MOST_CLASHES) throw caddyError("others change Caddy's config all the time")
        await pause(Math.random() * 10 * clashes, this.#closing.signal)
      } else if (answer.status >= 200 && answer.status < 300) {
        changes++
        this.#count()
        if (body !== undefined) this.#isStreamsKnown = true
      } else if (body !== undefined && this.#streams && !this.#isStreamsKnown) {
        // It may be that one setting, which came later than the rest.
        this.#streams = false
      } else {
        // Caddy may have become another one: what it knows is found out anew.
        this.#isStreamsKnown = false
        this.#streams = true
        throw caddyError(`Caddy does not take the names: ${reasonOf(answer)}`)
      }
    }
    throw caddyError("others undo in Caddy's config what is done there")
  }

  async #read(): Promise<{ config: unknown; etag: string | undefined }> {
    const answer = await this.#call({ method: 'GET', path: '/config/apps/http' })
    if (answer.status === 200 && answer.value !== undefined) return { config: answer.value, etag: answer.etag }
    // Where there is not even anything that it could be in, asking for it is an error.
    const whole = await this.#call({ method: 'GET', path: '/config/' })
    if (whole.status !== 200 || whole.value === undefined) {
      throw caddyError(`Caddy does not show its config: ${reasonOf(whole)}`)
    }
    return { config: inside(inside(whole.value, 'apps'), 'http'), etag: whole.etag }
  }

  #call(request: Omit<Parameters<CaddyApi['call']>[0], 'signal'>): Promise<CaddyAnswer> {
    return this.#api.call({ ...request, signal: this.#closing.signal })
  }

  #onDone(plan: CaddyPlan, hosts: readonly string[]): void {
    const { onEvent } = this.#options
    const before = this.#inside
    const [now, left] = [new Set(plan.hosts), new Set([...plan.others, ...plan.impossible])]
    const news = (list: readonly string[]): string[] => list.filter((host) => !this.#left.has(host))
    const [others, impossible] = [news(plan.others), news(plan.impossible)]
    const added = plan.hosts.filter((host) => !before.has(host))
    const removed = [...before].filter((host) => !now.has(host))
    this.#plan = plan
    this.#inside = now
    this.#left = left
    this.#seen = new Set(hosts)
    if (!this.#closed && (this.#told || !this.#isReady)) {
      this.#told = undefined
      this.#isReady = true
      onEvent({ type: 'ready', server: plan.server, scheme: plan.scheme, port: plan.port })
    }
    if (added.length + removed.length > 0) onEvent({ type: 'names', added, removed })
    if (others.length > 0) onEvent({ type: 'left', why: 'other', hosts: others })
    if (impossible.length > 0) onEvent({ type: 'left', why: 'impossible', hosts: impossible })
  }

  #tell(reason: ProxyError): void {
    this.#told ??= new Set()
    if (this.#told.has(reason.message) || this.#told.size >= MOST_REASONS) return
    this.#told.add(reason.message)
    this.#options.onEvent({ type: 'failed', reason, atEnd: false })
  }

  /** Resolves when the next look is over, however it ends. */
  async #round(ms: number): Promise<void> {
    const stop = new AbortController()
    this.#waiting.push(() => stop.abort())
    await pause(ms, stop.signal)
  }

  #endRound(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

function inside(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
  return Object.entries(value).find(([name]) => name === key)?.[1]
}
