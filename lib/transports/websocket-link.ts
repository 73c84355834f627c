import type { WebSocket } from 'ws'
import { type Link, type LinkSink, ProxyError } from '../core/index.ts'

/** What is offered and answered in `Sec-WebSocket-Protocol`. */
export const SUBPROTOCOL = 'symport'

/** Bytes of one message that is sent: no more than one cipher call makes. */
const MESSAGE = 65_536
/** How long the other side may take to answer a close frame while nothing moves, in ms. */
const LINGER = 5000
/**
 * How often it is seen to that something was heard, in ms: so silence takes twice as long at most, and some proxies cut
 * what is silent for 30 s. Keepalive speaks earlier, unless it was told not to.
 */
const SILENCE = 12_500
/** Messages that may wait each for itself: a tiny one takes 100 times the memory of what it says. */
const MOST_PIECES = 64
/** RFC 6455 section 7.1.5. */
const NO_CLOSE_FRAME = 1006

export interface WebSocketSettings {
  readonly perMessageDeflate: false
  readonly maxPayload: number
  readonly maxFragments: number
  readonly maxBufferedChunks: number
  readonly closeTimeout: number
}

/**
 * What either end sets for `ws`: no compression of what looks random, and no more memory for somebody who has proven
 * nothing than a message of twice the size that is sent.
 */
export const WEBSOCKET_SETTINGS: WebSocketSettings = {
  perMessageDeflate: false,
  maxPayload: 2 * MESSAGE,
  maxFragments: 1024,
  maxBufferedChunks: 4096,
  // The link has a bound of its own, which lets a slow network finish.
  closeTimeout: 600_000,
}

/** The stream below a WebSocket, as far as it is needed to write several frames with one system call. */
export interface Corkable {
  cork(): void
  uncork(): void
}

export interface WebSocketLinkOptions {
  readonly remote?: string | undefined
  readonly transport: 'ws' | 'wss'
  readonly socket?: Corkable | undefined
}

/**
 * An open WebSocket as a link: binary messages, whose borders mean nothing. It has no half-close: who ends sends a close
 * frame behind what is pending, and the other side answers with its own behind what it has written by then.
 *
 * Make it in the turn in which the WebSocket opened, or what comes first is lost.
 */
export class WebSocketLink implements Link {
  readonly remote: string | undefined
  readonly transport: 'ws' | 'wss'
  readonly copies = true
  readonly #ws: WebSocket
  readonly #socket: Corkable | undefined
  #sink: LinkSink | undefined
  /** Messages that nobody has taken: a pause stops the socket, not what was read with the last message. */
  readonly #queue: Uint8Array[] = []
  #paused = true
  #delivering = false
  /** Writes that the socket has not called back for. */
  #unsent = 0
  #waiting = false
  #state: 'open' | 'ending' | 'destroyed' | 'closed' = 'open'
  #error: Error | undefined
  /** The WebSocket is closed; the sink hears of it when it has taken what came. */
  #over = false
  #told = false
  #lingering: NodeJS.Timeout | undefined
  #heard = true
  readonly #pinging: NodeJS.Timeout

  constructor(ws: WebSocket, options: WebSocketLinkOptions) {
    this.remote = options.remote
    this.transport = options.transport
    this.#socket = options.socket
    this.#ws = ws
    ws.binaryType = 'nodebuffer'
    ws.pause()
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary))
    ws.on('ping', this.#onSign)
    ws.on('pong', this.#onSign)
    // It has told the other side already what it does not like.
    ws.on('error', (error) => this.destroy(error))
    ws.on('close', (code) => this.#onClose(code))
    this.#pinging = setInterval(() => this.#keepOpen(), SILENCE).unref()
    if (ws.readyState === ws.CLOSED) this.#onClose(NO_CLOSE_FRAME)
  }

  get pending(): number {
    return this.#waiting ? Math.max(1, this.#ws.bufferedAmount) : 0
  }

  start(sink: LinkSink): void {
    this.#sink = sink
    setImmediate(() => {
      this.resume()
      this.#tellEnd()
    })
  }

  write(chunks: readonly Uint8Array[]): void {
    const ws = this.#ws
    if (this.#state !== 'open' || ws.readyState !== ws.OPEN) return
    const pieces = chunks.length === 1 && chunks[0] && chunks[0].length <= MESSAGE ? chunks : chunks.flatMap(split)
    let left = pieces.length
    if (left === 0) return
    this.#unsent++
    if (left > 1) this.#socket?.cork()
    for (const piece of pieces) ws.send(piece, --left === 0 ? this.#onWritten : undefined)
    if (pieces.length > 1) this.#socket?.uncork()
    if (ws.bufferedAmount > 0) this.#waiting = true
  }

  readonly #onWritten = (): void => {
    this.#unsent--
    if (!this.#waiting || this.#unsent > 0) return
    this.#waiting = false
    if (!this.#told && this.#state !== 'destroyed') this.#sink?.drained()
  }

  resume(): void {
    if (!this.#paused || !this.#sink) return
    this.#paused = false
    this.#deliver()
    if (!this.#paused && this.#state !== 'closed') this.#ws.resume()
  }

  end(): void {
    if (this.#state !== 'open') return
    this.#state = 'ending'
    const ws = this.#ws
    ws.close(1000)
    let left = Number.POSITIVE_INFINITY
    // As long as bytes move it may go on.
    this.#lingering = setInterval(() => {
      if (ws.bufferedAmount < left) left = ws.bufferedAmount
      else ws.terminate()
    }, LINGER)
  }

  destroy(error?: Error): void {
    if (this.#state === 'destroyed' || this.#told) return
    this.#error ??= error
    this.#queue.length = 0
    this.#state = 'destroyed'
    if (this.#over) setImmediate(() => this.#tellEnd())
    else this.#ws.terminate()
  }

  #onMessage(data: unknown, isBinary: boolean): void {
    if (this.#state === 'destroyed') return
    this.#heard = true
    if (!isBinary || !(data instanceof Uint8Array)) {
      this.#ws.close(1003)
      this.destroy(new ProxyError('PROXY_ERR_LINK_LOST', 'the other side sent text: it is not symport'))
      return
    }
    if (data.length > 0) this.#queue.push(data)
    if (!this.#paused) this.#deliver()
    else if (this.#queue.length > MOST_PIECES) this.#queue.splice(0, this.#queue.length, Buffer.concat(this.#queue))
  }

  #deliver(): void {
    const sink = this.#sink
    // Whoever takes the bytes may resume or end the link meanwhile.
    if (!sink || this.#delivering) return
    this.#delivering = true
    let first = this.#queue[0]
    while (first && !this.#paused) {
      const target = sink.buffer?.()
      const landed = target ? first.subarray(0, target.length) : first
      target?.set(landed)
      if (landed.length === first.length) this.#queue.shift()
      else this.#queue[0] = first.subarray(landed.length)
      if (!sink.received(target ? target.subarray(0, landed.length) : landed)) {
        this.#paused = true
        this.#ws.pause()
      }
      first = this.#queue[0]
    }
    this.#delivering = false
    this.#tellEnd()
  }

  #onClose(code: number): void {
    clearInterval(this.#pinging)
    clearInterval(this.#lingering)
    if (this.#state !== 'destroyed') {
      this.#state = 'closed'
      if (code === NO_CLOSE_FRAME) this.#error = new Error('the connection was lost')
    }
    this.#waiting = false
    this.#over = true
    this.#tellEnd()
  }

  /** Once the WebSocket is closed, and all that came has been taken. */
  #tellEnd(): void {
    const sink = this.#sink
    if (!sink || this.#told || !this.#over || this.#queue.length > 0) return
    this.#told = true
    if (!this.#error && this.#state !== 'destroyed') sink.ended()
    sink.closed(this.#error)
  }

  readonly #onSign = (): void => {
    this.#heard = true
  }

  #keepOpen(): void {
    if (!this.#heard && this.#ws.readyState === this.#ws.OPEN) this.#ws.ping()
    this.#heard = false
  }
}

function split(chunk: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = []
  for (let at = 0; at < chunk.length; at += MESSAGE) pieces.push(chunk.subarray(at, at + MESSAGE))
  return pieces
}
