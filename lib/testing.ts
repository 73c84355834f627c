import { derivePsk } from './core/connect.ts'
import type { Link, MainOptions } from './core/index.ts'
import { Acceptor, connect, Proxy, type ProxyOptions } from './core/index.ts'
import { type MemoryOptions, type MemoryPair, memoryPair } from './transports/memory.ts'

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
  /**
   * Loses the link between them, with a FIN or a RST. They go on over another one soon; with `resumeTimeout: 0` for either
   * side both end.
   */
  cut(how: 'fin' | 'rst'): void
}

const SECRET = 'symport/testing'

/** Two Proxies, joined by a link inside this process, handshake done. */
export async function createProxyPair(options: ProxyPairOptions = {}): Promise<ProxyPair> {
  const psk = await derivePsk(SECRET, '', 'NNpsk0')
  const acceptor = new Acceptor({ ...options.b, pskFor: async () => psk })
  let links: MemoryPair | undefined
  let accepted: ReturnType<Acceptor['accept']> | undefined
  const dial = async (): Promise<Link> => {
    links = memoryPair(options)
    accepted = acceptor.accept(links.b)
    // A link that is cut before it stands is for the dialling side to do something about.
    accepted.catch(() => {})
    return links.a
  }
  const dialled = await connect(dial, { ...options.a, secret: { name: '', suite: 'NNpsk0', psk } })
  if (!accepted) throw new TypeError('nobody dialled')
  const a = new Proxy(dialled, options.a)
  const b = new Proxy((await accepted).main, options.b)
  return {
    a,
    b,
    cut: (how) => links?.cut(how),
    async [Symbol.asyncDispose]() {
      a.close()
      b.close()
      await Promise.all([a.closed, b.closed])
    },
  }
}
