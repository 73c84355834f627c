import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatHostPort } from '../../../lib/domains/address.ts'
import { parsePattern, parsePortRanges } from '../../../lib/policy/patterns.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'

const tcp = (Addr: string) => ({ Domain: 'tcp', Addr })
const unix = (Addr: string) => ({ Domain: 'unix', Addr })
const dialling = (...patterns: string[]) => createPolicy({ dial: patterns.map(parsePattern), listenPorts: 'none' })
const listening = (ports: string) => createPolicy({ dial: 'none', listenPorts: parsePortRanges(ports) })

test('a dial that no pattern allows is denied, and the message names it and the flag', () => {
  const { dial } = dialling('127.0.0.1:80')
  dial(tcp('127.0.0.1:80'), '127.0.0.1')
  assert.throws(() => dial(tcp('127.0.0.1:22'), '127.0.0.1'), {
    code: 'PROXY_ERR_DIAL_DENIED',
    message: '127.0.0.1:22 is not allowed here (see --allow)',
  })
})

test('a name is judged by the address that it was resolved to', () => {
  const { dial } = dialling('10.0.0.0/8:*')
  dial(tcp('db.example:5432'), '10.1.2.3')
  assert.throws(() => dial(tcp('db.example:5432'), '127.0.0.1'), {
    code: 'PROXY_ERR_DIAL_DENIED',
    message: 'db.example:5432 (127.0.0.1) is not allowed here (see --allow)',
  })
  assert.throws(() => dial(tcp('10.0.0.1:80'), '192.0.2.1'), { code: 'PROXY_ERR_DIAL_DENIED' })
})

test('a pattern is about tcp and udp alike', () => {
  const { dial } = dialling('127.0.0.1:53')
  dial({ Domain: 'udp', Addr: '127.0.0.1:53' }, '127.0.0.1')
  dial(tcp('127.0.0.1:53'), '127.0.0.1')
  assert.throws(() => dial({ Domain: 'udp', Addr: '127.0.0.1:54' }, '127.0.0.1'), {
    code: 'PROXY_ERR_DIAL_DENIED',
    message: 'udp://127.0.0.1:54 is not allowed here (see --allow)',
  })
})

test('an empty host is loopback', () => {
  dialling('127.0.0.1:80').dial(tcp(':80'))
  assert.throws(() => dialling('10.0.0.0/8:*').dial(tcp(':80')), { code: 'PROXY_ERR_DIAL_DENIED' })
})

test('Unix sockets need a pattern of their own', () => {
  dialling('unix:/run/x').dial(unix('/run/x'))
  assert.throws(() => dialling('*:*').dial(unix('/run/x')), {
    code: 'PROXY_ERR_DIAL_DENIED',
    message: 'unix:/run/x is not allowed here (see --allow)',
  })
})

test('an address that is none is denied, even by *:*', () => {
  for (const addr of ['x', 'a:b:80', '[]:80', 'a:80:', 'a:99999', 'a:-1', 'a: 80', '']) {
    assert.throws(() => dialling('*:*').dial(tcp(addr), '127.0.0.1'), { code: 'PROXY_ERR_DIAL_DENIED' }, addr)
  }
  assert.throws(() => dialling('*:*').dial(tcp('a:0'), '127.0.0.1'), { code: 'PROXY_ERR_DIAL_DENIED' })
})

test('any allows everything and none nothing', () => {
  const any = createPolicy({ dial: 'any', listenPorts: 'any' })
  any.dial(tcp('127.0.0.1:22'), '127.0.0.1')
  any.dial(unix('/run/x'))
  any.listen(tcp('0.0.0.0:0'))
  any.listen(unix('/run/x'))
  const none = createPolicy({ dial: 'none', listenPorts: 'none' })
  assert.throws(() => none.dial(tcp('127.0.0.1:22'), '127.0.0.1'), { code: 'PROXY_ERR_DIAL_DENIED' })
  assert.throws(() => none.dial(unix('/run/x')), { code: 'PROXY_ERR_DIAL_DENIED' })
  assert.throws(() => none.listen(tcp('127.0.0.1:9000')), { code: 'PROXY_ERR_LISTEN_DENIED' })
})

test('with port ranges tcp and udp listen, on a port within', () => {
  const { listen } = listening('9000-9999,22')
  for (const addr of ['0.0.0.0:9000', '[::]:9999', ':22', 'localhost:9500']) listen(tcp(addr))
  for (const addr of ['0.0.0.0:8999', ':0', ':10000', ':23', 'x', ':9000x', '']) {
    assert.throws(() => listen(tcp(addr)), { code: 'PROXY_ERR_LISTEN_DENIED' }, addr)
  }
  assert.throws(() => listen(tcp('0.0.0.0:80')), {
    message: 'listening on 0.0.0.0:80 is not allowed here (see --allow-ports)',
  })
  assert.throws(() => listen(unix('/run/x')), {
    code: 'PROXY_ERR_LISTEN_DENIED',
    message: 'listening on unix:/run/x is not allowed here (--allow-ports is about tcp and udp ports only)',
  })
  listen({ Domain: 'udp', Addr: ':9000' })
  assert.throws(() => listen({ Domain: 'udp', Addr: ':8999' }), {
    message: 'listening on udp://:8999 is not allowed here (see --allow-ports)',
  })
})

test('what the peer wrote cannot break the line', () => {
  const policy = createPolicy({ dial: 'none', listenPorts: 'none' })
  for (const addr of ['a\nb:80', 'x'.repeat(5000), '\u2028:80', '\u001b[2J:80']) {
    for (const ask of [() => policy.dial(tcp(addr), '::1'), () => policy.listen(tcp(addr))]) {
      assert.throws(ask, (error: Error) => !/[\p{C}\u2028]/u.test(error.message) && error.message.length < 300)
    }
  }
})

test('reads host and port as the domains write them', () => {
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain())
  fc.assert(
    fc.property(host, fc.integer({ min: 1, max: 65535 }), (host, port) => {
      const { dial, listen } = createPolicy({
        dial: [parsePattern(formatHostPort({ host, port }))],
        listenPorts: [{ from: port, to: port }],
      })
      dial(tcp(formatHostPort({ host, port })), host)
      listen(tcp(formatHostPort({ host, port })))
      const other = (port % 65535) + 1
      assert.throws(() => dial(tcp(formatHostPort({ host, port: other })), host), { code: 'PROXY_ERR_DIAL_DENIED' })
    }),
  )
})

test('a name is looked up only where one of its addresses could be allowed', () => {
  const looks = (patterns: string[], Addr: string): boolean => {
    try {
      dialling(...patterns).resolve?.(tcp(Addr))
      return true
    } catch (error) {
      assert.deepEqual([error instanceof Error && 'code' in error && error.code], ['PROXY_ERR_DIAL_DENIED'])
      return false
    }
  }
  for (const [pattern, yes, no] of [
    ['db.example.com:5432', 'DB.example.com:5432', 'other.example.com:5432'],
    ['db.example.com:5432', 'db.example.com:5432', 'db.example.com:22'],
    ['*.example.com:*', 'a.example.com:1', 'example.org:1'],
    ['10.0.0.0/8:22', 'any.name:22', 'any.name:23'],
    ['10.0.0.0/8:22', '10.1.2.3:22', '192.168.0.1:22'],
    ['localhost:80', 'also-loopback.example:80', 'also-loopback.example:81'],
    ['*:443', 'any.name:443', 'any.name:80'],
  ] as const) {
    assert.deepEqual([looks([pattern], yes), looks([pattern], no)], [true, false], pattern)
  }
  assert.throws(() => createPolicy({ dial: 'none', listenPorts: 'any' }).resolve?.(tcp('a.example:1')))
  assert.equal(createPolicy({ dial: 'any', listenPorts: 'none' }).resolve?.(tcp('a.example:1')), undefined)
})

test('a proxy is listened for on its own side, whatever else is allowed', () => {
  const { listen } = createPolicy({ dial: 'any', listenPorts: 'any' })
  for (const Domain of ['socks5', 'http', 'mixed']) {
    assert.throws(() => listen({ Domain, Addr: '127.0.0.1:1080?user=a&password_file=/etc/shadow' }), {
      code: 'PROXY_ERR_LISTEN_DENIED',
      message: `a proxy (${Domain}) is listened for on one's own side only`,
    })
  }
  assert.equal(listen({ Domain: 'tcp', Addr: '127.0.0.1:1080' }), undefined)
})
