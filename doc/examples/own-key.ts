// A TCP connection, an authentication and an AES-128 key of one's own; symport does the rest.
// In a program of your own: import from 'symport'.
//
// The authentication here: both ends hold 32 random bytes. Each sends a challenge, each proves that it can answer the
// other's, and the key comes out of the secret and both challenges. symport mixes in fresh random bytes once more, so a
// key that is used for a second link never repeats a nonce.
import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { connectWithKey, linkFrom, Proxy, type Role, tcp } from '../../lib/index.ts'

const secret = randomBytes(32)

async function read(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const bytes: Buffer | null = socket.read(length)
    if (bytes?.length === length) return bytes
    if (bytes || socket.readableEnded) throw new Error('the other side went away')
    await once(socket, 'readable')
  }
}

async function authenticate(socket: Socket, role: Role): Promise<Buffer> {
  const mine = randomBytes(32)
  socket.write(mine)
  const theirs = await read(socket, 32)
  const both = role === 'dialler' ? [mine, theirs] : [theirs, mine]
  const proof = (of: Role): Buffer => createHmac('sha256', secret).update(of).update(Buffer.concat(both)).digest()
  socket.write(proof(role))
  const answer = await read(socket, 32)
  if (!timingSafeEqual(answer, proof(role === 'dialler' ? 'acceptor' : 'dialler'))) throw new Error('who is this?')
  return Buffer.from(hkdfSync('sha256', secret, Buffer.concat(both), 'my main connection', 16))
}

async function proxyOn(socket: Socket, role: Role): Promise<Proxy> {
  const key = await authenticate(socket, role)
  return new Proxy(await connectWithKey(linkFrom(socket), { key, role }), { domains: [tcp()] })
}

// The main connection: one end accepts it, the other dials it.
const gate = createServer({ allowHalfOpen: true, noDelay: true }).listen(0, '127.0.0.1')
await once(gate, 'listening')
const dialledSocket = connect({
  port: (gate.address() as AddressInfo).port,
  host: '127.0.0.1',
  allowHalfOpen: true,
  noDelay: true,
})
const [acceptedSocket] = (await once(gate, 'connection')) as [Socket]
gate.close()
const [server, node] = await Promise.all([proxyOn(acceptedSocket, 'acceptor'), proxyOn(dialledSocket, 'dialler')])

// Something behind the node, and a listener of the server that leads there.
const target = createServer((socket) => socket.end('hello from behind the node\n')).listen(0, '127.0.0.1')
await once(target, 'listening')
const listener = await server.newListener({
  Listen: { Domain: 'tcp', Addr: '127.0.0.1:0' },
  Forward: { Domain: 'tcp', Addr: `127.0.0.1:${(target.address() as AddressInfo).port}` },
})

const port = Number(listener.bound.Addr.split(':').at(-1))
process.stdout.write(await text(connect(port, '127.0.0.1')))

await server.drain()
await node.closed
target.close()
