import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { LinkSink } from '../../../lib/core/index.ts'
import { connectLink, type SocketLink } from '../../../lib/sockets/socket-link.ts'

interface Heard {
  drained: number
  ended: boolean
  closed: Error | true | undefined
}

/** A link, the far end of its connection, which has read nothing yet, and what the link has told. */
async function pair(t: TestContext): Promise<{ link: SocketLink; far: Socket; heard: Heard }> {
  const server: Server = createServer({ pauseOnConnect: true, allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  const accepted = once(server, 'connection')
  const link = connectLink({ host: '127.0.0.1', port: address.port, noDelay: true })
  await once(link.socket, 'connect')
  const [far] = (await accepted) as [Socket]
  far.on('error', () => {})
  t.after(() => {
    far.destroy()
    link.destroy()
  })
  const heard: Heard = { drained: 0, ended: false, closed: undefined }
  const sink: LinkSink = {
    received: () => true,
    drained: () => void heard.drained++,
    ended: () => {
      heard.ended = true
    },
    closed: (error) => {
      heard.closed = error ?? true
    },
  }
  link.start(sink)
  return { link, far, heard }
}

/** Whatever the link's `Socket` has been asked to write. */
function spy(link: SocketLink): { writes: number } {
  const seen = { writes: 0 }
  const { write } = link.socket
  link.socket.write = ((...args: Parameters<typeof write>) => {
    seen.writes++
    return write.apply(link.socket, args)
  }) as typeof write
  return seen
}

function digest(far: Socket): Promise<string> {
  const hash = createHash('sha256')
  far.on('data', (piece: Buffer) => hash.update(piece))
  far.resume()
  return once(far, 'end').then(() => hash.digest('hex'))
}

function sha256(chunks: readonly Buffer[]): string {
  return createHash('sha256').update(Buffer.concat(chunks)).digest('hex')
}

test('after its first write a link passes its Socket by', async (t) => {
  const { link, far } = await pair(t)
  const chunks = ['first ', 'second ', 'third ', 'fourth'].map((text) => Buffer.from(text))
  link.write(chunks.slice(0, 1))
  const seen = spy(link)
  link.write(chunks.slice(1, 2))
  link.write(chunks.slice(2))
  assert.equal(link.pending, 0)
  assert.equal(seen.writes, 0)
  link.end()
  assert.equal(await digest(far), sha256(chunks))
})

test('what the system does not take at once waits, in order, and is told of once when it has gone', async (t) => {
  const { link, far, heard } = await pair(t)
  const chunks = [Buffer.from('small'), randomBytes(8_000_000), Buffer.from('then'), randomBytes(300_000)]
  for (const chunk of chunks) link.write([chunk])
  link.write([Buffer.from('a'), Buffer.from('list')])
  assert.ok(link.pending > 0)
  assert.equal(heard.drained, 0)
  const got = digest(far)
  while (heard.drained === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(link.pending, 0)
  link.write([Buffer.from('last')])
  link.end()
  assert.equal(await got, sha256([...chunks, Buffer.from('alist'), Buffer.from('last')]))
  assert.equal(heard.drained, 1)
})

test('an end comes after what waits', async (t) => {
  const { link, far } = await pair(t)
  const chunks = [randomBytes(10), randomBytes(8_000_000)]
  for (const chunk of chunks) link.write([chunk])
  link.end()
  assert.ok(link.pending > 0)
  assert.equal(await digest(far), sha256(chunks))
})

test('nothing waits any more when the link is destroyed, and nobody is told of room', async (t) => {
  const { link, heard } = await pair(t)
  for (let n = 0; n < 3; n++) link.write([randomBytes(4_000_000)])
  assert.ok(link.pending > 0)
  link.destroy()
  assert.equal(link.pending, 0)
  await once(link.socket, 'close')
  assert.equal(heard.closed, true)
  assert.equal(heard.drained, 0)
  link.write([Buffer.from('nobody')])
  assert.equal(link.pending, 0)
})

test('a far side that is gone ends the link with the reason', async (t) => {
  const { link, far, heard } = await pair(t)
  link.write([randomBytes(10)])
  far.resetAndDestroy()
  // The reset may be noticed by a read or by a write.
  for (let n = 0; n < 200 && heard.closed === undefined; n++) {
    link.write([randomBytes(1000)])
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  assert.ok(heard.closed instanceof Error)
  assert.match(String((heard.closed as NodeJS.ErrnoException).code), /^E(PIPE|CONNRESET)$/)
})

test('what waits when the far side is gone ends the link with the reason', async (t) => {
  const { link, far, heard } = await pair(t)
  for (let n = 0; n < 3; n++) link.write([randomBytes(4_000_000)])
  assert.ok(link.pending > 0)
  far.resetAndDestroy()
  await new Promise((resolve) => link.socket.once('close', resolve))
  assert.ok(heard.closed instanceof Error)
  assert.equal(link.pending, 0)
})

test('a connection of another kind is written to through its Socket', async (t) => {
  const { link, far, heard } = await pair(t)
  const { _handle: handle } = link.socket as Socket & { _handle: object }
  Object.defineProperty(handle, 'writev', { value: undefined })
  const seen = spy(link)
  const chunks = [Buffer.from('one '), Buffer.from('two '), randomBytes(6_000_000)]
  link.write(chunks.slice(0, 1))
  link.write(chunks.slice(1, 2))
  link.write(chunks.slice(2))
  assert.equal(seen.writes >= 3, true)
  assert.ok(link.pending > 0)
  const got = digest(far)
  while (heard.drained === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  link.end()
  assert.equal(await got, sha256(chunks))
})
