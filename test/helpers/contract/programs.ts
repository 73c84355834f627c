import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Endpoint } from '../../../lib/core/index.ts'
import { freePort } from '../system/net.ts'

/** A program that listens; it closes with all its connections. */
export interface Program extends AsyncDisposable {
  readonly endpoint: Endpoint
  readonly port: number
  readonly sockets: ReadonlySet<Socket>
  readonly accepted: () => Promise<Socket>
}

/** Listens at an IP address, or at the path of a Unix socket. Connections wait for `accepted`, or go to `onSocket`. */
export async function program(onSocket: (socket: Socket) => void = () => {}, at = '127.0.0.1'): Promise<Program> {
  const sockets = new Set<Socket>()
  const waiting: Socket[] = []
  const takers: ((socket: Socket) => void)[] = []
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    onSocket(socket)
    const taker = takers.shift()
    if (taker) taker(socket)
    else waiting.push(socket)
  })
  const unix = at.startsWith('/')
  // Tests count on it that nobody listens there once it is gone.
  server.listen(unix ? { path: at } : { port: await freePort(), host: at })
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const host = at.includes(':') ? `[${at}]` : at
  return {
    endpoint: unix ? { Domain: 'unix', Addr: at } : { Domain: 'tcp', Addr: `${host}:${port}` },
    port,
    sockets,
    accepted: () => {
      const socket = waiting.shift()
      return socket ? Promise.resolve(socket) : new Promise((resolve) => takers.push(resolve))
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** Sends back what comes, and ends when the other side does. */
export function echo(at?: string): Promise<Program> {
  return program((socket) => socket.pipe(socket), at)
}

/** A connected socket with half-close; errors are kept in `socket.errored`. */
export async function dialProgram(to: Endpoint): Promise<Socket> {
  const socket = begin(to)
  await once(socket, 'connect')
  return socket
}

export function begin(to: Endpoint): Socket {
  const colon = to.Addr.lastIndexOf(':')
  const host = to.Addr.slice(0, colon).replace(/^\[(.*)\]$/, '$1')
  const where = to.Domain === 'unix' ? { path: to.Addr } : { host, port: Number(to.Addr.slice(colon + 1)) }
  const socket = netConnect({ ...where, allowHalfOpen: true })
  socket.on('error', () => {})
  return socket
}

/** Resolves when nobody listens there any more: what a peer was asked to close takes a round trip. */
export async function nobodyListens(at: Endpoint): Promise<void> {
  for (;;) {
    const socket = begin(at)
    const [code] = await Promise.race([
      once(socket, 'connect').then(() => ['']),
      once(socket, 'close').then(() => [(socket.errored as NodeJS.ErrnoException | null)?.code]),
    ]).catch((error: NodeJS.ErrnoException) => [error.code])
    socket.destroy()
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** All that comes until the end. Rejects if it does not end in order. */
export function readAll(from: Readable): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    if (from.closed) reject(from.errored ?? new Error('closed before anybody read'))
    from.on('data', (chunk: Buffer) => chunks.push(chunk))
    from.on('end', () => resolve(Buffer.concat(chunks)))
    from.on('error', reject)
    from.on('close', () => reject(new Error('closed before the end')))
  })
}

/** How the incoming direction of a socket is over: by a FIN, or by a RST. */
export function ending(socket: Readable): Promise<'end' | 'reset'> {
  return new Promise((resolve) => {
    socket.on('end', () => resolve('end'))
    socket.on('error', () => resolve('reset'))
    socket.on('close', () => resolve('reset'))
    socket.resume()
  })
}

export function reset(socket: Socket): void {
  socket.resetAndDestroy()
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Bytes that differ from place to place, and are the same each time. */
export function pattern(length: number, salt = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = (0x9e3779b9 ^ salt) >>> 0
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}
