import { ProxyError } from './errors.ts'

export interface Keepalive {
  /** After so many ms without a byte a ping is sent. */
  readonly idle: number
  /** So many ms later the link is dead. */
  readonly timeout: number
}

export const KEEPALIVE: Keepalive = { idle: 15_000, timeout: 10_000 }

/** How old a round trip time is taken for good, in ms. */
const MEASURE_AGAIN = 250

/** Whether the far side of one link is there, and how far away. */
export class Heartbeat {
  readonly #keepalive: Keepalive
  readonly #wake: () => void
  readonly #dead: (error: ProxyError) => void
  #pong: Buffer | undefined
  #pingDue = false
  #pinged: { payload: Buffer; at: number } | undefined
  #rtt: number | undefined
  #measured = Number.NEGATIVE_INFINITY
  #heard = true
  #silence = 0
  #said = true
  #quiet = 0
  #tick: NodeJS.Timeout | undefined
  #probes: ((alive: boolean) => void)[] = []

  /** `wake`: there is a ping or a pong to `take`. `dead`: nothing came for too long. */
  constructor(keepalive: Keepalive, wake: () => void, dead: (error: ProxyError) => void) {
    this.#keepalive = keepalive
    this.#wake = wake
    this.#dead = dead
  }

  /** Smoothed round trip in ms; undefined until the first. */
  get rtt(): number | undefined {
    return this.#rtt
  }

  start(): void {
    const period = Math.min(this.#keepalive.idle, this.#keepalive.timeout) / 2
    this.#tick = setInterval(() => this.#onTick(period), period)
  }

  stop(): void {
    clearInterval(this.#tick)
    this.#answerProbes(false)
  }

  /** Bytes came. */
  heard(): void {
    this.#heard = true
    if (this.#probes.length > 0) this.#answerProbes(true)
  }

  /** Bytes left. */
  said(): void {
    this.#said = true
  }

  /** Asks for a fresh `rtt`, unless the last one is young or its ping still under way. */
  measure(): void {
    const now = performance.now()
    if (this.#pinged || now - this.#measured < MEASURE_AGAIN) return
    this.#ping(now)
  }

  /** Whether anything comes within `timeout` ms. */
  probe(timeout: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeout, false)
      this.#probes.push((alive) => {
        clearTimeout(timer)
        resolve(alive)
      })
      this.#ping(performance.now())
    })
  }

  onPing(payload: Buffer): void {
    if (payload.length !== 8) throw new ProxyError('PROXY_ERR_FRAME', 'a ping has 8 bytes')
    // The last one only: whoever asks faster than it reads gets fewer answers.
    this.#pong = Buffer.from(payload)
    this.#wake()
  }

  onPong(payload: Buffer): void {
    const pinged = this.#pinged
    if (!pinged?.payload.equals(payload)) return
    this.#pinged = undefined
    this.onRoundTrip(performance.now() - pinged.at)
  }

  /** Something took so many ms to the far side and back. */
  onRoundTrip(sample: number): void {
    // Falls at once and rises very slowly: queues on the way, our own above all, must not pass for distance.
    this.#rtt = this.#rtt === undefined || sample < this.#rtt ? sample : this.#rtt + (sample - this.#rtt) / 64
  }

  /** The payload of a pong to send now. */
  takePong(): Buffer | undefined {
    const pong = this.#pong
    this.#pong = undefined
    return pong
  }

  /** The payload of a ping to send now. */
  takePing(): Buffer | undefined {
    if (!this.#pingDue) return undefined
    this.#pingDue = false
    const at = performance.now()
    const payload = Buffer.allocUnsafe(8)
    payload.writeDoubleBE(at)
    this.#pinged = { payload, at }
    return payload
  }

  #ping(now: number): void {
    this.#measured = now
    this.#pinged = undefined
    this.#pingDue = true
    this.#wake()
  }

  #answerProbes(alive: boolean): void {
    for (const answer of this.#probes.splice(0)) answer(alive)
  }

  #onTick(period: number): void {
    // A far side whose record takes longer than its patience to arrive has to hear that it does.
    this.#quiet = this.#said ? 0 : this.#quiet + period
    this.#said = false
    if (this.#heard && this.#quiet >= this.#keepalive.idle) this.#ping(performance.now())
    if (this.#heard) {
      // The last byte may have come right after the tick before: count that time in, rather be early than late.
      this.#heard = false
      this.#silence = period
      return
    }
    this.#silence += period
    if (this.#silence >= this.#keepalive.idle + this.#keepalive.timeout) {
      this.#dead(new ProxyError('PROXY_ERR_KEEPALIVE', 'the other side does not answer any more', { retryable: true }))
    } else if (this.#silence >= this.#keepalive.idle) {
      this.#ping(performance.now())
    }
  }
}
