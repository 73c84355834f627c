import assert from 'node:assert/strict'
import test from 'node:test'
import { parseCaddyFlags, parseCaddyUrl } from '../../../../apps/common/caddy-flags.ts'

type Values = Parameters<typeof parseCaddyFlags>[0]
type OnePort = Parameters<typeof parseCaddyFlags>[1]

const parse = (values: Partial<Values>, onePort: OnePort = {}): ReturnType<typeof parseCaddyFlags> =>
  parseCaddyFlags({ caddy: undefined, 'caddy-server': undefined, 'acme-email': undefined, ...values }, onePort)

test('the admin API of this machine, by TCP or a Unix socket, or another one by https', () => {
  const at = (text: string): unknown[] => [parseCaddyUrl(text).name, parseCaddyUrl(text).at]
  const local = (host: string, port: number): object => ({ host, port, secure: false })
  assert.deepEqual(at('http://127.0.0.1:2019'), ['http://127.0.0.1:2019', local('127.0.0.1', 2019)])
  assert.deepEqual(at('HTTP://localhost/'), ['http://localhost:2019', local('localhost', 2019)])
  assert.deepEqual(at('http://[::1]:80'), ['http://[::1]:80', local('::1', 80)])
  assert.deepEqual(at('https://caddy.internal'), [
    'https://caddy.internal:443',
    { host: 'caddy.internal', port: 443, secure: true },
  ])
  assert.deepEqual(at('unix:///run/caddy/admin.sock'), [
    'unix:///run/caddy/admin.sock',
    { path: '/run/caddy/admin.sock' },
  ])
  assert.equal(parse({}), undefined)
  assert.equal(parse({ caddy: 'http://127.0.0.1:2019', 'caddy-server': 'web' })?.server, 'web')
})

test('emits PROXY_ERR_USAGE for what makes no sense, in one line', () => {
  const no = /is no URL of an admin API: write http:\/\/127\.0\.0\.1:2019 or unix:\/\/\/path$/
  const cases: [Partial<Values>, RegExp][] = [
    ...['', '127.0.0.1:2019', 'caddy', 'ftp://127.0.0.1', 'http://', 'http://127.0.0.1:2019/config', 'unix://run'].map(
      (caddy): [Partial<Values>, RegExp] => [{ caddy }, caddy === '' ? /the value is empty/ : no],
    ),
    [{ caddy: 'http://u:p@127.0.0.1' }, no],
    [{ caddy: 'http://127.0.0.1:2019\\@evil.example' }, no],
    [{ caddy: 'unix:///run/a\nb' }, no],
    [{ caddy: 'http://127.0.0.1:x' }, /^--caddy: port "x" is not a number/],
    [{ caddy: 'http://:2019' }, /^--caddy: the host is missing$/],
    [
      { caddy: 'http://192.0.2.1:2019' },
      /^--caddy: http:\/\/192\.0\.2\.1:2019 is another machine, .* write https:\/\//,
    ],
    [{ caddy: 'http://127.0.0.1.evil.example' }, /is another machine/],
    [{ 'caddy-server': 'web' }, /^--caddy-server says nothing without --caddy$/],
    [{ caddy: 'http://127.0.0.1', 'acme-email': 'a@b.c' }, /^--caddy and --acme-email are both given/],
  ]
  for (const [values, message] of cases) assert.throws(() => parse(values), { code: 'PROXY_ERR_USAGE', message })
  const proxies = { proxyProtocol: true, trustedProxies: ['127.0.0.0/8', 'unix'] }
  assert.throws(() => parse({ caddy: 'http://127.0.0.1' }, proxies), { message: /Caddy sends no PROXY header/ })
  assert.ok(parse({ caddy: 'http://127.0.0.1' }, { ...proxies, trustedProxies: ['10.0.0.0/8'] }))
})
