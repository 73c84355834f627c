import type { Admitted } from '../core/index.ts'
import type { Connected } from './events.ts'
import type { Limiter } from './limits.ts'
import { type Entry, type Traffic, visitorOf } from './traffic.ts'

/**
 * Somebody who was let in at a mapping, and by the node that serves them as soon as it is known which one that is. They
 * count at both until they leave, whatever is opened for them or kept for those who come after.
 */
export class Guest implements Admitted {
  readonly #limiter: Limiter
  readonly #from: string | undefined
  readonly #entry: Entry
  #peer: Connected | undefined
  #atNode: Entry | undefined

  /** @throws ProxyError if the limits of the mapping let them not in */
  constructor(mapping: Traffic, limiter: Limiter, from: string | undefined) {
    this.#limiter = limiter
    this.#from = from
    this.#entry = mapping.enter(from)
  }

  get peer(): Connected | undefined {
    return this.#peer
  }

  /** @throws ProxyError if the limits of the node let them not in */
  goTo(peer: Connected): void {
    if (this.#peer === peer) return
    const entry = this.#limiter.node(peer).enter(this.#from)
    this.#atNode?.leave()
    this.#atNode = entry
    this.#peer = peer
  }

  /** Whether what is opened for them is for them alone, as bytes of each visitor are limited. */
  get alone(): boolean {
    const atNode = this.#peer ? this.#atNode?.sharing !== '' : this.#limiter.nodesPaceVisitors
    return atNode || this.#entry.sharing !== ''
  }

  get sharing(): string {
    return `${this.#peer?.instance ?? ''} ${this.alone ? visitorOf(this.#from) : ''}`
  }

  leave(): void {
    this.#entry.leave()
    this.#atNode?.leave()
  }
}
