import {
  type Abortable,
  Acceptor,
  type AcceptorOptions,
  connect,
  type Link,
  type MainConnection,
  type MainOptions,
  Proxy,
  type ProxyOptions,
  type State,
} from '../../../lib/core/index.ts'
import { type CodeDomain, codeDomain } from '../contract/code.ts'
import { FaultyNetwork, type FaultyNetworkOptions, type FaultyPath } from '../faults/fault-link.ts'

export const PSK: Buffer = Buffer.alloc(32, 0x52)

export interface PairOptions {
  readonly dialling?: ProxyOptions & MainOptions
  readonly accepting?: ProxyOptions & MainOptions
  readonly acceptor?: Partial<AcceptorOptions>
  /** How long an attempt of the dialling side may take, in ms. */
  readonly timeout?: number
  readonly onRenewed?: (main: MainConnection) => void
}

export interface End {
  readonly proxy: Proxy
  /** What code can listen on here. */
  readonly code: CodeDomain
  /** All states since the beginning. */
  readonly states: readonly State[]
}

export interface FaultyPairOptions extends PairOptions, FaultyNetworkOptions {}

/** How links come to be. */
export interface Network {
  dial(options: Abortable): Promise<Link>
  listen(onLink: (link: Link) => void): void
}

/** Two Proxies that find a new link whenever they have lost one. */
export interface ResumingPair extends AsyncDisposable {
  readonly acceptor: Acceptor
  readonly dialling: End
  readonly accepting: End
  /** What the acceptor came to hold that is not this session. */
  readonly others: readonly MainConnection[]
}

export interface FaultyPair extends ResumingPair {
  readonly network: FaultyNetwork
  /** The link that is in use. */
  readonly path: FaultyPath
}

function endOf(main: MainConnection, options: ProxyOptions = {}): End {
  const code = codeDomain()
  const proxy = new Proxy(main, { ...options, domains: [...(options.domains ?? []), code] })
  const states: State[] = []
  proxy.on('state', (state) => states.push(state))
  return { proxy, code, states }
}

export async function resumingPair(network: Network, options: PairOptions = {}): Promise<ResumingPair> {
  const acceptor = new Acceptor({ ...options.accepting, ...options.acceptor, pskFor: async () => PSK })
  const accepted: MainConnection[] = []
  network.listen((link) => {
    acceptor.accept(link).then(
      ({ main, resumed }) => resumed || accepted.push(main),
      // The dialling side tries again.
      () => {},
    )
  })
  const main = await connect((abortable) => network.dial(abortable), {
    ...options.dialling,
    secret: { name: '', suite: 'NNpsk0', psk: PSK },
    timeout: options.timeout ?? 10_000,
    onRenewed: options.onRenewed,
  })
  const [peer] = accepted
  if (!peer) throw new TypeError('the acceptor is done first')
  const dialling = endOf(main, options.dialling)
  const accepting = endOf(peer, options.accepting)
  return {
    acceptor,
    dialling,
    accepting,
    get others() {
      return accepted.slice(1)
    },
    async [Symbol.asyncDispose]() {
      for (const { proxy } of [dialling, accepting]) proxy.close()
      for (const other of accepted.slice(1)) other.close()
      await Promise.all([dialling.proxy.closed, accepting.proxy.closed])
    },
  }
}

/** With somebody between them who can do anything to their links. */
export async function faultyPair(options: FaultyPairOptions = {}): Promise<FaultyPair> {
  const network = new FaultyNetwork(options)
  const { dial } = network
  const listen = (onLink: (link: Link) => void): void => {
    network.onLink = onLink
  }
  const pair = await resumingPair({ dial, listen }, options)
  return {
    network,
    acceptor: pair.acceptor,
    dialling: pair.dialling,
    accepting: pair.accepting,
    get others() {
      return pair.others
    },
    get path() {
      const path = network.paths.at(-1)
      if (!path) throw new TypeError('there is one from the beginning')
      return path
    },
    async [Symbol.asyncDispose]() {
      const over = pair[Symbol.asyncDispose]()
      network.unblock()
      // Ends that linger would hold the process.
      for (const path of network.paths) path.cut('rst')
      await over
    },
  }
}
