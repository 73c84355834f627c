import assert from 'node:assert/strict'
import { once } from 'node:events'
import test from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { hosted } from '../../helpers/core/fake-host.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const REASON = new ProxyError('PROXY_ERR_RESET', 'reset')

test('it is connecting until the far side has connected, and says so once', async () => {
  const { sub } = hosted()
  assert.equal(sub.connecting, true)
  const connected = once(sub, 'connect')
  sub.onOpened(1000)
  await connected
  assert.equal(sub.connecting, false)
  assert.throws(() => sub.onOpened(1000), { code: 'PROXY_ERR_FRAME' })
})

test('no more is sent than there is credit for, and the rest when credit comes', async () => {
  const { sub, host } = hosted({ credit: 10 })
  const written = new Promise((resolve) => sub.write(Buffer.alloc(25, 1), resolve))
  assert.equal(Buffer.concat(host.data).length, 10)
  sub.onCredit(8)
  assert.equal(host.calls.at(-1), 'queue')
  assert.equal(sub.onWritable(100), false, 'no credit is left')
  assert.equal(Buffer.concat(host.data).length, 18)
  sub.onCredit(100)
  assert.equal(sub.onWritable(100), false)
  await written
  assert.equal(Buffer.concat(host.data).length, 25)
  assert.equal(sub.bytesWritten, 25)
})

test('a turn is no longer than the host allows', () => {
  const { sub, host } = hosted({ credit: 1000 })
  host.room = 0
  sub.write(Buffer.alloc(100))
  host.room = Number.POSITIVE_INFINITY
  assert.equal(sub.onWritable(30), true, 'more waits')
  assert.equal(host.data[0]?.length, 30)
})

test('the window that comes with opened takes the place of the early one', () => {
  const { sub, host } = hosted({ credit: 16_384 })
  sub.write(Buffer.alloc(16_384))
  sub.write(Buffer.alloc(16_384))
  sub.onOpened(20_000)
  while (sub.onWritable(65_536));
  assert.equal(Buffer.concat(host.data).length, 20_000)
})

test('an early window that was larger is made up for before anything more is sent', () => {
  const { sub, host } = hosted({ credit: 16_384 })
  sub.write(Buffer.alloc(20_000))
  sub.onOpened(4096)
  assert.equal(sub.onWritable(65_536), false)
  sub.onCredit(12_288)
  assert.equal(sub.onWritable(65_536), false)
  assert.equal(Buffer.concat(host.data).length, 16_384)
  sub.onCredit(1)
  sub.onWritable(65_536)
  assert.equal(Buffer.concat(host.data).length, 16_385)
})

test('tryWrite sends what goes, and nothing while something waits', () => {
  const { sub, host } = hosted({ credit: 10 })
  assert.equal(sub.tryWrite(Buffer.alloc(4)), 4)
  assert.equal(sub.tryWrite(Buffer.alloc(10)), 6)
  sub.write(Buffer.alloc(1))
  sub.onCredit(100)
  assert.equal(sub.tryWrite(Buffer.alloc(1)), 0)
  sub.onWritable(100)
  sub.end()
  assert.equal(sub.tryWrite(Buffer.alloc(1)), 0)
  assert.equal(Buffer.concat(host.data).length, 11)
})

test('fin never overtakes data', async () => {
  const { sub, host } = hosted({ credit: 1 })
  sub.end(Buffer.alloc(3))
  await turn()
  assert.deepEqual(host.calls, [])
  sub.onCredit(2)
  sub.onWritable(100)
  await turn()
  assert.deepEqual(host.calls, ['queue', 'fin'])
})

test('credit beyond all bounds is refused', () => {
  const { sub } = hosted()
  assert.throws(
    () => {
      while (true) sub.onCredit(Number.MAX_SAFE_INTEGER)
    },
    { code: 'PROXY_ERR_FRAME' },
  )
})

test('data beyond the window is refused', () => {
  const { sub } = hosted({ window: 10_000 })
  sub.onData(Buffer.alloc(10_000))
  assert.throws(() => sub.onData(Buffer.alloc(1)), { code: 'PROXY_ERR_WINDOW_EXCEEDED' })
})

test('data after fin, and a second end, are refused', () => {
  const { sub } = hosted()
  sub.onFin()
  assert.throws(() => sub.onData(Buffer.alloc(1)), { code: 'PROXY_ERR_DATA_AFTER_FIN' })
  assert.throws(() => sub.onFin(), { code: 'PROXY_ERR_DATA_AFTER_FIN' })
  sub.onReset(REASON)
  assert.throws(() => sub.onReset(REASON), { code: 'PROXY_ERR_DATA_AFTER_FIN' })
})

for (const window of [4096, 16_384, 65_536, 262_144]) {
  for (const piece of [1024, 16_384, 65_536, 262_144]) {
    if (piece > window) continue
    const fill = (): ReturnType<typeof hosted> => {
      const it = hosted({ window })
      for (let sent = 0; sent < window; sent += piece) it.sub.onData(Buffer.alloc(piece))
      assert.equal(it.host.credit, 0, 'nothing was read yet')
      return it
    }
    const what = `a window of ${window} that was filled by pieces of ${piece} before anybody read`

    test(`credit comes back for ${what}: flowing`, async () => {
      const { sub, host } = fill()
      sub.resume()
      await turn()
      await turn()
      assert.equal(sub.readableLength, 0)
      assert.ok(host.credit >= window / 2, `${host.credit}`)
    })

    test(`credit comes back for ${what}: read`, async () => {
      const { sub, host } = fill()
      while (sub.read() !== null);
      await turn()
      assert.equal(sub.readableLength, 0)
      assert.ok(host.credit >= window / 2, `${host.credit}`)
    })
  }
}

test('credit is withheld for what the program behind it has not taken', () => {
  const { sub, host } = hosted({ window: 10_000 })
  const written: Buffer[] = []
  const downstream = { pending: 0, write: (chunks: readonly Uint8Array[]) => void written.push(Buffer.concat(chunks)) }
  sub.onData(Buffer.alloc(1000, 1))
  sub.joined(downstream)
  downstream.pending = 10_000
  sub.onData(Buffer.alloc(9000, 2))
  const lengths = (): number[] => written.map(({ length }) => length)
  assert.deepEqual(lengths(), [1000], 'what came early is handed on as well, and what it has no room for waits')
  assert.equal(host.credit, 0)
  downstream.pending = 0
  downstream.write = (chunks) => {
    written.push(Buffer.concat(chunks))
    downstream.pending = 5001
  }
  sub.release()
  assert.deepEqual(lengths(), [1000, 9000])
  assert.equal(host.credit, 0)
  downstream.pending = 4000
  sub.release()
  assert.equal(host.credit, 6000)
})

test('one that is joined ends when the other side has finished', async () => {
  for (const first of ['joined', 'fin'] as const) {
    const { sub } = hosted()
    const ended = once(sub, 'end')
    if (first === 'fin') sub.onFin()
    sub.joined({ pending: 0, write() {} })
    if (first === 'joined') sub.onFin()
    await ended
  }
})

test('canWrite calls back once there is credit and room', () => {
  const { sub, host } = hosted({ credit: 1 })
  let called = 0
  assert.equal(
    sub.canWrite(() => called++),
    true,
  )
  host.congested = true
  assert.equal(
    sub.canWrite(() => called++),
    false,
  )
  assert.deepEqual(host.calls, ['queue'])
  sub.onWritable(100)
  assert.equal(called, 1)
  host.congested = false
  sub.write('x')
  assert.equal(
    sub.canWrite(() => called++),
    false,
    'no credit',
  )
  sub.onCredit(1)
  assert.deepEqual(host.calls, ['queue', 'queue'])
  sub.onWritable(100)
  sub.onWritable(100)
  assert.equal(called, 2)
})

test('who waits behind a chunk is called when that has gone', () => {
  const { sub } = hosted({ credit: 0 })
  sub.write('abc')
  let called = 0
  assert.equal(
    sub.canWrite(() => called++),
    false,
  )
  sub.onCredit(10)
  assert.equal(sub.onWritable(100), true, 'it has another turn')
  assert.equal(called, 0)
  assert.equal(sub.onWritable(100), false)
  assert.equal(called, 1)
})

test('no credit is sent after the other side has finished, or this side has reset', async () => {
  for (const end of ['fin', 'reset'] as const) {
    const { sub, host } = hosted({ window: 10_000 })
    sub.onData(Buffer.alloc(10_000))
    if (end === 'fin') sub.onFin()
    else sub.destroy()
    sub.resume()
    await turn()
    assert.equal(host.credit, 0, end)
  }
})

test('a small piece does not keep a large slice alive', async () => {
  const { sub } = hosted()
  const slice = Buffer.alloc(65_536, 7)
  sub.onData(slice.subarray(0, 100))
  const [piece] = await Promise.all([once(sub, 'data')])
  const bytes: Buffer = piece[0]
  assert.equal(bytes.length, 100)
  assert.ok(bytes.buffer !== slice.buffer)
})

test('of a small slice a link that copies gets the piece itself, of a large one a copy', () => {
  for (const [whole, itself] of [
    [16_384, true],
    [16_385, false],
  ] as const) {
    const { sub } = hosted()
    const written: Uint8Array[] = []
    sub.joined({ pending: 0, copies: true, write: (chunks) => void written.push(...chunks) })
    const slice = Buffer.alloc(whole, 7)
    assert.equal(sub.onData(slice.subarray(0, 100)), true)
    assert.equal(written[0]?.length, 100)
    assert.equal(written[0]?.buffer === slice.buffer, itself, `${whole}`)
  }
})

test('an id is free when each side has sent its last frame and the stream is closed', async () => {
  const { sub, host } = hosted()
  sub.end()
  sub.onFin()
  sub.resume()
  await once(sub, 'close')
  assert.deepEqual(host.calls, ['fin', 'ended'])
})

test('after this side was destroyed the id stays until the other side has answered', async () => {
  const { sub, host } = hosted()
  sub.destroy()
  await turn()
  assert.deepEqual(host.calls, ['reset'])
  sub.onData(Buffer.alloc(5))
  assert.equal(sub.over, false)
  sub.onReset(REASON)
  assert.deepEqual(host.calls, ['reset', 'ended'])
})

test('after this side was destroyed a fin of the other side frees the id as well', async () => {
  const { sub, host } = hosted()
  sub.destroy()
  await turn()
  sub.onFin()
  assert.deepEqual(host.calls, ['reset', 'ended'])
})

test('a reset is answered by a reset', async () => {
  const { sub, host } = hosted()
  const failed = once(sub, 'error')
  sub.onReset(REASON)
  assert.equal((await failed)[0], REASON)
  await turn()
  assert.deepEqual(host.calls, ['reset', 'ended'])
})

test('a reset that comes after the fin of this side frees the id', async () => {
  const { sub, host } = hosted()
  sub.end()
  await turn()
  sub.onReset(REASON)
  await turn()
  assert.equal(host.calls[0], 'fin')
  assert.equal(host.calls.at(-1), 'ended')
})

test('the reason of a destroy travels with the reset', async () => {
  for (const [error, call] of [
    [new ProxyError('PROXY_ERR_X', 'x'), 'reset PROXY_ERR_X'],
    [new Error('plain'), 'reset PROXY_ERR_RESET'],
  ] as const) {
    const { sub, host } = hosted()
    sub.destroy(error)
    await turn()
    assert.deepEqual(host.calls, [call])
  }
})

test('a write that waits for credit fails when the sub-connection is reset', async () => {
  const { sub } = hosted({ credit: 0 })
  const failed = new Promise<Error | null | undefined>((resolve) => sub.write('x', resolve))
  sub.onReset(REASON)
  assert.equal(await failed, REASON)
})

test('when the session is lost nothing is sent any more', async () => {
  const { sub, host } = hosted()
  sub.onLost(REASON)
  await turn()
  assert.deepEqual(host.calls, ['ended'])
})
