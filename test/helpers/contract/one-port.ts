import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import { Acceptor, type Link, type ProxyError } from '../../../lib/core/index.ts'
import { Proxy } from '../../../lib/core/proxy.ts'
import { listenOnePort, type OnePortOptions } from '../../../lib/transports/one-port.ts'
import { echo } from '../core/echo-domain.ts'
import { Identity } from '../transports/authority.ts'

export const PSK: Buffer = Buffer.alloc(32, 0x51)

export interface TestCertificate {
  readonly pem: string
  readonly context: SecureContext
}

/** A certificate of `localhost` that signs itself. */
export function selfSigned(): TestCertificate {
  const { key, cert } = Identity.create('localhost', { ca: true, purpose: 'any' })
  return { pem: cert, context: createSecureContext({ key, cert }) }
}

export interface OnePortServer extends AsyncDisposable {
  readonly port: number
  readonly path: string
  /** All links, in the order in which they came. */
  readonly links: readonly Link[]
  /** What onRejected was told: the code, and whom it was about. */
  readonly rejected: readonly { readonly code: ProxyError['code']; readonly remote: string | undefined }[]
  close(): Promise<void>
}

/** A server of one port, whose Proxies echo; with `take`, links go there instead. */
export async function onePortServer(
  options: OnePortOptions & { host?: string; socketPath?: string; take?: (link: Link) => void } = {},
): Promise<OnePortServer> {
  const { host = '127.0.0.1', socketPath, take, ...settings } = options
  const acceptor = new Acceptor({ pskFor: async () => PSK, timeout: settings.timeout })
  const links: Link[] = []
  const rejected: { code: ProxyError['code']; remote: string | undefined }[] = []
  const proxies: Proxy[] = []
  const accept = async (link: Link): Promise<void> => {
    const accepted = await acceptor.accept(link).catch(() => undefined)
    if (accepted) proxies.push(new Proxy(accepted.main, { domains: [echo] }))
  }
  const listener = await listenOnePort(
    socketPath === undefined ? { host, port: 0 } : { path: socketPath },
    { onRejected: (remote, { code }) => rejected.push({ code, remote }), ...settings },
    (link) => {
      links.push(link)
      if (take) take(link)
      else void accept(link)
    },
  )
  return {
    port: Number(listener.address.split(':').at(-1)),
    path: listener.address,
    links,
    rejected,
    close: () => listener.close(),
    async [Symbol.asyncDispose]() {
      for (const proxy of proxies) proxy.close()
      await Promise.all(proxies.map((proxy) => proxy.closed))
      for (const link of links) link.destroy()
      await listener.close()
    },
  }
}

/** A connection of a stranger. What comes back is kept. */
export interface Stranger {
  readonly socket: Socket
  readonly got: Buffer[]
  /** It is closed, by whichever side. */
  readonly closed: Promise<unknown>
}

export async function stranger(to: number | string, host = '127.0.0.1'): Promise<Stranger> {
  const socket = typeof to === 'number' ? connect(to, host) : connect(to)
  socket.setNoDelay(true)
  const got: Buffer[] = []
  socket.on('data', (chunk: Buffer) => got.push(chunk))
  socket.on('error', () => {})
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await once(socket, 'connect')
  return { socket, got, closed }
}

/** Writes byte by byte, each in a turn of the event loop of its own. */
export async function drip(socket: Socket, bytes: Uint8Array): Promise<void> {
  for (const byte of bytes) {
    socket.write(Uint8Array.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
}

export interface Dripper extends AsyncDisposable {
  readonly port: number
}

/** A relay to `port` that says `head` first, and passes that and the first `length` bytes of clients on one by one. */
export async function dripper(port: number, length: number, head: Uint8Array = Buffer.alloc(0)): Promise<Dripper> {
  const sockets = new Set<Socket>()
  const relay = createServer((client) => {
    const server = connect(port, '127.0.0.1')
    server.setNoDelay(true)
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(from)
      from.on('error', () => to.destroy())
      from.on('close', () => to.destroy())
    }
    server.pipe(client)
    let left = length
    let before = drip(server, head)
    client.on('data', (chunk: Buffer) => {
      const slowly = chunk.subarray(0, left)
      const rest = chunk.subarray(slowly.length)
      left -= slowly.length
      before = before.then(async () => {
        await drip(server, slowly)
        if (rest.length > 0) server.write(rest)
      })
    })
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  const address = relay.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      relay.close()
      await once(relay, 'close')
    },
  }
}

export interface HelloParts {
  readonly serverName?: string
  readonly alpn?: readonly string[]
  /** Bytes of an extension that says nothing. */
  readonly padding?: number
  /** Bytes of each record at most. */
  readonly record?: number
  /** Extensions as they are. */
  readonly extra?: readonly Buffer[]
}

/** A ClientHello by RFC 8446 section 4.1.2, in records. */
export function clientHello({ serverName, alpn, padding, record = 16_384, extra = [] }: HelloParts = {}): Buffer {
  const extensions = [...extra]
  if (serverName !== undefined) {
    extensions.push(extension(0, vector(2, Buffer.concat([Buffer.from([0]), vector(2, Buffer.from(serverName))]))))
  }
  if (alpn) extensions.push(extension(16, vector(2, Buffer.concat(alpn.map((name) => vector(1, Buffer.from(name)))))))
  if (padding !== undefined) extensions.push(extension(21, Buffer.alloc(padding)))
  const body = Buffer.concat([
    Buffer.from([3, 3]),
    Buffer.alloc(32, 0x77),
    vector(1, Buffer.alloc(32, 0x55)),
    vector(2, Buffer.from('130113021303c02f', 'hex')),
    vector(1, Buffer.from([0])),
    vector(2, Buffer.concat(extensions)),
  ])
  return inRecords(Buffer.concat([Buffer.from([1]), vector(3, body)]), record)
}

export function inRecords(message: Buffer, size: number): Buffer {
  const records: Buffer[] = []
  for (let at = 0; at < message.length; at += size) {
    records.push(Buffer.from([22, 3, 1]), vector(2, message.subarray(at, at + size)))
  }
  return Buffer.concat(records)
}

export function extension(type: number, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type >> 8, type & 0xff]), vector(2, body)])
}

export function vector(width: number, body: Buffer): Buffer {
  const length = Buffer.alloc(width)
  length.writeUIntBE(body.length, 0, width)
  return Buffer.concat([length, body])
}

/** A PROXY header of version 2: command and family as they are on the wire. */
export function proxyV2(command: number, family: number, rest: Buffer): Buffer {
  const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
  return Buffer.concat([signature, Buffer.from([command, family]), vector(2, rest)])
}
