import type { Socket, SocketType } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { dialError } from './dial.ts'
import { listenError } from './listen.ts'

/** Addresses only: Node.js would look up each one that something is sent to, and take a turn for it. */
function literal(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, isIPv6(address) ? 6 : 4)
}

async function open(type: SocketType): Promise<Socket> {
  const { createSocket } = await import('node:dgram')
  return createSocket({ type, lookup: literal })
}

export interface DatagramSocketOptions {
  /** An IP address; for `bindDatagrams` also empty: all interfaces, of IPv6 and IPv4. */
  readonly address: string
  readonly port: number
  /** The same for people, as they wrote it. */
  readonly name: string
  /** Bytes that may wait in the system. What it does not allow is not an error. */
  readonly receiveBuffer: number
}

/**
 * Binds a UDP socket. From then on an error concerns one datagram, and is ignored.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED in plain words
 */
export async function bindDatagrams(options: DatagramSocketOptions): Promise<Socket> {
  const { address, port, name } = options
  try {
    return await bind(address === '' ? '::' : address, port, options.receiveBuffer)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : ''
    if (address !== '' || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw listenError(asErrno(error), name)
  }
  try {
    // A machine without IPv6.
    return await bind('0.0.0.0', port, options.receiveBuffer)
  } catch (error) {
    throw listenError(asErrno(error), name)
  }
}

async function bind(address: string, port: number, receiveBuffer: number): Promise<Socket> {
  const socket = await open(isIPv6(address) ? 'udp6' : 'udp4')
  await settled(socket, (done) => socket.bind({ address, port, exclusive: true }, done))
  widen(socket, receiveBuffer)
  return socket
}

function widen(socket: Socket, bytes: number): void {
  try {
    socket.setRecvBufferSize(bytes)
  } catch {
    // It works with what there is.
  }
}

/**
 * A UDP socket for one address alone: the system drops what comes from others, and tells of refusals, as an `error` of
 * the socket, which goes on.
 *
 * @throws ProxyError PROXY_ERR_DIAL_FAILED in plain words
 */
export async function connectDatagrams(options: DatagramSocketOptions): Promise<Socket> {
  const { address, port, name } = options
  try {
    const socket = await open(isIPv6(address) ? 'udp6' : 'udp4')
    await settled(socket, (done) => socket.connect(port, address, done))
    widen(socket, options.receiveBuffer)
    return socket
  } catch (error) {
    throw dialError(error, name)
  }
}

/** Datagrams that are handed to Node.js in one turn: each takes memory until the turn is over. */
const BURST = 4096

/** What may still be handed to Node.js in this turn of the event loop, by all that share it. */
export class Burst {
  #left = BURST
  readonly #refill = (): void => {
    this.#left = BURST
  }

  take(): boolean {
    if (this.#left === BURST) process.nextTick(this.#refill)
    if (this.#left === 0) return false
    this.#left--
    return true
  }
}

async function settled(socket: Socket, begin: (done: (error?: Error) => void) => void): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      begin((error) => (error ? reject(error) : resolve()))
    })
  } catch (error) {
    socket.on('error', () => {})
    socket.close()
    throw error
  }
  socket.removeAllListeners('error')
  socket.on('error', () => {})
}

function asErrno(error: unknown): NodeJS.ErrnoException {
  return error instanceof Error ? error : new Error(String(error))
}
