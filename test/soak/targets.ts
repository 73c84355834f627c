import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'

/** A program that the tunnel leads to. */
export interface Target {
  readonly port: number
  close(): void
}

async function serve(onSocket: (socket: Socket) => void): Promise<Target> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    onSocket(socket)
  })
  server.listen({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the target does not listen')
  return {
    port: address.port,
    close() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Sends back what comes, and ends when the other side has. */
export function startEcho(): Promise<Target> {
  return serve((socket) => socket.pipe(socket))
}

/** Reads to the end, and only then says what it was: it needs the half-close. */
export function startDigest(): Promise<Target> {
  return serve((socket) => {
    const hash = createHash('sha256')
    socket.on('data', (bytes) => hash.update(bytes))
    socket.on('end', () => socket.end(hash.digest()))
  })
}
