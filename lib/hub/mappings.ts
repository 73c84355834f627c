import { ProxyError, pause } from '../core/index.ts'
import type { Spec } from '../domains/spec.ts'
import type { Connected, OnEvent } from './events.ts'
import type { Relay } from './relay.ts'

/** How often a listener that the peer could not have is asked for again, in ms. */
const ASK_AGAIN = 5000
/** What another one has may be let go of. */
const MAY_PASS: ReadonlySet<string> = new Set([
  ...['PROXY_ERR_LISTEN_FAILED', 'PROXY_ERR_CHANNEL_TAKEN', 'PROXY_ERR_NAME_TAKEN'],
])

/** Has the peer listen, and asks again until it does or is gone: what held the port may be about to let go. */
export async function listenAtPeer(
  spec: Spec,
  peer: Connected,
  onEvent: OnEvent,
  signal: AbortSignal,
  relay?: Relay,
): Promise<void> {
  const over = (): boolean => ['draining', 'closed'].includes(peer.proxy.state) || signal.aborted
  for (let tries = 0; !over(); tries++) {
    try {
      const listener = await (relay?.offers(spec.Listen) ? relay.offer(spec, peer) : peer.proxy.newPeerListener(spec))
      onEvent({ type: 'listener-ready', spec, bound: listener.bound, at: peer })
      return
    } catch (error) {
      const reason = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
      if (over()) return
      if (tries === 0) onEvent({ type: 'listener-failed', spec, reason, at: peer })
      if (!MAY_PASS.has(reason.code)) return
      await Promise.race([pause(ASK_AGAIN, signal), peer.proxy.closed])
    }
  }
}
