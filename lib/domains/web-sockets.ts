import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { type Admitted, ProxyError, type SubConnection } from '../core/index.ts'
import type { Origin } from '../sockets/requests.ts'
import { reasonFor } from './web-pages.ts'
import type { WebSite } from './web-routes.ts'

/** What one message may be, and how long a visitor may take to answer a close frame, in ms. */
const BOUNDS = {
  perMessageDeflate: false,
  maxPayload: 1_048_576,
  maxFragments: 1024,
  maxBufferedChunks: 4096,
  closeTimeout: 30_000,
}
/** Bytes that wait for a slow visitor before the target has to wait too, and how few are left when it goes on. */
const FULL = 262_144
const LOW = 65_536
/** How long the target may go on when the visitor has gone, in ms: nobody hears it, but it may have something to finish. */
const LINGER = 5000

/** RFC 6455 section 7.4.1. */
const NORMAL = 1000
const UNSUPPORTED_DATA = 1003
const NO_CLOSE_FRAME = 1006
const INTERNAL_ERROR = 1011

export interface WebSocketVisit {
  readonly site: WebSite
  readonly request: IncomingMessage
  readonly origin: Origin
  /** By the limits of the listener, where it has any. */
  readonly admitted?: Admitted | undefined
}

/** WebSockets of listeners of the domain `ws`: a stream of bytes each, in binary messages whose borders mean nothing. */
export class WebSockets {
  readonly #server: WebSocketServer
  readonly #pingInterval: number

  /** `pingInterval` in ms. */
  constructor(pingInterval = 30_000) {
    this.#pingInterval = pingInterval
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      ...BOUNDS,
      // Clients of one protocol (`mqtt`) want to hear its name. What is called base64 comes as text.
      handleProtocols: (offered) =>
        offered.has('binary') ? 'binary' : ([...offered].find((name) => name !== 'base64') ?? false),
    })
  }

  /**
   * Pages of any origin may connect: that of noVNC lies elsewhere, often in a file. It gives them nothing that their
   * visitor has: there is no cookie and no name that the target would believe, only what every stranger who reaches
   * the port has, as with a TCP port.
   */
  accept({ site, request, origin: { remote }, admitted }: WebSocketVisit, socket: Duplex, head: Buffer): void {
    this.#server.handleUpgrade(request, socket, head, (ws) => {
      const bytes = new WebSocketBytes(ws, this.#pingInterval)
      site.context.open({ from: remote, admitted, alone: true }).then(
        (sub) => bytes.carry(sub),
        (error) => bytes.fail(error),
      )
    })
  }
}

/** One WebSocket, and the sub-connection that it carries. */
class WebSocketBytes {
  readonly #ws: WebSocket
  readonly #pinging: NodeJS.Timeout
  #sub: SubConnection | undefined
  #heard = true
  #broken = false
  #closed = false

  constructor(ws: WebSocket, pingInterval: number) {
    this.#ws = ws
    ws.binaryType = 'nodebuffer'
    ws.pause()
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary))
    ws.on('ping', this.#onSign)
    ws.on('pong', this.#onSign)
    // It has told the other side already what it does not like.
    ws.on('error', () => {
      this.#broken = true
      ws.terminate()
    })
    ws.on('close', (code) => this.#onClose(code))
    this.#pinging = setInterval(() => this.#ping(), pingInterval).unref()
  }

  carry(sub: SubConnection): void {
    const ws = this.#ws
    this.#sub = sub
    sub.on('error', (error) => this.fail(error))
    if (this.#closed) {
      sub.destroy()
      return
    }
    sub.on('data', (chunk: Buffer) => {
      ws.send(chunk, this.#onSent)
      if (ws.bufferedAmount > FULL) sub.pause()
    })
    // There is no half-close in it: what the visitor has sent by then still goes to the target.
    sub.on('end', () => ws.close(NORMAL))
    sub.on('drain', () => this.#resume())
    this.#resume()
  }

  fail(error: unknown): void {
    this.#resume()
    if (!this.#closed) this.#ws.close(INTERNAL_ERROR, reasonFor(error))
  }

  readonly #onSent = (): void => {
    const sub = this.#sub
    if (sub?.isPaused() && this.#ws.bufferedAmount <= LOW) sub.resume()
  }

  readonly #onSign = (): void => {
    this.#heard = true
  }

  #onMessage(data: unknown, isBinary: boolean): void {
    const sub = this.#sub
    this.#heard = true
    if (!isBinary || !(data instanceof Uint8Array)) {
      this.#ws.close(UNSUPPORTED_DATA, 'this is a stream of bytes: send binary messages')
      sub?.destroy(new ProxyError('PROXY_ERR_RESET', 'the visitor sent text'))
    } else if (sub && !sub.destroyed && !sub.writableEnded && !sub.write(data)) {
      this.#ws.pause()
    }
  }

  #onClose(code: number): void {
    clearInterval(this.#pinging)
    this.#closed = true
    const sub = this.#sub
    if (!sub || sub.destroyed) return
    if (this.#broken || code === NO_CLOSE_FRAME) {
      sub.destroy(new ProxyError('PROXY_ERR_RESET', 'the visitor is gone'))
      return
    }
    // What came before goes to the target, and the end behind it.
    sub.end()
    sub.resume()
    const timer = setTimeout(() => sub.destroy(), LINGER)
    sub.once('close', () => clearTimeout(timer))
  }

  #resume(): void {
    const { readyState, CLOSED } = this.#ws
    if (readyState !== CLOSED) this.#ws.resume()
  }

  #ping(): void {
    const ws = this.#ws
    // One that is paused hears nothing: a slow target is not the visitor's fault.
    if (!this.#heard && !ws.isPaused) ws.terminate()
    else if (ws.readyState === ws.OPEN) ws.ping()
    this.#heard = false
  }
}
