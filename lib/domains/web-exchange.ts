import type { ClientRequest, IncomingMessage, InformationEvent, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Admitted, join, linkFrom } from '../core/index.ts'
import { SubConnection } from '../core/sub-connection.ts'
import type { Origin } from '../sockets/requests.ts'
import { cutUnread } from './unread.ts'
import type { Timing } from './web-figures.ts'
import { hasBody, headersToTarget, headersToVisitor, isChunked, reasonOf, trailersOf } from './web-headers.ts'
import { type PageStatus, sendPage, statusFor } from './web-pages.ts'
import type { Recording } from './web-recording.ts'
import { targetPath, type WebSite, type WebTarget } from './web-routes.ts'
import type { WebRules } from './web-rules.ts'
import type { Upstream, UpstreamRequest } from './web-upstream.ts'

/** RFC 9110 section 9.2.2: asked twice they do what they do once. */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])
/** How long a body may still come when all is answered, in ms: its sender may read the answer only then. */
const LINGER = 30_000
/** How long an answer may be left unread, in ms. */
const UNREAD = 300_000
/** Of what a target hints at before one answer, in bytes. */
const LONGEST_HINTS = 16_384
const PER_HINT = 256
/** What else it may say before that (1xx). */
const MOST_INFORMATION = 1000
/**
 * A `Link` that is passed on as a hint. It is read the plain way only: the pattern of Node.js takes time that doubles with
 * each `;a=a` of one that does not fit.
 */
const HINT = /^<[^<>"\s]*>(?: ?; ?[\w!#$%&'*+.^`|~-]+(?:=(?:"[^"\\;\s]*"|[^"\\;=\s]*))?)*$/
/** Ways to log in that hold for a connection, and not for a request. */
const PER_CONNECTION = /(?:^|,)\s*(?:NTLM|Negotiate)\b/i

export interface Visit {
  readonly site: WebSite
  readonly target: WebTarget
  readonly rules: WebRules
  /** Where it is told what passes, if anybody wants to know. */
  readonly record?: Recording | undefined
  readonly origin: Origin
  /** By the limits of the listener, where it has any. */
  readonly admitted?: Admitted | undefined
  readonly timing?: Timing | undefined
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

/**
 * One request, to the target and back. Both bodies go through as they come, and each side waits for the other one.
 *
 * This is Node's own client at Node's own server, and not `httpxy` between the two: that hands on the headers that are for
 * one connection only, drops trailers, ends the target's connection after each body in chunks, cuts answers that pause
 * for two minutes, cannot ask again on a new connection, and expects of connections what only sockets have.
 */
export class Exchange {
  readonly #visit: Visit
  readonly #upstream: Upstream
  readonly #timeout: number
  readonly #upgrade: { readonly socket: Duplex; readonly head: Buffer } | undefined
  #outgoing: ClientRequest | undefined
  #timer: NodeJS.Timeout | undefined
  /** Bytes that had come on the connection before this request. */
  #before = 0
  /** Bytes that had gone to the target when the visitor's last ones came. */
  #sent = 0
  #information = 0
  #hints = 0
  #upgraded = false
  #over = false

  /** `upgrade`: the connection of a request that wants to become something else than HTTP. */
  constructor(
    visit: Visit,
    upstream: Upstream,
    timeout: number,
    upgrade?: { readonly socket: Duplex; readonly head: Buffer },
  ) {
    this.#visit = visit
    this.#upstream = upstream
    this.#timeout = timeout
    this.#upgrade = upgrade
  }

  start(): void {
    const { request, response } = this.#visit
    this.#timer = setTimeout(() => this.#onTimeout(), this.#timeout)
    request.on('error', () => {})
    response.on('error', () => {})
    response.once('finish', () => this.#onAnswered())
    request.once('close', () => {
      if (!request.complete) this.#outgoing?.destroy()
    })
    this.#send(this.#upgrade === undefined)
  }

  #send(reuse: boolean): void {
    const { request, site, target, rules, origin, admitted } = this.#visit
    const what: UpstreamRequest = {
      method: request.method ?? 'GET',
      path: targetPath(site.address, target),
      headers: rules.toTarget(headersToTarget(request, target, origin, this.#upgrade && request.headers.upgrade)),
      from: origin.remote,
      admitted,
    }
    const outgoing = reuse ? this.#upstream.send(what) : this.#upstream.sendAlone(what)
    this.#outgoing = outgoing
    outgoing.once('socket', (connection) => {
      const alone = PER_CONNECTION.test(request.headers.authorization ?? '')
      if (alone) this.#upstream.keepPrivate(connection)
      this.#before = bytesFrom(connection)
      outgoing.once('close', () => {
        const kept = outgoing.shouldKeepAlive || this.#upgraded || connection.destroyed
        if (!kept) this.#upstream.retire(connection)
      })
    })
    outgoing.on('information', (answer) => this.#onInformation(answer, origin.http2 === true))
    outgoing.once('response', (answer) => this.#onAnswer(answer))
    outgoing.once('upgrade', (answer, connection, head) => this.#onUpgrade(answer, connection, head))
    outgoing.on('error', (error) => this.#onError(outgoing, error))
    outgoing.once('close', () => this.#onTargetClose())
    if (this.#upgrade || !hasBody(request)) outgoing.end()
    else this.#sendBody(request, outgoing)
  }

  #onInformation(answer: InformationEvent, isHintWanted: boolean): void {
    if (++this.#information > MOST_INFORMATION) {
      this.#fail(502)
      this.#outgoing?.destroy()
    } else if (answer.statusCode === 103 && isHintWanted) {
      // Others may take it for the answer (RFC 8297 section 3).
      this.#onHints(answer)
    }
  }

  /** What a visitor may load meanwhile. Nobody waits for a visitor who does not read them, so there are only so many. */
  #onHints({ rawHeaders }: InformationEvent): void {
    const { response } = this.#visit
    if (this.#over || response.headersSent) return
    const values = rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === 'link')
    this.#hints += values.reduce((sum, { length }) => sum + length, PER_HINT)
    if (this.#hints > LONGEST_HINTS) return
    const link = values.flatMap((value) => value.split(/,\s*(?=<)/)).filter((one) => HINT.test(one))
    try {
      response.writeEarlyHints({ link })
    } catch {
      // Node.js does not take all that is one, and this is only a hint.
    }
  }

  #sendBody(request: IncomingMessage, outgoing: ClientRequest): void {
    let isHere = false
    request.on('data', () => {
      isHere = true
      this.#sent = bytesTo(outgoing.socket)
      this.#timer?.refresh()
    })
    // A target may want to say something before there is a body. If that is here already, it goes in one with its head.
    setImmediate(() => {
      if (!isHere && !outgoing.writableEnded && !outgoing.destroyed) outgoing.flushHeaders()
    })
    this.#visit.record?.onBody(request)
    request.once('end', () => {
      if (isChunked(request)) outgoing.addTrailers(this.#visit.rules.trailersToTarget(trailersOf(request)))
      outgoing.end()
    })
    request.pipe(outgoing, { end: false })
  }

  #onAnswer(answer: IncomingMessage): void {
    const { response } = this.#visit
    clearTimeout(this.#timer)
    const coding = answer.headers['transfer-encoding']
    answer.on('error', () => {})
    // A 101 that names no protocol comes as an answer.
    const unfit = (answer.statusCode ?? 0) < 200 || (coding !== undefined && !/^chunked$/i.test(coding))
    if (this.#over || unfit) {
      this.#outgoing?.destroy()
      this.#fail(502)
      return
    }
    if (PER_CONNECTION.test(answer.headers['www-authenticate'] ?? '')) this.#upstream.keepPrivate(answer.socket)
    try {
      const headers = this.#headersToVisitor(answer)
      response.writeHead(answer.statusCode ?? 502, reasonOf(answer), headers)
      this.#visit.timing?.answered(response.statusCode)
      this.#visit.record?.onAnswer(answer, headers)
    } catch {
      this.#outgoing?.destroy()
      this.#fail(502)
      return
    }
    // The head alone, if nothing comes with it: some targets speak later.
    response.once('close', cutUnread(response, UNREAD))
    setImmediate(() => {
      if (!response.writableEnded && !response.destroyed) response.flushHeaders()
    })
    answer.once('close', () => {
      if (!answer.complete) response.destroy()
    })
    answer.once('end', () => {
      if (!answer.complete) return
      if (response.chunkedEncoding) response.addTrailers(this.#visit.rules.trailersToVisitor(trailersOf(answer)))
      response.end()
    })
    answer.pipe(response, { end: false })
  }

  #onUpgrade(answer: IncomingMessage, connection: Duplex, head: Buffer): void {
    const { request, response } = this.#visit
    clearTimeout(this.#timer)
    const upgrade = this.#upgrade
    const wanted = request.headers.upgrade
    const same = wanted !== undefined && answer.headers.upgrade?.toLowerCase() === wanted.toLowerCase()
    if (this.#over || !upgrade || !same || !(connection instanceof SubConnection)) {
      connection.destroy()
      this.#fail(502)
      return
    }
    try {
      const headers = this.#headersToVisitor(answer, wanted)
      response.writeHead(101, reasonOf(answer), headers)
      this.#visit.timing?.answered(101)
      this.#visit.record?.onUpgrade(answer, headers)
    } catch {
      connection.destroy()
      this.#fail(502)
      return
    }
    this.#upgraded = true
    this.#over = true
    const { socket } = upgrade
    response.flushHeaders()
    response.detachSocket(request.socket)
    if (upgrade.head.length > 0) socket.unshift(upgrade.head)
    if (head.length > 0) connection.unshift(head)
    join(connection, linkFrom(socket, this.#visit.origin.remote))
  }

  #headersToVisitor(answer: IncomingMessage, upgrade?: string): string[] {
    const { request, target, rules, origin } = this.#visit
    return rules.toVisitor(headersToVisitor(answer, request, upgrade), target, origin)
  }

  #onError(outgoing: ClientRequest, error: Error): void {
    const { request, response } = this.#visit
    if (this.#over || outgoing !== this.#outgoing || response.headersSent) return
    this.#visit.record?.onProblem(error)
    const unheard = outgoing.reusedSocket && bytesFrom(outgoing.socket) === this.#before
    if (unheard && IDEMPOTENT.has(request.method ?? '') && !hasBody(request)) {
      // It had been closed meanwhile, most likely.
      this.#send(false)
      return
    }
    this.#fail(statusFor(error))
  }

  /** All is answered, and the target wants no more: who still sends a body is let finish, or read why not. */
  #onTargetClose(): void {
    const { request, response } = this.#visit
    if (this.#over || request.complete || !response.headersSent) return
    request.unpipe()
    request.resume()
  }

  #onAnswered(): void {
    const { request } = this.#visit
    if (request.complete) return
    const timer = setTimeout(() => request.socket.destroy(), LINGER).unref()
    request.once('close', () => clearTimeout(timer))
  }

  #onTimeout(): void {
    // It waits for its turn at a throttle, say, and has moved since.
    const connection = this.#outgoing?.socket
    const sent = bytesTo(connection)
    if (connection && connection.writableLength > 0 && sent > this.#sent) {
      this.#sent = sent
      this.#timer?.refresh()
      return
    }
    const stalled = !this.#visit.request.complete && this.#outgoing?.writableNeedDrain === false
    this.#fail(stalled ? 408 : 504)
    this.#outgoing?.destroy()
  }

  /** The visitor has the answer, or is gone. */
  onVisitorClose(): void {
    clearTimeout(this.#timer)
    if (this.#over || this.#visit.response.writableFinished) return
    this.#over = true
    this.#outgoing?.destroy()
  }

  #fail(status: PageStatus): void {
    const { request, response } = this.#visit
    clearTimeout(this.#timer)
    if (this.#over) return
    this.#over = true
    if (response.headersSent) response.destroy()
    else sendPage(request, response, status)
    request.unpipe()
  }
}

function bytesTo(connection: Duplex | null | undefined): number {
  return connection instanceof SubConnection ? connection.bytesWritten : 0
}

function bytesFrom(connection: Duplex | null): number {
  return connection instanceof SubConnection ? connection.bytesRead : 0
}
