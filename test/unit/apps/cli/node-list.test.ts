import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseExpiry, readNodeList } from '../../../../apps/common/node-list.ts'

function complaint(text: string): string {
  try {
    readNodeList(text)
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'PROXY_ERR_USAGE', String(error))
    return error.message
  }
  assert.fail(`taken: ${text.slice(0, 80)}`)
}

describe('a list of nodes', () => {
  test('is lines with an id, or an id and a secret', () => {
    assert.deepEqual(readNodeList('one\r\n\n# a comment\n two , se,cret \nthree'), [
      { id: 'one' },
      { id: 'two', secret: 'se,cret' },
      { id: 'three' },
    ])
  })

  test('is a JSON array of ids and objects', () => {
    const json = JSON.stringify(['one', { id: 'two', secret: 's', grants: { channels: ['c'] }, expires: '2099-12-31' }])
    assert.deepEqual(readNodeList(` ${json}`), [
      { id: 'one' },
      { id: 'two', secret: 's', grants: { channels: ['c'] }, expires: '2099-12-31T23:59:59.999Z' },
    ])
  })

  test('is refused with the line or entry that is wrong, and without a secret', () => {
    assert.equal(complaint(''), '--from: there is no node in it')
    const rule = 'has a space in it, or a character that does not show'
    assert.equal(complaint('one\n\ntwo words'), `--from: line 3: "id" ${rule}`)
    assert.equal(complaint('one,'), '--from: line 1: "secret" is empty')
    assert.equal(complaint('one\ntwo\none,hidden'), '--from: node one stands there twice')
    assert.equal(complaint('["one", 2]'), '--from: entry 2: the request is not an object')
    assert.equal(
      complaint('[{"id":"a","secert":"hidden"}]'),
      '--from: entry 1: unknown key "secert": did you mean "secret"?',
    )
    assert.equal(complaint('["one",'), '--from: it begins like JSON, and is none')
    assert.equal(
      complaint(Array.from({ length: 10_001 }, (_, i) => `n${i}`).join('\n')),
      '--from: more than 10000 nodes',
    )
    for (const text of [
      '[{"id":"a","secret":["hidden"]}]',
      '[{"id":"a","secret":"hidden" x}]',
      `a,${'hidden'.repeat(200)}`,
    ]) {
      assert.doesNotMatch(complaint(text), /hidden/)
    }
  })
})

test('an expiry is a duration, the end of a day, or a time', () => {
  const now = Date.parse('2026-01-02T03:04:05Z')
  const at = (text: string): string => parseExpiry(text, now)
  assert.equal(at('30d'), '2026-02-01T03:04:05.000Z')
  assert.equal(at('12h'), '2026-01-02T15:04:05.000Z')
  assert.equal(at('90m'), '2026-01-02T04:34:05.000Z')
  assert.equal(at('2w'), '2026-01-16T03:04:05.000Z')
  assert.equal(at('2026-12-31'), '2026-12-31T23:59:59.999Z')
  assert.equal(at('2026-01-02'), '2026-01-02T23:59:59.999Z')
  assert.equal(at('2026-12-31T18:00:00+02:00'), '2026-12-31T16:00:00.000Z')
  for (const text of [
    '',
    '30',
    '30s',
    'd',
    '-1d',
    '1.5d',
    '2026-02-30',
    '2026-13-01',
    '31.12.2026',
    '999999999d',
    'never',
  ]) {
    assert.throws(() => at(text), { code: 'PROXY_ERR_USAGE', message: /^--expires: write 30d/ }, text)
  }
  for (const text of ['0d', '2026-01-01', '2026-01-02T03:04:05Z']) {
    assert.throws(() => at(text), { code: 'PROXY_ERR_USAGE', message: /over already/ }, text)
  }
})
