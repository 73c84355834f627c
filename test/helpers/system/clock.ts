import type { Clock } from '../../../lib/store/acme.ts'

/** A clock that goes on when it is told to. */
export class MovedClock implements Clock {
  #moved = 0
  #next: { readonly at: number; readonly act: () => void } | undefined

  now(): number {
    return Date.now() + this.#moved
  }

  /** Ms until the next thing is to be done. */
  get left(): number {
    return (this.#next?.at ?? Number.NaN) - this.now()
  }

  after(ms: number, act: () => void): () => void {
    this.#next = { at: this.now() + ms, act }
    return () => {
      this.#next = undefined
    }
  }

  move(ms: number): void {
    this.#moved += ms
    if (this.#next && this.#next.at <= this.now()) this.#next.act()
  }
}
