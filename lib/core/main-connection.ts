import { type KeyObject, sign, verify } from 'node:crypto'
import { Backoff, pause } from './backoff.ts'
import { diagnostics } from './diagnostics.ts'
import { ProxyError } from './errors.ts'
import { decodeReason, encodeReason, Frame, readFrames, readUInt64 } from './frame.ts'
import type { Established, PeerLimits, ResumeRequest, Role } from './handshake.ts'
import { KEEPALIVE, type Keepalive } from './heartbeat.ts'
import { type DecodedHello, encodeHello } from './hello.ts'
import { Budget, type Limits, limitsOf } from './limits.ts'
import { Receipts } from './receipts.ts'
import { closedByPeer, RecordLink, type RecordLinkOwner } from './record-link.ts'
import { Sender } from './sender.ts'
import { tellData, tellFrame } from './wire-tap.ts'

export interface MainOptions {
  /** A name for people, told to the peer. At most 64 bytes. */
  label?: string | undefined
  /** An Ed25519 private key that this side proves to hold. */
  identity?: KeyObject | undefined
  /** After `idle` ms without a byte a ping is sent; `timeout` ms later the link is dead. Default 15,000 and 10,000. */
  keepalive?: Keepalive | undefined
  /** How long a session outlives its link, in ms. 0: it ends with it. Default 120,000. */
  resumeTimeout?: number | undefined
  /** What the peer may have here. */
  limits?: Partial<Limits> | undefined
  /** Shared by main connections that shall not together hold more than it allows. Default: each has its own limits only. */
  budget?: Budget | undefined
}

export interface Peer {
  /** The name of the credential it used; empty for a shared secret. */
  readonly credential: string
  /** What it calls itself: not proven. */
  readonly label: string
  /** The raw Ed25519 key that it proved, 32 bytes. */
  readonly key: Buffer | undefined
  readonly limits: PeerLimits
}

/** Whoever makes sense of the frames. */
export interface FrameHandler {
  /**
   * `whole`: the bytes of memory that `payload` is a part of. Throwing a ProxyError ends the session. Answers true if it
   * does not need the payload any more.
   */
  onFrame(type: number, id: number, payload: Buffer, whole: number): boolean
  /** The link has room: send what waits, until `congested`. */
  onWritable(): void
  /** There is no link; and there is one again. Nothing that was sent or received is lost. */
  onPaused(reason: ProxyError): void
  onResumed(): void
  onClosed(error: ProxyError): void
}

/** How a dialler gets another link. */
export interface Redial {
  /** Dials and shakes hands; `run` goes on under the same deadline. */
  again<T>(resume: ResumeRequest, signal: AbortSignal, run: (established: Established) => Promise<T>): Promise<T>
  /** The peer knows the session no more: the new link has begun this one. */
  onRenewed?: ((main: MainConnection) => void) | undefined
  /** A try has failed; the next one follows in `delay` ms. */
  onRetry?: ((reason: ProxyError, delay: number) => void) | undefined
}

const RESUME_TIMEOUT = 120_000
/** What a timer of Node.js can take. */
const LONGEST_TIMER = 2 ** 31 - 1
/** Links in a row that each ended at a record that did not open, before any that counts. */
const MAX_FUTILE = 3

/**
 * The encrypted, ordered stream of records between two Proxies. It goes on with the next link when one is lost: nothing is
 * lost or doubled. What is sent, and what of it the peer has, is the `Sender`'s.
 *
 *                ┌── lost ──▶ no link ── no resuming, or too late ──▶ over
 *     link ──────┤               │                                     ▲
 *       ▲        └── goaway, close(), a violation ─────────────────────┤
 *       └──── resumed ───────────┴──── the peer knows it no more ──────┘
 */
export class MainConnection implements RecordLinkOwner {
  readonly role: Role
  readonly session: Buffer
  readonly limits: Limits
  readonly budget: Budget
  /** Resolves with the reason when it is over. Never rejects. */
  readonly closed: Promise<ProxyError>
  readonly #options: MainOptions
  readonly #redial: Redial | undefined
  readonly #resumeSecret: Buffer | undefined
  readonly #over = new AbortController()
  readonly #sender: Sender
  readonly #backoff = new Backoff()
  #peer: Peer
  #link: RecordLink | undefined
  #remote: string | undefined
  #transport: string | undefined
  #lastPing: number | undefined
  #epoch: number
  #handler: FrameHandler | undefined
  #resolveClosed: (reason: ProxyError) => void = () => {}
  #end: ProxyError | undefined

  readonly #receipts = new Receipts(() => this.wake())
  /** Whether somebody still needs a payload of the present record. */
  #needed = false
  #resumeTimer: NodeJS.Timeout | undefined
  #linkError: ProxyError | undefined
  #trying = false
  #rejoined = false
  /** Counted records that came over the present link, and resumes in a row that brought none but a broken one. */
  #fresh = 0
  #futile = 0

  /** Resolves when both sides have proven themselves. */
  static async start(established: Established, options: MainOptions = {}, redial?: Redial): Promise<MainConnection> {
    const { role } = established
    const link = new RecordLink(established, options.keepalive ?? KEEPALIVE)
    const hello = helloOf(established, options, 0)
    if (role === 'dialler') link.sendAlone(Frame.hello, hello)
    let peer: Peer
    try {
      const greeting = await link.greeted(role === 'dialler')
      if (greeting.expected !== 0) {
        throw new ProxyError('PROXY_ERR_ACK_RANGE', `a new session that has received ${greeting.expected} records`)
      }
      const { credential, limits } = established
      peer = { credential, label: greeting.label, key: provenKey(established, greeting), limits }
    } catch (cause) {
      const error = ProxyError.from(cause, 'PROXY_ERR_FRAME')
      if (role === 'acceptor') link.sendAlone(Frame.goaway, encodeReason(error))
      link.leave()
      throw error
    }
    if (role === 'acceptor') link.sendAlone(Frame.hello, hello)
    const main = new MainConnection(established, link, peer, options, redial)
    diagnostics.mainOpen.publish({ main })
    return main
  }

  private constructor(
    established: Established,
    link: RecordLink,
    peer: Peer,
    options: MainOptions,
    redial: Redial | undefined,
  ) {
    this.role = established.role
    this.session = established.session
    this.#epoch = established.epoch
    this.#resumeSecret = established.resumeSecret
    this.#peer = peer
    this.#options = options
    this.#redial = redial
    this.limits = limitsOf(options.limits)
    this.budget = options.budget ?? new Budget()
    const owner = {
      onWritable: () => this.#handler?.onWritable(),
      takeAck: () => this.#receipts.takeAck(),
    }
    this.#sender = new Sender(owner, this.limits.keptBytes, this.budget)
    this.#use(link)
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    link.ownBy(this)
  }

  get peer(): Peer {
    return this.#peer
  }

  /** Where the peer is, or was last. */
  get remote(): string | undefined {
    return this.#remote
  }

  /** How its link travels, or the last one did: `tcp`, `wss`. */
  get transport(): string | undefined {
    return this.#transport
  }

  /** When the far side last asked for a sign of life, or answered: ms since 1970. */
  get lastPing(): number | undefined {
    return this.#lastPing
  }

  /** Why it is over, or undefined while it lives. */
  get reason(): ProxyError | undefined {
    return this.#end
  }

  /** Whether there is a link now. */
  get linked(): boolean {
    return this.#link !== undefined && !this.#link.over
  }

  /** Why the last link was lost. */
  get linkError(): ProxyError | undefined {
    return this.#linkError
  }

  /** How often a link was taken over, at the accepting side; how often one was tried, at the dialling side. */
  get epoch(): number {
    return this.#epoch
  }

  /** Whether the peer has acknowledged anything that was sent. */
  get acknowledged(): boolean {
    return this.#sender.acknowledged
  }

  /** Smoothed round trip in ms; undefined while there is no link. */
  get rtt(): number | undefined {
    return this.#link?.heartbeat.rtt
  }

  /** True while nothing more should be sent: there is no link, or it is full, or what is kept for the peer is. */
  get congested(): boolean {
    return this.#sender.congested
  }

  /** Names the one who handles frames. Nothing is read beyond the greeting before. */
  attach(handler: FrameHandler): void {
    if (this.#handler) throw new TypeError('a main connection carries one Proxy')
    this.#handler = handler
    if (this.#end) handler.onClosed(this.#end)
    else if (this.#link) this.#link.open()
    else setImmediate(() => this.#end || this.#link || handler.onPaused(this.#linkError ?? lost('its link')))
  }

  #tellPaused(error: ProxyError): void {
    this.#handler?.onPaused(error)
    diagnostics.mainPause.publish({ main: this, error })
  }

  /** Sends a frame other than data. It overtakes all data that has not been handed to `data` yet. */
  control(type: number, id: number, payload?: Uint8Array): void {
    if (this.#end) return
    if (diagnostics.frame.hasSubscribers) tellFrame(this, true, type, id, payload)
    if (this.#sender.control(type, id, payload)) return
    // It would not read a goaway either.
    this.#finish(new ProxyError('PROXY_ERR_CONTROL_FLOOD', 'the other side asks for much and reads nothing'), true)
  }

  /** Sends data; the caller has looked at `congested`. `payload` may be used again when this returns. */
  data(id: number, payload: Uint8Array): void {
    if (diagnostics.data.hasSubscribers) tellData(this, true, id, payload.length)
    this.#sender.data(id, payload)
  }

  /** Lets `onWritable` run, and what was gathered leave, after this turn of the event loop or a few. */
  wake(): void {
    this.#sender.wake()
  }

  /** Asks for a fresh `rtt`, unless the last one is young or its ping still under way. */
  measure(): void {
    this.#link?.heartbeat.measure()
  }

  /** Whether the peer is there: it has a link, and says something on it within `timeout` ms. */
  async probe(timeout: number): Promise<boolean> {
    return (await this.#link?.heartbeat.probe(timeout)) ?? false
  }

  /** Resolves when the peer has all that was sent, or it is over. */
  flushed(): Promise<void> {
    return this.#sender.flushed()
  }

  /** Whether the peer has all that was sent. */
  get settled(): boolean {
    return this.#sender.settled
  }

  /** Ends the session in order: the peer is told why, then the link is closed. */
  close(reason: ProxyError = new ProxyError('PROXY_ERR_CLOSED', 'the main connection was closed')): void {
    if (this.#end) return
    const link = this.#link
    if (link && this.#sender.behind) {
      // What was kept would have to go first. Nobody waits for that now.
      link.sendAlone(Frame.goaway, encodeReason(reason))
    } else if (link && !link.over) {
      this.control(Frame.goaway, 0, encodeReason(reason))
      if (this.#end) return
      this.#sender.push()
    }
    this.#finish(reason)
  }

  onDrained(): void {
    this.#sender.onDrained()
  }

  // --- receiving ---

  onRecord(slices: readonly Buffer[], length: number): boolean {
    const type = slices[0]?.[0]
    if (type === Frame.ack || type === Frame.ping || type === Frame.pong) {
      readFrames(slices, this.#onUncounted)
      return true
    }
    this.#needed = false
    readFrames(slices, this.#onCounted)
    if (this.#end) return false
    this.#fresh++
    this.#receipts.count(length)
    return !this.#needed
  }

  onViolation(error: ProxyError): void {
    this.close(error)
  }

  readonly #onUncounted = (type: number, id: number, payload: Buffer): void => {
    if (diagnostics.frame.hasSubscribers) tellFrame(this, false, type, id, payload)
    switch (type) {
      case Frame.ack:
        this.#onAck(readUInt64(payload))
        break
      case Frame.ping:
        this.#lastPing = Date.now()
        this.#link?.heartbeat.onPing(payload)
        break
      case Frame.pong:
        this.#lastPing = Date.now()
        this.#link?.heartbeat.onPong(payload)
        break
      default:
        throw new ProxyError('PROXY_ERR_FRAME', `frame type ${type} in an uncounted record`)
    }
  }

  readonly #onCounted = (type: number, id: number, payload: Buffer, whole: number): void => {
    if (this.#end) return
    if (type === Frame.data) {
      if (diagnostics.data.hasSubscribers) tellData(this, false, id, payload.length)
    } else if (diagnostics.frame.hasSubscribers) tellFrame(this, false, type, id, payload)
    if (type === Frame.goaway) {
      this.#finish(decodeReason(payload, closedByPeer()))
    } else if (type <= Frame.goaway) {
      throw new ProxyError('PROXY_ERR_FRAME', `frame type ${type} in a counted record`)
    } else if (!this.#handler?.onFrame(type, id, payload, whole)) {
      this.#needed = true
    }
  }

  #onAck(expected: number): void {
    if (this.#sender.acknowledge(expected)) this.#backoff.reset()
  }

  // --- losing a link, and going on with the next one ---

  #use(link: RecordLink | undefined): void {
    this.#link = link
    this.#sender.use(link)
    if (!link) return
    this.#remote = link.remote
    this.#transport = link.transport
  }

  onLost(link: RecordLink, error: ProxyError): void {
    if (link !== this.#link) return
    this.#use(undefined)
    this.#linkError = error
    const broken = error.code.startsWith('PROXY_ERR_RECORD_') && this.#fresh === 0
    this.#futile = broken && this.#rejoined ? this.#futile + 1 : 0
    const timeout = Math.min(this.#options.resumeTimeout ?? RESUME_TIMEOUT, LONGEST_TIMER)
    if (!this.#resumeSecret || timeout === 0 || (this.role === 'dialler' && !this.#redial)) {
      this.#finish(lost(error.message, error))
      return
    }
    if (this.#futile >= MAX_FUTILE) {
      this.#finish(lost(`it breaks again and again: ${error.message}`, error))
      return
    }
    const after = `no way to go on was found within ${timeout / 1000} s: ${error.message}`
    this.#resumeTimer = setTimeout(() => this.#finish(lost(after, error)), timeout)
    this.#tellPaused(error)
    if (this.#redial && !this.#trying) void this.#resume(this.#redial, this.#resumeSecret)
  }

  /** The dialling side: tries until there is a link, or it is over. */
  async #resume(redial: Redial, secret: Buffer): Promise<void> {
    const { signal } = this.#over
    let failure: ProxyError | undefined
    this.#trying = true
    while (!this.#link && !this.#end) {
      const delay = this.#backoff.next(failure)
      if (failure) redial.onRetry?.(failure, delay)
      await pause(delay, signal)
      if (this.#end) break
      try {
        const request = { session: this.session, epoch: ++this.#epoch, secret }
        const renewed = await redial.again(request, signal, (established) => this.#goOn(established, redial))
        failure = undefined
        if (renewed) this.#renew(renewed, redial)
      } catch (error) {
        failure = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
      }
    }
    this.#trying = false
  }

  /** Answers what took the place of this one, if the peer does not know it any more. */
  async #goOn(established: Established, redial: Redial): Promise<MainConnection | undefined> {
    if (!established.resumed) return await MainConnection.start(established, this.#options, redial)
    const link = new RecordLink(established, this.#options.keepalive ?? KEEPALIVE)
    link.sendAlone(Frame.hello, helloOf(established, this.#options, this.#receipts.expected))
    const hello = await this.#greeting(link)
    // Given up, or lost again meanwhile.
    if (this.#end || link.over) link.destroy()
    else this.#adopt(link, established, hello)
    return undefined
  }

  #renew(main: MainConnection, redial: Redial): void {
    const wanted = !this.#end && redial.onRenewed
    this.#finish(lost('the other side does not know it any more'))
    if (wanted) wanted(main)
    else main.close()
  }

  /** The peer's hello on a link that goes on with this session. If it is a bad one, the session is over. */
  async #greeting(link: RecordLink): Promise<DecodedHello> {
    try {
      return await link.greeted(false)
    } catch (cause) {
      const error = ProxyError.from(cause, 'PROXY_ERR_FRAME')
      if (!link.over) this.close(error)
      link.destroy()
      throw error
    }
  }

  /**
   * The accepting side: waits for the hello on a link that wants to go on with this session, and takes it. Until that
   * moment the present link is left alone, so that a replayed handshake does nothing.
   */
  async takeOver(established: Established): Promise<void> {
    const link = new RecordLink(established, this.#options.keepalive ?? KEEPALIVE)
    const hello = await this.#greeting(link)
    if (link.over) throw new ProxyError('PROXY_ERR_LINK_LOST', 'the link was lost with its hello', { retryable: true })
    if (this.#end || established.epoch <= this.#epoch || established.credential !== this.#peer.credential) {
      link.destroy()
      throw new ProxyError('PROXY_ERR_STALE_EPOCH', 'an attempt to resume that is older than the last one')
    }
    const old = this.#link
    old?.destroy()
    this.#epoch = established.epoch
    link.sendAlone(Frame.hello, helloOf(established, this.#options, this.#receipts.expected))
    this.#adopt(link, established, hello)
    if (!old || this.#end) return
    this.#linkError = new ProxyError('PROXY_ERR_LINK_LOST', 'the other side has come back over another link')
    this.#tellPaused(this.#linkError)
  }

  #adopt(link: RecordLink, established: Established, hello: DecodedHello): void {
    clearTimeout(this.#resumeTimer)
    // Our hello has said it.
    this.#receipts.told()
    this.#fresh = 0
    this.#rejoined = true
    this.#use(link)
    try {
      const key = provenKey(established, hello)
      if (key ? !this.#peer.key?.equals(key) : this.#peer.key !== undefined) {
        throw new ProxyError('PROXY_ERR_IDENTITY', 'a session that goes on with another node key')
      }
      if (this.#sender.rewind(hello.expected)) this.#backoff.reset()
    } catch (error) {
      this.close(ProxyError.from(error, 'PROXY_ERR_FRAME'))
      return
    }
    link.ownBy(this)
    if (this.#handler) link.open()
    // What a listener throws is not a fault of the link.
    queueMicrotask(() => {
      if (this.#link !== link) return
      this.#handler?.onResumed()
      diagnostics.mainResume.publish({ main: this })
    })
    link.heartbeat.measure()
    this.wake()
  }

  // --- the end ---

  #finish(reason: ProxyError, hard = false): void {
    if (this.#end) return
    this.#end = reason
    this.#receipts.told()
    clearTimeout(this.#resumeTimer)
    this.#over.abort()
    if (hard) this.#link?.destroy(reason)
    else this.#link?.leave()
    this.#use(undefined)
    this.#sender.end()
    this.#resumeSecret?.fill(0)
    this.#handler?.onClosed(reason)
    this.#resolveClosed(reason)
    diagnostics.mainClose.publish({ main: this, error: reason })
  }
}

function lost(why: string, cause?: ProxyError): ProxyError {
  return new ProxyError('PROXY_ERR_SESSION_LOST', `the main connection was lost: ${why}`, { cause, retryable: true })
}

/** What a node key signs: this handshake, from this side. A relay cannot use it anywhere else. */
function statement(from: Role, hash: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`symport node key, ${from}\0`), hash])
}

function helloOf({ role, hash }: Established, { label = '', identity }: MainOptions, expected: number): Buffer {
  const proof = identity && { identity, signature: sign(null, statement(role, hash), identity) }
  return encodeHello({ expected, label, proof })
}

/** The node key in the peer's hello, with its signature checked. */
function provenKey({ role, hash }: Established, { key, signature }: DecodedHello): Buffer | undefined {
  const from = role === 'dialler' ? 'acceptor' : 'dialler'
  if (key && !(signature && verify(null, statement(from, hash), key.object, signature))) {
    throw new ProxyError('PROXY_ERR_IDENTITY', 'a signature that does not fit its key')
  }
  return key?.raw
}
