import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { suiteOf } from '../../../lib/core/connect.ts'
import { makeToken, readToken } from '../../../lib/core/token.ts'

const RANDOM = Buffer.alloc(16, 0xaa)
const KEY = Buffer.alloc(32, 0xbb)
const TOKEN = `symport_${'qqqqqqqqqqqqqqqqqqqqqru7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7'}`

test('a token is a prefix, 16 random bytes and the key in base64url', () => {
  assert.equal(makeToken(RANDOM, KEY), TOKEN)
  assert.deepEqual(readToken(TOKEN), { random: RANDOM, publicKey: KEY })
})

test('any random bytes and any key survive', () => {
  const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
  fc.assert(
    fc.property(bytes(16), bytes(32), (random, key) => {
      const token = makeToken(random, key)
      assert.match(token, /^symport_[\w-]{64}$/)
      assert.deepEqual(readToken(token), { random: Buffer.from(random), publicKey: Buffer.from(key) })
    }),
  )
})

test('what is not exactly a token is a secret that a person chose', () => {
  const others = [
    '',
    'symport_',
    'hunter2',
    TOKEN.slice(0, -1),
    `${TOKEN}A`,
    `${TOKEN}AAA`,
    `${TOKEN}=`,
    ` ${TOKEN}`,
    `${TOKEN}\n`,
    TOKEN.toUpperCase(),
    TOKEN.replace('symport_', ''),
    TOKEN.replace('qq', 'q '),
    TOKEN.replace('qq', '+/'),
  ]
  for (const text of others) {
    assert.equal(readToken(text), undefined, JSON.stringify(text))
    assert.equal(suiteOf(text), 'NNpsk0')
  }
})

test('a token runs NKpsk0', () => {
  assert.equal(suiteOf(TOKEN), 'NKpsk0')
})
