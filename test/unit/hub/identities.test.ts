import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { allowAll, derivePsk, ProxyError, rawPublicKey, readToken } from '../../../lib/core/index.ts'
import { Identities } from '../../../lib/hub/identities.ts'
import type { NodeRequest } from '../../../lib/hub/operations.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'
import { makeToken } from '../../../lib/store/secrets.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { cheapScrypt } from '../../helpers/hub/cheap-scrypt.ts'

const SERVER_KEY = rawPublicKey(generateKeyPairSync('x25519').publicKey)
const CHOSEN = 'a long enough sentence, 29 owls'

interface Bench {
  readonly folder: StateFolder
  readonly identities: Identities
  /** `id why`, as `onChanged` tells it. */
  readonly told: string[]
  again(): Promise<Identities>
}

async function bench(t: TestContext): Promise<Bench> {
  const path = await mkdtemp(join(tmpdir(), 'symport-identities-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  const folder = new StateFolder(join(path, 'state'))
  const again = (): Promise<Identities> => Identities.open(folder, { serverKey: async () => SERVER_KEY })
  const identities = await again()
  const told: string[] = []
  t.after(identities.onChanged((id, why) => told.push(`${id} ${why}`)))
  return { folder, identities, told, again }
}

const inOneHour = (): string => new Date(Date.now() + 3_600_000).toISOString()

test('a node without a secret gets a token of the server, which is told once and not kept', async (t) => {
  const { folder, identities, again } = await bench(t)
  const { id, secret = '', guessable } = await identities.add({ id: 'agent-1' })
  assert.deepEqual([id, guessable], ['agent-1', undefined])
  assert.deepEqual(readToken(secret)?.publicKey, Buffer.from(SERVER_KEY))
  const psk = await derivePsk(secret, 'agent-1', 'NKpsk0')
  assert.deepEqual(Buffer.from(identities.pskFor('agent-1', 'NKpsk0') ?? []), psk)
  assert.equal(identities.pskFor('agent-1', 'NNpsk0'), undefined)
  const reopened = await again()
  assert.deepEqual(Buffer.from(reopened.pskFor('agent-1', 'NKpsk0') ?? []), psk)
  assert.deepEqual(reopened.list(), identities.list())
  const path = folder.file('nodes.json')
  assert.equal((await readFile(path, 'utf8')).includes(secret), false)
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.equal(JSON.stringify(identities.list()).includes(psk.toString('base64')), false)
})

test('a secret that a person chose is not told again, and marked if it is guessable', async (t) => {
  const { folder, identities } = await bench(t)
  assert.deepEqual(await identities.add({ id: 'a', secret: CHOSEN }), { id: 'a' })
  assert.deepEqual(await identities.add({ id: 'b', secret: 'ta1-key' }), { id: 'b', guessable: true })
  const psk = await derivePsk('ta1-key', 'b', 'NNpsk0')
  assert.deepEqual(Buffer.from(identities.pskFor('b', 'NNpsk0') ?? []), psk)
  assert.equal(identities.pskFor('b', 'NKpsk0'), undefined)
  assert.equal(identities.get('a')?.suite, 'NNpsk0')
  const kept = await readFile(folder.file('nodes.json'), 'utf8')
  assert.equal(kept.includes('ta1-key') || kept.includes(CHOSEN), false)
})

test('a token of this server may be chosen; one that is damaged or of another server may not, nor an endless secret', async (t) => {
  const { identities } = await bench(t)
  const token = makeToken(SERVER_KEY)
  assert.deepEqual(await identities.add({ id: 'a', secret: token }), { id: 'a' })
  assert.equal(identities.get('a')?.suite, 'NKpsk0')
  const other = makeToken(rawPublicKey(generateKeyPairSync('x25519').publicKey))
  for (const secret of ['', token.slice(0, -1), other, 'x'.repeat(1025)]) {
    await assert.rejects(identities.add({ id: 'b', secret }), { code: 'PROXY_ERR_SECRET' })
    await assert.rejects(identities.rotate('a', secret), { code: 'PROXY_ERR_SECRET' })
  }
  assert.equal(identities.size, 1)
})

const BAD: [what: string, request: unknown][] = [
  ['an empty id', { id: '' }],
  ['an id with a space', { id: 'a b' }],
  ['an id with a line break', { id: 'a\n' }],
  ['an id with an invisible character', { id: 'a\u200bb' }],
  ['half of a character', { id: 'a\ud800' }],
  ['an id of 65 bytes', { id: `${'é'.repeat(32)}x` }],
  ['no id', {}],
  ['an id that is a number', { id: 7 }],
  ['nothing', undefined],
  ['null', null],
  ['grants that are null', { id: 'a', grants: null }],
  ['a pattern that is a number', { id: 'a', grants: { dial: [7] } }],
  ['a secret that is a number', { id: 'a', secret: 7 }],
  ['an unknown key', { id: 'a', expire: '2999-01-01' }],
  ['an expiry that has passed', { id: 'a', expires: '2001-01-01' }],
  ['an expiry that is a word', { id: 'a', expires: 'tomorrow' }],
  ['an expiry that is a number', { id: 'a', expires: '1' }],
  ['an expiry on 30 February', { id: 'a', expires: '2999-02-30' }],
  ['an expiry without a time zone', { id: 'a', expires: '2999-01-01T00:00:00' }],
  ['ports that are none', { id: 'a', grants: { listen: '0-70000' } }],
  ['a pattern that is none', { id: 'a', grants: { dial: ['nowhere'] } }],
  ['patterns that are no list', { id: 'a', grants: { dial: '*:80' } }],
  ['more patterns than anybody reads', { id: 'a', grants: { dial: Array(65).fill('*:80') } }],
  ['patterns beyond 4 KiB', { id: 'a', grants: { dial: Array.from({ length: 64 }, () => `${'x'.repeat(63)}:80`) } }],
  ['a web name that is none', { id: 'a', grants: { names: ['/'] } }],
  ['a channel that is none', { id: 'a', grants: { channels: ['a b'] } }],
  ['a channel with a * in its midst', { id: 'a', grants: { channels: ['a*b'] } }],
  ['an unknown grant', { id: 'a', grants: { everything: true } }],
]
test('what makes no sense is refused, and nothing is kept of it', async (t) => {
  const { identities, folder } = await bench(t)
  for (const [what, request] of BAD) {
    await assert.rejects(identities.add(request as NodeRequest), { code: 'PROXY_ERR_REQUEST' }, what)
  }
  await assert.rejects(identities.add({ id: 'a', grants: { listen: '9000-80' } }), /write 80-9000/)
  await assert.rejects(identities.add({ id: 'a', grants: { names: ['/'] } }), /write \* for every name/)
  await assert.rejects(identities.add({ id: 'a', grants: { channels: ['a b'] } }), /write a name of letters/)
  assert.equal(identities.size, 0)
  await assert.rejects(stat(folder.path), { code: 'ENOENT' })
})

test('the longest id, and one that objects have by themselves, are ids like others', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, again } = await bench(t)
  const ids = ['é'.repeat(32), '__proto__', 'constructor', '名前']
  await identities.addMany(ids.map((id) => ({ id, secret: CHOSEN })))
  assert.equal(identities.get('toString'), undefined)
  assert.deepEqual(
    (await again()).list().map(({ id }) => id),
    ids,
  )
})

test('what exists is not added, and what does not exist is not changed', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities } = await bench(t)
  await identities.add({ id: 'a' })
  const psk = identities.pskFor('a', 'NKpsk0')
  await assert.rejects(identities.add({ id: 'a' }), { code: 'PROXY_ERR_EXISTS' })
  assert.equal(identities.pskFor('a', 'NKpsk0'), psk)
  const changes = [identities.remove('b'), identities.setEnabled('b', true), identities.rotate('b')]
  await Promise.all(changes.map((change) => assert.rejects(change, { code: 'PROXY_ERR_NOT_FOUND' })))
})

test('of two that add one id at the same time one succeeds, and changes that come together are all kept', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, again } = await bench(t)
  const two = await Promise.allSettled([identities.add({ id: 'a' }), identities.add({ id: 'a' })])
  assert.deepEqual(two.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  await identities.addMany([{ id: 'b' }, { id: 'c' }, { id: 'd' }])
  await Promise.all([
    identities.remove('a'),
    identities.setEnabled('b', false),
    identities.rotate('c', CHOSEN),
    identities.add({ id: 'e' }),
    identities.remove('d'),
  ])
  assert.deepEqual((await again()).list(), identities.list())
  assert.deepEqual(
    identities.list().map(({ id, enabled, suite }) => [id, enabled, suite]),
    [
      ['b', false, 'NKpsk0'],
      ['c', true, 'NNpsk0'],
      ['e', true, 'NKpsk0'],
    ],
  )
})

test('five hundred are added at once in their order, two secrets at a time, with one write', async (t) => {
  using scrypt = cheapScrypt()
  const { identities, folder, told } = await bench(t)
  let writes = 0
  const { write } = folder
  folder.write = (name, text) => {
    writes++
    return write.call(folder, name, text)
  }
  const requests = Array.from({ length: 500 }, (_, i) => ({
    id: `agent-${i}`,
    ...(i % 2 && { secret: `${CHOSEN} ${i}` }),
  }))
  const added = await identities.addMany(requests)
  assert.deepEqual(
    added.map(({ id }) => id),
    requests.map(({ id }) => id),
  )
  assert.deepEqual(
    added.map(({ secret }) => secret !== undefined),
    requests.map(({ secret }) => secret === undefined),
  )
  assert.deepEqual([scrypt.most, writes, told.length], [2, 1, 500])
  const secret = added[498]?.secret ?? ''
  assert.deepEqual(
    Buffer.from(identities.pskFor('agent-498', 'NKpsk0') ?? []),
    await derivePsk(secret, 'agent-498', 'NKpsk0'),
  )
})

test('if one of many cannot be added none is', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, told } = await bench(t)
  await identities.add({ id: 'there' })
  const good = [{ id: 'a' }, { id: 'b' }]
  await assert.rejects(identities.addMany([...good, { id: 'there' }]), { code: 'PROXY_ERR_EXISTS' })
  await assert.rejects(identities.addMany([...good, { id: 'a' }]), { code: 'PROXY_ERR_EXISTS', message: /named twice/ })
  await assert.rejects(identities.addMany([...good, { id: 'c d' }]), { code: 'PROXY_ERR_REQUEST' })
  await assert.rejects(identities.addMany([...good, { id: 'c', secret: '' }]), { code: 'PROXY_ERR_SECRET' })
  assert.deepEqual(told, ['there added'])
  assert.equal(identities.size, 1)
  assert.deepEqual(await identities.addMany([]), [])
})

test('there are at most 10,000', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities } = await bench(t)
  const many = Array.from({ length: 10_000 }, (_, i) => ({ id: `${i}`, secret: CHOSEN }))
  await assert.rejects(identities.addMany([...many, { id: 'more' }]), { code: 'PROXY_ERR_REQUEST' })
  assert.equal((await identities.addMany(many)).length, 10_000)
  await assert.rejects(identities.add({ id: 'more' }), { code: 'PROXY_ERR_REQUEST' })
})

test('one that is disabled, removed or rotated is not known by its secret any more, and that is told', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, told } = await bench(t)
  await identities.add({ id: 'a' })
  const first = identities.pskFor('a', 'NKpsk0')
  assert.ok(first)
  await identities.setEnabled('a', false)
  await identities.setEnabled('a', false)
  assert.equal(identities.pskFor('a', 'NKpsk0'), undefined)
  assert.equal(identities.has('a'), true)
  await identities.setEnabled('a', true)
  assert.equal(identities.pskFor('a', 'NKpsk0'), first)
  const { secret } = await identities.rotate('a')
  assert.ok(secret && readToken(secret))
  assert.notDeepEqual(identities.pskFor('a', 'NKpsk0'), first)
  assert.deepEqual(await identities.rotate('a', 'ta1-key'), { id: 'a', guessable: true })
  assert.equal(identities.pskFor('a', 'NKpsk0'), undefined)
  await identities.remove('a')
  assert.equal(identities.pskFor('a', 'NNpsk0'), undefined)
  assert.deepEqual(told, ['a added', 'a disabled', 'a enabled', 'a rotated', 'a rotated', 'a removed'])
})

test('what cannot be written does not happen, and is told to nobody else', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, folder, told } = await bench(t)
  await identities.add({ id: 'a' })
  const psk = identities.pskFor('a', 'NKpsk0')
  const { write } = folder
  folder.write = () => Promise.reject(new ProxyError('PROXY_ERR_STATE', 'no space left'))
  const changes = [
    identities.add({ id: 'b' }),
    identities.remove('a'),
    identities.setEnabled('a', false),
    identities.rotate('a'),
  ]
  await Promise.all(changes.map((change) => assert.rejects(change, { code: 'PROXY_ERR_STATE' })))
  assert.deepEqual([identities.pskFor('a', 'NKpsk0'), identities.size], [psk, 1])
  assert.deepEqual(told, ['a added'])
  folder.write = write
  await identities.remove('a')
  assert.equal(identities.size, 0)
})

test('an expiry is kept as UTC, holds from its very moment, and is told once', async (t) => {
  using _scrypt = cheapScrypt()
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.parse('2030-01-01T00:00:00Z') })
  const { identities, told, again } = await bench(t)
  await identities.addMany([
    { id: 'late', expires: '2030-01-01T03:00:10+02:00' },
    { id: 'early', expires: '2030-01-01T00:00:30Z' },
    { id: 'day', expires: '2031-01-01' },
  ])
  told.length = 0
  assert.deepEqual(
    identities.list().map(({ expires }) => expires),
    ['2030-01-01T01:00:10.000Z', '2030-01-01T00:00:30.000Z', '2031-01-01T23:59:59.999Z'],
  )
  t.mock.timers.tick(29_999)
  assert.ok(identities.pskFor('early', 'NKpsk0'))
  assert.deepEqual(told, [])
  t.mock.timers.tick(1)
  assert.equal(identities.pskFor('early', 'NKpsk0'), undefined)
  assert.deepEqual(told, ['early expired'])
  // Changes of others do not tell it again.
  await identities.setEnabled('late', false)
  await identities.setEnabled('late', true)
  for (let minute = 0; minute < 61; minute++) t.mock.timers.tick(60_000)
  assert.deepEqual(told, ['early expired', 'late disabled', 'late enabled', 'late expired'])
  assert.ok(identities.pskFor('day', 'NKpsk0'))
  assert.equal((await again()).pskFor('late', 'NKpsk0'), undefined)
})

test('no timer runs while nobody listens, or nothing expires', async (t) => {
  using _scrypt = cheapScrypt()
  const { folder } = await bench(t)
  const identities = await Identities.open(folder, { serverKey: async () => SERVER_KEY })
  const timers = t.mock.method(globalThis, 'setTimeout')
  await identities.addMany([{ id: 'a', expires: inOneHour() }, { id: 'b' }])
  assert.equal(timers.mock.callCount(), 0)
  const off = identities.onChanged(() => {})
  assert.equal(timers.mock.callCount(), 1)
  off()
  await identities.remove('a')
  t.after(identities.onChanged(() => {}))
  assert.equal(timers.mock.callCount(), 1)
})

test('a node may do what it was granted beside what all may, and hears the words of all where neither allows it', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, again } = await bench(t)
  const grants = { listen: '9000-9999,22', dial: ['10.0.0.0/8:80', '*.example.com:*'], channels: ['x'] }
  await identities.addMany([{ id: 'a', grants }, { id: 'b' }, { id: 'c', grants: { listen: '1' } }])
  const base = createPolicy({ dial: [{ kind: 'unix', path: '/all' }], listenPorts: [{ from: 80, to: 80 }] })
  const tcp = (Addr: string): { Domain: string; Addr: string } => ({ Domain: 'tcp', Addr })
  for (const reopened of [identities, await again()]) {
    assert.deepEqual(reopened.get('a')?.grants, grants)
    const policy = reopened.policyFor('a', base)
    for (const port of [9000, 9999, 22, 80]) await policy.listen(tcp(`0.0.0.0:${port}`))
    assert.throws(() => policy.listen(tcp('0.0.0.0:8999')), { code: 'PROXY_ERR_LISTEN_DENIED' })
    policy.dial(tcp('10.1.2.3:80'), '10.1.2.3')
    policy.dial(tcp('www.example.com:443'), '192.0.2.1')
    policy.dial({ Domain: 'unix', Addr: '/all' })
    assert.throws(() => policy.dial(tcp('10.1.2.3:81'), '10.1.2.3'), { code: 'PROXY_ERR_DIAL_DENIED' })
    assert.throws(() => policy.dial({ Domain: 'unix', Addr: '/other' }), { code: 'PROXY_ERR_DIAL_DENIED' })
    assert.throws(() => reopened.policyFor('c', base).dial(tcp('10.1.2.3:80'), '10.1.2.3'))
  }
  assert.equal(identities.policyFor('b', base), base)
  assert.equal(identities.policyFor('nobody', allowAll), allowAll)
  const own = new ProxyError('PROXY_ERR_LISTEN_DENIED', 'not at night')
  const strict = { dial() {}, listen: () => Promise.reject(own) }
  await assert.rejects(async () => identities.policyFor('a', strict).listen(tcp('0.0.0.0:1')), own)
})

test("a node may have the web names that it was granted, and never what is the server's own", async (t) => {
  using _scrypt = cheapScrypt()
  const { folder } = await bench(t)
  const ownNames = { paths: ['/symport'], hosts: ['own.example.com'] }
  const open = (): Promise<Identities> => Identities.open(folder, { serverKey: async () => SERVER_KEY, ownNames })
  const identities = await open()
  await identities.addMany([
    { id: 'a', grants: { names: ['app.example.com', '/vnc'] } },
    { id: 'all', grants: { names: ['*'] } },
    { id: 'own', grants: { names: ['own.example.com'] } },
  ])
  const base = createPolicy({ dial: 'none', listenPorts: 'none' })
  const web = (Addr: string): { Domain: string; Addr: string } => ({ Domain: 'web', Addr })
  for (const reopened of [identities, await open()]) {
    const may = (id: string, name: string): boolean => {
      try {
        reopened.policyFor(id, base).listen(web(name))
        return true
      } catch {
        return false
      }
    }
    for (const name of ['app.example.com', 'app.example.com/x', '/vnc']) assert.equal(may('a', name), true, name)
    for (const name of ['/api', 'own.example.com', '/symport', '']) assert.equal(may('a', name), false, name)
    for (const name of ['/symport', 'own.example.com', '']) assert.equal(may('all', name), false, name)
    assert.equal(may('all', '/api'), true)
    assert.equal(may('own', 'own.example.com'), true)
    assert.equal(may('own', 'own.example.com/symport'), false)
  }
})

test('a channel is granted by its own name, else by the longest pattern; a file of an older version may have others', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, folder, again } = await bench(t)
  await identities.addMany([
    { id: 'a', grants: { channels: ['ssh', 'office-*', 'office-*'] } },
    { id: 'b', grants: { channels: ['*', 'office-b*'] } },
    { id: 'c', grants: { channels: ['ssh'] } },
  ])
  const path = folder.file('nodes.json')
  await writeFile(path, (await readFile(path, 'utf8')).replace('"office-b*"', '"any name, as it once was"'), {
    mode: 0o600,
  })
  for (const [known, owner] of [
    [identities, 'b'],
    [await again(), 'a'],
  ] as const) {
    assert.deepEqual(known.channelOwners('ssh'), ['a', 'c'])
    assert.deepEqual(known.channelOwners('office-1'), ['a'])
    assert.deepEqual(known.channelOwners('office-b1'), [owner])
    assert.deepEqual(known.channelOwners('else'), ['b'])
  }
  await identities.remove('b')
  assert.deepEqual(identities.channelOwners('else'), [])
})

test('a file that is damaged is an error, and stays as it is', async (t) => {
  using _scrypt = cheapScrypt()
  const { identities, folder, again } = await bench(t)
  await identities.add({ id: 'a', grants: { listen: '80' } })
  const path = folder.file('nodes.json')
  const whole = await readFile(path, 'utf8')
  const damages = [
    ['"listen": "80"', '"listen": "x"'],
    ['"a"', '"a b"'],
    ['"NKpsk0"', '"none"'],
    ['=",', '",'],
  ] as const
  for (const [from, to] of damages) {
    const damaged = whole.replace(from, to)
    assert.notEqual(damaged, whole)
    await writeFile(path, damaged)
    await assert.rejects(again(), { code: 'PROXY_ERR_STATE' }, to)
    assert.equal(await readFile(path, 'utf8'), damaged)
  }
})
