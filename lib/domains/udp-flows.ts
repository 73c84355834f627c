import type { RemoteInfo, Socket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import {
  type Admitted,
  type DialContext,
  type Endpoint,
  join,
  type Link,
  type ListenContext,
  type Listener,
  ProxyError,
} from '../core/index.ts'
import { Burst, bindDatagrams, connectDatagrams } from '../sockets/datagram-socket.ts'
import { listenError } from '../sockets/listen.ts'
import { formatHostPort, parseHostPort } from './address.ts'
import { DatagramLink, DatagramMemory } from './datagrams.ts'

export interface UdpOptions {
  /** A flow in which nothing moves for so long, either way, is over, in ms. Default 60,000. */
  idleTimeout?: number | undefined
  /** Flows of one listener at once; the one idle longest gives way to a new one. Default 4,096. */
  flows?: number | undefined
}

/** What may wait in the system while this process is busy; the default of Linux holds 90 packets of 1,400 bytes. */
const RECEIVE_BUFFER = 4_194_304
/** The same where only one visitor's answers come in. */
const ANSWER_BUFFER = 1_048_576
/** Visitors are free to make up addresses: no more new flows of one listener in a second, and opened at once. */
const FLOWS_PER_SECOND = 2000
const OPENING = 256
/** A flow that failed while it was so young was refused, and so would the next one be for a while. In ms. */
const YOUNG = 1000
const REFUSED_PAUSE = 100
/** Why one visitor is refused, and another one may come. */
const OF_VISITORS: ReadonlySet<string> = new Set([
  'PROXY_ERR_VISITOR_DENIED',
  'PROXY_ERR_TOO_MANY_CONNECTIONS',
  'PROXY_ERR_RATE',
])
/** How long the far side may take to end its half of a flow, in ms. */
const FAREWELL = 5000
/** What is sent again to another address of the target; what begins a talk is small. */
const FIRST_WORDS = 2048

/** What `udp` does once there is something to do. */
export class UdpFlows {
  readonly #idleTimeout: number
  readonly #flows: number
  readonly #memory = new DatagramMemory()
  readonly #burst = new Burst()

  constructor({ idleTimeout = 60_000, flows = 4096 }: UdpOptions) {
    this.#idleTimeout = idleTimeout
    this.#flows = flows
  }

  async listen(at: Endpoint, context: ListenContext): Promise<Listener> {
    const { host, port } = parseHostPort(at.Addr, { allowZero: true })
    const address = await listenAddress(host, at.Addr)
    const socket = await bindDatagrams({ address, port, name: at.Addr, receiveBuffer: RECEIVE_BUFFER })
    const shared = { memory: this.#memory, burst: this.#burst }
    return new UdpListener({ socket, context, idleTimeout: this.#idleTimeout, flows: this.#flows, ...shared })
  }

  async dial(to: Endpoint, { addresses, signal }: DialContext): Promise<Link> {
    const { port } = parseHostPort(to.Addr)
    const target = new Target({ port, name: to.Addr, addresses, memory: this.#memory, burst: this.#burst })
    await target.connect(signal)
    return target
  }
}

async function listenAddress(host: string, name: string): Promise<string> {
  if (host === '' || isIP(host)) return host
  try {
    return (await lookup(host)).address
  } catch (error) {
    throw listenError(error instanceof Error ? error : new Error(String(error)), name)
  }
}

interface ListenerParts {
  readonly socket: Socket
  readonly context: ListenContext
  readonly idleTimeout: number
  readonly flows: number
  readonly memory: DatagramMemory
  readonly burst: Burst
}

/** One socket, and the flows of its visitors. Answers go out from it, and so from the address it is bound to. */
class UdpListener implements Listener {
  readonly bound: { readonly Domain: 'udp'; readonly Addr: string }
  readonly #socket: Socket
  readonly #context: ListenContext
  readonly #parts: ListenerParts
  /** By address and port; the one that is idle longest comes first. */
  readonly #flows = new Map<string, Flow>()
  /** Flows that were told to end, and when. */
  readonly #retired = new Map<Flow, number>()
  #latest: Flow | undefined
  #sweeper: NodeJS.Timeout | undefined
  #opening = 0
  #tokens = FLOWS_PER_SECOND
  #tokensAt = performance.now()
  #refusedAt = Number.NEGATIVE_INFINITY
  #closed: Promise<void> | undefined

  constructor(parts: ListenerParts) {
    this.#parts = parts
    this.#socket = parts.socket
    this.#context = parts.context
    const { address, port } = parts.socket.address()
    this.bound = { Domain: 'udp', Addr: formatHostPort({ host: address, port }) }
    parts.socket.on('message', (datagram, from) => this.#onMessage(datagram, from))
  }

  /** The flows end too: unlike a connection, none of them has an end of its own to wait for. */
  close(): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      clearTimeout(this.#sweeper)
      const flows = [...this.#flows.values(), ...this.#retired.keys()]
      this.#flows.clear()
      for (const flow of flows) flow.destroy()
      this.#socket.close(() => resolve())
    })
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #onMessage(datagram: Buffer, { address, port }: RemoteInfo): void {
    // Nobody can be answered at port 0.
    if (this.#closed || port === 0) return
    const key = `${address} ${port}`
    const now = performance.now()
    const flow = this.#flows.get(key) ?? this.#open(key, address, port, now)
    if (!flow) return
    this.touch(flow, now)
    flow.offer(datagram)
  }

  /** Something has moved, either way. */
  touch(flow: Flow, now: number): void {
    flow.usedAt = now
    if (flow === this.#latest || this.#flows.get(flow.key) !== flow) return
    this.#latest = flow
    this.#flows.delete(flow.key)
    this.#flows.set(flow.key, flow)
  }

  #open(key: string, address: string, port: number, now: number): Flow | undefined {
    const remote = remoteOf(address, port)
    const admitted = this.#admit(remote)
    if (admitted === 'refused') return undefined
    if (!this.#mayOpen(now)) {
      admitted?.leave()
      return undefined
    }
    const [idlest] = this.#flows.values()
    if (idlest && this.#flows.size >= this.#parts.flows) {
      this.#flows.delete(idlest.key)
      idlest.destroy()
    }
    const { socket, memory, burst } = this.#parts
    const flow = new Flow({ key, address, port, remote, admitted, bornAt: now, socket, memory, burst, owner: this })
    this.#flows.set(key, flow)
    this.#latest = flow
    this.#opening++
    this.#context.open({ from: remote, admitted, alone: true }).then(
      (sub) => {
        this.#opening--
        if (flow.over) {
          sub.destroy()
          return
        }
        flow.keepTo(sub)
        join(sub, flow)
      },
      (error) => {
        this.#opening--
        // No other one would be refused for that.
        if (error instanceof ProxyError && OF_VISITORS.has(error.code)) this.#flows.delete(flow.key)
        else this.#refusedAt = performance.now()
        flow.destroy()
      },
    )
    this.#sweeper ??= this.#sweepIn(this.#parts.idleTimeout)
    return flow
  }

  /** Those who may not come shall not keep others waiting. */
  #admit(remote: string): Admitted | 'refused' | undefined {
    try {
      return this.#context.admit?.(remote)
    } catch {
      return 'refused'
    }
  }

  #mayOpen(now: number): boolean {
    this.#tokens = Math.min(FLOWS_PER_SECOND, this.#tokens + ((now - this.#tokensAt) / 1000) * FLOWS_PER_SECOND)
    this.#tokensAt = now
    if (this.#tokens < 1 || this.#opening >= OPENING || now - this.#refusedAt < REFUSED_PAUSE) return false
    this.#tokens--
    return true
  }

  /** Whoever ended it here has taken it out before. */
  onDestroyed(flow: Flow): void {
    flow.admitted?.leave()
    this.#retired.delete(flow)
    if (this.#latest === flow) this.#latest = undefined
    if (this.#flows.get(flow.key) !== flow) return
    this.#flows.delete(flow.key)
    const now = performance.now()
    if (now - flow.bornAt < YOUNG) this.#refusedAt = now
  }

  #sweepIn(delay: number): NodeJS.Timeout {
    // More often than a few times in a timeout is of no use to anybody.
    return setTimeout(this.#sweep, Math.max(delay, this.#parts.idleTimeout / 16)).unref()
  }

  readonly #sweep = (): void => {
    this.#sweeper = undefined
    const now = performance.now()
    for (const [flow, since] of this.#retired) if (now - since >= FAREWELL) flow.destroy()
    let next = this.#retired.size > 0 ? FAREWELL : Number.POSITIVE_INFINITY
    for (const flow of this.#flows.values()) {
      const left = flow.usedAt + this.#parts.idleTimeout - now
      if (left > 0) {
        next = Math.min(next, left)
        break
      }
      this.#flows.delete(flow.key)
      if (this.#latest === flow) this.#latest = undefined
      this.#retired.set(flow, now)
      next = FAREWELL
      flow.retire()
    }
    if (Number.isFinite(next)) this.#sweeper = this.#sweepIn(next)
  }
}

interface FlowParts {
  readonly key: string
  readonly address: string
  readonly port: number
  readonly remote: string
  readonly admitted: Admitted | undefined
  readonly bornAt: number
  readonly socket: Socket
  readonly memory: DatagramMemory
  readonly burst: Burst
  readonly owner: UdpListener
}

/** What one visitor, an address and a port, sends and gets. */
class Flow extends DatagramLink {
  readonly #parts: FlowParts
  usedAt: number

  constructor(parts: FlowParts) {
    super(parts.memory)
    this.#parts = parts
    this.usedAt = parts.bornAt
  }

  get remote(): string {
    return this.#parts.remote
  }

  get admitted(): Admitted | undefined {
    return this.#parts.admitted
  }

  get key(): string {
    return this.#parts.key
  }

  get bornAt(): number {
    return this.#parts.bornAt
  }

  protected override send(datagram: Uint8Array): void {
    const { socket, address, port, burst, owner } = this.#parts
    owner.touch(this, performance.now())
    if (socket.getSendQueueCount() === 0 && burst.take()) socket.send(datagram, port, address)
    else this.lost(1)
  }

  protected override released(): void {
    this.#parts.owner.onDestroyed(this)
  }
}

/** A socket for both families has IPv4 addresses in the form of IPv6 (RFC 4291, section 2.5.5.2). */
function remoteOf(address: string, port: number): string {
  return formatHostPort({ host: address.replace(/^::ffff:(?=[0-9.]+$)/, ''), port })
}

interface TargetParts {
  readonly port: number
  readonly name: string
  /** In the order in which they are tried. */
  readonly addresses: readonly string[]
  readonly memory: DatagramMemory
  readonly burst: Burst
}

/** The far end of a flow: a socket that talks to the target only. A refusal does not end it: a server may be restarted. */
class Target extends DatagramLink {
  readonly #parts: TargetParts
  #socket: Socket | undefined
  #address = 0
  /** Until the first answer comes, a target with several addresses may be at another one of them. */
  #searching: boolean
  #firstWords: Uint8Array | undefined
  #tries = 0

  constructor(parts: TargetParts) {
    super(parts.memory)
    this.#parts = parts
    this.#searching = parts.addresses.length > 1
  }

  get remote(): string {
    return formatHostPort({ host: this.#parts.addresses[this.#address] ?? '', port: this.#parts.port })
  }

  async connect(signal: AbortSignal): Promise<void> {
    const { addresses, port, name } = this.#parts
    let failure: unknown
    for (const [index, address] of addresses.entries()) {
      try {
        const socket = await connectDatagrams({ address, port, name, receiveBuffer: ANSWER_BUFFER })
        if (signal.aborted) {
          socket.close()
          throw new ProxyError('PROXY_ERR_ABORTED', 'the dial was given up')
        }
        this.#address = index
        this.#use(socket)
        return
      } catch (error) {
        if (signal.aborted) throw error
        failure ??= error
      }
    }
    throw failure ?? new ProxyError('PROXY_ERR_DIAL_FAILED', `${name} has no address`)
  }

  protected override send(datagram: Uint8Array): void {
    if (this.#searching) {
      this.#tries = 0
      this.#firstWords = datagram.length <= FIRST_WORDS ? Uint8Array.from(datagram) : undefined
    }
    this.#transmit(datagram)
  }

  protected override released(): void {
    const socket = this.#socket
    // What was sent in this turn leaves at its end.
    setImmediate(() => socket?.close())
  }

  #transmit(datagram: Uint8Array): void {
    const socket = this.#socket
    if (socket?.getSendQueueCount() === 0 && this.#parts.burst.take()) socket.send(datagram)
    else this.lost(1)
  }

  #use(socket: Socket): void {
    this.#socket = socket
    socket.on('message', (datagram) => {
      this.#searching = false
      this.#firstWords = undefined
      this.offer(datagram)
    })
    // Nothing listens there just now, or there is no way there: it is the last datagram that is lost.
    socket.on('error', () => {
      this.lost(1)
      if (this.#searching && socket === this.#socket && this.#firstWords) void this.#tryNext(this.#firstWords)
    })
  }

  /** `localhost` has two addresses, and a server that listens on one of them is what TCP would find too. */
  async #tryNext(datagram: Uint8Array): Promise<void> {
    const { addresses, port, name } = this.#parts
    const refused = this.#socket
    if (++this.#tries >= addresses.length) return
    // One that cannot be reached is passed over with the next datagram.
    this.#address = (this.#address + 1) % addresses.length
    const options = { address: addresses[this.#address] ?? '', port, name, receiveBuffer: ANSWER_BUFFER }
    const socket = await connectDatagrams(options).catch(() => undefined)
    if (!socket) return
    if (this.over || this.#socket !== refused) {
      socket.close()
      return
    }
    this.#use(socket)
    refused?.close()
    this.#transmit(datagram)
  }
}
