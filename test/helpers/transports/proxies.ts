import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { serveTcp } from './servers.ts'

export interface ProxyServer {
  readonly port: number
  /** What it was asked to connect to: `host:port`. */
  readonly asked: string[]
}

export interface ProxyServerOptions {
  /** `user:password` that it wants. */
  credentials?: string
  /** Goes out together with its answer, as if the far side had spoken at once. */
  early?: Buffer
  /** Where it really connects, whatever it was asked for. */
  to: number
}

/** A web proxy that knows CONNECT. */
export async function serveHttpProxy(t: TestContext, options: ProxyServerOptions): Promise<ProxyServer> {
  const asked: string[] = []
  const server = createServer((_, response) => response.writeHead(405).end())
  const sockets = new Set<Socket>()
  server.on('connect', (request, socket: Socket, head) => {
    asked.push(request.url ?? '')
    socket.on('error', () => {})
    const wanted = options.credentials && `Basic ${Buffer.from(options.credentials).toString('base64')}`
    if (wanted && request.headers['proxy-authorization'] !== wanted) {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n')
      return
    }
    relay(socket, options.to, sockets, () => {
      const answer = Buffer.from('HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n')
      socket.write(Buffer.concat([answer, options.early ?? Buffer.alloc(0)]))
      if (head.length > 0) socket.unshift(head)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.closeAllConnections()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, asked }
}

/** A SOCKS5 proxy, by RFC 1928 and 1929. */
export async function serveSocks5(t: TestContext, options: ProxyServerOptions): Promise<ProxyServer> {
  const asked: string[] = []
  const sockets = new Set<Socket>()
  t.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  const port = await serveTcp(t, (socket) => {
    void talk(socket).catch(() => socket.destroy())
  })
  return { port, asked }

  async function talk(socket: Socket): Promise<void> {
    const read = reader(socket)
    const [, count = 0] = await read(2)
    const methods = await read(count)
    const method = options.credentials ? 2 : 0
    if (!methods.includes(method)) {
      socket.end(Buffer.from([5, 0xff]))
      return
    }
    socket.write(Buffer.from([5, method]))
    if (options.credentials) {
      const [, nameLength = 0] = await read(2)
      const name = await read(nameLength)
      const password = await read((await read(1))[0] ?? 0)
      const right = `${name}:${password}` === options.credentials
      socket.write(Buffer.from([1, right ? 0 : 1]))
      if (!right) return void socket.end()
    }
    const [, , , type = 0] = await read(4)
    const host =
      type === 3 ? (await read((await read(1))[0] ?? 0)).toString() : [...(await read(type === 1 ? 4 : 16))].join('.')
    asked.push(`${host}:${(await read(2)).readUInt16BE()}`)
    relay(socket, options.to, sockets, () => {
      const answer = Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
      socket.write(Buffer.concat([answer, options.early ?? Buffer.alloc(0)]))
    })
  }
}

function relay(socket: Socket, port: number, sockets: Set<Socket>, onConnect: () => void): void {
  const out = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  sockets.add(out).add(socket)
  out.on('error', () => socket.destroy())
  out.on('close', () => socket.destroy())
  socket.on('close', () => out.destroy())
  out.once('connect', () => {
    onConnect()
    socket.pipe(out)
    out.pipe(socket)
  })
}

/** Reads an exact number of bytes; what follows stays in the stream. */
function reader(socket: Socket): (length: number) => Promise<Buffer> {
  return async (length) => {
    if (length === 0) return Buffer.alloc(0)
    for (;;) {
      const bytes: Buffer | null = socket.read(length)
      if (bytes) return bytes
      if (socket.readableEnded) throw new Error('ended')
      await once(socket, 'readable')
    }
  }
}
