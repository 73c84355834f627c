import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readHttps, readTls } from '../../../lib/domains/tls-address.ts'

const tls = (Addr: string): string => readTls({ Domain: 'tls', Addr }, 'forward').Addr
const https = (Addr: string): string => readHttps({ Domain: 'https', Addr }, 'forward').Addr
const HEX = 'ab'.repeat(32)

test('what says the same is written the same', () => {
  for (const [addr, normal] of [
    ['x.com:443', 'x.com:443'],
    [':443', '127.0.0.1:443'],
    ['[::1]:443', '[::1]:443'],
    ['x.com:443?verify=off', 'x.com:443?verify=off'],
    [`x.com:443?pin=sha256:${HEX.toUpperCase()}`, `x.com:443?pin=sha256:${HEX}`],
    [`x.com:443?pin=SHA256:${'AB:'.repeat(31)}AB`, `x.com:443?pin=sha256:${HEX}`],
    ['10.0.0.1:443?name=x.com&ca=/etc/a b%26c.pem', '10.0.0.1:443?ca=/etc/a b%26c.pem&name=x.com'],
  ] as const) {
    assert.equal(tls(addr), normal, addr)
    assert.equal(tls(normal), normal, normal)
  }
})

test('https has 443 where there is no port', () => {
  assert.deepEqual(readHttps({ Domain: 'https', Addr: 'x.com' }, 'forward'), { Domain: 'tls', Addr: 'x.com:443' })
  assert.equal(https('x.com/'), 'x.com:443')
  assert.equal(https('[::1]?verify=off'), '[::1]:443?verify=off')
  assert.equal(https('x.com:8443?name=y.com'), 'x.com:8443?name=y.com')
  assert.equal(https(''), '127.0.0.1:443')
  assert.throws(() => https('x.com/a'), { code: 'PROXY_ERR_ADDRESS', message: /no path/ })
})

test('what is listened on is a name, in one form', () => {
  const name = (Addr: string): string => readTls({ Domain: 'tls', Addr }, 'listen').Addr
  for (const [addr, normal] of [
    ['DB.Example.com', 'db.example.com'],
    ['db.example.com.', 'db.example.com'],
    ['*.Example.com', '*.example.com'],
    ['localhost', 'localhost'],
    ['b\u00fccher.example', 'xn--bcher-kva.example'],
  ] as const) {
    assert.equal(name(addr), normal)
    assert.equal(name(normal), normal)
  }
  for (const [addr, why] of [
    ['', /names no host/],
    ['db.example.com:443', /has a port/],
    ['db.example.com/', /no path/],
    ['db.example.com?ca=x', /no path/],
    ['192.0.2.1', /is an address/],
    ['[2001:db8::1]', /is an address/],
    ['*', /not a host/],
    ['x.*.com', /not a host/],
  ] as const) {
    assert.throws(() => name(addr), { code: 'PROXY_ERR_ADDRESS', message: why }, addr)
  }
})

test('what is none says what is wrong', () => {
  for (const [addr, why] of [
    ['x.com', /port/],
    ['x.com:0', /range/],
    ['u:p@x.com:443', /user information/],
    ['x.com:443?verify=on', /only verify=off/],
    ['x.com:443?verify', /empty/],
    ['x.com:443?', /unknown option/],
    ['x.com:443?veryfy=off', /did you mean verify/],
    ['x.com:443?pin=sha256:ab', /64 hexadecimal/],
    [`x.com:443?pin=sha256:${HEX}&verify=off`, /exclude each other/],
    ['x.com:443?ca=a&ca=b', /twice/],
    ['x.com:443?ca=%', /%25/],
    ['x.com:443?ca=%00', /control/],
    ['x.com:443?name=a/b', /not the name/],
  ] as const) {
    assert.throws(() => tls(addr), { code: 'PROXY_ERR_ADDRESS', message: why }, addr)
  }
})
