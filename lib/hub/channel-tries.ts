import { ProxyError } from '../core/index.ts'

/** Failures in one minute, those under way included: each of them may be somebody's guess. */
const MAX_FAILURES = 10
const MINUTE = 60_000
/** Handshakes that wait for their turn. */
const MAX_WAITING = 64

/** One handshake. It counts as a failure if it ends after `shown` and without `right`. */
export interface Try {
  /** Something that depends on the password has been, or will now be, sent. */
  shown(): void
  /** The other end has proven that it knows the password. */
  right(): void
  end(): void
}

/**
 * How often the password of one channel may be tried: 10 failures a minute, whoever they come from. While as many are
 * under way as could still fail, others wait.
 */
export class ChannelTries {
  readonly #name: string
  readonly #most: number
  readonly #window: number
  /** When each of the last failures was, in ms. */
  #failures: number[] = []
  #underWay = 0
  #waiting: (() => void)[] = []

  constructor(name: string, options: { failures?: number | undefined; window?: number | undefined } = {}) {
    this.#name = name
    this.#most = options.failures ?? MAX_FAILURES
    this.#window = options.window ?? MINUTE
  }

  /** Whether nothing is remembered here. */
  get idle(): boolean {
    this.#forget()
    return this.#underWay === 0 && this.#failures.length === 0
  }

  /** @throws ProxyError PROXY_ERR_CHANNEL_LIMIT */
  assertOpen(): void {
    this.#forget()
    if (this.#failures.length < this.#most) return
    const text = `channel ${this.#name}: ${this.#most} handshakes failed within a minute, so nobody is let in for a while`
    throw new ProxyError('PROXY_ERR_CHANNEL_LIMIT', text, { retryable: true })
  }

  /** @throws ProxyError PROXY_ERR_CHANNEL_LIMIT, PROXY_ERR_TOO_MANY_HANDSHAKES */
  async begin(): Promise<Try> {
    for (;;) {
      this.assertOpen()
      if (this.#failures.length + this.#underWay < this.#most) break
      if (this.#waiting.length >= MAX_WAITING) {
        const text = `too many handshakes of channel ${this.#name} at once`
        throw new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', text, { retryable: true })
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#underWay++
    let state: 'begun' | 'shown' | 'right' | 'over' = 'begun'
    return {
      shown: () => {
        if (state === 'begun') state = 'shown'
      },
      right: () => {
        if (state !== 'over') state = 'right'
      },
      end: () => {
        if (state === 'over') return
        if (state === 'shown') this.#failures.push(performance.now())
        state = 'over'
        this.#underWay--
        for (const look of this.#waiting.splice(0)) look()
      },
    }
  }

  #forget(): void {
    const since = performance.now() - this.#window
    this.#failures = this.#failures.filter((at) => at > since)
  }
}
