import { type NetConnectOpts, type Server, Socket, type TcpNetConnectOpts } from 'node:net'
import { BULK, type Link, type LinkSink, linkFrom } from '../core/index.ts'
import { type DirectHandle, directHandle, writeDirect } from './direct-write.ts'
import { formatRemote } from './remote.ts'

/** Bytes that one read may bring. */
const READ_SIZE = BULK
const FIRST_READ = 4096
const NOTHING = new Uint8Array(0)

/** One buffer for all links whose readers use what came before the next read begins, and keep nothing in place. */
export class ReadBuffer {
  #bytes: Uint8Array | undefined

  get bytes(): Uint8Array {
    this.#bytes ??= Buffer.allocUnsafeSlow(READ_SIZE)
    return this.#bytes
  }
}

/** What `net.Socket` calls when bytes came; see `onread` in Node's documentation of `net`. */
interface OnRead {
  buffer: Uint8Array | (() => Uint8Array)
  callback(bytes: number, buffer: Uint8Array): boolean
}

/**
 * Options of a `Socket`, with all that Node.js adds to its copy of them: for what is missing Node.js 20 makes new hidden
 * classes with every single socket, which takes 10 us instead of 0.3. A spread has the same effect.
 */
function socketOptions(onread: OnRead, handle: Handle | undefined, options: TcpNetConnectOpts | undefined): object {
  return {
    allowHalfOpen: true,
    autoDestroy: true,
    decodeStrings: false,
    emitClose: false,
    pauseOnCreate: true,
    handle,
    onread,
    noDelay: options?.noDelay,
    keepAlive: options?.keepAlive,
    keepAliveInitialDelay: options?.keepAliveInitialDelay,
  }
}

/** Starts to connect. The socket emits `connect` or `error`; reading waits for `start`. */
export function connectLink(options: NetConnectOpts, readBuffer?: ReadBuffer): SocketLink {
  return new SocketLink(readBuffer, (onread) => {
    const socket = new Socket(socketOptions(onread, undefined, 'port' in options ? options : undefined))
    socket.pause()
    return socket.connect(options)
  })
}

/** A connection of the system, before there is a `Socket`. */
export interface Handle {
  setNoDelay?(on: boolean): void
  readStop?(): void
}

/**
 * Has the connections of `server` handed over as links. The sockets that a server of Node.js makes know no `onread`, and
 * making one only to take its connection away costs as much as the one that is used. Where Node.js does not have it that
 * way, they are used as they are: slower, and right all the same.
 */
export function acceptLinks(server: Server, onLink: (link: Link) => void, readBuffer?: ReadBuffer): void {
  const listening = (server as Server & { _handle?: { onconnection?: unknown } | null })._handle
  if (typeof listening?.onconnection !== 'function') {
    server.on('connection', (socket) => onLink(linkFrom(socket, remoteOf(socket))))
    return
  }
  // An error concerns one connection that could not be accepted, as when descriptors run out.
  listening.onconnection = (error: number, handle: Handle | undefined) => {
    if (error !== 0 || !handle) return
    handle.setNoDelay?.(true)
    onLink(handleLink(handle, readBuffer))
  }
}

function handleLink(handle: Handle, readBuffer: ReadBuffer | undefined, known?: Known): SocketLink {
  return new SocketLink(readBuffer, (onread) => new Socket(socketOptions(onread, handle, undefined)), known)
}

/** What is known of a connection that somebody has looked at before it became a link. */
export interface Known {
  readonly remote: string | undefined
  readonly transport: string
  /** What was read to find out; it comes first. */
  readonly head: Uint8Array
}

/**
 * Makes a link of a socket that was listened for by `listenSockets`. Its connection moves to a socket with `onread`, and
 * is as fast as one that nobody has looked at; the socket itself is closed, and its connection is not.
 */
export function adoptSocket(socket: Socket, known: Known): Link {
  const holder = socket as Socket & { _handle?: Handle | null }
  const handle = holder._handle
  const head = [known.head]
  // Nothing more is read in this turn, so this is all that this socket will ever have.
  for (let more: Buffer | null = socket.read(); more; more = socket.read()) head.push(more)
  const whole = { ...known, head: head.length > 1 ? Buffer.concat(head) : known.head }
  if (typeof handle?.readStop !== 'function') {
    if (whole.head.length > 0) socket.unshift(whole.head)
    return linkFrom(socket, known.remote, known.transport)
  }
  holder._handle = null
  socket.destroy()
  return handleLink(handle, undefined, whole)
}

function remoteOf(socket: Socket): string | undefined {
  const { remoteAddress, remotePort } = socket
  return remoteAddress === undefined ? undefined : formatRemote(remoteAddress, remotePort)
}

/** A TCP or Unix socket as a link: Node.js reads into buffers that we choose, so bulk costs no allocation per read. */
export class SocketLink implements Link {
  readonly socket: Socket
  readonly copies = true
  #known: Known | undefined
  #remote: string | undefined
  #sink: LinkSink | undefined
  #waiting = false
  /** From the first write that could go past the `Socket`; none goes through it afterwards. */
  #direct: DirectHandle | undefined
  #paused = true
  #error: Error | undefined
  /** For a sink that has none: it grows while reads fill it. */
  #buffer: Uint8Array = NOTHING

  /** With a `readBuffer` all reads land there; without one, where the sink says. */
  constructor(readBuffer: ReadBuffer | undefined, create: (onread: OnRead) => Socket, known?: Known) {
    this.#known = known
    this.socket = create({
      // Node.js asks before there is a sink: then for a small one, because what lands there has to be moved.
      buffer: readBuffer?.bytes ?? (() => this.#sink?.buffer?.() ?? this.#own()),
      callback: (bytes, buffer) => {
        if (buffer === this.#buffer) this.#fit(bytes)
        const more = this.#sink?.received(buffer.subarray(0, bytes)) ?? false
        this.#paused = !more
        return more
      },
    })
    this.socket.on('error', (error) => {
      this.#error = error
    })
  }

  get remote(): string | undefined {
    this.#remote ??= this.#known?.remote ?? remoteOf(this.socket)
    return this.#remote
  }

  get transport(): string {
    return this.#known?.transport ?? (this.remote === undefined ? 'unix' : 'tcp')
  }

  get pending(): number {
    if (!this.#direct) return this.socket.writableLength
    return this.#waiting && !this.socket.destroyed ? this.#direct.writeQueueSize : 0
  }

  #own(): Uint8Array {
    if (this.#buffer.length === 0) this.#buffer = Buffer.allocUnsafeSlow(FIRST_READ)
    return this.#buffer
  }

  /** The next read gets more room if this one had too little, and little again when it used hardly any. */
  #fit(bytes: number): void {
    const { length } = this.#buffer
    if (bytes === length && length < READ_SIZE) {
      this.#buffer = Buffer.allocUnsafeSlow(Math.min(length * 4, READ_SIZE))
    } else if (bytes <= FIRST_READ / 2 && length > FIRST_READ) {
      this.#buffer = NOTHING
    }
  }

  start(sink: LinkSink): void {
    const socket = this.socket
    this.#sink = sink
    socket.on('drain', this.#told)
    socket.on('end', () => sink.ended())
    if (socket.closed) setImmediate(() => sink.closed(this.#error))
    else socket.on('close', () => sink.closed(this.#error))
    if (this.#known) this.#startWith(this.#known, sink)
    else this.resume()
  }

  /** Until the sink has had the head nothing is read, whatever it asks for meanwhile. */
  #startWith({ head, ...known }: Known, sink: LinkSink): void {
    this.#known = { ...known, head: NOTHING }
    this.#paused = false
    setImmediate(() => {
      if (this.socket.destroyed) return
      this.#paused = head.length > 0 && !sink.received(head)
      if (!this.#paused) this.socket.resume()
    })
  }

  write(chunks: readonly Uint8Array[]): void {
    const socket = this.socket
    if (socket.destroyed || socket.writableEnded) return
    this.#direct ??= directHandle(socket)
    if (this.#direct) this.#writeDirect(this.#direct, chunks)
    else this.#writeSocket(chunks)
  }

  #writeDirect(handle: DirectHandle, chunks: readonly Uint8Array[]): void {
    try {
      if (writeDirect(handle, chunks, this.#written)) this.#waiting = true
    } catch (error) {
      this.socket.destroy(error instanceof Error ? error : undefined)
    }
  }

  #writeSocket(chunks: readonly Uint8Array[]): void {
    const { socket } = this
    if (chunks.length === 1 && chunks[0]) {
      socket.write(chunks[0])
    } else {
      socket.cork()
      for (const chunk of chunks) socket.write(chunk)
      socket.uncork()
    }
    if (socket.writableLength === 0 || this.#waiting) return
    this.#waiting = true
    // Below its high-water mark the socket tells of nothing by itself.
    if (!socket.writableNeedDrain) socket.write(NOTHING, this.#told)
  }

  readonly #told = (): void => this.#written()

  readonly #written = (error?: Error): void => {
    if (error) this.socket.destroy(error)
    if (!this.#waiting || this.socket.destroyed || this.pending > 0) return
    this.#waiting = false
    this.#sink?.drained()
  }

  resume(): void {
    if (!this.#paused || !this.#sink) return
    this.#paused = false
    this.socket.resume()
  }

  end(): void {
    const { socket } = this
    // The far side has ended before, and the system has all that was written: closing says the same as a half-close would,
    // in one system call less and without the events of a `Socket` that are between them.
    if (socket.readableEnded && this.pending === 0) socket.destroy()
    else socket.end()
  }

  destroy(error?: Error): void {
    // A reset is for TCP only, and libuv knows none after a FIN.
    if (error && this.transport === 'tcp' && !this.socket.writableEnded) this.socket.resetAndDestroy()
    else this.socket.destroy()
  }
}
