import assert from 'node:assert/strict'
import test from 'node:test'
import { checkEndpoint, formatEndpoint } from '../../../lib/core/endpoint.ts'

test('an endpoint is a domain and an address, and nothing else is kept', () => {
  const value = { Domain: 'tcp', Addr: '127.0.0.1:80', Extra: 1 }
  assert.deepEqual(checkEndpoint(value), { Domain: 'tcp', Addr: '127.0.0.1:80' })
})

test('any domain will do, and an address may be empty: plug-ins know what they take', () => {
  assert.deepEqual(checkEndpoint({ Domain: 'x', Addr: '' }), { Domain: 'x', Addr: '' })
})

test('lengths end at 32 and 1,024', () => {
  const [Domain, Addr] = ['d'.repeat(32), 'a'.repeat(1024)]
  assert.deepEqual(checkEndpoint({ Domain, Addr }), { Domain, Addr })
  for (const value of [
    { Domain: `${Domain}d`, Addr },
    { Domain, Addr: `${Addr}a` },
    { Domain: '', Addr },
  ]) {
    assert.throws(() => checkEndpoint(value), { code: 'PROXY_ERR_ENDPOINT' })
  }
})

test('anything else is refused', () => {
  const values = [
    undefined,
    null,
    0,
    'tcp://127.0.0.1:80',
    [],
    {},
    { Domain: 'tcp' },
    { Addr: 'x' },
    { Domain: 7, Addr: 'x' },
    { Domain: 'tcp', Addr: 7 },
    { Domain: 'tcp', Addr: ['x'] },
    { Domain: 'tcp', Addr: null },
  ]
  for (const value of values) {
    assert.throws(() => checkEndpoint(value), { name: 'ProxyError', code: 'PROXY_ERR_ENDPOINT' })
  }
})

test('an endpoint is written as a URL for people', () => {
  assert.equal(formatEndpoint({ Domain: 'unix', Addr: '/tmp/x.sock' }), 'unix:///tmp/x.sock')
  assert.equal(formatEndpoint({ Domain: 'tcp', Addr: '[::1]:80' }), 'tcp://[::1]:80')
})
