import type { Policy } from '../../lib/core/index.ts'

/** A policy that can be another one from one question to the next. */
export class LivePolicy implements Policy {
  #policy: Policy

  constructor(policy: Policy) {
    this.#policy = policy
  }

  become(policy: Policy): void {
    this.#policy = policy
  }

  dial: Policy['dial'] = (to, address) => this.#policy.dial(to, address)
  resolve: NonNullable<Policy['resolve']> = (to) => this.#policy.resolve?.(to)
  listen: Policy['listen'] = (at) => this.#policy.listen(at)
}
