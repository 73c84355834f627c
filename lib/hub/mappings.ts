import { allowAll, type DomainPlugin, Domains, type Listener, ProxyError, pause } from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'
import type { Pool } from './pool.ts'

/** How often a listener that the peer could not have is asked for again, in ms. */
const ASK_AGAIN = 5000

/**
 * Listens here for as long as this side runs, whichever peer is connected: each connection goes to the one that serves.
 * A listener that cannot bind is told as an event; undefined then.
 */
export async function listenHere(
  spec: Spec,
  pool: Pool,
  domains: readonly DomainPlugin[],
  onEvent: OnEvent,
  signal: AbortSignal,
): Promise<Listener | undefined> {
  try {
    // The operator of this side wants it: there is nobody to ask.
    const listener = await new Domains(domains, allowAll).listen(spec.Listen, false, {
      signal,
      async open({ to = spec.Forward, from } = {}) {
        try {
          const { proxy } = await pool.wait(spec.Node, signal)
          return await proxy.open({ to, from })
        } catch (error) {
          const reason = ProxyError.from(error, 'PROXY_ERR_NO_PEER')
          onEvent({ type: 'unserved', spec, from, reason })
          throw reason
        }
      },
    })
    onEvent({ type: 'listener-ready', spec, bound: listener.bound, at: 'here' })
    return listener
  } catch (error) {
    const reason = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
    onEvent({ type: 'listener-failed', spec, reason, at: 'here' })
    return undefined
  }
}

/** Has the peer listen, and asks again until it does or is gone: what held the port may be about to let go. */
export async function listenAtPeer(spec: Spec, peer: Connected, onEvent: OnEvent, signal: AbortSignal): Promise<void> {
  const over = (): boolean => ['draining', 'closed'].includes(peer.proxy.state) || signal.aborted
  for (let tries = 0; !over(); tries++) {
    try {
      const listener = await peer.proxy.newPeerListener(spec)
      onEvent({ type: 'listener-ready', spec, bound: listener.bound, at: peer })
      return
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
      if (over()) return
      if (tries === 0) onEvent({ type: 'listener-failed', spec, reason, at: peer })
      if (reason.code !== 'PROXY_ERR_LISTEN_FAILED') return
      await Promise.race([pause(ASK_AGAIN, signal), peer.proxy.closed])
    }
  }
}
