import type { KeyObject } from 'node:crypto'
import { assertSecret, derivePsk, type Link, ProxyError, suiteOf } from './core/index.ts'
import { Door } from './hub/door.ts'
import type { Connected } from './hub/events.ts'
import { Side, type SideOptions } from './hub/side.ts'
import { Admission } from './policy/admission.ts'
import type { LinkListener } from './transports/transport.ts'

export interface ServerOptions extends SideOptions {
  /** Listens for links, as `(onLink) => listenTcp({ host: '', port: 925 }, onLink)` does. */
  listen: (onLink: (link: Link) => void) => Promise<LinkListener>
  /** A token made for `staticKey`, or a secret that a person chose. */
  secret: string
  /** The private X25519 key whose public half is in the token. */
  staticKey?: KeyObject | undefined
  /** Handshakes at once, in all and from one address. Default 1,024 and 64. */
  maxHandshakes?: number | undefined
  handshakesPerAddress?: number | undefined
  /** Main connections at once, those without a link included. Default 4,096. */
  maxSessions?: number | undefined
}

export interface SymportServer extends AsyncDisposable {
  /** Where it really listens: `0.0.0.0:925`. */
  readonly address: string
  /** The nodes that are connected, in the order in which they came. */
  readonly nodes: Iterable<Connected>
  /** Takes nothing new, lets what is open finish until `signal` fires, then closes all. */
  drain(options?: { signal?: AbortSignal }): Promise<void>
  /** Closes all at once. */
  close(): Promise<void>
}

/**
 * A server: accepts main connections of nodes that know the secret, and keeps this side's mappings. It listens when the
 * promise resolves; a mapping that cannot listen is an event, and the others go on.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED if nodes cannot be listened for, PROXY_ERR_SECRET if the secret is empty
 */
export async function createServer(options: ServerOptions): Promise<SymportServer> {
  const { secret, staticKey } = options
  assertSecret(secret)
  const suite = suiteOf(secret)
  // Under way while the rest starts: a node that is quick waits for it in its handshake.
  const psk = derivePsk(secret, '', suite)
  const ids = import('uuid')
  const side = new Side(options)
  const closing = new AbortController()
  const { keepalive, resumeTimeout, limits, maxHandshakes, maxSessions } = options
  const door = new Door(new Admission({ perAddress: options.handshakesPerAddress }), {
    ...{ staticKey, keepalive, resumeTimeout, limits, maxHandshakes, maxSessions, budget: side.budget },
    pskFor: async (name, wanted) => (name === '' && wanted === suite ? await psk : undefined),
  })

  const onLink = async (link: Link): Promise<void> => {
    try {
      const { main, resumed } = await door.accept(link, closing.signal)
      if (resumed) return
      // While it stops, links come in for what is open only.
      if (side.stopping.aborted)
        main.close(new ProxyError('PROXY_ERR_DRAINING', 'the server is about to stop', { retryable: true }))
      else side.add(main, main.peer.label, (await ids).v4())
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_HANDSHAKE')
      if (!side.stopping.aborted) side.onEvent({ type: 'rejected', remote: link.remote, reason })
    }
  }

  const listener: LinkListener = await options.listen(onLink).catch(async (error) => {
    await side.drain(AbortSignal.abort())
    throw error
  })
  side.onEvent({ type: 'listening', address: listener.address })
  await Promise.all([side.listen(), psk])

  const drain = async ({ signal = new AbortController().signal } = {}): Promise<void> => {
    await side.drain(signal)
    closing.abort()
    await listener.close()
  }
  const close = (): Promise<void> => drain({ signal: AbortSignal.abort() })
  return { address: listener.address, nodes: side.pool, drain, close, [Symbol.asyncDispose]: close }
}
