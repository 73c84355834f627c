import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Acceptor, connect } from '../../../lib/core/connect.ts'
import type { ProxyError } from '../../../lib/core/errors.ts'
import { Frame, readFrames } from '../../../lib/core/frame.ts'
import type { Role } from '../../../lib/core/handshake.ts'
import type { Link } from '../../../lib/core/link.ts'
import type { MainConnection, MainOptions } from '../../../lib/core/main-connection.ts'
import { NoiseHandshake, rawPublicKey, type Suite, x25519PublicKey } from '../../../lib/core/noise.ts'
import { Proxy, type ProxyOptions } from '../../../lib/core/proxy.ts'
import { openRecord, RecordKeys, recordLength, sealRecord } from '../../../lib/core/record.ts'
import { type MemoryOptions, type MemoryPair, memoryPair } from '../../../lib/transports/memory.ts'
import { ByteStream } from './byte-stream.ts'
import { frame, type Limits, PREAMBLE, payload1, payload2, withLength } from './bytes.ts'

/** What the raw side and the real side share; a psk as it is, so that no test waits for scrypt. */
export const PSK: Buffer = Buffer.alloc(32, 0x6b)

export interface RawOptions extends MemoryOptions {
  /** Default NNpsk0. */
  suite?: Suite
  /** For the real side. */
  main?: MainOptions
  /** For the real side. */
  proxy?: ProxyOptions
  /** Limits that the raw side announces. Default 16,384 and 1,024. */
  limits?: Limits
}

export interface RawFrame {
  readonly type: number
  readonly id: number
  readonly payload: Buffer
}

/** The raw side of a link whose handshake is done: it seals whatever a test wants, and collects what comes. */
export class RawSession implements AsyncDisposable {
  /** The role of the raw side; the real side has the other one. */
  readonly role: Role
  readonly link: Link
  readonly links: MemoryPair
  readonly stream: ByteStream
  /** The handshake hash, which node keys sign. */
  readonly hash: Buffer
  /** The real side's main connection: it resolves after the hellos, or rejects with the reason why not. */
  readonly real: Promise<MainConnection>
  /** Every frame that came, in order. */
  readonly frames: RawFrame[] = []
  /** The plaintext of every record that came, in order; the first is the hello. */
  readonly records: Buffer[] = []
  readonly #send: RecordKeys
  readonly #receive: RecordKeys
  readonly #unseen: RawFrame[] = []
  #counted = 0
  #over = false
  #notify: (() => void)[] = []

  constructor(parts: RawParts) {
    this.role = parts.role
    this.links = parts.links
    this.stream = parts.stream
    this.link = parts.stream.link
    this.hash = parts.hash
    this.real = parts.real
    this.#send = parts.send
    this.#receive = parts.receive
    void this.#collect()
  }

  /** How many counted records came: what an ack would say. */
  get counted(): number {
    return this.#counted
  }

  /** Sends frames, made by `frame`, as one record. */
  send(...frames: readonly Uint8Array[]): void {
    this.sendRecord(Buffer.concat(frames))
  }

  /** Seals `plain`, whatever it is, as the next record. */
  sendRecord(plain: Uint8Array): void {
    this.link.write([this.seal(plain)])
  }

  /** The next record, not sent. */
  seal(plain: Uint8Array): Buffer {
    return Buffer.concat(sealRecord(this.#send, plain))
  }

  /** Bytes that are not sealed. */
  sendRaw(bytes: Uint8Array): void {
    this.link.write([bytes])
  }

  /** The hello that a new session begins with. */
  sendHello(payload: Uint8Array = Buffer.alloc(8)): void {
    this.send(frame(Frame.hello, 0, payload))
  }

  /** Acknowledges all that came, or as many counted records as `expected` says. */
  ack(expected: number = this.#counted): void {
    const payload = Buffer.alloc(8)
    payload.writeBigUInt64BE(BigInt(expected))
    this.send(frame(Frame.ack, 0, payload))
  }

  /** The next frame of this type that no call has answered with yet. Rejects if the link ends without one. */
  async next(type: number, id?: number): Promise<RawFrame> {
    while (true) {
      const at = this.#unseen.findIndex((seen) => seen.type === type && (id === undefined || seen.id === id))
      const [found] = at < 0 ? [] : this.#unseen.splice(at, 1)
      if (found) return found
      if (this.#over) throw new Error(`the link ended without a frame of type 0x${type.toString(16)}`)
      await this.#change()
    }
  }

  /** Resolves when the real side has closed its direction, or the link is gone. */
  async over(): Promise<void> {
    while (!this.#over) await this.#change()
  }

  /** Stops taking bytes from the link, as a peer that does not read; `resume` goes on. */
  pause(): void {
    this.stream.paused = true
  }

  resume(): void {
    this.stream.paused = false
    this.link.resume()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume()
    this.link.destroy()
    const main = await this.real.catch(() => undefined)
    // It would wait for another link.
    main?.close()
    await main?.closed
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#notify.push(resolve))
  }

  #changed(): void {
    for (const resolve of this.#notify.splice(0)) resolve()
  }

  async #collect(): Promise<void> {
    try {
      while (true) {
        const header = await this.stream.read(4)
        const length = recordLength(header, 0)
        const record = Buffer.concat([header, await this.stream.read(length)])
        const slices = openRecord(this.#receive, record, 0, length)
        const plain = Buffer.concat(slices)
        this.records.push(plain)
        const first = plain[0] ?? Frame.hello
        if (first > Frame.pong) this.#counted++
        readFrames([plain], (type, id, payload) => {
          const seen = { type, id, payload: Buffer.from(payload) }
          this.frames.push(seen)
          this.#unseen.push(seen)
        })
        this.#changed()
      }
    } catch {
      this.#over = true
      this.#changed()
    }
  }
}

interface RawParts {
  role: Role
  links: MemoryPair
  stream: ByteStream
  hash: Buffer
  send: RecordKeys
  receive: RecordKeys
  real: Promise<MainConnection>
}

/** A handshake with a real side over a memory link, up to but without the hellos. `role` is the raw side's. */
export async function rawSession(role: Role, options: RawOptions = {}): Promise<RawSession> {
  const links = memoryPair(options)
  const suite = options.suite ?? 'NNpsk0'
  const staticKey = generateKeyPairSync('x25519').privateKey
  const dialler = role === 'dialler'
  const stream = new ByteStream(dialler ? links.a : links.b)
  const real = dialler
    ? new Acceptor({ ...options.main, pskFor: async () => PSK, staticKey }).accept(links.b).then(({ main }) => main)
    : connect(async () => links.a, {
        ...options.main,
        secret: { name: '', suite, psk: PSK, serverKey: x25519PublicKey(rawPublicKey(staticKey)) },
      })
  // A test that never looks at it must not end the process.
  real.catch(() => {})
  const noise = dialler
    ? await rawDial(stream, suite, staticKey, options)
    : await rawAccept(stream, suite, staticKey, options)
  const [toAcceptor, toDialler] = noise.split()
  return new RawSession({
    role,
    links,
    stream,
    hash: noise.hash,
    send: new RecordKeys(dialler ? toAcceptor : toDialler),
    receive: new RecordKeys(dialler ? toDialler : toAcceptor),
    real,
  })
}

async function rawDial(
  stream: ByteStream,
  suite: Suite,
  staticKey: KeyObject,
  options: RawOptions,
): Promise<NoiseHandshake> {
  const preamble = PREAMBLE[suite]
  const noise = new NoiseHandshake({ suite, initiator: true, prologue: preamble, psk: PSK, static: staticKey })
  stream.link.write([preamble, withLength(noise.write(payload1(options.limits)))])
  const [status] = await stream.read(1)
  if (status !== 1) throw new Error(`the acceptor answered ${status}`)
  noise.read(await stream.read((await stream.read(2)).readUInt16BE()))
  return noise
}

async function rawAccept(
  stream: ByteStream,
  suite: Suite,
  staticKey: KeyObject,
  options: RawOptions,
): Promise<NoiseHandshake> {
  const preamble = await stream.read(7)
  const noise = new NoiseHandshake({ suite, initiator: false, prologue: preamble, psk: PSK, static: staticKey })
  noise.read(await stream.read((await stream.read(2)).readUInt16BE()))
  stream.link.write([Buffer.from([1]), withLength(noise.write(payload2(options.limits)))])
  return noise
}

export interface RealSide {
  readonly main: MainConnection
  readonly proxy: Proxy
  /** Why the real side's session ended. */
  readonly ended: Promise<ProxyError>
  /** Why it lost the link; what becomes of the session depends on its `resumeTimeout`. */
  readonly lost: Promise<ProxyError>
}

export type RawPeer = RawSession & RealSide

/** A raw peer, hellos done, of a real Proxy. `role` is the raw side's. Dispose it, or end the session, in every test. */
export async function rawPeer(role: Role, options: RawOptions = {}): Promise<RawPeer> {
  const session = await rawSession(role, options)
  if (role === 'acceptor') await session.next(Frame.hello)
  session.sendHello()
  const main = await session.real
  if (role === 'dialler') await session.next(Frame.hello)
  const proxy = new Proxy(main, options.proxy)
  const lost = new Promise<ProxyError>((resolve) => {
    proxy.on('state', () => main.linkError && resolve(main.linkError))
  })
  return Object.assign(session, { main, proxy, ended: main.closed, lost })
}
