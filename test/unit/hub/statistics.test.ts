import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import test, { type TestContext } from 'node:test'
import type { ProxyError } from '../../../lib/core/index.ts'
import type { Connected } from '../../../lib/hub/events.ts'
import { Statistics, type StatisticsOptions } from '../../../lib/hub/statistics.ts'
import type { StateFolder } from '../../../lib/store/state-folder.ts'
import { fill, peerOf, serverSide, stateFolderOf } from '../../helpers/hub/statistics.ts'

const FILE = 'statistics.json'
const NOTHING = { bytesIn: 0, bytesOut: 0, connections: 0, live: 0 }
const DAY = 24 * 3600 * 1000

async function open(
  t: TestContext,
  folder: StateFolder | undefined,
  options: StatisticsOptions = {},
): Promise<Statistics> {
  const statistics = await Statistics.open(folder, options)
  t.after(() => statistics.close())
  return statistics
}

/** A node comes on that day and is gone again. */
async function visit(t: TestContext, to: Statistics, id: string, day: number, credential = ''): Promise<Connected> {
  const peer = peerOf(await serverSide(t, credential), id, new Date(day * DAY))
  to.connected(peer)
  to.disconnected(peer)
  return peer
}

/** Resolves after the next write, whether it worked or not. */
function nextWrite(folder: StateFolder): Promise<void> {
  return new Promise((resolve) => {
    const { write } = folder
    folder.write = async (name, text) => {
      folder.write = write
      try {
        await write.call(folder, name, text)
      } finally {
        setImmediate(resolve)
      }
    }
  })
}

test('what nobody has heard of has carried nothing', async (t) => {
  const statistics = await open(t, undefined)
  assert.deepEqual(statistics.totals(), NOTHING)
  assert.deepEqual(statistics.mapping('x'), {
    firstConnected: undefined,
    lastConnected: undefined,
    totals: NOTHING,
    quotaUsed: 0,
  })
  const { connected, reconnects, resumes, totals, instances, firstConnected } = statistics.node('x')
  assert.deepEqual([connected, reconnects, resumes, totals, instances], [false, 0, 0, NOTHING, []])
  assert.equal(firstConnected, undefined)
  assert.deepEqual(statistics.connections(), [])
})

test('a node has its first and its last main connection, and how many there were beyond the first', async (t) => {
  const folder = await stateFolderOf(t)
  const statistics = await open(t, folder)
  await visit(t, statistics, 'a', 1)
  await visit(t, statistics, 'a', 2)
  const third = peerOf(await serverSide(t), 'a', new Date(3 * DAY))
  statistics.connected(third)
  statistics.connected(third)
  const now = statistics.node('a')
  assert.equal(now.connected, true)
  assert.equal(now.firstConnected, '1970-01-02T00:00:00.000Z')
  assert.equal(now.lastConnected, '1970-01-04T00:00:00.000Z')
  assert.equal(now.reconnects, 2)
  const [instance, ...more] = now.instances
  assert.equal(more.length, 0)
  assert.equal(instance?.instance, third.instance)
  assert.equal(instance?.state, 'connected')
  assert.equal(instance?.remote, third.remote)
  assert.equal(instance?.connectedAt, '1970-01-04T00:00:00.000Z')
  statistics.disconnected(third)
  statistics.disconnected(third)
  await statistics.close()
  const later = (await open(t, folder)).node('a')
  assert.deepEqual(later, { ...now, connected: false, instances: [] })
})

test('several processes of one node are one node with several instances', async (t) => {
  const statistics = await open(t, undefined)
  const peers = [peerOf(await serverSide(t), 'a'), peerOf(await serverSide(t), 'a')]
  peers.forEach((peer) => void statistics.connected(peer))
  const uuids = (): string[] => statistics.node('a').instances.map(({ instance }) => instance)
  assert.deepEqual(
    uuids(),
    peers.map(({ instance }) => instance),
  )
  for (const peer of peers.slice(0, 1)) statistics.disconnected(peer)
  assert.deepEqual(
    uuids(),
    peers.slice(1).map(({ instance }) => instance),
  )
  assert.equal(statistics.node('a').connected, true)
})

test('nothing is written where nothing has happened', async (t) => {
  const folder = await stateFolderOf(t)
  await (await open(t, folder)).close()
  await assert.rejects(stat(folder.path), { code: 'ENOENT' })
  const statistics = await open(t, folder)
  await visit(t, statistics, 'a', 1)
  await statistics.close()
  const { mtimeMs, mode } = await stat(folder.file(FILE))
  assert.equal(mode & 0o777, 0o600)
  folder.write = () => assert.fail('it writes')
  await (await open(t, folder)).close()
  assert.equal((await stat(folder.file(FILE))).mtimeMs, mtimeMs)
})

test('it writes every 10 s and not sooner, and only if something has changed', async (t) => {
  const folder = await stateFolderOf(t)
  const peer = peerOf(await serverSide(t), 'a')
  let writes = 0
  folder.write = async () => void writes++
  t.mock.timers.enable({ apis: ['setInterval'] })
  const statistics = await Statistics.open(folder)
  const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
  statistics.connected(peer)
  t.mock.timers.tick(9_999)
  await turn()
  assert.equal(writes, 0)
  t.mock.timers.tick(1)
  await turn()
  assert.equal(writes, 1)
  t.mock.timers.tick(60_000)
  await turn()
  assert.equal(writes, 1)
  statistics.disconnected(peer)
  t.mock.timers.tick(10_000)
  await turn()
  assert.equal(writes, 2)
  await statistics.close()
  await statistics.close()
  assert.equal(writes, 2)
  // What the main connections have to clear is real.
  t.mock.timers.reset()
})

test('a damaged file is told once, put aside, and does not keep it from starting', async (t) => {
  const folder = await stateFolderOf(t)
  await mkdir(folder.path)
  const good = { total: { bytesIn: 1, bytesOut: 1, connections: 1 }, enrolled: [], others: [], mappings: [] }
  const node = { id: 'a', first: 1, last: 1, mains: 1, resumes: 0, bytesIn: 1, bytesOut: 1, connections: 1 }
  const bad = [
    '',
    '{',
    'null',
    '[]',
    '{"version":2,"value":{}}',
    JSON.stringify({ version: 1, value: { ...good, total: { ...good.total, bytesIn: -1 } } }),
    JSON.stringify({ version: 1, value: { ...good, total: { ...good.total, bytesIn: 1e300 } } }),
    JSON.stringify({ version: 1, value: { ...good, others: [{ ...node, last: 8.64e15 + 1 }] } }),
    JSON.stringify({ version: 1, value: { ...good, others: [{ ...node, id: 7 }] } }),
    JSON.stringify({ version: 1, value: { ...good, mappings: {} } }),
  ]
  for (const text of bad) {
    await writeFile(folder.file(FILE), text)
    const problems: ProxyError[] = []
    const statistics = await open(t, folder, { onProblem: (error) => problems.push(error) })
    assert.deepEqual(
      problems.map(({ code }) => code),
      ['PROXY_ERR_STATE'],
      text,
    )
    assert.match(problems[0]?.message ?? '', /statistics\.json is damaged: .*statistics\.json\.damaged/)
    assert.equal(await readFile(folder.file(`${FILE}.damaged`), 'utf8'), text)
    assert.deepEqual(statistics.totals(), NOTHING)
    await visit(t, statistics, 'a', 1)
    await statistics.close()
    assert.equal((await open(t, folder)).node('a').firstConnected, '1970-01-02T00:00:00.000Z')
  }
})

test('what cannot be put aside is told, and never written over', async (t) => {
  const folder = await stateFolderOf(t)
  await mkdir(folder.file(`${FILE}.damaged`), { recursive: true })
  await writeFile(folder.file(`${FILE}.damaged/kept`), '')
  await writeFile(folder.file(FILE), 'figures of years')
  const problems: ProxyError[] = []
  const statistics = await open(t, folder, { onProblem: (error) => problems.push(error) })
  assert.match(problems.map(({ message }) => message).join(), /cannot be put aside/)
  await visit(t, statistics, 'a', 1)
  assert.equal(statistics.node('a').reconnects, 0)
  await statistics.close()
  assert.equal(await readFile(folder.file(FILE), 'utf8'), 'figures of years')
})

test('a full disk is told once, and again only after it worked meanwhile; no figure is lost', async (t) => {
  const folder = await stateFolderOf(t)
  const problems: ProxyError[] = []
  const statistics = await open(t, folder, { saveEvery: 5, onProblem: (error) => problems.push(error) })
  let makeRoom = fill(folder)
  await visit(t, statistics, 'a', 1)
  for (let i = 0; i < 3; i++) await nextWrite(folder)
  assert.deepEqual(
    problems.map(({ code, message }) => `${code} ${message}`),
    ['PROXY_ERR_STATE no space left'],
  )
  makeRoom()
  await nextWrite(folder)
  assert.match(await readFile(folder.file(FILE), 'utf8'), /"id": "a"/)
  makeRoom = fill(folder)
  await visit(t, statistics, 'b', 2)
  for (let i = 0; i < 2; i++) await nextWrite(folder)
  assert.equal(problems.length, 2)
  makeRoom()
  await statistics.close()
  assert.equal(problems.length, 2)
  const later = await open(t, folder)
  assert.deepEqual([later.node('a').reconnects, later.node('b').connected], [0, false])
  assert.equal(later.node('b').lastConnected, '1970-01-03T00:00:00.000Z')
})

test('close resolves on a full disk too', async (t) => {
  const folder = await stateFolderOf(t)
  const problems: ProxyError[] = []
  const statistics = await open(t, folder, { onProblem: (error) => problems.push(error) })
  fill(folder)
  await visit(t, statistics, 'a', 1)
  await statistics.close()
  assert.equal(problems.length, 1)
})

test('labels that strangers choose are values, whatever they are', async (t) => {
  const folder = await stateFolderOf(t)
  const statistics = await open(t, folder)
  const labels = ['', '__proto__', 'constructor', '"\\\n\0', '\ud800', '💥'.repeat(16), '../../etc/passwd', 'toString']
  for (const label of labels) await visit(t, statistics, label, 1)
  await visit(t, statistics, '__proto__', 2)
  await statistics.close()
  const later = await open(t, folder)
  for (const label of labels) {
    const { reconnects, firstConnected } = later.node(label)
    assert.equal(firstConnected, '1970-01-02T00:00:00.000Z', JSON.stringify(label))
    assert.equal(reconnects, label === '__proto__' ? 1 : 0)
  }
  assert.equal(later.node('hasOwnProperty').firstConnected, undefined)
})

test('of too many nodes the least recently connected is forgotten, and never one that is connected', async (t) => {
  const folder = await stateFolderOf(t)
  const statistics = await open(t, folder, { maxNodes: 3 })
  const stays = peerOf(await serverSide(t), 'stays', new Date(0))
  statistics.connected(stays)
  await visit(t, statistics, 'old', 5)
  await visit(t, statistics, 'older', 4)
  await visit(t, statistics, 'new', 6)
  const known = (from: Statistics): string[] =>
    ['stays', 'old', 'older', 'new', 'newer'].filter((id) => from.node(id).firstConnected)
  assert.deepEqual(known(statistics), ['stays', 'old', 'new'])
  await visit(t, statistics, 'newer', 7)
  assert.deepEqual(known(statistics), ['stays', 'new', 'newer'])
  await statistics.close()
  assert.deepEqual(known(await open(t, folder)), ['stays', 'new', 'newer'])
  assert.deepEqual(known(await open(t, folder, { maxNodes: 1 })), ['newer'])
})

test('who only calls itself so neither adds to a node with a credential nor displaces it', async (t) => {
  const folder = await stateFolderOf(t)
  const statistics = await open(t, folder, { maxNodes: 2 })
  await visit(t, statistics, 'bob', 1, 'bob')
  for (const [day, label] of ['bob', 'x', 'y', 'z', 'bob', 'bob'].entries()) await visit(t, statistics, label, 10 + day)
  await statistics.close()
  for (const each of [statistics, await open(t, folder)]) {
    assert.deepEqual([each.node('bob').reconnects, each.node('bob').lastConnected?.slice(0, 10)], [0, '1970-01-02'])
    assert.equal(each.node('bob', true).reconnects, 0)
    assert.equal(each.node('bob', false).reconnects, 1)
    assert.equal(each.node('z').reconnects, 0)
    assert.equal(each.node('z', true).firstConnected, undefined)
    assert.equal(each.node('x').firstConnected, undefined)
  }
})

test('a node that was removed is forgotten, and begins anew under its name', async (t) => {
  const folder = await stateFolderOf(t)
  const statistics = await open(t, folder)
  await visit(t, statistics, 'a', 1, 'a')
  const peer = peerOf(await serverSide(t, 'a'), 'a', new Date(2 * DAY))
  statistics.connected(peer)
  statistics.forget('node', 'a')
  statistics.forget('node', 'never seen')
  statistics.disconnected(peer)
  assert.equal(statistics.node('a').firstConnected, undefined)
  await visit(t, statistics, 'a', 3, 'a')
  assert.equal(statistics.node('a').firstConnected, '1970-01-04T00:00:00.000Z')
  assert.equal(statistics.node('a').reconnects, 0)
  await statistics.close()
  assert.equal((await open(t, folder)).node('a').firstConnected, '1970-01-04T00:00:00.000Z')
})

test('a timer that waits does not keep a process alive, and after close nothing is learned', async (t) => {
  // Those that are unref'd are not listed.
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const folder = await stateFolderOf(t)
  const before = timers()
  const statistics = await Statistics.open(folder)
  assert.ok(timers() <= before)
  await statistics.close()
  statistics.connected(peerOf(await serverSide(t), 'a'))
  assert.equal(statistics.node('a').connected, false)
})

test('bytes are counted by the calendar month, over a restart, and however the clock is set', async (t) => {
  const folder = await stateFolderOf(t)
  let now = Date.parse('2026-11-30T23:59:00Z')
  const clock = { now: () => now }
  const first = await Statistics.open(folder, clock)
  const peer = peerOf(await serverSide(t), 'a')
  first.connected(peer)
  const sub = await peer.proxy.dial({ Domain: 'echo', Addr: '' })
  first.opened(sub, { mapping: '1', peer })
  const carry = async (bytes: number): Promise<void> => {
    sub.write(Buffer.alloc(bytes))
    for (let back = 0; back < bytes; ) back += ((await once(sub, 'data')) as [Buffer])[0].length
  }
  await carry(1000)
  assert.deepEqual([first.ofMapping('1'), first.ofNode('a', false)], [2000, 2000])
  now += 120_000
  assert.equal(first.ofMapping('1'), 0, 'a new month')
  await carry(100)
  assert.equal(first.mapping('1').quotaUsed, 200)
  now -= 120_000
  assert.equal(first.ofMapping('1'), 200, 'a clock that is set back a little begins no month')
  now += 240_000
  assert.equal(first.node('a').quotaUsed, 200)
  assert.equal(first.mapping('1').totals.bytesIn, 1100, 'sums go on')
  await first.close()

  await using second = await Statistics.open(folder, clock)
  assert.deepEqual([second.ofMapping('1'), second.ofNode('a', false)], [200, 200])
  now = Date.parse('2027-01-01T00:00:00Z')
  assert.equal(second.ofMapping('1'), 0)
  assert.equal(second.ofMapping('none'), 0)
})

test('of a file without months nobody knows what was of this one', async (t) => {
  const folder = await stateFolderOf(t)
  const sums = { bytesIn: 5, bytesOut: 5, connections: 1 }
  const entry = { id: '1', first: 1, last: 1, ...sums }
  const value = { total: sums, enrolled: [], others: [], mappings: [entry] }
  await folder.write(FILE, JSON.stringify({ version: 1, value }))
  await using statistics = await Statistics.open(folder)
  assert.equal(statistics.mapping('1').totals.bytesIn, 5)
  assert.equal(statistics.ofMapping('1'), 0)
})
