import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, isIPv6 } from 'node:net'
import { test } from 'node:test'
import { Domains, type Endpoint, type Policy } from '../../../lib/core/index.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { tls } from '../../../lib/domains/tls.ts'
import { udp } from '../../../lib/domains/udp.ts'
import { parseWeb } from '../../../lib/domains/web-address.ts'
import { parsePattern } from '../../../lib/policy/patterns.ts'
import { type Interfaces, tunnelPolicy, wspPolicy, wspReachText } from '../../../lib/policy/reach.ts'

const at = (address: string, port = 80): string => (isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`)
const NAMES = { patterns: ['any'] as const, read: parseWeb }

/** Both as written, and as what a name was resolved to: it makes no difference. */
function reaches(policy: Policy, address: string): boolean {
  const ways: [Endpoint, string][] = ['tcp', 'udp'].flatMap((Domain) => [
    [{ Domain, Addr: at(address) }, address] as [Endpoint, string],
    [{ Domain, Addr: 'name.example:80' }, address] as [Endpoint, string],
  ])
  const answers = ways.map(([to, resolved]) => {
    try {
      policy.dial(to, resolved)
      return true
    } catch (error) {
      assert.equal(error instanceof Error && 'code' in error && error.code, 'PROXY_ERR_DIAL_DENIED', address)
      return false
    }
  })
  assert.equal(new Set(answers).size, 1, address)
  return answers[0] ?? false
}

/** Nobody's LAN, and nothing that others may reach through a server. */
const NEVER = [
  '127.0.0.1',
  '127.255.255.254',
  '0.0.0.0',
  '0.1.2.3',
  '169.254.169.254',
  '169.254.0.1',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  '224.0.0.1',
  '239.255.255.250',
  '255.255.255.255',
  '::',
  '::1',
  'fe80::1',
  'febf::1',
  'ff02::1',
  'fd00:ec2::254',
  'fd00:ec2::23',
  'fd20:ce::254',
  'fd00:c1::a9fe:a9fe',
  'fd00:42::42',
  '::ffff:127.0.0.1',
  '::ffff:169.254.169.254',
  '::ffff:7f00:1',
  '::ffff:0.0.0.0',
  '::127.0.0.1',
  '::ffff:0:127.0.0.1',
  '64:ff9b::127.0.0.1',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b::0.0.0.0',
  '64:ff9b:1::10.0.0.1',
  '64:ff9b:1:ffff::a9fe:a9fe',
  '2002:7f00:1::',
  '2002:a9fe:a9fe::1',
]
const PRIVATE = [
  '10.0.0.1',
  '10.255.255.255',
  '172.16.0.1',
  '172.31.255.254',
  '192.168.1.200',
  'fc00::1',
  'fd12:3456::1',
  '::ffff:10.0.0.1',
  '64:ff9b::192.168.1.1',
]
const PUBLIC = [
  '9.255.255.255',
  '11.0.0.0',
  '172.15.255.255',
  '172.32.0.0',
  '192.167.255.255',
  '192.169.0.0',
  '100.64.0.1',
  '192.0.2.1',
  '198.51.100.7',
  '8.8.8.8',
  '2001:db8::1',
  '2606:4700::1111',
  '64:ff9b::8.8.8.8',
  '::ffff:8.8.8.8',
]

const LOOPBACK_ONLY: Interfaces = {
  lo: [{ address: '127.0.0.1', netmask: '255.0.0.0', family: 'IPv4', mac: '', internal: true, cidr: '127.0.0.1/8' }],
}
const on = (...cidrs: string[]): Interfaces => ({
  ...LOOPBACK_ONLY,
  eth0: cidrs.map((cidr) => {
    const address = cidr.replace(/\/.*/, '')
    const common = { address, netmask: '', mac: '', internal: false, cidr }
    return isIPv6(address) ? { ...common, family: 'IPv6', scopeid: 0 } : { ...common, family: 'IPv4' }
  }),
})

test("through a tunnel one reaches private addresses, and never what is only its own machine's or a cloud's", () => {
  const policy = tunnelPolicy({ interfaces: () => LOOPBACK_ONLY })
  for (const address of PRIVATE) assert.equal(reaches(policy, address), true, address)
  for (const address of [...NEVER, ...PUBLIC]) assert.equal(reaches(policy, address), false, address)
})

test('the networks that the machine is on are its LAN too, while it is on them', () => {
  let interfaces = on('192.0.2.10/24', '2001:db8::5/64')
  const policy = tunnelPolicy({ interfaces: () => interfaces })
  for (const address of ['192.0.2.77', '192.0.2.10', '2001:db8::1', '64:ff9b::192.0.2.9']) {
    assert.equal(reaches(policy, address), true, address)
  }
  for (const address of ['192.0.3.1', '2001:db8:0:1::1', '8.8.8.8']) assert.equal(reaches(policy, address), false)
  interfaces = LOOPBACK_ONLY
  assert.equal(reaches(policy, '192.0.2.77'), false)
})

test('an interface widens the LAN neither to everything nor to what is never reached', () => {
  const policy = tunnelPolicy({
    interfaces: () => on('192.0.2.1/0', '2001:db8::1/0', '169.254.3.4/16', '168.63.129.1/24', 'fe80::5/64', '::1/1'),
  })
  assert.equal(reaches(policy, '168.63.129.7'), true)
  for (const address of [...NEVER, '8.8.8.8', '2606:4700::1111']) assert.equal(reaches(policy, address), false, address)
})

test('own addresses on the LAN are reached through a tunnel, and what only loopback has is not', () => {
  const policy = tunnelPolicy({ interfaces: () => on('192.168.1.5/24') })
  assert.equal(reaches(policy, '192.168.1.5'), true)
  assert.equal(reaches(policy, '127.0.0.1'), false)
})

test('with --allow a tunnel has what its patterns match, and nothing else', () => {
  const policy = tunnelPolicy({ allow: ['127.0.0.1:80', '192.0.2.0/24:*'].map(parsePattern), interfaces: () => ({}) })
  for (const address of ['127.0.0.1', '::ffff:127.0.0.1', '192.0.2.1', '64:ff9b::192.0.2.1']) {
    assert.equal(reaches(policy, address), true, address)
  }
  for (const address of ['10.0.0.1', '127.0.0.2', '::1']) assert.equal(reaches(policy, address), false, address)
  assert.throws(() => policy.dial({ Domain: 'tcp', Addr: '127.0.0.1:81' }, '127.0.0.1'), /see --allow/)
  const suffix = tunnelPolicy({ allow: [parsePattern('*.example.com:443')] })
  suffix.dial({ Domain: 'tcp', Addr: 'www.example.com:443' }, '192.0.2.1')
  for (const address of ['127.0.0.1', '64:ff9b::7f00:1', '2002:7f00:1::']) {
    assert.throws(() => suffix.dial({ Domain: 'tcp', Addr: 'www.example.com:443' }, address), {
      code: 'PROXY_ERR_DIAL_DENIED',
    })
  }
})

test('a tunnel has tcp and udp to addresses only, and nothing listens at its far end', () => {
  for (const policy of [tunnelPolicy({ allow: [parsePattern('*:*'), parsePattern('unix:*')] }), tunnelPolicy()]) {
    const wrong: readonly [string, string, string?][] = [
      ['unix', '/run/x.sock'],
      ['channel', 'ssh'],
      ['tls', '10.0.0.1:443', '10.0.0.1'],
      ['tcp', 'name.example:80'],
      ['tcp', '10.0.0.1:0', '10.0.0.1'],
      ['tcp', '10.0.0.1', '10.0.0.1'],
      ['tcp', '10.0.0.1:99999', '10.0.0.1'],
      ['tcp', '', '10.0.0.1'],
      ['tcp', '[fe80::1%eth0]:80', 'fe80::1%eth0'],
      ['tcp', 'x:80', 'garbage'],
    ]
    for (const [Domain, Addr, address] of wrong) {
      assert.throws(
        () => policy.dial({ Domain, Addr }, address),
        { code: 'PROXY_ERR_DIAL_DENIED' },
        `${Domain} ${Addr}`,
      )
    }
    for (const Domain of ['tcp', 'udp', 'unix', 'web', 'channel']) {
      assert.throws(() => policy.listen({ Domain, Addr: ':1' }), { code: 'PROXY_ERR_LISTEN_DENIED' })
    }
  }
})

test('a refusal names what was asked for and the address that it led to, on one line', () => {
  const policy = tunnelPolicy({ interfaces: () => LOOPBACK_ONLY })
  assert.throws(() => policy.dial({ Domain: 'tcp', Addr: 'evil.example:80' }, '127.0.0.1'), {
    message:
      'evil.example:80 (127.0.0.1) is not reached through this tunnel (without --allow it is the LAN of that node)',
  })
  assert.throws(
    () => policy.dial({ Domain: 'tcp', Addr: `\u001b[2J\n${'x'.repeat(1000)}` }),
    (error) => error instanceof Error && /^[\x20-\x7e…]{1,220}$/.test(error.message),
  )
})

test("nodes as of wsp may dial all but what is the server's own", () => {
  const policy = wspPolicy({ names: NAMES })
  for (const address of [...PRIVATE, ...PUBLIC]) assert.equal(reaches(policy, address), true, address)
  for (const address of NEVER) assert.equal(reaches(policy, address), false, address)
  policy.dial({ Domain: 'tls', Addr: 'www.example.com:443?name=x.example.com' }, '192.0.2.1')
  for (const [Domain, Addr, address] of [
    ['tls', 'www.example.com:443', '127.0.0.1'],
    ['tls', 'www.example.com:443?ca=/etc/shadow', '192.0.2.1'],
    ['tls', 'www.example.com:443?verify=off&ca=/etc/shadow', '192.0.2.1'],
    ['tcp', ':80', '127.0.0.1'],
    ['tcp', 'localhost:80', '::1'],
    ['tcp', 'name.example:80', undefined],
    ['unix', '/run/docker.sock', undefined],
    ['ssh', 'x:22', '192.0.2.1'],
  ] as const) {
    assert.throws(() => policy.dial({ Domain, Addr }, address), { code: 'PROXY_ERR_DIAL_DENIED' }, Addr)
  }
})

test('loopback is loopback however it is written, by whatever dials', { timeout: 20_000 }, async (t) => {
  const reached: unknown[] = []
  const server = createServer((socket) => {
    reached.push(socket.localAddress)
    socket.destroy()
  }).listen(0, '::')
  t.after(() => server.close())
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  const hosts = ['127.1', '0', '0x7f.1', '2130706433', '017700000001', '127.0.0.1', 'localhost', 'LOCALHOST', '']
  const numbers = [
    '::1',
    '::',
    '::ffff:7f00:1',
    '::ffff:0.0.0.0',
    '::1%lo',
    'fe80::1%lo',
    '0:0:0:0:0:0:0:1',
    '64:ff9b::127.1.1.1',
  ]
  for (const policy of [wspPolicy({ names: NAMES }), tunnelPolicy()]) {
    const domains = new Domains([tcp(), udp(), tls()], policy)
    for (const host of [...hosts, ...numbers.map((number) => `[${number}]`)]) {
      for (const Domain of ['tcp', 'udp', 'tls']) {
        const to = { Domain, Addr: `${host}:${address.port}` }
        // Not every system knows all of these forms, and not every domain takes all of them.
        const refused = { code: /^PROXY_ERR_(DIAL_DENIED|DIAL_FAILED|ADDRESS)$/ }
        await assert.rejects(
          domains.dial(to, true, { signal: AbortSignal.timeout(5000) }),
          refused,
          `${Domain} ${host}`,
        )
      }
    }
  }
  assert.deepEqual(reached, [])
  const local = new Domains([tcp()], wspPolicy({ allow: [parsePattern('127.0.0.0/8:*')], names: NAMES }))
  const dialled = await local.dial({ Domain: 'tcp', Addr: `127.0.0.1:${address.port}` }, true, {
    signal: AbortSignal.timeout(5000),
  })
  dialled.destroy()
})

test('allow in the file widens and narrows what such nodes may dial', () => {
  const policy = wspPolicy({ names: NAMES, allow: ['127.0.0.1:80', '10.0.0.0/8:*', 'unix:/run/x'].map(parsePattern) })
  for (const address of ['127.0.0.1', '10.1.2.3', '::ffff:10.1.2.3']) assert.equal(reaches(policy, address), true)
  for (const address of ['8.8.8.8', '192.168.1.1', '169.254.169.254']) assert.equal(reaches(policy, address), false)
  policy.dial({ Domain: 'unix', Addr: '/run/x' })
  assert.throws(() => policy.dial({ Domain: 'unix', Addr: '/run/y' }), { code: 'PROXY_ERR_DIAL_DENIED' })
  const nothing = wspPolicy({ names: NAMES, allow: [] })
  for (const address of [...PUBLIC, ...PRIVATE, ...NEVER]) assert.equal(reaches(nothing, address), false)
})

test("a * in allow does not cover what is only the server's own, and what says it does", () => {
  const wide = wspPolicy({ names: NAMES, allow: ['127.0.0.1:80', '*:*', '*.example:*'].map(parsePattern) })
  for (const address of [...PRIVATE, ...PUBLIC]) assert.equal(reaches(wide, address), true, address)
  const reached = NEVER.filter((address) => reaches(wide, address))
  assert.ok(reached.length > 0)
  for (const address of reached) {
    assert.throws(() => wide.dial({ Domain: 'tcp', Addr: at(address, 81) }, address), { code: 'PROXY_ERR_DIAL_DENIED' })
    // Who dials these gets to 127.0.0.1.
    assert.match(address, /127\.0\.0\.1$|7f00:1|^(?:::|::ffff:|64:ff9b::)?0\.0\.0\.0$|^::$/, address)
  }
  for (const pattern of ['169.254.169.254:80', '169.254.0.0/16:*', 'name.example:80', '0.0.0.0/0:*']) {
    const said = wspPolicy({ names: NAMES, allow: [pattern, '*:*'].map(parsePattern) })
    said.dial({ Domain: 'tcp', Addr: 'name.example:80' }, '169.254.169.254')
  }
})

test('such nodes take web names, and no ports unless the operator says so', () => {
  const policy = wspPolicy({ names: { ...NAMES, own: { paths: ['/ws'], hosts: ['wsp.example.com'] } } })
  policy.listen({ Domain: 'web', Addr: '/api' })
  policy.listen({ Domain: 'ws', Addr: 'vnc.example.com' })
  for (const [Domain, Addr] of [
    ['tcp', '0.0.0.0:8080'],
    ['udp', ':53'],
    ['unix', '/run/x'],
    ['web', '/ws'],
    ['web', 'wsp.example.com'],
  ] as const) {
    assert.throws(() => policy.listen({ Domain, Addr }), { code: 'PROXY_ERR_LISTEN_DENIED' }, Addr)
  }
  wspPolicy({ names: NAMES, listenPorts: [{ from: 80, to: 80 }] }).listen({ Domain: 'tcp', Addr: ':80' })
})

test('one line says what such nodes may have', () => {
  assert.match(
    wspReachText(undefined),
    /^as in wsp, nodes may dial all but loopback, link-local and metadata addresses/,
  )
  assert.match(wspReachText(['10.0.0.0/8:*']), /nodes may dial 10\.0\.0\.0\/8:\*, and nothing else, register channels/)
  assert.match(wspReachText([]), /dial nothing/)
  const wide = wspReachText(['127.0.0.1:80', '*:*'])
  assert.match(wide, /dial 127\.0\.0\.1:80, \*:\*, and nothing else \(\* is without loopback, link-local and metadata/)
  const many = Array.from({ length: 1000 }, (_, index) => `/p${index}`)
  assert.match(wspReachText(undefined, many), /take names of the web port as \/p0, .*\/p9 and 990 more$/)
})
