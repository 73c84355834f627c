import type { Socket } from 'node:net'
import { join, type ListenContext } from '../core/index.ts'
import type { Gate } from './dynamic-access.ts'
import { type Failure, failureOf, openTcp, sayFarewell, takeOver, type Visitor } from './dynamic-open.ts'
import { formatTarget } from './dynamic-target.ts'
import type { SocketReader } from './socket-reader.ts'
import type { SocksUdp } from './socks-udp.ts'
import { addressLength, encodeReply, NO_METHOD, Reply, readAddress, SOCKS_VERSION } from './socks5-wire.ts'

/** RFC 1928, section 3. */
const NO_AUTHENTICATION = 0
const PASSWORD = 2
/** RFC 1929. */
const PASSWORD_VERSION = 1
const ADMITTED = Buffer.from([PASSWORD_VERSION, 0])
const NOT_ADMITTED = Buffer.from([PASSWORD_VERSION, 1])

const CONNECT = 1
const UDP_ASSOCIATE = 3
/** VER, CMD, RSV; the address follows. */
const REQUEST_HEAD = 3

const REPLIES: Readonly<Record<Failure, number>> = {
  denied: Reply.denied,
  unserved: Reply.networkUnreachable,
  failed: Reply.refused,
  timeout: Reply.hostUnreachable,
  other: Reply.failure,
}

/** A client, from its first byte to its request. */
export interface SocksVisitor extends Visitor {
  readonly reader: SocketReader
  /** It has said what it wants. */
  onRequest(): void
}

interface Request {
  readonly command: number
  readonly host: string
  readonly port: number
}

/** SOCKS5 (RFC 1928) with one client after the other. */
export class Socks5Server {
  readonly #context: ListenContext
  readonly #gate: Gate | undefined
  readonly #udp: SocksUdp

  constructor(context: ListenContext, gate: Gate | undefined, udp: SocksUdp) {
    this.#context = context
    this.#gate = gate
    this.#udp = udp
  }

  /** Rejects where there is nothing to say any more. */
  async serve(visitor: SocksVisitor): Promise<void> {
    const { socket, reader } = visitor
    if (!(await this.#greet(reader, socket))) return
    const request = await readRequest(reader)
    visitor.onRequest()
    if (typeof request === 'number') {
      sayFarewell(socket, encodeReply(request))
    } else if (request.command === CONNECT) {
      await this.#connect(visitor, request)
    } else if (request.command === UDP_ASSOCIATE) {
      await this.#associate(visitor, request.port)
    } else {
      sayFarewell(socket, encodeReply(Reply.unknownCommand))
    }
  }

  /** Its version has been looked at. Answers whether the client may go on. */
  async #greet(reader: SocketReader, socket: Socket): Promise<boolean> {
    const [, count = 0] = await reader.peek(2)
    await reader.peek(2 + count)
    const methods = reader.take(2 + count).subarray(2)
    const method = this.#gate ? PASSWORD : NO_AUTHENTICATION
    if (!methods.includes(method)) {
      sayFarewell(socket, NO_METHOD)
      return false
    }
    socket.write(Buffer.from([SOCKS_VERSION, method]))
    return this.#gate ? await this.#admit(reader, socket, this.#gate) : true
  }

  async #admit(reader: SocketReader, socket: Socket, gate: Gate): Promise<boolean> {
    const [version, userLength = 0] = await reader.peek(2)
    if (version !== PASSWORD_VERSION) {
      sayFarewell(socket, NOT_ADMITTED)
      return false
    }
    const passwordLength = (await reader.peek(3 + userLength))[2 + userLength] ?? 0
    await reader.peek(3 + userLength + passwordLength)
    const bytes = reader.take(3 + userLength + passwordLength)
    if (!(await gate.admits(bytes.subarray(2, 2 + userLength), bytes.subarray(3 + userLength)))) {
      sayFarewell(socket, NOT_ADMITTED)
      return false
    }
    socket.write(ADMITTED)
    return true
  }

  async #connect(visitor: SocksVisitor, request: Request): Promise<void> {
    const { socket, reader } = visitor
    try {
      const sub = await openTcp(this.#context, visitor, formatTarget(request))
      const link = takeOver(visitor, reader.rest())
      link.write([encodeReply(Reply.succeeded)])
      join(sub, link)
    } catch (error) {
      sayFarewell(socket, encodeReply(REPLIES[failureOf(error)]))
    }
  }

  async #associate({ socket, remote }: SocksVisitor, port: number): Promise<void> {
    try {
      const bound = await this.#udp.associate(socket, port, remote)
      if (bound && !socket.destroyed) socket.write(encodeReply(Reply.succeeded, bound))
    } catch {
      sayFarewell(socket, encodeReply(Reply.failure))
    }
  }
}

/** Answers why not, as a reply, if it cannot be read. */
async function readRequest(reader: SocketReader): Promise<Request | number> {
  // No request is shorter than one for a name of one byte.
  const bytes = await reader.peek(REQUEST_HEAD + 2)
  const [version, command = 0] = bytes
  if (version !== SOCKS_VERSION) return Reply.failure
  const length = addressLength(bytes, REQUEST_HEAD)
  if (length === undefined) return Reply.unknownAddressType
  await reader.peek(REQUEST_HEAD + length)
  return { command, ...readAddress(reader.take(REQUEST_HEAD + length), REQUEST_HEAD) }
}
