import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { ProxyError, rawPublicKey } from '../../../lib/core/index.ts'
import { ChannelNames, type ChannelNamesOptions, type Registrant } from '../../../lib/hub/channel-names.ts'
import { Identities } from '../../../lib/hub/identities.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { cheapScrypt } from '../../helpers/hub/cheap-scrypt.ts'

const DAY = 24 * 3600 * 1000
const DENIED = { code: 'PROXY_ERR_LISTEN_DENIED' }
const LIMITS = { subConnections: 1, pendingOpens: 1 }

interface Node extends Registrant {
  end(): void
  /** Why it was closed. */
  reason: ProxyError | undefined
}

function main(credential: string, key?: string): Node {
  let end = (): void => {}
  const closed = new Promise<ProxyError>((resolve) => {
    end = () => resolve(new ProxyError('PROXY_ERR_CLOSED', 'over'))
  })
  const bytes = key === undefined ? undefined : Buffer.alloc(32, key)
  const node: Node = {
    peer: { credential, label: 'x', key: bytes, limits: LIMITS },
    closed,
    end: () => end(),
    reason: undefined,
    close(reason) {
      node.reason = reason
      end()
    },
  }
  return node
}
const keyed = (key: string): Node => main('', key)
const enrolled = (id: string): Node => main(id, `key of ${id}`)
const keyless = (): Node => main('')

interface Bench {
  readonly folder: StateFolder
  readonly names: ChannelNames
  now: number
  again(options?: ChannelNamesOptions): Promise<ChannelNames>
}

async function bench(t: TestContext, options: ChannelNamesOptions = {}): Promise<Bench> {
  const path = await mkdtemp(join(tmpdir(), 'symport-channels-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  const folder = new StateFolder(join(path, 'state'))
  const now = (): number => made.now
  const again = async (more: ChannelNamesOptions = {}): Promise<ChannelNames> => {
    const names = await ChannelNames.open(folder, { now, ...options, ...more })
    t.after(() => names[Symbol.asyncDispose]())
    return names
  }
  const made = { folder, now: 1_000_000 * DAY, again, names: undefined as unknown as ChannelNames }
  made.names = await again()
  return made
}

test('a name belongs to the first node key that asked, also after a restart and while its owner is away', async (t) => {
  const { names, again, folder } = await bench(t)
  const first = keyed('a')
  await names.claim('ssh', first)
  await names.claim('ssh', keyed('a'))
  first.end()
  for (const reopened of [names, await again()]) {
    await assert.rejects(reopened.claim('ssh', keyed('b')), {
      ...DENIED,
      message: 'channel ssh belongs to another node: choose another name',
    })
    await assert.rejects(reopened.claim('ssh', keyless()), DENIED)
    await assert.rejects(reopened.claim('ssh', enrolled('a')), DENIED)
    await reopened.claim('ssh', keyed('a'))
    await reopened.claim('SSH', keyed('b'))
  }
  const kept = await readFile(folder.file('channels.json'), 'utf8')
  assert.equal(kept.includes(Buffer.alloc(32, 'a').toString('hex')), false, 'a fingerprint is enough')
  assert.equal((await stat(folder.file('channels.json'))).mode & 0o777, 0o600)
})

test('two that ask at once: one has it', async (t) => {
  const { names } = await bench(t)
  const asked = await Promise.allSettled(['a', 'b', 'c'].map((key) => names.claim('ssh', keyed(key))))
  assert.deepEqual(
    asked.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected'],
  )
})

test('a node without a key owns nothing: it has what nobody owns until somebody does', async (t) => {
  const { names } = await bench(t)
  await names.claim('ssh', keyless())
  await names.claim('ssh', keyless())
  await names.claim('ssh', keyed('a'))
  await assert.rejects(names.claim('ssh', keyless()), DENIED)
})

test('what is no name of a channel is claimed by nobody', async (t) => {
  const { names } = await bench(t)
  for (const name of ['', '..', 'a b', 'x'.repeat(65), 'a:b@', '*', 'ssh\n', '__proto__\0']) {
    await assert.rejects(names.claim(name, keyed('a')), { code: 'PROXY_ERR_ADDRESS' }, name)
  }
  await names.claim('__proto__', keyed('a'))
  await assert.rejects(names.claim('__proto__', keyed('b')), DENIED)
})

test('a claim lapses when it was not used for 30 days, and not while its owner is connected', async (t) => {
  const made = await bench(t)
  const [gone, there] = [keyed('a'), keyed('a')]
  await made.names.claim('gone', gone)
  await made.names.claim('there', there)
  gone.end()
  await gone.closed
  made.now += 30 * DAY
  await assert.rejects(made.names.claim('gone', keyed('b')), DENIED)
  made.now += 1
  await made.names.claim('gone', keyed('b'))
  await assert.rejects(made.names.claim('there', keyed('b')), DENIED)
  there.end()
  await there.closed
  made.now += 29 * DAY
  await assert.rejects(made.names.claim('there', keyed('b')), DENIED)
  await made.names[Symbol.asyncDispose]()
  await assert.rejects((await made.again()).claim('there', keyed('b')), DENIED)
})

test("a clock that was set back takes nobody's name away", async (t) => {
  const made = await bench(t)
  await made.names.claim('ssh', keyed('a'))
  made.now -= 300 * DAY
  await assert.rejects(made.names.claim('ssh', keyed('b')), DENIED)
  await made.names.claim('ssh', keyed('a'))
})

test("a node has 1,000 names at most; its own longest unused one gives way, and nobody else's", async (t) => {
  const { names } = await bench(t)
  await names.claim('mine', keyed('a'))
  const flood = keyed('b')
  await Promise.all(Array.from({ length: 1000 }, (_, index) => names.claim(`n${index}`, flood)))
  await assert.rejects(names.claim('more', flood), { ...DENIED, message: 'this node has 1000 channels already' })
  flood.end()
  await flood.closed
  await names.claim('more', keyed('b'))
  await assert.rejects(names.claim('mine', keyed('b')), DENIED)
  await names.claim('n0', keyed('c'))
  await assert.rejects(names.claim('n1', keyed('c')), DENIED)
})

test('of 10,000 names the longest unused gives way, and none that is in use', async (t) => {
  const { names } = await bench(t)
  const used = keyed('used')
  await names.claim('used', used)
  const early = keyed('early')
  await names.claim('early', early)
  early.end()
  await early.closed
  const floods: Node[] = []
  for (let owner = 0; owner < 10; owner++) {
    const node = main('', `flood ${owner}`)
    floods.push(node)
    const count = owner === 9 ? 998 : 1000
    await Promise.all(Array.from({ length: count }, (_, index) => names.claim(`f${owner}-${index}`, node)))
  }
  await names.claim('one-more', keyed('new'))
  await names.claim('early', keyless())
  await assert.rejects(names.claim('used', keyed('b')), DENIED)
  await assert.rejects(names.claim('no-room', keyed('late')), {
    ...DENIED,
    message: /there are 10000 channels already/,
  })
})

test('whoever makes up keys takes no room from enrolled nodes, and who has none takes little from those', async (t) => {
  using _scrypt = cheapScrypt()
  const { folder } = await bench(t)
  const serverKey = rawPublicKey(generateKeyPairSync('x25519').publicKey)
  const identities = await Identities.open(folder, { serverKey: async () => serverKey })
  await identities.addMany([{ id: 'away' }, { id: 'late' }, { id: 'office', grants: { channels: ['ssh'] } }])
  const names = await ChannelNames.open(folder, { identities })
  t.after(() => names[Symbol.asyncDispose]())
  const away = enrolled('away')
  await names.claim('printer', away)
  away.end()
  await away.closed
  const claims = (node: Node, prefix: string): Promise<unknown> =>
    Promise.all(Array.from({ length: 1000 }, (_, index) => names.claim(`${prefix}-${index}`, node)))
  for (let owner = 0; owner < 10; owner++) await claims(main('', `flood ${owner}`), `f${owner}`)
  await assert.rejects(names.claim('printer', keyed('x')), DENIED)
  await assert.rejects(names.claim('more', keyed('x')), DENIED)
  const [one, other] = [keyless(), keyless()]
  await claims(one, 'k')
  await assert.rejects(names.claim('k', other), {
    ...DENIED,
    message: 'nodes without a key have 1000 channels already',
  })
  one.end()
  await one.closed
  await names.claim('k', other)
  await names.claim('printer', enrolled('away'))
  await names.claim('anything', enrolled('late'))
  await names.claim('ssh', enrolled('office'))
})

test('who has a name is shut out of it the moment that it is granted to another node', async (t) => {
  using _scrypt = cheapScrypt()
  const { folder } = await bench(t)
  const serverKey = rawPublicKey(generateKeyPairSync('x25519').publicKey)
  const identities = await Identities.open(folder, { serverKey: async () => serverKey })
  await identities.add({ id: 'all', grants: { channels: ['*'] } })
  const names = await ChannelNames.open(folder, { identities })
  t.after(() => names[Symbol.asyncDispose]())
  const all = enrolled('all')
  await names.claim('ssh', all)
  await identities.remove('all')
  const before = {
    all,
    key: keyed('a'),
    none: keyless(),
    office: enrolled('office'),
    gone: keyed('b'),
    rest: keyed('c'),
  }
  await names.claim('rdp', before.key)
  await names.claim('vnc', before.none)
  await names.claim('office-1', before.office)
  await names.claim('ssh-2', before.gone)
  before.gone.end()
  await names.claim('other', before.rest)
  await identities.addMany([{ id: 'office', grants: { channels: ['ssh', 'ssh-2', 'rdp', 'vnc', 'office-*'] } }])
  await Promise.resolve()
  const { reason } = before.key
  assert.deepEqual([reason?.code, reason?.message], [DENIED.code, 'channel rdp was granted to another node'])
  const closed = Object.entries(before).filter(([, node]) => node.reason !== undefined)
  assert.deepEqual(
    closed.map(([name]) => name),
    ['all', 'key', 'none'],
  )
  await assert.rejects(names.claim('rdp', keyed('a')), DENIED)
})

test('names that cannot be written hold in memory, and that is told once', async (t) => {
  const problems: ProxyError[] = []
  const { names, folder } = await bench(t, { onProblem: (error) => problems.push(error) })
  await names.claim('ssh', keyed('a'))
  await rm(folder.path, { recursive: true })
  await writeFile(folder.path, 'in the way')
  await names.claim('rdp', keyed('a'))
  await names.claim('vnc', keyed('a'))
  assert.deepEqual(
    problems.map(({ code }) => code),
    ['PROXY_ERR_STATE'],
  )
  await assert.rejects(names.claim('rdp', keyed('b')), DENIED)
  await assert.rejects(names.claim('ssh', keyed('b')), DENIED)
  await rm(folder.path)
  await names.claim('late', keyed('a'))
  const kept = await readFile(folder.file('channels.json'), 'utf8')
  for (const name of ['ssh', 'rdp', 'vnc', 'late']) assert.ok(kept.includes(`"${name}"`), name)
})

test('a damaged file is an error, and stays as it is', async (t) => {
  const { names, folder, again } = await bench(t)
  await names.claim('ssh', keyed('a'))
  await writeFile(folder.file('channels.json'), '{"version":1,"value":[{"name":7}]}')
  await chmod(folder.file('channels.json'), 0o600)
  await assert.rejects(again(), { code: 'PROXY_ERR_STATE' })
})

test("a name that was granted is that node's alone, whoever had it before", async (t) => {
  using _scrypt = cheapScrypt()
  const { folder } = await bench(t)
  const serverKey = rawPublicKey(generateKeyPairSync('x25519').publicKey)
  const identities = await Identities.open(folder, { serverKey: async () => serverKey })
  const names = await ChannelNames.open(folder, { identities })
  t.after(() => names[Symbol.asyncDispose]())
  await names.claim('ssh', keyed('a'))
  await identities.addMany([
    { id: 'office', grants: { channels: ['ssh', 'office-*'] } },
    { id: 'lab', grants: { channels: ['office-lab*', 'shared'] } },
    { id: 'lab2', grants: { channels: ['shared'] } },
    { id: 'plain' },
  ])
  await names.claim('ssh', enrolled('office'))
  await names.claim('office-1', enrolled('office'))
  await names.claim('office-lab1', enrolled('lab'))
  for (const [name, node] of [
    ['ssh', keyed('a')],
    ['ssh', keyless()],
    ['ssh', enrolled('lab')],
    ['ssh', main('', 'office')],
    ['office-1', enrolled('lab')],
    ['office-lab1', enrolled('office')],
  ] as const) {
    await assert.rejects(names.claim(name, node), { ...DENIED, message: /is granted to another node$/ }, name)
  }
  await names.claim('shared', enrolled('lab2'))
  await assert.rejects(names.claim('shared', enrolled('lab')), DENIED)
  await names.claim('other', enrolled('plain'))
  await assert.rejects(names.claim('other', enrolled('lab')), DENIED)
  await identities.remove('plain')
  await names.claim('other', enrolled('lab'))
  await identities.remove('office')
  await assert.rejects(names.claim('ssh', keyed('b')), DENIED)
  await names.claim('ssh', keyed('a'))
})

test('a policy with channels lets any be joined and asks for names, and leaves the rest to what it stands on', async (t) => {
  const { names } = await bench(t)
  const policy = names.policyFor(keyed('a'), createPolicy({ dial: 'none', listenPorts: [{ from: 80, to: 80 }] }))
  policy.dial({ Domain: 'channel', Addr: 'ssh' })
  assert.throws(() => policy.dial({ Domain: 'tcp', Addr: '127.0.0.1:80' }, '127.0.0.1'), {
    code: 'PROXY_ERR_DIAL_DENIED',
  })
  await policy.listen({ Domain: 'tcp', Addr: ':80' })
  assert.throws(() => policy.listen({ Domain: 'tcp', Addr: ':81' }), DENIED)
  await policy.listen({ Domain: 'channel', Addr: 'ssh' })
  const other = names.policyFor(keyed('b'), policy)
  await assert.rejects(async () => other.listen({ Domain: 'channel', Addr: 'ssh' }), DENIED)
})
