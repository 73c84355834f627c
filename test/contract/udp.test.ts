import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { forward } from '../../lib/hub/forward.ts'
import {
  createPolicy,
  type Endpoint,
  type Listener,
  type ProxyError,
  parsePattern,
  parsePortRanges,
  type SubConnection,
  tcp,
  type UdpOptions,
  udp,
} from '../../lib/index.ts'
import { type DatagramProgram, datagramEcho, datagramServer, visitor } from '../helpers/contract/datagrams.ts'
import { connectPair, LINKS, MEMORY, TCP } from '../helpers/contract/proxies.ts'
import { count, eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { faultyPair } from '../helpers/resume/faulty-pair.ts'

const ANY_PORT: Endpoint = { Domain: 'udp', Addr: '127.0.0.1:0' }
const SIZES = [0, 1, 508, 1472, 9000, 65_507]
const IPV6 = await datagramServer({ address: '::1' }).then(
  async (program) => {
    await program[Symbol.asyncDispose]()
    return true
  },
  () => false,
)

watchForStrays()

function sides(options: UdpOptions = {}) {
  return { dialling: { domains: [udp(options), tcp()] }, accepting: { domains: [udp(options), tcp()] } }
}

/** Listening and forwarding in one process. */
async function forwarding(to: Endpoint, options: UdpOptions & { at?: Endpoint } = {}): Promise<Listener> {
  const { at = ANY_PORT, ...rest } = options
  const signal = new AbortController().signal
  const [listener] = await forward([{ Listen: at, Forward: to }], { domains: [udp(rest), tcp()], signal })
  assert.ok(listener)
  return listener
}

async function bothWays(user: DatagramProgram, sizes: readonly number[]): Promise<void> {
  for (const size of sizes) {
    const data = Buffer.alloc(size, size % 251)
    user.send(data)
    assert.ok(data.equals(await user.next(`${size} bytes`)), `${size} bytes`)
  }
}

for (const kind of LINKS) {
  test(`datagrams of any size keep their borders, both ways round (${kind.name})`, { timeout: 10_000 }, async () => {
    await using target = await datagramEcho()
    await using pair = await connectPair(kind, sides())
    const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
    await using here = await pair.dialling.newListener(mapping)
    await using there = await pair.dialling.newPeerListener(mapping)
    for (const listener of [here, there]) {
      assert.equal(listener.bound.Domain, 'udp')
      await using user = await visitor(listener.bound)
      // Reads of one byte take their time.
      await bothWays(user, kind.name.includes('1 byte') ? [0, 1, 508, 1472] : SIZES)
    }
    assert.equal(count(pair.dialling), 2)
    await here.close()
    await there.close()
    await nothingLeft(pair.dialling, pair.accepting)
  })
}

test('one process forwards as well, from all interfaces, of IPv6 and IPv4', async () => {
  await using target = await datagramEcho()
  await using listener = await forwarding(target.endpoint, { at: { Domain: 'udp', Addr: ':0' } })
  const port = /\d+$/.exec(listener.bound.Addr)?.[0]
  for (const address of IPV6 ? ['127.0.0.1', '[::1]'] : ['127.0.0.1']) {
    await using user = await visitor({ Domain: 'udp', Addr: `${address}:${port}` })
    await bothWays(user, SIZES)
  }
})

test('visitors are told apart, each by its address and port', async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides())
  const remotes: (string | undefined)[] = []
  pair.accepting.on('open', (sub) => remotes.push(sub.remote))
  await using listener = await pair.dialling.newListener({
    Listen: { Domain: 'udp', Addr: ':0' },
    Forward: target.endpoint,
  })
  const at = { Domain: 'udp', Addr: `127.0.0.1:${/\d+$/.exec(listener.bound.Addr)?.[0]}` }
  await using one = await visitor(at)
  await using two = await visitor(at)
  for (let n = 0; n < 20; n++) {
    one.send(`one ${n}`)
    two.send(`two ${n}`)
  }
  for (let n = 0; n < 20; n++) {
    assert.equal(await one.text(), `one ${n}`, 'in order')
    assert.equal(await two.text(), `two ${n}`, 'in order')
  }
  assert.equal(new Set(target.got.map(({ from }) => from.port)).size, 2)
  assert.deepEqual(remotes.sort(), [one, two].map((user) => user.endpoint.Addr).sort())
  assert.equal(count(pair.accepting), 2)
})

test('what comes in one burst arrives in order', async () => {
  await using target = await datagramServer()
  await using pair = await connectPair(TCP, sides())
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  user.send('first')
  await target.next()
  for (let n = 0; n < 60; n++) user.send(`${n}`)
  for (let n = 0; n < 60; n++) assert.equal(await target.text(), `${n}`)
})

test('a flow ends when nothing has moved for the idle timeout, and what comes next is a new one', async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides({ idleTimeout: 60 }))
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  const subs: SubConnection[] = []
  pair.accepting.on('open', (sub) => subs.push(sub))
  await bothWays(user, [3])
  await nothingLeft(pair.dialling, pair.accepting)
  assert.equal(subs.length, 1)
  assert.equal(subs[0]?.errored, null, 'an end in order')
  await bothWays(user, [4])
  assert.equal(subs.length, 2)
})

test('what only one side sends keeps a flow too', async () => {
  await using target = await datagramServer()
  await using pair = await connectPair(MEMORY, sides({ idleTimeout: 300 }))
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  user.send('subscribe')
  await target.next()
  const from = target.got[0]?.from
  assert.ok(from)
  for (let n = 0; n < 12; n++) {
    await sleep(50)
    target.socket.send(`news ${n}`, from.port, from.address)
    assert.equal(await user.text(), `news ${n}`)
  }
})

test('when there are too many flows the one idle longest gives way', async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides({ flows: 3 }))
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const users = await Promise.all([1, 2, 3, 4].map(() => visitor(listener.bound)))
  const [one, two, three, four] = users
  assert.ok(one && two && three && four)
  for (const user of [one, two, three, one, four]) await bothWays(user, [8])
  await eventually(() => count(pair.accepting) === 3, 'three flows')
  assert.equal(count(pair.dialling), 3)
  const ports = (): number => new Set(target.got.map(({ from }) => from.port)).size
  assert.equal(ports(), 4)
  for (const user of [one, three, four]) await bothWays(user, [8])
  assert.equal(ports(), 4, 'these three go on')
  await bothWays(two, [8])
  assert.equal(ports(), 5, 'the second one began again')
  for (const user of users) await user[Symbol.asyncDispose]()
})

test('while the main connection has no link the oldest are dropped, and the newest arrive when it goes on', async () => {
  await using target = await datagramServer()
  await using pair = await faultyPair(sides())
  const { proxy } = pair.dialling
  await using listener = await proxy.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  user.send('before')
  assert.equal(await target.text(), 'before')
  pair.network.block('refuse')
  pair.network.cut('rst')
  await eventually(() => proxy.state === 'resuming', 'the loss')
  const payload = Buffer.alloc(1000)
  for (let n = 0; n < 300; n++) {
    payload.writeUInt32BE(n)
    user.send(Buffer.from(payload))
    if (n % 50 === 49) await sleep(2)
  }
  await sleep(20)
  pair.network.unblock()
  const numbers: number[] = []
  while (numbers.at(-1) !== 299) numbers.push((await target.next('the newest', 5000)).readUInt32BE())
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  )
  assert.deepEqual(
    numbers.slice(-64),
    [...Array(64).keys()].map((n) => 236 + n),
  )
  assert.ok(numbers.length <= 70, `${numbers.length} were kept`)
  assert.equal(target.got[0]?.from.port, target.got.at(-1)?.from.port, 'it is the same flow')
  const { port, address } = target.got[0]?.from ?? {}
  target.socket.send('answer', port ?? 0, address ?? '')
  assert.equal(await user.text(), 'answer')
})

test('behind a peer that takes nothing memory is bounded, and the newest arrive when it takes again', async () => {
  await using target = await datagramServer()
  await using pair = await faultyPair(sides())
  const { proxy } = pair.dialling
  await using listener = await proxy.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  await using other = await visitor(listener.bound)
  user.send(Buffer.from([0, 0, 0, 0]))
  other.send(Buffer.from([0, 0, 0, 0]))
  await target.next()
  await target.next()
  pair.network.hold()
  const payload = Buffer.alloc(8000)
  for (let n = 1; n <= 2000; n++) {
    payload.writeUInt32BE(n)
    user.send(Buffer.from(payload))
    if (n % 20 === 0) await sleep(1)
  }
  other.send(Buffer.from([0, 0, 0, 1]))
  await sleep(20)
  pair.network.release()
  const ofUser = target.got[0]?.from.port
  const newest = (mine: boolean): number => {
    const last = target.got.filter(({ from }) => (from.port === ofUser) === mine).at(-1)
    return last?.data.readUInt32BE() ?? -1
  }
  await eventually(() => newest(true) === 2000, 'the newest', 5000)
  await eventually(() => newest(false) === 1, "the other visitor's")
  assert.ok(target.got.length < 150, `${target.got.length} of 2002 arrived: some had to go`)
})

test('flows go on after each of several cuts', async () => {
  await using target = await datagramEcho()
  await using pair = await faultyPair(sides())
  const { proxy } = pair.dialling
  await using listener = await proxy.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  await bothWays(user, SIZES)
  for (const how of ['rst', 'fin', 'rst'] as const) {
    const resumed = once(proxy, 'state').then(() => once(proxy, 'state'))
    pair.network.cut(how)
    await soon(resumed, 'the resume', 5000)
    await bothWays(user, SIZES)
  }
  assert.equal(new Set(target.got.map(({ from }) => from.port)).size, 1)
})

test('a target that refuses, and comes up later, is found by the same flow', async () => {
  const gone = await datagramEcho()
  const { port } = gone.socket.address()
  await using pair = await connectPair(MEMORY, sides())
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: gone.endpoint })
  await using user = await visitor(listener.bound)
  await bothWays(user, [5])
  await gone[Symbol.asyncDispose]()
  for (let n = 0; n < 5; n++) {
    user.send('lost')
    await sleep(10)
  }
  assert.equal(count(pair.accepting), 1, 'a refusal ends nothing')
  await using _back = await datagramEcho({ port })
  // The first one may still find the news of the last refusal.
  user.send('again')
  user.send('again')
  assert.equal(await user.text(), 'again')
})

test('a name with several addresses is found at the one that answers', { skip: !IPV6 }, async () => {
  await using target = await datagramEcho()
  const twice = { ...udp(), resolve: async () => ['::1', '127.0.0.1'] }
  const signal = new AbortController().signal
  const [listener] = await forward([{ Listen: ANY_PORT, Forward: target.endpoint }], { domains: [twice], signal })
  assert.ok(listener)
  await using user = await visitor(listener.bound)
  user.send('hello')
  assert.equal(await user.text('the answer to the first datagram'), 'hello')
  await bothWays(user, SIZES)
  assert.equal(target.got[0]?.data.toString(), 'hello')
  assert.equal(new Set(target.got.map(({ from }) => from.port)).size, 1)
  await listener.close()
})

test('nothing behind any address of a name is no endless search', { skip: !IPV6 }, async () => {
  const gone = await datagramServer()
  await gone[Symbol.asyncDispose]
  const { port } = gone.socket.address()
  await gone[Symbol.asyncDispose]()
  const signal = new AbortController().signal
  let dropped = (): number => -1
  const plugin = udp()
  const watched = {
    ...plugin,
    resolve: async () => ['::1', '127.0.0.1'],
    dial: async (...args: Parameters<NonNullable<typeof plugin.dial>>) => {
      const link = await plugin.dial?.(...args)
      assert.ok(link && 'dropped' in link)
      dropped = () => Number(link.dropped)
      return link
    },
  }
  const specs = [{ Listen: ANY_PORT, Forward: { Domain: 'udp', Addr: `localhost:${port}` } }]
  const [listener] = await forward(specs, { domains: [watched], signal })
  assert.ok(listener)
  await using user = await visitor(listener.bound)
  user.send('hello')
  await eventually(() => dropped() === 2, 'both addresses were tried')
  await sleep(50)
  assert.equal(dropped(), 2, 'and then no more')
  await listener.close()
})

test('the policy is asked about a dial and a listen, and its refusals are not asked for in a flood', async () => {
  await using target = await datagramEcho()
  const policy = createPolicy({ dial: [parsePattern('127.0.0.1:1')], listenPorts: parsePortRanges('1') })
  await using pair = await connectPair(MEMORY, {
    dialling: { domains: [udp()] },
    accepting: { domains: [udp()], policy },
  })
  const refused: ProxyError[] = []
  pair.dialling.on('refused', (error) => refused.push(error))
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const users = await Promise.all(Array.from({ length: 5 }, () => visitor(listener.bound)))
  for (let n = 0; n < 100; n++) {
    for (const user of users) user.send('hello')
    if (n % 10 === 9) await sleep(1)
  }
  await nothingLeft(pair.dialling, pair.accepting)
  assert.ok(refused.length >= 1 && refused.length <= 10, `${refused.length} refusals for 500 datagrams`)
  assert.ok(refused.every(({ code }) => code === 'PROXY_ERR_DIAL_DENIED'))
  assert.equal(target.got.length, 0)
  await assert.rejects(pair.dialling.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint }), {
    code: 'PROXY_ERR_LISTEN_DENIED',
  })
  for (const user of users) await user[Symbol.asyncDispose]()
})

test('a stream that is not one of datagrams ends with PROXY_ERR_DATAGRAM, and nothing is left', async () => {
  await using target = await datagramServer()
  await using pair = await connectPair(MEMORY, sides())
  for (const [bytes, ends] of [
    [Buffer.from('fffe00', 'hex'), false],
    [Buffer.from('0005616263', 'hex'), true],
    [Buffer.from('00', 'hex'), true],
  ] as const) {
    const sub = await pair.dialling.dial(target.endpoint)
    const failed = once(sub, 'error')
    if (ends) sub.end(bytes)
    else sub.write(bytes)
    const [error] = await soon(failed, 'the error')
    assert.equal(error.code, 'PROXY_ERR_DATAGRAM')
  }
  await nothingLeft(pair.dialling, pair.accepting)
  assert.equal(target.got.length, 0)
})

test('code at the other side may answer a visitor, in frames', async () => {
  await using pair = await connectPair(MEMORY, sides())
  await using incoming = await pair.dialling.accept(ANY_PORT)
  await using user = await visitor(incoming.bound)
  user.send('hi')
  for await (const sub of incoming) {
    assert.equal(sub.remote, user.endpoint.Addr)
    const [bytes] = await once(sub, 'data')
    assert.deepEqual([...bytes], [0, 2, 104, 105])
    sub.write(Buffer.from('00036f6e65000374776f', 'hex'))
    break
  }
  assert.equal(await user.text(), 'one')
  assert.equal(await user.text(), 'two')
})

test('a peer that answers with something else than datagrams ends that flow alone', async () => {
  await using pair = await connectPair(MEMORY, sides())
  await using incoming = await pair.dialling.accept(ANY_PORT)
  await using one = await visitor(incoming.bound)
  await using two = await visitor(incoming.bound)
  one.send('1')
  two.send('2')
  const subs: SubConnection[] = []
  for await (const sub of incoming) {
    subs.push(sub)
    if (subs.length < 2) continue
    const [bad, good] = subs
    assert.ok(bad && good)
    const failed = once(bad, 'error')
    bad.write(Buffer.alloc(100_000, 0xff))
    const [error] = await soon(failed, 'the error')
    assert.equal(error.code, 'PROXY_ERR_DATAGRAM')
    good.write(Buffer.from('00026f6b', 'hex'))
    assert.equal(await Promise.race([one, two].map((user) => user.text())), 'ok')
    break
  }
})

test('a tcp listener that leads to a udp target by request of the peer does no harm', async () => {
  await using target = await datagramServer()
  await using pair = await connectPair(MEMORY, sides())
  const Listen = { Domain: 'tcp', Addr: '127.0.0.1:0' }
  await using listener = await pair.dialling.newListener({ Listen, Forward: target.endpoint })
  const socket = connect(Number(/\d+$/.exec(listener.bound.Addr)?.[0]), '127.0.0.1')
  const closed = new Promise((resolve) => socket.on('error', () => {}).on('close', resolve))
  socket.write(Buffer.alloc(100_000, 0xff))
  await soon(closed, 'the close')
  await nothingLeft(pair.dialling, pair.accepting)
  assert.equal(target.got.length, 0)
})

test('a flood of empty datagrams by the peer takes bounded memory, and others go on', { timeout: 20_000 }, async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides())
  await using listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  await bothWays(user, [10])
  const before = process.memoryUsage().rss
  const flood = await pair.dialling.dial({ Domain: 'udp', Addr: '127.0.0.1:9' })
  const zeros = Buffer.alloc(1_000_000)
  for (let n = 0; n < 3; n++) await new Promise((resolve) => flood.write(zeros, resolve))
  await bothWays(user, [10])
  flood.destroy()
  const grown = process.memoryUsage().rss - before
  assert.ok(grown < 150_000_000, `${grown} bytes for 1,500,000 datagrams`)
})

test('closing a listener ends its flows and frees the port; nothing is left behind', async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides())
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  const listener = await pair.dialling.newListener(mapping)
  const users = await Promise.all(Array.from({ length: 10 }, () => visitor(listener.bound)))
  for (const user of users) await bothWays(user, [100])
  assert.equal(count(pair.accepting), 10)
  await Promise.all([listener.close(), listener.close()])
  await nothingLeft(pair.dialling, pair.accepting)
  await using again = await pair.dialling.newListener({ ...mapping, Listen: listener.bound })
  assert.deepEqual(again.bound, listener.bound)
  for (const user of users) await user[Symbol.asyncDispose]()
})

test('a drain does not wait for flows', async () => {
  await using target = await datagramEcho()
  await using pair = await connectPair(MEMORY, sides())
  const listener = await pair.dialling.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  await using user = await visitor(listener.bound)
  await bothWays(user, [100])
  await soon(pair.dialling.drain(), 'the drain')
})

test('what cannot be listened on is said in plain words', async () => {
  await using taken = await datagramServer()
  await using pair = await connectPair(MEMORY, sides())
  const Forward = taken.endpoint
  const listen = (Addr: string) => pair.dialling.newListener({ Listen: { Domain: 'udp', Addr }, Forward })
  const code = 'PROXY_ERR_LISTEN_FAILED'
  const { Addr } = taken.endpoint
  await assert.rejects(listen(Addr), { code, message: `cannot listen on ${Addr}: the address is in use already` })
  await assert.rejects(listen('192.0.2.1:0'), {
    code,
    message: 'cannot listen on 192.0.2.1:0: this machine does not have that address',
  })
  await assert.rejects(listen('nowhere.invalid:0'), { code, message: /^cannot listen on nowhere\.invalid:0: / })
  await assert.rejects(listen('127.0.0.1'), { code: 'PROXY_ERR_ADDRESS' })
  await assert.rejects(pair.dialling.dial({ Domain: 'udp', Addr: 'nowhere.invalid:53' }), {
    code: 'PROXY_ERR_DIAL_FAILED',
  })
})
