import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatDynamic,
  parseDynamic,
  readDynamic,
  readHttp,
  readHttpForward,
} from '../../../lib/domains/dynamic-address.ts'
import { httpProxy } from '../../../lib/domains/http-proxy.ts'
import { mixed } from '../../../lib/domains/mixed.ts'
import { socks5 } from '../../../lib/domains/socks5.ts'

test('an address is where to listen, and perhaps who may come', () => {
  assert.deepEqual(parseDynamic(':1080'), { host: '', port: 1080 })
  assert.deepEqual(parseDynamic('[::1]:0'), { host: '::1', port: 0 })
  assert.deepEqual(parseDynamic('127.0.0.1:1080?password_file=/etc/a%26b%20c&user=j%C3%B6rg'), {
    host: '127.0.0.1',
    port: 1080,
    access: { user: 'jörg', passwordFile: '/etc/a&b c' },
  })
})

test('it is brought into one form, which reads as the same again', () => {
  for (const [text, normal] of [
    [':1080', ':1080'],
    ['localhost:0', 'localhost:0'],
    ['[::1]:80?password_file=/x%2Fy&user=a', '[::1]:80?user=a&password_file=/x/y'],
  ] as const) {
    const read = readDynamic({ Domain: 'socks5', Addr: text }, 'listen')
    assert.deepEqual(read, { Domain: 'socks5', Addr: normal })
    assert.deepEqual(readDynamic(read, 'listen'), read)
  }
  const plain = fc.string({ minLength: 1, maxLength: 60, unit: 'grapheme' }).filter((text) => !/[:\p{C}]/u.test(text))
  fc.assert(
    fc.property(plain, plain, fc.nat({ max: 65_535 }), (user, passwordFile, port) => {
      const address = { host: '', port, access: { user, passwordFile } }
      assert.deepEqual(parseDynamic(formatDynamic(address)), address)
    }),
  )
})

test('what is wrong with it is told in one line', () => {
  for (const [text, message] of [
    ['', /has no port/],
    ['127.0.0.1', /has no port: write host:port/],
    ['1080', /has no port: write :1080 or HOST:1080/],
    [':65536', /out of range \(0 to 65535\)/],
    [':1080/', /is not a number/],
    ['work:secret@:1080', /^user information \("…@"\) is not known here: write \[bind\]:port\?user=NAME/],
    [':1080?', /^unknown option "": write \?user=NAME&password_file=PATH$/],
    [':1080?user=a', /^user and password_file belong together/],
    [':1080?password_file=/x', /^user and password_file belong together/],
    [':1080?user=&password_file=/x', /^user is empty/],
    [':1080?user=a&password_file=', /^password_file is empty/],
    [':1080?user=a&user=b&password_file=/x', /^user is given twice$/],
    [':1080?user=a&password-file=/x', /^unknown option "password-file": did you mean password_file\?$/],
    [':1080?user=a&password=secret', /^unknown option "password": write \?user=NAME&password_file=PATH$/],
    [':1080?user=a%zz&password_file=/x', /^user has a % that is no escape: write %25$/],
    [':1080?user=a:b&password_file=/x', /^user "a:b" has a colon or a control character in it$/],
    [':1080?user=a%0A&password_file=/x', /has a colon or a control character/],
    [':1080?user=a&password_file=/x%00', /^password_file has a control character/],
    [`:1080?user=${'ä'.repeat(128)}&password_file=/x`, /is longer than 255 bytes$/],
  ] as const) {
    assert.throws(() => readDynamic({ Domain: 'socks5', Addr: text }, 'listen'), {
      code: 'PROXY_ERR_ADDRESS',
      message,
    })
    try {
      parseDynamic(text)
    } catch (error) {
      assert.doesNotMatch(String(error), /secret|\n/)
    }
  }
})

test('http to forward to is tcp, on port 80 where there is none', () => {
  for (const [text, addr] of [
    ['example.test', 'example.test:80'],
    ['example.test:8080', 'example.test:8080'],
    ['example.test/', 'example.test:80'],
    ['[::1]', '[::1]:80'],
    ['[::1]:8080/', '[::1]:8080'],
    [':8080', '127.0.0.1:8080'],
    ['', '127.0.0.1:80'],
  ] as const) {
    const read = readHttp({ Domain: 'http', Addr: text }, 'forward')
    assert.deepEqual(read, { Domain: 'tcp', Addr: addr })
  }
  for (const [text, message] of [
    ['example.test/path', /^there is no path here: "\/path" is for what asks over HTTP$/],
    ['example.test?query', /^there is no path here: "\?query"/],
    ['a:secret@example.test', /^user information/],
    ['example.test:0', /out of range \(1 to 65535\)/],
    ['example.test:', /the port is missing/],
  ] as const) {
    const at = { Domain: 'http', Addr: text }
    assert.throws(() => readHttpForward(at, 'forward'), { code: 'PROXY_ERR_ADDRESS', message })
  }
  assert.deepEqual(readHttp({ Domain: 'http', Addr: ':0' }, 'listen'), { Domain: 'http', Addr: ':0' })
})

test('the three domains carry requests, and none of them is dialled', async () => {
  for (const [domain, name] of [
    [socks5(), 'socks5'],
    [httpProxy(), 'http'],
    [mixed(), 'mixed'],
  ] as const) {
    assert.deepEqual([domain.name, domain.carries, domain.resolve], [name, 'requests', undefined])
    assert.ok(domain.listen && domain.read)
    const dialled = domain.dial?.(
      { Domain: name, Addr: 'x:1' },
      { signal: new AbortController().signal, addresses: [] },
    )
    if (name === 'http') await assert.rejects(dialled ?? Promise.resolve(), { code: 'PROXY_ERR_UNKNOWN_DOMAIN' })
    else assert.equal(dialled, undefined)
  }
})
