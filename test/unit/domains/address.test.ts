import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatHostPort, parseHostPort, parsePort } from '../../../lib/domains/address.ts'

const rejects = (text: string, message: RegExp, options = {}): void =>
  assert.throws(() => parseHostPort(text, options), { code: 'PROXY_ERR_ADDRESS', message })

test('takes IPv4, names, IPv6 in brackets and an empty host', () => {
  assert.deepEqual(parseHostPort('127.0.0.1:80'), { host: '127.0.0.1', port: 80 })
  assert.deepEqual(parseHostPort('db.example:5432'), { host: 'db.example', port: 5432 })
  assert.deepEqual(parseHostPort('my_host.:1'), { host: 'my_host.', port: 1 })
  assert.deepEqual(parseHostPort('[::1]:65535'), { host: '::1', port: 65535 })
  assert.deepEqual(parseHostPort('[fe80::1%eth0]:22'), { host: 'fe80::1%eth0', port: 22 })
  assert.deepEqual(parseHostPort(':8080'), { host: '', port: 8080 })
})

test('leaves odd spellings of IPv4 as they are', () => {
  assert.equal(parseHostPort('127.1:80').host, '127.1')
  assert.equal(parseHostPort('0177.0.0.1:80').host, '0177.0.0.1')
})

test('takes port 0 only when asked', () => {
  assert.equal(parseHostPort('a:0', { allowZero: true }).port, 0)
  rejects('a:0', /^port 0 is out of range \(1 to 65535\)$/)
})

test('rejects ports that are not plain decimal numbers from 1 to 65535', () => {
  rejects('a:70000', /^port 70000 is out of range \(1 to 65535\)$/)
  rejects('a:70000', /^port 70000 is out of range \(0 to 65535\)$/, { allowZero: true })
  rejects(`a:${'9'.repeat(400)}`, /^port 9{20}… is out of range/)
  rejects('a:', /port is missing/)
  rejects('a:0080', /begins with 0/)
  for (const port of ['-1', '+80', '80.0', '8e1', '0x50', ' 80', '80 ', '٣', 'http', '80/udp']) {
    rejects(`a:${port}`, /is not a number/)
  }
})

test('says how to write what has no port or no brackets', () => {
  rejects('example.com', /"example.com" has no port/)
  rejects('8080', /write :8080 or HOST:8080/)
  rejects('[::1]', /write \[::1\]:PORT/)
  rejects('::1', /write \[::1\]:PORT/)
  rejects('fe80::1:80', /write \[fe80::1:80\]:PORT/)
  rejects('1:2:3:4:5:6:7:8:80', /write \[1:2:3:4:5:6:7:8\]:PORT/)
  rejects('a:b:80', /is not host:port/)
})

test('rejects what is no host', () => {
  for (const host of ['a b', 'a/b', 'user@host', 'a,b', 'a..b', '.a', 'x'.repeat(64), 'a\n', 'a\0b', '*', 'a[b]']) {
    rejects(`${host}:80`, /host/)
  }
  rejects('[127.0.0.1]:80', /not an IPv6 address/)
  rejects('[::1:80', /is not \[IPv6\]:port/)
  rejects('[::1]80', /is not \[IPv6\]:port/)
  rejects('', /no port/)
})

test('errors are one line and do not show what stands before an @', () => {
  for (const text of ['a\nb:80', 'user:hunter2@host:80', `${'x'.repeat(3000)}:80`, '[\n]:80', 'a:\u2028']) {
    assert.throws(
      () => parseHostPort(text),
      (error: Error) => !/\n|\u2028|hunter2/.test(error.message) && error.message.length < 250,
    )
  }
})

test('what is formatted is parsed back', () => {
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain(), fc.constant(''))
  fc.assert(
    fc.property(host, fc.integer({ min: 0, max: 65535 }), (host, port) => {
      assert.deepEqual(parseHostPort(formatHostPort({ host, port }), { allowZero: true }), { host, port })
    }),
  )
})

test('any text is parsed or rejected with the code', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'[]:.%/@a1 0f') }), (text) => {
      try {
        const at = parseHostPort(text, { allowZero: true })
        assert.equal(formatHostPort(at), text)
      } catch (error) {
        assert.equal(error instanceof Error && 'code' in error && error.code, 'PROXY_ERR_ADDRESS')
      }
    }),
  )
})

test('parsePort takes a number alone', () => {
  assert.equal(parsePort('925'), 925)
  assert.throws(() => parsePort('99999'), { message: 'port 99999 is out of range (1 to 65535)' })
})
