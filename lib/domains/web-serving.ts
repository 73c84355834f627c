import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { customerOf, isLoopback, parseIp } from '../sockets/ip.ts'
import type { Origin } from '../sockets/requests.ts'
import { Exchange, type Visit } from './web-exchange.ts'
import { addressOf, hasBody, isClear } from './web-headers.ts'
import { type PageStatus, sendPage } from './web-pages.ts'
import { readTarget, type WebRoutes, type WebSite } from './web-routes.ts'
import type { WebSockets } from './web-sockets.ts'
import { Upstream } from './web-upstream.ts'

export interface WebOptions {
  /** How long a target may leave a request without any answer, in ms. Default 60,000. */
  readonly answerTimeout?: number | undefined
  /** Paths of the server's own WebSockets, which those of listeners for all hosts would never get. */
  readonly reserved?: readonly string[] | undefined
  /** How often somebody at a WebSocket has to show that they are there, in ms. Default 30,000. */
  readonly pingInterval?: number | undefined
  /** Requests and WebSockets that one listener may have at once. Default 1,024. */
  readonly visits?: number | undefined
}

/** Who is at one listener. */
interface Visits {
  count: number
  readonly byCustomer: Map<string, number>
}

/** What is loaded for the first request: brings each to where its listener wants it. */
export class WebServing {
  readonly #routes: WebRoutes
  readonly #options: WebOptions
  readonly #upstreams = new Map<WebSite, Upstream>()
  readonly #visits = new Map<WebSite, Visits>()
  /** Who is served on a connection. */
  readonly #here = new WeakMap<Duplex, Set<() => void>>()
  #sockets: Promise<WebSockets> | undefined

  constructor(routes: WebRoutes, options: WebOptions) {
    this.#routes = routes
    this.#options = options
    routes.onRemoved = (site) => this.#forget(site)
  }

  onRequest(request: IncomingMessage, response: ServerResponse, origin: Origin): void {
    const visit = this.#visitOf(request, response, origin)
    if (typeof visit === 'number') sendPage(request, response, visit)
    else if (visit.site.domain === 'ws') sendPage(request, response, 426)
    else this.#exchange(visit)
  }

  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, origin: Origin): void {
    const response = answerOn(request)
    const visit = this.#visitOf(request, response, origin)
    if (typeof visit === 'number') {
      sendPage(request, response, visit)
    } else if (request.headers.upgrade?.toLowerCase() !== 'websocket' || request.method !== 'GET') {
      this.#ignoreOffer(visit)
    } else if (visit.site.domain === 'web') {
      this.#exchange(visit, { socket, head })
    } else if (!this.#enter(visit, () => {})) {
      sendPage(request, response, 503)
    } else {
      response.detachSocket(request.socket)
      this.#sockets ??= import('./web-sockets.ts').then(({ WebSockets }) => new WebSockets(this.#options.pingInterval))
      this.#sockets
        .then((sockets) => sockets.accept(visit.site, request, socket, head, origin))
        .catch(() => socket.destroy())
    }
  }

  /**
   * The request that it is without the offer to become something else (RFC 9110 section 7.8). That is not for the target:
   * `h2c`, for one, is HTTP again, and nobody here could tell any more who asks for what.
   */
  #ignoreOffer(visit: Visit): void {
    if (hasBody(visit.request)) sendPage(visit.request, visit.response, 400)
    else this.onRequest(visit.request, visit.response, visit.origin)
  }

  close(): void {
    for (const site of [...this.#upstreams.keys()]) this.#forget(site)
  }

  get #timeout(): number {
    return this.#options.answerTimeout ?? 60_000
  }

  /** Whom a request is for, or what it is answered at once. */
  #visitOf(request: IncomingMessage, response: ServerResponse, origin: Origin): Visit | PageStatus {
    const target = isClear(request) ? readTarget(request) : undefined
    if (!target) return 400
    const site = this.#routes.find(target)
    return site ? { site, target, origin, request, response } : 404
  }

  #exchange(visit: Visit, upgrade?: { readonly socket: Duplex; readonly head: Buffer }): void {
    const exchange = new Exchange(visit, this.#upstreamOf(visit.site), this.#timeout, upgrade)
    if (this.#enter(visit, () => exchange.onVisitorClose())) exchange.start()
    else sendPage(visit.request, visit.response, 503)
  }

  /**
   * Counts somebody until it is answered or gone. Answers whether there is room: nobody takes more of it than is left for
   * all others. This machine does not count, as it may be a proxy, for many.
   */
  #enter({ site, origin, request: { socket }, response }: Visit, onClose: () => void): boolean {
    const visits = this.#visits.get(site) ?? { count: 0, byCustomer: new Map<string, number>() }
    const ip = parseIp(addressOf(origin.remote) ?? '')
    const customer = ip && !isLoopback(ip) ? customerOf(ip) : undefined
    const own = customer === undefined ? 0 : (visits.byCustomer.get(customer) ?? 0)
    if (own >= (this.#options.visits ?? 1024) - visits.count) return false
    this.#visits.set(site, visits)
    visits.count++
    if (customer !== undefined) visits.byCustomer.set(customer, own + 1)
    const here = this.#here.get(socket) ?? this.#watch(socket)
    const leave = (): void => {
      if (!here.delete(leave)) return
      if (--visits.count === 0) this.#visits.delete(site)
      if (customer !== undefined) {
        const left = (visits.byCustomer.get(customer) ?? 1) - 1
        if (left > 0) visits.byCustomer.set(customer, left)
        else visits.byCustomer.delete(customer)
      }
      onClose()
    }
    here.add(leave)
    response.once('close', leave)
    return true
  }

  /** Answers that wait behind another one on the same connection are not told when that is closed. */
  #watch(socket: Duplex): Set<() => void> {
    const here = new Set<() => void>()
    this.#here.set(socket, here)
    socket.once('close', () => {
      for (const leave of [...here]) leave()
    })
    return here
  }

  #upstreamOf(site: WebSite): Upstream {
    const known = this.#upstreams.get(site)
    if (known) return known
    const upstream = new Upstream(site.context)
    this.#upstreams.set(site, upstream)
    return upstream
  }

  #forget(site: WebSite): void {
    this.#upstreams.get(site)?.close()
    this.#upstreams.delete(site)
  }
}

/** For a request that has left the server of HTTP: what is answered is the last thing on its connection. */
function answerOn(request: IncomingMessage): ServerResponse {
  const { socket } = request
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket)
  response.once('finish', () => {
    response.detachSocket(socket)
    socket.destroySoon()
  })
  return response
}
