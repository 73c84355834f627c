import { existsSync } from 'node:fs'
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { type Link, ProxyError } from '../core/index.ts'
import { acceptLinks, type ReadBuffer } from './socket-link.ts'

/** Connections that wait in the system until they are accepted. */
const BACKLOG = 1024

/** Listens; `onLink` gets each connection, with half-close. With a `readBuffer` what they bring lands there. */
export async function listen(
  options: ListenOptions,
  name: string,
  onLink: (link: Link) => void,
  readBuffer?: ReadBuffer,
): Promise<Server> {
  const server = await startListening(options, name)
  acceptLinks(server, onLink, readBuffer)
  return server
}

/** As `listen`; `onSocket` gets each connection as a socket that has not read anything. See `adoptSocket`. */
export async function listenSockets(
  options: ListenOptions,
  name: string,
  onSocket: (socket: Socket) => void,
): Promise<Server> {
  const server = await startListening(options, name)
  server.on('connection', onSocket)
  return server
}

async function startListening(options: ListenOptions, name: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(error, name)))
    server.listen({ backlog: BACKLOG, ...options }, resolve)
  })
  // Afterwards an error concerns one connection that could not be accepted, as when descriptors run out.
  server.removeAllListeners('error')
  server.on('error', () => {})
  return server
}

/** Stops listening. Connections that were accepted go on. */
export async function unlisten(server: Server): Promise<void> {
  server.close()
  // `close` is told when the last connection has ended; the port itself is free after this turn.
  await new Promise<void>((resolve) => setImmediate(resolve))
}

const LISTEN_ERRORS: Record<string, string> = {
  EADDRINUSE: 'the address is in use already',
  EADDRNOTAVAIL: 'this machine does not have that address',
  ENOTFOUND: 'the name is not known',
  ENOENT: 'the folder does not exist',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many open files (see ulimit -n)',
}

export function listenError(error: NodeJS.ErrnoException & { port?: number }, name: string): ProxyError {
  const port = error.port ?? 0
  let why = LISTEN_ERRORS[error.code ?? ''] ?? error.message
  // libuv turns the ENOENT of a Unix socket into EACCES.
  if (error.code === 'EACCES' && name.startsWith('/') && !existsSync(dirname(name))) {
    why = 'the folder does not exist'
  } else if (error.code === 'EACCES') {
    why = port > 0 && port < 1024 ? 'ports below 1024 need root' : 'permission denied'
  }
  return new ProxyError('PROXY_ERR_LISTEN_FAILED', `cannot listen on ${name}: ${why}`, { cause: error })
}
