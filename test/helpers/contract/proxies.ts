import { type TestContext, test } from 'node:test'
import { Acceptor, connect, type Link, type MainOptions, Proxy, type ProxyOptions } from '../../../lib/core/index.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { dialTcp, listenTcp } from '../../../lib/transports/tcp.ts'
import { type CodeDomain, codeDomain } from './code.ts'

const PSK = Buffer.alloc(32, 0x51)

export interface LinkKind {
  readonly name: string
  /** What a large transfer is here, in bytes: reads of one byte take their time. */
  readonly large: number
  connect(): Promise<LinkEnds>
}

export interface LinkEnds {
  readonly dialled: Link
  readonly accepted: Link
  close(): Promise<void>
}

function memory(name: string, large: number, fragment?: number): LinkKind {
  return {
    name,
    large,
    async connect() {
      const { a, b } = memoryPair(fragment === undefined ? {} : { fragment })
      return { dialled: a, accepted: b, close: async () => {} }
    },
  }
}

export const MEMORY: LinkKind = memory('memory', 6 * 1024 * 1024)

export const TCP: LinkKind = {
  name: 'tcp',
  large: 12 * 1024 * 1024,
  async connect() {
    let take: (link: Link) => void = () => {}
    const accepted = new Promise<Link>((resolve) => {
      take = resolve
    })
    const listener = await listenTcp({ host: '127.0.0.1', port: 0 }, (link) => take(link))
    const port = Number(listener.address.split(':').at(-1))
    const dialled = await dialTcp({ host: '127.0.0.1', port })
    return { dialled, accepted: await accepted, close: () => listener.close() }
  },
}

export const LINKS: readonly LinkKind[] = [
  MEMORY,
  memory('memory, reads of 1 byte', 48 * 1024, 1),
  memory('memory, reads of 7 bytes', 256 * 1024, 7),
  TCP,
]

export interface PairOptions {
  readonly dialling?: ProxyOptions & MainOptions
  readonly accepting?: ProxyOptions & MainOptions
  /** Stands between the two, for those who want to slow it down. */
  readonly wrap?: (link: Link) => Link
}

export interface Pair extends AsyncDisposable {
  readonly dialling: Proxy
  readonly accepting: Proxy
}

/** Two Proxies over a link of this kind, handshake done. */
export async function connectPair(kind: LinkKind, options: PairOptions = {}): Promise<Pair> {
  const { wrap = (link: Link) => link } = options
  const ends = await kind.connect()
  const acceptor = new Acceptor({ ...options.accepting, pskFor: async () => PSK })
  const [{ main: accepted }, dialled] = await Promise.all([
    acceptor.accept(wrap(ends.accepted)),
    connect(async () => wrap(ends.dialled), {
      ...options.dialling,
      secret: { name: '', suite: 'NNpsk0', psk: PSK },
    }),
  ])
  const dialling = new Proxy(dialled, options.dialling)
  const accepting = new Proxy(accepted, options.accepting)
  return {
    dialling,
    accepting,
    async [Symbol.asyncDispose]() {
      dialling.close()
      accepting.close()
      await Promise.all([dialling.closed, accepting.closed, ends.close()])
    },
  }
}

/** The two ends as a test sees them: `near` is the one that asks. */
export interface Stage {
  readonly near: Proxy
  readonly far: Proxy
  /** What code can listen on, at either side. */
  readonly nearCode: CodeDomain
  readonly farCode: CodeDomain
  readonly kind: LinkKind
}

export interface StageOptions {
  readonly near?: ProxyOptions & MainOptions
  readonly far?: ProxyOptions & MainOptions
  readonly links?: readonly LinkKind[]
  readonly wrap?: (link: Link) => Link
}

/** A test over every kind of link, and both ways round. Both sides have the domain `code`. */
export function everyWay(
  name: string,
  options: StageOptions,
  run: (stage: Stage, t: TestContext) => Promise<void>,
): void {
  for (const kind of options.links ?? LINKS) {
    for (const way of ['dialling', 'accepting'] as const) {
      test(`${name} (${way} side asks, ${kind.name})`, { timeout: 60_000 }, async (t) => {
        const nearCode = codeDomain()
        const farCode = codeDomain()
        const near = { ...options.near, domains: [...(options.near?.domains ?? []), nearCode] }
        const far = { ...options.far, domains: [...(options.far?.domains ?? []), farCode] }
        const sides = way === 'dialling' ? { dialling: near, accepting: far } : { dialling: far, accepting: near }
        await using pair = await connectPair(kind, options.wrap ? { ...sides, wrap: options.wrap } : sides)
        const other = way === 'dialling' ? 'accepting' : 'dialling'
        await run({ near: pair[way], far: pair[other], nearCode, farCode, kind }, t)
      })
    }
  }
}
