import { ProxyError } from '../core/index.ts'
import type { Connected } from './events.ts'

/** How long a connection that came in waits for a peer that is not there just now, in ms. */
const PATIENCE = 5000
/** Connections that wait at once. */
const MAX_WAITING = 1024

/** The peers that are connected, and which one of them serves. */
export class Pool {
  readonly #balance: boolean
  readonly #peers = new Set<Connected>()
  readonly #waiting = new Set<() => void>()
  #turn = 0

  /** `balance`: new connections go round. Otherwise the first that connected serves, and others stand by. */
  constructor(options: { balance?: boolean | undefined } = {}) {
    this.#balance = options.balance ?? false
  }

  get size(): number {
    return this.#peers.size
  }

  [Symbol.iterator](): IterableIterator<Connected> {
    return this.#peers.values()
  }

  /** Answers whether the new one stands by. */
  add(peer: Connected): boolean {
    this.#peers.add(peer)
    this.wake()
    // A peer without a link may be this very one's ghost.
    return !this.#balance && [...this.#peers].some((other) => other !== peer && other.proxy.serving)
  }

  /** A peer serves that did not before. */
  wake(): void {
    for (const look of [...this.#waiting]) look()
  }

  remove(peer: Connected): void {
    this.#peers.delete(peer)
  }

  /** The peer for a new connection, of those called `id` if one is named. */
  pick(id?: string): Connected | undefined {
    const able: Connected[] = []
    for (const peer of this.#peers) {
      if (!peer.proxy.serving || (id && peer.id !== id)) continue
      if (!this.#balance) return peer
      able.push(peer)
    }
    return able[this.#turn++ % Math.max(1, able.length)]
  }

  /** Like `pick`, with some patience: a peer that lost its connection is back soon. */
  async wait(id: string | undefined, signal: AbortSignal): Promise<Connected> {
    const now = this.pick(id)
    if (now) return now
    const nobody = id ? `node ${id} is not connected` : 'the other side is not connected'
    if (this.#waiting.size >= MAX_WAITING) throw new ProxyError('PROXY_ERR_NO_PEER', nobody, { retryable: true })
    return await new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(look)
        signal.removeEventListener('abort', giveUp)
      }
      const look = (): void => {
        const peer = this.pick(id)
        if (!peer) return
        settle()
        resolve(peer)
      }
      const giveUp = (): void => {
        settle()
        reject(new ProxyError('PROXY_ERR_NO_PEER', nobody, { retryable: true }))
      }
      const timer = setTimeout(giveUp, PATIENCE)
      this.#waiting.add(look)
      signal.addEventListener('abort', giveUp)
      if (signal.aborted) giveUp()
    })
  }
}
