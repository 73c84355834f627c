import assert from 'node:assert/strict'
import { test } from 'node:test'
import { authorityOf, RuleBook, WebRules } from '../../../lib/domains/web-rules.ts'

const TARGET = { host: 'app.test', authority: 'app.test', path: '/', query: '' }

test('the host of a target is what a browser would write', () => {
  for (const [Domain, Addr, expected] of [
    ['tcp', '127.0.0.1:3000', '127.0.0.1:3000'],
    ['tcp', '127.0.0.1:80', '127.0.0.1'],
    ['tcp', '[::1]:8080?proxy=v2', '[::1]:8080'],
    ['tcp', 'web.lan:443', 'web.lan:443'],
    ['tls', 'localhost:3000?verify=off', 'localhost:3000'],
    ['tls', '10.0.0.1:443?name=app.lan', 'app.lan'],
    ['unix', '/run/app.sock', 'localhost'],
    ['channel', 'work', undefined],
    ['tcp', 'garbage', undefined],
  ] as const) {
    assert.equal(authorityOf({ Domain, Addr }), expected, Addr)
  }
})

test('only what leads to the host that the target was asked by leads back', () => {
  const rules = new WebRules({ hostHeader: 'localhost:3000' })
  for (const [location, expected] of [
    ['http://localhost:3000/x?y#z', 'https://app.test/x?y#z'],
    ['HTTP://LOCALHOST:3000', 'https://app.test'],
    ['//localhost:3000/x', '//app.test/x'],
    ['https://localhost:3000/x', 'https://app.test/x'],
    ['/x', '/x'],
    ['http://localhost:30001/x', 'http://localhost:30001/x'],
    ['http://localhost/x', 'http://localhost/x'],
    ['http://localhost:3000@evil.test/', 'http://localhost:3000@evil.test/'],
    ['http://u@localhost:3000/', 'http://u@localhost:3000/'],
    ['http://localhost:3000\\@evil.test/', 'http://localhost:3000\\@evil.test/'],
    ['http://localhost:3000.evil.test/', 'http://localhost:3000.evil.test/'],
    ['x://localhost:3000/', 'x://localhost:3000/'],
  ] as const) {
    const list = rules.toVisitor(['Location', location], TARGET, { remote: undefined, secure: true })
    assert.deepEqual(list, ['Location', expected])
  }
  const bare = new WebRules({ hostHeader: 'localhost' })
  const visitor = { remote: undefined, secure: false }
  assert.deepEqual(bare.toVisitor(['location', 'http://localhost:80/x'], TARGET, visitor), [
    'location',
    'http://app.test/x',
  ])
  assert.deepEqual(bare.toVisitor(['location', 'http://localhost/x'], { ...TARGET, authority: '' }, visitor), [
    'location',
    '/x',
  ])
})

test('without a host of its own nothing of an answer is touched', () => {
  const list = ['Location', 'http://localhost/x', 'Set-Cookie', 'a=b; Domain=localhost']
  assert.deepEqual(new WebRules().toVisitor([...list], TARGET, { remote: undefined, secure: false }), list)
  const unknown = new WebRules({ hostHeader: 'rewrite' }, { Domain: 'channel', Addr: 'work' })
  assert.deepEqual(unknown.toTarget(['Host', 'app.test']), ['Host', 'app.test'])
})

test('what is said of a listener is made ready once, and anew when it, or where it goes, is another', () => {
  const book = new RuleBook()
  let Addr = '127.0.0.1:1'
  let said: unknown = { hostHeader: 'rewrite' }
  const context = {
    signal: new AbortController().signal,
    open: () => Promise.reject(new Error('not asked')),
    settings: () => said,
    forward: () => ({ Domain: 'tcp', Addr }),
  }
  const first = book.of(context)
  assert.equal(first?.host, '127.0.0.1:1')
  assert.equal(book.of(context), first)
  Addr = '127.0.0.1:2'
  assert.equal(book.of(context)?.host, '127.0.0.1:2')
  said = undefined
  assert.equal(book.of(context)?.host, undefined)
  for (const bad of [1, { x: 1 }, { hostHeader: 'a b' }]) {
    said = bad
    assert.equal(book.of(context), undefined)
  }
})

test('a cookie of a target is read in no time, whatever it is made of', () => {
  const rules = new WebRules({ hostHeader: 'localhost:3000' })
  const started = performance.now()
  for (const [value, expected] of [
    ['a=1; Domain = .LocalHost ; Path=/', 'a=1; Path=/'],
    ['a=1; domain=localhost.test', undefined],
    [`a=1; domain=x${' '.repeat(60_000)}y`, undefined],
    [`a=1;${' '.repeat(60_000)}y`, undefined],
  ] as const) {
    const list = rules.toVisitor(['Set-Cookie', value], TARGET, { remote: undefined, secure: true })
    assert.deepEqual(list, ['Set-Cookie', expected ?? value])
  }
  assert.ok(performance.now() - started < 1000)
})
