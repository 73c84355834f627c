import assert from 'node:assert/strict'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { test } from 'node:test'
import { parseWeb } from '../../../lib/domains/web-address.ts'
import { readTarget, targetPath, WebRoutes, type WebSite, type WebTarget } from '../../../lib/domains/web-routes.ts'

const context = { signal: new AbortController().signal, open: () => Promise.reject(new Error('not here')) }

function request(url: string, host: string | undefined = 'x.test', more: readonly string[] = []): IncomingMessage {
  const message = new IncomingMessage(new Socket())
  message.url = url
  message.rawHeaders = [...(host === undefined ? [] : ['Host', host]), ...more]
  if (host !== undefined) message.headers.host = host
  return message
}

function read(url: string, host?: string): WebTarget {
  const target = readTarget(request(url, host))
  assert.ok(target, url)
  return target
}

function routesOf(...addrs: string[]): { find(url: string, host?: string): string | undefined; routes: WebRoutes } {
  const routes = new WebRoutes()
  const names = new Map<WebSite, string>()
  for (const addr of addrs) {
    const site: WebSite = { domain: 'web', address: parseWeb(addr), context }
    names.set(site, addr)
    assert.ok(routes.add(site))
  }
  const find = (url: string, host?: string): string | undefined => {
    const site = routes.find(read(url, host))
    return site && names.get(site)
  }
  return { find, routes }
}

test('the longest path wins, at the border of a segment', () => {
  const { find } = routesOf('/api', '/api/v2', '/')
  assert.equal(find('/api'), '/api')
  assert.equal(find('/api/'), '/api')
  assert.equal(find('/api?x'), '/api')
  assert.equal(find('/api/x'), '/api')
  assert.equal(find('/apix'), '/')
  assert.equal(find('/api/v2/y'), '/api/v2')
  assert.equal(find('/api/v22'), '/api')
  assert.equal(find('/%61pi/x'), '/api')
  assert.equal(find('//api/x'), '/')
  assert.equal(routesOf('/api').find('/'), undefined)
})

test('the host itself comes before a wildcard, the longest of which comes first, and these before any host', () => {
  const { find } = routesOf('/', '*.x.com', '*.a.x.com', 'b.a.x.com/only')
  assert.equal(find('/', 'x.com'), '/')
  assert.equal(find('/', 'c.x.com'), '*.x.com')
  assert.equal(find('/', 'b.a.x.com'), '*.a.x.com')
  assert.equal(find('/only', 'B.A.X.com:8010'), 'b.a.x.com/only')
  assert.equal(find('/', 'b.a.x.com.'), '*.a.x.com')
  assert.equal(find('/', '127.1'), '/')
  assert.equal(find('http://c.x.com:80/y', 'other.test'), '*.x.com')
  assert.equal(find('/', ''), '/')
})

test('a place is of one listener, and free again when that one is gone', () => {
  const { routes } = routesOf('/api')
  const other: WebSite = { domain: 'ws', address: parseWeb('/api/'), context }
  assert.equal(routes.add(other), false)
  routes.remove(other)
  assert.ok(routes.find(read('/api')))
  const first = routes.find(read('/api'))
  assert.ok(first)
  routes.remove(first)
  assert.equal(routes.find(read('/api')), undefined)
  assert.ok(routes.add(other))
})

test('the target is asked for what stands behind the path, behind base', () => {
  for (const [addr, url, path] of [
    ['/api', '/api/greet', '/greet'],
    ['/api?base=/api/', '/api/greet', '/api/greet'],
    ['x.test', '/api/greet', '/api/greet'],
    ['x.test?base=/api/', '/greet', '/api/greet'],
    ['/api', '/api', '/'],
    ['/api', '/api?q=/../x', '/?q=/../x'],
    ['/api', '/%61pi/%61%2Fb//c/?', '/%61%2Fb//c/?'],
    ['/api?base=/b', '/api', '/b'],
    ['/api?base=/b', '/api/', '/b/'],
    ['/?base=/b/', '/', '/b/'],
    ['/', '//x', '//x'],
    ['/', 'http://x.test', '/'],
    ['/', 'http://x.test?a', '/?a'],
  ] as const) {
    assert.equal(targetPath(parseWeb(addr), read(url)), path, `${addr} ${url}`)
  }
})

test('what could be read in two ways is not read', () => {
  for (const url of [
    '/a/../b',
    '/..',
    '/%2e%2e/x',
    '/a/..%2fx',
    '/a%2f..',
    '/a\\..\\b',
    '/a/..;x=1/b',
    '/a/.%2e%3bx/b',
  ]) {
    assert.equal(readTarget(request(url)), undefined, url)
  }
  for (const url of ['*', 'x.test:443', '/a#b', 'http:///x', 'http://u@x.test/', 'ftp://x/']) {
    assert.equal(readTarget(request(url)), undefined, url)
  }
  for (const host of ['x.test/y', 'u@x.test', 'x test', 'x.test:1:2', 'x.test:999999', '[::1', 'a,b']) {
    assert.equal(readTarget(request('/', host)), undefined, host)
  }
  assert.equal(readTarget(request('/', 'x.test', ['host', 'y.test'])), undefined)
})

test('a path of 16 KiB is looked for in no time', () => {
  const { find } = routesOf('/', `/${'a/'.repeat(170)}`)
  const url = '/a'.repeat(8000)
  const start = performance.now()
  for (let round = 0; round < 100; round++) assert.ok(find(url))
  assert.ok(performance.now() - start < 2000)
})
