import { ProxyError } from '../core/index.ts'
import type { Connected } from './events.ts'

/** How long a connection that came in waits for a peer that is not there just now, in ms. */
export const PATIENCE = 5000
/** Connections that wait at once. */
const MAX_WAITING = 1024
/** Of the ids that nobody has, an error names as many. */
const NAMED = 5

/** Which peers will do for a connection. */
export interface Wanted {
  /** The ones that are called so, in this order. Empty: any, in the order in which they connected. */
  readonly ids: readonly string[]
  /** Chooses among those that serve now. Default: the first of them. */
  readonly prefer?: ((able: Iterable<Connected>) => Connected | undefined) | undefined
}

/** The peers that are connected, and which one of them serves. */
export class Pool {
  readonly #balance: boolean
  readonly #peers = new Set<Connected>()
  readonly #aside = new WeakSet<Connected>()
  readonly #byId = new Map<string, Set<Connected>>()
  readonly #waiting = new Set<() => void>()
  #turn = 0

  /** `balance`: new connections go round. Otherwise the first that connected serves, and others stand by. */
  constructor(options: { balance?: boolean | undefined } = {}) {
    this.#balance = options.balance ?? false
  }

  get size(): number {
    return this.#peers.size
  }

  /** How many more connections could wait. */
  get room(): number {
    return MAX_WAITING - this.#waiting.size
  }

  [Symbol.iterator](): IterableIterator<Connected> {
    return this.#peers.values()
  }

  /** Answers whether the new one stands by. */
  add(peer: Connected): boolean {
    this.#peers.add(peer)
    const named = this.#byId.get(peer.id)
    if (named) named.add(peer)
    else this.#byId.set(peer.id, new Set([peer]))
    this.wake()
    if (this.#balance) return false
    // A peer without a link may be this very one's ghost. Of hundreds that are there the first will do.
    for (const other of this.serving()) if (other !== peer) return true
    return false
  }

  /** A peer serves that did not before. */
  wake(): void {
    for (const look of [...this.#waiting]) look()
  }

  remove(peer: Connected): void {
    this.#peers.delete(peer)
    const named = this.#byId.get(peer.id)
    named?.delete(peer)
    if (named?.size === 0) this.#byId.delete(peer.id)
  }

  #resuming(wanted: string | Wanted | undefined): Connected | undefined {
    const ids = typeof wanted === 'object' ? wanted.ids : wanted ? [wanted] : []
    const may = ids.length === 0 ? this.#peers : ids.flatMap((id) => [...(this.#byId.get(id) ?? [])])
    for (const peer of may) if (peer.proxy.state === 'resuming' && !this.#aside.has(peer)) return peer
    return undefined
  }

  /** Those that serve now; see `Wanted`. */
  *serving(ids: readonly string[] = []): Generator<Connected, void, undefined> {
    if (ids.length === 0) {
      for (const peer of this.#peers) if (this.serves(peer)) yield peer
      return
    }
    for (const id of ids) {
      for (const peer of this.#byId.get(id) ?? []) if (this.serves(peer)) yield peer
    }
  }

  /** It is here for listeners of its own, and serves no mapping of this side. */
  setAside(peer: Connected): void {
    this.#aside.add(peer)
  }

  /** Whether it takes connections of mappings now. */
  serves(peer: Connected): boolean {
    return peer.proxy.serving && !this.#aside.has(peer)
  }

  /** The peer for a new connection: one of those called `id`, if one is named, or one that is wanted. */
  pick(wanted?: string | Wanted): Connected | undefined {
    if (typeof wanted === 'object') {
      const able = this.serving(wanted.ids)
      return wanted.prefer ? wanted.prefer(able) : first(able)
    }
    const able = this.serving(wanted ? [wanted] : [])
    if (!this.#balance) return first(able)
    const all = [...able]
    return all[this.#turn++ % Math.max(1, all.length)]
  }

  /**
   * Like `pick`, with some patience (in ms): a peer that lost its connection is back soon. When that is over, one that has
   * lost its link and may still go on takes it: what is opened there waits with all the rest.
   */
  async wait(
    wanted: string | Wanted | undefined,
    signal: AbortSignal,
    patience: number = PATIENCE,
  ): Promise<Connected> {
    const now = this.pick(wanted)
    if (now) return now
    if (patience === 0 || this.#waiting.size >= MAX_WAITING) throw nobody(wanted)
    return await new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(look)
        signal.removeEventListener('abort', giveUp)
      }
      const look = (): void => {
        const peer = this.pick(wanted)
        if (!peer) return
        settle()
        resolve(peer)
      }
      const giveUp = (): void => {
        settle()
        reject(nobody(wanted))
      }
      const timer = setTimeout(() => {
        const peer = this.#resuming(wanted)
        if (!peer) return giveUp()
        settle()
        resolve(peer)
      }, patience)
      this.#waiting.add(look)
      signal.addEventListener('abort', giveUp)
      if (signal.aborted) giveUp()
    })
  }
}

function first(able: Iterable<Connected>): Connected | undefined {
  for (const peer of able) return peer
  return undefined
}

function nobody(wanted: string | Wanted | undefined): ProxyError {
  const ids = typeof wanted === 'object' ? wanted.ids : wanted ? [wanted] : []
  const more = ids.length > NAMED ? ` and ${ids.length - NAMED} more` : ''
  let text = 'the other side is not connected'
  if (ids.length === 1) text = `node ${ids[0]} is not connected`
  else if (ids.length > 1) text = `none of the nodes ${ids.slice(0, NAMED).join(', ')}${more} is connected`
  return new ProxyError('PROXY_ERR_NO_PEER', text, { retryable: true })
}
