import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { IdTable } from '../../../lib/core/id-table.ts'

interface Value {
  readonly name: number
}

test('an empty table has nothing', () => {
  const table = new IdTable<Value>()
  assert.equal(table.size, 0)
  assert.equal(table.get(1), undefined)
  assert.equal(table.has(0), false)
  assert.equal(table.delete(1), false)
  assert.equal(table.delete(0), false)
  assert.deepEqual(table.values(), [])
})

test('the largest id is one like any other', () => {
  const table = new IdTable<Value>()
  const [first, last] = [{ name: 1 }, { name: 2 }]
  table.set(1, first)
  table.set(0xffff_ffff, last)
  assert.equal(table.get(0xffff_ffff), last)
  assert.equal(table.delete(0xffff_ffff), true)
  assert.equal(table.get(0xffff_ffff), undefined)
  assert.equal(table.get(1), first)
})

test('a value that is set again replaces the one before', () => {
  const table = new IdTable<Value>()
  table.set(3, { name: 1 })
  table.set(3, { name: 2 })
  assert.equal(table.size, 1)
  assert.deepEqual(table.get(3), { name: 2 })
})

test('whatever comes and goes, it has what a Map has', () => {
  const id = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 0xffff_ffff }))
  const step = fc.record({ what: fc.constantFrom('set', 'set', 'delete', 'get'), id })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = new IdTable<Value>()
      const map = new Map<number, Value>()
      for (const [name, { what, id }] of steps.entries()) {
        if (what === 'set') {
          map.set(id, { name })
          table.set(id, map.get(id) ?? { name })
        } else if (what === 'delete') {
          assert.equal(table.delete(id), map.delete(id))
        }
        assert.equal(table.get(id), map.get(id))
        assert.equal(table.size, map.size)
      }
      for (const [id, value] of map) assert.equal(table.get(id), value)
      const byName = (a: Value, b: Value): number => a.name - b.name
      assert.deepEqual(table.values().sort(byName), [...map.values()].sort(byName))
    }),
    { numRuns: 300 },
  )
})

test('what goes while somebody looks at all of them changes nothing', () => {
  const table = new IdTable<Value>()
  for (let id = 1; id <= 100; id++) table.set(id, { name: id })
  const seen = new Set<number>()
  for (const { name } of table.values()) {
    seen.add(name)
    table.delete(name)
    table.delete(name === 100 ? 1 : name + 1)
  }
  assert.equal(seen.size, 100)
  assert.equal(table.size, 0)
})

test('ids that collide in a table without a factor of its own do not here', () => {
  const table = new IdTable<Value>()
  const count = 20_000
  const started = performance.now()
  for (let n = 1; n <= count; n++) table.set(n * 65_536, { name: n })
  for (let n = 1; n <= count; n++) assert.equal(table.get(n * 65_536)?.name, n)
  for (let n = 1; n <= count; n++) assert.equal(table.delete(n * 65_536), true)
  // One behind the other they would take 20,000 times 10,000 looks, three times: seconds.
  assert.ok(performance.now() - started < 1000)
})
