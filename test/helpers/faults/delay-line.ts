import { once } from 'node:events'
import { createServer, type Server, Socket } from 'node:net'
import type { Cut } from './direction.ts'
import { TimedQueue } from './timed-queue.ts'
import { onFarEnd, type Place, reset } from './wide-socket.ts'

const DEFAULT_DELAY_MS = 50
const DEFAULT_RATE = 1_000_000_000
/** Bytes written to one connection that nobody takes, before no more is read for it. */
const UNTAKEN_BYTES = 1024 * 1024

export interface DelayLineOptions {
  target: Place
  /** One way. Default 50. */
  delayMs?: number
  /** Of each direction, all connections together. Default 10^9. */
  bitsPerSecond?: number
  /**
   * Bytes that wait at the near end of each direction for their turn, above those under way. Default: twice what is
   * under way when the line is full.
   */
  queueBytes?: number
}

/**
 * A long fat path: a relay whose directions have a delay and a rate. What is written in at most fills the path and its
 * queue; then the writer waits. Connections share it. Only bytes and ends take time: a connection is made at once.
 */
export interface DelayLine extends AsyncDisposable {
  /** Of 127.0.0.1. */
  readonly port: number
  /** The most bytes that either direction holds, but for one read of each connection. */
  readonly capacity: number
  /** Bytes held now. */
  readonly held: { readonly up: number; readonly down: number }
  close(): Promise<void>
}

export async function startDelayLine(options: DelayLineOptions): Promise<DelayLine> {
  const { target, delayMs = DEFAULT_DELAY_MS, bitsPerSecond = DEFAULT_RATE } = options
  if (!(bitsPerSecond > 0)) throw new RangeError(`a rate of ${bitsPerSecond} bits per second`)
  const bytesPerMs = bitsPerSecond / 8000
  const underWay = delayMs * bytesPerMs
  const capacity = Math.max(1, Math.ceil(underWay + (options.queueBytes ?? 2 * underWay)))
  const up = new Wire(delayMs, bytesPerMs, capacity)
  const down = new Wire(delayMs, bytesPerMs, capacity)
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  }
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (near) => {
    const far = new Socket({ allowHalfOpen: true })
    keep(near)
    keep(far)
    new Lane(near, far, up)
    new Lane(far, near, down)
    far.connect(target).setNoDelay(true)
  })
  server.listen({ host: '127.0.0.1', port: 0, backlog: 1024 })
  await once(server, 'listening')
  server.on('error', () => {})
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    closed ??= closeAll(server, sockets, [up, down])
    return closed
  }
  return {
    port: portOf(server),
    capacity,
    get held() {
      return { up: up.bytes, down: down.bytes }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}

async function closeAll(server: Server, sockets: ReadonlySet<Socket>, wires: readonly Wire[]): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  for (const wire of wires) wire.clear()
  for (const socket of sockets) reset(socket)
  await closed
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the delay line does not listen')
  return address.port
}

interface Load {
  readonly lane: Lane
  readonly item: Buffer | Cut
}

/** One direction of the path, for all connections. */
class Wire {
  readonly #delayMs: number
  readonly #bytesPerMs: number
  readonly #capacity: number
  readonly #waiting = new Set<Lane>()
  /** When the last byte that was sent has left the near end. */
  #free = 0
  readonly #queue = new TimedQueue<Load>(({ lane, item }) => {
    lane.deliver(item)
    if (this.#waiting.size > 0 && !this.full) this.#wake()
  })

  constructor(delayMs: number, bytesPerMs: number, capacity: number) {
    this.#delayMs = delayMs
    this.#bytesPerMs = bytesPerMs
    this.#capacity = capacity
  }

  get bytes(): number {
    return this.#queue.bytes
  }

  get full(): boolean {
    return this.bytes >= this.#capacity
  }

  send(lane: Lane, item: Buffer | Cut): void {
    const bytes = typeof item === 'string' ? 0 : item.length
    this.#free = Math.max(performance.now(), this.#free) + bytes / this.#bytesPerMs
    this.#queue.push({ lane, item }, bytes, this.#free + this.#delayMs)
  }

  /** Has the lane told when there is room. */
  wait(lane: Lane): void {
    this.#waiting.add(lane)
  }

  clear(): void {
    this.#queue.clear()
  }

  #wake(): void {
    const lanes = [...this.#waiting]
    this.#waiting.clear()
    for (const lane of lanes) lane.adjust()
  }
}

/** One direction of a connection. */
class Lane {
  readonly #from: Socket
  readonly #to: Socket
  readonly #wire: Wire

  constructor(from: Socket, to: Socket, wire: Wire) {
    this.#from = from
    this.#to = to
    this.#wire = wire
    from.on('data', (bytes) => {
      wire.send(this, bytes)
      if (wire.full || this.#choked) this.adjust()
    })
    onFarEnd(from, (how) => wire.send(this, how))
    to.on('drain', () => this.adjust())
    // Nobody takes it any more, but it is read all the same, so that its end is seen.
    to.on('close', () => this.adjust())
    // The one that was accepted is paused until there is somebody to write to.
    to.once('connect', () => this.adjust())
  }

  deliver(item: Buffer | Cut): void {
    const to = this.#to
    if (item === 'rst') {
      reset(to)
    } else if (to.destroyed || to.writableEnded) {
      return
    } else if (item === 'fin') {
      to.end()
    } else {
      // What comes out in one turn goes to the system in one call.
      if (to.writableCorked === 0) {
        to.cork()
        process.nextTick(() => to.uncork())
      }
      to.write(item)
    }
  }

  adjust(): void {
    if (this.#wire.full) this.#wire.wait(this)
    if (this.#wire.full || this.#choked) this.#from.pause()
    else this.#from.resume()
  }

  get #choked(): boolean {
    return !this.#to.destroyed && this.#to.writableLength > UNTAKEN_BYTES
  }
}
