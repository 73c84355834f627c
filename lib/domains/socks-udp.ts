import type { RemoteInfo, Socket as UdpSocket } from 'node:dgram'
import type { Socket } from 'node:net'
import { join, type ListenContext, ProxyError } from '../core/index.ts'
import { Burst, bindDatagrams } from '../sockets/datagram-socket.ts'
import { formatHostPort } from './address.ts'
import { DatagramLink, DatagramMemory, MAX_DATAGRAM } from './datagrams.ts'
import { datagramTarget, payloadOffset } from './socks5-wire.ts'

export interface SocksUdpOptions {
  /** A destination to and from which nothing moves for so long is forgotten, in ms. Default 60,000. */
  readonly idleTimeout?: number | undefined
  /** Destinations of one association at once; the one idle longest gives way to a new one. Default 256. */
  readonly flows?: number | undefined
  /** Associations of one listener at once. Default 512. */
  readonly associations?: number | undefined
}

/** What may wait in the system for one client while this process is busy. */
const RECEIVE_BUFFER = 1_048_576
/** New destinations of one listener in a second, and opened at once. */
const FLOWS_PER_SECOND = 2000
const OPENING = 256
/** A destination that was refused is not asked for again in this time, in ms. */
const REFUSED_PAUSE = 1000
/** How long the far side may take to end its half of a flow, in ms. */
const FAREWELL = 5000
/** A client that is gone without a word is noticed by the system. In ms. */
const KEEPALIVE = 60_000

/** The UDP associations (RFC 1928, section 7) of one listener, and what they share. */
export class SocksUdp {
  readonly #context: ListenContext
  readonly #idleTimeout: number
  readonly #flows: number
  readonly #most: number
  readonly #memory = new DatagramMemory()
  readonly #open = new Set<Association>()
  #starting = 0
  #opening = 0
  #tokens = FLOWS_PER_SECOND
  #tokensAt = performance.now()
  readonly #burst = new Burst()
  #closed = false

  constructor(context: ListenContext, { idleTimeout = 60_000, flows = 256, associations = 512 }: SocksUdpOptions) {
    this.#context = context
    this.#idleTimeout = idleTimeout
    this.#flows = flows
    this.#most = associations
  }

  get memory(): DatagramMemory {
    return this.#memory
  }

  /**
   * Begins an association, which lasts as long as the connection that asked for it. `port` is the one that the client will
   * send from; 0 if it does not say. Answers where it shall send to; undefined if it has gone meanwhile.
   *
   * @throws ProxyError
   */
  async associate(
    client: Socket,
    port: number,
    remote: string | undefined,
  ): Promise<{ address: string; port: number } | undefined> {
    const { localAddress, remoteAddress } = client
    if (this.#open.size + this.#starting >= this.#most) {
      throw new ProxyError('PROXY_ERR_TOO_MANY_OPENS', `there are ${this.#most} associations already`)
    }
    if (localAddress === undefined || remoteAddress === undefined) return undefined
    this.#starting++
    try {
      const address = unmapped(localAddress)
      const name = remote ?? 'a client'
      const socket = await bindDatagrams({ address, port: 0, name, receiveBuffer: RECEIVE_BUFFER })
      if (client.destroyed || this.#closed) {
        socket.close()
        client.destroy()
        return undefined
      }
      const association = new Association({ socket, client, address: unmapped(remoteAddress), port, owner: this })
      this.#open.add(association)
      client.once('close', () => this.#open.delete(association))
      return { address, port: socket.address().port }
    } finally {
      this.#starting--
    }
  }

  /** The associations end too: none of their flows has an end of its own to wait for. */
  close(): void {
    this.#closed = true
    for (const association of [...this.#open]) association.close()
  }

  get limits(): { readonly idleTimeout: number; readonly flows: number } {
    return { idleTimeout: this.#idleTimeout, flows: this.#flows }
  }

  /** Whether there may be one more flow now. */
  mayOpen(now: number): boolean {
    this.#tokens = Math.min(FLOWS_PER_SECOND, this.#tokens + ((now - this.#tokensAt) / 1000) * FLOWS_PER_SECOND)
    this.#tokensAt = now
    if (this.#tokens < 1 || this.#opening >= OPENING) return false
    this.#tokens--
    return true
  }

  start(flow: Flow, to: string): void {
    this.#opening++
    this.#context.open({ to: { Domain: 'udp', Addr: to }, from: flow.remote }).then(
      (sub) => {
        this.#opening--
        if (flow.over) {
          sub.destroy()
          return
        }
        flow.keepTo(sub)
        join(sub, flow)
      },
      () => {
        this.#opening--
        flow.destroy()
      },
    )
  }

  /** Whether one more datagram may be handed to Node.js in this turn of the event loop. */
  maySend(): boolean {
    return this.#burst.take()
  }
}

interface AssociationParts {
  readonly socket: UdpSocket
  /** The connection that asked for it. */
  readonly client: Socket
  readonly address: string
  readonly port: number
  readonly owner: SocksUdp
}

/** One client's socket, and the destinations that it sends to. */
class Association {
  readonly #parts: AssociationParts
  /** What the client sends from. 0 until it is known. */
  #port: number
  /** By destination, as the client writes it; the one that is idle longest comes first. Those refused lately stay too. */
  readonly #flows = new Map<string, Flow>()
  /** Flows that were told to end, and when. */
  readonly #retired = new Map<Flow, number>()
  #latest: Flow | undefined
  #sweeper: NodeJS.Timeout | undefined
  #closed = false

  constructor(parts: AssociationParts) {
    this.#parts = parts
    this.#port = parts.port
    const { socket, client } = parts
    socket.on('message', (datagram, from) => this.#onMessage(datagram, from))
    client.setKeepAlive(true, KEEPALIVE)
    client.once('end', () => this.close())
    client.once('close', () => this.close())
    // Whatever it says there: only its end means something.
    client.resume()
  }

  get owner(): SocksUdp {
    return this.#parts.owner
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#sweeper)
    const flows = [...this.#flows.values(), ...this.#retired.keys()]
    this.#flows.clear()
    for (const flow of flows) flow.destroy()
    this.#parts.socket.close()
    this.#parts.client.destroySoon()
  }

  #onMessage(datagram: Buffer, { address, port }: RemoteInfo): void {
    if (this.#closed || port === 0 || unmapped(address) !== this.#parts.address) return
    if (this.#port !== 0 && port !== this.#port) return
    const offset = payloadOffset(datagram)
    if (offset === undefined) return
    // Whoever sends the first datagram that is one has the association.
    this.#port = port
    const key = datagram.toString('latin1', 3, offset)
    const now = performance.now()
    const flow = this.#flowFor(key, datagram, offset, now)
    if (!flow) return
    this.touch(flow, now)
    flow.offer(datagram.subarray(offset))
  }

  #flowFor(key: string, datagram: Buffer, offset: number, now: number): Flow | undefined {
    const known = this.#flows.get(key)
    if (known && !known.over) return known
    if (known && now - known.bornAt < REFUSED_PAUSE) return undefined
    if (known) this.#forget(known)
    try {
      // Checked before anything is counted or kept for it.
      const to = datagramTarget(datagram)
      return this.#open(key, to, Buffer.from(datagram.subarray(0, offset)), now)
    } catch {
      return undefined
    }
  }

  #open(key: string, to: string, header: Buffer, now: number): Flow | undefined {
    const { owner } = this.#parts
    if (!owner.mayOpen(now)) return undefined
    const [idlest] = this.#flows.values()
    if (idlest && this.#flows.size >= owner.limits.flows) {
      this.#forget(idlest)
      idlest.destroy()
    }
    const remote = formatHostPort({ host: this.#parts.address, port: this.#port })
    const flow = new Flow({ key, header, remote, bornAt: now, association: this })
    this.#flows.set(key, flow)
    this.#latest = flow
    owner.start(flow, to)
    this.#sweeper ??= this.#sweepIn(owner.limits.idleTimeout)
    return flow
  }

  #forget(flow: Flow): void {
    if (this.#flows.get(flow.key) === flow) this.#flows.delete(flow.key)
    if (this.#latest === flow) this.#latest = undefined
  }

  /** Something has moved, either way. */
  touch(flow: Flow, now: number): void {
    flow.usedAt = now
    if (flow === this.#latest || this.#flows.get(flow.key) !== flow) return
    this.#latest = flow
    this.#flows.delete(flow.key)
    this.#flows.set(flow.key, flow)
  }

  /** To the client. Answers whether the system has it. */
  send(header: Buffer, payload: Uint8Array): boolean {
    const { socket, address, owner } = this.#parts
    if (this.#closed || header.length + payload.length > MAX_DATAGRAM) return false
    if (socket.getSendQueueCount() > 0 || !owner.maySend()) return false
    socket.send([header, payload], this.#port, address)
    return true
  }

  /** One that has failed stays for a while, so that it is not asked for with each datagram. */
  onDestroyed(flow: Flow): void {
    this.#retired.delete(flow)
    if (performance.now() - flow.bornAt >= REFUSED_PAUSE) this.#forget(flow)
  }

  #sweepIn(delay: number): NodeJS.Timeout {
    return setTimeout(this.#sweep, Math.max(delay, this.owner.limits.idleTimeout / 16)).unref()
  }

  readonly #sweep = (): void => {
    this.#sweeper = undefined
    const { idleTimeout } = this.owner.limits
    const now = performance.now()
    for (const [flow, since] of this.#retired) if (now - since >= FAREWELL) flow.destroy()
    let next = this.#retired.size > 0 ? FAREWELL : Number.POSITIVE_INFINITY
    for (const flow of [...this.#flows.values()]) {
      const left = flow.usedAt + idleTimeout - now
      if (left > 0) {
        next = Math.min(next, left)
        break
      }
      this.#forget(flow)
      if (flow.over) continue
      this.#retired.set(flow, now)
      next = FAREWELL
      flow.retire()
    }
    if (Number.isFinite(next)) this.#sweeper = this.#sweepIn(next)
  }
}

interface FlowParts {
  readonly key: string
  /** What stands before each payload, in either direction: the destination as the client named it. */
  readonly header: Buffer
  readonly remote: string
  readonly bornAt: number
  readonly association: Association
}

/** What a client sends to one destination, and gets from there. */
class Flow extends DatagramLink {
  readonly #parts: FlowParts
  usedAt: number

  constructor(parts: FlowParts) {
    super(parts.association.owner.memory)
    this.#parts = parts
    this.usedAt = parts.bornAt
  }

  get key(): string {
    return this.#parts.key
  }

  get bornAt(): number {
    return this.#parts.bornAt
  }

  get remote(): string {
    return this.#parts.remote
  }

  protected override send(payload: Uint8Array): void {
    const { association, header } = this.#parts
    association.touch(this, performance.now())
    if (!association.send(header, payload)) this.lost(1)
  }

  protected override released(): void {
    this.#parts.association.onDestroyed(this)
  }
}

/** A socket for both families has IPv4 addresses in the form of IPv6 (RFC 4291, section 2.5.5.2). */
function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=[0-9.]+$)/i, '')
}
