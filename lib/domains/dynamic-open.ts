import type { Socket } from 'node:net'
import {
  type ErrorCode,
  type Link,
  type ListenContext,
  linkFrom,
  ProxyError,
  type SubConnection,
} from '../core/index.ts'
import { adoptSocket } from '../sockets/socket-link.ts'

/** Why a client does not get where it wants, in words that every proxy protocol has. */
export type Failure = 'denied' | 'unserved' | 'failed' | 'timeout' | 'other'

const FAILURES: Readonly<Partial<Record<ErrorCode, Failure>>> = {
  PROXY_ERR_DIAL_DENIED: 'denied',
  PROXY_ERR_VISITOR_DENIED: 'denied',
  PROXY_ERR_QUOTA: 'denied',
  PROXY_ERR_RATE: 'unserved',
  PROXY_ERR_TOO_MANY_CONNECTIONS: 'unserved',
  PROXY_ERR_NO_PEER: 'unserved',
  PROXY_ERR_DRAINING: 'unserved',
  PROXY_ERR_CLOSED: 'unserved',
  PROXY_ERR_SESSION_LOST: 'unserved',
  PROXY_ERR_NO_CHANNEL: 'unserved',
  PROXY_ERR_CHANNEL_LIMIT: 'unserved',
  PROXY_ERR_DIAL_FAILED: 'failed',
  PROXY_ERR_CHANNEL_PASSWORD: 'failed',
  PROXY_ERR_CHANNEL_KIND: 'failed',
  PROXY_ERR_OPEN_TIMEOUT: 'timeout',
}

export function failureOf(error: unknown): Failure {
  return (error instanceof ProxyError && FAILURES[error.code]) || 'other'
}

/** What a listener opens for one client. */
export interface Visitor {
  readonly socket: Socket
  /** As in `Link.remote`. */
  readonly remote: string | undefined
}

/**
 * Opens a sub-connection to `addr` and waits until the far side has connected. If the client goes before, it is given up.
 *
 * @throws ProxyError
 */
export async function openTcp(
  context: ListenContext,
  { socket, remote }: Visitor,
  addr: string,
): Promise<SubConnection> {
  const sub = await context.open({ to: { Domain: 'tcp', Addr: addr }, from: remote })
  const giveUp = (): void => void sub.destroy()
  socket.once('close', giveUp)
  try {
    if (socket.destroyed) giveUp()
    await connected(sub)
    return sub
  } finally {
    socket.off('close', giveUp)
  }
}

function connected(sub: SubConnection): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      sub.off('connect', settle)
      sub.off('close', settle)
      if (!sub.destroyed) resolve()
      else reject(sub.errored ?? new ProxyError('PROXY_ERR_RESET', 'the sub-connection was closed'))
    }
    if (!sub.connecting || sub.closed) return settle()
    sub.on('connect', settle)
    sub.on('close', settle)
  })
}

/** The client's connection as a link, which begins with `head`: what it has said already and nobody has used. */
export function takeOver({ socket, remote }: Visitor, head: Buffer): Link {
  if (socket.writableLength === 0) return adoptSocket(socket, { remote, transport: 'tcp', head })
  // What is still being written would be lost with the socket.
  if (head.length > 0) socket.unshift(head)
  return linkFrom(socket, remote, 'tcp')
}

/** How long a client may take to read why not, in ms. */
const FAREWELL = 1000

/** Says the last thing. What the client still sends is read meanwhile, or the system would throw both away. */
export function sayFarewell(socket: Socket, bytes: Uint8Array | string): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), FAREWELL)
  socket.once('close', () => clearTimeout(timer))
  socket.end(bytes)
  socket.resume()
}
