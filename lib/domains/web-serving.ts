import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Admitted } from '../core/index.ts'
import { customerOf, ipOf, isLoopback } from '../sockets/ip.ts'
import type { Origin } from '../sockets/requests.ts'
import { endInTime } from './unread.ts'
import { type Verdict, WebAuth } from './web-auth.ts'
import { Exchange, type Visit } from './web-exchange.ts'
import { WebCounter } from './web-figures.ts'
import { hasBody, isClear } from './web-headers.ts'
import { Recorder, type RecorderOptions } from './web-inspect.ts'
import { type PageStatus, sendMaintenance, sendPage, statusFor } from './web-pages.ts'
import { readTarget, type WebRoutes, type WebSite } from './web-routes.ts'
import { RuleBook } from './web-rules.ts'
import type { WebSockets } from './web-sockets.ts'
import { Upstream } from './web-upstream.ts'

export interface WebOptions {
  /** How long a target may leave a request without any answer, in ms. Default 60,000. */
  readonly answerTimeout?: number | undefined
  /** Paths of the server's own WebSockets, which those of listeners for all hosts would never get. */
  readonly reserved?: readonly string[] | undefined
  /** Whether the TLS of this very host, or of `*.suffix`, is passed on to a target: then it is no name of the web. */
  readonly isTls?: ((host: string) => boolean) | undefined
  /** How often somebody at a WebSocket has to show that they are there, in ms. Default 30,000. */
  readonly pingInterval?: number | undefined
  /** Requests and WebSockets that one listener may have at once. Default 1,024. */
  readonly visits?: number | undefined
  /** What is kept of the requests of listeners with `inspect`. */
  readonly inspect?: RecorderOptions | undefined
}

/** RFC 7617 section 2.1. */
const CHALLENGE = 'Basic realm="restricted", charset="UTF-8"'

/** Who is at one listener. */
interface Visits {
  count: number
  readonly byCustomer: Map<string, number>
}

/** What is loaded for the first request: brings each to where its listener wants it. */
export class WebServing {
  readonly recorder: Recorder
  readonly #routes: WebRoutes
  readonly #options: WebOptions
  readonly #counter: WebCounter
  readonly #upstreams = new Map<WebSite, Upstream>()
  readonly #visits = new Map<WebSite, Visits>()
  readonly #rules = new RuleBook()
  readonly #auth = new WebAuth()
  /** Who is served on a connection. */
  readonly #here = new WeakMap<Duplex, Set<() => void>>()
  #sockets: Promise<WebSockets> | undefined

  constructor(routes: WebRoutes, options: WebOptions, counter: WebCounter = new WebCounter()) {
    this.#routes = routes
    this.#counter = counter
    this.#options = options
    this.recorder = new Recorder(options.inspect)
    routes.onRemoved = (site) => this.#forget(site)
  }

  onRequest(request: IncomingMessage, response: ServerResponse, origin: Origin): void {
    const visit = this.#visitOf(request, response, origin)
    if (typeof visit === 'number') sendPage(request, response, visit)
    else if (visit.site.domain === 'ws') this.#admit(visit, () => sendPage(request, response, 426))
    else this.#admit(visit, (admitted) => this.#exchange(admitted))
  }

  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, origin: Origin): void {
    const response = answerOn(request)
    const visit = this.#visitOf(request, response, origin)
    if (typeof visit === 'number') {
      sendPage(request, response, visit)
    } else if (request.headers.upgrade?.toLowerCase() !== 'websocket' || request.method !== 'GET') {
      this.#ignoreOffer(visit)
    } else if (visit.site.domain === 'web') {
      this.#admit(visit, (admitted) => this.#exchange(admitted, { socket, head }))
    } else {
      this.#admit(visit, (admitted) => this.#accept(admitted, socket, head))
    }
  }

  #accept(visit: Visit, socket: Duplex, head: Buffer): void {
    const { request, response } = visit
    if (!this.#enter(visit, () => {})) {
      sendPage(request, response, 503)
      return
    }
    response.detachSocket(request.socket)
    visit.timing?.answered(101)
    this.#sockets ??= import('./web-sockets.ts').then(({ WebSockets }) => new WebSockets(this.#options.pingInterval))
    this.#sockets.then((sockets) => sockets.accept(visit, socket, head)).catch(() => socket.destroy())
  }

  /** What the operator has put in front of the target: `then` is called at once, later, or not at all. */
  #admit(visit: Visit, then: (visit: Visit) => void): void {
    const { site, request, response, origin, rules } = visit
    const { maintenance, basicAuth } = rules.settings
    const timing = this.#counter.begin(site.address.host)
    this.#whileHere(visit, () => timing.over(response.headersSent ? response.statusCode : undefined))
    let admitted: Admitted | undefined
    try {
      admitted = site.context.admit?.(origin.remote)
    } catch (error) {
      sendPage(request, response, statusFor(error))
      return
    }
    const go = (): void => then({ ...visit, admitted, timing })
    if (admitted) this.#whileHere(visit, () => admitted.leave())
    if (maintenance !== undefined && maintenance !== false) {
      sendMaintenance(request, response, maintenance)
      return
    }
    if (basicAuth === undefined) {
      go()
      return
    }
    const answer = (verdict: Verdict): void => {
      // It may have taken a moment.
      if (request.socket.destroyed || response.destroyed) response.destroy()
      else if (verdict === 'in') go()
      else if (verdict.status === 401) sendPage(request, response, 401, { 'www-authenticate': CHALLENGE })
      else sendPage(request, response, verdict.status, { 'retry-after': String(verdict.after) })
    }
    const verdict = this.#auth.check(request.headers.authorization, basicAuth, origin.remote)
    if (verdict instanceof Promise) verdict.then(answer).catch(() => response.destroy())
    else answer(verdict)
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
    if (!site) return 404
    const rules = this.#rules.of(site.context)
    if (!rules) return 503
    const visit = { site, target, rules, origin, request, response }
    const record = this.recorder.begin(visit, rules.settings.inspect)
    return record ? { ...visit, record } : visit
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
  #enter({ site, origin, record, request, response }: Visit, onClose: () => void): boolean {
    const visits = this.#visits.get(site) ?? { count: 0, byCustomer: new Map<string, number>() }
    const ip = ipOf(origin.remote)
    const customer = ip && !isLoopback(ip) ? customerOf(ip) : undefined
    const own = customer === undefined ? 0 : (visits.byCustomer.get(customer) ?? 0)
    if (own >= (this.#options.visits ?? 1024) - visits.count) return false
    this.#visits.set(site, visits)
    visits.count++
    record?.letIn()
    if (customer !== undefined) visits.byCustomer.set(customer, own + 1)
    this.#whileHere({ request, response }, () => {
      if (--visits.count === 0) this.#visits.delete(site)
      if (customer !== undefined) {
        const left = (visits.byCustomer.get(customer) ?? 1) - 1
        if (left > 0) visits.byCustomer.set(customer, left)
        else visits.byCustomer.delete(customer)
      }
      onClose()
      record?.ended()
    })
    return true
  }

  /** Calls `onGone` when it is answered or gone. */
  #whileHere({ request: { socket }, response }: Pick<Visit, 'request' | 'response'>, onGone: () => void): void {
    const here = this.#here.get(socket) ?? this.#watch(socket)
    const leave = (): void => {
      if (here.delete(leave)) onGone()
    }
    here.add(leave)
    response.once('close', leave)
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
    endSoon(socket)
  })
  return response
}

/** What is written still goes out. What is no socket has to be ended by the other side as well, in time. */
function endSoon(socket: Duplex & { readonly destroySoon?: unknown }): void {
  if (typeof socket.destroySoon === 'function') {
    socket.destroySoon()
    return
  }
  endInTime(socket)
  socket.resume()
}
