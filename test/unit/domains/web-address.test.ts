import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { climbs, formatWeb, parseWeb, readWeb } from '../../../lib/domains/web-address.ts'

const read = (Addr: string, Domain = 'web'): string => readWeb({ Domain, Addr }).Addr

test('an address is a host, a path and a base, each of which may be missing', () => {
  assert.deepEqual(parseWeb('/api'), { host: '', path: '/api', base: '/' })
  assert.deepEqual(parseWeb('x.com'), { host: 'x.com', path: '/', base: '/' })
  assert.deepEqual(parseWeb('x.com/api?base=/app/'), { host: 'x.com', path: '/api', base: '/app/' })
  assert.deepEqual(parseWeb(''), { host: '', path: '/', base: '/' })
})

test('what says the same is written the same', () => {
  for (const [addr, normal] of [
    ['', '/'],
    ['/', '/'],
    ['//api', '/api'],
    ['/api/', '/api'],
    ['/%61pi/%e4', '/api/%E4'],
    ['/文档', '/%E6%96%87%E6%A1%A3'],
    ['X.COM', 'x.com'],
    ['x.com.', 'x.com'],
    ['x.com/', 'x.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['*.X.com', '*.x.com'],
    ['192.0.2.1/a', '192.0.2.1/a'],
    ['[2001:DB8:0::1]', '[2001:db8::1]'],
    ['/api?base=/', '/api'],
    ['/api?base=app', '/api?base=/app'],
    ['x.com?base=/a%26b/', 'x.com?base=/a%26b/'],
  ] as const) {
    assert.equal(read(addr), normal, addr)
    assert.equal(read(normal), normal, normal)
  }
})

test('what is none says what is wrong', () => {
  for (const [addr, why] of [
    ['x.com:8010', /port/],
    ['[::1]:80/x', /port/],
    ['::1', /brackets/],
    ['*', /leave it out/],
    ['a.*.com', /in front/],
    ['*.127.0.0.1', /in front/],
    ['u:p@x.com', /user information/],
    ['x..com', /not a host/],
    ['-x.com', /not a host/],
    ['127.1', /not a host/],
    ['0x7f.1', /not a host/],
    [`${'a'.repeat(64)}.com`, /not a host/],
    ['x com', /not a host/],
    ['/a/../b', /"\.\."/],
    ['/a/%2e%2E', /"\.\."/],
    ['/./a', /"\.\."/],
    ['/a//b', /empty part/],
    ['/a%2fb', /encoded slash/],
    ['/a%00', /zero/],
    ['/a\\b', /backslash/],
    ['/a b', /space/],
    ['/a\u0007', /control/],
    ['/a\ud800', /control/],
    ['/a%', /%25/],
    ['/a%zz', /%25/],
    ['/a#b', /only a path/],
    [`/${'a'.repeat(400)}`, /longer than/],
    ['/a?base', /empty/],
    ['/a?base=', /empty/],
    ['/a?base=/x&y=1', /%26/],
    ['/a?base=/../x', /"\.\."/],
    ['/a?base=/x?y', /only a path/],
    ['/a?path=/x', /unknown option "path"/],
    ['/a?', /unknown option ""/],
  ] as const) {
    assert.throws(() => read(addr), { code: 'PROXY_ERR_ADDRESS', message: why }, addr)
  }
  assert.throws(() => read('/a?base=/x/', 'ws'), { code: 'PROXY_ERR_ADDRESS', message: /no base/ })
})

test('whatever is read has one form, which is read as itself', () => {
  const part = fc.constantFrom('a', '/', '.', '%2e', '%41', ':', '[', '?base=', '*', 'é', ' ', '&', '\\', '%2F', ';')
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      let normal: string
      try {
        normal = read(parts.join(''))
      } catch {
        return
      }
      assert.equal(read(normal), normal)
      assert.equal(formatWeb(parseWeb(normal)), normal)
      assert.ok(!climbs(parseWeb(normal).path) && normal.length < 1024)
    }),
    { numRuns: 2000 },
  )
})
