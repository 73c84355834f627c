/** What dialling needs of an `AbortSignal`. */
export interface AbortSignalLike {
  readonly aborted: boolean
  readonly reason?: unknown
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
}

/**
 * An `AbortController` whose signal is made when somebody asks for it. On Node.js 20 an `AbortSignal` costs as much as the
 * socket that is dialled under it, so whoever only wants to hear of the end listens here.
 */
export class LazyAbort implements AbortSignalLike {
  #aborted = false
  #listener: (() => void) | undefined
  #controller: AbortController | undefined

  get aborted(): boolean {
    return this.#aborted
  }

  get reason(): unknown {
    return this.#aborted ? this.signal.reason : undefined
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#aborted) this.#controller.abort()
    }
    return this.#controller.signal
  }

  /** The first listener costs nothing; more of them are the signal's. */
  addEventListener(type: 'abort', listener: () => void): void {
    if (this.#listener || this.#controller) this.signal.addEventListener(type, listener)
    else this.#listener = listener
  }

  removeEventListener(type: 'abort', listener: () => void): void {
    if (this.#listener === listener) this.#listener = undefined
    else this.#controller?.signal.removeEventListener(type, listener)
  }

  abort(): void {
    if (this.#aborted) return
    this.#aborted = true
    this.#controller?.abort()
    this.#listener?.()
  }
}
