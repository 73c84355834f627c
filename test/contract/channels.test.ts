import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import type { ServerOptions } from '../../lib/create-server.ts'
import { Hidden } from '../../lib/domains/hidden.ts'
import type { Spec } from '../../lib/domains/spec.ts'
import { ChannelNames } from '../../lib/hub/channel-names.ts'
import { Identities } from '../../lib/hub/identities.ts'
import { Statistics } from '../../lib/hub/statistics.ts'
import { allowAll } from '../../lib/index.ts'
import { datagramEcho, visitor } from '../helpers/contract/datagrams.ts'
import { dialProgram, echo, ending, pattern, program, readAll, reset, sha256 } from '../helpers/contract/programs.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ANY_TCP, ANY_UDP, channelStage, named } from '../helpers/hub/channels.ts'
import { stateFolderOf } from '../helpers/hub/statistics.ts'

watchForStrays()

const LIMIT = { timeout: 20_000 }

/** Says something, ends, and gives back all that comes. */
async function roundTrip(to: Parameters<typeof dialProgram>[0], words: string): Promise<string> {
  const socket = await dialProgram(to)
  socket.end(words)
  return String(await soon(readAll(socket), `an answer to ${words}`, 5000))
}

test('a node reaches what another one offers, over a channel of one name and one password', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const ready = await offerer.event('listener-ready')
  assert.deepEqual(ready.bound, { Domain: 'channel', Addr: 'ssh' })
  assert.deepEqual([...stage.channels.names], ['ssh'])
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
  assert.equal(await roundTrip(joiner.bound(), 'again'), 'again')
  assert.deepEqual([...offerer.told('channel-failed'), ...joiner.told('unserved')], [])
})

test('a node joins the channel that it offers itself', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const node = await stage.node('both', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
    listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }],
  })
  assert.equal(await roundTrip(node.bound(), 'hello'), 'hello')
})

test("the server's own side joins a channel too", LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage({ listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const [mapping] = stage.server.mappings.status()
  assert.ok(mapping?.bound)
  assert.equal(await roundTrip(mapping.bound, 'hello'), 'hello')
})

test('what goes through a channel counts for the mapping that listens, and for the node once', LIMIT, async (t) => {
  await using target = await program((socket) => {
    socket.resume()
    socket.once('end', () => socket.end('five!'))
  })
  const at = await Promise.all([Statistics.open(undefined), Statistics.open(undefined)])
  t.after(() => Promise.all(at.map((statistics) => statistics.close())))
  const [atNode, atServer] = at
  const hooks = (statistics: Statistics): Partial<ServerOptions> => ({
    onOpened: (sub, opened) => statistics.opened(sub, opened),
    onEvent: (event) => {
      if (event.type === 'connected') statistics.connected(event.peer)
      if (event.type === 'disconnected') statistics.disconnected(event.peer)
    },
  })
  const joined = { Listen: ANY_TCP, Forward: named('channel', 'ssh') }
  await using stage = await channelStage({ ...hooks(atServer), listeners: [joined] })
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', { listeners: [joined], options: { onOpened: hooks(atNode).onOpened } })
  const { server } = joiner.node
  assert.ok(server)
  atNode.connected(server)
  for (const [statistics, mappings] of [
    [atNode, joiner.node.mappings],
    [atServer, stage.server.mappings],
  ] as const) {
    const [mapping] = mappings.status()
    assert.ok(mapping?.bound)
    const figures = () => statistics.mapping(mapping.id).totals
    const socket = await dialProgram(mapping.bound)
    socket.write('ten bytes.')
    await eventually(() => figures().bytesIn === 10, 'nothing is counted')
    assert.deepEqual(figures(), { bytesIn: 10, bytesOut: 0, connections: 1, live: 1 })
    const answer = readAll(socket)
    socket.end()
    await soon(answer, 'the answer')
    await eventually(() => figures().live === 0, 'it lives on')
    assert.deepEqual(figures(), { bytesIn: 10, bytesOut: 5, connections: 1, live: 0 })
  }
  // The one that carries the channel, and not what is in it.
  assert.equal(atNode.totals().connections, 1)
  assert.ok(atNode.totals().bytesIn > 10)
})

test('all connections of a channel share one handshake, also those that come first and together', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  let relayed = 0
  stage.meddle = (far) => {
    relayed++
    return far
  }
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', {
    listeners: [
      { Listen: ANY_TCP, Forward: named('channel', 'ssh') },
      { Listen: ANY_TCP, Forward: named('channel', 'ssh') },
    ],
  })
  const words = Array.from({ length: 40 }, (_, number) => `words ${number}`)
  const answers = await Promise.all(words.map((word, number) => roundTrip(joiner.bound(number % 2), word)))
  assert.deepEqual(answers, words)
  assert.equal(relayed, 1)
})

test('12 MB arrive as they were sent, and 12 MB come back', { timeout: 60_000 }, async () => {
  const sent = pattern(12 * 1024 * 1024)
  await using target = await program()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const near = await dialProgram(joiner.bound())
  const far = await target.accepted()
  const [here, there] = [readAll(near), readAll(far)]
  near.end(sent)
  far.end(sent)
  assert.equal(sha256(await soon(there, '12 MB to the target', 50_000)), sha256(sent))
  assert.equal(sha256(await soon(here, '12 MB back', 50_000)), sha256(sent))
})

test('half-close goes through a channel both ways, and so does a reset', LIMIT, async () => {
  await using target = await program()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })

  const near = await dialProgram(joiner.bound())
  const far = await target.accepted()
  near.end('question')
  assert.equal(String(await readAll(far)), 'question')
  far.write('ans')
  far.end('wer')
  assert.equal(String(await readAll(near)), 'answer')

  for (const way of ['near', 'far'] as const) {
    const here = await dialProgram(joiner.bound())
    const there = await target.accepted()
    here.write('x')
    await once(there, 'data')
    const [mine, other] = way === 'near' ? [here, there] : [there, here]
    const told = ending(other)
    reset(mine)
    assert.equal(await soon(told, `the reset of the ${way} side`), 'reset')
  }
})

test('nothing behind the target, and nobody behind the name, is told at the joiner', LIMIT, async () => {
  const gone = await echo()
  const { endpoint } = gone
  await gone[Symbol.asyncDispose]()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: endpoint }] })
  const joiner = await stage.node('joiner', {
    listeners: [
      { Listen: ANY_TCP, Forward: named('channel', 'ssh') },
      { Listen: ANY_TCP, Forward: named('channel', 'other') },
    ],
  })
  const first = await dialProgram(joiner.bound(0))
  assert.equal(await soon(ending(first), 'the end'), 'reset')
  const refused = await joiner.event('refused')
  assert.equal(refused.reason.code, 'PROXY_ERR_DIAL_FAILED')
  // Where it leads to is told where it is known already.
  assert.ok(!refused.reason.message.includes('127.0.0.1'))
  const there = await offerer.event('refused')
  assert.deepEqual([there.by, there.inside], ['here', { Domain: 'channel', Addr: 'ssh' }])
  assert.ok(there.reason.message.includes(endpoint.Addr))
  assert.match(refused.request, /^channel:\/\/ssh/)
  assert.deepEqual([refused.by, refused.inside], ['peer', { Domain: 'channel', Addr: 'ssh' }])

  const second = await dialProgram(joiner.bound(1))
  await soon(ending(second), 'the end')
  const unserved = await joiner.event('unserved')
  assert.equal(unserved.reason.code, 'PROXY_ERR_NO_CHANNEL')
  assert.match(unserved.reason.message, /^no node offers channel other$/)
})

test('nobody looking for a channel that is not there uses up its tries', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  for (let number = 0; number < 12; number++) await ending(await dialProgram(joiner.bound()))
  assert.ok(joiner.told('unserved').every(({ reason }) => reason.code === 'PROXY_ERR_NO_CHANNEL'))
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  assert.equal(await roundTrip(joiner.bound(), 'now'), 'now')
})

test('another password is told at both ends, in one line; the right one comes in at the same time', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh', 'correct horse'), Forward: target.endpoint }],
  })
  const joiner = await stage.node('joiner', {
    listeners: [
      { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'wrong battery') },
      { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'correct horse') },
    ],
  })
  await soon(ending(await dialProgram(joiner.bound(0))), 'the end')
  const words = 'the password of channel ssh is another one there'
  const there = await offerer.event('channel-failed')
  assert.deepEqual([there.reason.code, there.reason.message], ['PROXY_ERR_CHANNEL_PASSWORD', words])
  const here = await joiner.event('unserved')
  assert.deepEqual([here.reason.code, here.reason.message], ['PROXY_ERR_CHANNEL_PASSWORD', words])
  assert.equal(await roundTrip(joiner.bound(1), 'hello'), 'hello')
  const all = JSON.stringify(
    [...offerer.events, ...joiner.events].map((event) => ({ ...event, peer: undefined, at: undefined })),
  )
  assert.ok(!/horse|battery/.test(all))
})

test(
  'after three wrong passwords in a minute a joiner waits, and after ten from anywhere the offering node',
  LIMIT,
  async () => {
    await using target = await echo()
    await using stage = await channelStage()
    let relayed = 0
    stage.meddle = (far) => {
      relayed++
      return far
    }
    const offerer = await stage.node('offerer', {
      offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
    })
    const guesser = await stage.node('guesser', {
      listeners: [
        { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'wrong') },
        { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'wrong, too') },
        { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'and this') },
        { Listen: ANY_TCP, Forward: named('channel', 'ssh', 'and that') },
      ],
    })
    for (let guess = 0; guess < 4; guess++) await ending(await dialProgram(guesser.bound(0)))
    assert.deepEqual(
      guesser.told('unserved').map(({ reason }) => reason.code),
      [...Array.from({ length: 3 }, () => 'PROXY_ERR_CHANNEL_PASSWORD'), 'PROXY_ERR_CHANNEL_LIMIT'],
    )
    assert.equal(relayed, 3)
    for (const guess of [1, 1, 1, 2, 2, 2, 3]) await ending(await dialProgram(guesser.bound(guess)))
    assert.equal(offerer.told('channel-failed').length, 10)
    await ending(await dialProgram(guesser.bound(3)))
    assert.equal(guesser.told('unserved').at(-1)?.reason.code, 'PROXY_ERR_CHANNEL_LIMIT')
    assert.equal(offerer.told('channel-failed').at(-1)?.reason.code, 'PROXY_ERR_CHANNEL_LIMIT')
    // It offers again over a new main connection, and remembers.
    const before = offerer.told('listener-ready').length
    for (const { proxy } of [...stage.server.nodes]) if (proxy.main.peer.label === 'offerer') proxy.close()
    await offerer.event('listener-ready', () => offerer.told('listener-ready').length > before)
    await ending(await dialProgram(guesser.bound(1)))
    assert.equal(guesser.told('unserved').at(-1)?.reason.code, 'PROXY_ERR_CHANNEL_LIMIT')
  },
)

test('without a password it works the same, and both ends say who can read it', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'open', ''), Forward: target.endpoint }],
  })
  const joiner = await stage.node('joiner', {
    listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'open', '') }],
  })
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
  assert.equal((await offerer.event('channel-readable')).as, 'offerer')
  assert.equal((await joiner.event('channel-readable')).as, 'joiner')
  assert.equal(joiner.told('channel-readable').length, 1)
})

test('an endpoint that has lost its password opens nothing, and offers nothing', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const lost = { Domain: 'channel', Addr: 'ssh' }
  const node = await stage.node('node', {
    offers: [{ Listen: lost, Forward: target.endpoint }],
    listeners: [{ Listen: ANY_TCP, Forward: { ...lost } }],
  })
  assert.equal((await node.event('listener-failed')).reason.code, 'PROXY_ERR_ENDPOINT')
  await ending(await dialProgram(node.bound()))
  assert.equal((await node.event('unserved')).reason.code, 'PROXY_ERR_ENDPOINT')
  assert.deepEqual([...stage.channels.names], [])
})

test('a name has one node; another one asks again, is told once, and gets it when the first goes', LIMIT, async (t) => {
  await using one = await program((socket) => socket.end('one'))
  await using two = await program((socket) => socket.end('two'))
  await using stage = await channelStage()
  const first = await stage.node('first', { offers: [{ Listen: named('channel', 'ssh'), Forward: one.endpoint }] })
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const second = await stage.node('second', { offers: [{ Listen: named('channel', 'ssh'), Forward: two.endpoint }] })
  const failed = await second.event('listener-failed')
  assert.equal(failed.reason.code, 'PROXY_ERR_CHANNEL_TAKEN')
  assert.match(failed.reason.message, /^channel ssh is offered already$/)
  const refused = second.told('refused').length
  t.mock.timers.tick(5000)
  await second.event('refused', () => second.told('refused').length > refused)
  assert.equal(second.told('listener-failed').length, 1)
  t.mock.timers.reset()
  await first[Symbol.asyncDispose]()
  // The timer of the next try was a mocked one: another main connection asks anew.
  for (const { proxy } of [...stage.server.nodes]) proxy.close()
  await second.event('listener-ready')
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  assert.equal(String(await readAll(await dialProgram(joiner.bound()))), 'two')
})

test('a name goes to the node that it is granted to, out of the hands of whoever has it', LIMIT, async (t) => {
  const folder = await stateFolderOf(t)
  const identities = await Identities.open(folder, { serverKey: async () => Buffer.alloc(32) })
  const names = await ChannelNames.open(folder, { identities })
  t.after(() => names[Symbol.asyncDispose]())
  await using target = await echo()
  await using stage = await channelStage({ identities, policyFor: (main) => names.policyFor(main, allowAll) })
  const offers = [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }]
  const identity = generateKeyPairSync('ed25519').privateKey
  const squatter = await stage.node('squatter', { offers, options: { identity } })
  assert.equal(squatter.told('listener-ready').length, 1)
  await identities.add({ id: 'office', secret: 'of office', grants: { channels: ['ssh'] } })
  const denied = await squatter.event('listener-failed')
  assert.equal(denied.reason.message, 'channel ssh is granted to another node')
  assert.equal(squatter.told('disconnected')[0]?.reason.code, 'PROXY_ERR_LISTEN_DENIED')
  const office = await stage.node('office', { offers, options: { name: 'office', secret: 'of office' } })
  assert.equal(office.told('listener-ready').length, 1)
})

test('an offering node that is restarted is found again at the next connection', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offers = [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }]
  const first = await stage.node('offerer', { offers })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const socket = await dialProgram(joiner.bound())
  socket.write('x')
  await once(socket, 'data')
  const over = ending(socket)
  await first[Symbol.asyncDispose]()
  assert.equal(await soon(over, 'what was open'), 'reset')
  await stage.node('offerer', { offers })
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
})

test('main connections that are cut and go on lose nothing of what is in a channel', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  const sent = pattern(8 * 1024 * 1024)
  const socket = await dialProgram(joiner.bound())
  const answer = readAll(socket)
  for (let at = 0; at < sent.length; at += sent.length / 8) {
    socket.write(sent.subarray(at, at + sent.length / 8))
    const node = (at / (sent.length / 8)) % 2 === 0 ? offerer : joiner
    const resumed = node.told('resumed').length
    node.cut()
    await node.event('resumed', () => node.told('resumed').length > resumed)
  }
  socket.end()
  assert.equal(sha256(await soon(answer, 'all of it', 15_000)), sha256(sent))
  assert.ok(joiner.told('resumed').length >= 4 && offerer.told('resumed').length >= 4)
})

test('UDP channels keep the borders of datagrams, and tell visitors apart', LIMIT, async () => {
  await using target = await datagramEcho()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'dns'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_UDP, Forward: named('channel', 'dns') }] })
  await using one = await visitor(joiner.bound())
  await using two = await visitor(joiner.bound())
  one.send('warm up')
  assert.equal(await one.text(), 'warm up')
  for (const size of [0, 1, 508, 9000, 60_000]) {
    const data = Buffer.alloc(size, size % 251)
    one.send(data)
    two.send('two')
    assert.ok(data.equals(await one.next(`${size} bytes`)))
    assert.equal(await two.text(), 'two')
  }
})

test('a channel of datagrams and one of bytes do not fit, which is said', LIMIT, async () => {
  await using bytes = await echo()
  await using datagrams = await datagramEcho()
  await using stage = await channelStage()
  await stage.node('offerer', {
    offers: [
      { Listen: named('channel', 'bytes'), Forward: bytes.endpoint },
      { Listen: named('channel', 'datagrams'), Forward: datagrams.endpoint },
    ],
  })
  const joiner = await stage.node('joiner', {
    listeners: [
      { Listen: ANY_TCP, Forward: named('channel', 'datagrams') },
      { Listen: ANY_UDP, Forward: named('channel', 'bytes') },
    ],
  })
  assert.equal(await soon(ending(await dialProgram(joiner.bound(0))), 'the end'), 'reset')
  const first = await joiner.event('refused')
  assert.equal(first.reason.code, 'PROXY_ERR_CHANNEL_KIND')
  assert.equal(first.reason.message, 'channel datagrams carries datagrams, and not a stream of bytes')
  await using user = await visitor(joiner.bound(1))
  user.send('x')
  const second = await joiner.event('refused', ({ request }) => request.includes('bytes'))
  assert.equal(second.reason.message, 'channel bytes carries a stream of bytes, and not datagrams')
})

test('a channel that nobody uses is closed after a while, and opened again when it is needed', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  let relayed = 0
  let closed = 0
  stage.meddle = (far) => {
    relayed++
    far.once('close', () => closed++)
    return far
  }
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }] })
  const joiner = await stage.node('joiner', {
    listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }],
    relay: { idle: 60 },
  })
  const socket = await dialProgram(joiner.bound())
  socket.write('x')
  await once(socket, 'data')
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(closed, 0)
  socket.destroy()
  await eventually(() => closed === 1, 'it stays open')
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
  assert.equal(relayed, 2)
})

test(
  'a node, or the server, that drains lets what is open in a channel finish, and does not wait for the channel',
  LIMIT,
  async () => {
    for (const who of ['offerer', 'joiner', 'server'] as const) {
      await using target = await program()
      await using stage = await channelStage()
      const offerer = await stage.node('offerer', {
        offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
      })
      const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
      const near = await dialProgram(joiner.bound())
      near.write('x')
      const far = await target.accepted()
      await once(far, 'data')
      const drained = { offerer: offerer.node, joiner: joiner.node, server: stage.server }[who].drain()
      // Well after it has begun.
      await new Promise((resolve) => setTimeout(resolve, 50))
      near.end('question')
      assert.equal(String(await soon(readAll(far), `${who}: the question`)), 'question')
      far.end('answer')
      assert.equal(String(await soon(readAll(near), `${who}: the answer`)), 'answer')
      await soon(drained, `${who} has drained`, 8000)
    }
  },
)

test('a password is nowhere to be seen in what is kept and told', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const joiner = await stage.node('joiner', {
    listeners: [
      { Listen: ANY_TCP, Forward: { Domain: 'channel', Addr: 'ssh', ...{ Password: new Hidden('s3cr3t') } } },
    ],
    offers: [{ Listen: named('channel', 'ssh', 's3cr3t'), Forward: target.endpoint }],
  })
  await roundTrip(joiner.bound(), 'x')
  assert.ok(!JSON.stringify(joiner.node.mappings.status()).includes('s3cr3t'))
})

test('another password holds for what comes next, and the listener stays', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  await stage.node('offerer', { offers: [{ Listen: named('channel', 'ssh', 'new'), Forward: target.endpoint }] })
  const spec = (password: string): Spec => ({ Listen: ANY_TCP, Forward: named('channel', 'ssh', password) })
  const joiner = await stage.node('joiner', { listeners: [spec('old')] })
  const bound = joiner.bound()
  await ending(await dialProgram(bound))
  assert.equal((await joiner.event('unserved')).reason.code, 'PROXY_ERR_CHANNEL_PASSWORD')
  await joiner.node.mappings.setCommandLine([spec('new')])
  assert.deepEqual(joiner.bound(), bound)
  assert.equal(await roundTrip(bound, 'hello'), 'hello')
})

test('whoever looks for a channel, and goes without a word, has made no try and is no news', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const offerer = await stage.node('offerer', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
  })
  const looker = await stage.node('looker')
  for (let look = 0; look < 20; look++) {
    const sub = await looker.node.server?.proxy.dial({ Domain: 'channel', Addr: 'ssh' })
    assert.ok(sub)
    const over = new Promise((resolve) => sub.once('close', resolve))
    sub.resume()
    if (look % 2 === 0) sub.end()
    else sub.destroy()
    await over
  }
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
  assert.deepEqual(offerer.told('channel-failed'), [])
})

test('a node that was cut off for good is asked for its channel no longer than it holds the name', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const identity = generateKeyPairSync('ed25519').privateKey
  const offers = [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }]
  const dead = await stage.node('offerer', { offers, options: { identity } })
  // As one that is killed: its server still waits for it.
  dead.stun()
  const born = await stage.node('offerer', { offers, options: { identity } })
  assert.deepEqual(born.told('listener-failed'), [])
  const joiner = await stage.node('joiner', { listeners: [{ Listen: ANY_TCP, Forward: named('channel', 'ssh') }] })
  assert.equal(await roundTrip(joiner.bound(), 'hello'), 'hello')
})
