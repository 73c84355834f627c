import type { Endpoint } from './endpoint.ts'

/**
 * Asked before everything that the peer requests: each method returns, or throws a ProxyError that says why not. What
 * this side's own operator mapped is not asked about.
 */
export interface Policy {
  /** May the peer have `to` dialled? `address` is the IP address it resolved to; domains without addresses have none. */
  dial(to: Endpoint, address?: string): void
  /**
   * Asked before the name in `to` is looked up: it throws if no address of it could be allowed. So nobody has names looked
   * up here who may dial nothing. Default: `dial` alone is asked.
   */
  resolve?(to: Endpoint): void
  /** May the peer listen at `at`? A promise lets it wait for that. */
  listen(at: Endpoint): void | Promise<void>
}

/** What a Proxy without a policy does: a library user decides by what it asks for. */
export const allowAll: Policy = { dial() {}, listen() {} }
