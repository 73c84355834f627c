import type { ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/** How long the other side may take to end a connection that is over, in ms. */
const LINGER = 5000

/**
 * Cuts off a client that does not read its answer: of what waits for it nothing has moved from one look to the next,
 * `timeout` ms later. While the target is silent nothing waits, and that may last. Answers
 * what ends this.
 */
export function cutUnread(response: ServerResponse, timeout: number): () => void {
  let stuckAt: number | undefined
  const { socket } = response.req
  const look = (): void => {
    const moved = socket.writableLength > 0 ? socket.bytesWritten - socket.writableLength : undefined
    if (moved !== undefined && moved === stuckAt) socket.destroy()
    stuckAt = moved
    // An answer that waits behind another one is not told when its connection is closed.
    if (socket.destroyed) clearInterval(timer)
  }
  const timer = setInterval(look, timeout).unref()
  return () => clearInterval(timer)
}

/** Ends a connection in order, if the other side does its part within `linger` ms. */
export function endInTime(connection: Duplex, linger: number = LINGER): void {
  connection.end()
  const timer = setTimeout(() => connection.destroy(), linger).unref()
  connection.once('close', () => clearTimeout(timer))
}
