import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import test, { type TestContext } from 'node:test'
import type { Proxy, SubConnection } from '../../lib/core/index.ts'
import type { Connected } from '../../lib/hub/events.ts'
import { Statistics } from '../../lib/hub/statistics.ts'
import { createProxyPair, type ProxyPair } from '../../lib/testing.ts'
import { codePairs } from '../helpers/contract/code.ts'
import { connectPair, everyWay, MEMORY, type Pair } from '../helpers/contract/proxies.ts'
import { echo } from '../helpers/core/echo-domain.ts'
import { peerOf, stateFolderOf } from '../helpers/hub/statistics.ts'

const TO = { Domain: 'echo', Addr: 'x' }
const NOTHING = { bytesIn: 0, bytesOut: 0, connections: 0, live: 0 }
const ends = { dialling: { domains: [echo] }, accepting: { domains: [echo] } }

/** Statistics that know this main connection as node `n`. */
async function watch(t: TestContext, proxy: Proxy): Promise<{ statistics: Statistics; peer: Connected }> {
  const statistics = await Statistics.open(undefined)
  t.after(() => statistics.close())
  const peer = peerOf(proxy, 'n')
  statistics.connected(peer)
  return { statistics, peer }
}

async function take(from: SubConnection, length: number): Promise<void> {
  let got = 0
  from.on('data', (chunk: Buffer) => {
    got += chunk.length
    if (got >= length) from.emit('taken')
  })
  await once(from, 'taken')
  from.removeAllListeners('data')
}

async function exchange(a: SubConnection, b: SubConnection, there: number, back: number): Promise<void> {
  a.write(Buffer.alloc(there))
  b.write(Buffer.alloc(back))
  await Promise.all([take(b, there), take(a, back)])
}

/** Resolves when so many ids are free again in this main connection. */
function freed(proxy: Proxy, count: number): Promise<void> {
  return new Promise((resolve) => {
    let left = count
    const onClose = (message: unknown): void => {
      if ((message as { main: unknown }).main !== proxy.main || --left > 0) return
      unsubscribe('symport:sub:close', onClose)
      setImmediate(resolve)
    }
    subscribe('symport:sub:close', onClose)
  })
}

everyWay(
  '`in` is what went from the visitor to the target, at either end, while it lives and after',
  {
    links: [MEMORY],
  },
  async ({ near, far, nearCode }, t) => {
    const folder = await stateFolderOf(t)
    const here = await Statistics.open(folder)
    t.after(() => here.close())
    const peer = peerOf(near, 'n')
    here.connected(peer)
    const there = await watch(t, far)
    const pairs = await codePairs(far, nearCode)
    const { opened, accepted } = await pairs.next()
    await exchange(opened, accepted, 300_000, 7)
    const open = { bytesIn: 300_000, bytesOut: 7, connections: 1, live: 1 }
    for (const each of [here, there.statistics]) {
      assert.deepEqual(each.totals(), open)
      assert.deepEqual(each.node('n').totals, open)
    }
    assert.deepEqual(here.instance(peer).totals, open)
    const over = Promise.all([freed(near, 1), freed(far, 1)])
    opened.destroy()
    await over
    const closed = { ...open, live: 0 }
    for (const each of [here, there.statistics]) {
      assert.deepEqual(each.totals(), closed)
      assert.deepEqual(each.node('n').totals, closed)
      assert.deepEqual(each.connections(), [])
    }
    await here.close()
    const later = await Statistics.open(folder)
    t.after(() => later.close())
    assert.deepEqual([later.totals(), later.node('n').totals], [closed, closed])
  },
)

test('what a mapping has opened counts for it, at once, and also what lives when a process ends', async (t) => {
  await using pair = await connectPair(MEMORY, ends)
  const folder = await stateFolderOf(t)
  const statistics = await Statistics.open(folder)
  t.after(() => statistics.close())
  const peer = peerOf(pair.accepting, 'n')
  statistics.connected(peer)
  const sub = await pair.accepting.open({ to: TO, from: '192.0.2.1:5' })
  statistics.opened(sub, { mapping: 'm', peer, to: TO })
  statistics.opened(sub, { mapping: 'm', peer, to: TO })
  assert.deepEqual(statistics.mapping('m').totals, { ...NOTHING, connections: 1, live: 1 })
  sub.write(Buffer.alloc(1000))
  await take(sub, 1000)
  const now = { bytesIn: 1000, bytesOut: 1000, connections: 1, live: 1 }
  for (const totals of [statistics.mapping('m').totals, statistics.node('n').totals, statistics.totals()]) {
    assert.deepEqual(totals, now)
  }
  const [first, ...more] = statistics.connections()
  assert.equal(more.length, 0)
  const { instance } = peer
  const known = { instance, id: sub.id, node: 'n', mapping: 'm', from: '192.0.2.1:5', to: TO }
  assert.deepEqual(first, { ...known, created: first?.created, bytesIn: 1000, bytesOut: 1000 })
  assert.ok(Math.abs(Date.parse(first?.created ?? '') - Date.now()) < 60_000)
  await statistics.close()
  const later = await Statistics.open(folder)
  t.after(() => later.close())
  assert.deepEqual(later.mapping('m').totals, { ...now, live: 0 })
  assert.equal(later.mapping('m').lastConnected, first?.created)
  assert.deepEqual(later.totals(), { ...now, live: 0 })
  later.forget('mapping', 'm')
  assert.deepEqual(later.mapping('m').totals, NOTHING)
  assert.deepEqual(later.totals(), { ...now, live: 0 })
})

test('a dial that fails has counted, and lives no more', async (t) => {
  await using pair = await connectPair(MEMORY, ends)
  const { statistics, peer } = await watch(t, pair.accepting)
  const over = freed(pair.accepting, 1)
  const sub = await pair.accepting.open({ to: { Domain: 'echo', Addr: 'nowhere' } })
  statistics.opened(sub, { mapping: 'm', peer })
  assert.equal(statistics.totals().live, 1)
  await over
  for (const totals of [statistics.mapping('m').totals, statistics.totals(), statistics.node('n').totals]) {
    assert.deepEqual(totals, { ...NOTHING, connections: 1 })
  }
})

test('one that has ended before anybody told of it does not live for ever', async (t) => {
  const pair = await connectPair(MEMORY, ends)
  const { statistics, peer } = await watch(t, pair.accepting)
  const sub = await pair.accepting.open({ to: TO })
  await pair[Symbol.asyncDispose]()
  statistics.opened(sub, { mapping: 'm', peer })
  assert.deepEqual(statistics.mapping('m').totals, { ...NOTHING, connections: 1 })
  statistics.disconnected(peer)
  statistics.opened(sub, { mapping: 'm', peer })
  assert.equal(statistics.totals().live, 0)
})

/** A thousand of them; `m` has those with an even place. */
async function thousand(statistics: Statistics, peer: Connected): Promise<SubConnection[]> {
  const subs: SubConnection[] = []
  for (let i = 0; i < 1000; i++) {
    const sub = await peer.proxy.open({ to: TO })
    statistics.opened(sub, { mapping: i % 2 === 0 ? 'm' : 'other', peer, to: TO })
    sub.write(Buffer.alloc(i))
    subs.push(sub)
  }
  await Promise.all(subs.map((sub, i) => i > 0 && take(sub, i)))
  return subs
}

for (const how of ['one by one', 'with their main connection'] as const) {
  test(`a thousand sub-connections that end ${how} never take a byte with them`, async (t) => {
    await using pair = await connectPair(MEMORY, ends)
    const { statistics, peer } = await watch(t, pair.accepting)
    const bytes = (1000 * 999) / 2
    let seen = 0
    const look = (): void => {
      for (const { bytesIn, bytesOut } of [statistics.totals(), statistics.node('n').totals]) {
        assert.deepEqual([bytesIn, bytesOut], [bytes, bytes])
      }
      seen++
    }
    const subs = await thousand(statistics, peer)
    look()
    assert.deepEqual(statistics.mapping('m').totals.live, 500)
    assert.equal(statistics.totals().live, 1000)
    assert.equal(statistics.connections(Number.POSITIVE_INFINITY).length, 1000)
    assert.deepEqual(
      statistics.connections(3).map(({ id }) => id),
      subs
        .slice(-3)
        .map(({ id }) => id)
        .reverse(),
    )
    subscribe('symport:sub:close', look)
    t.after(() => unsubscribe('symport:sub:close', look))
    const over = freed(pair.accepting, 1000)
    if (how === 'one by one') for (const sub of subs) sub.destroy()
    else pair.dialling.close()
    await over
    if (how !== 'one by one') statistics.disconnected(peer)
    look()
    assert.ok(seen > 1000)
    assert.deepEqual(statistics.totals(), { bytesIn: bytes, bytesOut: bytes, connections: 1000, live: 0 })
    assert.deepEqual([statistics.mapping('m').totals.live, statistics.mapping('m').totals.connections], [0, 500])
    assert.deepEqual(statistics.instance(peer).totals, statistics.totals())
    assert.deepEqual(statistics.connections(), [])
  })
}

test('a resume is counted, and no byte twice', async (t) => {
  await using pair: ProxyPair = await createProxyPair({ b: { domains: [echo] } })
  const { statistics, peer } = await watch(t, pair.a)
  const there = await watch(t, pair.b)
  const sub = await pair.a.dial(TO)
  const LENGTH = 400_000
  const took = take(sub, LENGTH)
  sub.write(Buffer.alloc(LENGTH))
  pair.cut('rst')
  const again = once(pair.a, 'state')
  await again
  if (pair.a.state === 'resuming') await once(pair.a, 'state')
  await took
  const totals = { bytesIn: LENGTH, bytesOut: LENGTH, connections: 1, live: 1 }
  for (const each of [statistics, there.statistics]) {
    assert.deepEqual(each.totals(), totals)
    assert.equal(each.node('n').resumes, 1)
    assert.equal(each.node('n').reconnects, 0)
  }
  assert.equal(statistics.instance(peer).resumes, 1)
})

test("two in one process do not see each other's peers", async (t) => {
  const pairs: Pair[] = [await connectPair(MEMORY, ends), await connectPair(MEMORY, ends)]
  t.after(() => Promise.all(pairs.map((pair) => pair[Symbol.asyncDispose]())))
  const [one, two] = pairs
  assert.ok(one && two)
  const a = await watch(t, one.accepting)
  const b = await watch(t, two.accepting)
  const sub = await one.dialling.dial(TO)
  sub.write(Buffer.alloc(10))
  await take(sub, 10)
  b.statistics.opened(sub, { mapping: 'm', peer: a.peer })
  assert.deepEqual(a.statistics.totals(), { bytesIn: 10, bytesOut: 10, connections: 1, live: 1 })
  assert.deepEqual(a.statistics.connections()[0]?.to, TO)
  assert.deepEqual(b.statistics.totals(), NOTHING)
  assert.deepEqual(b.statistics.mapping('m').totals, NOTHING)
})
