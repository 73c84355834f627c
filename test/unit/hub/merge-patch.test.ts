import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { mergePatch, patchSchema } from '../../../lib/hub/merge-patch.ts'

const NONE: ReadonlySet<string> = new Set()

test('patches merge as the examples of RFC 7396 do (appendix A)', () => {
  const examples: readonly (readonly [unknown, unknown, unknown])[] = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ a: 'foo' }, 'bar', 'bar'],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ]
  for (const [target, patch, result] of examples) assert.deepEqual(mergePatch(target, patch, NONE), result)
})

test('what is left out, or is undefined, stays, and the target is another object', () => {
  const target = { a: { b: 1, c: 2 } }
  assert.deepEqual(mergePatch(target, { a: { b: undefined, c: 3 }, d: undefined }, NONE), { a: { b: 1, c: 3 } })
  assert.deepEqual(target, { a: { b: 1, c: 2 } })
})

test('what is replaced as a whole may have null in it', () => {
  const whole = new Set(['headers'])
  const before = { headers: { a: '1', b: '2' } }
  assert.deepEqual(mergePatch(before, { headers: { c: null } }, whole), { headers: { c: null } })
  assert.deepEqual(mergePatch(before, { headers: null }, whole), {})
})

test('no key reaches a prototype', () => {
  const merged = mergePatch({}, JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"x": 1}}'), NONE)
  assert.equal(Object.getPrototypeOf(merged), Object.prototype)
  assert.equal('polluted' in {}, false)
})

test('the shape of a patch knows the keys, takes null for each, and leaves the rest to what comes of it', () => {
  const schema = patchSchema(
    v.strictObject({
      name: v.string(),
      many: v.optional(v.pipe(v.array(v.string()), v.maxLength(2))),
      inner: v.optional(v.strictObject({ count: v.optional(v.number()) })),
      byName: v.optional(
        v.pipe(
          v.record(v.string(), v.string()),
          v.check(() => false),
        ),
      ),
    }),
  )
  const good = [{}, { name: null }, { inner: { count: null } }, { inner: null }, { byName: { a: null, b: 'x' } }]
  for (const patch of good) assert.equal(v.is(schema, patch), true, JSON.stringify(patch))
  for (const patch of [{ nane: null }, { inner: { cont: null } }, { many: ['a', 'b', 'c'] }, { name: 1 }, null, [1]]) {
    assert.equal(v.is(schema, patch), false, JSON.stringify(patch))
  }
})
