import type { KeyObject } from 'node:crypto'
import {
  type Abortable,
  assertSecret,
  type Credential,
  connect,
  deriveCredential,
  type Link,
  ProxyError,
} from './core/index.ts'
import type { Connected } from './hub/events.ts'
import { pause } from './hub/mappings.ts'
import { Side, type SideOptions } from './hub/side.ts'

export interface NodeOptions extends SideOptions {
  /** Dials one link to the server. */
  dial: (options: Abortable) => Promise<Link>
  /** What the server is called here, for people. */
  server: string
  /** The server's token, or the secret that a person chose. */
  secret: string
  /** What this node calls itself. */
  id: string
  /** The node's private Ed25519 key, which it proves to the server. */
  identity?: KeyObject | undefined
}

export interface SymportNode extends AsyncDisposable {
  /** The server, while connected. */
  readonly server: Connected | undefined
  drain(options?: { signal?: AbortSignal }): Promise<void>
  close(): Promise<void>
}

const FIRST_DELAY = 100
const LONGEST_DELAY = 1500
/** After a refusal: what the secret is does not change by asking often. */
const REFUSED_DELAY = 60_000

/**
 * A node: keeps one main connection to a server, dialling again without limit, and this side's mappings. Its own
 * listeners stand when the promise resolves; the first connection may still be under way.
 *
 * @throws ProxyError PROXY_ERR_SECRET if the secret is empty
 */
export async function createNode(options: NodeOptions): Promise<SymportNode> {
  assertSecret(options.secret)
  const side = new Side(options)
  const credential = deriveCredential(options.secret)
  await side.listen()
  const running = run(side, options, credential)

  const drain = async ({ signal = new AbortController().signal } = {}): Promise<void> => {
    await side.drain(signal)
    await running
  }
  const close = (): Promise<void> => drain({ signal: AbortSignal.abort() })
  return {
    get server() {
      return side.pool.pick()
    },
    drain,
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function run(side: Side, options: NodeOptions, credential: Promise<Credential>): Promise<void> {
  const signal = side.stopping
  const { id: label, identity } = options
  let ceiling = FIRST_DELAY
  while (!signal.aborted) {
    let delay = 0
    try {
      const main = await connect(options.dial, { secret: credential, label, identity, signal })
      const peer = side.add(main, options.server)
      const reason = await main.closed
      await peer.proxy.closed
      // Only what was carried and acknowledged shows that the way is good.
      if (main.acknowledged) ceiling = FIRST_DELAY
      delay = Math.random() * ceiling
      if (!signal.aborted) side.onEvent({ type: 'retrying', reason, delay })
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
      delay = reason.code === 'PROXY_ERR_REFUSED' ? REFUSED_DELAY : Math.random() * ceiling
      if (!signal.aborted) side.onEvent({ type: 'retrying', reason, delay })
    }
    // Full jitter: many nodes that lost one server do not come back in step.
    ceiling = Math.min(LONGEST_DELAY, ceiling * 2)
    await pause(delay, signal)
  }
}
