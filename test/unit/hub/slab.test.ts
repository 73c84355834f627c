import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Slab } from '../../../lib/hub/slab.ts'

test('what was added is there until it is removed, and its place is given to the next one', () => {
  const slab = new Slab<{ name: string }>()
  const [a, b, c] = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
  const places = [slab.add(a), slab.add(b)]
  assert.equal(slab.size, 2)
  assert.deepEqual([...slab], [a, b])
  slab.remove(places[0] ?? -1)
  assert.equal(slab.size, 1)
  assert.deepEqual([...slab], [b])
  assert.equal(slab.add(c), places[0])
  assert.deepEqual([...slab], [c, b])
})

test('those that leave while somebody looks at all of them are not seen any more', () => {
  const slab = new Slab<{ place: number }>()
  const all = [0, 1, 2, 3].map(() => ({ place: 0 }))
  for (const one of all) one.place = slab.add(one)
  const seen: number[] = []
  for (const one of slab) {
    seen.push(one.place)
    slab.remove(one.place)
    if (one.place === 0) slab.remove(1)
  }
  assert.deepEqual(seen, [0, 2, 3])
  assert.equal(slab.size, 0)
})
