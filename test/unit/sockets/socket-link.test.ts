import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import type { Link } from '../../../lib/core/index.ts'
import { listen, listenSockets, unlisten } from '../../../lib/sockets/listen.ts'
import { adoptSocket, SocketLink } from '../../../lib/sockets/socket-link.ts'

test('a connection that is taken over reads bulk in large pieces, also for a sink without a buffer', async (t) => {
  let take: (socket: Socket) => void = () => {}
  const accepted = new Promise<Socket>((resolve) => {
    take = resolve
  })
  const server = await listenSockets({ host: '127.0.0.1', port: 0 }, 'here', (socket) => take(socket))
  t.after(() => unlisten(server))
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  const client = connect(address.port, '127.0.0.1')
  t.after(() => client.destroy())
  const bytes = randomBytes(4_000_000)
  client.end(bytes)
  await once(client, 'connect')
  const link = adoptSocket(await accepted, { remote: undefined, transport: 'tcp', head: Buffer.from('first') })
  t.after(() => link.destroy())
  const hash = createHash('sha256')
  let pieces = 0
  await new Promise<void>((resolve) => {
    link.start({
      received(piece) {
        pieces++
        hash.update(piece)
        return true
      },
      drained() {},
      ended: resolve,
      closed() {},
    })
  })
  assert.equal(hash.digest('hex'), createHash('sha256').update('first').update(bytes).digest('hex'))
  assert.ok(pieces < 500, `${pieces} pieces`)
})

for (const [who, bytes] of [
  ['answers that of the far side, is the whole end', 64],
  ['comes while something waits to be written, waits for that', 8_000_000],
] as const) {
  test(`an end that ${who}`, async (t) => {
    let take: (link: Link) => void = () => {}
    const accepted = new Promise<Link>((resolve) => {
      take = resolve
    })
    const server = await listen({ host: '127.0.0.1', port: 0 }, 'here', (link) => take(link))
    t.after(() => unlisten(server))
    const address = server.address()
    assert.ok(typeof address === 'object' && address)
    const client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
    t.after(() => client.destroy())
    client.end('all that I have')
    const link = await accepted
    t.after(() => link.destroy())
    assert.ok(link instanceof SocketLink)
    const closed = new Promise<Error | undefined>((resolve) => {
      link.start({
        received: () => true,
        drained() {},
        ended() {
          // The first write goes through the `Socket`, which shows how to go past it.
          link.write([Buffer.from('!')])
          setImmediate(() => {
            link.write([Buffer.alloc(bytes, 'x')])
            const waits = link.pending > 0
            assert.equal(waits, bytes > 64)
            link.end()
            assert.equal(link.socket.destroyed, !waits)
          })
        },
        closed: resolve,
      })
    })
    let came = 0
    for await (const piece of client) came += piece.length
    assert.equal(came, bytes + 1)
    assert.equal(await closed, undefined)
  })
}
