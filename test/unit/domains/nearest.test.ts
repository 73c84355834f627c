import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { nearest, typingDistance } from '../../../lib/domains/nearest.ts'

test('finds the word that was meant', () => {
  assert.equal(nearest('hots', ['port', 'host', 'help']), 'host')
  assert.equal(nearest('tpc', ['tcp', 'unix']), 'tcp')
  assert.equal(nearest('TCP', ['unix', 'tcp']), 'tcp')
  assert.equal(nearest('listen', ['listener', 'peer_listener']), 'listener')
})

test('takes a beginning for the whole word', () => {
  assert.equal(nearest('peer', ['listener', 'peer_listener']), 'peer_listener')
})

test('finds nothing where nothing is near', () => {
  assert.equal(nearest('http', ['tcp', 'unix']), undefined)
  assert.equal(nearest('xyzzy', ['host', 'port']), undefined)
  assert.equal(nearest('x', []), undefined)
})

test('counts a swap, a change, an addition and an omission as one mistake each', () => {
  assert.equal(typingDistance('host', 'hots'), 1)
  assert.equal(typingDistance('host', 'most'), 1)
  assert.equal(typingDistance('host', 'hosts'), 1)
  assert.equal(typingDistance('host', 'hot'), 1)
  assert.equal(typingDistance('', 'abc'), 3)
  assert.equal(typingDistance('abcdef', 'uvwxyz', 2), Number.POSITIVE_INFINITY)
})

test('the distance has no direction, is 0 only for equal words, and a limit only cuts off', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 8 })
  fc.assert(
    fc.property(word, word, fc.nat(8), (a, b, limit) => {
      const distance = typingDistance(a, b)
      assert.equal(distance, typingDistance(b, a))
      assert.equal(distance === 0, a === b)
      assert.equal(typingDistance(a, b, limit), distance <= limit ? distance : Number.POSITIVE_INFINITY)
    }),
  )
})
