import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Stage } from '../system/stage.ts'

/** A service that sends back what it gets, and hands out its connections. */
export interface Target {
  /** As an endpoint URL. */
  readonly at: string
  /** Its connections, in the order in which they came. */
  readonly sockets: readonly Socket[]
}

export async function startTarget(stage: Stage): Promise<Target> {
  const sockets: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => socket.destroy())
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { at: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets }
}

/** How the other side ends a connection: `end`, in order, or the code of the error. */
export function endOf(socket: Socket): Promise<string> {
  socket.resume()
  return new Promise((resolve) => {
    if (socket.readableEnded) resolve('end')
    socket.once('end', () => resolve('end'))
    socket.once('error', ({ code, message }: NodeJS.ErrnoException) => resolve(code ?? message))
    socket.once('close', () => resolve('close'))
  })
}
