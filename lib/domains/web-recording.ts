import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Origin } from '../sockets/requests.ts'
import { hasBody } from './web-headers.ts'
import { maskHeaders } from './web-inspect-mask.ts'
import type { WebSite, WebTarget } from './web-routes.ts'

/** Who asks whom, as a request comes in. */
export interface Inspected {
  readonly site: WebSite
  readonly target: WebTarget
  readonly origin: Origin
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

export interface RecordedAnswer {
  readonly status: number
  readonly reason: string
  /** Names and values, masked. */
  readonly headers: readonly string[]
  /** Whether the head was longer than what is kept. */
  readonly cut: boolean
}

/** What an entry costs beside its texts and bodies, more or less, in bytes. */
const OVERHEAD = 2048
const PER_TEXT = 24
/** Characters of a head that are kept. */
const LONGEST_HEAD = 65_536
const SMALLEST_BODY = 256

/** What one listener has. */
export interface Shelf {
  readonly key: string
  readonly recordings: Set<Recording>
  /** Those that were never let in. */
  readonly refused: Set<Recording>
  bytes: number
}

export interface RecordingContext {
  readonly bodyBytes: number
  readonly replayOf: string | undefined
  readonly onGrown: (bytes: number) => void
  readonly onLetIn: () => void
  readonly onEnded: () => void
}

/**
 * One request and its answer, told as they pass. What the visitor has sent stays as it is, for asking it again: it is masked
 * whenever somebody looks at it. What is not needed for that (secrets of the answer's head) is not even kept.
 */
export class Recording {
  readonly id: string
  readonly at: Date = new Date()
  /** As `performance.now` has it. */
  readonly since: number = performance.now()
  readonly mapping: string | undefined
  /** As the visitor wrote it, with the port. */
  readonly authority: string
  readonly origin: Origin
  readonly method: string
  readonly url: string
  readonly httpVersion: string
  /** Names and values, not masked. */
  readonly headers: readonly string[]
  readonly isHeadCut: boolean
  readonly hasBody: boolean
  readonly replayOf: string | undefined
  readonly asked: KeptBody
  readonly answered: KeptBody
  /** Of the recorder. */
  shelf: Shelf | undefined
  #bytes: number
  #answer: RecordedAnswer | undefined
  #trailers: { asked: readonly string[]; answered: readonly string[] } = { asked: [], answered: [] }
  #by: 'target' | 'here' | undefined
  #isLetIn = false
  #isUpgraded = false
  #problem: string | undefined
  #state: 'open' | 'done' | 'cut' = 'open'
  /** After so many ms. */
  #waited: number | undefined
  #took: number | undefined
  #request: IncomingMessage | undefined
  #response: ServerResponse | undefined
  readonly #context: RecordingContext

  constructor(id: string, { site, target, origin, request, response }: Inspected, context: RecordingContext) {
    const { method = 'GET', url = '/', httpVersion, rawHeaders } = request
    const head = shortened(rawHeaders)
    this.id = id
    this.mapping = site.context.name
    this.authority = target.authority
    this.origin = origin
    this.method = method
    this.url = url
    this.httpVersion = origin.http2 ? '2' : httpVersion
    this.headers = head.headers
    this.isHeadCut = head.cut
    this.hasBody = hasBody(request)
    this.replayOf = context.replayOf
    this.#context = context
    this.#request = request
    this.#response = response
    const onGrown = (bytes: number): void => this.#grow(bytes)
    this.asked = new KeptBody(context.bodyBytes, onGrown)
    this.answered = new KeptBody(context.bodyBytes, onGrown)
    this.#bytes = OVERHEAD + url.length + sizeOf(head.headers)
  }

  get bytes(): number {
    return this.#bytes
  }

  get answer(): RecordedAnswer | undefined {
    return this.#answer
  }

  get trailers(): { readonly asked: readonly string[]; readonly answered: readonly string[] } {
    return this.#trailers
  }

  /** Who has answered: the target, or this server in its place. */
  get by(): 'target' | 'here' | undefined {
    return this.#by
  }

  /** Whether it is on its way to the target, and was not refused here. */
  get isLetIn(): boolean {
    return this.#isLetIn
  }

  get isUpgraded(): boolean {
    return this.#isUpgraded
  }

  get problem(): string | undefined {
    return this.#problem
  }

  /** `cut`: it has ended before all of the answer was sent. */
  get state(): 'open' | 'done' | 'cut' {
    return this.#state
  }

  /** From the head of the request to the head of the answer, in ms. */
  get waited(): number | undefined {
    return this.#waited
  }

  /** To the end of all, in ms. */
  get took(): number | undefined {
    return this.#took
  }

  /** Nothing here is in its way any more. */
  letIn(): void {
    if (this.#isLetIn || this.#state !== 'open') return
    this.#isLetIn = true
    this.#context.onLetIn()
  }

  /** The body of the request comes, and is about to be read. */
  onBody(request: IncomingMessage): void {
    request.on('data', (chunk: Buffer) => this.asked.add(chunk))
    request.once('end', () => {
      this.asked.end(request.complete)
      this.#onTrailers('asked', request.rawTrailers)
    })
  }

  /** The target has answered, and its body is about to be read; `headers` are what the visitor gets. */
  onAnswer(answer: IncomingMessage, headers: readonly string[]): void {
    this.#by = 'target'
    // It was asked twice.
    this.#problem = undefined
    this.#setAnswer(answer.statusCode ?? 0, answer.statusMessage ?? '', headers)
    answer.on('data', (chunk: Buffer) => this.answered.add(chunk))
    answer.once('end', () => this.#onTrailers('answered', answer.rawTrailers))
  }

  /** It is a WebSocket now, of which no more is told than how long it lasts. */
  onUpgrade({ statusCode = 101, statusMessage = '' }: IncomingMessage, headers: readonly string[]): void {
    this.#by = 'target'
    this.#isUpgraded = true
    this.#setAnswer(statusCode, statusMessage, headers)
  }

  /** Why the target has not answered. */
  onProblem(error: Error): void {
    this.#problem = error.message.slice(0, 500)
  }

  /** The visitor has all of it, or is gone. */
  ended(): void {
    const [request, response] = [this.#request, this.#response]
    if (this.#state !== 'open' || !request || !response) return
    this.#took = performance.now() - this.since
    this.#state = response.writableFinished || this.#isUpgraded ? 'done' : 'cut'
    if (!this.#answer && response.headersSent) {
      this.#by = 'here'
      this.#setAnswer(response.statusCode, response.statusMessage, [])
    }
    // What nobody has read was not kept.
    this.asked.end(!this.hasBody)
    this.answered.end(this.#state === 'done')
    this.#request = undefined
    this.#response = undefined
    this.#context.onEnded()
  }

  /** Nobody asks for it any more: what still comes is not kept. */
  forget(): void {
    this.shelf = undefined
    this.asked.close()
    this.answered.close()
  }

  #onTrailers(which: 'asked' | 'answered', trailers: readonly string[]): void {
    if (trailers.length === 0 || !this.shelf) return
    const { headers } = shortened(trailers)
    this.#trailers = { ...this.#trailers, [which]: maskHeaders(headers) }
    this.#grow(sizeOf(headers))
  }

  #setAnswer(status: number, reason: string, all: readonly string[]): void {
    this.#waited = performance.now() - this.since
    const { headers, cut } = shortened(all)
    this.#answer = { status, reason, headers: maskHeaders(headers), cut }
    this.#grow(sizeOf(headers) + reason.length)
  }

  #grow(bytes: number): void {
    if (!this.shelf) return
    this.#bytes += bytes
    this.#context.onGrown(bytes)
  }
}

/** The first bytes of a body, and how many there were in all. */
export class KeptBody {
  readonly #most: number
  readonly #onGrown: (bytes: number) => void
  #buffer: Buffer = Buffer.alloc(0)
  #length = 0
  #size = 0
  #state: 'open' | 'whole' | 'cut' | 'closed' = 'open'

  constructor(most: number, onGrown: (bytes: number) => void) {
    this.#most = most
    this.#onGrown = onGrown
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  /** Bytes that have passed. */
  get size(): number {
    return this.#size
  }

  /** Whether all of it is kept, and has come. */
  get isWhole(): boolean {
    return this.#state === 'whole' && this.#length === this.#size
  }

  /** Whether more of it may come. */
  get isOpen(): boolean {
    return this.#state === 'open'
  }

  /** Takes a copy: what is told may lie in a larger buffer, or one that is read into again. */
  add(chunk: Uint8Array): void {
    this.#size += chunk.length
    const length = this.#state === 'open' ? Math.min(chunk.length, this.#most - this.#length) : 0
    if (length <= 0) return
    const needed = this.#length + length
    if (needed > this.#buffer.length) this.#resize(Math.max(needed, SMALLEST_BODY, 2 * this.#buffer.length))
    // It may have been forgotten for being too large.
    if (this.#state !== 'open') return
    this.#buffer.set(length < chunk.length ? chunk.subarray(0, length) : chunk, this.#length)
    this.#length = needed
  }

  end(isComplete: boolean): void {
    if (this.#state !== 'open') return
    if (this.#buffer.length > this.#length) this.#resize(this.#length)
    this.#state = isComplete ? 'whole' : 'cut'
  }

  close(): void {
    this.#state = 'closed'
    this.#buffer = Buffer.alloc(0)
    this.#length = 0
  }

  #resize(wanted: number): void {
    const before = this.#buffer
    // Not from the pool, of which a small piece would hold all.
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(wanted, this.#most))
    this.#buffer.set(before.subarray(0, this.#length))
    this.#onGrown(this.#buffer.length - before.length)
  }
}

function sizeOf(texts: readonly string[]): number {
  return texts.reduce((sum, { length }) => sum + length + PER_TEXT, 0)
}

/** As many headers as are kept. HTTP/2 has some that are none. */
function shortened(list: readonly string[]): { headers: readonly string[]; cut: boolean } {
  const headers: string[] = []
  let room = LONGEST_HEAD
  for (let i = 0; i + 1 < list.length; i += 2) {
    const [name = '', value = ''] = [list[i], list[i + 1]]
    room -= name.length + value.length
    if (room < 0) return { headers, cut: true }
    if (!name.startsWith(':')) headers.push(name, value)
  }
  return { headers, cut: false }
}
