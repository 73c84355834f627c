import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import test from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { localPair } from '../../../lib/core/local-pair.ts'
import type { SubConnection } from '../../../lib/core/sub-connection.ts'

/** A pair as the hub uses it: what came in, and what was dialled for it. */
function connected(remote?: string): [SubConnection, SubConnection] {
  const [near, far] = localPair(remote)
  far.accepted()
  return [near, far]
}

/** All that comes; unlike `node:stream/consumers`, it leaves the other direction alone. */
async function read(sub: SubConnection): Promise<Buffer> {
  const chunks: Buffer[] = []
  sub.on('data', (chunk) => chunks.push(chunk))
  await once(sub, 'end')
  return Buffer.concat(chunks)
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('bytes pass both ways, in order and each once', async () => {
  const [near, far] = connected()
  const [up, down] = [randomBytes(3_000_000), randomBytes(2_000_000)]
  near.end(up)
  far.end(down)
  const [came, went] = await Promise.all([read(far), read(near)])
  assert.ok(came.equals(up))
  assert.ok(went.equals(down))
})

test('both ends know who came in', () => {
  const [near, far] = localPair('192.0.2.1:7')
  assert.deepEqual([near.remote, far.remote], ['192.0.2.1:7', '192.0.2.1:7'])
  assert.deepEqual(localPair()[0].remote, undefined)
})

test('half-close: one direction ends, the other goes on', async () => {
  const [near, far] = connected()
  near.end('question')
  assert.equal((await read(far)).toString(), 'question')
  assert.equal(near.destroyed, false)
  far.write('answer, ')
  await turn()
  far.end('and more')
  assert.equal((await read(near)).toString(), 'answer, and more')
})

test('what is written before the far side has connected arrives', async () => {
  const [near, far] = localPair()
  near.end('early')
  await turn()
  far.accepted()
  assert.equal((await read(far)).toString(), 'early')
  far.end()
  near.resume()
  await once(near, 'close')
})

test('a far side that does not read holds the near side back', async () => {
  const [near, far] = connected()
  let written = 0
  let busy = true
  const chunk = Buffer.alloc(65_536)
  while (busy) {
    busy = near.write(chunk)
    written += chunk.length
    await turn()
    if (near.writableNeedDrain) busy = false
  }
  await turn()
  const stuck = near.bytesWritten
  assert.ok(stuck <= far.window, `${stuck} bytes of ${far.window}`)
  near.end()
  assert.equal((await read(far)).length, written)
})

test('bytes may be used again as soon as tryWrite has answered', async () => {
  const [near, far] = connected()
  const bytes = Buffer.from('once')
  assert.equal(near.tryWrite(bytes), 4)
  bytes.fill(0)
  near.end()
  assert.equal((await read(far)).toString(), 'once')
})

test('an error here is the reason there', async () => {
  const [near, far] = connected()
  const failed = once(far, 'error')
  near.destroy(new ProxyError('PROXY_ERR_DIAL_FAILED', 'nothing listens there'))
  const [error] = await failed
  assert.equal(error.code, 'PROXY_ERR_DIAL_FAILED')
  assert.equal(far.destroyed, true)
})

test('an end that is destroyed closes the other', async () => {
  const [near, far] = connected()
  const failed = once(near, 'error')
  far.destroy()
  const [error] = await failed
  assert.equal(error.code, 'PROXY_ERR_RESET')
  assert.equal(near.destroyed, true)
})

test('once both directions have ended, both ends close', async () => {
  const [near, far] = connected()
  const closed = Promise.all([once(near, 'close'), once(far, 'close')])
  near.resume().end()
  far.resume().end()
  await closed
  assert.deepEqual([near.over, far.over], [true, true])
})
