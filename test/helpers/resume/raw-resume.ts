import { generateKeyPairSync, hkdfSync } from 'node:crypto'
import { Acceptor, connect } from '../../../lib/core/connect.ts'
import type { ProxyError } from '../../../lib/core/errors.ts'
import { Frame } from '../../../lib/core/frame.ts'
import type { Role } from '../../../lib/core/handshake.ts'
import type { Link } from '../../../lib/core/link.ts'
import type { MainConnection, MainOptions } from '../../../lib/core/main-connection.ts'
import { NoiseHandshake } from '../../../lib/core/noise.ts'
import { Proxy, type ProxyOptions } from '../../../lib/core/proxy.ts'
import { RecordKeys } from '../../../lib/core/record.ts'
import { type MemoryOptions, type MemoryPair, memoryPair } from '../../../lib/transports/memory.ts'
import { ByteStream } from '../core/byte-stream.ts'
import { PREAMBLE, u32, u64, withLength } from '../core/bytes.ts'
import { PSK, type RawFrame, RawSession } from '../core/raw-peer.ts'
import { turns } from './hurry.ts'

const KEY = generateKeyPairSync('x25519').privateKey
const NO_SESSION = Buffer.alloc(16)
const LIMITS = Buffer.concat([u32(0), u32(16_384), u32(1024)])

/** What a dialler needs to go on with a session. */
export interface Ticket {
  readonly session: Buffer
  readonly secret: Buffer
  readonly epoch: number
}

export interface RawLinkParts {
  readonly role: Role
  readonly links: MemoryPair
  readonly stream: ByteStream
  readonly noise: NoiseHandshake
  readonly session: Buffer
  /** The secret that salts the keys of this link, or nothing on a first one. */
  readonly salt: Buffer | undefined
  readonly real: Promise<MainConnection>
  /** Preamble and message 1. */
  readonly opening: Buffer
}

/** The raw side of one link, keys known, hellos not sent. */
export class RawLink extends RawSession {
  readonly session: Buffer
  readonly resumed: boolean
  /** What this session's later links are salted with. */
  readonly secret: Buffer
  /** The first record key of either direction, in hex. */
  readonly keys: readonly [string, string]
  /** The bytes that the dialler began with. */
  readonly opening: Buffer

  constructor({ role, links, stream, noise, session, salt, real, opening }: RawLinkParts) {
    const split = noise.split()
    const { hash } = noise
    const [toAcceptor, toDialler] = split.map((key) => new RecordKeys(key, salt))
    if (!toAcceptor || !toDialler) throw new TypeError('two keys')
    const keys = [toAcceptor.current.bytes.toString('hex'), toDialler.current.bytes.toString('hex')] as const
    const [send, receive] = role === 'dialler' ? [toAcceptor, toDialler] : [toDialler, toAcceptor]
    super({ role, links, stream, hash, send, receive, real })
    this.opening = opening
    this.session = session
    this.resumed = salt !== undefined
    this.secret = salt ?? Buffer.from(hkdfSync('sha256', Buffer.concat(split), hash, 'symport resume', 32))
    this.keys = keys
  }

  /** Hello with this number, and whatever fields stand behind it. */
  hello(expected: number, fields: Uint8Array = Buffer.alloc(0)): void {
    this.sendHello(Buffer.concat([u64(expected), fields]))
  }

  /** The number in the real side's hello. */
  async greeting(): Promise<number> {
    return numberIn(await this.next(Frame.hello))
  }
}

export function numberIn({ payload }: RawFrame): number {
  return Number(payload.readBigUInt64BE())
}

export interface KnockOptions extends MemoryOptions {
  /** Asks for this session. */
  readonly ticket?: Pick<Ticket, 'session' | 'epoch'> & { readonly secret?: Buffer }
  /** The credential's name. Default: empty. */
  readonly name?: string
  /** What the acceptor has of its end of the link. */
  readonly wrap?: (link: Link) => Link
}

export function preamble(name = ''): Buffer {
  const bytes = Buffer.from(name)
  return Buffer.concat([PREAMBLE.NNpsk0.subarray(0, 6), Buffer.from([bytes.length]), bytes])
}

/** Dials an acceptor by hand, up to but without the hellos. Rejects where it answers nothing, or `refused`. */
export async function knock(acceptor: Acceptor, options: KnockOptions = {}): Promise<RawLink> {
  const links = memoryPair(options)
  const stream = new ByteStream(links.a)
  const { wrap = (link: Link) => link } = options
  const real = acceptor.accept(wrap(links.b)).then(({ main }) => main)
  // A test that never looks at it must not end the process.
  real.catch(() => {})
  const { ticket } = options
  const prologue = preamble(options.name)
  const noise = new NoiseHandshake({ suite: 'NNpsk0', initiator: true, prologue, psk: PSK })
  const payload = Buffer.concat([ticket?.session ?? NO_SESSION, u32(ticket?.epoch ?? 0), LIMITS])
  const opening = Buffer.concat([prologue, withLength(noise.write(payload))])
  links.a.write([opening])
  const [status] = await stream.read(1)
  if (status !== 1) throw new Error(`the acceptor answered ${status}`)
  const answer = noise.read(await stream.read((await stream.read(2)).readUInt16BE()))
  const session = Buffer.from(answer.subarray(0, 16))
  const salt = answer[16] === 1 ? (ticket?.secret ?? Buffer.alloc(32)) : undefined
  return new RawLink({ role: 'dialler', links, stream, noise, session, salt, real, opening })
}

/** A link that a real dialler has opened and whose first message was read. */
export interface Knock {
  /** What it asks for. */
  readonly session: Buffer
  readonly epoch: number
  readonly links: MemoryPair
  /** Goes on with the session of `ticket`, or begins a new one. */
  answer(ticket?: Ticket): RawLink
}

/** What a real dialler dials, one link after another. */
export class RawAcceptor {
  readonly #options: MemoryOptions
  readonly #knocks: Knock[] = []
  readonly #takers: ((knock: Knock) => void)[] = []
  /** How many links were dialled. */
  dialled = 0
  /** What the dialler has of its end of a link. */
  wrap: (link: Link) => Link = (link) => link
  #real: Promise<MainConnection> = Promise.reject(new Error('nobody dialled'))

  constructor(options: MemoryOptions = {}) {
    this.#options = options
    this.#real.catch(() => {})
  }

  serve(real: Promise<MainConnection>): void {
    this.#real = real
    real.catch(() => {})
  }

  readonly dial = async (): Promise<Link> => {
    this.dialled++
    const links = memoryPair(this.#options)
    void this.#read(links)
    return this.wrap(links.a)
  }

  next(): Promise<Knock> {
    const waiting = this.#knocks.shift()
    return waiting ? Promise.resolve(waiting) : new Promise((resolve) => this.#takers.push(resolve))
  }

  async #read(links: MemoryPair): Promise<void> {
    const stream = new ByteStream(links.b)
    try {
      const prologue = await stream.read(7)
      const noise = new NoiseHandshake({ suite: 'NNpsk0', initiator: false, prologue, psk: PSK })
      const message = await stream.read((await stream.read(2)).readUInt16BE())
      const payload = noise.read(message)
      const found: Knock = {
        session: Buffer.from(payload.subarray(0, 16)),
        epoch: payload.readUInt32BE(16),
        links,
        answer: (ticket) => {
          const session = ticket?.session ?? Buffer.alloc(16, ++this.#sessions)
          const answer = noise.write(Buffer.concat([session, Buffer.from([ticket ? 1 : 0]), LIMITS]))
          links.b.write([Buffer.from([1]), withLength(answer)])
          const salt = ticket?.secret
          const opening = Buffer.concat([prologue, withLength(message)])
          return new RawLink({ role: 'acceptor', links, stream, noise, session, salt, real: this.#real, opening })
        },
      }
      const taker = this.#takers.shift()
      if (taker) taker(found)
      else this.#knocks.push(found)
    } catch {
      // It was given up before it had said anything.
    }
  }

  #sessions = 0x30
}

export interface RawResumerOptions extends MemoryOptions {
  /** For the real side. */
  main?: MainOptions
  /** For the real side. */
  proxy?: ProxyOptions
  /** One that others dial too. */
  acceptor?: Acceptor
  /** For a real side that dials. */
  onRenewed?: (main: MainConnection) => void
  /** For a real side that dials: how long each attempt may take, in ms. */
  timeout?: number
  /** What stands behind the number in the raw side's first hello. */
  fields?: (link: RawLink) => Uint8Array
}

export interface AgainOptions {
  /** The number in the raw side's hello. Default: how many counted records came. */
  expected?: number
  /** What stands behind it. */
  fields?: (link: RawLink) => Uint8Array
  /** Loses the link before. Default: true. */
  cut?: boolean
}

/** A raw side of a real Proxy that outlives its links. `role` is the raw side's. */
export class RawResumer implements AsyncDisposable {
  readonly role: Role
  readonly main: MainConnection
  readonly proxy: Proxy
  readonly ended: Promise<ProxyError>
  /** For a raw dialler. */
  readonly acceptor: Acceptor
  /** For a raw acceptor. */
  readonly door: RawAcceptor
  /** All links so far; the last one is the present one. */
  readonly all: RawLink[]
  readonly #options: RawResumerOptions
  #epoch = 0
  #before = 0

  constructor(parts: {
    main: MainConnection
    acceptor: Acceptor
    door: RawAcceptor
    link: RawLink
    options: RawResumerOptions
  }) {
    this.role = parts.link.role
    this.main = parts.main
    this.acceptor = parts.acceptor
    this.door = parts.door
    this.all = [parts.link]
    this.#options = parts.options
    this.proxy = new Proxy(parts.main, parts.options.proxy)
    this.ended = parts.main.closed
  }

  get link(): RawLink {
    const link = this.all.at(-1)
    if (!link) throw new TypeError('there is one from the beginning')
    return link
  }

  /** Counted records that came, over all links. */
  get received(): number {
    return this.#before + this.link.counted
  }

  get epoch(): number {
    return this.#epoch
  }

  /** What it takes to ask for this session once more. */
  ticket(epoch: number = ++this.#epoch): Ticket {
    const [first] = this.all
    if (!first) throw new TypeError('there is one from the beginning')
    return { session: first.session, secret: first.secret, epoch }
  }

  cut(): void {
    this.link.link.destroy(new Error('cut'))
  }

  /** The handshake of the next link, up to but without the hellos. */
  async shake(): Promise<RawLink> {
    if (this.role === 'dialler') return await knock(this.acceptor, { ...this.#options, ticket: this.ticket() })
    const { session, epoch, answer } = await this.door.next()
    const ticket = this.ticket()
    if (!session.equals(ticket.session)) throw new Error('another session was asked for')
    this.#epoch = epoch
    return answer(ticket)
  }

  /** Goes on over the next link; hellos are done when it resolves. */
  async again(options: AgainOptions = {}): Promise<RawLink> {
    const { expected = this.received, fields, cut = true } = options
    if (cut) this.cut()
    const link = await this.shake()
    if (this.role === 'acceptor') await link.greeting()
    link.hello(expected, fields?.(link))
    if (this.role === 'dialler') await link.greeting()
    this.#before = expected
    this.all.push(link)
    while (!this.main.linked && !this.main.reason) await turns(1)
    return link
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { links } of this.all) links.cut('rst')
    this.proxy.close()
    await this.proxy.closed
  }
}

/** A session between a raw side and a real Proxy, hellos done. */
export async function rawResumer(role: Role, options: RawResumerOptions = {}): Promise<RawResumer> {
  const acceptor = options.acceptor ?? new Acceptor({ ...options.main, pskFor: async () => PSK, staticKey: KEY })
  const door = new RawAcceptor(options)
  if (role === 'dialler') {
    const link = await knock(acceptor, options)
    link.hello(0, options.fields?.(link))
    const main = await link.real
    await link.greeting()
    return new RawResumer({ main, acceptor, door, link, options })
  }
  const { onRenewed, timeout = 10_000 } = options
  const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
  const real = connect(door.dial, { ...options.main, secret, onRenewed, timeout })
  door.serve(real)
  const link = (await door.next()).answer()
  await link.greeting()
  link.hello(0, options.fields?.(link))
  return new RawResumer({ main: await real, acceptor, door, link, options })
}
