import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import {
  Acceptor,
  allowAll,
  connect,
  type DomainPlugin,
  type Listener,
  Proxy,
  type SubConnection,
} from '../../lib/core/index.ts'
import { tcp } from '../../lib/domains/tcp.ts'
import type { Opened } from '../../lib/hub/mapping.ts'
import { Side } from '../../lib/hub/side.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { CODE } from '../helpers/contract/code.ts'
import { dialProgram, echo, nobodyListens, program, reset } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ANYWHERE, ask, hub, named, visit } from '../helpers/hub/mappings.ts'

watchForStrays()

const limit = { timeout: 10_000 }

test('a mapping that is added serves at once, and is told', limit, async () => {
  await using here = await hub()
  await using target = await named('hello')
  await here.join('a')
  const added = await here.table.add({ listen: ANYWHERE, forward: target.endpoint, nodes: ['a'], note: 'a note' })
  const { id, state, note, source, wait, balance, totals } = added
  assert.deepEqual(
    { id, state, note, source, wait, balance },
    {
      ...{ id: '1', state: 'ready', note: 'a note', source: 'runtime', wait: 5000, balance: 'first' },
    },
  )
  assert.deepEqual(totals, { bytesIn: 0, bytesOut: 0, connections: 0, live: 0 })
  assert.deepEqual(added.targets, [{ node: 'a', healthy: true }])
  assert.equal(await ask(added), 'hello')
  assert.deepEqual(here.table.get('1'), added)
  assert.deepEqual(here.table.status(), [added])
  const [ready] = here.told('listener-ready')
  assert.deepEqual([ready?.mapping, ready?.bound, ready?.at], ['1', added.bound, 'here'])
  assert.deepEqual(ready?.spec, { Listen: added.listen, Forward: added.forward, Node: 'a' })
  assert.deepEqual(
    here.told('mapping').map(({ mapping, change }) => [mapping, change]),
    [['1', 'added']],
  )
})

test('checking thousands of mappings of a file leaves turns of the event loop to others', limit, async () => {
  await using here = await hub({ unstarted: true })
  let [turns, over] = [0, false]
  const count = (): void => {
    turns++
    if (!over) setImmediate(count)
  }
  setImmediate(count)
  const requests = Array.from({ length: 2000 }, (_, n) => ({ listen: `127.0.0.1:${10_000 + n}`, forward: ':80' }))
  const lines = await here.table.setConfigured(requests)
  over = true
  assert.equal(lines.length, 2000)
  assert.ok(turns >= 5, `${turns} turns`)
})

test('a mapping that is removed stops listening, and what is open goes on', limit, async () => {
  await using here = await hub()
  await using target = await echo()
  await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint })
  assert.ok(mapping.bound)
  const socket = await dialProgram(mapping.bound)
  socket.write('before')
  assert.equal(String((await once(socket, 'data'))[0]), 'before')
  await here.table.remove(mapping.id)
  assert.equal(here.table.get(mapping.id), undefined)
  await nobodyListens(mapping.bound)
  socket.write('after')
  assert.equal(String((await once(socket, 'data'))[0]), 'after')
  reset(socket)
  await assert.rejects(here.table.remove(mapping.id), {
    code: 'PROXY_ERR_NOT_FOUND',
    message: /there is no mapping "1"/,
  })
  const again = await here.table.add({ listen: mapping.bound, forward: target.endpoint })
  assert.equal(again.id, '2', 'an id is not used twice')
})

test('a mapping that is disabled stops listening, and listens again when it is enabled', limit, async () => {
  await using here = await hub()
  await using target = await named('hello')
  await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint })
  assert.ok(mapping.bound)
  const { socket } = await visit(mapping)
  await here.table.setEnabled(mapping.id, false)
  const { state, bound, enabled } = here.table.get(mapping.id) ?? {}
  assert.deepEqual({ state, bound, enabled }, { state: 'disabled', bound: undefined, enabled: false })
  await nobodyListens(mapping.bound)
  assert.ok(!socket.destroyed && !socket.readableEnded, 'what is open goes on')
  socket.destroy()
  await here.table.setEnabled(mapping.id, false)
  await here.table.setEnabled(mapping.id, true)
  const now = here.table.get(mapping.id)
  assert.ok(now)
  assert.equal(await ask(now), 'hello')
  assert.deepEqual(
    here.told('mapping').map(({ change }) => change),
    ['added', 'disabled', 'enabled'],
  )
  const asleep = await here.table.add({ listen: ANYWHERE, forward: target.endpoint, enabled: false })
  assert.deepEqual([asleep.state, asleep.bound], ['disabled', undefined])
  await assert.rejects(here.table.setEnabled('77', true), { code: 'PROXY_ERR_NOT_FOUND' })
})

test('a port that is taken is told to whoever asks for it, and nothing is left of that', limit, async () => {
  await using here = await hub()
  await using other = await echo()
  const taken = { listen: other.endpoint, forward: ':1' }
  await assert.rejects(here.table.add(taken), { code: 'PROXY_ERR_LISTEN_FAILED', message: /in use already/ })
  assert.deepEqual(here.table.status(), [])
  assert.deepEqual(here.events, [])
  const asleep = await here.table.add({ ...taken, enabled: false })
  await assert.rejects(here.table.setEnabled(asleep.id, true), { code: 'PROXY_ERR_LISTEN_FAILED' })
  assert.equal(here.table.get(asleep.id)?.state, 'disabled')
  await assert.rejects(here.table.add(taken), { code: 'PROXY_ERR_EXISTS', message: /^mapping 2 has tcp:\/\// })
})

test('of two that ask for the same port at once, one gets it', limit, async () => {
  await using here = await hub()
  await using spare = await echo()
  const listen = spare.endpoint
  await spare[Symbol.asyncDispose]()
  const results = await Promise.allSettled([1, 2, 3, 4].map((port) => here.table.add({ listen, forward: `:${port}` })))
  assert.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? result.value.forward.Addr : result.reason.code)),
    ['127.0.0.1:1', 'PROXY_ERR_EXISTS', 'PROXY_ERR_EXISTS', 'PROXY_ERR_EXISTS'],
  )
  const [mapping] = here.table.status()
  assert.ok(mapping)
  const [, , added] = await Promise.all([
    here.table.remove(mapping.id),
    here.table.remove(mapping.id).catch((error) => assert.equal(error.code, 'PROXY_ERR_NOT_FOUND')),
    here.table.add({ listen, forward: ':5' }),
  ])
  assert.equal(added.state, 'no node', 'what is removed first has let go of the port')
})

test('closing while mappings are added leaves nothing behind', limit, async () => {
  let closed = 0
  let bind = (): void => {}
  const bindable = new Promise<void>((resolve) => {
    bind = resolve
  })
  let ask = (): void => {}
  const asked = new Promise<void>((resolve) => {
    ask = resolve
  })
  const slow: DomainPlugin = {
    name: 'slow',
    async listen(at): Promise<Listener> {
      ask()
      await bindable
      const close = async (): Promise<void> => void closed++
      return { bound: at, close, [Symbol.asyncDispose]: close }
    },
  }
  await using here = await hub({ domains: [slow, tcp()] })
  const adds = ['1', '2'].map((Addr) => here.table.add({ listen: { Domain: 'slow', Addr }, forward: ':1' }))
  const outcome = Promise.allSettled(adds)
  await asked
  const closing = here.table.close()
  bind()
  await soon(closing, 'closed')
  assert.equal(closed, 1, 'the one that came too late is closed, the other one never was open')
  assert.deepEqual(here.table.status(), [])
  const codes = (await outcome).map((result) => result.status === 'rejected' && result.reason.code)
  assert.deepEqual(codes, ['PROXY_ERR_DRAINING', 'PROXY_ERR_DRAINING'])
  await assert.rejects(here.table.add({ listen: ANYWHERE, forward: ':1' }), { code: 'PROXY_ERR_DRAINING' })
  await assert.rejects(here.table.remove('1'), { code: 'PROXY_ERR_DRAINING' })
})

test('one that cannot listen at the start stays, says why, and gets its port when that is free', limit, async () => {
  await using here = await hub({ unstarted: true, retryDelay: 20 })
  await using other = await echo()
  await here.table.setCommandLine([
    { Listen: other.endpoint, Forward: { Domain: 'tcp', Addr: ':1' } },
    { Listen: { Domain: 'tcp', Addr: ANYWHERE }, Forward: { Domain: 'tcp', Addr: ':2' }, Node: 'a' },
  ])
  assert.deepEqual(here.told('listener-ready'), [], 'nothing listens before the start')
  await here.table.start()
  const [failed, fine] = here.table.status()
  assert.equal(failed?.state, 'failed')
  assert.match(failed?.problem ?? '', /in use already/)
  assert.deepEqual([fine?.state, fine?.nodes, fine?.source], ['no node', ['a'], 'command line'])
  const ready = here.next('listener-ready')
  const [event] = here.told('listener-failed')
  assert.deepEqual([event?.mapping, event?.reason.code], ['1', 'PROXY_ERR_LISTEN_FAILED'])
  await other[Symbol.asyncDispose]()
  assert.equal((await soon(ready, 'another try')).mapping, '1')
  assert.deepEqual([here.table.get('1')?.state, here.table.get('1')?.problem], ['no node', undefined])
  assert.equal(here.told('listener-failed').length, 1, 'one reason is told once')
})

test('what comes from elsewhere is read-only, and the error says where it comes from', limit, async () => {
  await using here = await hub()
  await here.table.setCommandLine([
    { Listen: { Domain: 'tcp', Addr: ANYWHERE }, Forward: { Domain: 'tcp', Addr: ':1' } },
  ])
  await using spare = await echo()
  const listen = spare.endpoint
  await spare[Symbol.asyncDispose]()
  await here.table.setConfigured([{ listen, forward: ':2' }])
  const code = 'PROXY_ERR_READ_ONLY'
  await assert.rejects(here.table.remove('1'), {
    code,
    message: /^mapping 1 comes from the command line, .* removed there$/,
  })
  await assert.rejects(here.table.setEnabled('1', false), { code })
  await assert.rejects(here.table.setEnabled('2', false), {
    code,
    message: /the configuration file, .* disabled there$/,
  })
  await assert.rejects(here.table.add({ listen, forward: ':3' }), {
    code: 'PROXY_ERR_EXISTS',
    message: /^mapping 2 \(from the configuration file\) has tcp:\/\/127\.0\.0\.1:\d+ already$/,
  })
})

test('a changed configuration touches only what differs', limit, async () => {
  await using here = await hub()
  await using target = await echo()
  await here.join('a')
  const keep = { listen: ANYWHERE, forward: target.endpoint, note: 'kept' }
  const change = { listen: ANYWHERE, forward: ':2', nodes: ['a', 'b'] }
  const lines = await here.table.setConfigured([keep, change, { listen: ANYWHERE, forward: ':3' }])
  assert.deepEqual(
    lines.map((line) => line.replace(/tcp:\/\/127\.0\.0\.1:\d{2,}$/, 'TARGET')),
    [
      'mapping 1 added: tcp://127.0.0.1:0 to TARGET',
      'mapping 2 added: tcp://127.0.0.1:0 to tcp://127.0.0.1:2',
      'mapping 3 added: tcp://127.0.0.1:0 to tcp://127.0.0.1:3',
    ],
  )
  const [first, second, third] = here.table.status()
  assert.ok(first?.bound && second?.bound && third?.bound)
  const socket = await dialProgram(first.bound)
  socket.write('before')
  await once(socket, 'data')

  assert.deepEqual(await here.table.setConfigured([keep, change, { listen: ANYWHERE, forward: ':3' }]), [])
  const after = await here.table.setConfigured([
    { ...change, nodes: ['b', 'a'], wait: 7, balance: 'round-robin' },
    { ...keep, note: 'another' },
    { listen: ANYWHERE, forward: ':4', enabled: false },
  ])
  assert.deepEqual(
    after.map((line) => line.replace(/:\s.*/, '')),
    ['mapping 3 removed', 'mapping 2 changed (nodes, balance, wait)', 'mapping 1 changed (note)', 'mapping 4 added'],
  )
  await nobodyListens(third.bound)
  const now = here.table.status()
  assert.deepEqual(
    now.map(({ id, bound, state }) => [id, bound, state]),
    [
      ['1', first.bound, 'ready'],
      ['2', second.bound, 'ready'],
      ['4', undefined, 'disabled'],
    ],
  )
  assert.deepEqual([now[0]?.note, now[1]?.wait, now[1]?.balance], ['another', 7, 'round-robin'])
  socket.write('after')
  assert.equal(String((await once(socket, 'data'))[0]), 'after')
  reset(socket)
  const [line] = await here.table.setConfigured([
    { ...keep, note: 'another', enabled: false },
    { ...change, nodes: ['b', 'a'], wait: 7, balance: 'round-robin' },
    { listen: ANYWHERE, forward: ':4', enabled: true },
  ])
  assert.match(line ?? '', /^mapping 1 changed \(enabled\)/)
  await nobodyListens(first.bound)
  assert.equal(here.table.get('4')?.state, 'ready')
  assert.equal((await here.table.setConfigured([])).length, 3)
  await nobodyListens(second.bound)
})

test('a new configuration takes a port over from a mapping that it does not have any more', limit, async () => {
  await using here = await hub()
  await using spare = await echo()
  const listen = spare.endpoint
  await spare[Symbol.asyncDispose]()
  await here.table.setConfigured([{ listen, forward: ':1' }])
  await here.table.setConfigured([{ listen, forward: ':2' }])
  const [only, more] = here.table.status()
  assert.deepEqual([only?.id, only?.bound, more], ['2', listen, undefined])
})

test('a configuration that makes no sense changes nothing', limit, async () => {
  await using here = await hub()
  await here.table.setConfigured([{ listen: ANYWHERE, forward: ':1' }])
  const before = here.table.status()
  const one = { listen: '127.0.0.1:9', forward: ':1' }
  await assert.rejects(here.table.setConfigured([one, { ...one, wait: -1 }]), { code: 'PROXY_ERR_REQUEST' })
  await assert.rejects(here.table.setConfigured([one, { ...one, forward: ':2' }]), {
    code: 'PROXY_ERR_EXISTS',
    message: 'two mappings listen on tcp://127.0.0.1:9',
  })
  const many = Array.from({ length: 10_001 }, () => one)
  await assert.rejects(here.table.setConfigured(many), { code: 'PROXY_ERR_REQUEST', message: /at most 10000 mappings/ })
  assert.deepEqual(here.table.status(), before)
})

test('what the configuration cannot have stays and tries again, and the report says so', limit, async () => {
  await using here = await hub({ retryDelay: 20 })
  await using other = await echo()
  const [line] = await here.table.setConfigured([{ listen: other.endpoint, forward: ':1' }])
  assert.match(line ?? '', /^mapping 1 added, but it cannot listen: tcp:/)
  assert.equal(here.table.get('1')?.state, 'failed')
  const ready = here.next('listener-ready')
  await other[Symbol.asyncDispose]()
  await soon(ready, 'another try')
})

test('a thousand mappings come and go', { timeout: 30_000 }, async () => {
  await using here = await hub()
  await here.join('a')
  const requests = Array.from({ length: 1000 }, (_, i) => ({ listen: ANYWHERE, forward: `:${i + 1}`, nodes: ['a'] }))
  const added = await Promise.all(requests.map((request) => here.table.add(request)))
  assert.equal(new Set(added.map(({ bound }) => bound?.Addr)).size, 1000)
  assert.deepEqual([here.table.size, here.table.ready], [1000, 1000])
  assert.deepEqual(
    here.table.status().map(({ id }) => id),
    added.map((_, i) => String(i + 1)),
  )
  await Promise.all(added.map(({ id }) => here.table.remove(id)))
  assert.equal(here.table.size, 0)
  assert.ok(added[999]?.bound)
  await nobodyListens(added[999].bound)
})

test('no more than 10,000 mappings are taken', limit, async () => {
  await using here = await hub({ unstarted: true })
  const specs = Array.from({ length: 10_000 }, () => ({ Listen: CODE, Forward: CODE }))
  await here.table.setCommandLine(specs)
  await assert.rejects(here.table.add({ listen: ANYWHERE, forward: ':1' }), { code: 'PROXY_ERR_REQUEST' })
  assert.equal(here.table.size, 10_000)
})

test('whoever keeps figures hears of each sub-connection, and its figures are shown', limit, async () => {
  const opened: [SubConnection, Opened][] = []
  const totals = { bytesIn: 1, bytesOut: 2, connections: 3, live: 4 }
  await using here = await hub({
    onOpened: (sub, what) => opened.push([sub, what]),
    figures: (mapping) => (mapping === '1' ? { totals, firstConnected: 'then' } : undefined),
  })
  await using target = await named('hello')
  const { peer } = await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint })
  assert.deepEqual([mapping.totals, mapping.firstConnected], [totals, 'then'])
  assert.equal(await ask(mapping), 'hello')
  const [[sub, what] = [], more] = opened
  assert.deepEqual([what?.mapping, what?.peer, what?.to, more], ['1', peer, target.endpoint, undefined])
  assert.match(what?.from ?? '', /^127\.0\.0\.1:\d+$/)
  assert.ok(sub)
  await eventually(() => sub.destroyed, 'it ends with its visitor')
})

test('a side keeps its command line in its table, and asks the policy of each main connection', limit, async () => {
  const events: string[] = []
  const asked: string[] = []
  const side = await Side.open({
    domains: [tcp()],
    policy: { ...allowAll, dial: (to) => void asked.push(`default ${to.Addr}`) },
    policyFor: (main) =>
      main.peer.label === 'a' ? { ...allowAll, dial: (to) => void asked.push(to.Addr) } : undefined,
    listeners: [{ Listen: { Domain: 'tcp', Addr: ANYWHERE }, Forward: { Domain: 'tcp', Addr: '127.0.0.1:9' } }],
    balance: true,
    onEvent: (event) => events.push(event.type),
  })
  try {
    await side.listen()
    await using target = await program()
    const psk = Buffer.alloc(32, 0x53)
    const secret = { name: '', suite: 'NNpsk0', psk } as const
    for (const label of ['a', 'b']) {
      const links = memoryPair()
      const acceptor = new Acceptor({ pskFor: async () => psk })
      const [{ main }, dialled] = await Promise.all([
        acceptor.accept(links.b),
        connect(async () => links.a, { secret, label }),
      ])
      const node = new Proxy(dialled)
      side.add(main, label)
      const sub = await node.dial(target.endpoint)
      sub.destroy()
    }
    assert.deepEqual(asked, [target.endpoint.Addr, `default ${target.endpoint.Addr}`])
    const [mapping] = side.mappings.status()
    assert.deepEqual([mapping?.source, mapping?.state, mapping?.balance], ['command line', 'ready', 'round-robin'])
    assert.deepEqual(events.slice(0, 2), ['listener-ready', 'connected'])
    assert.ok(mapping?.bound)
    await side.drain(AbortSignal.abort())
    await nobodyListens(mapping.bound)
  } finally {
    await side.drain(AbortSignal.abort())
  }
})
