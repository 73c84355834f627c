import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { linkFrom, Proxy, ProxyError } from '../../lib/core/index.ts'
import { Hidden } from '../../lib/domains/hidden.ts'
import { answerChannel, joinChannel } from '../../lib/hub/channel-handshake.ts'
import { ChannelTries } from '../../lib/hub/channel-tries.ts'
import { beginCpace } from '../../lib/hub/cpace.ts'
import { dialProgram, echo, ending, pattern, readAll } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { duplexPair } from '../helpers/core/duplex-pair.ts'
import { type Alter, ANY_TCP, channelStage, middle, named, type TestNode } from '../helpers/hub/channels.ts'

watchForStrays()

const LIMIT = { timeout: 20_000 }
const CHANNEL = { Domain: 'channel', Addr: 'ssh' }

/** The server's Proxy to a node. */
function proxyOf(nodes: Iterable<{ readonly id: string; readonly proxy: Proxy }>, id: string): Proxy {
  for (const node of nodes) if (node.id === id) return node.proxy
  throw new Error(`${id} is not connected`)
}

async function unservedCode(node: TestNode, before = 0): Promise<string> {
  await ending(await dialProgram(node.bound()))
  await node.event('unserved', () => node.told('unserved').length > before)
  return node.told('unserved').at(-1)?.reason.code ?? ''
}

test('whoever relays sees no byte of what goes through, and no trace of the password', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const seen = middle()
  stage.meddle = seen.meddle
  const password = 'a password of some length'
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh', password), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', {
    listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh', password) }],
  })
  const payload = Buffer.concat(Array.from({ length: 2000 }, () => Buffer.from('something that can be read ')))
  const socket = await dialProgram(joiner.bound())
  const answer = readAll(socket)
  socket.end(payload)
  assert.ok(payload.equals(await soon(answer, 'the answer')))
  for (const said of [Buffer.concat(seen.fromJoiner), Buffer.concat(seen.fromOfferer)]) {
    assert.ok(said.length > payload.length)
    for (const word of ['something', 'read', password, target.endpoint.Addr, 'target']) {
      assert.equal(said.indexOf(word), -1, `${word} is to be seen`)
    }
  }
})

test(
  'a relay that guesses has one guess a handshake, and each is a failure at the end that it was shown to',
  LIMIT,
  async () => {
    await using target = await echo()
    await using stage = await channelStage()
    const offerer = await stage.node('offerer', {
      offers: [{ Listen: named('channel', 'ssh', 'right'), Forward: target.endpoint }],
    })
    const joiner = await stage.node('joiner', {
      listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh', 'right') }],
    })
    // Poses as the offerer, with a guess of its own.
    const guesses: Promise<string>[] = []
    stage.meddle = (far) => {
      far.destroy()
      const [near, own] = duplexPair()
      const options = { name: 'ssh', password: new Hidden('guess'), tries: new ChannelTries('ssh', { failures: 100 }) }
      guesses.push(
        answerChannel(linkFrom(own), options).then(
          () => 'in',
          (error) => error.code,
        ),
      )
      return near
    }
    for (let guess = 0; guess < 4; guess++) await unservedCode(joiner, guess)
    const codes = joiner.told('unserved').map(({ reason }) => reason.code)
    assert.equal(codes.at(-1), 'PROXY_ERR_CHANNEL_LIMIT')
    assert.equal(codes.filter((code) => code === 'PROXY_ERR_CHANNEL_LIMIT').length, 1)
    assert.deepEqual(
      await Promise.all(guesses),
      Array.from({ length: 3 }, () => 'PROXY_ERR_CHANNEL_PASSWORD'),
    )
    // The offerer was only looked at.
    assert.deepEqual(offerer.told('channel-failed'), [])
  },
)

const changes: [name: string, alter: { fromJoiner?: Alter; fromOfferer?: Alter }, codes: RegExp][] = [
  ['flips a bit of message 1', { fromJoiner: flipAt(20) }, /PASSWORD|HANDSHAKE$/],
  ['flips a bit of message 2', { fromOfferer: flipAt(5) }, /PASSWORD|HANDSHAKE$/],
  ['flips a bit of message 3', { fromJoiner: flipAt(60) }, /PASSWORD/],
  ['flips a bit of message 4', { fromOfferer: flipAt(40) }, /PASSWORD/],
  ['flips a bit of the first record', { fromJoiner: flipAt(49 + 32 + 32 + 10) }, /RECORD_AUTH|LINK_LOST|SESSION_LOST/],
  ['answers with what was asked', { fromOfferer: (bytes) => Buffer.alloc(bytes.length, 1) }, /HANDSHAKE|PASSWORD/],
  [
    'sends garbage for the rest',
    { fromOfferer: (bytes, at) => (at >= 65 ? garbage(bytes.length) : bytes) },
    /PROXY_ERR/,
  ],
]
for (const [name, alter, codes] of changes) {
  test(`a relay that ${name}: an error of its own, and nothing is left behind`, LIMIT, async () => {
    await using target = await echo()
    await using stage = await channelStage()
    const offerer = await stage.node('offerer', {
      offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
    })
    const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
    stage.meddle = middle(alter).meddle
    assert.match(await unservedCode(joiner), codes)
    stage.meddle = (far) => far
    await nothingOpen(stage.server.nodes)
    const socket = await dialProgram(joiner.bound())
    socket.end('and then')
    assert.equal(String(await soon(readAll(socket), 'an answer')), 'and then')
    assert.ok(offerer.told('channel-failed').length <= 1)
  })
}

test('a relay that changes what is under way is found out: nothing changed ever arrives', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  stage.meddle = middle({ fromJoiner: flipAt(300_000) }).meddle
  const sent = pattern(1024 * 1024)
  const socket = await dialProgram(joiner.bound())
  const got: Buffer[] = []
  socket.on('data', (chunk: Buffer) => got.push(chunk))
  socket.write(sent)
  assert.equal(await soon(ending(socket), 'the end'), 'reset')
  const all = Buffer.concat(got)
  assert.ok(all.length < sent.length)
  assert.ok(all.equals(sent.subarray(0, all.length)))
})

test('a relay that plays the records of one channel again gets nowhere', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const seen = middle()
  stage.meddle = seen.meddle
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const socket = await dialProgram(joiner.bound())
  socket.write('pay 10')
  await once(socket, 'data')
  const reached = target.sockets.size
  // All that the joiner has said, once more.
  const again = await stage.channels.open('ssh')
  again.on('error', () => {})
  again.write(Buffer.concat(seen.fromJoiner))
  const failed = await offerer.event('channel-failed')
  assert.equal(failed.reason.code, 'PROXY_ERR_CHANNEL_PASSWORD')
  assert.equal(target.sockets.size, reached)
})

test(
  'a relay that cuts in the middle ends what is open there, and the next connection joins again',
  LIMIT,
  async () => {
    await using target = await echo()
    await using stage = await channelStage()
    const between = middle()
    stage.meddle = between.meddle
    await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
    const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
    const socket = await dialProgram(joiner.bound())
    socket.write('x')
    await once(socket, 'data')
    const over = ending(socket)
    between.cut()
    assert.equal(await soon(over, 'the end'), 'reset')
    const next = await dialProgram(joiner.bound())
    next.end('again')
    assert.equal(String(await soon(readAll(next), 'an answer')), 'again')
  },
)

test('an offering node that never answers costs its joiners no more than the deadline', LIMIT, async (t) => {
  await using stage = await channelStage()
  const silent = await stage.node('silent', { offers: [] })
  const server = silent.node.server
  assert.ok(server)
  // Takes what comes, and says nothing.
  const incoming = await server.proxy.accept(CHANNEL)
  t.after(() => incoming.close())
  const taken: { destroy(): void }[] = []
  void (async () => {
    for await (const sub of incoming) taken.push(sub)
  })()
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const socket = await dialProgram(joiner.bound())
  while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
  t.mock.timers.tick(10_001)
  await ending(socket)
  assert.equal((await joiner.event('unserved')).reason.code, 'PROXY_ERR_HANDSHAKE_TIMEOUT')
  t.mock.timers.reset()
  await nothingOpen(stage.server.nodes)
})

test('garbage inside a channel, from 300 at once, hurts nobody who knows the password', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const attacker = await stage.node('attacker')
  const { server } = attacker.node
  assert.ok(server)
  const over: Promise<unknown>[] = []
  for (let number = 0; number < 300; number++) {
    const sub = await server.proxy.open({ to: CHANNEL })
    over.push(new Promise((resolve) => sub.once('close', resolve)))
    // Some say nothing, and have to make room.
    if (number % 3 > 0) sub.write(number % 3 === 1 ? garbage(100) : Buffer.from([7]))
    if (number % 3 === 0 && number > 200) sub.destroy()
  }
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const socket = await dialProgram(joiner.bound())
  socket.end('hello')
  assert.equal(String(await soon(readAll(socket), 'an answer', 5000)), 'hello')
  // Of one kind of failure one line a minute.
  assert.ok(offerer.told('channel-failed').length <= 3)
  await attacker[Symbol.asyncDispose]()
  await Promise.all(over)
  await eventually(() => [...proxyOf(stage.server.nodes, 'offerer').subConnections].length <= 1, 'something is left')
})

test('handshakes that never begin are in the way of none that does', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const attacker = await stage.node('attacker')
  const { server } = attacker.node
  assert.ok(server)
  const over: Promise<unknown>[] = []
  for (let number = 0; number < 64; number++) {
    const sub = await server.proxy.dial(CHANNEL)
    sub.on('error', () => {})
    over.push(new Promise((resolve) => sub.once('close', resolve)))
    // All but the last byte of message 1.
    await new Promise((resolve) => sub.write(Buffer.alloc(48, 1), resolve))
  }
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const socket = await dialProgram(joiner.bound())
  socket.end('hello')
  assert.equal(String(await soon(readAll(socket), 'an answer')), 'hello')
  await Promise.race(over)
  assert.equal((await offerer.event('channel-failed')).reason.code, 'PROXY_ERR_TOO_MANY_HANDSHAKES')
})

test('a joiner that calls its own end a wrong password was not compared with anything', LIMIT, async () => {
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: ANY_TCP }] })
  const attacker = await stage.node('attacker')
  const { server } = attacker.node
  assert.ok(server)
  const sub = await server.proxy.dial(CHANNEL)
  sub.on('error', () => {})
  const sid = Buffer.alloc(16, 1)
  const { point } = await beginCpace({ prs: Buffer.from('any'), ci: Buffer.alloc(0), sid })
  sub.write(Buffer.concat([Buffer.from([1]), sid, point]))
  await once(sub, 'data')
  sub.destroy(new ProxyError('PROXY_ERR_CHANNEL_PASSWORD', 'a guess'))
  assert.equal((await offerer.event('channel-failed')).reason.code, 'PROXY_ERR_LINK_LOST')
})

test('4,000 connections through one channel come and go, and leave nothing', { timeout: 60_000 }, async () => {
  await using stage = await channelStage()
  const closed = { Domain: 'tcp', Addr: '127.0.0.1:1' }
  await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: closed }],
    domains: [{ name: 'tcp', dial: async () => Promise.reject(new Error('nobody there')) }],
  })
  const raw = await rawJoiner(stage)
  let ended = 0
  for (let number = 0; number < 4000; number++) {
    const sub = await raw.open({ to: { Domain: 'target', Addr: 'stream' } })
    sub.once('close', () => ended++)
  }
  await eventually(() => ended === 4000, 'some are left', 20_000)
  assert.equal([...raw.subConnections].length, 0)
  raw.close()
  await raw.closed
  await nothingOpen(stage.server.nodes)
})

test('a joiner gets no listener at the offering node, and nothing but the target', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const raw = await rawJoiner(stage)
  const unknown = { code: 'PROXY_ERR_UNKNOWN_DOMAIN' }
  await assert.rejects(raw.accept(ANY_TCP), unknown)
  await assert.rejects(raw.accept(CHANNEL), unknown)
  await assert.rejects(raw.dial(CHANNEL), unknown)
  await assert.rejects(raw.dial({ Domain: 'unix', Addr: '/run/x' }), unknown)
  await assert.rejects(raw.dial(target.endpoint), { code: 'PROXY_ERR_CHANNEL_KIND' })
  await assert.rejects(raw.dial({ Domain: 'target', Addr: target.endpoint.Addr }), { code: 'PROXY_ERR_CHANNEL_KIND' })
  assert.equal(target.sockets.size, 0)
  raw.close()
  await raw.closed
})

/** A Proxy of code's own to whoever offers the channel `ssh`. */
async function rawJoiner(stage: Awaited<ReturnType<typeof channelStage>>): Promise<Proxy> {
  const link = linkFrom(await stage.channels.open('ssh'))
  const options = { name: 'ssh', password: new Hidden('pw'), tries: new ChannelTries('ssh') }
  return new Proxy(await joinChannel(link, options))
}

async function nothingOpen(nodes: Iterable<{ readonly proxy: Proxy }>): Promise<void> {
  await eventually(
    () => [...nodes].every(({ proxy }) => [...proxy.subConnections].length === 0),
    'sub-connections are left at the server',
    6000,
  )
}

function flipAt(position: number): Alter {
  return (bytes, at) => {
    const byte = bytes[position - at]
    if (byte !== undefined) bytes[position - at] = byte ^ 4
    return bytes
  }
}

function garbage(length: number): Buffer {
  return pattern(length, length)
}
