import type { KeyObject } from 'node:crypto'
import {
  type Abortable,
  assertSecret,
  Backoff,
  type Credential,
  connect,
  deriveCredential,
  type Link,
  type MainConnection,
  ProxyError,
  pause,
} from './core/index.ts'
import type { Connected } from './hub/events.ts'
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
  // Loaded while the secret is derived: a start should not wait for it.
  const ids = import('uuid')
  await side.listen()
  const running = run(side, options, credential, ids)

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

async function run(
  side: Side,
  options: NodeOptions,
  credential: Promise<Credential>,
  ids: Promise<{ v4: () => string }>,
): Promise<void> {
  const signal = side.stopping
  const { id: label, identity, keepalive, resumeTimeout, limits } = options
  const backoff = new Backoff()
  let renewed: MainConnection | undefined
  const settings = {
    ...{ secret: credential, label, identity, keepalive, resumeTimeout, limits, signal, budget: side.budget },
    onRenewed: (main: MainConnection) => {
      renewed = main
    },
    onRetry: (reason: ProxyError, delay: number) => side.onEvent({ type: 'retrying', reason, delay }),
  }
  while (!signal.aborted) {
    let reason: ProxyError
    try {
      const main = renewed ?? (await connect(options.dial, settings))
      renewed = undefined
      const peer = side.add(main, options.server, (await ids).v4())
      reason = await main.closed
      await peer.proxy.closed
      if (main.acknowledged) backoff.reset()
    } catch (error) {
      reason = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
    }
    if (renewed || signal.aborted) continue
    const delay = backoff.next(reason)
    side.onEvent({ type: 'retrying', reason, delay })
    await pause(delay, signal)
  }
  renewed?.close()
}
