import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Link, LinkSink } from '../../../lib/core/index.ts'
import { Slab } from '../../../lib/hub/slab.ts'
import { listen, unlisten } from '../../../lib/sockets/listen.ts'
import { ReadBuffer } from '../../../lib/sockets/socket-link.ts'

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

/**
 * Sends back what comes, and closes when the other end does. Its connections are links: with sockets of Node.js's own a new
 * one takes about twice as much processor time, and more than a side of the tunnel that is measured.
 */
export async function startEcho(): Promise<Target> {
  const echoes = new Slab<Echo>()
  const onClosed = (place: number): void => echoes.remove(place)
  const server = await listen(
    { host: '127.0.0.1', port: 0 },
    'the echo server',
    (link) => {
      const echo = new Echo(link, onClosed)
      echo.place = echoes.add(echo)
      link.start(echo)
    },
    new ReadBuffer(),
  )
  return {
    port: portOf(server),
    [Symbol.asyncDispose]: async () => {
      await unlisten(server)
      for (const { link } of echoes) link.destroy()
    },
  }
}

class Echo implements LinkSink {
  readonly link: Link
  readonly #onClosed: (place: number) => void
  place = 0

  constructor(link: Link, onClosed: (place: number) => void) {
    this.link = link
    this.#onClosed = onClosed
  }

  received(bytes: Uint8Array): boolean {
    this.link.write([Buffer.from(bytes)])
    return true
  }

  drained(): void {}

  ended(): void {
    this.link.end()
  }

  closed(): void {
    this.#onClosed(this.place)
  }
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
