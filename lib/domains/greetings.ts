import type { Socket } from 'node:net'

/** A client that has not said yet what it wants. */
export interface Greeting {
  readonly socket: Socket
  /** What it is told when it takes too long. Default: nothing. */
  onLate: (socket: Socket) => void
}

/**
 * The clients that have not said yet what they want: bounded in time and in number. One more takes the place of the
 * oldest, of those first that have said nothing: whoever is quick gets through any number that is not.
 */
export class Greetings {
  readonly #most: number
  readonly #timeout: number
  /** The oldest first. */
  readonly #places = new Map<Greeting, NodeJS.Timeout>()

  /** `timeout` in ms. */
  constructor(most: number, timeout: number) {
    this.#most = most
    this.#timeout = timeout
  }

  add(socket: Socket): Greeting {
    if (this.#places.size >= this.#most) this.#giveUpOne()
    const greeting: Greeting = { socket, onLate: () => socket.destroy() }
    const timer = setTimeout(() => {
      this.remove(greeting)
      greeting.onLate(socket)
    }, this.#timeout)
    this.#places.set(greeting, timer)
    socket.once('close', () => this.remove(greeting))
    return greeting
  }

  /** It has said it, or it is gone. */
  remove(greeting: Greeting): void {
    clearTimeout(this.#places.get(greeting))
    this.#places.delete(greeting)
  }

  close(): void {
    for (const { socket } of [...this.#places.keys()]) socket.destroy()
  }

  #giveUpOne(): void {
    let chosen: Greeting | undefined
    for (const greeting of this.#places.keys()) {
      chosen ??= greeting
      if (greeting.socket.bytesRead > 0) continue
      chosen = greeting
      break
    }
    if (!chosen) return
    this.remove(chosen)
    chosen.socket.destroy()
  }
}
