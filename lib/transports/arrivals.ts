import type { Socket } from 'node:net'
import { ProxyError } from '../core/index.ts'

export interface ArrivalLimits {
  /** In all, and from one address. */
  readonly most: number
  readonly perAddress: number
  /** In ms. */
  readonly timeout: number
}

/** A connection that has not said yet what it is. */
export class Arrival {
  readonly socket: Socket
  /** Who it is, as in `Link.remote`. */
  remote: string | undefined
  /** Why it was given up, if it was, and whether that has been told. */
  reason: ProxyError | undefined
  told = false

  constructor(socket: Socket, remote: string | undefined) {
    this.socket = socket
    this.remote = remote
  }

  /** Nothing has come from it. */
  get silent(): boolean {
    return this.socket.bytesRead === 0
  }

  giveUp(reason: ProxyError): void {
    this.reason ??= reason
    this.socket.destroy()
  }
}

interface Place {
  address: string | undefined
  timer: NodeJS.Timeout | undefined
  /** Its time, in ms as of `performance.now()`: when it is over, and how much is left while it stands still. */
  end: number
  left: number
}

/**
 * The connections that have not said yet what they are: bounded in time, in all, and for each address. One more takes the
 * place of the oldest, of those first that have said nothing: whoever is quick gets through any number that is not.
 */
export class Arrivals {
  readonly #limits: ArrivalLimits
  /** The oldest first, as in each set of an address. */
  readonly #places = new Map<Arrival, Place>()
  readonly #byAddress = new Map<string, Set<Arrival>>()

  constructor(limits: ArrivalLimits) {
    this.#limits = limits
  }

  /** With an `address` it counts among those from there. */
  add(socket: Socket, remote: string | undefined, address: string | undefined): Arrival {
    const { most, timeout } = this.#limits
    if (this.#places.size >= most) this.#giveUpOneOf(this.#places.keys(), `${most} connections say nothing`)
    const arrival = new Arrival(socket, remote)
    this.#places.set(arrival, { address: undefined, timer: undefined, end: 0, left: timeout })
    this.goOn(arrival)
    this.moveTo(arrival, address)
    return arrival
  }

  /** What comes next is not up to the other side: its time stands still until `goOn`. */
  hold(arrival: Arrival): void {
    const place = this.#places.get(arrival)
    if (!place) return
    clearTimeout(place.timer)
    place.left = Math.max(0, place.end - performance.now())
  }

  goOn(arrival: Arrival): void {
    const place = this.#places.get(arrival)
    if (!place) return
    place.end = performance.now() + place.left
    place.timer = setTimeout(() => {
      const why = `it has not said within ${this.#limits.timeout} ms what it wants`
      this.remove(arrival)
      arrival.giveUp(new ProxyError('PROXY_ERR_HANDSHAKE_TIMEOUT', why, { retryable: true }))
    }, place.left)
  }

  /** It turned out to come from somewhere else. */
  moveTo(arrival: Arrival, address: string | undefined): void {
    const place = this.#places.get(arrival)
    if (!place) return
    this.#leave(arrival, place)
    place.address = address
    if (address === undefined) return
    const neighbours = this.#byAddress.get(address) ?? new Set()
    const { perAddress } = this.#limits
    if (neighbours.size >= perAddress) {
      this.#giveUpOneOf(neighbours, `${perAddress} connections from this address say nothing`)
    }
    neighbours.add(arrival)
    this.#byAddress.set(address, neighbours)
  }

  /** It has said what it is, or it is gone. */
  remove(arrival: Arrival): void {
    const place = this.#places.get(arrival)
    if (!place) return
    clearTimeout(place.timer)
    this.#places.delete(arrival)
    this.#leave(arrival, place)
  }

  #leave(arrival: Arrival, { address = '' }: Place): void {
    const neighbours = this.#byAddress.get(address)
    neighbours?.delete(arrival)
    if (neighbours?.size === 0) this.#byAddress.delete(address)
  }

  #giveUpOneOf(arrivals: Iterable<Arrival>, why: string): void {
    let chosen: Arrival | undefined
    for (const arrival of arrivals) {
      chosen ??= arrival
      if (!arrival.silent) continue
      chosen = arrival
      break
    }
    if (!chosen) return
    this.remove(chosen)
    chosen.giveUp(new ProxyError('PROXY_ERR_TOO_MANY_HANDSHAKES', why, { retryable: true }))
  }
}
