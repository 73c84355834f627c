import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/index.ts'
import { type CaddyPlan, planRoute, type WantedRoute } from '../../../lib/hub/caddy-routes.ts'

const ID = 'symport-00112233aabbccdd'

function plan(config: unknown, more: Partial<WantedRoute> = {}): CaddyPlan {
  const wanted = {
    id: ID,
    server: undefined,
    hosts: ['a.example.com'],
    dial: '127.0.0.1:925',
    token: 'T',
    streams: true,
  }
  return planRoute(config, { ...wanted, ...more })
}

const serverOf = (routes: unknown, more: object = {}): object => ({ listen: [':443'], routes, ...more })
const withRoutes = (routes: unknown, more: object = {}): object => ({ servers: { srv0: serverOf(routes, more) } })
const site = (...host: string[]): object => ({ match: [{ host }], handle: [{ handler: 'static_response' }] })

function routeOf({ change }: CaddyPlan): { match: [{ host: string[] }]; handle: [Record<string, unknown>] } {
  assert.ok(change)
  const { body } = change as { body: { routes?: [unknown] } }
  return (Array.isArray(body) ? body[0] : (body.routes?.[0] ?? body)) as ReturnType<typeof routeOf>
}

test('one route with all hosts, known by its id, that says who it is from, keeps the Host and leads to the own port', () => {
  const { change, hosts } = plan(withRoutes([site('other.example.com')]), { hosts: ['b.example.com', 'a.example.com'] })
  assert.deepEqual(hosts, ['a.example.com', 'b.example.com'])
  assert.deepEqual(change, {
    method: 'PUT',
    path: '/servers/srv0/routes/0',
    body: {
      '@id': ID,
      match: [{ host: ['a.example.com', 'b.example.com'] }],
      handle: [
        {
          handler: 'reverse_proxy',
          upstreams: [{ dial: '127.0.0.1:925' }],
          headers: { request: { set: { 'X-Forwarded-Symport': ['T'] } } },
          transport: {
            protocol: 'http',
            keep_alive: { idle_timeout: '4s', max_idle_conns_per_host: 32, probe_interval: '30s' },
          },
          stream_close_delay: '24h',
        },
      ],
      terminal: true,
    },
  })
  assert.ok(!('stream_close_delay' in (routeOf(plan(withRoutes([]), { streams: false })).handle[0] ?? {})))
})

test('goes where it can: into an empty list, where there is no list, and to a server of its own where there is none', () => {
  assert.deepEqual(
    { ...plan(withRoutes([])).change, body: 0 },
    { method: 'POST', path: '/servers/srv0/routes', body: 0 },
  )
  for (const routes of [undefined, null]) {
    const { change } = plan(withRoutes(routes))
    assert.deepEqual([change?.method, change?.path], ['PUT', '/servers/srv0/routes'])
    assert.ok(Array.isArray(change?.body))
  }
  for (const config of [undefined, null, {}, { servers: null }, { servers: {} }]) {
    const made = plan(config)
    assert.deepEqual([made.server, made.scheme, made.port], ['srv0', 'https', 443])
    const { '@id': id, listen } = (made.change?.body ?? {}) as Record<string, unknown>
    assert.deepEqual(
      [made.change?.method, made.change?.path, id, listen],
      ['PUT', '/servers/srv0', `${ID}-server`, [':443']],
    )
  }
  assert.deepEqual(
    { ...(plan({ https_port: 8443 }).change?.body ?? {}), routes: 0 },
    {
      ...{ '@id': `${ID}-server`, listen: [':8443'], routes: 0 },
    },
  )
})

test('what is there already is left as it is, and changed in its place if it is another', () => {
  const route = routeOf(plan(withRoutes([])))
  const config = withRoutes([site('x.example.com'), route])
  assert.equal(plan(config).change, undefined)
  const { change } = plan(config, { token: 'U' })
  assert.deepEqual([change?.method, change?.path], ['PATCH', '/servers/srv0/routes/1'])
  assert.deepEqual(plan(config, { hosts: [] }).change, { method: 'DELETE', path: '/servers/srv0/routes/1' })
})

test('what an older run has left is taken away first: in another server, twice, or under another key', () => {
  const route = routeOf(plan(withRoutes([])))
  const twice = withRoutes([route, site('x.example.com'), route])
  assert.deepEqual(plan(twice).change, { method: 'DELETE', path: '/servers/srv0/routes/2' })
  const elsewhere = { servers: { srv0: serverOf([]), 'my "srv"%': serverOf([site('x.y'), route]) } }
  const { change } = plan(elsewhere, { server: 'srv0' })
  assert.deepEqual(change, { method: 'DELETE', path: '/servers/my%20%22srv%22%25/routes/1' })
  const old = { ...route, '@id': 'symport-0000000000000000' }
  assert.equal(plan(withRoutes([old])).change?.method, 'DELETE')
  // Another symport of this Caddy is somebody else.
  const neighbour = plan(withRoutes([old]), { dial: '127.0.0.1:9999' })
  assert.deepEqual([neighbour.change, neighbour.others], [undefined, ['a.example.com']])
})

test('a server that was made for it goes with it, but not if somebody else has a route there', () => {
  const own = { '@id': `${ID}-server` }
  assert.deepEqual(plan(withRoutes([], own), { hosts: [] }).change, { method: 'DELETE', path: '/servers/srv0' })
  assert.equal(plan(withRoutes([site('x.example.com')], own), { hosts: [] }).change, undefined)
  assert.equal(plan(withRoutes([]), { hosts: [] }).change, undefined)
  assert.equal(plan(undefined, { hosts: [] }).change, undefined)
})

test('a host that a route of others names is left to them, however deep that is', () => {
  const hosts = ['a.example.com', 'b.example.com', 'c.example.com', 'd.example.com']
  const deep = {
    match: [{ host: ['*.example.com'] }],
    handle: [{ handler: 'subroute', routes: [{ ...site('B.example.com'), terminal: true }] }],
  }
  const not = { match: [{ not: [{ host: ['c.example.com'] }] }] }
  const { hosts: ours, others } = plan(withRoutes([site('a.example.com', 'x.y'), deep, not, {}, null, 7]), { hosts })
  assert.deepEqual(ours, ['c.example.com', 'd.example.com'])
  assert.deepEqual(others, ['a.example.com', 'b.example.com'])
})

test('only names become matchers: no patterns, placeholders, addresses, nor what a path or JSON could be cut with', () => {
  const hostile = [
    ...['*.example.com', '*', '{http.request.host}', 'a{env.HOME}.example.com', 'a.example.com/../x', '..', '.', ''],
    ...[
      'a..example.com',
      '.example.com',
      'example.com.',
      'a"b.example.com',
      "a'b.com",
      'a\\b.com',
      'a b.com',
      'a\nb.com',
    ],
    ...[
      'a%2fb.com',
      'a:443',
      'bücher.example',
      'EXAMPLE.com',
      '-a.com',
      'a-.com',
      '127.0.0.1',
      '[::1]',
      '::1',
      'a\0.com',
    ],
    ...[`${'a'.repeat(64)}.com`, `${'a.'.repeat(126)}aa`, '__proto__"', '$(x).com', '<a>.com', 'a;b.com', 'a,b.com'],
  ]
  const good = [
    'xn--bcher-kva.example',
    'a_b.example.com',
    '__proto__',
    'constructor',
    `${'a'.repeat(63)}.com`,
    'localhost',
  ]
  const { hosts, impossible, others } = plan(withRoutes([]), { hosts: [...hostile, ...good] })
  assert.deepEqual(hosts, [...good].sort())
  assert.deepEqual(impossible, hostile)
  assert.deepEqual(others, [])
})

test('a route has 5000 hosts at most', () => {
  const many = Array.from({ length: 5003 }, (_, i) => `n${i}.example.com`)
  const { hosts, impossible } = plan(withRoutes([]), { hosts: many })
  assert.deepEqual([hosts.length, impossible], [5000, ['n5000.example.com', 'n5001.example.com', 'n5002.example.com']])
})

test('of several servers the one that was named, or the only one that speaks TLS', () => {
  const [plain, secure, strange] = [
    { listen: [':80'] },
    serverOf([]),
    { ...serverOf([]), listen: ['tcp/0.0.0.0:8443'] },
  ]
  assert.equal(plan({ servers: { a: plain, b: secure } }).server, 'b')
  assert.equal(plan({ servers: { a: plain, b: secure, c: strange } }, { server: 'c' }).server, 'c')
  assert.throws(() => plan({ servers: { a: plain, b: secure, c: strange } }), {
    code: 'PROXY_ERR_CADDY',
    retryable: true,
    message: 'Caddy has several HTTP servers: choose one with --caddy-server: a (:80), b (:443), c (tcp/0.0.0.0:8443)',
  })
  assert.throws(() => plan({ servers: { a: plain } }, { server: 'toString' }), {
    message: 'Caddy has no HTTP server "toString": there is a (:80)',
  })
  assert.throws(() => plan({}, { server: 'web' }), { message: 'Caddy has no HTTP server "web": it has none' })
  for (const name of ['a/b', '..', '.', '', 'a\nb']) {
    assert.throws(() => plan({ servers: { [name]: secure } }), {
      message: /a name that its API cannot have in a path$/,
    })
  }
})

test('visitors are told the port and scheme of that server', () => {
  const at = (server: object, more: object = {}): string => {
    const { scheme, port } = plan({ servers: { s: { routes: [], ...server } }, ...more })
    return `${scheme}:${port}`
  }
  assert.equal(at({ listen: [':443'] }), 'https:443')
  assert.equal(at({ listen: [':80', ':8443'] }), 'https:8443')
  assert.equal(at({ listen: ['[::1]:9000-9010'] }), 'https:9000')
  assert.equal(at({ listen: [':8080', ':8443'] }, { http_port: 8080, https_port: 8443 }), 'https:8443')
  assert.equal(at({ listen: [':80'] }), 'http:80')
  assert.equal(at({ listen: [':8080'], automatic_https: { disable: true } }), 'http:8080')
  assert.equal(
    at({ listen: [':8443'], automatic_https: { disable: true }, tls_connection_policies: [{}] }),
    'https:8443',
  )
  assert.equal(at({ listen: ['{env.ADDRESS}', 7, null] }), 'https:443')
  assert.equal(at({ listen: 'x' }, { http_port: 'x', https_port: -1 }), 'https:443')
})

test('a config that is not what it should be is an error, not a surprise', () => {
  for (const config of [
    7,
    'x',
    [],
    { servers: [] },
    { servers: 'x' },
    { servers: { a: 7 } },
    withRoutes({}),
    withRoutes('x'),
  ]) {
    assert.throws(() => plan(config), { code: 'PROXY_ERR_CADDY', message: /^Caddy's config cannot be read: / })
  }
  // Where it is nobody's business, it may be anything.
  const strange = [{ match: 7 }, { match: [7, { host: 'x' }, { host: [7] }] }, { '@id': 7 }, [], 'x', null]
  assert.equal(plan(withRoutes(strange)).change?.method, 'PUT')
  let nested: unknown = []
  for (let depth = 0; depth < 50_000; depth++) nested = [nested]
  assert.equal(plan(withRoutes([nested])).change?.method, 'PUT')
})

test('whatever the config is, only what is ours is replaced or removed', () => {
  const ours = fc.record({ '@id': fc.constantFrom(ID, 'symport-1'), match: fc.jsonValue(), handle: fc.jsonValue() })
  const routes = fc.oneof(fc.jsonValue(), fc.array(fc.oneof(fc.jsonValue(), ours, fc.constant(site('x.y')))))
  const server = fc.record({ listen: fc.jsonValue(), routes, '@id': fc.jsonValue(), automatic_https: fc.jsonValue() })
  const servers = fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('srv0', '__proto__')), server, { maxKeys: 3 })
  const config = fc.oneof(
    fc.jsonValue(),
    fc.record({ servers, http_port: fc.jsonValue() }, { requiredKeys: ['servers'] }),
  )
  const hosts = fc.array(fc.oneof(fc.string(), fc.constantFrom('a.b', 'x.y')), { maxLength: 3 })
  let changes = 0
  fc.assert(
    fc.property(config, hosts, (config, hosts) => {
      let planned: CaddyPlan
      try {
        planned = plan(config, { hosts })
      } catch (error) {
        assert.ok(error instanceof ProxyError, String(error))
        return
      }
      const { change } = planned
      if (change?.method !== 'PATCH' && change?.method !== 'DELETE') return
      changes++
      const [, , name = '', list, index] = change.path.split('/').map(decodeURIComponent)
      const found = Object.entries((config as { servers: object }).servers).find(([key]) => key === name)?.[1]
      const target = list === undefined ? found : found.routes[Number(index)]
      assert.match(target['@id'], /^symport-/)
      if (list === undefined) assert.deepEqual(target.routes ?? [], [])
    }),
    { numRuns: 400 },
  )
  assert.ok(changes > 10, `${changes} changes`)
})
