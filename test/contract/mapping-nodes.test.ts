import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { tcp } from '../../lib/domains/tcp.ts'
import { dialProgram, echo } from '../helpers/contract/programs.ts'
import { count, eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ANYWHERE, ask, hub, leadsTo, named, visit } from '../helpers/hub/mappings.ts'

watchForStrays()

const limit = { timeout: 10_000 }

test('without a word about it the first of the nodes that is there serves, in their order', limit, async () => {
  await using here = await hub()
  await using a = await named('a')
  await using b = await named('b')
  await here.join('b', [leadsTo(b)])
  const either = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['a', 'b'] })
  const any = await here.table.add({ listen: ANYWHERE, forward: ':1' })
  assert.equal(await ask(either), 'b')
  const first = await here.join('a', [leadsTo(a)])
  assert.deepEqual([await ask(either), await ask(any)], ['a', 'b'])
  await first[Symbol.asyncDispose]()
  assert.equal(await ask(either), 'b')
})

test('round-robin goes round the instances, not the ids', limit, async () => {
  await using here = await hub({ balance: 'round-robin' })
  const targets = await Promise.all(['1', '2', '3'].map((name) => named(name)))
  await using _one = targets[0]
  await using _two = targets[1]
  await using _three = targets[2]
  for (const [i, id] of ['a', 'a', 'b'].entries()) await here.join(id, targets[i] ? [leadsTo(targets[i])] : [])
  const mapping = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['a', 'b'] })
  assert.equal(mapping.balance, 'round-robin')
  const answers: string[] = []
  for (let i = 0; i < 6; i++) answers.push(await ask(mapping))
  assert.deepEqual(answers, ['1', '2', '3', '1', '2', '3'])
  const first = await here.table.add({ listen: ANYWHERE, forward: ':1', balance: 'first' })
  assert.deepEqual([await ask(first), await ask(first)], ['1', '1'])
})

test('least-connections takes the instance that has the fewest of this mapping', limit, async () => {
  await using here = await hub()
  await using one = await named('1')
  await using two = await named('2')
  await here.join('a', [leadsTo(one)])
  const second = await here.join('a', [leadsTo(two)])
  const other = await here.table.add({ listen: ANYWHERE, forward: ':1' })
  const busy = [await visit(other), await visit(other)]
  const mapping = await here.table.add({ listen: ANYWHERE, forward: ':1', balance: 'least-connections' })
  const visits = []
  for (let i = 0; i < 4; i++) visits.push(await visit(mapping))
  assert.deepEqual(
    visits.map(({ words }) => words),
    ['1', '2', '1', '2'],
    'of equals the first; what other mappings have does not count',
  )
  const before = count(second.peer.proxy)
  for (const { socket } of [visits[1], visits[3]].flatMap((one) => one ?? [])) socket.destroy()
  await eventually(() => count(second.peer.proxy) === before - 2, 'both are gone')
  assert.deepEqual([(await visit(mapping)).words, (await visit(mapping)).words], ['2', '2'])
  for (const { socket } of [...busy, ...visits]) socket.destroy()
})

test('a connection waits for a node that comes soon', limit, async () => {
  await using here = await hub()
  await using target = await named('at last')
  await here.join('other')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint, nodes: ['a'] })
  assert.equal(mapping.state, 'no node')
  const answer = ask(mapping)
  await eventually(() => here.pool.room < 1024, 'it waits')
  await here.join('a')
  assert.equal(await answer, 'at last')
  assert.equal(here.table.get(mapping.id)?.state, 'ready')
})

test('a connection whose node does not come within its time is closed, and that is told', limit, async () => {
  await using here = await hub()
  const mapping = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['a', 'b'], wait: 50 })
  const told = here.next('unserved')
  assert.equal(await ask(mapping), '')
  const { reason, mapping: id, from } = await soon(told, 'that nobody came')
  assert.deepEqual(
    [reason.code, reason.message, id],
    [...['PROXY_ERR_NO_PEER', 'none of the nodes a, b is connected', mapping.id]],
  )
  assert.match(from ?? '', /^127\.0\.0\.1:\d+$/)
  const hasty = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['a'], wait: 0 })
  assert.equal(await ask(hasty), '')
})

test('who waits at a mapping that is removed or disabled waits no longer', limit, async () => {
  await using here = await hub()
  for (const end of ['remove', 'disable']) {
    const mapping = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['a'], wait: 60_000 })
    const answer = ask(mapping)
    await eventually(() => here.pool.room < 1024, 'it waits')
    await (end === 'remove' ? here.table.remove(mapping.id) : here.table.setEnabled(mapping.id, false))
    assert.equal(await soon(answer, 'the end'), '')
  }
})

test('a mapping whose node is away leaves room for others to wait', { timeout: 20_000 }, async () => {
  await using here = await hub()
  await using target = await named('hello')
  const flooded = await here.table.add({ listen: ANYWHERE, forward: ':1', nodes: ['away'], wait: 60_000 })
  const calm = await here.table.add({ listen: ANYWHERE, forward: target.endpoint, nodes: ['a'] })
  assert.ok(flooded.bound)
  const sockets = await Promise.all(Array.from({ length: 700 }, () => dialProgram(flooded.bound ?? flooded.listen)))
  for (const socket of sockets) socket.resume()
  await eventually(() => here.told('unserved').length === 700 - 512, 'half of them wait', 5000)
  const answer = ask(calm)
  await eventually(() => here.pool.room === 511, 'another one may wait too')
  await here.join('a')
  assert.equal(await answer, 'hello')
  for (const socket of sockets) socket.destroy()
})

test('an instance whose target does not answer is passed by until it does', limit, async () => {
  await using here = await hub()
  await using well = await named('well')
  let ill = await named('ill')
  const { endpoint } = ill
  const back = { ...leadsTo(ill) }
  await here.join('a', [back])
  await here.join('b', [leadsTo(well)])
  const mapping = await here.table.add({
    listen: ANYWHERE,
    forward: ':1',
    nodes: ['a', 'b'],
    health: { interval: 100 },
  })
  assert.deepEqual(mapping.health, { interval: 100, timeout: 5000 })
  assert.equal(await ask(mapping), 'ill')
  const sick = here.next('health')
  await ill[Symbol.asyncDispose]()
  const event = await soon(sick, 'that it is unwell')
  assert.deepEqual([event.mapping, event.peer.id, event.healthy], [mapping.id, 'a', false])
  const { state, targets } = here.table.get(mapping.id) ?? {}
  assert.equal(state, 'ready')
  assert.deepEqual(
    targets?.map(({ node, healthy }) => [node, healthy]),
    [
      ['a', false],
      ['b', true],
    ],
  )
  // A check that was connecting in that very moment hears it in other words.
  assert.match(targets?.[0]?.problem ?? '', /nothing listens|closed the connection at once/)
  assert.deepEqual([await ask(mapping), await ask(mapping)], ['well', 'well'])

  const cured = here.next('health')
  ill = await namedAt('ill again', endpoint)
  try {
    assert.equal((await soon(cured, 'that it is well again')).healthy, true)
    assert.equal(await ask(mapping), 'ill again')
  } finally {
    await ill[Symbol.asyncDispose]()
  }
})

test('if no target is well they are used all the same, and the mapping says so', limit, async () => {
  await using here = await hub()
  await using target = await named('hello')
  let deaf = true
  const real = tcp()
  const moody = {
    ...real,
    resolve: async () => {
      if (deaf) throw new Error('deaf')
      return ['127.0.0.1']
    },
  }
  await here.join('a', [moody])
  const told = here.next('health')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint, health: { interval: 60_000 } })
  await soon(told, 'that it is unwell')
  const { state, targets } = here.table.get(mapping.id) ?? {}
  assert.deepEqual([state, targets], ['unhealthy', [{ node: 'a', healthy: false, problem: 'deaf' }]])
  deaf = false
  assert.equal(await ask(mapping), 'hello')
})

test('a target that says nothing is given its time, and a lost link is not its fault', limit, async () => {
  await using here = await hub()
  const silent = { ...tcp(), dial: () => new Promise<never>(() => {}) }
  await here.join('a', [silent])
  const told = here.next('health')
  const health = { interval: 100, timeout: 30 }
  await here.table.add({ listen: ANYWHERE, forward: ':1', health })
  assert.equal((await soon(told, 'that it is unwell')).problem, 'no answer within 30 ms')
})

test('checks close in order, are told apart from what users do, and stay few at once', limit, async () => {
  let most = 0
  let now = 0
  await using here = await hub()
  await using target = await echo()
  const counted = {
    ...tcp(),
    dial: async (...args: Parameters<NonNullable<ReturnType<typeof tcp>['dial']>>) => {
      most = Math.max(most, ++now)
      await new Promise((resolve) => setTimeout(resolve, 20))
      now--
      return (await tcp().dial?.(...args)) ?? Promise.reject(new Error('no dial'))
    },
  }
  const { peer } = await here.join('a', [counted])
  const ownSubs: boolean[] = []
  peer.proxy.on('open', (sub) => ownSubs.push(here.table.isCheck(sub)))
  const endings: string[] = []
  const health = { interval: 86_400_000 }
  await Promise.all(
    Array.from({ length: 300 }, () => here.table.add({ listen: ANYWHERE, forward: target.endpoint, health })),
  )
  for (let i = 0; i < 300; i++) {
    const socket = await target.accepted()
    socket.once('end', () => endings.push('fin'))
    socket.once('error', () => endings.push('reset'))
    if (socket.readableEnded) endings.push('fin')
  }
  await eventually(() => endings.length === 300, 'all have ended')
  assert.ok(most > 1 && most <= 256, `${most} at once`)
  assert.deepEqual([endings.filter((how) => how === 'reset').length, ownSubs.includes(false)], [0, false])
  await eventually(() => [...peer.proxy.subConnections].length === 0, 'nothing is left open')
})

async function namedAt(name: string, at: { Addr: string }): ReturnType<typeof named> {
  const { createServer } = await import('node:net')
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.write(name)
  })
  const port = Number(at.Addr.split(':').at(-1))
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const sockets = new Set<import('node:net').Socket>()
  server.on('connection', (socket) => void sockets.add(socket))
  return {
    endpoint: { Domain: 'tcp', Addr: at.Addr },
    ...{ port, sockets, accepted: () => Promise.reject(new Error('not here')) },
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
