import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { HTTP_REQUEST, HTTP_SETTINGS } from '../../../lib/domains/http-settings.ts'

const HASH = `$scrypt$ln=15,r=8,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`

function takes(value: unknown): boolean {
  return v.is(HTTP_SETTINGS, value)
}

test('takes what there is', () => {
  assert.ok(
    takes({
      basicAuth: { ann: HASH, 'josé@example.com': HASH },
      requestHeaders: { 'X-A': 'a "b" c', 'x-b': null, authorization: 'Bearer x', 'X-Forwarded-For': null },
      responseHeaders: { 'Content-Security-Policy': "default-src 'self'", server: null, 'x-empty': '' },
      hostHeader: 'rewrite',
      maintenance: '<h1>x</h1>',
      inspect: true,
    }),
  )
  for (const hostHeader of ['localhost:3000', '[::1]:80', 'a.example.test'])
    assert.ok(takes({ hostHeader }), hostHeader)
  assert.ok(takes({}))
})

test('no rule says where a message ends, whom it is for, or what is for one connection', () => {
  for (const name of [
    'Host',
    'Content-Length',
    'content_length',
    'Transfer-Encoding',
    'TRANSFER_ENCODING',
    'Connection',
    'Keep-Alive',
    'Upgrade',
    'TE',
    'Trailer',
    'Expect',
    'Proxy-Authorization',
    'Proxy-Connection',
    'HTTP2-Settings',
  ]) {
    assert.equal(takes({ requestHeaders: { [name]: 'x' } }), false, name)
    assert.equal(takes({ responseHeaders: { [name]: null } }), false, name)
  }
})

test('no header breaks out of its line', () => {
  for (const value of ['a\r\nX-Evil: 1', 'a\nb', 'a\0b', 'ä', ' a', 'a ', '\x7f', 'x'.repeat(8193)]) {
    assert.equal(takes({ requestHeaders: { 'x-a': value } }), false, JSON.stringify(value.slice(0, 20)))
  }
  for (const name of ['', 'x a', 'x:a', 'x\r\ny', ':path', 'x'.repeat(257), 'ä']) {
    assert.equal(takes({ responseHeaders: { [name]: 'x' } }), false, JSON.stringify(name.slice(0, 20)))
  }
  for (const hostHeader of ['', 'a b', 'a/b', 'a@b', 'a\r\nb', 'a:99999999', '::1', 'a'.repeat(300)]) {
    assert.equal(takes({ hostHeader }), false, JSON.stringify(hostHeader.slice(0, 20)))
  }
})

test('each header is named once', () => {
  assert.equal(takes({ requestHeaders: { 'X-A': '1', 'x-a': '2' } }), false)
  assert.equal(takes({ requestHeaders: { 'X-A': '1', x_a: null } }), false)
})

test('a password is kept as a hash that can be checked at a bounded cost, under a name without a colon', () => {
  for (const hash of [
    'secret',
    '$scrypt$',
    '$2b$10$abcdefghijklmnopqrstuv',
    HASH.replace('ln=15', 'ln=30'),
    HASH.replace('r=8', 'r=99'),
    HASH.replace('p=1', 'p=9'),
    HASH.replace('p=1', 'p=0'),
    HASH.slice(0, -30),
  ]) {
    assert.equal(takes({ basicAuth: { ann: hash } }), false, hash)
  }
  for (const name of ['a:b', '', 'a\nb', 'x'.repeat(257)]) assert.equal(takes({ basicAuth: { [name]: HASH } }), false)
  assert.equal(takes({ basicAuth: {} }), false)
})

test('one that is asked for may have the password as it is', () => {
  assert.ok(v.is(HTTP_REQUEST, { basicAuth: { ann: { password: 'Ünïcode' }, bob: HASH } }))
  assert.equal(v.is(HTTP_REQUEST, { basicAuth: { ann: { password: 'a\nb' } } }), false)
  assert.equal(v.is(HTTP_REQUEST, { basicAuth: { ann: { password: '' } } }), false)
})

test('there is nothing else, and of pages no end', () => {
  assert.equal(takes({ basicauth: {} }), false)
  assert.equal(takes({ maintenance: 'x'.repeat(65_537) }), false)
  assert.equal(takes({ maintenance: 1 }), false)
  assert.equal(
    takes({ requestHeaders: Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`x-${i}`, '1'])) }),
    false,
  )
})
