import { EventEmitter, setMaxListeners } from 'node:events'
import { diagnostics } from './diagnostics.ts'
import { type Abortable, type DialRequest, type DomainPlugin, Domains, type Listener } from './domain.ts'
import { checkEndpoint, type Endpoint, formatEndpoint, type Mapping } from './endpoint.ts'
import { aborted, assertNotAborted, ProxyError } from './errors.ts'
import { Frame } from './frame.ts'
import { Incoming } from './incoming.ts'
import { join } from './join.ts'
import { LazyAbort } from './lazy-abort.ts'
import { isLink } from './link.ts'
import { Listeners } from './listeners.ts'
import type { MainConnection } from './main-connection.ts'
import { Multiplexer, type OpenRequest } from './multiplexer.ts'
import { allowAll, type Policy } from './policy.ts'
import { linkFrom } from './stream-link.ts'
import type { SubConnection } from './sub-connection.ts'

/** `resuming` is the state between two links. */
export type State = 'connected' | 'resuming' | 'draining' | 'closed'

export interface ProxyOptions {
  /** What can be listened on and forwarded to here. Default: nothing, which is enough for `accept` and `dial`. */
  domains?: readonly DomainPlugin[]
  /** Asked before everything that the peer requests. Default: all is allowed. */
  policy?: Policy
}

/** The payloads of draining: this side is about to stop, and that it was heard. */
const DRAINING = Buffer.from([0])
const NOTED = Buffer.from([1])
/** How long a drain without a link, and with nothing open, waits for one, in ms. */
const LAST_CHANCE = 2000
const NEXT: Record<State, readonly State[]> = {
  connected: ['resuming', 'draining', 'closed'],
  resuming: ['connected', 'draining', 'closed'],
  draining: ['closed'],
  closed: [],
}

/**
 * One end of a main connection. There is no client and no server variant: either end listens, the other forwards.
 *
 * Events: `state` (the new one), `open` (a sub-connection has connected), `listening` (the peer has a listener here now),
 * `draining` (the peer is about to stop), `refused` (an open, a dial or a listen that either side did not allow or could not do).
 */
export class Proxy
  extends EventEmitter<{
    state: [State]
    open: [SubConnection]
    listening: [Endpoint]
    draining: []
    refused: [ProxyError]
  }>
  implements AsyncDisposable
{
  readonly main: MainConnection
  /** Resolves when the main connection is over and nothing is listened on for it. Never rejects; `main.reason` tells why. */
  readonly closed: Promise<void>
  readonly #domains: Domains
  readonly #mux: Multiplexer
  readonly #ended = new AbortController()
  readonly #listeners: Listeners
  /** Flows of datagrams that end here: no end of theirs is worth waiting for. */
  readonly #flows = new Set<SubConnection>()
  #state: State = 'connected'
  #peerDraining = false
  #noted = false
  /** Besides the news that this side is about to stop, there is something that the peer has to get. */
  #owing = true
  #onNoted: (() => void) | undefined
  #onIdle: (() => void) | undefined
  #released: Promise<unknown> = Promise.resolve()

  constructor(main: MainConnection, options: ProxyOptions = {}) {
    super()
    setMaxListeners(0, this.#ended.signal)
    this.main = main
    this.#domains = new Domains(options.domains ?? [], options.policy ?? allowAll)
    const handler = {
      onOpen: (sub: SubConnection, request: OpenRequest) => this.#onOpen(sub, request),
      onListenFrame: (type: number, id: number, payload: Buffer) => this.#onListenFrame(type, id, payload),
      onIdle: () => this.#onIdle?.(),
      onPaused: () => this.#onPaused(),
      onResumed: () => this.#onResumed(),
      onClosed: (error: ProxyError) => this.#onClosed(error),
    }
    const mux = new Multiplexer(main, handler)
    this.#mux = mux
    this.#listeners = new Listeners(main, this.#domains, {
      ended: this.#ended.signal,
      isOpen: () => this.#open,
      assertOpen: () => this.#assertOpen(),
      openAt: (listener, from) => mux.open({ listener, from }),
      watch: (sub, at) => this.#watch(sub, at),
      refused: (error, request, by) => this.#refused(error, request, by),
      listening: (bound) => this.emit('listening', bound),
    })
    this.closed = main.closed.then(async () => {
      await this.#released
    })
    main.attach(this.#mux)
  }

  get state(): State {
    return this.#state
  }

  /** Whether new sub-connections make sense: neither side is about to stop. */
  get serving(): boolean {
    return this.#state === 'connected' && !this.#peerDraining
  }

  /** The sub-connections that are open now. */
  get subConnections(): Iterable<SubConnection> {
    return this.#mux
  }

  /** I listen, the peer forwards. */
  async newListener(mapping: Mapping, options: Abortable = {}): Promise<Listener> {
    this.#assertOpen()
    checkEndpoint(mapping.Forward)
    return await this.#listeners.listen(mapping.Listen, false, options.signal, (to, from) =>
      this.#mux.open({ to: to ?? mapping.Forward, from }),
    )
  }

  /** The peer listens, I forward. Where to never leaves this side. */
  async newPeerListener(mapping: Mapping, options: Abortable = {}): Promise<Listener> {
    return await this.#listeners.listenAtPeer(mapping.Listen, options, (sub) =>
      this.#forward(sub, mapping.Forward, false),
    )
  }

  /** The peer listens, code here answers: iterate over what comes in. */
  async accept(listen: Endpoint, options: Abortable = {}): Promise<Incoming> {
    // The first one may come in the same turn as the answer.
    const early: SubConnection[] = []
    let push = (sub: SubConnection): void => void early.push(sub)
    const listener = await this.#listeners.listenAtPeer(listen, options, async (sub) => {
      this.#accepted(sub, listen)
      push(sub)
    })
    const incoming = new Incoming(listener)
    push = (sub) => incoming.push(sub)
    early.forEach(push)
    return incoming
  }

  /** The peer dials. Resolves when the far side has connected; rejects with the reason why not. */
  async dial(to: Endpoint, options: Abortable = {}): Promise<SubConnection> {
    const sub = await this.open({ to }, options)
    if (sub.connecting) await connected(sub)
    return sub
  }

  /** Like `dial`, but resolves at once: what is written early travels with the request. */
  async open(request: { to: Endpoint; from?: string | undefined }, options: Abortable = {}): Promise<SubConnection> {
    this.#assertOpen()
    assertNotAborted(options.signal)
    const sub = await this.#mux.open({ to: checkEndpoint(request.to), from: request.from }, options.signal)
    if (options.signal) giveUpOn(options.signal, sub)
    assertNotAborted(options.signal)
    if (!this.#open) {
      // It waited for its turn meanwhile.
      sub.destroy()
      this.#assertOpen()
    }
    this.#watch(sub, request.to)
    return sub
  }

  /** Nothing new is accepted; resolves when what is open has finished, or `signal` fires, and all is closed. */
  async drain(options: Abortable = {}): Promise<void> {
    if (this.#state === 'closed') return
    this.#transition('draining')
    this.#owing = this.#mux.size > 0 || !this.main.settled
    this.#closeIfAlone()
    if (this.main.reason) return
    const over = options.signal ? AbortSignal.any([options.signal, this.#ended.signal]) : this.#ended.signal
    const noted = until(over, (resolve) => {
      this.#onNoted = resolve
    })
    this.main.control(Frame.draining, 0, DRAINING)
    await this.#listeners.closeHere()
    // What the peer opened before it heard of this is served like the rest.
    await noted
    await this.#listeners.closeAtPeer()
    for (const flow of this.#flows) {
      flow.destroy(new ProxyError('PROXY_ERR_DRAINING', 'the other side is about to stop', { retryable: true }))
    }
    if (this.#mux.size > 0) {
      await until(over, (resolve) => {
        this.#onIdle = resolve
      })
    }
    // What the last ones said may still be on its way, and the link not last until then.
    await until(over, (resolve) => void this.main.flushed().then(resolve))
    this.close()
  }

  /** While draining: without a link nobody hears of the end. What was finished last may still find a way there, for a while. */
  #closeIfAlone(): void {
    const alone = (): boolean => !this.main.linked && this.#mux.size === 0
    if (!alone()) return
    if (!this.#owing || this.main.settled) {
      this.close()
      return
    }
    const timer = setTimeout(() => {
      if (alone()) this.close()
    }, LAST_CHANCE)
    this.#ended.signal.addEventListener('abort', () => clearTimeout(timer))
  }

  /** Ends the main connection in order, and with it all sub-connections. */
  close(): void {
    this.main.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    await this.closed
  }

  // --- what the peer opens ---

  async #onOpen(sub: SubConnection, request: OpenRequest): Promise<void> {
    this.#owing = true
    if (!this.#open && (this.#state !== 'draining' || this.#noted)) {
      sub.destroy(new ProxyError('PROXY_ERR_DRAINING', 'the other side is about to stop', { retryable: true }))
    } else if (request.to) {
      await this.#forward(sub, request.to, true)
    } else {
      const listener = this.#listeners.atPeer(request.listener ?? 0)
      if (listener) await listener.onOpen(sub)
      else sub.destroy(new ProxyError('PROXY_ERR_UNKNOWN_LISTENER', 'the listener is closed'))
    }
  }

  /** Dials `to` here and joins it. `asked` by the peer, or mapped by this side's operator. */
  async #forward(sub: SubConnection, to: Endpoint, asked: boolean): Promise<void> {
    const request = new Visit(sub)
    try {
      const dialled = await this.#domains.dial(to, asked, request)
      request.settle()
      const link = isLink(dialled) ? dialled : linkFrom(dialled)
      if (!sub.destroyed) this.#accepted(sub, to)
      if (this.#domains.carries(to) === 'datagrams') {
        this.#flows.add(sub)
        sub.once('close', () => this.#flows.delete(sub))
      }
      join(sub, link)
    } catch (error) {
      const refusal = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
      // Given up by the peer: there is nobody to tell.
      if (!sub.destroyed) this.#refused(refusal, formatEndpoint(to), 'here')
      sub.destroy(refusal)
    }
  }

  #accepted(sub: SubConnection, to: Endpoint): void {
    this.#watch(sub, to)
    this.#mux.accept(sub)
  }

  #watch(sub: SubConnection, to: Endpoint): void {
    const onFailed = (error: Error): void => {
      if (error instanceof ProxyError) this.#refused(error, formatEndpoint(to), 'peer')
    }
    sub.once('connect', () => {
      sub.off('error', onFailed)
      this.emit('open', sub)
      if (diagnostics.subOpen.hasSubscribers) diagnostics.subOpen.publish({ proxy: this, sub, to })
    })
    sub.on('error', onFailed)
  }

  #refused(error: ProxyError, request: string, by: 'here' | 'peer'): void {
    this.emit('refused', error)
    if (diagnostics.refused.hasSubscribers) diagnostics.refused.publish({ proxy: this, error, request, by })
  }

  // --- frames of the listen family, and draining ---

  #onListenFrame(type: number, id: number, payload: Buffer): void {
    if (type === Frame.draining) this.#onDraining(payload)
    else this.#listeners.onFrame(type, id, payload)
  }

  #onDraining(payload: Buffer): void {
    if (payload.equals(NOTED)) {
      this.#onNoted?.()
      this.#noted = true
    } else {
      this.#peerDraining = true
      this.emit('draining')
      this.main.control(Frame.draining, 0, NOTED)
    }
  }

  // --- the end ---

  /** Neither closed nor about to be. Without a link, what is asked for waits. */
  get #open(): boolean {
    return this.#state === 'connected' || this.#state === 'resuming'
  }

  #assertOpen(): void {
    if (this.#state === 'closed') throw this.main.reason ?? new ProxyError('PROXY_ERR_CLOSED', 'the Proxy is closed')
    if (this.#state === 'draining') throw new ProxyError('PROXY_ERR_DRAINING', 'this side is about to stop')
    if (this.#peerDraining)
      throw new ProxyError('PROXY_ERR_DRAINING', 'the other side is about to stop', { retryable: true })
  }

  #transition(next: State): void {
    if (this.#state === next) return
    if (!NEXT[this.#state].includes(next)) throw new TypeError(`no way from ${this.#state} to ${next}`)
    this.#state = next
    this.emit('state', next)
  }

  #onPaused(): void {
    if (this.#state === 'connected') this.#transition('resuming')
    else if (this.#state === 'draining') this.#closeIfAlone()
  }

  #onResumed(): void {
    if (this.#state === 'resuming') this.#transition('connected')
  }

  #onClosed(error: ProxyError): void {
    this.#transition('closed')
    this.#ended.abort()
    this.#released = this.#listeners.onClosed(error)
  }
}

/** What a dial hears of the sub-connection that it is for. */
class Visit implements DialRequest {
  readonly abort = new LazyAbort()
  readonly #sub: SubConnection
  readonly #onClose = (): void => this.abort.abort()

  constructor(sub: SubConnection) {
    this.#sub = sub
    sub.once('close', this.#onClose)
  }

  get signal(): AbortSignal {
    return this.abort.signal
  }

  get from(): string | undefined {
    return this.#sub.remote
  }

  settle(): void {
    this.#sub.off('close', this.#onClose)
  }
}

/** Resolves when `subscribe`'s callback is called, or `over` fires. */
function until(over: AbortSignal, subscribe: (resolve: () => void) => void): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      // A signal that stands for several is kept by Node.js for as long as it has listeners.
      over.removeEventListener('abort', done)
      resolve()
    }
    over.addEventListener('abort', done)
    if (over.aborted) done()
    subscribe(done)
  })
}

/** Rejects also when it is destroyed without an error, by whoever found it in `subConnections`. */
function connected(sub: SubConnection): Promise<void> {
  return new Promise((resolve, reject) => {
    sub.once('connect', resolve)
    sub.once('error', reject)
    sub.once('close', () => reject(new ProxyError('PROXY_ERR_RESET', 'the sub-connection was closed')))
  })
}

/** Gives a dial up when `signal` fires before it is answered. */
function giveUpOn(signal: AbortSignal, sub: SubConnection): void {
  const abort = (): void => void sub.destroy(aborted(signal))
  if (signal.aborted) abort()
  const settle = (): void => signal.removeEventListener('abort', abort)
  signal.addEventListener('abort', abort)
  sub.once('connect', settle)
  sub.once('close', settle)
}
