import type { KeyObject } from 'node:crypto'
import {
  type Abortable,
  assertSecret,
  Backoff,
  type ConnectOptions,
  type Credential,
  connect,
  deriveCredential,
  type Link,
  type MainConnection,
  ProxyError,
  pause,
} from './core/index.ts'
import { channelRelay } from './hub/channels.ts'
import type { Connected } from './hub/events.ts'
import type { MappingTable } from './hub/mapping-table.ts'
import { Side, type SideOptions } from './hub/side.ts'

export interface NodeOptions extends SideOptions {
  /** Dials one link to the server. */
  dial: (options: Abortable) => Promise<Link>
  /** What the server is called here, for people. */
  server: string
  /** The server's token, or the secret that a person chose. */
  secret: string
  /** What `deriveCredential` makes of `secret` and `name`, where that is under way already. */
  credential?: Promise<Credential> | undefined
  /** What this node calls itself. */
  id: string
  /**
   * Its name at the server, if it may be enrolled there: `secret` is then tried as that of this name first, and as the one
   * that the server's nodes share if that is refused. Default: only the latter.
   */
  name?: string | undefined
  /** The node's private Ed25519 key, which it proves to the server. */
  identity?: KeyObject | undefined
}

export interface SymportNode extends AsyncDisposable {
  /** The server, while connected. */
  readonly server: Connected | undefined
  /** The mappings of this side. */
  readonly mappings: MappingTable
  /** Bytes held for the server; see `heldBytes` in the options. */
  readonly heldBytes: number
  drain(options?: { signal?: AbortSignal }): Promise<void>
  close(): Promise<void>
}

/**
 * A node: keeps one main connection to a server, dialling again without limit, and this side's mappings. Its own
 * listeners stand when the promise resolves; the first connection may still be under way.
 *
 * @throws ProxyError PROXY_ERR_SECRET if the secret is empty
 */
export async function createNode(options: NodeOptions): Promise<SymportNode> {
  assertSecret(options.secret)
  // Under way while the rest starts.
  const credentials = new Credentials(options)
  const side = await Side.open({ ...options, relay: options.relay ?? channelRelay() })
  const unused = side.budget.free
  await side.listen()
  const running = run(side, options, credentials)

  const drain = async ({ signal = new AbortController().signal } = {}): Promise<void> => {
    await side.drain(signal)
    await running
  }
  const close = (): Promise<void> => drain({ signal: AbortSignal.abort() })
  return {
    get server() {
      return side.pool.pick()
    },
    mappings: side.mappings,
    get heldBytes() {
      return unused - side.budget.free
    },
    drain,
    close,
    [Symbol.asyncDispose]: close,
  }
}

/**
 * What a node may prove with its secret: that it is the enrolled node of its name, or that it is one of those that share
 * the server's secret.
 *
 * Trying the second after a refusal, which anybody on the way can forge, is no downgrade: secret and suite are the same,
 * and so is what it costs to guess at them. The name only selects the salt.
 */
class Credentials {
  readonly #own: () => Promise<Credential>
  /** What worked last comes first. */
  #all: readonly (() => Promise<Credential>)[]

  constructor({ secret, credential, name = '' }: NodeOptions) {
    this.#own = once(() => credential ?? deriveCredential(secret, name))
    this.#all = name === '' ? [this.#own] : [this.#own, once(() => deriveCredential(secret))]
    // Under way while the rest starts. Whoever connects hears of a failure.
    this.#own().catch(() => {})
  }

  /** @throws ProxyError why the last one tried did not work: one is tried after another that was refused */
  async connect(dial: NodeOptions['dial'], settings: Omit<ConnectOptions, 'secret'>): Promise<MainConnection> {
    let refused: unknown
    for (const credential of this.#all) {
      try {
        const main = await connect(dial, { ...settings, secret: credential() })
        this.#prefer(credential)
        return main
      } catch (error) {
        refused = error
        if (!(error instanceof ProxyError && error.code === 'PROXY_ERR_REFUSED')) break
      }
    }
    throw refused
  }

  /** The node's own name comes first again. */
  preferOwn(): void {
    this.#prefer(this.#own)
  }

  #prefer(first: () => Promise<Credential>): void {
    this.#all = [first, ...this.#all.filter((other) => other !== first)]
  }
}

/** Slow work, done when it is first asked for. */
function once<T>(work: () => Promise<T>): () => Promise<T> {
  let done: Promise<T> | undefined
  return () => {
    done ??= work()
    return done
  }
}

async function run(side: Side, options: NodeOptions, credentials: Credentials): Promise<void> {
  const signal = side.stopping
  const { id: label, identity, keepalive, resumeTimeout, limits } = options
  const backoff = new Backoff()
  let renewed: MainConnection | undefined
  const settings = {
    ...{ label, identity, keepalive, resumeTimeout, limits, signal, budget: side.budget },
    onRenewed: (main: MainConnection) => {
      renewed = main
    },
    onRetry: (reason: ProxyError, delay: number) => side.onEvent({ type: 'retrying', reason, delay }),
  }
  while (!signal.aborted) {
    let reason: ProxyError
    try {
      const main = renewed ?? (await credentials.connect(options.dial, settings))
      renewed = undefined
      const peer = side.add(main, options.server)
      reason = await main.closed
      await peer.proxy.closed
      if (main.acknowledged) backoff.reset()
    } catch (error) {
      reason = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
    }
    if (renewed || signal.aborted) continue
    // It was enrolled while it was connected without that.
    if (reason.code === 'PROXY_ERR_ID_TAKEN') credentials.preferOwn()
    const delay = backoff.next(reason)
    side.onEvent({ type: 'retrying', reason, delay })
    await pause(delay, signal)
  }
  renewed?.close()
}
