import type { Abortable, Domains, Listener } from './domain.ts'
import { checkEndpoint, type Endpoint, formatEndpoint } from './endpoint.ts'
import { assertNotAborted, ProxyError } from './errors.ts'
import { decodeJson, decodeReason, encodeReason, Frame } from './frame.ts'
import { PeerListener } from './incoming.ts'
import type { MainConnection } from './main-connection.ts'
import type { SubConnection } from './sub-connection.ts'

/** What listeners need from the Proxy that they belong to. */
export interface ListenersHost {
  /** Fires when the Proxy is closed. */
  readonly ended: AbortSignal
  isOpen(): boolean
  /** Throws the reason why nothing new can be had. */
  assertOpen(): void
  /** Opens a sub-connection for one that came in at the listener that the peer gave this id. */
  openAt(listener: number, from: string | undefined): Promise<SubConnection>
  watch(sub: SubConnection, at: Endpoint): void
  refused(error: ProxyError, request: string, by: 'here' | 'peer'): void
  /** The peer has a listener here now. */
  listening(bound: Endpoint): void
}

/** The listeners of one Proxy, here and at the peer, and the frames that both ends exchange about them. */
export class Listeners {
  readonly #main: MainConnection
  readonly #domains: Domains
  readonly #host: ListenersHost
  /** Listeners here, for our own mappings and for the peer's; the latter also by the id that the peer gave them. */
  readonly #here = new Set<Listener>()
  readonly #forPeer = new Map<number, { listener?: Listener; abort: AbortController }>()
  readonly #atPeer = new Map<number, PeerListener>()
  #lastId = 0
  #lastForPeer = 0

  constructor(main: MainConnection, domains: Domains, host: ListenersHost) {
    this.#main = main
    this.#domains = domains
    this.#host = host
  }

  /** The listener at the peer with this id. */
  atPeer(id: number): PeerListener | undefined {
    return this.#atPeer.get(id)
  }

  /** `asked` for by the peer. */
  async listen(
    at: Endpoint,
    asked: boolean,
    signal: AbortSignal | undefined,
    open: (to: Endpoint | undefined, from: string | undefined) => Promise<SubConnection>,
  ): Promise<Listener> {
    const ended = this.#host.ended
    const listener = await this.#domains.listen(at, asked, {
      signal: signal ? AbortSignal.any([signal, ended]) : ended,
      open: async (options = {}) => {
        this.#host.assertOpen()
        const sub = await open(options.to, options.from)
        this.#host.watch(sub, at)
        return sub
      },
    })
    const wrapped: Listener = {
      bound: listener.bound,
      close: async () => {
        this.#here.delete(wrapped)
        signal?.removeEventListener('abort', wrapped.close)
        await listener.close()
      },
      [Symbol.asyncDispose]: () => wrapped.close(),
    }
    try {
      assertNotAborted(signal)
      this.#host.assertOpen()
    } catch (error) {
      await wrapped.close()
      throw error
    }
    this.#here.add(wrapped)
    signal?.addEventListener('abort', wrapped.close)
    return wrapped
  }

  async listenAtPeer(
    at: Endpoint,
    options: Abortable,
    onOpen: (sub: SubConnection) => Promise<void>,
  ): Promise<PeerListener> {
    this.#host.assertOpen()
    assertNotAborted(options.signal)
    const payload = Buffer.from(JSON.stringify({ Listen: checkEndpoint(at) }))
    const id = ++this.#lastId
    const listener = new PeerListener(onOpen, () => {
      this.#atPeer.delete(id)
      this.#main.control(Frame.unlisten, id)
    })
    this.#atPeer.set(id, listener)
    this.#main.control(Frame.listen, id, payload)
    try {
      await listener.ready(options.signal)
    } catch (error) {
      this.#atPeer.delete(id)
      if (options.signal?.aborted) this.#main.control(Frame.unlisten, id)
      else if (!listener.closed)
        this.#host.refused(ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED'), formatEndpoint(at), 'peer')
      throw error
    }
    return listener
  }

  async closeHere(): Promise<void> {
    for (const listener of [...this.#here]) await listener.close()
  }

  async closeAtPeer(): Promise<void> {
    for (const listener of [...this.#atPeer.values()]) await listener.close()
  }

  /** The main connection is over. Resolves when nothing is listened on here any more. */
  async onClosed(error: ProxyError): Promise<void> {
    const closed = [...this.#here].map((listener) => listener.close())
    for (const listener of [...this.#atPeer.values()]) listener.onLost(error)
    this.#here.clear()
    this.#atPeer.clear()
    this.#forPeer.clear()
    await Promise.all(closed)
  }

  onFrame(type: number, id: number, payload: Buffer): void {
    switch (type) {
      case Frame.listen:
        this.#onListen(id, checkEndpoint(decodeJson(payload).Listen))
        break
      case Frame.listening:
        this.#atPeer.get(id)?.onListening(checkEndpoint(decodeJson(payload).bound))
        break
      case Frame.refused:
        this.#atPeer
          .get(id)
          ?.onRefused(
            decodeReason(payload, new ProxyError('PROXY_ERR_LISTEN_FAILED', 'the other side cannot listen there')),
          )
        break
      case Frame.unlisten:
        void this.#unlisten(id)
        break
      default:
        throw new ProxyError('PROXY_ERR_FRAME', `frame type ${type} is not known`)
    }
  }

  #onListen(id: number, at: Endpoint): void {
    // Ids only grow, so that an open that is under way can never reach a later listener.
    if (id <= this.#lastForPeer) throw new ProxyError('PROXY_ERR_ID', `listener id ${id} was used before`)
    this.#lastForPeer = id
    const { listeners } = this.#main.limits
    const full = this.#forPeer.size >= listeners
    if (!this.#host.isOpen() || full) {
      const refusal = full
        ? new ProxyError('PROXY_ERR_TOO_MANY_LISTENERS', `there are ${listeners} listeners already`)
        : new ProxyError('PROXY_ERR_DRAINING', 'the other side is about to stop', { retryable: true })
      this.#main.control(Frame.refused, id, encodeReason(refusal))
      return
    }
    const entry: { listener?: Listener; abort: AbortController } = { abort: new AbortController() }
    this.#forPeer.set(id, entry)
    this.listen(at, true, entry.abort.signal, (_to, from) => this.#host.openAt(id, from)).then(
      (listener) => {
        entry.listener = listener
        if (entry.abort.signal.aborted) this.#forPeer.delete(id)
        this.#host.listening(listener.bound)
        this.#main.control(Frame.listening, id, Buffer.from(JSON.stringify({ bound: listener.bound })))
      },
      (error) => {
        this.#forPeer.delete(id)
        // Given up by the peer: there is nobody to tell.
        if (entry.abort.signal.aborted) return
        const refusal = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
        this.#host.refused(refusal, formatEndpoint(at), 'here')
        this.#main.control(Frame.refused, id, encodeReason(refusal))
      },
    )
  }

  async #unlisten(id: number): Promise<void> {
    const entry = this.#forPeer.get(id)
    entry?.abort.abort()
    // One that is still being made counts until that has ended.
    if (!entry?.listener) return
    this.#forPeer.delete(id)
    await entry.listener.close()
  }
}
