import type { Listener } from './domain.ts'
import type { Endpoint } from './endpoint.ts'
import { ProxyError } from './errors.ts'
import type { SubConnection } from './sub-connection.ts'

/** A listener at the peer, as the side sees it that asked for it. */
export class PeerListener implements Listener {
  /** Takes what comes in there. */
  readonly onOpen: (sub: SubConnection) => Promise<void>
  readonly #unlisten: () => void
  readonly #ready: Promise<Endpoint>
  /** Resolves when it is closed, by this side or because the main connection is over. */
  readonly over: Promise<void>
  #resolve: (bound: Endpoint) => void = () => {}
  #reject: (error: ProxyError) => void = () => {}
  #end: () => void = () => {}
  #bound: Endpoint | undefined
  #closed = false

  constructor(onOpen: (sub: SubConnection) => Promise<void>, unlisten: () => void) {
    this.onOpen = onOpen
    this.#unlisten = unlisten
    this.#ready = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#ready.catch(() => {})
    this.over = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  /** This side has closed it. */
  get closed(): boolean {
    return this.#closed
  }

  get bound(): Endpoint {
    if (!this.#bound) throw new TypeError('not ready')
    return this.#bound
  }

  async ready(signal?: AbortSignal): Promise<void> {
    const abort = (): void => this.#reject(new ProxyError('PROXY_ERR_ABORTED', 'the listen was given up'))
    signal?.addEventListener('abort', abort)
    try {
      this.#bound = await this.#ready
    } finally {
      signal?.removeEventListener('abort', abort)
    }
    if (!signal) return
    const close = (): void => void this.close()
    signal.addEventListener('abort', close)
    void this.over.then(() => signal.removeEventListener('abort', close))
  }

  onListening(bound: Endpoint): void {
    this.#resolve(bound)
  }

  onRefused(error: ProxyError): void {
    this.#reject(error)
  }

  onLost(error: ProxyError): void {
    this.#reject(error)
    this.#closed = true
    this.#end()
  }

  /** Opens that are under way when this is called are refused. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#reject(new ProxyError('PROXY_ERR_ABORTED', 'the listen was given up'))
    this.#unlisten()
    this.#end()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** What `Proxy.accept` gives: a listener whose sub-connections are answered by code, one `for await` at a time. */
export class Incoming implements Listener, AsyncIterable<SubConnection> {
  readonly #listener: PeerListener
  readonly #waiting: SubConnection[] = []
  #wake: () => void = () => {}
  #over = false

  constructor(listener: PeerListener) {
    this.#listener = listener
    void listener.over.then(() => {
      this.#over = true
      this.#wake()
    })
  }

  get bound(): Endpoint {
    return this.#listener.bound
  }

  push(sub: SubConnection): void {
    this.#waiting.push(sub)
    this.#wake()
  }

  async close(): Promise<void> {
    await this.#listener.close()
    for (const sub of this.#waiting.splice(0)) sub.destroy()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SubConnection, void, undefined> {
    try {
      while (true) {
        const sub = this.#waiting.shift()
        if (sub) {
          if (!sub.destroyed) yield sub
        } else if (this.#over) {
          return
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
        }
      }
    } finally {
      await this.close()
    }
  }
}
