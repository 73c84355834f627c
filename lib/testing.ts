import { derivePsk } from './core/connect.ts'
import type { MainOptions } from './core/index.ts'
import { Acceptor, connect, Proxy, type ProxyOptions } from './core/index.ts'
import { type MemoryOptions, memoryPair } from './transports/memory.ts'

export { type MemoryOptions, type MemoryPair, memoryPair } from './transports/memory.ts'

export interface ProxyPairOptions extends MemoryOptions {
  /** For the dialling side. */
  a?: ProxyOptions & MainOptions
  /** For the accepting side. */
  b?: ProxyOptions & MainOptions
}

export interface ProxyPair extends AsyncDisposable {
  /** The side that dialled the main connection. */
  readonly a: Proxy
  /** The side that accepted it. */
  readonly b: Proxy
  /** Loses the link between them, with a FIN or a RST. */
  cut(how: 'fin' | 'rst'): void
}

const SECRET = 'symport/testing'

/** Two Proxies, joined by a link inside this process, handshake done. */
export async function createProxyPair(options: ProxyPairOptions = {}): Promise<ProxyPair> {
  const links = memoryPair(options)
  const psk = await derivePsk(SECRET, '', 'NNpsk0')
  const acceptor = new Acceptor({ ...options.b, pskFor: async () => psk })
  const [{ main: accepted }, dialled] = await Promise.all([
    acceptor.accept(links.b),
    connect(async () => links.a, { ...options.a, secret: { name: '', suite: 'NNpsk0', psk } }),
  ])
  const a = new Proxy(dialled, options.a)
  const b = new Proxy(accepted, options.b)
  return {
    a,
    b,
    cut: links.cut,
    async [Symbol.asyncDispose]() {
      a.close()
      b.close()
      await Promise.all([a.closed, b.closed])
    },
  }
}
