import type { ClientRequest, IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Duplex, pipeline } from 'node:stream'
import { join, type ListenContext, type SubConnection } from '../core/index.ts'
import { serveAgain } from '../sockets/requests.ts'
import type { Gate } from './dynamic-access.ts'
import { type Failure, failureOf, openTcp, sayFarewell, takeOver, type Visitor } from './dynamic-open.ts'
import { endToEnd, type ForwardRequest, type Refusal, readAuthority, readRequest } from './http-proxy-request.ts'
import { cutUnread } from './unread.ts'
import { reasonOf } from './web-headers.ts'
import type { Upstream } from './web-upstream.ts'

/** Bytes of request line and headers; the same of an answer. */
const LONGEST_HEAD = 65_536
/** Requests of one connection at once, which wait for each other's answers: nobody sends more ahead than a few. */
const AHEAD = 16
/** How long a connection may be kept without a request, in ms. */
const KEEP_ALIVE = 15_000

/** RFC 9110 section 9.2.1, those that clients send. */
const REPEATABLE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

const AUTHENTICATE = 'Basic realm="symport", charset="UTF-8"'
const UNAUTHORIZED: Refusal = { status: 407, text: 'This proxy wants a user name and password.' }
const STOPPING: Refusal = { status: 503, text: 'This proxy is about to stop.' }
const NO_TARGET: Refusal = { status: 400, text: 'CONNECT wants host:port.' }
const NO_CONTENT: Refusal = { status: 400, text: 'A request to upgrade has no content.' }
const BAD_REQUEST: Refusal = { status: 400, text: 'The request has something in it that cannot be passed on.' }
const TOO_MANY: Refusal = { status: 503, text: `There are ${AHEAD} requests on this connection already.` }
const BAD_ANSWER: Refusal = { status: 502, text: 'The target answered with something that is not HTTP.' }
const NOT_HTTP: Refusal = { status: 400, text: 'This is no request of HTTP/1.1.' }
const TOO_LARGE: Refusal = { status: 431, text: 'The headers of the request are too large.' }
const TOO_SLOW: Refusal = { status: 408, text: 'This proxy has waited too long for a request.' }

const STALLED: Refusal = { status: 408, text: 'This proxy has waited too long for the rest of the request.' }
const NO_ANSWER: Refusal = { status: 504, text: 'The target did not answer in time.' }
const NO_HTTP_HERE: Refusal = { status: 400, text: 'This is a SOCKS5 proxy, not an HTTP proxy.' }

const REFUSALS: Readonly<Record<Failure, Refusal>> = {
  denied: { status: 403, text: 'The other side of the tunnel does not allow this target.' },
  unserved: { status: 503, text: 'There is no other side of the tunnel just now.' },
  failed: { status: 502, text: 'The target cannot be reached from the other side of the tunnel.' },
  timeout: { status: 504, text: 'The other side of the tunnel did not answer in time.' },
  other: { status: 502, text: 'The connection to the target was lost.' },
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  403: 'Forbidden',
  407: 'Proxy Authentication Required',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** A client that speaks HTTP. */
export interface HttpVisitor extends Visitor {
  /** Its first request is here. */
  onRequest(): void
}

/** How long a client or a target may take, in ms. */
export interface HttpTimeouts {
  /** For the headers of a request. */
  readonly head: number
  /** Between two pieces of a body. */
  readonly body: number
  /** Until an upgrade is answered. */
  readonly upgrade: number
  /** Before anything of an answer is read. */
  readonly unread: number
}

/** What is loaded for the first client. */
interface Loaded {
  readonly server: Server
  readonly request: typeof import('node:http').request
  readonly Upstream: typeof import('./web-upstream.ts').Upstream
}

/** A client's connections to the target that it has asked last. */
interface Kept {
  readonly target: string
  readonly upstream: Upstream
}

/** An HTTP proxy, on connections that somebody else has accepted. */
export class HttpProxyServer {
  readonly #context: ListenContext
  readonly #gate: Gate | undefined
  readonly #timeouts: HttpTimeouts
  readonly #visitors = new WeakMap<Duplex, HttpVisitor>()
  /** Answers that are not finished yet. */
  readonly #answers = new WeakMap<Duplex, Set<ServerResponse>>()
  readonly #kept = new WeakMap<Duplex, Kept>()
  #loaded: Promise<Loaded> | undefined
  #closed = false

  constructor(context: ListenContext, gate: Gate | undefined, timeouts: HttpTimeouts) {
    this.#context = context
    this.#gate = gate
    this.#timeouts = timeouts
  }

  /** Nothing has been read from the socket that is not back in it. */
  async serve(visitor: HttpVisitor): Promise<void> {
    this.#loaded ??= this.#load()
    const { server } = await this.#loaded
    if (visitor.socket.destroyed) return
    this.#visitors.set(visitor.socket, visitor)
    server.emit('connection', visitor.socket)
  }

  /** Requests that are here are still answered. */
  close(): void {
    this.#closed = true
    void this.#loaded?.then(({ server }) => server.close())
  }

  async #load(): Promise<Loaded> {
    const [{ createServer, request }, { Upstream }] = await Promise.all([
      import('node:http'),
      import('./web-upstream.ts'),
    ])
    const server = createServer({
      maxHeaderSize: LONGEST_HEAD,
      headersTimeout: this.#timeouts.head,
      // An upload takes as long as it takes, while it moves.
      requestTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE,
      connectionsCheckingInterval: Math.ceil(this.#timeouts.head / 4),
    })
    // Their size is bounded; beyond a number the others would be left out, and nobody told.
    server.maxHeadersCount = 0
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
      this.#onRequest(request, response).catch(() => response.destroy())
    }
    server.on('request', onRequest)
    // It is the target that says whether it wants the content.
    server.on('checkContinue', onRequest)
    server.on('clientError', (error, socket) => this.#onBroken(error, socket))
    server.on('connect', (request, socket, head) => {
      if (this.#isAnswering(socket)) socket.destroy()
      else this.#onConnect(request, head).catch(() => socket.destroy())
    })
    server.on('upgrade', (request, socket, head) => {
      if (this.#isAnswering(socket)) socket.destroy()
      else if (request.headers.upgrade?.toLowerCase() !== 'websocket') serveAgain(server, request, head)
      else this.#onUpgrade(request, head).catch(() => socket.destroy())
    })
    // It never listens, and this is what starts its look at what takes too long.
    server.emit('listening')
    return { server, request, Upstream }
  }

  async #onConnect(request: IncomingMessage, head: Buffer): Promise<void> {
    const visitor = this.#arrived(request)
    const refusal = await this.#refusalFor(request)
    const target = readAuthority(request.url ?? '')
    if (refusal || target === undefined) return refuse(visitor.socket, refusal ?? NO_TARGET)
    try {
      const sub = await openTcp(this.#context, visitor, target)
      const link = takeOver(visitor, head)
      link.write([Buffer.from('HTTP/1.1 200 Connection established\r\n\r\n')])
      join(sub, link)
    } catch (error) {
      refuse(visitor.socket, REFUSALS[failureOf(error)])
    }
  }

  async #onRequest(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const visitor = this.#arrived(request)
    const answers = this.#answers.get(visitor.socket) ?? new Set()
    this.#answers.set(visitor.socket, answers.add(response))
    response.once('close', () => answers.delete(response))
    const asked = answers.size > AHEAD ? TOO_MANY : readRequest(request)
    const refusal = 'status' in asked ? asked : await this.#refusalFor(request)
    if (refusal) answer(request, response, refusal)
    else if ('target' in asked) await this.#forward(visitor, request, response, asked)
  }

  /** As a WebSocket begins. It may still be answered like any other request. */
  async #onUpgrade(request: IncomingMessage, head: Buffer): Promise<void> {
    const visitor = this.#arrived(request)
    const { ServerResponse } = await import('node:http')
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(visitor.socket)
    response.once('finish', () => {
      response.detachSocket(visitor.socket)
      sayFarewell(visitor.socket, '')
    })
    const asked = readRequest(request)
    const refusal =
      'status' in asked ? asked : asked.content !== undefined ? NO_CONTENT : await this.#refusalFor(request)
    if (refusal) answer(request, response, refusal)
    else if ('target' in asked) await this.#forward(visitor, request, response, asked, head)
  }

  /** It is no HTTP, or it takes too long. Node.js would close at once, and the refusal might not arrive. */
  #onBroken(error: Error, socket: Duplex): void {
    const visitor = this.#visitors.get(socket)
    if (socket.writableEnded) return
    // In the middle of an answer there is no room for another one.
    const begun = [...(this.#answers.get(socket) ?? [])].some((response) => response.headersSent)
    if (!visitor || !socket.writable || begun) socket.destroy()
    else if (codeOf(error) === 'ERR_HTTP_REQUEST_TIMEOUT') refuse(visitor.socket, TOO_SLOW)
    else if (codeOf(error) === 'HPE_HEADER_OVERFLOW') refuse(visitor.socket, TOO_LARGE)
    else refuse(visitor.socket, NOT_HTTP)
  }

  /** Behind a request that is not answered yet nothing else can begin: its answer would get in between. */
  #isAnswering(socket: Duplex): boolean {
    return [...(this.#answers.get(socket) ?? [])].some((response) => !response.writableFinished)
  }

  #arrived(request: IncomingMessage): HttpVisitor {
    const visitor = this.#visitors.get(request.socket)
    if (!visitor) throw new TypeError('a request from nobody')
    visitor.onRequest()
    return visitor
  }

  async #refusalFor({ headers }: IncomingMessage): Promise<Refusal | undefined> {
    if (this.#closed) return STOPPING
    if (!this.#gate) return undefined
    // RFC 7617: the name ends at the first colon.
    const [, encoded = ''] = /^basic +([a-z0-9+/]+=*)$/i.exec(headers['proxy-authorization'] ?? '') ?? []
    const credentials = Buffer.from(encoded, 'base64')
    const colon = credentials.indexOf(0x3a)
    if (colon < 0) return UNAUTHORIZED
    const admitted = await this.#gate.admits(credentials.subarray(0, colon), credentials.subarray(colon + 1))
    return admitted ? undefined : UNAUTHORIZED
  }

  /**
   * What may be asked twice goes on a connection that this client has had to the same target before, if there is one; all
   * else has a connection of its own, on which nothing can come behind it.
   */
  async #forward(
    visitor: HttpVisitor,
    request: IncomingMessage,
    response: ServerResponse,
    asked: ForwardRequest,
    head?: Buffer,
  ): Promise<void> {
    const repeatable = head === undefined && asked.content === undefined && REPEATABLE.has(request.method ?? '')
    // Who logs in may have done so for all that comes behind it.
    if (repeatable && request.headers.authorization === undefined) {
      await this.#forwardKept(visitor, request, response, asked)
    } else {
      await this.#forwardAlone(visitor, request, response, asked, head)
    }
  }

  async #forwardKept(
    visitor: HttpVisitor,
    request: IncomingMessage,
    response: ServerResponse,
    asked: ForwardRequest,
  ): Promise<void> {
    const upstream = await this.#upstreamOf(visitor, asked.target)
    let outgoing: ClientRequest
    try {
      if (visitor.socket.destroyed) throw new TypeError('the client has gone')
      const { path, headers } = asked
      outgoing = upstream.send({ method: request.method ?? 'GET', path, headers, from: visitor.remote })
    } catch {
      answer(request, response, BAD_REQUEST)
      return
    }
    response.once('close', () => {
      if (!response.writableFinished) outgoing.destroy()
    })
    outgoing.once('socket', (connection) => {
      outgoing.once('close', () => {
        if (!outgoing.shouldKeepAlive && !connection.destroyed) upstream.retire(connection)
      })
    })
    let answered = false
    outgoing.on('error', (error) => {
      if (answered || response.closed || response.destroyed) return
      const isHttp = !codeOf(error).startsWith('HPE_')
      if (outgoing.reusedSocket && isHttp) {
        // It had been closed meanwhile, most likely.
        this.#forwardAlone(visitor, request, response, asked).catch(() => response.destroy())
      } else {
        answer(request, response, isHttp ? REFUSALS[failureOf(error)] : BAD_ANSWER)
      }
    })
    outgoing.on('response', (incoming) => {
      answered = true
      this.#passBack(request, response, incoming, (complete) => {
        if (!complete) outgoing.destroy()
      })
    })
    outgoing.on('upgrade', (_, connection) => {
      connection.destroy()
      answer(request, response, BAD_ANSWER)
    })
    outgoing.end()
  }

  /** One target at a time: clients have a connection for each. */
  async #upstreamOf({ socket }: HttpVisitor, target: string): Promise<Upstream> {
    this.#loaded ??= this.#load()
    const { Upstream } = await this.#loaded
    const known = this.#kept.get(socket)
    if (known?.target === target) return known.upstream
    known?.upstream.close()
    const to = { Domain: 'tcp', Addr: target }
    const upstream = new Upstream({
      signal: this.#context.signal,
      open: (options) => this.#context.open({ ...options, to }),
    })
    if (!known) socket.once('close', () => this.#kept.get(socket)?.upstream.close())
    this.#kept.set(socket, { target, upstream })
    return upstream
  }

  async #forwardAlone(
    visitor: HttpVisitor,
    request: IncomingMessage,
    response: ServerResponse,
    asked: ForwardRequest,
    head?: Buffer,
  ): Promise<void> {
    let sub: SubConnection
    try {
      sub = await this.#context.open({ to: { Domain: 'tcp', Addr: asked.target }, from: visitor.remote })
    } catch (error) {
      answer(request, response, REFUSALS[failureOf(error)])
      return
    }
    let outgoing: ClientRequest
    try {
      if (visitor.socket.destroyed) throw new TypeError('the client has gone')
      outgoing = await this.#ask(sub, request, asked, head !== undefined)
    } catch {
      sub.destroy()
      answer(request, response, BAD_REQUEST)
      return
    }
    const awaited = head !== undefined || asked.content !== undefined
    const watch = awaited ? this.#watch(request, response, outgoing, head !== undefined) : undefined
    response.once('close', () => {
      watch?.stop()
      if (!response.writableFinished) sub.destroy()
    })
    let answered = false
    outgoing.on('error', (error) => {
      // Then the answer is what counts, and it tells by itself whether all of it has come.
      if (answered || response.writableEnded) return
      const problem = REFUSALS[failureOf(error)]
      answer(request, response, codeOf(error).startsWith('HPE_') ? BAD_ANSWER : problem)
      sub.destroy()
    })
    // Once: a target could say it for ever.
    outgoing.once('continue', () => {
      if (!response.headersSent && request.httpVersion !== '1.0') response.writeContinue()
    })
    outgoing.on('response', (incoming) => {
      answered = true
      if (watch) incoming.on('data', watch.moved)
      this.#passBack(request, response, incoming, () => sub.destroy())
    })
    outgoing.on('upgrade', (incoming, _socket, early) => {
      answered = true
      if (head === undefined) {
        sub.destroy()
        return answer(request, response, BAD_ANSWER)
      }
      this.#switch(visitor, response, incoming, sub, head, early)
    })
    if (asked.content === undefined) {
      outgoing.end()
      return
    }
    if (watch) request.on('data', watch.moved)
    // The client may wait with its content for what the target says to that.
    outgoing.flushHeaders()
    pipeline(request, outgoing, (error) => {
      // The client went in the middle of it.
      if (error && !request.complete) sub.destroy()
    })
  }

  /**
   * Gives a request up that waits for more of its body, or for an answer to an upgrade, while nothing moves. `moved`
   * is to be called when something does.
   */
  #watch(
    request: IncomingMessage,
    response: ServerResponse,
    outgoing: ClientRequest,
    upgrade: boolean,
  ): { moved(): void; stop(): void } {
    const timeouts = this.#timeouts
    const giveUp = (): void => {
      // It may be the target that does not read.
      if (!upgrade && outgoing.writableNeedDrain) {
        timer.refresh()
        return
      }
      answer(request, response, upgrade ? NO_ANSWER : STALLED)
      outgoing.destroy()
    }
    const timer = setTimeout(giveUp, upgrade ? timeouts.upgrade : timeouts.body).unref()
    let over = false
    const stop = (): void => {
      over = true
      clearTimeout(timer)
    }
    if (upgrade) outgoing.once('upgrade', stop).once('response', stop)
    else request.once('end', stop)
    const moved = (): void => {
      if (!over) timer.refresh()
    }
    return { moved, stop }
  }

  async #ask(
    sub: SubConnection,
    request: IncomingMessage,
    { path, headers, content }: ForwardRequest,
    upgrade: boolean,
  ): Promise<ClientRequest> {
    this.#loaded ??= this.#load()
    const http = await this.#loaded
    const own = upgrade ? ['Connection', 'Upgrade', 'Upgrade', request.headers.upgrade ?? ''] : ['Connection', 'close']
    if (content === 'chunked') own.push('Transfer-Encoding', 'chunked')
    else if (content !== undefined) own.push('Content-Length', `${content}`)
    return http.request({
      method: request.method,
      path,
      headers: [...headers, ...own],
      setHost: false,
      maxHeaderSize: LONGEST_HEAD,
      createConnection: () => sub,
    })
  }

  #passBack(
    request: IncomingMessage,
    response: ServerResponse,
    incoming: IncomingMessage,
    release: (complete: boolean) => void,
  ): void {
    const coding = incoming.headers['transfer-encoding']
    // A 101 that names no protocol comes as an answer.
    const { statusCode = 502, rawHeaders } = incoming
    if (statusCode < 200 || (coding !== undefined && coding.toLowerCase() !== 'chunked')) {
      answer(request, response, BAD_ANSWER)
      release(false)
      return
    }
    try {
      if (!request.complete) response.shouldKeepAlive = false
      if (this.#closed) response.shouldKeepAlive = false
      response.sendDate = false
      const unsized = coding !== undefined || statusCode === 204
      response.writeHead(statusCode, reasonOf(incoming), endToEnd(rawHeaders, unsized ? ['content-length'] : []))
      // What trickles in, as events do, is for the client at once.
      response.flushHeaders()
    } catch {
      answer(request, response, BAD_ANSWER)
      release(false)
      return
    }
    const stop = cutUnread(response, this.#timeouts.unread)
    pipeline(incoming, response, (error) => {
      stop()
      // Not by way of the request: it has no socket any more once its own pipeline has failed.
      if (error) response.destroy()
      release(!error)
    })
  }

  /** From here on it is a stream of bytes, whatever was agreed upon. */
  #switch(
    visitor: HttpVisitor,
    response: ServerResponse,
    incoming: IncomingMessage,
    sub: SubConnection,
    head: Buffer,
    early: Buffer,
  ): void {
    const { rawHeaders, headers } = incoming
    response.detachSocket(visitor.socket)
    const lines = [`HTTP/1.1 101 ${reasonOf(incoming)}`, 'Connection: Upgrade', `Upgrade: ${headers.upgrade ?? ''}`]
    const others = endToEnd(rawHeaders, ['content-length'])
    for (let at = 0; at < others.length; at += 2) lines.push(`${others[at]}: ${others[at + 1]}`)
    const link = takeOver(visitor, head)
    link.write([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), early])
    join(sub, link)
  }
}

/** Refuses a client that has sent no request in time. */
export function tooSlow(socket: Socket): void {
  refuse(socket, TOO_SLOW)
}

/** Tells a client that speaks HTTP where nobody else does. */
export function notHere(socket: Socket): void {
  refuse(socket, NO_HTTP_HERE)
}

function answer(request: IncomingMessage, response: ServerResponse, { status, text }: Refusal): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  // What is still on its way of a request that nobody wants must not be taken for another one.
  if (!request.complete || status === 400 || status === 503) response.shouldKeepAlive = false
  const body = Buffer.from(`${text}\n`)
  // A reason that another try has left behind would be sent.
  response.writeHead(status, REASONS[status] ?? '', {
    ...(status === 407 ? { 'Proxy-Authenticate': AUTHENTICATE } : {}),
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': body.length,
  })
  response.end(body)
}

function refuse(socket: Socket, { status, text }: Refusal): void {
  const body = `${text}\n`
  const authenticate = status === 407 ? `Proxy-Authenticate: ${AUTHENTICATE}\r\n` : ''
  const headers = `${authenticate}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\n`
  sayFarewell(socket, `HTTP/1.1 ${status} ${REASONS[status] ?? ''}\r\n${headers}\r\n${body}`)
}

function codeOf(error: Error): string {
  return 'code' in error ? String(error.code) : ''
}
