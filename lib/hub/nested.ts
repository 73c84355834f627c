import { type Proxy, ProxyError } from '../core/index.ts'

/** What joiners ask for: the one thing that a channel leads to. Its address says what they send: `stream`, `datagrams`. */
export const TARGET = 'target'

/** Two things that do not fit: another kind of channel, or of data. */
export function kind(text: string): ProxyError {
  return new ProxyError('PROXY_ERR_CHANNEL_KIND', text)
}

/** Closes a Proxy in which nothing has been open for `ms`, or a little longer. */
export function closeWhenIdle(proxy: Proxy, ms: number): void {
  let idle = 0
  const timer = setInterval(() => {
    idle = isEmpty(proxy.subConnections) ? idle + 1 : 0
    if (idle > 2) proxy.close()
  }, ms / 2)
  void proxy.closed.then(() => clearInterval(timer))
}

function isEmpty(all: Iterable<unknown>): boolean {
  for (const _one of all) return false
  return true
}
