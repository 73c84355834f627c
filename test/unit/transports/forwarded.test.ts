import assert from 'node:assert/strict'
import type { IncomingHttpHeaders } from 'node:http'
import { test } from 'node:test'
import { NetSet } from '../../../lib/sockets/ip.ts'
import { canonicalAddress, forwardedFor, forwardedSecurely } from '../../../lib/transports/forwarded.ts'

const proxies = new NetSet(['10.0.0.0/8', '2001:db8:aa::/48'])
const from = (headers: IncomingHttpHeaders, header?: string) => forwardedFor(headers, (ip) => proxies.has(ip), header)
const xff = (value: string) => from({ 'x-forwarded-for': value })
const rfc = (value: string) => from({ forwarded: value })

test('the rightmost hop that is not trusted is whom a request comes from', () => {
  assert.deepEqual(xff('203.0.113.9'), { address: '203.0.113.9', port: undefined })
  assert.deepEqual(xff('1.1.1.1, 203.0.113.9'), { address: '203.0.113.9', port: undefined })
  assert.deepEqual(xff('1.1.1.1, 203.0.113.9, 10.0.0.1,10.0.0.2'), { address: '203.0.113.9', port: undefined })
  assert.deepEqual(rfc('for=1.1.1.1, for=203.0.113.9;proto=https, for=10.0.0.1'), {
    address: '203.0.113.9',
    port: undefined,
  })
  assert.deepEqual(xff('1.1.1.1, 2001:db8:aa::1'), { address: '1.1.1.1', port: undefined })
})

test('the leftmost hop is, if all of them are trusted', () => {
  assert.deepEqual(xff('10.9.9.9, 10.0.0.1'), { address: '10.9.9.9', port: undefined })
})

test('reads addresses with and without ports, of both versions', () => {
  const cases: Record<string, [string, number | undefined]> = {
    '203.0.113.9:4711': ['203.0.113.9', 4711],
    '2001:DB8:0::9': ['2001:db8::9', undefined],
    '[2001:db8::9]': ['2001:db8::9', undefined],
    '[2001:db8::9]:4711': ['2001:db8::9', 4711],
    '::ffff:203.0.113.9': ['203.0.113.9', undefined],
    '[::ffff:cb00:7109]:1': ['203.0.113.9', 1],
    '203.0.113.9:99999': ['203.0.113.9', undefined],
    '  203.0.113.9\t': ['203.0.113.9', undefined],
  }
  for (const [text, [address, port]] of Object.entries(cases)) {
    assert.deepEqual(xff(`1.1.1.1, ${text}`), { address, port }, text)
  }
})

test('reads Forwarded with quotes, in any case and order', () => {
  const cases: Record<string, [string, number | undefined]> = {
    'for="[2001:db8::9]:4711"': ['2001:db8::9', 4711],
    'FOR=203.0.113.9': ['203.0.113.9', undefined],
    'by=10.0.0.1;proto=http; for=203.0.113.9 ;host="a;b,c"': ['203.0.113.9', undefined],
    'for="203.0.113.9:_hidden"': ['203.0.113.9', undefined],
  }
  for (const [text, [address, port]] of Object.entries(cases)) assert.deepEqual(rfc(text), { address, port }, text)
})

test('garbage where it matters says nothing', () => {
  for (const text of [
    'unknown',
    '203.0.113',
    '203.0.113.9, ',
    ',',
    '[203.0.113.9]',
    'fe80::1%eth0',
    '203.0.113.9:',
    'x'.repeat(9000),
    '1.1.1.1 203.0.113.9',
    '010.1.1.1',
  ]) {
    assert.equal(xff(text), undefined, text)
  }
  for (const text of [
    'for=unknown',
    'for=_hidden',
    'proto=https',
    'for=',
    'for="203.0.113.9',
    '203.0.113.9',
    'for==1.1.1.1',
  ]) {
    assert.equal(rfc(text), undefined, text)
  }
  assert.equal(from({}), undefined)
})

test('what a stranger has sent cannot swallow what a proxy has added', () => {
  for (const sent of ['garbage', '"', 'for="', 'for="1.1.1.1', '"1.1.1.1, ', '\\"']) {
    assert.deepEqual(xff(`${sent}, 203.0.113.9`), { address: '203.0.113.9', port: undefined }, sent)
    assert.deepEqual(rfc(`${sent}, for=203.0.113.9`), { address: '203.0.113.9', port: undefined }, sent)
    assert.deepEqual(rfc(`${sent}, for="[2001:db8::9]"`), { address: '2001:db8::9', port: undefined }, sent)
  }
})

test('the named header comes first, then X-Forwarded-For, then Forwarded', () => {
  const headers = { 'tiny-real-ip': '203.0.113.1:5', 'x-forwarded-for': '203.0.113.2', forwarded: 'for=203.0.113.3' }
  assert.deepEqual(from(headers, 'Tiny-Real-IP'), { address: '203.0.113.1', port: 5 })
  assert.deepEqual(from(headers), { address: '203.0.113.2', port: undefined })
  assert.deepEqual(from(headers, 'X-Missing'), { address: '203.0.113.2', port: undefined })
  assert.deepEqual(from(headers, 'Forwarded'), { address: '203.0.113.3', port: undefined })
  assert.equal(from({ ...headers, 'tiny-real-ip': 'garbage' }, 'Tiny-Real-IP'), undefined)
  assert.equal(from({}, 'constructor'), undefined)
})

test('knows whether the last proxy was asked by TLS', () => {
  assert.equal(forwardedSecurely({ 'x-forwarded-proto': 'https' }), true)
  assert.equal(forwardedSecurely({ 'x-forwarded-proto': 'http, HTTPS' }), true)
  assert.equal(forwardedSecurely({ 'x-forwarded-proto': 'https, http' }), false)
  assert.equal(forwardedSecurely({ forwarded: 'for=x;proto=http, for=1.1.1.1;proto="https"' }), true)
  assert.equal(forwardedSecurely({ 'x-forwarded-proto': 'http', forwarded: 'proto=https' }), false)
  assert.equal(forwardedSecurely({}), false)
})

test('addresses are always written alike', () => {
  assert.equal(canonicalAddress('2001:DB8:0:0:0::1'), '2001:db8::1')
  assert.equal(canonicalAddress('::FFFF:7f00:1'), '127.0.0.1')
  assert.equal(canonicalAddress('192.0.2.1'), '192.0.2.1')
  for (const text of ['', 'localhost', '1.2.3', '1.2.3.4.5', '::1%lo', '[::1]'])
    assert.equal(canonicalAddress(text), undefined)
})
