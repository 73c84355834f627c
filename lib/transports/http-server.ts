import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { type Link, ProxyError } from '../core/index.ts'
import { NetSet, parseIp } from '../sockets/ip.ts'
import { formatRemote } from '../sockets/remote.ts'
import type { Origin } from '../sockets/requests.ts'
import { forwardedFor, forwardedSecurely } from './forwarded.ts'
import type { LinkListener } from './transport.ts'
import { answer, isForeignPage, loadUpgrading, NO_UPGRADE, refuse, type Upgrading } from './web.ts'

export interface InsideOptions {
  /** Where the WebSocket is. Default `/symport`. */
  readonly path?: string | undefined
  /** Addresses and CIDRs whose word about who is behind them is believed; `unix` for what comes over a Unix socket. */
  readonly trustedProxies?: readonly string[] | undefined
  /** The header in which trusted proxies say whom a request comes from, before `X-Forwarded-For` and `Forwarded`. */
  readonly realIpHeader?: string | undefined
  /** Requests, upgrades among them, that are served before the program's own. Default: none. */
  readonly names?: Names | undefined
}

/** Whoever serves some requests. */
export interface Names {
  serves(request: IncomingMessage): boolean
  onRequest(request: IncomingMessage, response: ServerResponse, origin: Origin): void
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, origin: Origin): void
}

/**
 * Links inside an HTTP server that is somebody else's and has routes and WebSockets of its own: WebSockets at `path` are
 * ours, and nobody else hears of them. All else is as if nothing were here.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED if the path is another's; PROXY_ERR_PATTERN if a trusted proxy is no address
 */
export function listenInside(
  server: Server | HttpsServer,
  options: InsideOptions,
  onLink: (link: Link) => void,
): LinkListener {
  const guest = new Guest(options, onLink)
  const house = House.of(server)
  if (!house.add(guest)) {
    throw new ProxyError('PROXY_ERR_LISTEN_FAILED', `somebody else has ${guest.path} in this web server already`)
  }
  const at = server.address()
  const address = typeof at === 'string' ? at : at ? formatRemote(at.address, at.port) : ''
  return {
    address: `${address}${guest.path}`,
    async close() {
      guest.close()
      house.remove(guest)
    },
  }
}

/** One who has a path in somebody else's server. */
class Guest {
  readonly path: string
  readonly #options: InsideOptions
  readonly #onLink: (link: Link) => void
  readonly #trusted: NetSet
  readonly #trustsUnix: boolean
  #upgrading: Promise<Upgrading> | undefined
  #closed = false

  constructor(options: InsideOptions, onLink: (link: Link) => void) {
    const { path = '/symport', trustedProxies = [] } = options
    this.path = `/${path}`.replace(/^\/+/, '/').replace(/(?<=.)\/$/, '')
    this.#options = options
    this.#onLink = onLink
    this.#trusted = new NetSet(trustedProxies.filter((text) => text !== 'unix'))
    this.#trustsUnix = trustedProxies.includes('unix')
  }

  close(): void {
    this.#closed = true
  }

  /** Answers whether it was its business. */
  onRequest(request: IncomingMessage, response: ServerResponse): boolean {
    const { names } = this.#options
    if (request.headers['sec-websocket-key'] !== undefined && this.#isHere(request)) {
      // What a proxy makes of a WebSocket that knows nothing of them.
      answer(response, 426, NO_UPGRADE)
    } else if (names?.serves(request)) {
      names.onRequest(request, response, this.#originOf(request))
    } else {
      return false
    }
    return true
  }

  /** Answers whether it was its business. */
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    const { names } = this.#options
    if (request.headers.upgrade?.toLowerCase() === 'websocket' && this.#isHere(request)) {
      socket.on('error', () => {})
      if (isForeignPage(request)) refuse(socket, '403 Forbidden', 'Pages of other sites may not connect.\n')
      else this.#onWebSocket(request, socket, head).catch(() => socket.destroy())
    } else if (names?.serves(request)) {
      names.onUpgrade(request, socket, head, this.#originOf(request))
    } else {
      return false
    }
    return true
  }

  #isHere({ url = '' }: IncomingMessage): boolean {
    const path = url.replace(/^https?:\/\/[^/?#]*|[?#].*$/gis, '')
    return path === this.path || path === `${this.path}/`
  }

  async #onWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    this.#upgrading ??= loadUpgrading()
    const { server, WebSocketLink } = await this.#upgrading
    if (socket.destroyed || this.#closed) return void socket.destroy()
    const { remote, secure } = this.#originOf(request)
    server.handleUpgrade(request, socket, head, (ws) => {
      this.#onLink(new WebSocketLink(ws, { remote, transport: secure ? 'wss' : 'ws', socket }))
    })
  }

  #originOf({ socket, headers }: IncomingMessage): Origin {
    const { remoteAddress, remotePort } = socket
    const secure = 'encrypted' in socket && socket.encrypted === true
    const ip = remoteAddress === undefined ? undefined : parseIp(remoteAddress.replace(/%.*$/s, ''))
    const direct = remoteAddress === undefined ? undefined : formatRemote(remoteAddress, remotePort)
    if (remoteAddress === undefined ? !this.#trustsUnix : !ip || !this.#trusted.has(ip))
      return { remote: direct, secure }
    const hop = forwardedFor(headers, (ip) => this.#trusted.has(ip), this.#options.realIpHeader)
    return {
      remote: hop ? formatRemote(hop.address, hop.port) : direct,
      secure: secure || forwardedSecurely(headers),
    }
  }
}

const HOUSE = Symbol('symport')

/** Where a server keeps its House, so that there is one for all who have a path in it. */
type Housed = (Server | HttpsServer) & { [HOUSE]?: House | undefined }

/**
 * An HTTP server with its guests. They have to come before the program's own listeners, and to keep from them what is
 * theirs: a WebSocket server that finds a path not to be its own ends the connection. `emit` is the one place for that.
 */
class House {
  readonly #server: Housed
  readonly #guests = new Set<Guest>()
  /** What `emit` was, if the server had one of its own. */
  #emit: Server['emit'] | undefined

  static of(server: Housed): House {
    server[HOUSE] ??= new House(server)
    return server[HOUSE]
  }

  constructor(server: Housed) {
    this.#server = server
  }

  /** Answers false if another guest is at the same path. */
  add(guest: Guest): boolean {
    for (const { path } of this.#guests) if (path === guest.path) return false
    this.#guests.add(guest)
    if (this.#guests.size === 1) this.#open()
    return true
  }

  remove(guest: Guest): void {
    if (this.#guests.delete(guest) && this.#guests.size === 0) this.#close()
  }

  #open(): void {
    const server = this.#server
    if (Object.hasOwn(server, 'emit')) this.#emit = server.emit
    server.emit = this.#onEmit
    // Without a listener Node.js takes no request for an upgrade.
    server.on('upgrade', nothing)
  }

  #close(): void {
    const server = this.#server
    server.off('upgrade', nothing)
    // If somebody has wrapped ours meanwhile, it stays below theirs, and passes all on.
    if (server.emit !== this.#onEmit) return
    if (this.#emit) server.emit = this.#emit
    else Reflect.deleteProperty(server, 'emit')
    Reflect.deleteProperty(server, HOUSE)
  }

  readonly #onEmit = (event: string | symbol, ...args: unknown[]): boolean => {
    const server = this.#server
    const [request, second, head] = args
    if (event === 'request') {
      for (const guest of this.#guests) {
        if (guest.onRequest(request as IncomingMessage, second as ServerResponse)) return true
      }
    } else if (event === 'upgrade' && this.#guests.size > 0) {
      for (const guest of this.#guests) {
        if (guest.onUpgrade(request as IncomingMessage, second as Duplex, head as Buffer)) return true
      }
      if (server.listeners('upgrade').every((listener) => listener === nothing)) {
        this.#giveBack(request as IncomingMessage, second as Duplex, head as Buffer)
        return true
      }
    }
    const emit = this.#emit ?? Object.getPrototypeOf(server).emit
    return emit.call(server, event, ...args)
  }

  /** An upgrade that nobody wants is a request like any other, with a body perhaps, as clients try HTTP/2 with it. */
  #giveBack(request: IncomingMessage, socket: Duplex, rest: Buffer): void {
    const server = this.#server
    const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`]
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`)
    }
    const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
    server.off('upgrade', nothing)
    try {
      server.emit('encrypted' in socket ? 'secureConnection' : 'connection', socket)
      socket.emit('data', Buffer.concat([head, rest]))
    } finally {
      if (this.#guests.size > 0) server.on('upgrade', nothing)
    }
  }
}

function nothing(): void {}
