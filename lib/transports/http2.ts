import { Agent, type ClientRequest, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http'
import {
  constants,
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { InnerSocket, innerSockets } from './inner-socket.ts'
import type { Web, WebVisit } from './web.ts'

/** Of one session. nghttp2 bounds what can be told without one: resets, settings, pings, frames of headers. */
const SETTINGS = {
  maxHeaderListPairs: 1000,
  maxSendHeaderBlockLength: 131_072,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  settings: { maxConcurrentStreams: 128, maxHeaderListSize: 65_536, initialWindowSize: 262_144 },
}
/** Bytes of all bodies of a session that nobody has taken yet. */
const SESSION_WINDOW = 1_048_576
/** Requests of a session that may be taken back before they are answered: at once, and how many more in a second. */
const MOST_TAKEN_BACK = 500
const TAKEN_BACK_PER_SECOND = 20
/** How long the far side of one that is over may take to end it, in ms. */
const LINGER = 5000
/** Connections inside that wait for the next request of a session. */
const MOST_KEPT = 16
/** How much longer than a session may be without a request the end of an answer may be left unread. */
const UNREAD_FACTOR = 5
/** Bytes of the head of an answer. */
const LONGEST_HEAD = 131_072
/** RFC 9113 section 8.2.2: what is about a connection of HTTP/1.1. */
const PER_CONNECTION: ReadonlySet<string> = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'http2-settings', 'host'],
])
/** Lists whose values have commas of their own. */
const ONE_BY_ONE: ReadonlySet<string> = new Set(['set-cookie', 'www-authenticate', 'proxy-authenticate'])

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR } = constants

/**
 * HTTP/2 (RFC 9113) on connections of TLS that have agreed on it. Each stream becomes a request of HTTP/1.1 on a connection
 * inside this process: whoever serves those serves these as well, and has one thing to know. WebSockets stay outside.
 * `idleTime`: how long a session may be without a request, in ms.
 */
export function serveHttp2(secure: TLSSocket, visit: WebVisit, web: Web, idleTime: number): void {
  // Only the servers of Node.js say so when they hand a connection out, and a session would wait for it.
  Object.assign(secure, { secureConnecting: false })
  const session = performServerHandshake(secure, SETTINGS)
  const timer = new IdleTimer(session, secure, idleTime)
  const takenBack = new TakenBack()
  const way = new WayIn(web, visit, UNREAD_FACTOR * idleTime)
  // A session waits for its last write before it ends the connection, and Node.js does not always tell when that has failed.
  const end = (code: number): void => {
    session.destroy(undefined, code)
    const timer = setTimeout(() => secure.destroy(), LINGER).unref()
    secure.once('close', () => clearTimeout(timer))
  }
  session.on('error', () => {})
  session.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _: number, rawHeaders: string[]) => {
    timer.opened()
    stream.on('error', () => {})
    const exchange = new Http2Exchange(stream, headers, rawHeaders)
    stream.once('close', () => {
      timer.closed()
      if (!exchange.isAnswered && takenBack.isTooMuch()) end(NGHTTP2_ENHANCE_YOUR_CALM)
    })
    exchange.start(way)
  })
  // Nobody who is half gone has more than that to say in HTTP/2.
  secure.once('end', () => end(NGHTTP2_NO_ERROR))
  secure.once('close', () => way.destroy())
  session.setLocalWindowSize(SESSION_WINDOW)
}

/** Connections of one visitor to who serves HTTP/1.1. Making one costs as much as a request: some are kept for the next. */
class WayIn extends Agent {
  /** How long a visitor may leave the end of an answer unread, in ms. */
  readonly patience: number
  readonly #web: Web
  readonly #visit: WebVisit

  constructor(web: Web, visit: WebVisit, patience: number) {
    super({ keepAlive: true, maxFreeSockets: MOST_KEPT })
    this.patience = patience
    this.#web = web
    this.#visit = visit
  }

  override createConnection(): InnerSocket {
    const [near, far] = innerSockets()
    near.on('error', () => {})
    far.on('error', () => {})
    this.#web.serve(far, this.#visit).catch(() => far.destroy())
    return near
  }

  override keepSocketAlive(_near: Duplex): boolean {
    return true
  }

  override reuseSocket(near: Duplex, again: ClientRequest): void {
    // Node's own, for the time in which it was idle, and ours.
    near.removeAllListeners('error')
    near.on('error', () => {})
    again.reusedSocket = true
  }
}

/**
 * Ends a session that nobody has used for a while, and one whose visitor waits for an answer but is not there any more:
 * nothing comes from it, not even what each client says to a ping. TCP may not tell (the reads of Node.js wait for its
 * writes, and it can lose one of these when a connection breaks).
 */
class IdleTimer {
  readonly #session: ServerHttp2Session
  readonly #secure: TLSSocket
  readonly #time: number
  #streams = 0
  #timer: NodeJS.Timeout | undefined
  /** Bytes that had come when it was last asked, if it has not answered. */
  #askedAt: number | undefined

  constructor(session: ServerHttp2Session, secure: TLSSocket, time: number) {
    this.#time = time
    this.#session = session
    this.#secure = secure
    this.#start()
    secure.once('close', () => clearTimeout(this.#timer))
  }

  opened(): void {
    if (this.#streams++ > 0) return
    clearTimeout(this.#timer)
    this.#askedAt = undefined
    this.#timer = setInterval(() => this.#ask(), this.#time).unref()
  }

  closed(): void {
    if (--this.#streams > 0) return
    clearTimeout(this.#timer)
    if (!this.#secure.destroyed) this.#start()
  }

  #ask(): void {
    const { bytesRead } = this.#secure
    if (bytesRead === this.#askedAt) {
      this.#secure.destroy()
      return
    }
    this.#askedAt = bytesRead
    if (this.#session.destroyed) return
    this.#session.ping((error) => {
      if (error === null) this.#askedAt = undefined
    })
  }

  #start(): void {
    this.#timer = setTimeout(() => {
      this.#session.close()
      this.#timer = setTimeout(() => this.#secure.destroy(), LINGER).unref()
    }, this.#time).unref()
  }
}

/**
 * Counts requests that nobody waits for: each costs its visitor two frames, and others a connection (CVE-2023-44487). What
 * nghttp2 has against it is told to the visitor, and to nobody here.
 */
class TakenBack {
  #count = 0
  #at = performance.now()

  /** One more. */
  isTooMuch(): boolean {
    const now = performance.now()
    this.#count = Math.max(0, this.#count - ((now - this.#at) / 1000) * TAKEN_BACK_PER_SECOND) + 1
    this.#at = now
    return this.#count > MOST_TAKEN_BACK
  }
}

/** One request and its answer. */
class Http2Exchange {
  readonly #stream: ServerHttp2Stream
  readonly #headers: IncomingHttpHeaders
  readonly #rawHeaders: readonly string[]
  #over = false
  /** The answer is all written, or there is none. */
  #answered = false
  /** All of it has come. */
  #complete = false

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, rawHeaders: readonly string[]) {
    this.#stream = stream
    this.#headers = headers
    this.#rawHeaders = rawHeaders
  }

  get isAnswered(): boolean {
    return this.#answered
  }

  start(way: WayIn): void {
    const stream = this.#stream
    const outgoing = this.#ask(way)
    if (outgoing === undefined) return
    outgoing.on('error', () => this.#fail())
    outgoing.on('information', (answer) => this.#inform(answer))
    outgoing.once('response', (answer) => this.#onAnswer(answer, outgoing, way))
    stream.once('close', () => {
      this.#over = true
      if (this.#complete && outgoing.writableFinished) return
      // Otherwise somebody else's answer would come behind it.
      if (outgoing.socket instanceof InnerSocket) outgoing.socket.cut()
      outgoing.destroy()
    })
    if (stream.endAfterHeaders) {
      outgoing.end()
      return
    }
    stream.once('trailers', (_trailers: IncomingHttpHeaders, _flags: number, rawTrailers: string[]) => {
      this.#addTrailers(outgoing, rawTrailers)
    })
    stream.once('end', () => outgoing.end())
    // Its body may wait for what comes of its head.
    outgoing.flushHeaders()
    stream.pipe(outgoing, { end: false })
  }

  /** The request in HTTP/1.1; undefined if it cannot be written in it, and has been answered. */
  #ask(agent: WayIn): ClientRequest | undefined {
    const { ':method': method = '', ':path': path = '' } = this.#headers
    const headers = this.#headersToServe()
    try {
      // CONNECT has no path, and nobody here connects anybody.
      if (headers === undefined || typeof method !== 'string' || typeof path !== 'string' || method === 'CONNECT') {
        throw new TypeError('there is no such request')
      }
      return request({ method, path, headers, agent, setHost: false, maxHeaderSize: LONGEST_HEAD })
    } catch {
      this.#answered = true
      this.#stream.respond({ ':status': 400 }, { endStream: true })
      if (!this.#stream.endAfterHeaders) this.#stream.close(NGHTTP2_NO_ERROR)
      return undefined
    }
  }

  /** Names and values; undefined where there are two answers to what is asked for (RFC 9113 section 8.3.1). */
  #headersToServe(): string[] | undefined {
    const { ':authority': authority, host, cookie, 'content-length': length, trailer } = this.#headers
    if (authority !== undefined && host !== undefined && authority !== host) return undefined
    const asked = authority ?? host
    const list = typeof asked === 'string' ? ['Host', asked] : []
    // Cookies come one by one; they are one header again (section 8.2.3).
    if (typeof cookie === 'string') list.push('cookie', cookie)
    const body = !this.#stream.endAfterHeaders
    const counted = length !== undefined && trailer === undefined
    for (let i = 0; i + 1 < this.#rawHeaders.length; i += 2) {
      const [name = '', value = ''] = [this.#rawHeaders[i], this.#rawHeaders[i + 1]]
      if (name.startsWith(':') || name === 'cookie' || PER_CONNECTION.has(name)) continue
      if (name !== 'content-length' || !body || counted) list.push(name, value)
    }
    if (body && !counted) list.push('Transfer-Encoding', 'chunked')
    if (!body && length === undefined && /^P(?:OST|UT|ATCH)$/.test(String(this.#headers[':method']))) {
      list.push('Content-Length', '0')
    }
    return list
  }

  #addTrailers(outgoing: ClientRequest, rawTrailers: readonly string[]): void {
    const pairs: [string, string][] = []
    for (let i = 0; i + 1 < rawTrailers.length; i += 2) pairs.push([rawTrailers[i] ?? '', rawTrailers[i + 1] ?? ''])
    try {
      if (outgoing.chunkedEncoding) outgoing.addTrailers(pairs)
    } catch {
      // Node.js does not send them, and they may be left out.
    }
  }

  /** 100, 103 and their like. */
  #inform({ statusCode, headers }: { statusCode: number; headers: OutgoingHttpHeaders }): void {
    const stream = this.#stream
    if (this.#over || stream.headersSent || statusCode === 101) return
    try {
      stream.additionalHeaders({ ...withoutConnection(headers), ':status': statusCode })
    } catch {
      // What cannot be said is only a hint.
    }
  }

  #onAnswer(answer: IncomingMessage, outgoing: ClientRequest, { patience }: WayIn): void {
    const stream = this.#stream
    answer.on('error', () => {})
    if (this.#over) return void answer.destroy()
    const status = answer.statusCode ?? 502
    const chunked = answer.headers['transfer-encoding'] !== undefined
    const empty = answer.headers['content-length'] === '0' || [204, 205, 304].includes(status)
    const endStream = empty || this.#headers[':method'] === 'HEAD'
    try {
      stream.respond(headersOf(answer), { endStream, waitForTrailers: chunked && !endStream })
    } catch {
      this.#fail()
      return
    }
    stream.once('wantTrailers', () => {
      try {
        stream.sendTrailers(withoutConnection(answer.trailers))
      } catch {
        this.#fail()
      }
    })
    answer.once('close', () => {
      if (!answer.complete) this.#fail()
    })
    answer.once('end', () => {
      if (!answer.complete) return
      this.#answered = true
      this.#complete = true
      if (!endStream) stream.end()
      const timer = setTimeout(() => this.#fail(), patience).unref()
      stream.once('close', () => clearTimeout(timer))
      if (outgoing.writableFinished || stream.destroyed) return
      // What is left of the request changes nothing any more (RFC 9113 section 8.1).
      if (stream.writableFinished) stream.close(NGHTTP2_NO_ERROR)
      else stream.once('finish', () => stream.close(NGHTTP2_NO_ERROR))
    })
    if (endStream) answer.resume()
    else answer.pipe(stream, { end: false })
  }

  #fail(): void {
    if (this.#over) return
    this.#over = true
    this.#answered = true
    // To close it would end it first, as if all had been said.
    this.#stream.destroy(new Error('there is no more of it'))
  }
}

function headersOf(answer: IncomingMessage): OutgoingHttpHeaders {
  const list = withoutConnection(answer.headers)
  for (const name of ONE_BY_ONE) {
    if (name in list) list[name] = answer.headersDistinct[name]
  }
  return { ...list, ':status': answer.statusCode ?? 502 }
}

function withoutConnection(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const named = new Set(
    String(headers.connection ?? '')
      .split(',')
      .map((name) => name.trim().toLowerCase()),
  )
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !PER_CONNECTION.has(name) && !named.has(name)))
}
