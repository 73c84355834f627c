import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { tcp } from '../../lib/domains/tcp.ts'
import { udp } from '../../lib/domains/udp.ts'
import { createWeb, type Web } from '../../lib/domains/web.ts'
import type { HubEvent } from '../../lib/hub/events.ts'
import { Limiter } from '../../lib/hub/limits.ts'
import type { MappingStatus } from '../../lib/hub/operations.ts'
import type { TrafficLimits } from '../../lib/policy/traffic-limits.ts'
import { datagramServer, visitor } from '../helpers/contract/datagrams.ts'
import { type Program, program } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { target as webTarget } from '../helpers/contract/web-port.ts'
import { ANY_TCP, channelStage, named } from '../helpers/hub/channels.ts'
import { ANYWHERE, hub } from '../helpers/hub/mappings.ts'

/** Limits of mappings and nodes, as visitors and targets see them. The rates of long transfers are in test/system. */

watchForStrays()

const limit = { timeout: 60_000 }

/** A visitor who comes from this address of loopback. */
async function come(mapping: Pick<MappingStatus, 'bound'>, localAddress = '127.0.0.1'): Promise<Socket> {
  const [, port] = /:(\d+)$/.exec(mapping.bound?.Addr ?? '') ?? []
  const socket = connect({ host: '127.0.0.1', port: Number(port), localAddress, allowHalfOpen: true })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** Whether the target answers: it says `hi` first of all. */
async function isServed(socket: Socket): Promise<boolean> {
  return await new Promise((resolve) => {
    socket.once('data', () => resolve(true))
    socket.once('end', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

/** However it ends. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => void socket.once('close', () => resolve()))
}

/** How often somebody has come in vain before they are served: a place may be free a moment later. */
async function tries(again: () => Promise<Socket>): Promise<number> {
  for (let failed = 0; failed < 100; failed++) {
    if (await isServed(await again())) return failed
    await sleep(10)
  }
  throw new Error('never served')
}

function greeter(): Promise<Program> {
  return program((socket) => {
    socket.write('hi')
    socket.on('end', () => socket.end())
    socket.resume()
  })
}

/** Sends for as long as it is taken. */
function flood(socket: Socket): void {
  const chunk = Buffer.alloc(65_536)
  const more = (): void => {
    while (!socket.destroyed && socket.write(chunk)) {}
  }
  socket.on('drain', more)
  more()
}

/** The time for which a bucket lets bytes through at once, in ms. */
const BURST = 100
/** How long it may take until something has come, on a machine that is busy with other things. */
const PATIENCE = 30_000

/**
 * Bytes that come within so many ms, and until there are `least` of them: a busy machine has less time for them than a clock
 * says. What came in more time is told as what would have come in this one.
 */
async function count(socket: Socket, ms: number, least = 1): Promise<number> {
  const since = performance.now()
  let bytes = 0
  const onData = (chunk: Buffer): void => {
    bytes += chunk.length
  }
  socket.on('data', onData)
  do await sleep(ms)
  while (bytes < least && performance.now() - since < PATIENCE)
  const elapsed = performance.now() - since
  socket.off('data', onData)
  assert.ok(bytes >= least, `${bytes} bytes in ${Math.round(elapsed)} ms, and not ${least}`)
  return (bytes * (ms + BURST)) / (elapsed + BURST)
}

/** Never much more than the limit. That it is not much less is measured by the system tests, with nothing beside them. */
function kept(actual: number, expected: number, what: string): void {
  assert.ok(actual <= expected * 1.25, `${what}: ${actual}, and no more than ${expected} may come`)
}

/** A target that sends all it can, and one mapping to it. */
async function downloads(limits: TrafficLimits, limiter?: Limiter) {
  const here = await hub({ limiter })
  const source = await program((socket) => flood(socket))
  await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: source.endpoint, limits })
  return {
    ...{ here, mapping, source },
    async [Symbol.asyncDispose]() {
      await here[Symbol.asyncDispose]()
      await source[Symbol.asyncDispose]()
    },
  }
}

test('bytes to visitors keep to their rate from the first moment on, and equal ones share it', limit, async () => {
  await using stage = await downloads({ out: 1_000_000 })
  const sockets = await Promise.all([come(stage.mapping), come(stage.mapping)])
  const [a = 0, b = 0] = await Promise.all(sockets.map((socket) => count(socket, 500, 100_000)))
  kept(a + b, 600_000, 'both')
  assert.ok(Math.min(a, b) > 0.3 * (a + b), `${a} and ${b}`)
})

test('bytes from visitors do too', limit, async () => {
  await using here = await hub()
  await here.join('a')
  await using sink = await program()
  const limits = { in: 500_000 }
  const mapping = await here.table.add({ listen: ANYWHERE, forward: sink.endpoint, limits })
  const socket = await come(mapping)
  flood(socket)
  kept(await count(await sink.accepted(), 500, 100_000), 300_000, 'bytes')
  socket.destroy()
})

test('a visitor has a rate of its own, and another mapping none', limit, async () => {
  await using stage = await downloads({ visitor: { out: 200_000 } })
  const free = await stage.here.table.add({ listen: ANYWHERE, forward: stage.source.endpoint })
  const mine = [await come(stage.mapping), await come(stage.mapping)]
  const yours = await come(stage.mapping, '127.0.0.2')
  const other = await come(free)
  const [a = 0, b = 0, c = 0] = await Promise.all([...mine, yours].map((one) => count(one, 500, 20_000)))
  kept(a + b, 120_000, 'two of one visitor')
  kept(c, 120_000, 'another visitor')
  await count(other, 50, 5_000_000)
})

test('the rate of a node is for all of its mappings', limit, async () => {
  const limiter = new Limiter({ nodeLimits: { limitsOf: () => ({ out: 400_000 }), onLimits: () => () => {} } })
  await using stage = await downloads({}, limiter)
  const second = await stage.here.table.add({ listen: ANYWHERE, forward: stage.source.endpoint })
  const sockets = [await come(stage.mapping), await come(second)]
  const [a = 0, b = 0] = await Promise.all(sockets.map((one) => count(one, 500, 50_000)))
  kept(a + b, 240_000, 'both')
})

test('other limits hold for what is open, at once and both ways', limit, async () => {
  await using stage = await downloads({ out: 1000 })
  const socket = await come(stage.mapping)
  await once(socket, 'data')
  assert.ok((await count(socket, 200, 0)) < 2000)
  await stage.here.table.change(stage.mapping.id, { limits: { out: null } })
  await count(socket, 50, 1_000_000)
  await stage.here.table.change(stage.mapping.id, { limits: { out: 100_000 } })
  await sleep(100)
  // What was on its way by then is in buffers of the system, and comes whatever the limit is.
  socket.pause()
  await sleep(50)
  socket.resume()
  await eventually(() => stage.here.table.get(stage.mapping.id)?.limits?.out === 100_000, 'changed')
  let bytes = await count(socket, 300)
  while (bytes > 200_000) bytes = await count(socket, 300)
  kept(bytes, 40_000, 'bytes')
})

test('a half-close comes after the last byte, and a reset at once', limit, async () => {
  await using here = await hub()
  await here.join('a')
  await using sink = await program()
  const mapping = await here.table.add({ listen: ANYWHERE, forward: sink.endpoint, limits: { in: 100_000 } })
  const socket = await come(mapping)
  const bytes = Buffer.alloc(40_000, 7)
  socket.end(bytes)
  const there = await sink.accepted()
  const got: Buffer[] = []
  for await (const chunk of there) got.push(chunk)
  assert.deepEqual(Buffer.concat(got), bytes)
  const waiting = await come(mapping)
  flood(waiting)
  const far = await sink.accepted()
  await once(far, 'data')
  far.resetAndDestroy()
  await soon(closed(waiting), 'the reset')
  assert.equal(waiting.errored instanceof Error, true)
})

test('refused visitors are closed before anything is opened at the node, and told once', limit, async () => {
  await using here = await hub()
  await here.join('a')
  await using there = await greeter()
  const limits = { deny: ['127.0.0.2'], visitor: { connections: 1 } }
  const mapping = await here.table.add({ listen: ANYWHERE, forward: there.endpoint, limits })
  for (let i = 0; i < 50; i++) assert.equal(await isServed(await come(mapping, '127.0.0.2')), false)
  assert.equal(there.sockets.size, 0)
  const mine = await come(mapping)
  assert.equal(await isServed(mine), true)
  assert.equal(await isServed(await come(mapping)), false)
  assert.equal(await isServed(await come(mapping, '127.0.0.3')), true)
  mine.destroy()
  await eventually(() => there.sockets.size === 1, 'gone')
  const refused = 1 + (await tries(() => come(mapping)))
  assert.deepEqual(here.told('unserved'), [])
  assert.deepEqual(
    here.told('limited').map(({ mapping, kind, count }) => [mapping, kind, count]),
    [
      [mapping.id, 'denied', 1],
      [mapping.id, 'visitor-connections', 1],
    ],
  )
  assert.deepEqual(here.table.get(mapping.id)?.limited, { denied: 50, 'visitor-connections': refused })
})

test('a flood of those who are refused harms nobody else', limit, async () => {
  await using here = await hub()
  await here.join('a')
  await using there = await greeter()
  const limits = { visitor: { rate: 2 } }
  const mapping = await here.table.add({ listen: ANYWHERE, forward: there.endpoint, limits })
  const flooding = Array.from({ length: 400 }, async () => isServed(await come(mapping, '127.0.0.2')))
  for (let i = 3; i < 10; i++) assert.equal(await isServed(await come(mapping, `127.0.0.${i}`)), true)
  const served = (await Promise.all(flooding)).filter((one) => one).length
  assert.ok(served >= 2 && served <= 8, `${served} were served`)
})

test('a quota ends what is open, and refuses what comes, until it is raised', limit, async () => {
  let used = 0
  const usage = { ofMapping: () => used, ofNode: () => 0 }
  const limiter = new Limiter({ usage })
  await using stage = await downloads({ quota: 300_000, out: 1_000_000 }, limiter)
  const socket = await come(stage.mapping)
  let got = 0
  socket.on('data', (chunk) => {
    got += chunk.length
    used = got
  })
  await soon(closed(socket), 'the end', 3000)
  assert.ok(socket.errored, 'nobody takes it for all that there was')
  assert.ok(got >= 100_000 && got <= 375_000, `${got} bytes`)
  const refused = await come(stage.mapping)
  assert.equal(await isServed(refused), false)
  await stage.here.table.change(stage.mapping.id, { limits: { quota: 1_000_000 } })
  assert.equal(await isServed(await come(stage.mapping)), true)
})

test('datagrams beyond the rate are dropped, and none of them waits', limit, async () => {
  await using here = await hub({ domains: [tcp(), udp()] })
  await here.join('a', [udp()])
  await using sink = await datagramServer()
  let bytes = 0
  sink.socket.on('message', (data) => {
    bytes += data.length
  })
  const { address, port } = sink.socket.address()
  const forward = { Domain: 'udp', Addr: `${address}:${port}` }
  const mapping = await here.table.add({
    listen: { Domain: 'udp', Addr: ANYWHERE },
    forward,
    limits: { in: 100_000, deny: ['127.0.0.2'] },
  })
  assert.ok(mapping.bound)
  await using me = await visitor(mapping.bound)
  const datagram = Buffer.alloc(1000)
  const since = performance.now()
  while (performance.now() < since + 600) {
    for (let i = 0; i < 5; i++) {
      me.socket.send(datagram)
    }
    await sleep(5)
  }
  await sleep(50)
  assert.ok(bytes > 0, 'some come through')
  kept((bytes * 700) / (performance.now() - since + BURST), 70_000, 'bytes')
  // What waited somewhere would come now.
  const before = bytes
  await sleep(700)
  assert.ok(bytes - before < 35_000, `${bytes - before} bytes came late`)
})

test('datagrams have their share of a rate that others use up, large ones too', limit, async () => {
  const limiter = new Limiter({ nodeLimits: { limitsOf: () => ({ in: 20_000 }), onLimits: () => () => {} } })
  await using here = await hub({ limiter, domains: [tcp(), udp()] })
  await here.join('a', [tcp(), udp()])
  await using sink = await program()
  const stream = await here.table.add({ listen: ANYWHERE, forward: sink.endpoint })
  await using there = await datagramServer()
  const { address, port } = there.socket.address()
  const forward = { Domain: 'udp', Addr: `${address}:${port}` }
  const flow = await here.table.add({ listen: { Domain: 'udp', Addr: ANYWHERE }, forward })
  let [bytes, datagrams] = [0, 0]
  const begun = performance.now()
  flood(await come(stream))
  const far = await sink.accepted()
  far.on('data', (chunk: Buffer) => {
    bytes += chunk.length
  })
  there.socket.on('message', (data) => {
    datagrams += data.length
  })
  assert.ok(flow.bound)
  await using me = await visitor(flow.bound)
  const until = performance.now() + 700
  while (performance.now() < until) {
    me.socket.send(Buffer.alloc(3000))
    await sleep(5)
  }
  assert.ok(datagrams >= 3000, `${datagrams} bytes in datagrams`)
  assert.ok(bytes >= 3000, `${bytes} bytes of the stream`)
  const most = 20 * (performance.now() - begun) + 10_000
  assert.ok(bytes + datagrams <= most, `${bytes} and ${datagrams}, and not ${most}`)
})

// --- nodes ---

test('what a node has listened on and dialled at the server keeps to its limits, live', limit, async () => {
  let limits: TrafficLimits = { deny: ['127.0.0.2'], out: 300_000 }
  let used = 0
  const told: ((id: string | undefined) => void)[] = []
  const nodeLimits = {
    limitsOf: (id: string) => (id === 'shop' ? limits : undefined),
    onLimits: (listener: (id: string | undefined) => void) => {
      told.push(listener)
      return () => {}
    },
  }
  const events: HubEvent[] = []
  await using source = await program((socket) => flood(socket))
  await using stage = await channelStage({
    nodeLimits,
    usage: { ofMapping: () => 0, ofNode: () => used },
    onEvent: (event) => events.push(event),
  })
  const Forward = source.endpoint
  const shop = await stage.node('shop', {
    offers: [{ Listen: ANY_TCP, Forward }],
    listeners: [{ Listen: ANY_TCP, Forward }],
  })
  const published = await shop.event('listener-ready', ({ at }) => at !== 'here')
  assert.equal(await isServed(await come(published, '127.0.0.2')), false)
  const [a, b] = [await come(published), await come({ bound: shop.bound() })]
  const [published1 = 0, dialled = 0] = await Promise.all([count(a, 600, 30_000), count(b, 600, 30_000)])
  kept(published1 + dialled, 210_000, 'both ways through the node')

  limits = { quota: 1000 }
  used = 1001
  for (const tell of told) tell('shop')
  await soon(Promise.all([closed(a), closed(b)]), 'the end of what is open')
  assert.equal(await isServed(await come(published)), false)
  const limited = events.filter((event) => event.type === 'limited').map(({ node, kind }) => [node, kind])
  assert.deepEqual(limited, [
    ['shop', 'denied'],
    ['shop', 'quota'],
  ])
  assert.deepEqual(stage.server.limiter.refusedAt({ id: 'shop', enrolled: false }), { denied: 1, quota: 1 })

  limits = {}
  for (const tell of told) tell(undefined)
  assert.equal(await isServed(await come(published, '127.0.0.2')), true)
  const other = await stage.node('other', { offers: [{ Listen: ANY_TCP, Forward }] })
  assert.equal(await isServed(await come(await other.event('listener-ready'))), true)
})

test('a channel of a node is no visit: its lists do not concern those who join, and its rate does', limit, async () => {
  const limits: TrafficLimits = { allow: ['192.0.2.1'], visitor: { connections: 1 }, out: 300_000 }
  const nodeLimits = { limitsOf: (id: string) => (id === 'far' ? limits : undefined), onLimits: () => () => {} }
  await using source = await program((socket) => flood(socket))
  await using stage = await channelStage({ nodeLimits })
  await stage.node('far', { offers: [{ Listen: named('channel', 'files'), Forward: source.endpoint }] })
  const near1 = await stage.node('near', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'files') }] })
  const bytes = await count(await come({ bound: near1.bound() }), 500, 50_000)
  kept(bytes, 180_000, 'bytes')
})

// --- the web port ---

/** A web port where the visitor says in a header who they are, and a target behind it. */
async function webStage(web: Web) {
  const front = createServer((incoming, response) => {
    web.onRequest(incoming, response, { remote: `${incoming.headers['x-from']}:1000`, secure: false })
  })
  front.on('upgrade', (incoming, socket, head) => {
    web.onUpgrade(incoming, socket, head, { remote: `${incoming.headers['x-from']}:1000`, secure: false })
  })
  front.listen(0, '127.0.0.1')
  await once(front, 'listening')
  const { port } = front.address() as AddressInfo
  const held: (() => void)[] = []
  const there = await webTarget((incoming, response) => {
    if (incoming.url === '/hold') held.push(() => response.end('held'))
    else response.end('served')
  })
  const agent = new Agent({ keepAlive: false })
  const ask = async (from: string, path = '/', headers = {}) => {
    const outgoing = request({ port, path, agent, headers: { host: 'app.test', 'x-from': from, ...headers } })
    outgoing.end()
    const [answer] = await once(outgoing, 'response')
    answer.resume()
    await once(answer, 'end')
    return { status: answer.statusCode, retry: answer.headers['retry-after'] }
  }
  return {
    ...{ there, held, ask },
    async [Symbol.asyncDispose]() {
      front.close()
      front.closeAllConnections()
      web.close()
      await there[Symbol.asyncDispose]()
    },
  }
}

test('requests are asked one by one: 403, 429 with Retry-After, 503, and no connection is shared', limit, async () => {
  const web = createWeb()
  await using here = await hub({ domains: [tcp(), ...web.domains] })
  await here.join('a')
  await using front = await webStage(web)
  const { there, held, ask } = front
  const mapping = await here.table.add({
    listen: { Domain: 'web', Addr: 'app.test' },
    forward: `tcp://127.0.0.1:${there.port}`,
    limits: { deny: ['192.0.2.66'] },
  })
  const set = (limits: object) => here.table.change(mapping.id, { limits })
  assert.deepEqual(await ask('192.0.2.66'), { status: 403, retry: undefined })
  const ws = { connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'x' }
  assert.equal((await ask('192.0.2.66', '/', ws)).status, 403)
  for (let i = 0; i < 5; i++) assert.equal((await ask(`192.0.2.${i}`)).status, 200)
  assert.equal(there.connections(), 1, 'all of them on one connection')

  await set({ rate: 2 })
  const many = await Promise.all(Array.from({ length: 10 }, () => ask('192.0.2.1')))
  assert.equal(many.filter(({ status }) => status === 200).length, 2)
  assert.ok(many.every(({ status, retry }) => status === 200 || (status === 429 && Number(retry) >= 1)))

  await set({ rate: null, connections: 2 })
  const holding = [ask('192.0.2.1', '/hold'), ask('192.0.2.2', '/hold')]
  await eventually(() => held.length === 2, 'both wait')
  assert.equal((await ask('192.0.2.3')).status, 503)
  for (const release of held) release()
  await Promise.all(holding)
  assert.equal((await ask('192.0.2.3')).status, 200)

  await set({ connections: null, visitor: { out: 1_000_000 } })
  const before = there.connections()
  for (let i = 0; i < 3; i++) for (const who of [1, 2, 3]) assert.equal((await ask(`192.0.2.${who}`)).status, 200)
  assert.equal(there.connections(), before + 3, 'a connection for each visitor, used again by the same')
  assert.deepEqual(here.told('unserved'), [])
  assert.equal(here.table.get(mapping.id)?.limited?.rate, 8)

  // The same for a name that a node has for itself.
  const limitsOf = (): TrafficLimits => ({ deny: ['192.0.2.66'], visitor: { connections: 1 } })
  await using stage = await channelStage({
    domains: [tcp(), ...web.domains],
    nodeLimits: { limitsOf, onLimits: () => () => {} },
  })
  const Listen = { Domain: 'web', Addr: 'shop.test' }
  const Forward = { Domain: 'tcp', Addr: `127.0.0.1:${there.port}` }
  const shop = await stage.node('shop', { offers: [{ Listen, Forward }] })
  await shop.event('listener-ready')
  const host = 'shop.test'
  assert.equal((await ask('192.0.2.66', '/', { host })).status, 403)
  assert.equal((await ask('192.0.2.1', '/', { host })).status, 200)
  held.splice(0)
  const busy = ask('192.0.2.1', '/hold', { host })
  await eventually(() => held.length === 1, 'it waits')
  assert.equal((await ask('192.0.2.1', '/', { host })).status, 503)
  assert.equal((await ask('192.0.2.2', '/', { host })).status, 200)
  held[0]?.()
  assert.equal((await busy).status, 200)
})

test(
  'limits of the node hold for each request of an operator’s mapping too, and not for what waits between two',
  limit,
  async () => {
    const web = createWeb()
    let limits: TrafficLimits = {}
    const told: ((id: string | undefined) => void)[] = []
    const nodeLimits = {
      limitsOf: () => limits,
      onLimits: (listener: (id: string | undefined) => void) => {
        told.push(listener)
        return () => {}
      },
    }
    await using here = await hub({ domains: [tcp(), ...web.domains], limiter: new Limiter({ nodeLimits }) })
    await here.join('a')
    await using front = await webStage(web)
    const { there, held, ask } = front
    const listen = { Domain: 'web', Addr: 'app.test' }
    await here.table.add({ listen, forward: `tcp://127.0.0.1:${there.port}` })
    const set = (next: TrafficLimits): void => {
      limits = next
      for (const tell of told) tell('a')
    }
    const statuses = async (...from: string[]): Promise<(number | undefined)[]> => {
      const all: (number | undefined)[] = []
      for (const one of from) all.push((await ask(`192.0.2.${one}`)).status)
      return all
    }
    assert.deepEqual(await statuses('1', '2'), [200, 200])
    assert.equal(there.connections(), 1)

    set({ deny: ['192.0.2.66'] })
    assert.deepEqual(await statuses('66', '1', '66'), [403, 200, 403])
    set({ allow: ['192.0.2.66'] })
    assert.deepEqual(await statuses('66', '1'), [200, 403])
    set({ rate: 1 })
    assert.deepEqual(await statuses('1', '1', '2'), [200, 429, 429])
    set({ visitor: { rate: 1 } })
    assert.deepEqual(await statuses('1', '1', '2'), [200, 429, 200])
    // The connection of the request before is kept, and nobody is there any more.
    set({ connections: 1, deny: ['192.0.2.66'] })
    assert.deepEqual(await statuses('1', '2', '3'), [200, 200, 200])
    const busy = ask('192.0.2.1', '/hold')
    await eventually(() => held.length === 1, 'it waits')
    assert.deepEqual(await statuses('2'), [503])
    held[0]?.()
    assert.equal((await busy).status, 200)
    assert.equal(there.connections(), 1, 'all of them on one connection')
    set({ visitor: { out: 1_000_000 } })
    assert.deepEqual(await statuses('1', '2', '1', '2'), [200, 200, 200, 200])
    assert.equal(there.connections(), 3, 'one for each visitor more')
  },
)
