import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type ProxyHeader, readProxyHeader } from '../../../lib/transports/proxy-header.ts'
import { proxyV2 } from '../../helpers/contract/one-port.ts'
import { hex } from '../../helpers/core/bytes.ts'

const bad = { code: 'PROXY_ERR_PROXY_HEADER' }
const TCP4 = hex('cb007109 c0000201 d431 01bb')
const TCP6 = Buffer.concat([
  hex('20010db8000000000000000000000009'),
  hex('20010db8000000000000000000000001'),
  hex('d431 01bb'),
])

function read(bytes: Buffer | string): ProxyHeader | undefined {
  const verdict = readProxyHeader(Buffer.from(bytes))
  assert.ok('found' in verdict, 'it is whole')
  return verdict.found
}

const GOOD: readonly [string, Buffer, ProxyHeader['source']][] = [
  ['TCP4', Buffer.from('PROXY TCP4 203.0.113.9 192.0.2.1 54321 443\r\n'), { address: '203.0.113.9', port: 54_321 }],
  ['TCP6', Buffer.from('PROXY TCP6 2001:db8::9 2001:db8::1 54321 443\r\n'), { address: '2001:db8::9', port: 54_321 }],
  ['mapped', Buffer.from('PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n'), { address: '203.0.113.9', port: 1 }],
  ['UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n'), undefined],
  ['UNKNOWN with more', Buffer.from(`PROXY UNKNOWN ${'f'.repeat(91)}\r\n`), undefined],
  ['v2 over IPv4', proxyV2(0x21, 0x11, TCP4), { address: '203.0.113.9', port: 54_321 }],
  ['v2 over IPv6', proxyV2(0x21, 0x21, TCP6), { address: '2001:db8::9', port: 54_321 }],
  [
    'v2 with TLVs',
    proxyV2(0x21, 0x11, Buffer.concat([TCP4, hex('03 0004 00000000 02 0001 61')])),
    { address: '203.0.113.9', port: 54_321 },
  ],
  [
    'v2 of the longest kind',
    proxyV2(0x21, 0x11, Buffer.concat([TCP4, Buffer.alloc(4084)])),
    { address: '203.0.113.9', port: 54_321 },
  ],
  ['v2 LOCAL', proxyV2(0x20, 0x00, Buffer.alloc(0)), undefined],
  ['v2 LOCAL with addresses', proxyV2(0x20, 0x11, TCP4), undefined],
  ['v2 without a family', proxyV2(0x21, 0x00, Buffer.alloc(0)), undefined],
  ['v2 over UDP', proxyV2(0x21, 0x12, TCP4), undefined],
  ['v2 over a Unix socket', proxyV2(0x21, 0x31, Buffer.alloc(216)), undefined],
]

for (const [name, bytes, source] of GOOD) {
  test(`reads ${name}, and leaves what follows`, () => {
    assert.deepEqual(read(bytes), { length: bytes.length, source })
    assert.deepEqual(read(Buffer.concat([bytes, Buffer.from('\r\nPROXY more')])), { length: bytes.length, source })
  })

  test(`asks for more at every beginning of ${name}`, () => {
    for (let length = 1; length < bytes.length; length++) {
      const verdict = readProxyHeader(bytes.subarray(0, length))
      assert.ok('need' in verdict && verdict.need > length && verdict.need <= bytes.length, `at ${length}`)
    }
  })
}

test('finds nothing where there is none', () => {
  for (const text of [
    'GET / HTTP/1.1',
    'POST /',
    'PROP',
    'PROXYING',
    'P ',
    '\x16\x03',
    '\xf5SYM',
    '\rX',
    '\r\n\r\n\0\r\nQUIX',
  ]) {
    assert.equal(read(Buffer.from(text, 'latin1')), undefined, text)
  }
})

test('a line is over after 107 bytes', () => {
  const long = Buffer.from(`PROXY UNKNOWN ${'f'.repeat(92)}\r\n`)
  assert.equal(long.length, 108)
  assert.throws(() => readProxyHeader(long), bad)
  assert.ok('need' in readProxyHeader(long.subarray(0, 106)))
  assert.throws(() => readProxyHeader(long.subarray(0, 107)), bad)
})

test('a header of version 2 that is too long is refused before it is there', () => {
  const start = proxyV2(0x21, 0x11, Buffer.alloc(4097)).subarray(0, 16)
  assert.throws(() => readProxyHeader(start), bad)
})

test('what makes no sense is refused', () => {
  for (const line of [
    'PROXY TCP4 203.0.113.9 192.0.2.1 54321',
    'PROXY TCP4 203.0.113.9 192.0.2.1 54321 443 x',
    'PROXY  TCP4 203.0.113.9 192.0.2.1 54321 443',
    'PROXY TCP4 203.0.113.9 192.0.2.1 65536 443',
    'PROXY TCP4 203.0.113.9 192.0.2.1 054 443',
    'PROXY TCP4 203.0.113.9 192.0.2.1 -1 443',
    'PROXY TCP4 203.0.113.9 192.0.2.1 1 0x1',
    'PROXY TCP4 203.0.113.300 192.0.2.1 1 2',
    'PROXY TCP4 ::1 ::1 1 2',
    'PROXY TCP6 203.0.113.9 192.0.2.1 1 2',
    'PROXY TCP6 fe80::1%eth0 ::1 1 2',
    'PROXY TCP4 localhost localhost 1 2',
    'PROXY TCP5 203.0.113.9 192.0.2.1 1 2',
    'PROXY tcp4 203.0.113.9 192.0.2.1 1 2',
    'PROXY ',
  ]) {
    assert.throws(() => readProxyHeader(Buffer.from(`${line}\r\n`)), bad, line)
  }
  assert.throws(() => readProxyHeader(proxyV2(0x11, 0x11, TCP4)), bad, 'version 1')
  assert.throws(() => readProxyHeader(proxyV2(0x22, 0x11, TCP4)), bad, 'command 2')
  assert.throws(() => readProxyHeader(proxyV2(0x21, 0x11, TCP4.subarray(1))), bad, 'short for IPv4')
  assert.throws(() => readProxyHeader(proxyV2(0x21, 0x21, TCP4)), bad, 'short for IPv6')
})

test('no bytes make it throw anything else, or ask for what is too much', () => {
  const start = fc.constantFrom(
    Buffer.from('PROXY '),
    Buffer.from('PROXY TCP4 '),
    proxyV2(0x21, 0x11, TCP4).subarray(0, 13),
  )
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 200 }), (head, tail) => {
      const bytes = Buffer.concat([head, tail])
      try {
        const verdict = readProxyHeader(bytes)
        if ('need' in verdict) assert.ok(verdict.need > bytes.length && verdict.need <= 16 + 4096)
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error && error.code === bad.code)
      }
    }),
    { seed: 4, numRuns: 2000 },
  )
})
