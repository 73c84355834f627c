import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type DialTarget, matches, parsePattern, parsePortRanges } from '../../../lib/policy/patterns.ts'

/** Whether `pattern` allows tcp to `host`, which was resolved to `address`. */
const allows = (pattern: string, host: string, port: number, address = host): boolean =>
  matches(parsePattern(pattern), { domain: 'tcp', host, port, address })
const rejects = (text: string, message: RegExp): void => {
  assert.throws(() => parsePattern(text), { code: 'PROXY_ERR_PATTERN', message })
  assert.throws(() => parsePattern(text), { message: /^bad pattern "[^\n]*$/ })
}

test('an address matches the address that is dialled, whatever was asked for', () => {
  assert.ok(allows('10.0.0.5:80', '10.0.0.5', 80))
  assert.ok(allows('10.0.0.5:80', 'db.example', 80, '10.0.0.5'))
  assert.ok(!allows('10.0.0.5:80', '10.0.0.5', 80, '10.0.0.6'))
  assert.ok(!allows('10.0.0.5:80', 'db.example', 80, '10.0.0.6'))
  assert.ok(allows('[::1]:80', 'x', 80, '::1'))
  assert.ok(allows('[2001:DB8:0::1]:80', '2001:db8::1', 80))
})

test('a CIDR matches what it covers', () => {
  assert.ok(allows('10.0.0.0/8:*', 'x', 1, '10.255.255.255'))
  assert.ok(!allows('10.0.0.0/8:*', 'x', 1, '11.0.0.0'))
  assert.ok(allows('10.1.2.3/8:*', 'x', 1, '10.9.9.9'))
  assert.ok(allows('[fd00::/8]:443', 'x', 443, 'fdff::1'))
  assert.ok(!allows('[fd00::/8]:443', 'x', 443, 'fe00::1'))
  assert.ok(allows('0.0.0.0/0:*', 'x', 1, '203.0.113.1'))
  assert.ok(!allows('0.0.0.0/0:*', 'x', 1, '2001:db8::1'))
  assert.ok(!allows('[::/0]:*', 'x', 1, '203.0.113.1'))
})

test('IPv4-mapped IPv6 counts as its IPv4 address, on both sides', () => {
  assert.ok(allows('10.0.0.5:80', '::ffff:10.0.0.5', 80))
  assert.ok(allows('10.0.0.0/8:80', 'x', 80, '::ffff:a00:5'))
  assert.ok(!allows('[::/0]:80', 'x', 80, '::ffff:127.0.0.1'))
  assert.ok(allows('[::ffff:10.0.0.5]:80', 'x', 80, '10.0.0.5'))
  assert.ok(allows('[::ffff:10.0.0.0/104]:80', 'x', 80, '10.9.9.9'))
  rejects('[::ffff:10.0.0.0/90]:80', /write the IPv4 CIDR/)
})

test('the unspecified address counts as loopback, on both sides', () => {
  assert.ok(allows('127.0.0.1:80', '0.0.0.0', 80))
  assert.ok(allows('[::1]:80', '::', 80))
  assert.ok(allows('localhost:80', '0.0.0.0', 80))
  assert.ok(allows('0.0.0.0:80', '127.0.0.1', 80))
  assert.ok(allows('0.0.0.0/32:80', '127.0.0.1', 80))
  assert.ok(!allows('10.0.0.0/8:80', '0.0.0.0', 80))
  assert.ok(!allows('*.example.com:80', 'a.example.com', 80, '0.0.0.0'))
})

test('a name matches the name that was asked for, without case and final dot', () => {
  assert.ok(allows('db.Example:5432', 'DB.example.', 5432, '10.0.0.1'))
  assert.ok(allows('db.example.:5432', 'db.example', 5432, '127.0.0.1'))
  assert.ok(!allows('db.example:5432', 'x.db.example', 5432, '10.0.0.1'))
  assert.ok(!allows('db.example:5432', '10.0.0.1', 5432))
})

test('localhost also matches loopback addresses', () => {
  assert.ok(allows('localhost:80', 'localhost', 80, '::1'))
  assert.ok(allows('localhost:80', '127.0.0.1', 80))
  assert.ok(allows('LOCALHOST:80', 'x', 80, '127.9.9.9'))
  assert.ok(!allows('localhost:80', 'x', 80, '10.0.0.1'))
})

test('*.suffix matches names below the suffix, not the suffix and not its look-alikes', () => {
  assert.ok(allows('*.example.com:80', 'a.example.com', 80, '203.0.113.1'))
  assert.ok(allows('*.example.com:80', 'A.B.EXAMPLE.COM.', 80, '203.0.113.1'))
  assert.ok(!allows('*.example.com:80', 'example.com', 80, '203.0.113.1'))
  assert.ok(!allows('*.example.com:80', 'evilexample.com', 80, '203.0.113.1'))
  assert.ok(!allows('*.example.com:80', 'a.example.com.evil', 80, '203.0.113.1'))
})

test('*.suffix never matches a name that leads to this machine or its network segment', () => {
  for (const address of [
    '127.0.0.1',
    '::1',
    '0.0.0.0',
    '::',
    '169.254.169.254',
    'fe80::1',
    'fe80::1%eth0',
    '224.0.0.1',
  ]) {
    assert.ok(!allows('*.example.com:*', 'a.example.com', 80, address), address)
  }
  for (const address of ['ff02::1', '::ffff:127.0.0.1', '::ffff:169.254.169.254', '', 'nonsense']) {
    assert.ok(!allows('*.example.com:*', 'a.example.com', 80, address), address)
  }
  assert.ok(!matches(parsePattern('*.example.com:*'), { domain: 'tcp', host: 'a.example.com', port: 80 }))
  assert.ok(allows('*.example.com:*', 'a.example.com', 80, '10.0.0.1'))
})

test('* matches every host and address, and no Unix socket', () => {
  for (const host of ['a.example', '127.0.0.1', '::1', '169.254.169.254']) assert.ok(allows('*:*', host, 80))
  assert.ok(allows('*:80-90', 'a.example', 90, '1.2.3.4'))
  assert.ok(!matches(parsePattern('*:*'), { domain: 'unix', host: '/run/x.sock' }))
  assert.ok(!matches(parsePattern('*:*'), { domain: 'unix', host: '/run/x.sock', port: 80 }))
})

test('odd spellings of addresses are names, and only what they resolve to counts', () => {
  assert.ok(allows('127.0.0.1:80', '0177.0.0.1', 80, '127.0.0.1'))
  assert.ok(allows('177.0.0.1:80', '0177.0.0.1', 80, '177.0.0.1'))
  assert.ok(!allows('177.0.0.1:80', '0177.0.0.1', 80, '127.0.0.1'))
  assert.ok(!allows('10.0.0.0/8:80', '127.1', 80, '127.0.0.1'))
})

test('ports are one, a range or all', () => {
  assert.ok(allows('*:80', 'x', 80))
  assert.ok(!allows('*:80', 'x', 81))
  assert.ok(allows('*:80-81', 'x', 81))
  assert.ok(!allows('*:80-81', 'x', 82))
  assert.ok(!allows('*:80-81', 'x', 79))
  assert.ok(!matches(parsePattern('*:*'), { domain: 'tcp', host: 'x', address: '127.0.0.1' }))
})

test('Unix sockets have patterns of their own', () => {
  const target: DialTarget = { domain: 'unix', host: '/run/x.sock' }
  assert.ok(matches(parsePattern('unix:/run/x.sock'), target))
  assert.ok(matches(parsePattern('unix:///run/x.sock'), target))
  assert.ok(matches(parsePattern('unix:*'), target))
  assert.ok(!matches(parsePattern('unix:/run/y.sock'), target))
  assert.ok(!allows('unix:*', 'x', 80))
  rejects('unix:run/x', /write unix:\/absolute\/path or unix:\*/)
  rejects('unix:80', /write unix:/)
})

test('says what is wrong with a pattern', () => {
  rejects('', /write HOST:PORT/)
  rejects('*', /write HOST:PORT/)
  rejects('example.com', /write HOST:PORT/)
  rejects(':80', /the host is missing/)
  rejects('*.:80', /the host is missing/)
  rejects('a.*.com:80', /a \* stands alone/)
  rejects('a b:80', /is not a host/)
  rejects('http://a:80', /write HOST:PORT|is not/)
  rejects('::1:80', /IPv6 needs brackets/)
  rejects('fd00::/8:443', /IPv6 needs brackets/)
  rejects('[127.0.0.1]:80', /brackets are for IPv6/)
  rejects('[::1]', /write HOST:PORT/)
  rejects('[fe80::1%eth0]:80', /zone/)
  rejects('10.0.0.0/33:80', /\/33 is not a prefix length \(0 to 32\)/)
  rejects('10.0.0.0/08:80', /prefix length/)
  rejects('10.0.0.0/:80', /prefix length/)
  rejects('10.0.0/8:80', /is not an IP address or CIDR/)
  rejects('[fd00::/129]:80', /0 to 128/)
  rejects('127.1:80', /neither a name nor an IP address/)
  rejects('0177.0.0.1:80', /neither a name nor an IP address/)
  rejects('10.0.0.300:80', /neither a name nor an IP address/)
  rejects('*.0.0.1:80', /neither a name nor an IP address/)
  rejects('a:0', /port 0 is out of range/)
  rejects('a:99999', /port 99999 is out of range \(1 to 65535\)/)
  rejects('a:90-80', /write 80-90/)
  rejects('a:80-', /is not a port or range/)
  rejects(`${'a'.repeat(300)}:80`, /is not a host/)
})

test('any address is matched by itself, by its widest CIDR and by nothing of the other version', () => {
  fc.assert(
    fc.property(fc.ipV4(), fc.ipV6(), fc.integer({ min: 1, max: 65535 }), (four, six, port) => {
      fc.pre(!/^[0:]*(ffff|:\d+\.)/i.test(six) && !/^[0:]*$/.test(six) && four !== '0.0.0.0')
      assert.ok(allows(`${four}:${port}`, 'x', port, four))
      assert.ok(allows(`[${six}]:${port}`, 'x', port, six))
      assert.ok(allows('0.0.0.0/0:*', 'x', port, four))
      assert.ok(!allows(`${four}:${port}`, 'x', port, six))
      assert.ok(!allows('[::/0]:*', 'x', port, four))
    }),
  )
})

test('any text is a pattern or rejected with the code', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'*.:/[]-a01f%\n '), maxLength: 14 }), (text) => {
      try {
        parsePattern(text)
      } catch (error) {
        assert.equal(error instanceof Error && 'code' in error && error.code, 'PROXY_ERR_PATTERN')
      }
    }),
    { numRuns: 1000 },
  )
})

test('port ranges are a list', () => {
  assert.deepEqual(parsePortRanges('9000-9999,22'), [
    { from: 9000, to: 9999 },
    { from: 22, to: 22 },
  ])
  const rejects = (text: string, message: RegExp): void =>
    assert.throws(() => parsePortRanges(text), { code: 'PROXY_ERR_PATTERN', message })
  rejects('', /is not a port or range/)
  rejects('22,', /is not a port or range/)
  rejects('0-10', /port 0 is out of range/)
  rejects('9000-70000', /port 70000 is out of range \(1 to 65535\)/)
  rejects('2-1', /write 1-2/)
})
