import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/index.ts'
import { parseWeb } from '../../../lib/domains/web-address.ts'
import { givesName, mayHaveName, type OwnNames, parseNamePattern } from '../../../lib/policy/names.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'

const parse = (text: string) => parseNamePattern(text, parseWeb)
const rules = (patterns: readonly string[], own?: OwnNames) => {
  return { patterns: patterns.map(parse), read: parseWeb, ...(own && { own }) }
}
const policyOf = (...patterns: string[]) =>
  createPolicy({ dial: 'none', listenPorts: 'none', names: rules(patterns, { paths: ['/symport'] }) })

/** A pattern, the names that it gives away, and names that it does not. */
const TABLE: readonly [pattern: string, given: readonly string[], kept: readonly string[]][] = [
  [
    'app.example.com',
    ['app.example.com', 'APP.Example.COM.', 'app.example.com/x', 'app.example.com/x?base=/y/'],
    ['', '/', '/x', 'example.com', 'x.app.example.com', '*.example.com', '*.app.example.com', 'app.example.com.evil'],
  ],
  [
    '*.example.com',
    ['app.example.com', 'a.b.example.com/x', '*.example.com', '*.b.example.com'],
    ['example.com', 'evilexample.com', '*.com', '/', '', 'example.com.evil'],
  ],
  ['*.münchen.de', ['www.xn--mnchen-3ya.de', 'www.münchen.de'], ['münchen.de']],
  [
    '/api',
    ['/api', 'api.example.com/api', '/api/v1', '*.x.com/api/', '/%61pi'],
    ['/', '/apis', '/API', '/x/api', 'api'],
  ],
  ['app.example.com/api', ['app.example.com/api/x'], ['app.example.com', '/api', 'b.example.com/api']],
  ['[2001:DB8::1]', ['[2001:db8:0::1]/x'], ['[2001:db8::2]']],
  ['*', ['', '/', '/x', '*.com', 'app.example.com', '[::1]'], []],
]

test('a pattern gives away its own name and those below it, however they are spelled', () => {
  for (const [pattern, given, kept] of TABLE) {
    for (const name of given) assert.equal(givesName(parse(pattern), parseWeb(name)), true, `${pattern}: ${name}`)
    for (const name of kept) assert.equal(givesName(parse(pattern), parseWeb(name)), false, `${pattern}: ${name}`)
  }
})

test('what is no pattern is an error that says what to write', () => {
  const wrong: readonly [string, RegExp][] = [
    ['', /write app\.example\.com, \*\.example\.com, \/path/],
    [' ', /write app/],
    ['/', /bad name "\/": write \* for every name, or a path like \/api$/],
    ['//', /write \* for every name/],
    ['/x?base=/y', /a pattern has no \?/],
    ['a.example.com:80', /has a port: leave it out/],
    ['*/x', /"\*" is not a host/],
    ['a.*.com', /a \* stands in front/],
    ['/a/../b', /"\." or "\.\."/],
    ['/a%2fb', /encoded slash/],
    ['a b', /is not a host/],
    ['x'.repeat(5000), /^bad name "x{79}…": /],
  ]
  for (const [text, message] of wrong) assert.throws(() => parse(text), { code: 'PROXY_ERR_PATTERN', message }, text)
})

test("where nodes connect is nobody else's, on no host, whatever the patterns say", () => {
  for (const patterns of [['*'], ['/symport'], ['app.example.com']]) {
    for (const name of ['/symport', '/symport/', '/%73ymport', 'app.example.com/symport']) {
      assert.equal(mayHaveName(rules(patterns, { paths: ['/symport'] }), name), false, `${patterns}: ${name}`)
    }
  }
  assert.equal(mayHaveName(rules(['*'], { paths: ['/symport'] }), '/symport-docs'), true)
  assert.equal(mayHaveName(rules(['*'], { paths: ['/a', '/b'] }), '/b'), false)
})

test('the own name as a whole, and the rest of all, are given only by a pattern that says that name', () => {
  const own = { hosts: ['www.example.com'] }
  for (const patterns of [['*'], ['*.example.com'], ['*', '*.example.com', '/api']]) {
    for (const name of ['www.example.com', 'WWW.example.com/', '', '/']) {
      assert.equal(mayHaveName(rules(patterns, own), name), false, `${patterns}: ${name}`)
    }
  }
  assert.equal(mayHaveName(rules(['*'], own), '/api'), true)
  assert.equal(mayHaveName(rules(['*'], own), 'www.example.com/api'), true)
  assert.equal(mayHaveName(rules(['*'], own), 'app.example.com'), true)
  assert.equal(mayHaveName(rules(['www.example.com'], own), 'www.example.com'), true)
})

test('TLS that ends at the server ends at a node only by a pattern that says the name', () => {
  const own = { tls: (host: string) => host === 'vpn.example.com' }
  for (const patterns of [['*'], ['*.example.com']]) {
    assert.equal(mayHaveName(rules(patterns, own), 'vpn.example.com', true), false)
    assert.equal(mayHaveName(rules(patterns, own), 'VPN.example.com.', true), false)
    assert.equal(mayHaveName(rules(patterns, own), 'vpn.example.com'), true)
    assert.equal(mayHaveName(rules(patterns, own), 'db.example.com', true), true)
  }
  assert.equal(mayHaveName(rules(['vpn.example.com'], own), 'vpn.example.com', true), true)
})

test('a server may have several own names, each of which has to be said by itself', () => {
  const own = { hosts: ['www.example.com', 'example.org'] }
  for (const name of ['www.example.com', 'example.org', 'EXAMPLE.org/', '']) {
    for (const patterns of [['*'], ['*.com', '*.org', '*.example.com']]) {
      assert.equal(mayHaveName(rules(patterns, own), name), false, `${patterns}: ${name}`)
    }
  }
  assert.equal(mayHaveName(rules(['example.org'], own), 'www.example.com'), false)
  assert.equal(mayHaveName(rules(['example.org'], own), 'example.org'), true)
  assert.equal(mayHaveName(rules(['*'], own), 'example.org/api'), true)
  assert.equal(mayHaveName(rules(['*'], { hosts: [] }), ''), true)
})

test('a node that asks for a web name is denied unless it is granted, and hears of the flag', () => {
  const policy = policyOf('app.example.com', '/vnc')
  for (const [Domain, Addr] of [
    ['web', 'app.example.com/x?base=/y'],
    ['web', '/vnc'],
    ['ws', '/vnc/1'],
    ['tls', 'app.example.com'],
  ] as const) {
    policy.listen({ Domain, Addr })
  }
  assert.throws(() => policy.listen({ Domain: 'web', Addr: '/api?base=/secret/' }), {
    code: 'PROXY_ERR_LISTEN_DENIED',
    message: 'the web name /api is not given to this node (see --allow-names)',
  })
  assert.throws(() => policy.listen({ Domain: 'ws', Addr: '' }), { code: 'PROXY_ERR_LISTEN_DENIED' })
  assert.throws(() => policy.listen({ Domain: 'tls', Addr: 'x.app.example.com' }), { code: 'PROXY_ERR_LISTEN_DENIED' })
  const none = createPolicy({ dial: 'none', listenPorts: [{ from: 1, to: 65535 }] })
  assert.throws(() => none.listen({ Domain: 'web', Addr: 'x.example.com:80' }), {
    code: 'PROXY_ERR_LISTEN_DENIED',
    message: 'the web name x.example.com:80 is not given to this node (see --allow-names)',
  })
})

test('garbage in the place of a web name is an error, and reaches no log as it is', () => {
  const policy = policyOf('*')
  for (const Addr of ['a b', 'x:80', '/\u0000', '/a/../b', '/\ud800', '*', '@', 'x'.repeat(1024)]) {
    assert.throws(() => policy.listen({ Domain: 'web', Addr }), { code: 'PROXY_ERR_ADDRESS' }, Addr)
  }
  const strict = createPolicy({ dial: 'none', listenPorts: 'none' })
  for (const Addr of [`/\u001b[2J${'x'.repeat(1000)}`, 'a\nb']) {
    assert.throws(
      () => strict.listen({ Domain: 'web', Addr }),
      (error) => error instanceof Error && /^[\x20-\x7e…]{1,200}$/.test(error.message),
    )
  }
})

test('whatever the peer sends is a name or a ProxyError, and the spelling of a name changes nothing', () => {
  const piece = fc.constantFrom(
    'app',
    'x.com',
    '*.',
    '.',
    '/',
    '//',
    '%2f',
    '%61',
    'API',
    '..',
    '?base=/',
    ':80',
    '[::1]',
    '@',
    '\u0000',
    'ü',
    ' ',
  )
  const text = fc.oneof(
    fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
    fc.string({ unit: 'binary', maxLength: 40 }),
  )
  const given = rules(['/api', 'app.example.com', '*.x.com'], { paths: ['/symport'], hosts: ['own.example.com'] })
  fc.assert(
    fc.property(text, (name) => {
      try {
        const { host, path } = parseWeb(name)
        assert.equal(mayHaveName(given, name), mayHaveName(given, `${host}${path}`))
      } catch (error) {
        assert.ok(error instanceof ProxyError && error.code === 'PROXY_ERR_ADDRESS', String(error))
      }
    }),
    { numRuns: 60 },
  )
})
