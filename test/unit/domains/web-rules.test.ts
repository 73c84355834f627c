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
    ['http://127.0.0.1:3000/x', 'https://app.test/x'],
    ['http://[::1]:3000/x', 'https://app.test/x'],
    ['http://127.0.0.1:3001/x', 'http://127.0.0.1:3001/x'],
    ['http://127.0.0.1.evil.test:3000/x', 'http://127.0.0.1.evil.test:3000/x'],
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

test('a target of this machine may speak of itself by any of its names', () => {
  const rules = new WebRules({ hostHeader: 'rewrite' }, { Domain: 'tcp', Addr: '127.0.0.1:3000' })
  const list = ['Location', 'http://localhost:3000/x']
  for (const name of ['localhost', '.localhost', '127.0.0.1', '[::1]', 'app.lan']) {
    list.push('Set-Cookie', `a=b; Domain=${name}`)
  }
  const cookies = ['a=b', 'a=b', 'a=b', 'a=b', 'a=b; Domain=app.lan'].flatMap((value) => ['Set-Cookie', value])
  assert.deepEqual(rules.toVisitor(list, TARGET, { remote: undefined, secure: true }), [
    'Location',
    'https://app.test/x',
    ...cookies,
  ])
  const other = new WebRules({ hostHeader: 'app.lan:3000' })
  const [, left] = other.toVisitor(['Location', 'http://localhost:3000/x'], TARGET, { remote: undefined, secure: true })
  assert.equal(left, 'http://localhost:3000/x')
})

test('the other headers that say where something is lead back as well', () => {
  const rules = new WebRules({ hostHeader: 'localhost:3000' })
  for (const [name, value, expected] of [
    ['Content-Location', 'http://localhost:3000/x', 'https://app.test/x'],
    ['Content-Location', '/x', '/x'],
    ['Refresh', '0;url=http://localhost:3000/x', '0;url=https://app.test/x'],
    ['refresh', "1.5 , URL = 'http://localhost:3000/x'; more", "1.5 , URL = 'https://app.test/x'; more"],
    ['Refresh', '0 http://localhost:3000/x', '0 https://app.test/x'],
    ['Refresh', '5; url="http://localhost:3000/x', '5; url="https://app.test/x'],
    ['Refresh', '5; url=http://evil.test/http://localhost:3000/', '5; url=http://evil.test/http://localhost:3000/'],
    ['Refresh', '5', '5'],
    ['Refresh', `1${' '.repeat(60_000)}`, `1${' '.repeat(60_000)}`],
    ['Refresh', `1;url${' '.repeat(60_000)}x`, `1;url${' '.repeat(60_000)}x`],
  ] as const) {
    const list = rules.toVisitor([name, value], TARGET, { remote: undefined, secure: true })
    assert.deepEqual(list, [name, expected])
  }
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
