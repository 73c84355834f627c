import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { Endpoint } from '../../../lib/core/index.ts'
import { freePort } from '../system/net.ts'
import { soon } from './strays.ts'

/** A UDP program: what it got, in order, and from whom. */
export class DatagramProgram implements AsyncDisposable {
  readonly socket: Socket
  readonly got: { readonly data: Buffer; readonly from: RemoteInfo }[] = []
  #taken = 0
  #wake: () => void = () => {}

  constructor(socket: Socket) {
    this.socket = socket
    socket.setRecvBufferSize(4 * 1024 * 1024)
    socket.on('error', () => {})
    socket.on('message', (data, from) => {
      this.got.push({ data, from })
      this.#wake()
    })
  }

  get endpoint(): Endpoint {
    const { address, port } = this.socket.address()
    return { Domain: 'udp', Addr: address.includes(':') ? `[${address}]:${port}` : `${address}:${port}` }
  }

  /** The next datagram that was not taken yet. */
  async next(what = 'a datagram', ms = 2000): Promise<Buffer> {
    while (this.got.length <= this.#taken) {
      const more = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      await soon(more, what, ms)
    }
    return this.got[this.#taken++]?.data ?? Buffer.alloc(0)
  }

  /** As `next`, as text. */
  async text(what?: string, ms?: number): Promise<string> {
    return (await this.next(what, ms)).toString()
  }

  send(data: Uint8Array | string): void {
    this.socket.send(data)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.socket, 'close')
    this.socket.close()
    await closed
  }
}

function addressOf(at: Endpoint): { address: string; port: number } {
  const [, address = '', port] = /^(.*):(\d+)$/.exec(at.Addr) ?? []
  return { address: address.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** A server on `address`, which answers nothing by itself; on any free port of 127.0.0.1 by default. */
export async function datagramServer(at: { address?: string; port?: number } = {}): Promise<DatagramProgram> {
  const { address = '127.0.0.1', port = await freePort() } = at
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  socket.bind({ address, port })
  await once(socket, 'listening')
  return new DatagramProgram(socket)
}

/** A server that sends everything back. */
export async function datagramEcho(at?: { address?: string; port?: number }): Promise<DatagramProgram> {
  const program = await datagramServer(at)
  program.socket.on('message', (data, { address, port }) => program.socket.send(data, port, address))
  return program
}

/** A visitor with a port of its own, who talks to `to` only. */
export async function visitor(to: Endpoint): Promise<DatagramProgram> {
  const { address, port } = addressOf(to)
  const ip = address === '::' ? '127.0.0.1' : address
  const socket = createSocket(ip.includes(':') ? 'udp6' : 'udp4')
  socket.connect(port, ip)
  await once(socket, 'connect')
  return new DatagramProgram(socket)
}
