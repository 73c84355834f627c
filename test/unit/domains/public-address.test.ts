import assert from 'node:assert/strict'
import test from 'node:test'
import { ProxyError } from '../../../lib/core/index.ts'
import { formatPublic, isLabel, parsePublic, readLabel } from '../../../lib/domains/public-address.ts'

const BAD = { name: 'ProxyError', code: 'PROXY_ERR_ADDRESS' }

test('what is asked for survives being written and read', () => {
  for (const asked of [
    { kind: 'http', base: '/' },
    { kind: 'http', name: 'checkout', base: '/app/', use: 'x_-1' },
    { kind: 'http', base: '/a%20b%26c=d/' },
    { kind: 'tls', name: 'db', base: '/', use: 'x' },
    { kind: 'tcp', base: '/', port: 9000 },
    { kind: 'udp', base: '/', use: 'a' },
  ] as const) {
    assert.deepEqual(parsePublic(formatPublic(asked)), asked)
  }
})

test('a name is one label, in lower case', () => {
  for (const name of ['a', 'checkout', 'my-shop-2', '2026', 'x'.repeat(63), 'xn--caf-dma', 'xn--9k3b23l']) {
    assert.equal(readLabel(name), name)
  }
  assert.equal(readLabel('CheckOut'), 'checkout')
})

test('what is no label is refused, whatever somebody hopes to become with it', () => {
  const names = [
    ...['', '.', '..', 'a.b', 'a.', '.a', '../x', 'a/b', '/', '\\', 'a\\b', '%2e%2e', 'a%2fb', '*', '*.x'],
    ...['"', "'", 'a"b', '`', 'a b', ' a', 'a\tb', 'a\nb', 'a\r\nHost: b', 'a\0b', '@', 'a@b', 'a:80', '[::1]'],
    ...['-', '-a', 'a-', '_acme-challenge', 'a_b', 'a,b', 'a;b', 'a?b', 'a#b', '{}', '<x>', 'x'.repeat(64)],
    // Punycode that means nothing, what could be written without it, another spelling of it, and hyphens like it.
    ...['xn--', 'xn--a', 'xn--abc-', 'xn--zzzzzzzzzzzzzzzzzz', 'xn--checkout-', 'ab--cd', 'xn--xn--caf-dma-0ab'],
    ...['caf\u00e9', 'ch\u0435ckout', '\u202egnp', 'a\u00adb', '\uff57\uff57\uff57', 'x'.repeat(100_000)],
  ]
  for (const name of names) {
    assert.throws(() => readLabel(name), BAD, JSON.stringify(name.slice(0, 80)))
    assert.equal(isLabel(name), false, JSON.stringify(name.slice(0, 80)))
    assert.throws(() => parsePublic(`http?${new URLSearchParams({ name })}`), BAD)
  }
})

test('a name in another script is told how it is written', () => {
  assert.throws(() => readLabel('caf\u00e9'), { ...BAD, message: /is written xn--caf-dma as a name$/ })
})

test('garbage in the place of an address is an error of one line', () => {
  const addresses = [
    ...['', 'ftp', 'HTTP', 'http?name', 'http?name=', 'http?x=1', 'http?name=a&name=b', 'http?port=80'],
    ...['tls?base=/x/', 'tls?port=443', 'tls?name=a.b'],
    ...['tcp?name=a', 'tcp?port=', 'tcp?port=0', 'tcp?port=65536', 'tcp?port=08', 'tcp?port=1e3', 'udp?base=/x'],
    ...[
      'http?base=/a/../b',
      'http?base=/%2e%2e/',
      'http?base=/a%0d%0ab',
      'http?base=/a//x',
      'http?base=/a?b',
      'tcp?use=',
    ],
    ...[`tcp?use=${'x'.repeat(65)}`, 'tcp?use=a%20b', 'tcp?__proto__=1', `http?${'a=1&'.repeat(300)}`],
  ]
  for (const text of addresses) {
    assert.throws(
      () => parsePublic(text),
      (error) => {
        assert.ok(error instanceof ProxyError, text)
        assert.equal(error.code, 'PROXY_ERR_ADDRESS', text)
        assert.doesNotMatch(error.message, /\p{C}/u)
        return error.message.length < 300
      },
      text.slice(0, 60),
    )
  }
})
