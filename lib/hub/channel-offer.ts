import {
  allowAll,
  type DomainPlugin,
  Domains,
  type Endpoint,
  type Incoming,
  type Link,
  linkFrom,
  type Policy,
  Proxy,
  ProxyError,
  type SubConnection,
} from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { ChannelSecret } from './channel-handshake.ts'
import type { ChannelTries } from './channel-tries.ts'
import type { Connected } from './events.ts'
import { closeWhenIdle, kind, TARGET } from './nested.ts'
import type { RelayContext } from './relay.ts'

/** Those that have joined one channel. */
const MAX_JOINED = 1024
/** Handshakes of one channel at once. One more takes the place of the oldest that has not begun: that costs it no try. */
const MAX_HANDSHAKES = 64
/** A joiner closes what it does not use long before. */
const IDLE = 300_000
/** Failures that are no guess are told once in so many ms. */
const QUIET = 60_000
/** Why this side gives up one that says nothing. */
const OURS: ReadonlySet<string> = new Set([
  'PROXY_ERR_HANDSHAKE_TIMEOUT',
  'PROXY_ERR_TOO_MANY_HANDSHAKES',
  'PROXY_ERR_TOO_MANY_SESSIONS',
])
/** The domains that a tunnel has exits for. */
const EXITS: readonly string[] = ['tcp', 'udp']

export interface OfferOptions {
  readonly context: RelayContext
  readonly tries: ChannelTries
  readonly policy: Policy
  readonly signal: AbortSignal
  readonly onProxy: (proxy: Proxy, peer: Connected) => void
}

interface Handshake {
  readonly link: Link
  /** It has not begun. */
  silent: boolean
  /** Why this side has given it up. */
  givenUp?: ProxyError | undefined
}

/** A channel that this side offers at one peer: answers those who join. */
export class ChannelOffer {
  readonly #secret: ChannelSecret
  readonly #peer: Connected
  readonly #options: OfferOptions
  readonly #domains: readonly DomainPlugin[]
  readonly #policy: Policy
  readonly #handshakes = new Set<Handshake>()
  /** When a failure of this code was told last. */
  readonly #told = new Map<string, number>()
  #joined = 0

  constructor({ Forward }: Spec, secret: ChannelSecret, peer: Connected, options: OfferOptions) {
    this.#secret = secret
    this.#peer = peer
    this.#options = options
    const { domains } = options.context
    const isTunnel = Forward.Domain === 'tunnel'
    this.#domains = isTunnel ? exits(secret.name, domains) : target(secret.name, Forward, domains)
    // Of a target the operator has decided.
    this.#policy = isTunnel ? exceptTarget(options.policy) : allowAll
  }

  /** Resolves when nobody else can come. */
  async serve(incoming: Incoming): Promise<void> {
    for await (const sub of incoming) void this.#answer(sub)
  }

  async #answer(sub: SubConnection): Promise<void> {
    const { context, tries, signal, onProxy } = this.#options
    const { budget, limits } = context
    const link = linkFrom(sub, sub.remote, 'channel')
    const handshake: Handshake = { link, silent: true }
    const onHeard = (): void => {
      handshake.silent = false
    }
    let counted = false
    try {
      this.#makeRoom()
      this.#handshakes.add(handshake)
      const { answerChannel } = await import('./channel-handshake.ts')
      const options = { ...this.#secret, tries, signal, budget, limits, onHeard }
      const main = await answerChannel(link, options)
      this.#joined++
      counted = true
      void main.closed.then(() => this.#joined--)
      const proxy = new Proxy(main, { domains: this.#domains, policy: this.#policy })
      closeWhenIdle(proxy, IDLE)
      onProxy(proxy, this.#peer)
    } catch (error) {
      const reason = handshake.givenUp ?? ProxyError.from(error, 'PROXY_ERR_HANDSHAKE')
      if (!counted) link.destroy(reason)
      // Somebody looked whether there is anybody, and went without a word.
      if (handshake.silent && !OURS.has(reason.code)) return
      this.#tell(reason)
    } finally {
      this.#handshakes.delete(handshake)
    }
  }

  #makeRoom(): void {
    const { name } = this.#secret
    if (this.#joined >= MAX_JOINED) {
      const text = `channel ${name} has ${MAX_JOINED} others in it already`
      throw new ProxyError('PROXY_ERR_TOO_MANY_SESSIONS', text, { retryable: true })
    }
    if (this.#handshakes.size < MAX_HANDSHAKES) return
    const full = new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', `too many handshakes of channel ${name} at once`, {
      retryable: true,
    })
    for (const handshake of this.#handshakes) {
      if (!handshake.silent) continue
      this.#handshakes.delete(handshake)
      handshake.givenUp = full
      handshake.link.destroy(full)
      return
    }
    throw full
  }

  #tell(reason: ProxyError): void {
    if (this.#options.signal.aborted) return
    const now = performance.now()
    const guess = reason.code === 'PROXY_ERR_CHANNEL_PASSWORD'
    if (!guess && now - (this.#told.get(reason.code) ?? Number.NEGATIVE_INFINITY) < QUIET) return
    this.#told.set(reason.code, now)
    const { name } = this.#secret
    this.#options.context.onEvent({ type: 'channel-failed', channel: name, peer: this.#peer, reason })
  }
}

/** What the operator of this side has mapped: whoever knows the password may have it, and nothing else. */
function target(name: string, forward: Endpoint, domains: readonly DomainPlugin[]): DomainPlugin[] {
  const local = new Domains(domains, allowAll)
  const carries = local.carries(forward)
  return [
    {
      name: TARGET,
      carries,
      async dial({ Addr }, { signal, from }) {
        if (Addr !== carries) throw kind(`channel ${name} carries ${inWords(carries)}, and not ${inWords(Addr)}`)
        try {
          return await local.dial(forward, false, { signal, from })
        } catch (error) {
          throw away(name, error)
        }
      },
    },
    ...EXITS.map((exit) => refusing(exit, `channel ${name} leads to one target, and is no tunnel`)),
  ]
}

function inWords(carries: string): string {
  if (carries === 'stream') return 'a stream of bytes'
  return carries === 'datagrams' ? 'datagrams' : 'what was asked for'
}

/** Where a channel leads to is for this side to know: its log shows the cause. */
function away(name: string, cause: unknown): ProxyError {
  const { code, retryable } = ProxyError.from(cause, 'PROXY_ERR_DIAL_FAILED')
  return new ProxyError(code, `the target of channel ${name} cannot be reached from there`, { cause, retryable })
}

/** What joiners ask for themselves, under the policy of tunnels. */
function exits(name: string, domains: readonly DomainPlugin[]): DomainPlugin[] {
  return [
    ...domains.flatMap((plugin) => exit(plugin) ?? []),
    refusing(TARGET, `channel ${name} is a tunnel: listen with socks5, http or mixed, and forward to tunnel://`),
  ]
}

/** What is no exit says so itself. */
function exceptTarget(policy: Policy): Policy {
  return {
    dial(to, address) {
      if (to.Domain !== TARGET) policy.dial(to, address)
    },
    resolve: (to) => policy.resolve?.(to),
    listen: (at) => policy.listen(at),
  }
}

/** Nobody listens through a tunnel. */
function exit(plugin: DomainPlugin): DomainPlugin | undefined {
  const { name, carries, resolve, dial } = plugin
  if (!EXITS.includes(name) || !resolve || !dial) return undefined
  return {
    ...{ name, carries },
    resolve: (to, options) => resolve.call(plugin, to, options),
    dial: (to, context) => dial.call(plugin, to, context),
  }
}

function refusing(name: string, text: string): DomainPlugin {
  return {
    name,
    async dial() {
      throw kind(text)
    },
  }
}
