import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Endpoint, Listener, Policy, Proxy } from '../../../lib/core/index.ts'
import { ProxyError } from '../../../lib/core/index.ts'
import type { DynamicOptions } from '../../../lib/domains/dynamic-server.ts'
import { httpProxy } from '../../../lib/domains/http-proxy.ts'
import { mixed } from '../../../lib/domains/mixed.ts'
import { socks5 } from '../../../lib/domains/socks5.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { udp } from '../../../lib/domains/udp.ts'
import { connectPair, MEMORY } from './proxies.ts'

export interface DynamicStage extends AsyncDisposable {
  /** The side with the proxy server, and its exit. */
  readonly near: Proxy
  readonly exit: Proxy
  readonly listener: Listener
  readonly port: number
  /** What the exit was asked for, as `tcp://host:port`. */
  readonly asked: string[]
  /** Targets (`host:port`) that the exit does not allow. */
  readonly denied: Set<string>
  /** A client that has connected to the proxy server. */
  client(): Promise<Socket>
}

/** A proxy server on one side of a tunnel, and its exit at the other. `query` stands behind its address. */
export async function dynamicStage(
  domain: 'socks5' | 'http' | 'mixed',
  options: DynamicOptions & { readonly query?: string; readonly bind?: string } = {},
): Promise<DynamicStage> {
  const { query = '', bind = '127.0.0.1', ...rest } = options
  const asked: string[] = []
  const denied = new Set<string>()
  const policy: Policy = {
    dial(to) {
      asked.push(`${to.Domain}://${to.Addr}`)
      if (denied.has(to.Addr)) throw new ProxyError('PROXY_ERR_DIAL_DENIED', 'not allowed here')
    },
    listen() {},
  }
  const pair = await connectPair(MEMORY, {
    dialling: { domains: [socks5(rest), httpProxy(rest), mixed(rest)] },
    accepting: { domains: [tcp(), udp()], policy },
  })
  const at: Endpoint = { Domain: domain, Addr: `${bind}:0${query}` }
  try {
    const listener = await pair.dialling.newListener({ Listen: at, Forward: { Domain: 'tunnel', Addr: '' } })
    const port = Number(listener.bound.Addr.split(':').at(-1))
    return {
      near: pair.dialling,
      exit: pair.accepting,
      listener,
      port,
      asked,
      denied,
      client: () => clientOf(port),
      async [Symbol.asyncDispose]() {
        await listener.close()
        await pair[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await pair[Symbol.asyncDispose]()
    throw error
  }
}

export async function clientOf(port: number, host = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ port, host, allowHalfOpen: true, noDelay: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** The next `length` bytes; rejects if they do not come. */
export async function read(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const bytes: Buffer | null = length === 0 ? Buffer.alloc(0) : socket.read(length)
    if (bytes && bytes.length === length) return bytes
    if (bytes) throw new Error(`${bytes.length} bytes and the end: ${bytes.toString('latin1')}`)
    if (socket.readableEnded || socket.destroyed) throw new Error('closed before')
    await Promise.race([once(socket, 'readable'), once(socket, 'end'), once(socket, 'close')])
  }
}

/** All that comes until it is closed, in whatever way. */
export function readToClose(socket: Socket): Promise<Buffer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    const done = (): void => {
      socket.destroy()
      resolve(Buffer.concat(chunks))
    }
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('end', done)
    socket.on('close', done)
    if (socket.destroyed || socket.readableEnded) done()
  })
}

const GREETING = [5, 1, 0]

/** A SOCKS5 request (RFC 1928, section 4) for an IPv4 address or a name. */
export function socksRequest(command: number, host: string, port: number): Buffer {
  return Buffer.concat([Buffer.from([5, command, 0]), socksAddress(host, port)])
}

export function socksAddress(host: string, port: number): Buffer {
  const tail = Buffer.from([port >> 8, port & 255])
  if (/^[\d.]+$/.test(host)) return Buffer.concat([Buffer.from([1, ...host.split('.').map(Number)]), tail])
  return Buffer.concat([Buffer.from([3, host.length]), Buffer.from(host, 'latin1'), tail])
}

/** Greets without a password, and asks. Resolves with the reply. */
export async function socksAsk(socket: Socket, request: Buffer): Promise<Buffer> {
  socket.write(Buffer.from(GREETING))
  const method = await read(socket, 2)
  if (method[1] !== 0) throw new Error(`method ${method[1]}`)
  socket.write(request)
  return await read(socket, 10)
}
