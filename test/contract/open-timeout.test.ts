import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { SINK } from '../helpers/contract/attacker.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u32 } from '../helpers/core/bytes.ts'
import { rawPeer } from '../helpers/core/raw-peer.ts'

watchForStrays()

const limits = { openTimeout: 60 }

for (const role of ['dialler', 'acceptor'] as const) {
  test(`an open that the ${role} does not answer in time is given up, and the answer may still come`, async () => {
    await using raw = await rawPeer(role, { main: { limits } })
    const began = performance.now()
    const late = raw.proxy.dial(SINK)
    const { id } = await raw.next(Frame.open)
    await soon(assert.rejects(late, { code: 'PROXY_ERR_OPEN_TIMEOUT', retryable: true }), 'the end of the dial')
    assert.ok(performance.now() - began >= limits.openTimeout - 1)
    const { payload } = await raw.next(Frame.reset, id)
    assert.match(payload.toString('latin1'), /PROXY_ERR_OPEN_TIMEOUT/)
    raw.send(frame(Frame.opened, id, u32(100)), frame(Frame.reset, id, Buffer.from([0])))
    // Another one, answered in time, is not touched by it.
    const next = raw.proxy.dial(SINK)
    raw.send(frame(Frame.opened, (await raw.next(Frame.open)).id, u32(100)))
    const sub = await next
    await new Promise((resolve) => setTimeout(resolve, 2 * limits.openTimeout))
    assert.equal(sub.destroyed, false)
    assert.equal([...raw.proxy.subConnections].length, 1)
  })
}

test('opens are given up in the order in which they came, each after its own time', async () => {
  await using raw = await rawPeer('acceptor', { main: { limits } })
  const ends: string[] = []
  const dial = async (name: string): Promise<void> => {
    const begun = performance.now()
    await assert.rejects(raw.proxy.dial(SINK))
    ends.push(name)
    assert.ok(performance.now() - begun >= limits.openTimeout - 1, `${name} was given up early`)
  }
  const first = dial('first')
  await new Promise((resolve) => setTimeout(resolve, limits.openTimeout / 2))
  const second = dial('second')
  await first
  await soon(second, 'the second')
  assert.deepEqual(ends, ['first', 'second'])
})
