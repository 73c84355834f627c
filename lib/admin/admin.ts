import { setMaxListeners } from 'node:events'
import { chmod, mkdir } from 'node:fs/promises'
import { createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { isMainThread } from 'node:worker_threads'
import { ProxyError } from '../core/errors.ts'
import { formatHostPort } from '../domains/address.ts'
import type { Operations } from '../hub/operations.ts'
import { removeStale } from '../sockets/stale.ts'
import { type StateFolder, stateError } from '../store/state-folder.ts'
import type { App, Guard } from './app.ts'
import { AuditLog } from './audit.ts'
import { EventStreams } from './event-streams.ts'
import { isLoopbackName } from './hosts.ts'
import { adminSocket, LONGEST_PATH } from './socket-path.ts'
import { Tally } from './tally.ts'
import type { Webhook, WebhookOptions } from './webhook.ts'

export interface AdminOptions {
  /** What is served. Without it connections wait for `serve`. */
  readonly operations?: Operations | undefined
  /** Where the socket, the token and the audit log lie. */
  readonly folder: StateFolder
  /** Listen on TCP too, for whoever has the token in the folder. */
  readonly tcp?: { readonly host: string; readonly port: number } | undefined
  readonly webhook?: WebhookOptions | undefined
  /** Told what went wrong beside a request: the socket cannot be had, the log cannot be written. */
  readonly onError?: ((error: ProxyError) => void) | undefined
  /** One line about something that works, and that the operator should know. */
  readonly onWarning?: ((message: string) => void) | undefined
  /** Default: the one in the folder. */
  readonly audit?: AuditLog | undefined
  /** Where else than at the one place of the folder: see `publishSocket`. */
  readonly socket?: string | undefined
}

export interface Admin extends AsyncDisposable {
  /** The path of the Unix socket or pipe; undefined if it could not be had. */
  readonly socket: string | undefined
  /** Where it listens on TCP: `127.0.0.1:9250`. */
  readonly address: string | undefined
  /** For changes that do not come by the API. */
  readonly audit: AuditLog
  /** Serves those who wait, and all that come. Once. */
  serve(operations: Operations): void
  /** Answers what is under way, and ends all within 2 s. */
  close(): Promise<void>
}

/** At once, of each kind. */
const MOST_CONNECTIONS = 256
/** For what is under way at the end, in ms. */
const PATIENCE = 1500
/** For the last words of the webhook, in ms. */
const LAST_WORDS = 1000

/**
 * Serves the operations over HTTP. Nothing of HTTP is loaded before the first connection.
 *
 * A server that means to use the folder starts this first, and serves when it can: from then on no other server takes the
 * folder, and no command takes it for unused and writes into it.
 *
 * @throws ProxyError PROXY_ERR_STATE if another server runs with this folder, PROXY_ERR_LISTEN_FAILED
 */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const { folder, tcp, onError = () => {}, onWarning = () => {} } = options
  const audit = options.audit ?? new AuditLog(folder)
  const tally = new Tally()
  const closing = new AbortController()
  // One for each wrong token that waits for its answer.
  setMaxListeners(0, closing.signal)
  const sockets = new Set<Socket>()
  const guards = new WeakMap<Socket, Guard>()
  /** Those that came before there was anything to serve. */
  const early = new Set<Socket>()

  const servers: Server[] = []
  const stops: (() => void)[] = []
  let hook: Webhook | undefined
  let load: (() => Promise<App>) | undefined
  let app: Promise<App> | undefined
  let events: EventStreams | undefined

  const handle = (socket: Socket): void => {
    if (!load) {
      early.add(socket)
      return
    }
    app ??= load()
    app.then(
      (loaded) => {
        if (!closing.signal.aborted && !socket.destroyed) loaded.serve(socket)
        else socket.destroy()
      },
      (error) => {
        app = undefined
        socket.destroy()
        onError(ProxyError.from(error, 'PROXY_ERR_INTERNAL'))
      },
    )
  }
  const accept = (socket: Socket, guard?: Guard): void => {
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      early.delete(socket)
    })
    // Resets are for those who read to notice.
    socket.on('error', () => socket.destroy())
    if (guard) guards.set(socket, guard)
    handle(socket)
  }
  const serve = (operations: Operations): void => {
    if (load || closing.signal.aborted) return
    const streams = new EventStreams((listener) => operations.subscribe(listener))
    events = streams
    stops.push(operations.subscribe(tally.count))
    if (hook) stops.push(operations.subscribe(hook.tell))
    load = async () => {
      const { createApp } = await import('./app.ts')
      const guardOf = (socket: Socket): Guard | undefined => guards.get(socket)
      return await createApp({ operations, audit, events: streams, tally, guardOf, onError })
    }
    for (const socket of early) handle(socket)
    early.clear()
  }

  let closed: Promise<void> | undefined
  const end = async (): Promise<void> => {
    for (const server of servers) server.close()
    events?.close()
    const said = hook?.close(LAST_WORDS)
    // Requests that came before this turn are under way; their connections close behind the answer.
    closing.abort()
    for (const socket of early) socket.destroy()
    const loaded = await app?.catch(() => undefined)
    await loaded?.close()
    await settled(sockets, PATIENCE)
    for (const socket of sockets) socket.destroy()
    for (const stop of stops) stop()
    await said
  }
  const close = (): Promise<void> => {
    closed ??= end()
    return closed
  }

  try {
    if (options.webhook) {
      const { Webhook } = await import('./webhook.ts')
      hook = new Webhook(options.webhook, onError)
    }
    const path = options.socket ?? adminSocket(folder)
    const socket = await listenLocal(folder, path, (connection) => accept(connection), servers, onError)
    let address: string | undefined
    if (tcp) {
      const guard = await createGuard(folder, tcp.host, closing.signal, onWarning)
      address = await listenTcp(tcp, (connection) => accept(connection, guard), servers)
    }
    if (options.operations) serve(options.operations)
    return { socket, address, audit, serve, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Answers the path, or undefined where there can be no socket: then the server runs without. */
async function listenLocal(
  folder: StateFolder,
  path: string,
  onSocket: (socket: Socket) => void,
  servers: Server[],
  onError: (error: ProxyError) => void,
): Promise<string | undefined> {
  const isPipe = process.platform === 'win32'
  const bytes = Buffer.byteLength(path)
  if (!isPipe && bytes > LONGEST_PATH) {
    const what = `the state folder's path is too long for a Unix socket (${bytes} bytes with the name, ${LONGEST_PATH} at most)`
    const message = `${what}: "symport nodes", "status" and "requests", say, cannot reach this process; --state takes another`
    onError(new ProxyError('PROXY_ERR_LISTEN_FAILED', message))
    return undefined
  }
  if (!isPipe) {
    await mkdir(folder.path, { recursive: true, mode: 0o700 }).catch((error) => {
      throw stateError('write', folder.path, error)
    })
    await removeStale(path).catch((cause) => {
      throw taken(folder, cause)
    })
  }
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, onSocket)
  try {
    await bind(server, { path }, servers)
    if (!isPipe) await chmod(path, 0o600)
  } catch (error) {
    if (errno(error) === 'EADDRINUSE') throw taken(folder, error)
    // FAT and some mounts have no sockets.
    onError(new ProxyError('PROXY_ERR_LISTEN_FAILED', `cannot listen on ${path}: ${plain(error)}`, { cause: error }))
    return undefined
  }
  return path
}

async function listenTcp(
  { host, port }: { readonly host: string; readonly port: number },
  onSocket: (socket: Socket) => void,
  servers: Server[],
): Promise<string> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, onSocket)
  try {
    await bind(server, { host, port }, servers)
  } catch (error) {
    const message = `cannot listen on ${formatHostPort({ host, port })} for --admin: ${plain(error)}`
    throw new ProxyError('PROXY_ERR_LISTEN_FAILED', message, { cause: error })
  }
  const at = server.address()
  return at === null || typeof at === 'string' ? String(at) : formatHostPort({ host: at.address, port: at.port })
}

/** A socket is nobody else's from its first moment on. */
async function bind(server: Server, options: ListenOptions, servers: Server[]): Promise<void> {
  server.maxConnections = MOST_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    // Binding happens within this turn. Threads cannot set a mask: there the folder's mode has to do.
    const umask = options.path === undefined || !isMainThread ? undefined : process.umask(0o177)
    try {
      server.listen(options, resolve)
    } finally {
      if (umask !== undefined) process.umask(umask)
    }
  })
  server.removeAllListeners('error')
  // From here on it concerns one connection, as when descriptors run out.
  server.on('error', () => {})
  servers.push(server)
}

async function createGuard(
  folder: StateFolder,
  host: string,
  signal: AbortSignal,
  onWarning: (message: string) => void,
): Promise<Guard> {
  const [{ loadToken, tokenCheck }, { Tries }] = await Promise.all([import('./token.ts'), import('./tries.ts')])
  const { token, exposed } = await loadToken(folder)
  if (exposed) onWarning(`other users could read the token in ${folder.path} until now: delete it to get a new one`)
  if (!isLoopbackName(host)) {
    onWarning('the admin API listens beyond this machine without TLS: whoever watches the network learns its token')
  }
  return { bound: host, tries: new Tries(), signal, isToken: tokenCheck(token) }
}

/** Resolves when all of them have closed, at the latest after `ms`. */
async function settled(sockets: ReadonlySet<Socket>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  const gone = [...sockets].map((socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())))
  await Promise.race([late, Promise.all(gone)])
  clearTimeout(timer)
}

function taken(folder: StateFolder, cause: unknown): ProxyError {
  const why = cause instanceof ProxyError && !cause.message.includes('another program') ? `: ${cause.message}` : ''
  const message = why
    ? `the state folder cannot be used${why}`
    : `another server runs with the state folder ${folder.path}: --state takes another one`
  return new ProxyError('PROXY_ERR_STATE', message, { cause })
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['EADDRINUSE', 'the address is in use already'],
  ['EADDRNOTAVAIL', 'this machine does not have that address'],
  ['EACCES', 'permission denied (ports below 1024 need root)'],
  ['ENOTFOUND', 'the name is not known'],
  ['EPERM', 'the file system has no sockets'],
  ['ENOTSUP', 'the file system has no sockets'],
  ['EOPNOTSUPP', 'the file system has no sockets'],
])

function plain(error: unknown): string {
  return REASONS.get(errno(error) ?? '') ?? (error instanceof Error ? error.message : String(error))
}

function errno(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
