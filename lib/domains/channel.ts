import { type ListenContext, type Listener, ProxyError, type SubConnection } from '../core/index.ts'
import { isChannelName, readChannel, readTunnel } from './channel-address.ts'
import type { Domain } from './domain.ts'

/** Names at once, of all nodes together: more than `ChannelNames` lets anybody have who was granted none. */
const MAX_NAMES = 32_768

/** The channels of a server: who has registered which name. */
export interface Channels {
  /** Listening registers a name for a node; dialling leads to that node. */
  readonly domain: Domain
  /** The names that are registered now. */
  readonly names: Iterable<string>
  /**
   * Opens a sub-connection to the node that has registered `name`.
   *
   * @throws ProxyError PROXY_ERR_NO_CHANNEL
   */
  open(name: string, from?: string): Promise<SubConnection>
}

/** A server passes on what it cannot read: everything else about channels is between the two nodes. */
export function createChannels(): Channels {
  const registered = new Map<string, ListenContext>()

  const open = async (name: string, from?: string): Promise<SubConnection> => {
    const context = registered.get(name)
    if (!context) throw nobody(name)
    return await context.open({ from })
  }
  const domain: Domain = {
    name: 'channel',
    carries: 'any',
    read: readChannel,

    async listen(at, context): Promise<Listener> {
      const name = at.Addr
      if (!isChannelName(name)) throw new ProxyError('PROXY_ERR_ADDRESS', 'that is not the name of a channel')
      if (registered.has(name)) {
        throw new ProxyError('PROXY_ERR_CHANNEL_TAKEN', `channel ${name} is offered already`, {
          retryable: true,
        })
      }
      if (registered.size >= MAX_NAMES) {
        throw new ProxyError('PROXY_ERR_LISTEN_FAILED', 'the server has too many channels', { retryable: true })
      }
      registered.set(name, context)
      const close = async (): Promise<void> => {
        if (registered.get(name) === context) registered.delete(name)
      }
      return { bound: { Domain: 'channel', Addr: name }, close, [Symbol.asyncDispose]: close }
    },

    async dial(to, { signal }): Promise<SubConnection> {
      if (!isChannelName(to.Addr)) throw nobody('of that name')
      const sub = await open(to.Addr)
      await connected(sub, signal)
      return sub
    },
  }
  return { domain, names: { [Symbol.iterator]: () => registered.keys() }, open }
}

/**
 * What a node knows of channels: how they are written, and that they are none of the things it dials itself. The hub opens
 * them (lib/hub/channels.ts).
 */
export function channel(): Domain {
  const listen = (): Promise<never> => notHere('a channel is registered at the server: --peer_listener (-R) does that')
  return { name: 'channel', carries: 'any', read: readChannel, listen, dial: throughServer }
}

/** The exit of dynamic forwards, as `channel` is: for the hub. */
export function tunnel(): Domain {
  return { name: 'tunnel', carries: 'requests', read: readTunnel, dial: throughServer }
}

function throughServer(): Promise<never> {
  return notHere('channels and tunnels are reached through a server, and not from here')
}

async function notHere(message: string): Promise<never> {
  throw new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', message)
}

function nobody(name: string): ProxyError {
  return new ProxyError('PROXY_ERR_NO_CHANNEL', `no node offers channel ${name}`, { retryable: true })
}

/** Resolves when the far node has taken it. */
function connected(sub: SubConnection, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (): void => signal.removeEventListener('abort', giveUp)
    const giveUp = (): void => void sub.destroy()
    signal.addEventListener('abort', giveUp)
    sub.once('connect', () => {
      settle()
      resolve()
    })
    sub.once('error', reject)
    sub.once('close', () => {
      settle()
      reject(new ProxyError('PROXY_ERR_ABORTED', 'the channel was given up'))
    })
    if (signal.aborted) giveUp()
  })
}
