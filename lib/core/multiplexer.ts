import { diagnostics } from './diagnostics.ts'
import { checkEndpoint, type Endpoint } from './endpoint.ts'
import { ProxyError } from './errors.ts'
import { decodeJson, decodeReason, encodeReason, Frame, plainText } from './frame.ts'
import { IdTable } from './id-table.ts'
import { type Limits, MAX_PENDING_OPENS } from './limits.ts'
import type { FrameHandler, MainConnection } from './main-connection.ts'
import { BULK, SLICE } from './record.ts'
import { SubConnection, type SubConnectionHost } from './sub-connection.ts'
import { EARLY_WINDOW, ReceiveWindow, WindowPool } from './window.ts'

/** Where an open shall lead: to a listener that the receiver has asked for, or to an endpoint. */
export interface OpenRequest {
  readonly listener?: number | undefined
  readonly to?: Endpoint | undefined
  /** Who came in, for people and for logs. */
  readonly from?: string | undefined
}

export interface MultiplexerHandler {
  /** The peer opens. The promise settles when whatever it caused here has ended, given up or not. */
  onOpen(sub: SubConnection, request: OpenRequest): Promise<void>
  /** Frames of the listen family. */
  onListenFrame(type: number, id: number, payload: Buffer): void
  /** The last sub-connection is gone. */
  onIdle(): void
  /** See `FrameHandler`. */
  onPaused(reason: ProxyError): void
  onResumed(): void
  onClosed(error: ProxyError): void
}

/** Bytes that one sub-connection sends before the next one's turn, and when it is alone. */
const TURN = SLICE
const TURN_ALONE = BULK
const MAX_FROM = 128

/** The sub-connections of one main connection: their ids, their frames, and whose turn it is. */
export class Multiplexer implements FrameHandler, SubConnectionHost {
  readonly #main: MainConnection
  readonly #handler: MultiplexerHandler
  readonly #subs = new IdTable<SubConnection>()
  /** First in, first out: a Set keeps the order, and nobody stands in it twice. */
  readonly #ready = new Set<SubConnection>()
  readonly #pool: WindowPool
  /** Opens of ours that the peer has not answered, and those who wait for a place among them. */
  readonly #unanswered = new IdTable<{ readonly sub: SubConnection; readonly at: number }>()
  readonly #queue: (() => void)[] = []
  #sweeper: NodeJS.Timeout | undefined
  #dialling = 0
  #lastId: number
  readonly #limits: Limits
  #tokens: number
  #tokensAt = performance.now()

  constructor(main: MainConnection, handler: MultiplexerHandler) {
    this.#main = main
    this.#limits = main.limits
    this.#tokens = main.limits.opensPerSecond
    this.#pool = new WindowPool(main.limits.windowBytes, main.budget)
    this.#handler = handler
    this.#lastId = main.role === 'dialler' ? -1 : 0
  }

  get size(): number {
    return this.#subs.size
  }

  get rtt(): number | undefined {
    return this.#main.rtt
  }

  get congested(): boolean {
    return this.#main.congested
  }

  [Symbol.iterator](): Iterator<SubConnection> {
    return this.#subs.values().values()
  }

  /** Opens one to the peer. It may be written to at once; `connect` tells when the far side has. */
  async open(request: OpenRequest, signal?: AbortSignal): Promise<SubConnection> {
    const { subConnections, pendingOpens } = this.#main.peer.limits
    while (this.#unanswered.size >= Math.min(pendingOpens, this.#limits.pendingOpens)) {
      if (this.#queue.length >= this.#limits.subConnections) this.#full()
      await this.#turn(signal)
      if (!signal?.aborted) continue
      // If it was its turn, it is the next one's now.
      if (this.#unanswered.size < pendingOpens) this.#queue.shift()?.()
      throw new ProxyError('PROXY_ERR_ABORTED', 'given up by the caller', { cause: signal.reason })
    }
    if (this.#main.reason) throw this.#main.reason
    if (this.#subs.size >= Math.min(subConnections, this.#limits.subConnections)) {
      // Whoever waits for a place among the unanswered has to hear of it too.
      this.#queue.shift()?.()
      this.#full()
    }
    const id = this.#nextId()
    const window = this.#pool.first(this.#subs.size)
    const receive = new ReceiveWindow(this.#pool, window, 0)
    const sub = this.#add(new SubConnection({ id, host: this, credit: EARLY_WINDOW, receive, remote: request.from }))
    this.#unanswered.set(id, { sub, at: performance.now() })
    this.#sweeper ??= setTimeout(this.#sweep, this.#limits.openTimeout)
    const json = Buffer.from(JSON.stringify(request), 'utf8')
    const payload = Buffer.allocUnsafe(4 + json.length)
    payload.writeUInt32BE(window, 0)
    payload.set(json, 4)
    this.#main.control(Frame.open, id, payload)
    return sub
  }

  /** Resolves when there may be a place, or `signal` fires. */
  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const settle = (): void => {
        signal?.removeEventListener('abort', giveUp)
        resolve()
      }
      const giveUp = (): void => {
        const at = this.#queue.indexOf(settle)
        if (at >= 0) this.#queue.splice(at, 1)
        settle()
      }
      this.#queue.push(settle)
      signal?.addEventListener('abort', giveUp)
    })
  }

  /** One timer for all: gives up the opens that have waited too long. */
  readonly #sweep = (): void => {
    this.#sweeper = undefined
    const now = performance.now()
    const { openTimeout } = this.#limits
    let next = Number.POSITIVE_INFINITY
    for (const { sub, at } of this.#unanswered.values()) {
      // Until it is answered it counts, but nobody waits for it any more.
      if (sub.destroyed) continue
      const left = at + openTimeout - now
      if (left > 0) {
        next = Math.min(next, left)
        continue
      }
      const text = `no answer from the other side within ${openTimeout / 1000} s`
      sub.destroy(new ProxyError('PROXY_ERR_OPEN_TIMEOUT', text, { retryable: true }))
    }
    if (next === Number.POSITIVE_INFINITY) return
    // Whoever heard of an end may have opened anew.
    clearTimeout(this.#sweeper)
    this.#sweeper = setTimeout(this.#sweep, next)
  }

  /** Tells the peer that what it opened is connected now. */
  accept(sub: SubConnection): void {
    if (sub.destroyed) return
    const payload = Buffer.allocUnsafe(4)
    payload.writeUInt32BE(sub.window, 0)
    this.#main.control(Frame.opened, sub.id, payload)
    sub.accepted()
    this.#main.measure()
  }

  #full(): never {
    throw new ProxyError('PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', 'the main connection is full', { retryable: true })
  }

  #add(sub: SubConnection): SubConnection {
    this.#subs.set(sub.id, sub)
    // Whoever holds it hears of errors through its own listeners; nobody holding it must not end the process.
    sub.on('error', ignore)
    return sub
  }

  #nextId(): number {
    do {
      this.#lastId += 2
      // 0 is the session itself.
      if (this.#lastId > 0xffff_ffff) this.#lastId = this.#main.role === 'dialler' ? 1 : 2
    } while (this.#subs.has(this.#lastId))
    return this.#lastId
  }

  // --- frames in ---

  onFrame(type: number, id: number, payload: Buffer, whole: number): boolean {
    if (type === Frame.data) return this.#known(id).onData(payload, whole)
    this.#onControl(type, id, payload)
    // Whatever it says has been read out of it.
    return true
  }

  #onControl(type: number, id: number, payload: Buffer): void {
    switch (type) {
      case Frame.open:
        this.#onOpen(id, payload)
        break
      case Frame.opened: {
        const sub = this.#known(id)
        if (!this.#answered(sub)) throw new ProxyError('PROXY_ERR_FRAME', `an answer that nobody waits for: ${id}`)
        sub.onOpened(readCredit(payload))
        // Now, while little is on the way yet.
        this.#main.measure()
        break
      }
      case Frame.credit: {
        const credit = readCredit(payload)
        if (credit === 0) throw new ProxyError('PROXY_ERR_FRAME', 'a credit of zero')
        // A credit may cross the last frame of the other direction.
        this.#subs.get(id)?.onCredit(credit)
        break
      }
      case Frame.fin:
        this.#known(id).onFin()
        break
      case Frame.reset: {
        // A reset may cross the other side's fin, after which the id is free here.
        const sub = this.#subs.get(id)
        if (!sub) break
        this.#answered(sub)
        sub.onReset(decodeReason(payload, new ProxyError('PROXY_ERR_RESET', 'the other side reset the sub-connection')))
        break
      }
      default:
        this.#handler.onListenFrame(type, id, payload)
    }
  }

  #known(id: number): SubConnection {
    const sub = this.#subs.get(id)
    if (!sub) throw new ProxyError('PROXY_ERR_UNKNOWN_ID', `a frame for sub-connection ${id}, which is not in use`)
    return sub
  }

  #answered(sub: SubConnection): boolean {
    if (!this.#unanswered.delete(sub.id)) return false
    this.#queue.shift()?.()
    return true
  }

  #onOpen(id: number, payload: Buffer): void {
    const parity = this.#main.role === 'dialler' ? 0 : 1
    if (id === 0 || id % 2 !== parity || this.#subs.has(id)) {
      throw new ProxyError('PROXY_ERR_ID', `a sub-connection cannot be opened with the id ${id}`)
    }
    // Even refused ones stay until the peer has confirmed: whoever never does runs into this.
    if (this.#subs.size >= this.#limits.subConnections + MAX_PENDING_OPENS) {
      throw new ProxyError('PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', 'the other side ignores the limits')
    }
    const credit = readCredit(payload.subarray(0, 4))
    const request = checkOpen(decodeJson(payload.subarray(4)))
    const window = this.#pool.first(this.#subs.size)
    const receive = new ReceiveWindow(this.#pool, window, EARLY_WINDOW)
    const sub = this.#add(new SubConnection({ id, host: this, credit, receive, remote: request.from }))
    const refusal = this.#refusal()
    if (refusal) {
      sub.destroy(refusal)
      return
    }
    this.#dialling++
    this.#handler.onOpen(sub, request).then(this.#dialled, this.#dialled)
  }

  readonly #dialled = (): void => {
    this.#dialling--
  }

  #refusal(): ProxyError | undefined {
    const retryable = true
    const { subConnections, pendingOpens, opensPerSecond } = this.#limits
    if (this.#subs.size > subConnections) {
      return new ProxyError('PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', 'the main connection is full', { retryable })
    }
    if (this.#dialling >= pendingOpens) {
      return new ProxyError('PROXY_ERR_TOO_MANY_OPENS', `${pendingOpens} opens are under way`, { retryable })
    }
    const now = performance.now()
    this.#tokens = Math.min(opensPerSecond, this.#tokens + ((now - this.#tokensAt) / 1000) * opensPerSecond)
    this.#tokensAt = now
    if (this.#tokens < 1) {
      return new ProxyError('PROXY_ERR_TOO_MANY_OPENS', `more than ${opensPerSecond} opens per second`, { retryable })
    }
    this.#tokens--
    return undefined
  }

  // --- frames out, for the sub-connections ---

  sendData(sub: SubConnection, bytes: Uint8Array): number {
    let sent = 0
    while (sent < bytes.length && !this.#main.congested) {
      const part = sent === 0 && bytes.length <= TURN_ALONE ? bytes : bytes.subarray(sent, sent + TURN_ALONE)
      this.#main.data(sub.id, part)
      sent += part.length
    }
    return sent
  }

  sendFin(sub: SubConnection): void {
    this.#main.control(Frame.fin, sub.id)
  }

  sendReset(sub: SubConnection, reason: ProxyError | undefined): void {
    this.#ready.delete(sub)
    this.#main.control(Frame.reset, sub.id, encodeReason(reason))
  }

  sendCredit(sub: SubConnection, credit: number): void {
    const payload = Buffer.allocUnsafe(4)
    payload.writeUInt32BE(credit, 0)
    this.#main.control(Frame.credit, sub.id, payload)
    // Windows grow by the round trip time: keep it fresh while much is received.
    this.#main.measure()
  }

  queue(sub: SubConnection): void {
    this.#ready.add(sub)
    this.#main.wake()
  }

  onWritable(): void {
    for (const sub of this.#ready) {
      if (this.#main.congested) return
      this.#ready.delete(sub)
      // Added again it stands at the end, and this loop comes past it once more.
      if (sub.onWritable(this.#ready.size === 0 ? TURN_ALONE : TURN)) this.#ready.add(sub)
    }
  }

  ended(sub: SubConnection): void {
    this.#subs.delete(sub.id)
    this.#ready.delete(sub)
    this.#answered(sub)
    if (this.#subs.size === 0) this.#handler.onIdle()
    if (diagnostics.subClose.hasSubscribers) diagnostics.subClose.publish({ main: this.#main, sub })
  }

  onPaused(reason: ProxyError): void {
    this.#handler.onPaused(reason)
  }

  onResumed(): void {
    this.#handler.onResumed()
  }

  onClosed(error: ProxyError): void {
    this.#handler.onClosed(error)
    clearTimeout(this.#sweeper)
    for (const sub of this.#subs.values()) sub.onLost(error)
    for (const resolve of this.#queue.splice(0)) resolve()
  }
}

function ignore(): void {}

function readCredit(payload: Buffer): number {
  if (payload.length !== 4) throw new ProxyError('PROXY_ERR_FRAME', 'a credit has 4 bytes')
  return payload.readUInt32BE(0)
}

function checkOpen(request: Record<string, unknown>): OpenRequest {
  const { listener, to } = request
  const from = typeof request.from === 'string' ? plainText(request.from.slice(0, MAX_FROM)) : undefined
  if (typeof listener === 'number' && to === undefined) return { listener, from }
  if (listener !== undefined) throw new ProxyError('PROXY_ERR_FRAME', 'an open leads to a listener or to an endpoint')
  return { to: checkEndpoint(to), from }
}
