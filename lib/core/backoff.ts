import { ProxyError } from './errors.ts'

const FIRST = 100
const LONGEST = 1500
/**
 * After a refusal: what the secret is does not change by asking often, nor whose a name is. And of two that replace each
 * other the one that was replaced last shall not do the same at once.
 */
const REFUSED = 60_000
const REFUSALS: ReadonlySet<unknown> = new Set(['PROXY_ERR_REFUSED', 'PROXY_ERR_ID_TAKEN', 'PROXY_ERR_REPLACED'])

/** How long to wait before the next try. Full jitter: many that lost one server do not come back in step. */
export class Backoff {
  #ceiling = FIRST

  /** In ms. `reason`: why the last try failed. */
  next(reason?: unknown): number {
    if (reason instanceof ProxyError && REFUSALS.has(reason.code)) return REFUSED
    const delay = Math.random() * this.#ceiling
    this.#ceiling = Math.min(LONGEST, this.#ceiling * 2)
    return delay
  }

  /** For when something was carried and acknowledged: only that shows that the way is good. */
  reset(): void {
    this.#ceiling = FIRST
  }
}

/** Resolves after `ms`, or at once when `signal` fires. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve()
      return
    }
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}
