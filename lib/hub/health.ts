import { type Endpoint, ProxyError, type SubConnection } from '../core/index.ts'
import type { Connected } from './events.ts'

/** Checks under way at once, of all mappings together, and those that wait for their turn. */
const AT_ONCE = 256
const MAX_QUEUE = 10_000
/** How long a target has to see that a check says nothing, and to close, in ms. */
const LINGER = 1000
/** The golden ratio: what it is multiplied by lies evenly spread, however many there are. */
const SPREAD = 0.618_033_988_75
/** Errors that say nothing about the target. */
const NOT_THE_TARGET: ReadonlySet<string> = new Set([
  'PROXY_ERR_CLOSED',
  'PROXY_ERR_DRAINING',
  'PROXY_ERR_SESSION_LOST',
  'PROXY_ERR_TOO_MANY_OPENS',
  'PROXY_ERR_TOO_MANY_SUB_CONNECTIONS',
])

/** Something whose target is to be checked, at every instance that serves it. */
export interface Checked {
  readonly to: Endpoint
  readonly interval: number
  readonly timeout: number
  instances(): Iterable<Connected>
  /** What came out; no problem: it is well. */
  onChecked(peer: Connected, problem: string | undefined): void
}

/** Asks instances to dial targets, now and then, spread over time and never too many at once. */
export class HealthChecks {
  readonly #stopped: AbortSignal
  readonly #queue: (() => Promise<void>)[] = []
  readonly #lingering = new Map<SubConnection, NodeJS.Timeout>()
  /** Sub-connections of checks, and the errors they ended with: nothing that anybody asked for. */
  readonly #own = new WeakSet<object>()
  #running = 0
  #watched = 0

  constructor(stopped: AbortSignal) {
    this.#stopped = stopped
    stopped.addEventListener('abort', () => {
      this.#queue.length = 0
      for (const sub of [...this.#lingering.keys()]) this.#letGo(sub)
    })
  }

  /** Whether a sub-connection, or an error of one, is a check's and not a user's. */
  owns(subOrError: object): boolean {
    return this.#own.has(subOrError)
  }

  /** Checks until the returned function is called: `now`, or first at some moment of the interval. */
  watch(checked: Checked, now: boolean): () => void {
    const pending = new Set<Connected>()
    const stop = new AbortController()
    const tick = (): void => {
      timer = setTimeout(tick, checked.interval)
      for (const peer of checked.instances()) {
        if (pending.has(peer) || this.#queue.length >= MAX_QUEUE) continue
        pending.add(peer)
        this.#enqueue(async () => {
          if (!stop.signal.aborted) await this.#check(checked, peer, stop.signal)
          pending.delete(peer)
        })
      }
    }
    let timer = setTimeout(tick, now ? 0 : ((++this.#watched * SPREAD) % 1) * checked.interval)
    const end = (): void => {
      clearTimeout(timer)
      stop.abort()
      this.#stopped.removeEventListener('abort', end)
    }
    this.#stopped.addEventListener('abort', end)
    if (this.#stopped.aborted) end()
    return end
  }

  #enqueue(check: () => Promise<void>): void {
    this.#queue.push(check)
    if (this.#running < AT_ONCE) void this.#run()
  }

  async #run(): Promise<void> {
    this.#running++
    for (let check = this.#queue.shift(); check; check = this.#queue.shift()) await check()
    this.#running--
  }

  async #check(checked: Checked, peer: Connected, stop: AbortSignal): Promise<void> {
    const error = await this.#dial(checked, peer, stop)
    // One that has lost its link meanwhile could not answer: that is nothing about its target.
    if (stop.aborted || !peer.proxy.serving || (error && NOT_THE_TARGET.has(error.code))) return
    checked.onChecked(peer, error?.message)
  }

  /** Has the peer dial, and closes again. Answers why it could not. */
  async #dial({ to, timeout }: Checked, { proxy }: Connected, stop: AbortSignal): Promise<ProxyError | undefined> {
    const abort = new AbortController()
    const giveUp = (): void => abort.abort()
    const timer = setTimeout(giveUp, timeout)
    stop.addEventListener('abort', giveUp)
    try {
      const sub = await proxy.open({ to }, { signal: abort.signal })
      this.#own.add(sub)
      // Before anybody else hears of it.
      sub.prependListener('error', (error) => this.#own.add(error))
      if (sub.connecting) await connected(sub)
      this.#close(sub)
      return undefined
    } catch (error) {
      if (!abort.signal.aborted) return ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
      return new ProxyError('PROXY_ERR_DIAL_FAILED', `no answer within ${timeout} ms`, { retryable: true })
    } finally {
      clearTimeout(timer)
      stop.removeEventListener('abort', giveUp)
    }
  }

  /** With a FIN: a reset stands in the logs of many a server. */
  #close(sub: SubConnection): void {
    sub.resume()
    sub.end()
    this.#lingering.set(
      sub,
      setTimeout(() => this.#letGo(sub), LINGER),
    )
    sub.once('close', () => this.#letGo(sub))
    if (this.#stopped.aborted) this.#letGo(sub)
  }

  #letGo(sub: SubConnection): void {
    clearTimeout(this.#lingering.get(sub))
    this.#lingering.delete(sub)
    sub.destroy()
  }
}

function connected(sub: SubConnection): Promise<void> {
  return new Promise((resolve, reject) => {
    sub.once('connect', resolve)
    sub.once('error', reject)
    sub.once('close', () => reject(new ProxyError('PROXY_ERR_RESET', 'the sub-connection was closed')))
  })
}
