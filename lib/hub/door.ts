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
