import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { WebSocketServer } from 'ws'
import type { Link } from '../core/index.ts'
import { Lazy } from '../sockets/lazy.ts'
import { type OnRequest, type OnUpgrade, type Origin, serveAgain } from '../sockets/requests.ts'
import type { WebSocketLink } from './websocket-link.ts'

/** Bytes of request line and headers. */
const LONGEST_HEAD = 16_384
/** How long a request may take to come in, with its body, in ms. */
const REQUEST_TIMEOUT = 60_000
const REFUSAL = 'There is nothing here.\n'
const MISDIRECTED = 'The connection is for another name: connect anew for this one.\n'
export const NO_UPGRADE = 'A proxy on the way does not pass on the Upgrade header.\n'

export interface WebOptions {
  /** Where the WebSocket is, without a slash at its end. */
  readonly paths: readonly string[]
  /** How long the headers of a request may take, in ms. */
  readonly timeout: number
  readonly onRequest?: OnRequest | undefined
  readonly onUpgrade?: OnUpgrade | undefined
  /** Whether a WebSocket where ours is, that does not say it is one of ours, belongs to `onUpgrade` all the same. */
  readonly claims?: ((request: IncomingMessage) => boolean) | undefined
}

/** A connection that speaks HTTP. */
export interface WebVisit {
  /** Its first request is here. */
  onRequest(): void
  /** It is HTTP no more: whoever has got it looks after it from now on. */
  onHandedOver(): void
  originOf(request: IncomingMessage): Origin
  /** Whether who it is for cannot be asked for on this connection (RFC 9110 section 15.5.20). */
  isMisdirected(request: IncomingMessage): boolean
  onLink(link: Link): void
}

/** What is loaded for the first WebSocket. */
export interface Upgrading {
  readonly server: WebSocketServer
  readonly WebSocketLink: typeof WebSocketLink
}

/** HTTP/1.1 on connections that somebody else has accepted. The WebSocket becomes links. */
export class Web {
  readonly #options: WebOptions
  readonly #visits = new WeakMap<Duplex, WebVisit>()
  /** The last answer on a connection. */
  readonly #answers = new WeakMap<Duplex, ServerResponse>()
  readonly #server = new Lazy<Server>(() => this.#load())
  readonly #upgrading = new Lazy<Upgrading>(loadUpgrading)
  #closed = false

  constructor(options: WebOptions) {
    this.#options = options
  }

  async serve(socket: Duplex, visit: WebVisit): Promise<void> {
    const server = await this.#server.get()
    if (socket.destroyed || this.#closed) return
    this.#visits.set(socket, visit)
    server.emit('connection', socket)
  }

  close(): void {
    this.#closed = true
    this.#server.ifMade((server) => server.close())
  }

  async #load(): Promise<Server> {
    const { createServer } = await import('node:http')
    const { timeout } = this.#options
    const server = createServer({
      maxHeaderSize: LONGEST_HEAD,
      headersTimeout: timeout,
      // Whoever gets the requests looks after their bodies: an upload may take its time.
      requestTimeout: this.#options.onRequest ? 0 : Math.max(timeout, REQUEST_TIMEOUT),
      connectionsCheckingInterval: Math.ceil(timeout / 4),
    })
    server.on('request', (request, response) => this.#onRequest(request, response))
    server.on('upgrade', (request, socket, head) => {
      // Whatever goes wrong now, and the server looks at it no more: it ends with the connection.
      socket.off('error', ignored).on('error', ignored)
      // Behind a request that is not answered yet: what came of it would get in between.
      if (this.#answers.get(socket)?.writableFinished === false) socket.destroy()
      else if (offersOnly(request)) serveAgain(server, request, head)
      else this.#onUpgrade(request, socket, head).catch(() => socket.destroy())
    })
    // It never listens, and this is what starts its look at what takes too long.
    server.emit('listening')
    return server
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#answers.set(request.socket, response)
    const visit = this.#visits.get(request.socket)
    visit?.onRequest()
    if (request.headers['sec-websocket-key'] !== undefined && this.#isOurPlace(request)) {
      // What a proxy makes of a WebSocket that knows nothing of them: by default most do not.
      answer(response, 426, NO_UPGRADE)
    } else if (visit?.isMisdirected(request)) {
      answer(response, 421, MISDIRECTED)
    } else if (visit && this.#options.onRequest) {
      this.#options.onRequest(request, response, visit.originOf(request))
    } else {
      answer(response, 404, REFUSAL)
    }
  }

  async #onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const visit = this.#visits.get(request.socket)
    visit?.onRequest()
    if (!visit || !this.#isOurs(request)) {
      if (!visit || !this.#options.onUpgrade) return refuse(socket, '404 Not Found', REFUSAL)
      if (visit.isMisdirected(request)) return refuse(socket, '421 Misdirected Request', MISDIRECTED)
      visit.onHandedOver()
      this.#options.onUpgrade(request, socket, head, visit.originOf(request))
    } else if (isForeignPage(request)) {
      refuse(socket, '403 Forbidden', 'Pages of other sites may not connect.\n')
    } else {
      await this.#onWebSocket(request, socket, head, visit)
    }
  }

  #isOurs(request: IncomingMessage): boolean {
    return request.headers.upgrade?.toLowerCase() === 'websocket' && this.#isOurPlace(request)
  }

  #isOurPlace(request: IncomingMessage): boolean {
    const { headers, url = '' } = request
    const path = url.replace(/^https?:\/\/[^/?#]*|[?#].*$/gis, '').replace(/\/$/, '')
    const protocols = headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? []
    const { paths, claims } = this.#options
    if (protocols.includes('symport')) return path === '' || paths.includes(path)
    return paths.includes(path) && !claims?.(request)
  }

  async #onWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer, visit: WebVisit): Promise<void> {
    const { server, WebSocketLink } = await this.#upgrading.get()
    if (socket.destroyed || this.#closed) return void socket.destroy()
    const { remote, secure } = visit.originOf(request)
    server.handleUpgrade(request, socket, head, (ws) => {
      visit.onHandedOver()
      visit.onLink(new WebSocketLink(ws, { remote, transport: secure ? 'wss' : 'ws', socket }))
    })
  }
}

export async function loadUpgrading(): Promise<Upgrading> {
  const [{ WebSocketServer }, { SUBPROTOCOL, WEBSOCKET_SETTINGS, WebSocketLink }] = await Promise.all([
    import('ws'),
    import('./websocket-link.ts'),
  ])
  const server = new WebSocketServer({
    ...WEBSOCKET_SETTINGS,
    noServer: true,
    clientTracking: false,
    handleProtocols: (offered) => offered.has(SUBPROTOCOL) && SUBPROTOCOL,
  })
  return { server, WebSocketLink }
}

/**
 * Browsers let a page connect to any site's WebSocket, and say which page it was. One that a visitor has open must not
 * become a node in the visitor's name: from there it may reach what its owner cannot, and guess at the secret from an
 * address that is not its owner's. A node sends no `Origin`.
 */
export function isForeignPage({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers
  if (origin === undefined) return false
  try {
    const page = new URL(origin)
    // As the page's browser writes it: in lower case, without the port if it is the usual one.
    return host === undefined || page.host === '' || page.host !== new URL(`${page.protocol}//${host}`).host
  } catch {
    return true
  }
}

export function ignored(): void {}

/**
 * A request with a body that would rather go on in another protocol, as of Java's client, which offers `h2c` with its
 * first. That may be ignored (RFC 9110 section 7.8), but not the body, which Node.js leaves unread here.
 */
function offersOnly({ headers }: IncomingMessage): boolean {
  if (headers.upgrade?.toLowerCase() === 'websocket') return false
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
}

export function answer(response: ServerResponse, status: number, text: string): void {
  const upgrade = status === 426 ? { upgrade: 'websocket', connection: 'upgrade, close' } : { connection: 'close' }
  response.writeHead(status, { ...upgrade, 'content-type': 'text/plain', 'content-length': text.length })
  response.end(text)
}

export function refuse(socket: Duplex, status: string, text: string): void {
  const headers = `Connection: close\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\n`
  socket.once('finish', () => socket.destroy())
  socket.end(`HTTP/1.1 ${status}\r\n${headers}\r\n${text}`)
}
