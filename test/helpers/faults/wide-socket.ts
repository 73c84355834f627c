import { Socket } from 'node:net'
import type { Cut } from './direction.ts'

/** Bytes that one read may bring. */
const READ_SIZE = 262_144

/** Who gets the bytes: they are valid until the next read, so whoever is not done with them pauses the socket. */
export type OnBytes = (bytes: Buffer) => void

export interface Place {
  host: string
  port: number
}

/** Starts to connect, with half-close. The socket is paused. */
export function dialWide(to: Place, onBytes: OnBytes): Socket {
  const socket = new Socket(wide(onBytes))
  socket.pause()
  return socket.connect(to).setNoDelay(true)
}

/**
 * The same for a connection that a server with `pauseOnConnect` has accepted. It moves to a socket that reads into one
 * buffer, which those of a server cannot: half the work for bulk. Where Node.js does not have it that way, it stays.
 */
export function adoptWide(accepted: Socket, onBytes: OnBytes): Socket {
  const { _handle: handle, _server: server } = accepted as Socket & { _handle?: unknown; _server?: unknown }
  if (!handle || !server) {
    accepted.on('data', onBytes)
    return accepted
  }
  const settings: object = { ...wide(onBytes), handle, pauseOnCreate: true }
  const socket = new Socket(settings)
  // The server counts its connections, and its `close` waits for the last one.
  Object.assign(socket, { _server: server, server })
  Object.assign(accepted, { _handle: null, _server: null })
  return socket
}

function wide(onBytes: OnBytes): object {
  const buffer = Buffer.allocUnsafeSlow(READ_SIZE)
  return {
    allowHalfOpen: true,
    writableHighWaterMark: 0,
    onread: {
      buffer,
      callback(length: number): boolean {
        onBytes(buffer.subarray(0, length))
        return true
      },
    },
  }
}

/**
 * Tells how the far side ends, which may be twice: `fin`, then `rst`. What libuv finds together, bytes and a reset, it
 * tells as bytes and an orderly end. But after a reset there is no address of the far side any more.
 */
export function onFarEnd(socket: Socket, tell: (how: Cut) => void): void {
  socket.on('error', () => tell('rst'))
  socket.on('end', () => {
    // Node.js looks the address up when it is first asked for, and keeps it: nobody may have asked before.
    const gone = !socket.writableEnded && socket.remoteAddress === undefined
    if (gone) socket.destroy()
    tell(gone ? 'rst' : 'fin')
  })
}

/** Ends the connection with RST, whatever else goes on; one that is being made, when it is. */
export function reset(socket: Socket): void {
  if (socket.destroyed) return
  // Of a FIN that is just being sent libuv makes an error, and Node.js then loses the handle.
  const ending = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
  if (ending) socket.once('finish', () => reset(socket))
  else socket.resetAndDestroy()
}
