import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'

/** A server of the bench's own on loopback, and its port. */
export interface Target extends AsyncDisposable {
  readonly port: number
}

export async function startTarget(onConnection: (socket: Socket) => void): Promise<Target> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    // A tunnel that is stopped resets what it carried: that is no fault of the measurement.
    socket.on('error', () => {})
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1', 1024)
  await once(server, 'listening')
  return {
    port: portOf(server),
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** Sends back what comes, and closes when the other end does. */
export function startEcho(): Promise<Target> {
  return startTarget((socket) => socket.on('data', (chunk) => socket.write(chunk)))
}

/** The same on several ports. */
export async function startEchoes(count: number): Promise<{ readonly ports: readonly number[] } & AsyncDisposable> {
  const echoes = await Promise.all(Array.from({ length: count }, startEcho))
  return {
    ports: echoes.map((echo) => echo.port),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(echoes.map((echo) => echo[Symbol.asyncDispose]()))
    },
  }
}

/** A port nobody holds at this moment, for programs that cannot be given port 0. */
export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  server.close()
  await once(server, 'close')
  return port
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address()
  if (address === null || typeof address === 'string') throw new Error('not a TCP server')
  return address.port
}
