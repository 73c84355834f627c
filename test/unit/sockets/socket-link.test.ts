import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { listenSockets, unlisten } from '../../../lib/sockets/listen.ts'
import { adoptSocket } from '../../../lib/sockets/socket-link.ts'

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
