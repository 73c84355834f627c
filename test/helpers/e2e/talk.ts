import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { Stage } from '../system/stage.ts'

/** Starts a service on an endpoint URL (`tcp://127.0.0.1:0`, `unix:///path`) and answers where it is. */
async function serve(stage: Stage, at: string, onSocket: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    onSocket(socket)
  })
  server.listen(at.startsWith('unix://') ? { path: at.slice('unix://'.length) } : { host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  stage.defer(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address() as AddressInfo | string
  return typeof address === 'string' ? `unix://${address}` : `tcp://127.0.0.1:${address.port}`
}

/** Sends back what it gets, and ends when the other side has ended. */
export function startEcho(stage: Stage, at = 'tcp://127.0.0.1:0'): Promise<string> {
  return serve(stage, at, (socket) => socket.pipe(socket))
}

/** Reads to the end, and only then answers with the number of bytes and their SHA-256: it needs the half-close. */
export function startHasher(stage: Stage, at = 'tcp://127.0.0.1:0'): Promise<string> {
  return serve(stage, at, (socket) => {
    const hash = createHash('sha256')
    let bytes = 0
    socket.on('data', (chunk) => {
      hash.update(chunk)
      bytes += chunk.length
    })
    socket.on('end', () => socket.end(`${bytes} ${hash.digest('hex')}`))
  })
}

/** A connection to an endpoint URL. */
export async function open(stage: Stage, at: string): Promise<Socket> {
  const match = /^tcp:\/\/(.*):(\d+)$/.exec(at)
  const to = match ? { host: match[1] ?? '', port: Number(match[2]) } : { path: at.slice('unix://'.length) }
  const socket = connect({ ...to, allowHalfOpen: true })
  stage.defer(() => socket.destroy())
  await once(socket, 'connect')
  // A reset is for whoever reads to notice; it may come while nobody does.
  socket.on('error', () => {})
  return socket
}

/** Sends a text and waits until the same came back. */
export async function echo(socket: Socket, text: string): Promise<void> {
  socket.write(text)
  let got = ''
  while (got.length < text.length) {
    const chunk: Buffer | null = socket.read()
    if (chunk) got += chunk.toString()
    else if (socket.readableEnded || socket.destroyed) throw new Error(`closed after ${JSON.stringify(got)}`)
    else await oneOf(socket, ['readable', 'end', 'close'])
  }
  if (got !== text) throw new Error(`sent ${JSON.stringify(text)}, and ${JSON.stringify(got)} came back`)
}

/**
 * Connects, sends a text, ends, and answers all that comes back: nothing at all if the connection is cut. Fails where
 * nobody listens.
 */
export async function visit(stage: Stage, at: string, text = 'hello'): Promise<string> {
  let socket: Socket | undefined
  try {
    socket = await open(stage, at)
    socket.end(text)
    return (await buffer(socket)).toString()
  } catch (error) {
    // A cut can be as early as the end of connecting.
    if (socket || (error as NodeJS.ErrnoException).code === 'ECONNRESET') return ''
    throw error
  } finally {
    socket?.destroy()
  }
}

/** Sends `size` random bytes through an echo, and answers the hashes of what went and what came. */
export async function bulk(stage: Stage, at: string, size: number): Promise<{ sent: string; received: string }> {
  const bytes = randomBytes(size)
  const socket = await open(stage, at)
  socket.end(bytes)
  return { sent: digest(bytes), received: digest(await buffer(socket)) }
}

/** Sends random bytes to startHasher's service. */
export async function hashed(stage: Stage, at: string, size: number): Promise<{ expected: string; answer: string }> {
  const bytes = randomBytes(size)
  return { expected: `${size} ${digest(bytes)}`, answer: await send(await open(stage, at), bytes) }
}

async function send(socket: Socket, bytes: Buffer): Promise<string> {
  socket.end(bytes)
  return (await buffer(socket)).toString()
}

/** Resolves when the other side has ended the connection, in order or not; what it still sends is lost. */
export async function closed(socket: Socket): Promise<void> {
  socket.resume()
  if (!socket.destroyed && !socket.readableEnded) {
    await new Promise<void>((resolve) => {
      socket.once('end', resolve)
      socket.once('close', () => resolve())
    })
  }
  socket.destroy()
}

/** Whether a connection to the endpoint is refused by the system. */
export async function refused(stage: Stage, at: string): Promise<boolean> {
  try {
    const socket = await open(stage, at)
    socket.destroy()
    return false
  } catch {
    return true
  }
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

async function oneOf(socket: Socket, events: readonly string[]): Promise<void> {
  const settled = new AbortController()
  try {
    await Promise.race(events.map((event) => once(socket, event, { signal: settled.signal })))
  } finally {
    settled.abort()
  }
}
