import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { parseIp } from '../sockets/ip.ts'
import { formatRemote } from '../sockets/remote.ts'
import { type Origin, serveAgain } from '../sockets/requests.ts'
import { endInTime } from './unread.ts'
import type { Web } from './web.ts'
import { hasBody } from './web-headers.ts'

/** Bytes of a head: what a web port of symport takes, and what it says itself about the visitor. */
const LONGEST_HEAD = 20_480
const HEAD_TIMEOUT = 10_000
/** Longer than connections of a web port of symport lie idle. */
const IDLE_TIME = 30_000
/** For whoever is refused to read why, and to stop. */
const REFUSAL_TIME = 1000
const REFUSALS: ReadonlyMap<string, string> = new Map([
  ['ERR_HTTP_REQUEST_TIMEOUT', '408 Request Timeout'],
  ['HPE_HEADER_OVERFLOW', '431 Request Header Fields Too Large'],
])

export interface FrontServerOptions {
  /**
   * Whether what comes has been through a web port of symport, whose word about visitors is the truth. What comes from a
   * port of its own are the bytes of strangers.
   */
  readonly isNamed: () => boolean
  /** How long the head of a request may take, in ms. Default 10,000. */
  readonly headTimeout?: number | undefined
  /** How long a connection may lie idle between two requests, in ms. Default 30,000. */
  readonly idleTime?: number | undefined
  /** How long a connection stays on which no more is read, in ms, so that the answer is. Default 1,000. */
  readonly refusalTime?: number | undefined
}

interface Connection {
  /** Who came in. */
  readonly from: string | undefined
  /** The last answer on it. */
  answer?: ServerResponse
  idle?: NodeJS.Timeout | undefined
}

/** HTTP/1.1 on connections that are no sockets. */
export class FrontServer {
  readonly #server: Server
  readonly #isNamed: () => boolean
  readonly #idleTime: number
  readonly #refusalTime: number
  readonly #connections = new WeakMap<Duplex, Connection>()

  constructor(web: Pick<Web, 'onRequest' | 'onUpgrade'>, options: FrontServerOptions) {
    const { isNamed, headTimeout, idleTime, refusalTime } = options
    const timeout = headTimeout ?? HEAD_TIMEOUT
    this.#isNamed = isNamed
    this.#idleTime = idleTime ?? IDLE_TIME
    this.#refusalTime = refusalTime ?? REFUSAL_TIME
    this.#server = createServer({
      maxHeaderSize: LONGEST_HEAD,
      headersTimeout: timeout,
      // Whoever gets the requests looks after their bodies: an upload may take its time.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.ceil(timeout / 4),
    })
    this.#server.on('request', (request, response) => {
      this.#watch(request.socket, response)
      web.onRequest(request, response, this.#originOf(request))
    })
    this.#server.on('upgrade', (request, socket, head) => {
      const isWebSocket = request.headers.upgrade?.toLowerCase() === 'websocket'
      // Behind a request that is not answered yet: what came of it would get in between.
      if (this.#connections.get(socket)?.answer?.writableFinished === false) socket.destroy()
      // The offer may be ignored (RFC 9110 section 7.8), but not the body, which Node.js leaves unread here.
      else if (!isWebSocket && hasBody(request)) serveAgain(this.#server, request, head)
      else web.onUpgrade(request, socket, head, this.#originOf(request))
    })
    this.#server.on('clientError', (error, socket) => this.#refuse(error, socket))
    // It never listens, and this is what starts its look at what takes too long.
    this.#server.emit('listening')
  }

  take(socket: Duplex, from: string | undefined): void {
    const connection: Connection = { from }
    this.#connections.set(socket, connection)
    socket.once('close', () => clearTimeout(connection.idle))
    this.#server.emit('connection', socket)
  }

  close(): void {
    this.#server.close()
  }

  /** Ends it when it has been idle for a while: Node.js does that for sockets alone. */
  #watch(socket: Duplex, response: ServerResponse): void {
    const connection = this.#connections.get(socket)
    if (!connection) return
    connection.answer = response
    clearTimeout(connection.idle)
    response.once('close', () => {
      if (connection.answer !== response || socket.destroyed) return
      connection.idle = setTimeout(() => endInTime(socket), this.#idleTime).unref()
    })
  }

  /**
   * As Node.js does, which then resets the connection: here the answer would be lost with it. Until then whatever is sent
   * on stays with who sends it, and does not go all the way to here for nothing.
   */
  #refuse(error: Error, socket: Duplex): void {
    const answer = this.#connections.get(socket)?.answer
    if (!socket.writable) return
    if (answer?.headersSent && !answer.writableFinished) {
      socket.destroy(error)
      return
    }
    const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
    socket.write(`HTTP/1.1 ${REFUSALS.get(code) ?? '400 Bad Request'}\r\nConnection: close\r\n\r\n`)
    socket.pause()
    endInTime(socket, this.#refusalTime)
  }

  #originOf({ socket, headers }: IncomingMessage): Origin {
    const from = this.#connections.get(socket)?.from
    if (!this.#isNamed()) return { remote: from, secure: false }
    const address = headers['x-forwarded-for']
    const known = typeof address === 'string' && parseIp(address) !== undefined
    return {
      remote: known ? formatRemote(address, undefined) : from,
      secure: headers['x-forwarded-proto'] === 'https',
    }
  }
}
