import { ProxyError } from '../core/index.ts'

/** Changes that wait for their turn, and that are written together. */
const MAX_CHANGES = 10_000
const TOGETHER = 256

/** Those that take ports, and those that give them back once it is kept that they do, are not written together. */
export type ChangeKind = 'open' | 'close' | 'list'

/** A change that is in memory and not on disk yet. */
export interface Applied<T> {
  readonly answer: () => T
  /** Takes it back, because it cannot be kept. */
  undo?(): Promise<void> | void
  /** It is kept. */
  done?(): Promise<void> | void
}

interface Made {
  undo(): Promise<void>
  done(): Promise<void>
  reject(error: unknown): void
}

interface Change {
  readonly kind: ChangeKind
  apply(): Promise<Omit<Made, 'reject'>>
  reject(error: unknown): void
}

export interface ChangeQueueOptions {
  /** From then on nothing is changed any more. */
  readonly signal: AbortSignal
  /** Writes what has been applied of one kind. Answers why it could not be. */
  readonly keep: (kind: ChangeKind) => Promise<ProxyError | undefined>
  /** Some changes are made, or taken back. */
  readonly onMade: () => void
}

/** Makes changes one after the other, and keeps those of one kind that come together in one go. */
export class ChangeQueue {
  readonly #options: ChangeQueueOptions
  readonly #changes: Change[] = []
  #working: Promise<void> | undefined

  constructor(options: ChangeQueueOptions) {
    this.#options = options
  }

  /** Resolves when none waits. */
  get idle(): Promise<void> {
    return this.#working ?? Promise.resolve()
  }

  /** Resolves with the answer when the change is kept. Rejects if it cannot be made or kept: then there was none. */
  add<T>(kind: ChangeKind, apply: () => Promise<Applied<T>>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#changes.length >= MAX_CHANGES) {
        reject(new ProxyError('PROXY_ERR_REQUEST', 'too many changes at once', { retryable: true }))
        return
      }
      this.#changes.push({
        kind,
        reject,
        async apply() {
          const { answer, undo, done } = await apply()
          return {
            async undo() {
              await undo?.()
            },
            async done() {
              await done?.()
              resolve(answer())
            },
          }
        },
      })
      this.#working ??= this.#work()
    })
  }

  /** Makes the changes that wait. */
  async #work(): Promise<void> {
    // Whoever asks in this very turn is written with it.
    await Promise.resolve()
    for (let change = this.#changes[0]; change; change = this.#changes[0]) {
      const made = await this.#make(change.kind)
      if (made.length === 0) continue
      const failure = await this.#options.keep(change.kind)
      if (failure) made.reverse()
      for (const { undo, done, reject } of made) {
        try {
          await (failure ? undo() : done())
          if (failure) reject(failure)
        } catch (error) {
          reject(error)
        }
      }
      this.#options.onMade()
    }
    this.#working = undefined
  }

  /** Takes changes of one kind from the queue and applies them. Answers those that could be. */
  async #make(kind: ChangeKind): Promise<Made[]> {
    const { signal } = this.#options
    const made: Made[] = []
    const most = kind === 'list' ? 1 : TOGETHER
    for (let taken = 0; taken < most && this.#changes[0]?.kind === kind; taken++) {
      const change = this.#changes.shift()
      if (!change) break
      try {
        if (signal.aborted) throw stopping()
        made.push({ ...(await change.apply()), reject: change.reject })
      } catch (error) {
        change.reject(signal.aborted ? stopping() : error)
      }
    }
    return made
  }
}

export function stopping(): ProxyError {
  return new ProxyError('PROXY_ERR_DRAINING', 'this side is about to stop', { retryable: true })
}
