import assert from 'node:assert/strict'
import test from 'node:test'
import { Lazy } from '../../../lib/sockets/lazy.ts'

test('what is lazy is made once, and again where that has failed', async () => {
  let count = 0
  const lazy = new Lazy(async () => {
    count++
    if (count === 1) throw new Error('too many open files')
    return count
  })
  const used: number[] = []
  lazy.ifMade((made) => used.push(made))
  assert.equal(count, 0, 'nothing is made to be closed')
  const failing = lazy.get()
  // Left alone, a rejection here would end the process.
  lazy.ifMade((made) => used.push(made))
  await assert.rejects(failing, /too many/)
  assert.deepEqual(await Promise.all([lazy.get(), lazy.get()]), [2, 2])
  lazy.ifMade((made) => used.push(made))
  await lazy.get()
  assert.deepEqual([count, used], [2, [2]])
  lazy.forget()
  assert.equal(await lazy.get(), 3)
})
