import assert from 'node:assert/strict'
import test from 'node:test'
import type { DomainPlugin } from '../../../lib/core/index.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { udp } from '../../../lib/domains/udp.ts'
import { unix } from '../../../lib/domains/unix.ts'
import { keyOf, readMappingRequest } from '../../../lib/hub/mapping-request.ts'

const custom: DomainPlugin = {
  name: 'custom',
  listen: () => Promise.reject(new Error('not called')),
}
const domains = [tcp(), udp(), unix(), custom]
const read = (request: unknown): ReturnType<typeof readMappingRequest> => readMappingRequest(request, domains)
const halves = (listen: unknown, forward: unknown): unknown[] => {
  const { Listen, Forward } = read({ listen, forward })
  return [Listen, Forward]
}

test('addresses are taken in every form that half of a SPEC has', () => {
  assert.deepEqual(halves(':8078', '127.0.0.1:8077'), [
    { Domain: 'tcp', Addr: ':8078' },
    { Domain: 'tcp', Addr: '127.0.0.1:8077' },
  ])
  assert.deepEqual(halves(' tcp://0.0.0.0:0 ', ':80'), [
    { Domain: 'tcp', Addr: '0.0.0.0:0' },
    { Domain: 'tcp', Addr: '127.0.0.1:80' },
  ])
  assert.deepEqual(halves(':53/udp', '127.0.0.1:53/udp'), [
    { Domain: 'udp', Addr: ':53' },
    { Domain: 'udp', Addr: '127.0.0.1:53' },
  ])
  assert.deepEqual(halves({ Domain: 'tcp', Addr: '[::1]:1' }, 'unix:///run/b.sock'), [
    { Domain: 'tcp', Addr: '[::1]:1' },
    { Domain: 'unix', Addr: '/run/b.sock' },
  ])
})

test('the domains of an embedder, and those of the other side, are taken as they are', () => {
  assert.deepEqual(halves({ Domain: 'custom', Addr: 'x y' }, { Domain: 'theirs', Addr: '?' }), [
    { Domain: 'custom', Addr: 'x y' },
    { Domain: 'theirs', Addr: '?' },
  ])
})

test('every domain can be at the other side, and here only what this side has', () => {
  assert.deepEqual(halves(':1', 'https://a?verify=off'), [
    { Domain: 'tcp', Addr: ':1' },
    { Domain: 'tls', Addr: 'a:443?verify=off' },
  ])
  assert.deepEqual(halves(':1', { Domain: 'TLS', Addr: ':8443' })[1], { Domain: 'tls', Addr: '127.0.0.1:8443' })
  for (const listen of ['tls://a:1', 'web://x.com', 'socks5://:1', { Domain: 'ws', Addr: '/x' }]) {
    assert.throws(() => read({ listen, forward: ':2' }), {
      code: 'PROXY_ERR_REQUEST',
      message: /^listen .*cannot be listened on: tcp, udp, unix, custom can$/,
    })
  }
  assert.throws(() => read({ listen: ':1', forward: 'web://x.com' }), { message: /web cannot be forwarded to/ })
  assert.throws(() => read({ listen: ':1', forward: 'tunnel://' }), { message: /^tcp cannot be forwarded to tunnel/ })
})

test('channels are between nodes, and a password is not shown', () => {
  for (const at of ['channel://ssh:hunter2@', 'tunnel://ssh:hun ter2@', { Domain: 'CHANNEL', Addr: 'ssh' }]) {
    for (const request of [
      { listen: ':1', forward: at },
      { listen: at, forward: ':2' },
    ]) {
      assert.throws(
        () => read(request),
        (error: Error & { code?: string }) => error.code === 'PROXY_ERR_REQUEST' && !/hun|ter2/.test(error.message),
      )
    }
  }
  assert.throws(() => read({ listen: ':1', forward: 'channel://ssh:x@' }), { message: /channels are between nodes/ })
})

test('what is left out has its default', () => {
  const settings = read({ listen: ':1', forward: ':2', nodes: ['a', 'b', 'a'], health: {} })
  assert.deepEqual(settings, {
    Listen: { Domain: 'tcp', Addr: ':1' },
    Forward: { Domain: 'tcp', Addr: '127.0.0.1:2' },
    nodes: ['a', 'b'],
    balance: undefined,
    note: '',
    enabled: true,
    wait: undefined,
    health: { interval: 10_000, timeout: 5000 },
    limits: undefined,
    http: undefined,
  })
})

test('the order of the nodes does not make another mapping of it, and all else that says where does', () => {
  const base = { listen: ':1', forward: ':2', nodes: ['a', 'b'] }
  assert.equal(keyOf(read(base)), keyOf(read({ ...base, nodes: ['b', 'a'], note: 'x', wait: 1 })))
  for (const other of [{ listen: ':3' }, { forward: ':3' }, { nodes: ['a'] }, { listen: '/a:1' }]) {
    assert.notEqual(keyOf(read(base)), keyOf(read({ ...base, ...other })))
  }
})

const whole = { listen: ':1', forward: ':2' }
const nonsense: [unknown, RegExp][] = [
  [undefined, /^a mapping is an object with listen and forward$/],
  [null, /^a mapping is an object/],
  ['x', /^a mapping is an object/],
  [[], /^listen is missing$/],
  [{}, /^listen is missing$/],
  [{ listen: ':1' }, /^forward is missing$/],
  [{ ...whole, listen: 80 }, /^listen: an address, or \{/],
  [{ ...whole, listen: '' }, /^listen "": it is empty: write host:port$/],
  [{ ...whole, listen: '80' }, /^listen "80": "80" has no port: write :80 or HOST:80$/],
  [{ ...whole, listen: ':70000' }, /^listen ":70000": port 70000 is out of range/],
  [{ ...whole, listen: ':1'.padStart(5000, 'a') }, /^listen: /],
  [{ ...whole, listen: 'tpc://:1' }, /^listen bad endpoint "tpc:\/\/:1": unknown domain "tpc": did you mean tcp\?/],
  [{ ...whole, listen: { Domain: 'nope', Addr: ':1' } }, /^listen "nope:\/\/:1": unknown domain "nope"/],
  [{ ...whole, listen: { Domain: 'tcp', Addr: ':1', more: 1 } }, /^listen: /],
  [{ ...whole, forward: ':0' }, /^forward ":0": port 0 is out of range/],
  [{ ...whole, forward: { Domain: 'tcp' } }, /^forward: /],
  [{ ...whole, forward: { Domain: 'x'.repeat(100), Addr: '' } }, /^forward "x+….*: an endpoint is/],
  [{ ...whole, nodes: 'a' }, /^nodes: a list of ids$/],
  [{ ...whole, nodes: [''] }, /^nodes\.0: an id has 1 to 64 bytes, no spaces$/],
  [{ ...whole, nodes: ['a b'] }, /^nodes\.0: /],
  [{ ...whole, nodes: ['ä'.repeat(33)] }, /^nodes\.0: /],
  [{ ...whole, nodes: Array.from({ length: 1001 }, (_, i) => `n${i}`) }, /^nodes: at most 1000 nodes$/],
  [{ ...whole, balance: 'most' }, /^balance: one of first, round-robin, least-connections$/],
  [{ ...whole, note: 'two\nlines' }, /^note: a note is one line$/],
  [{ ...whole, note: '\u001b[2J' }, /^note: a note is one line$/],
  [{ ...whole, note: 'x'.repeat(1001) }, /^note: at most 1000 characters$/],
  [{ ...whole, enabled: 'yes' }, /^enabled: true or false$/],
  [{ ...whole, wait: -1 }, /^wait: a whole number of milliseconds, 0 to 60000$/],
  [{ ...whole, wait: 60_001 }, /^wait: /],
  [{ ...whole, wait: 1.5 }, /^wait: /],
  [{ ...whole, wait: Number.NaN }, /^wait: /],
  [{ ...whole, health: true }, /^health: an object$/],
  [{ ...whole, health: { intervall: 1 } }, /^"health.intervall" is not known here: did you mean "interval"\?$/],
  [{ ...whole, health: { interval: 1 } }, /^health\.interval: a whole number of milliseconds, 100 to 86400000$/],
  [{ ...whole, health: { timeout: '5s' } }, /^health\.timeout: /],
  [
    { ...whole, listen: ':53/udp' },
    /^udp cannot be forwarded to tcp: udp carries datagrams, and tcp a stream of bytes$/,
  ],
  [{ ...whole, node: 'a' }, /^"node" is not known here: did you mean "nodes"\?$/],
]

test('what makes no sense is refused in one line that says what', () => {
  for (const [request, message] of nonsense) {
    assert.throws(() => read(request), { code: 'PROXY_ERR_REQUEST', message }, JSON.stringify(request)?.slice(0, 80))
  }
})
