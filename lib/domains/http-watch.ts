import { Duplex } from 'node:stream'
import { type DomainPlugin, isLink, type Link, type LinkSink, linkFrom, ProxyError } from '../core/index.ts'
import { answerLength, type MessageHead, MessageReader, requestLength } from './http-message.ts'

/** A request that has gone through, as far as it can be told from outside. */
export interface SeenRequest {
  /** When it began. */
  readonly at: Date
  readonly method: string
  /** Without the query, which may hold secrets. */
  readonly path: string
  /** 502 where the target gave no answer. */
  readonly status: number
  /** From the end of its head to the head of the answer. */
  readonly ms: number
  /** Why there was no answer. */
  readonly problem?: string | undefined
}

export type OnRequest = (request: SeenRequest) => void

interface Pending {
  readonly at: Date
  readonly since: number
  readonly method: string
  readonly path: string
}

/** Requests that wait for an answer on one connection: beyond that nobody who means well sends on. */
const MOST_PENDING = 1000
/** Connections that are looked at at once: of those beyond nothing is told. Each may hold a head in both directions. */
const MOST_WATCHED = 1024
/** Bytes of a head: what the server's web port takes, with what it says itself, and as many as it takes of a target. */
const LONGEST_ASKED = 20_480
const LONGEST_ANSWERED = 65_536
/** At a port of its own anybody may send bytes for which there are escapes, and some targets take them. */
const REQUEST_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) ([\x21-\x7e\x80-\xff]+) HTTP\/1\.[01]$/
/** What stands behind the status is for nobody here, and is often not ASCII. */
const STATUS_LINE = /^HTTP\/1\.[01] ([1-9]\d\d)(?: |$)/
/** Characters of a path. */
const LONGEST_TOLD = 2000
/** How long somebody for whom there is no target may take to say what for, in ms. */
const PATIENCE = 5000
/** RFC 9110 section 9.2.2. */
const ASKED_AGAIN: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])
const NO_ANSWER = 'Nothing answers at the other end of this tunnel.\n'

/**
 * Tells of the requests of one connection, out of the bytes that pass in both directions. What is no HTTP/1.1 passes like
 * the rest, and nothing is told of it.
 */
export class HttpWatch {
  readonly #onRequest: OnRequest
  readonly #pending: Pending[] = []
  readonly #asked: MessageReader
  readonly #answered: MessageReader
  #answers = 0
  #over = false

  constructor(onRequest: OnRequest) {
    this.#onRequest = onRequest
    this.#asked = new MessageReader(LONGEST_ASKED, (head) => this.#onAsked(head))
    this.#answered = new MessageReader(LONGEST_ANSWERED, (head) => this.#onAnswered(head))
  }

  /** To the target. */
  asked(bytes: Uint8Array): void {
    this.#asked.read(bytes)
  }

  /** From the target. */
  answered(bytes: Uint8Array): void {
    this.#answered.read(bytes)
  }

  /** The connection is over. `problem`: what the target has not done; without one it is the visitor who has left. */
  ended(problem?: string): void {
    if (this.#over) return
    this.#over = true
    const pending = this.#pending.splice(0)
    // Once the answers cannot be followed, nobody knows which of them have come.
    if (problem === undefined || this.#answered.lost) return
    for (const { at, since, method, path } of pending) {
      // A target may close a connection that was idle: who sends on it at that moment asks again on another one.
      if (this.#answers > 0 && !this.#answered.inHead && ASKED_AGAIN.has(method)) continue
      this.#onRequest({ at, method, path, status: 502, ms: performance.now() - since, problem })
    }
  }

  #onAsked(head: MessageHead): ReturnType<typeof requestLength> {
    const [, method, target = ''] = REQUEST_LINE.exec(head.first) ?? []
    if (method === undefined || this.#pending.length >= MOST_PENDING || this.#answered.lost) return 'other'
    this.#pending.push({ at: new Date(), since: performance.now(), method, path: pathOf(target) })
    return method === 'CONNECT' ? 'other' : requestLength(head)
  }

  #onAnswered(head: MessageHead): ReturnType<typeof answerLength> {
    const status = Number(STATUS_LINE.exec(head.first)?.[1] ?? 0)
    const [request] = this.#pending
    if (status === 0 || !request) return 'other'
    // 103 and its like come before the answer.
    if (status >= 200 || status === 101) {
      this.#pending.shift()
      this.#answers++
      const { at, since, method, path } = request
      this.#onRequest({ at, method, path, status, ms: performance.now() - since })
    }
    const length = answerLength(head, status, request.method)
    if (length === 'other') this.#asked.stop()
    return length
  }
}

/** The domain as it is, with somebody who looks at its connections, and answers where the target does not. */
export function watched(plugin: DomainPlugin, onRequest: OnRequest): DomainPlugin {
  const { dial } = plugin
  if (!dial) return plugin
  const live = new Set<object>()
  return {
    ...plugin,
    async dial(to, context): Promise<Link> {
      try {
        const target = await dial.call(plugin, to, context)
        const link = isLink(target) ? target : linkFrom(target)
        return live.size < MOST_WATCHED ? new WatchedLink(link, new HttpWatch(onRequest), live) : link
      } catch (error) {
        if (context.signal.aborted || live.size >= MOST_WATCHED) throw error
        const unanswered = new Unanswered(ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED').message, onRequest)
        live.add(unanswered)
        unanswered.once('close', () => live.delete(unanswered))
        return linkFrom(unanswered)
      }
    },
  }
}

/** Lets all pass, the buffers included, and looks on. */
class WatchedLink implements Link {
  readonly remote: string | undefined
  readonly transport: string | undefined
  readonly copies: boolean
  readonly #link: Link
  readonly #watch: HttpWatch
  readonly #live: Set<object>

  constructor(link: Link, watch: HttpWatch, live: Set<object>) {
    this.#link = link
    this.#live = live
    this.#watch = watch
    this.remote = link.remote
    this.transport = link.transport
    this.copies = link.copies ?? false
  }

  get pending(): number {
    return this.#link.pending
  }

  start(sink: LinkSink): void {
    this.#live.add(this)
    this.#link.start(new WatchedSink(sink, this.#watch, () => this.#live.delete(this)))
  }

  write(chunks: readonly Uint8Array[]): void {
    for (const chunk of chunks) this.#watch.asked(chunk)
    this.#link.write(chunks)
  }

  resume(): void {
    this.#link.resume()
  }

  end(): void {
    this.#link.end()
  }

  destroy(error?: Error): void {
    this.#watch.ended()
    this.#link.destroy(error)
  }
}

class WatchedSink implements LinkSink {
  readonly buffer?: () => Uint8Array
  readonly #sink: LinkSink
  readonly #watch: HttpWatch
  readonly #onClosed: () => void

  constructor(sink: LinkSink, watch: HttpWatch, onClosed: () => void) {
    this.#sink = sink
    this.#onClosed = onClosed
    this.#watch = watch
    if (sink.buffer) this.buffer = () => sink.buffer?.() ?? new Uint8Array(0)
  }

  received(bytes: Uint8Array): boolean {
    this.#watch.answered(bytes)
    return this.#sink.received(bytes)
  }

  drained(): void {
    this.#sink.drained()
  }

  ended(): void {
    this.#watch.ended('the target closed the connection without an answer')
    this.#sink.ended()
  }

  closed(error?: Error): void {
    this.#onClosed()
    this.#watch.ended(
      error ? `the target broke the connection off: ${error.message}` : 'the target closed the connection',
    )
    this.#sink.closed(error)
  }
}

/** In the place of a target that cannot be reached: reads one request, and answers that. */
class Unanswered extends Duplex {
  readonly #reader: MessageReader
  readonly #timer: NodeJS.Timeout
  #isAnswered = false

  constructor(problem: string, onRequest: OnRequest) {
    super({ allowHalfOpen: true, emitClose: true })
    const since = performance.now()
    this.#timer = setTimeout(() => this.destroy(), PATIENCE).unref()
    this.#reader = new MessageReader(LONGEST_ASKED, (head) => {
      const [, method, target = ''] = REQUEST_LINE.exec(head.first) ?? []
      if (method !== undefined) {
        onRequest({ at: new Date(), method, path: pathOf(target), status: 502, ms: performance.now() - since, problem })
        this.#answer(method)
      } else {
        this.destroy()
      }
      return 'other'
    })
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#reader.read(chunk)
    // What never could become a request.
    if (this.#reader.lost && !this.#isAnswered) this.destroy()
    done()
  }

  override _final(done: () => void): void {
    done()
    if (!this.#isAnswered) this.destroy()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#timer)
    done(error)
  }

  #answer(method: string): void {
    this.#isAnswered = true
    const head = [
      'HTTP/1.1 502 Bad Gateway',
      'Content-Type: text/plain; charset=utf-8',
      `Content-Length: ${NO_ANSWER.length}`,
      'Cache-Control: no-store',
      'Connection: close',
    ]
    this.push(`${head.join('\r\n')}\r\n\r\n${method === 'HEAD' ? '' : NO_ANSWER}`)
    this.push(null)
  }
}

function pathOf(target: string): string {
  const path = target.replace(/[?#].*$/s, '')
  const local = path.replace(/^https?:\/\/[^/]*/i, '')
  const told = (local === '' ? '/' : local).slice(0, LONGEST_TOLD)
  return told.replace(/[\x80-\xff]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}
