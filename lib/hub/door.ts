import { Acceptor, type AcceptorOptions, type Link, type MainConnection, ProxyError } from '../core/index.ts'
import type { Admission, Visit } from '../policy/admission.ts'

/** Where links come in: the acceptor, and what is held against the addresses that they come from. */
export class Door {
  readonly #admission: Admission
  readonly #acceptor: Acceptor
  readonly #visits = new WeakMap<Link, Visit>()
  /** The visit that brought the present link of a session. */
  readonly #sessions = new WeakMap<MainConnection, Visit>()

  constructor(admission: Admission, options: AcceptorOptions) {
    this.#admission = admission
    this.#acceptor = new Acceptor({
      ...options,
      pskFor: async (name, suite, link) => {
        await this.#visits.get(link)?.attempt(name)
        return await options.pskFor(name, suite, link)
      },
    })
  }

  /** As `Acceptor.accept`. */
  async accept(link: Link, signal: AbortSignal): Promise<{ main: MainConnection; resumed: boolean }> {
    let visit: Visit
    try {
      visit = this.#admission.enter(link.remote)
    } catch (error) {
      link.destroy()
      throw error
    }
    this.#visits.set(link, visit)
    try {
      const accepted = await this.#acceptor.accept(link, { signal })
      visit.succeeded()
      this.#settle(accepted.main, visit)
      return accepted
    } catch (error) {
      if (error instanceof ProxyError && error.code === 'PROXY_ERR_HANDSHAKE') visit.failed()
      throw error
    } finally {
      visit.leave()
    }
  }

  #settle(main: MainConnection, visit: Visit): void {
    const before = this.#sessions.get(main)
    this.#sessions.set(main, visit)
    if (before) before.ended()
    else void main.closed.then(() => this.#sessions.get(main)?.ended())
  }
}

/** How long the rejection of an unknown name waits for what explains it, in ms. */
const HOLD = 2000
/** Rejections that wait. */
const MAX_HELD = 256
/** A second instance that may not connect asks again every second or so, and is told this often, in ms. */
const TELL_AGAIN = 60_000
const MAX_TOLD = 256

interface Held {
  readonly timer: NodeJS.Timeout
  readonly host: string
  readonly name: string
  readonly tell: () => void
}

/**
 * What is told about links that were turned away. A node that was given a name tries it as that of an enrolled node
 * first, and where it is none, right after that under the shared secret, with the name as its label. To people that is
 * one node that connects: its first try is not worth telling.
 */
export class Rejections {
  readonly #tell: (remote: string | undefined, reason: ProxyError) => void
  readonly #held = new Set<Held>()
  /** When a duplicate was told last, by where it comes from and what it is. */
  readonly #told = new Map<string, number>()

  constructor(tell: (remote: string | undefined, reason: ProxyError) => void) {
    this.#tell = tell
  }

  /** `unknown`: the name that was tried, if nobody here is called so. */
  add(remote: string | undefined, reason: ProxyError, unknown?: string): void {
    if (reason.code === 'PROXY_ERR_DUPLICATE' && this.#repeats(`${hostOf(remote)} ${reason.message}`)) return
    const tell = (): void => this.#tell(remote, reason)
    if (!unknown || reason.code !== 'PROXY_ERR_HANDSHAKE' || this.#held.size >= MAX_HELD) {
      tell()
      return
    }
    const timer = setTimeout(() => {
      this.#held.delete(held)
      tell()
    }, HOLD)
    const held: Held = { timer, host: hostOf(remote), name: unknown, tell }
    this.#held.add(held)
  }

  /** A node has connected under the shared secret, and calls itself `label`: one rejection is explained. */
  explain(remote: string | undefined, label: string): void {
    const host = hostOf(remote)
    for (const held of this.#held) {
      if (held.host !== host || held.name !== label) continue
      clearTimeout(held.timer)
      this.#held.delete(held)
      return
    }
  }

  #repeats(what: string): boolean {
    const now = performance.now()
    if (now - (this.#told.get(what) ?? Number.NEGATIVE_INFINITY) < TELL_AGAIN) return true
    this.#told.delete(what)
    this.#told.set(what, now)
    const [oldest] = this.#told.keys()
    if (this.#told.size > MAX_TOLD && oldest !== undefined) this.#told.delete(oldest)
    return false
  }

  /** Tells what waits. */
  flush(): void {
    for (const { timer, tell } of this.#held) {
      clearTimeout(timer)
      tell()
    }
    this.#held.clear()
  }
}

/** The address without its port: that is another one with each try. */
function hostOf(remote = ''): string {
  return remote.replace(/:[0-9]+$/, '')
}
