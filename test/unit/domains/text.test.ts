import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shown } from '../../../lib/domains/text.ts'

test('shows text from outside on one line, in quotes, and not all of a long one', () => {
  assert.equal(shown('a b'), '"a b"')
  assert.equal(shown('a\nb\u001b[2J\u2028'), '"a b [2J "')
  assert.equal(shown('x'.repeat(80)), `"${'x'.repeat(80)}"`)
  assert.equal(shown('x'.repeat(81)), `"${'x'.repeat(79)}…"`)
})

test('shows nothing that stands before an @ in the same word', () => {
  assert.equal(shown('tcp://a:hunter2@b:80'), '"…@b:80"')
  assert.equal(shown('a:hun@ter2@b x:hunter2@c'), '"…@b …@c"')
  assert.equal(shown(`${'x'.repeat(200)}@b`), '"…@b"')
})

test('takes no longer than the text is long', { timeout: 5000 }, () => {
  assert.equal(shown('x'.repeat(1_000_000)).length, 82)
  assert.equal(shown(`${'x@ '.repeat(300_000)}`).length, 82)
})
