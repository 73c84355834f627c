import assert from 'node:assert/strict'
import { setMaxListeners } from 'node:events'
import test from 'node:test'
import { Proxy } from '../../../lib/core/index.ts'
import type { Connected } from '../../../lib/hub/events.ts'
import { Pool } from '../../../lib/hub/pool.ts'
import { createProxyPair } from '../../../lib/testing.ts'

const never = new AbortController().signal
setMaxListeners(0, never)
let looks = 0

/** A peer that serves, or does not, as long as `serving` says so. */
function peer(id: string, state: { serving: boolean; resuming?: boolean } = { serving: true }): Connected {
  const proxy = Object.create(Proxy.prototype, {
    state: { get: () => (state.resuming ? 'resuming' : 'connected') },
    serving: {
      get: () => {
        looks++
        return state.serving
      },
    },
  })
  return { proxy, id, instance: id, connectedAt: new Date(0), remote: undefined, transport: undefined, enrolled: false }
}

test('without ids the first that connected and serves is picked', () => {
  const pool = new Pool()
  const state = { serving: false }
  const [first, second] = [peer('a', state), peer('b')]
  pool.add(first)
  pool.add(second)
  assert.equal(pool.pick(), second)
  state.serving = true
  assert.equal(pool.pick(), first)
  assert.equal(pool.pick('b'), second)
  assert.equal(pool.pick('c'), undefined)
  pool.remove(first)
  assert.equal(pool.pick('a'), undefined)
})

test('several ids are looked at in their order, with all instances of each', () => {
  const pool = new Pool()
  const peers = ['a', 'b', 'a', 'c'].map((id) => peer(id))
  for (const one of peers) pool.add(one)
  const [a1, b, a2] = peers
  assert.deepEqual([...pool.serving(['b', 'x', 'a'])], [b, a1, a2])
  assert.equal(pool.pick({ ids: ['b', 'a'] }), b)
  assert.equal(pool.pick({ ids: ['b', 'a'], prefer: (able) => [...able].at(-1) }), a2)
})

test('a pick by id does not look at those that are called otherwise', () => {
  const pool = new Pool()
  for (let i = 0; i < 500; i++) pool.add(peer(`node-${i}`))
  looks = 0
  assert.equal(pool.pick({ ids: ['node-499'] })?.id, 'node-499')
  assert.equal(pool.pick('node-300')?.id, 'node-300')
  assert.equal(looks, 2)
})

test('who waits gets the peer that comes, and after its patience an error that names whom it waited for', async () => {
  const pool = new Pool()
  const waiting = pool.wait({ ids: ['a', 'b'] }, never, 5000)
  pool.add(peer('c'))
  const b = peer('b')
  pool.add(b)
  assert.equal(await waiting, b)
  const code = 'PROXY_ERR_NO_PEER'
  await assert.rejects(pool.wait('x', never, 1), { code, message: 'node x is not connected' })
  await assert.rejects(pool.wait({ ids: ['x', 'y'] }, never, 1), {
    message: 'none of the nodes x, y is connected',
  })
  const many = { ids: ['1', '2', '3', '4', '5', '6', '7'] }
  await assert.rejects(pool.wait(many, never, 1), { message: /1, 2, 3, 4, 5 and 2 more is connected/ })
  await assert.rejects(new Pool().wait(undefined, never, 0), { message: 'the other side is not connected' })
})

test('one that has lost its link, and may go on, takes whoever has waited for it as long as that was to be', async () => {
  const pool = new Pool()
  const [other, lost] = [peer('b', { serving: false, resuming: true }), peer('a', { serving: false, resuming: true })]
  pool.add(other)
  pool.add(lost)
  assert.equal(await pool.wait({ ids: ['a'] }, never, 20), lost)
  assert.equal(await pool.wait(undefined, never, 20), other)
  const back = pool.wait({ ids: ['a', 'c'] }, never, 5000)
  const here = peer('c')
  pool.add(here)
  assert.equal(await back, here)
  await assert.rejects(pool.wait({ ids: ['a'] }, never, 0), { code: 'PROXY_ERR_NO_PEER' })
  await assert.rejects(pool.wait({ ids: ['d'] }, never, 20), { code: 'PROXY_ERR_NO_PEER' })
})

test('no more than 1,024 wait at once, and a signal gives up', async () => {
  const pool = new Pool()
  const stop = new AbortController()
  setMaxListeners(0, stop.signal)
  const waiting = Array.from({ length: 1024 }, () => pool.wait('a', stop.signal, 60_000))
  assert.equal(pool.room, 0)
  await assert.rejects(pool.wait('a', stop.signal, 60_000), { code: 'PROXY_ERR_NO_PEER' })
  stop.abort()
  const results = await Promise.allSettled(waiting)
  assert.ok(results.every(({ status }) => status === 'rejected'))
  assert.equal(pool.room, 1024)
})

test('a real Proxy is served by as long as it is connected', async () => {
  const pool = new Pool()
  await using pair = await createProxyPair()
  const where = { remote: undefined, transport: undefined, enrolled: false }
  pool.add({ proxy: pair.b, id: 'a', instance: '1', connectedAt: new Date(), ...where })
  assert.equal(pool.pick('a')?.proxy, pair.b)
  pair.b.close()
  await pair.b.closed
  assert.equal(pool.pick('a'), undefined)
})
