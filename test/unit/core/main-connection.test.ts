import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import test from 'node:test'
import { Acceptor, connect } from '../../../lib/core/connect.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import { decodeReason, Frame } from '../../../lib/core/frame.ts'
import { rawPublicKey } from '../../../lib/core/noise.ts'
import { createProxyPair, memoryPair } from '../../../lib/testing.ts'
import { frame, openPayload, u32, u64 } from '../../helpers/core/bytes.ts'
import { echo } from '../../helpers/core/echo-domain.ts'
import { PSK, type RawFrame, type RawPeer, rawPeer, rawSession } from '../../helpers/core/raw-peer.ts'

const ROLES = ['dialler', 'acceptor'] as const
const FALLBACK = new ProxyError('PROXY_ERR_RESET', 'no reason')

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

async function turns(count = 10): Promise<void> {
  for (let index = 0; index < count; index++) await turn()
}

/** The session lives, and has no link. */
function assertWaiting({ main, proxy }: RawPeer): void {
  assert.equal(main.reason, undefined)
  assert.equal(main.linked, false)
  assert.equal(main.congested, true)
  assert.equal(proxy.state, 'resuming')
}

const reasonOf = ({ payload }: RawFrame): ProxyError => decodeReason(payload, FALLBACK)

/** A counted record that changes nothing: a listener that does not exist is unlistened. */
const harmless = (payloadLength = 0): Buffer => frame(Frame.unlisten, 77, Buffer.alloc(payloadLength))

/** Makes the real side send one counted record, and waits until it has come. */
async function sendCounted(raw: RawPeer): Promise<void> {
  raw.main.control(Frame.unlisten, 77)
  await raw.next(Frame.unlisten)
}

// --- a whole session ---

test('a whole session works when every read of the link is 1 byte', async () => {
  await using pair = await createProxyPair({ fragment: 1, a: { domains: [echo] }, b: { domains: [echo] } })
  for (const side of [pair.a, pair.b]) {
    const bytes = randomBytes(5000)
    const sub = await side.dial({ Domain: 'echo', Addr: 'x' })
    sub.end(bytes)
    assert.ok((await buffer(sub)).equals(bytes))
    await assert.rejects(side.dial({ Domain: 'echo', Addr: 'nowhere' }), { code: 'PROXY_ERR_DIAL_FAILED' })
    await assert.rejects(side.accept({ Domain: 'none', Addr: '' }), { code: 'PROXY_ERR_UNKNOWN_DOMAIN' })
  }
  pair.a.main.close(new ProxyError('PROXY_ERR_X', 'the end'))
  assert.equal((await pair.b.main.closed).code, 'PROXY_ERR_X')
})

test('a large record passes when every read of the link is a few bytes', async () => {
  await using pair = await createProxyPair({ fragment: 4093, b: { domains: [echo] } })
  const bytes = randomBytes(2_000_000)
  const sub = await pair.a.dial({ Domain: 'echo', Addr: 'x' })
  sub.end(bytes)
  assert.ok((await buffer(sub)).equals(bytes))
})

test('a main connection carries one Proxy', async () => {
  await using raw = await rawPeer('dialler')
  assert.throws(
    () => raw.main.attach({ onFrame: () => true, onWritable() {}, onPaused() {}, onResumed() {}, onClosed() {} }),
    TypeError,
  )
})

// --- records and acknowledgements ---

test('the frames of one turn leave as one record', async () => {
  await using raw = await rawPeer('dialler')
  const before = raw.records.length
  for (let id = 0; id < 3; id++) raw.main.control(Frame.unlisten, id)
  for (let id = 0; id < 3; id++) await raw.next(Frame.unlisten, id)
  assert.equal(raw.records.length - before, 1)
})

test('several frames wait for those of a few more turns, and no longer', async () => {
  await using raw = await rawPeer('dialler')
  let id = 0
  const say = (count: number): void => {
    for (let n = 0; n < count; n++) raw.main.control(Frame.unlisten, id++)
  }
  /** How many records the real side has sent for the frames so far. */
  const records = async (before: number): Promise<number> => {
    await raw.next(Frame.unlisten, id - 1)
    return raw.records.length - before
  }
  const first = raw.records.length
  say(2)
  await turn()
  say(1)
  await turn()
  say(1)
  assert.equal(await records(first), 1)

  // One alone is gone when the next one comes.
  const second = raw.records.length
  say(1)
  await turn()
  say(1)
  assert.equal(await records(second), 2)

  // However many turns bring more, none waits for all of them.
  const third = raw.records.length
  for (let n = 0; n < 30; n++) {
    say(2)
    await turn()
  }
  const many = await records(third)
  assert.ok(many >= 5, `${many} records`)
})

test('a record is acknowledged after 100 ms, and not before', async (t) => {
  await using raw = await rawPeer('dialler')
  t.mock.timers.enable({ apis: ['setTimeout'] })
  raw.send(harmless())
  raw.send(harmless(), harmless())
  await turns()
  t.mock.timers.tick(99)
  await turns()
  assert.deepEqual(
    raw.frames.filter(({ type }) => type === Frame.ack),
    [],
  )
  t.mock.timers.tick(1)
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 2n)
  raw.send(harmless())
  await turns()
  t.mock.timers.tick(100)
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 3n)
  t.mock.timers.reset()
})

test('512 KiB of records is acknowledged at once', async (t) => {
  await using raw = await rawPeer('dialler')
  t.mock.timers.enable({ apis: ['setTimeout'] })
  // With its headers and the tag a little more than a third.
  const third = Buffer.concat(Array.from({ length: 22 }, () => harmless(8192)))
  raw.send(third)
  raw.send(third)
  await turns(50)
  assert.ok(!raw.frames.some(({ type }) => type === Frame.ack), 'this is less')
  raw.send(third)
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 3n)
  t.mock.timers.reset()
})

test('what comes behind an acknowledgement is acknowledged within 100 ms as well', async (t) => {
  await using raw = await rawPeer('dialler')
  t.mock.timers.enable({ apis: ['setTimeout'] })
  raw.send(harmless())
  for (let count = 0; count < 2; count++) raw.send(Buffer.concat(Array.from({ length: 32 }, () => harmless(8192))))
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 3n)
  raw.send(harmless())
  await turns()
  t.mock.timers.tick(100)
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 4n)
  t.mock.timers.tick(1000)
  await turns()
  assert.equal(raw.frames.filter(({ type }) => type === Frame.ack).length, 2, 'nothing new, nothing said')
  t.mock.timers.reset()
})

test('ack, ping and pong are not counted', async () => {
  await using raw = await rawPeer('dialler')
  raw.send(frame(Frame.ping, 0, u64(1)))
  raw.send(frame(Frame.pong, 0, u64(1)))
  raw.ack(0)
  raw.send(harmless())
  assert.equal((await raw.next(Frame.ack)).payload.readBigUInt64BE(), 1n)
})

test('what was acknowledged may be acknowledged again, in any steps', async () => {
  await using raw = await rawPeer('dialler')
  assert.equal(raw.main.acknowledged, false)
  for (let count = 0; count < 3; count++) await sendCounted(raw)
  for (const number of [0, 1, 1, 3, 3]) raw.ack(number)
  await sendCounted(raw)
  assert.equal(raw.main.reason, undefined)
  assert.equal(raw.main.acknowledged, true)
})

test('an acknowledgement beyond what was sent, or below what was acknowledged, ends the session', async () => {
  for (const numbers of [[1], [4], [2, 1], [3, 0], [2 ** 53 - 1]]) {
    await using raw = await rawPeer('dialler')
    if (numbers[0] !== 1) for (let count = 0; count < 3; count++) await sendCounted(raw)
    for (const number of numbers) raw.ack(number)
    assert.equal((await raw.ended).code, 'PROXY_ERR_ACK_RANGE', `${numbers}`)
    assert.equal(reasonOf(await raw.next(Frame.goaway)).code, 'PROXY_ERR_ACK_RANGE')
  }
})

test('no more than 32 MiB are kept: then sending waits for an acknowledgement, and a pong does not', async () => {
  await using raw = await rawPeer('acceptor')
  const opened = raw.proxy.dial({ Domain: 'x', Addr: '' })
  const { id } = await raw.next(Frame.open)
  raw.send(frame(Frame.opened, id, u32(0xffff_ffff)))
  const sub = await opened
  const total = 40 * 1024 * 1024
  let got = 0
  sub.end(Buffer.alloc(total))
  const limit = 32 * 1024 * 1024
  while (got < limit - 1024 * 1024) got += (await raw.next(Frame.data)).payload.length
  await turns(50)
  raw.send(frame(Frame.ping, 0, u64(7)))
  await raw.next(Frame.pong)
  const sent = (): number =>
    raw.frames.reduce((sum, { type, payload }) => (type === Frame.data ? sum + payload.length : sum), 0)
  assert.ok(sent() <= limit + 512 * 1024, `${sent()}`)
  assert.ok(!raw.frames.some(({ type }) => type === Frame.fin))
  raw.ack()
  await raw.next(Frame.fin)
  assert.equal(sent(), total)
})

test('a peer that does not read cannot make control frames pile up without end', async () => {
  await using raw = await rawPeer('dialler', { capacity: 1000 })
  raw.pause()
  const payload = Buffer.alloc(8000)
  for (let count = 0; count < 1000 && !raw.main.reason; count++) {
    raw.main.control(Frame.unlisten, 77, payload)
    if (count % 50 === 0) await turn()
  }
  assert.equal(raw.main.reason?.code, 'PROXY_ERR_CONTROL_FLOOD')
})

test('a peer that asks for much and reads nothing is told to go', async () => {
  await using raw = await rawPeer('dialler', { capacity: 1000 })
  raw.pause()
  const listen = JSON.stringify({ Listen: { Domain: 'none', Addr: 'x' } })
  for (let id = 1; id < 80_000 && !raw.main.reason; id += 7000) {
    raw.send(...Array.from({ length: 7000 }, (_, index) => frame(Frame.listen, id + index, listen)))
    await turns(3)
  }
  assert.equal(raw.main.reason?.code, 'PROXY_ERR_CONTROL_FLOOD')
})

// --- ping, pong, keepalive ---

test('a pong echoes the 8 bytes of a ping; of several that wait, the last', async () => {
  await using raw = await rawPeer('dialler')
  raw.send(frame(Frame.ping, 0, 'abcdefgh'))
  assert.equal((await raw.next(Frame.pong)).payload.toString(), 'abcdefgh')
  raw.send(frame(Frame.ping, 0, u64(1)), frame(Frame.ping, 0, u64(2)), frame(Frame.ping, 0, u64(3)))
  assert.equal((await raw.next(Frame.pong)).payload.readBigUInt64BE(), 3n)
  await turns()
  assert.equal(raw.frames.filter(({ type }) => type === Frame.pong).length, 2)
})

test('a pong that matches nothing is ignored; the right one gives the round trip', async () => {
  await using raw = await rawPeer('acceptor')
  // The greeting was the first measurement.
  const first = raw.main.rtt
  assert.ok(first !== undefined && first > 0)
  raw.main.measure()
  raw.main.measure()
  const ping = await raw.next(Frame.ping)
  for (const payload of [u64(0), Buffer.alloc(0), Buffer.alloc(9)]) raw.send(frame(Frame.pong, 0, payload))
  await sendCounted(raw)
  assert.equal(raw.main.rtt, first)
  raw.send(frame(Frame.pong, 0, ping.payload))
  await turns()
  assert.ok(raw.main.rtt !== undefined && raw.main.rtt > 0 && raw.main.rtt !== first)
  assert.equal(raw.frames.filter(({ type }) => type === Frame.ping).length, 1)
})

test('a peer that is silent gets a ping, and its link is given up when it does not answer', async () => {
  await using raw = await rawPeer('dialler', { main: { keepalive: { idle: 20, timeout: 20 } } })
  await raw.next(Frame.ping)
  assert.equal(raw.main.linked, true)
  const error = await raw.lost
  assert.equal(error.code, 'PROXY_ERR_KEEPALIVE')
  assert.equal(error.retryable, true)
  assertWaiting(raw)
  await raw.over()
  assert.ok(!raw.frames.some(({ type }) => type === Frame.goaway), 'nobody is there to be told')
})

test('a peer that answers pings stays, and needs to say nothing else', async () => {
  await using raw = await rawPeer('dialler', { main: { keepalive: { idle: 20, timeout: 20 } } })
  for (let count = 0; count < 4; count++) {
    const { payload } = await raw.next(Frame.ping)
    raw.send(frame(Frame.pong, 0, payload))
  }
  await turns()
  assert.equal(raw.main.reason, undefined)
  assert.equal(raw.main.linked, true)
})

// --- the end ---

for (const role of ROLES) {
  test(`the reason of a goaway reaches the other side (raw ${role})`, async () => {
    await using raw = await rawPeer(role)
    raw.main.close(new ProxyError('PROXY_ERR_X', 'because'))
    const goaway = await raw.next(Frame.goaway)
    assert.equal(goaway.id, 0)
    assert.equal(goaway.payload.toString('latin1'), '\x0bPROXY_ERR_Xbecause')
    assert.equal((await raw.ended).code, 'PROXY_ERR_X')
    await raw.over()
  })

  test(`the reason of a goaway is taken from the other side (raw ${role})`, async () => {
    await using raw = await rawPeer(role)
    raw.send(frame(Frame.goaway, 0, '\x0bPROXY_ERR_Xbecause'), frame(0xee, 1), frame(Frame.goaway, 0, '\0'))
    const reason = await raw.ended
    assert.deepEqual([reason.code, reason.message], ['PROXY_ERR_X', 'because'])
    await raw.over()
    assert.ok(!raw.frames.some(({ type }) => type === Frame.goaway), 'it is not answered')
  })
}

test('a goaway without a reason, or with nonsense for one, is a plain close', async () => {
  for (const payload of ['', '\0', '\xffnonsense', 'x'.repeat(8192)]) {
    await using raw = await rawPeer('dialler')
    raw.send(frame(Frame.goaway, 0, payload))
    assert.equal((await raw.ended).code, 'PROXY_ERR_CLOSED')
  }
})

test('a goaway is sent also when the peer has stopped reading', async () => {
  for (const waiting of [0, 100_000]) {
    await using raw = await rawPeer('dialler', { capacity: 1000 })
    raw.pause()
    // The first read is taken all the same; the second stays in the link, which is full then.
    for (let count = 0; count < 2; count++) {
      raw.main.control(Frame.unlisten, 77, Buffer.alloc(8000))
      await turns()
    }
    assert.ok(raw.main.congested)
    // More than one record holds, so that some of it waits for the link.
    for (let bytes = 0; bytes < waiting; bytes += 8000) raw.main.control(Frame.unlisten, 77, Buffer.alloc(8000))
    raw.main.close(new ProxyError('PROXY_ERR_X', 'because'))
    raw.resume()
    assert.equal(reasonOf(await raw.next(Frame.goaway)).code, 'PROXY_ERR_X', `${waiting} bytes waited`)
  }
})

for (const how of ['fin', 'rst'] as const) {
  test(`a session that is not to be resumed ends with its link, and can be tried again (${how})`, async () => {
    const raw = await rawPeer('dialler', { main: { resumeTimeout: 0 } })
    raw.links.cut(how)
    assertSessionLost(await raw.ended)
    assert.equal(raw.proxy.state, 'closed')
    await using pair = await createProxyPair({ a: { resumeTimeout: 0 }, b: { resumeTimeout: 0 } })
    pair.cut(how)
    for (const { main } of [pair.a, pair.b]) assertSessionLost(await main.closed)
  })

  test(`a session waits \`resumeTimeout\` for another link, and no longer (${how})`, async (t) => {
    for (const role of ROLES) {
      t.mock.timers.enable({ apis: ['setTimeout'] })
      await using raw = await rawPeer(role)
      raw.links.cut(how)
      assert.equal((await raw.lost).code, 'PROXY_ERR_LINK_LOST')
      assertWaiting(raw)
      t.mock.timers.tick(119_999)
      await turns()
      assertWaiting(raw)
      t.mock.timers.tick(1)
      assertSessionLost(await raw.ended)
      assert.equal(raw.proxy.state, 'closed')
      t.mock.timers.reset()
    }
  })
}

function assertSessionLost(reason: ProxyError): void {
  assert.equal(reason.code, 'PROXY_ERR_SESSION_LOST')
  assert.equal(reason.retryable, true)
  assert.ok(reason.cause instanceof ProxyError)
  assert.equal(reason.cause.code, 'PROXY_ERR_LINK_LOST')
}

test('a session that ends while it waits for a link is over at once', async () => {
  await using raw = await rawPeer('dialler')
  raw.links.cut('fin')
  await raw.lost
  raw.main.close(new ProxyError('PROXY_ERR_X', 'because'))
  assert.equal((await raw.ended).code, 'PROXY_ERR_X')
  assert.equal(raw.proxy.state, 'closed')
})

test('a link that was lost before there was a Proxy is told to it, and harms nobody meanwhile', async () => {
  for (const role of ROLES) {
    const links = memoryPair()
    const acceptor = new Acceptor({ pskFor: async () => PSK })
    const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
    const [{ main: accepted }, dialled] = await Promise.all([
      acceptor.accept(links.b),
      connect(async () => links.a, { secret }),
    ])
    const [main, other] = role === 'dialler' ? [dialled, accepted] : [accepted, dialled]
    links.cut('rst')
    await turns()
    main.control(Frame.unlisten, 77)
    await turns()
    const paused = new Promise<ProxyError>((resolve) => {
      main.attach({ onFrame: () => true, onWritable() {}, onPaused: resolve, onResumed() {}, onClosed() {} })
    })
    assert.equal((await paused).code, 'PROXY_ERR_LINK_LOST')
    for (const end of [main, other]) end.close()
    for (const end of [main, other]) assert.equal((await end.closed).code, 'PROXY_ERR_CLOSED')
  }
})

test('after the end nothing is sent, and closing again changes nothing', async () => {
  await using raw = await rawPeer('dialler')
  raw.main.close(new ProxyError('PROXY_ERR_X', 'first'))
  raw.main.close(new ProxyError('PROXY_ERR_Y', 'second'))
  raw.main.control(Frame.unlisten, 1)
  raw.main.measure()
  await raw.over()
  assert.deepEqual(
    raw.frames.slice(1).map(({ type }) => type),
    [Frame.goaway],
  )
  assert.equal((await raw.ended).code, 'PROXY_ERR_X')
})

// --- identity ---

const { privateKey: identity } = generateKeyPairSync('ed25519')

test('a node key and a label are told, and the key is proven, both ways', async () => {
  const other = generateKeyPairSync('ed25519').privateKey
  await using pair = await createProxyPair({
    a: { identity, label: 'node one' },
    b: { identity: other, label: 'the\x1bserver' },
  })
  assert.equal(pair.b.main.peer.label, 'node one')
  assert.deepEqual(pair.b.main.peer.key, rawPublicKey(identity))
  assert.equal(pair.a.main.peer.label, 'the?server')
  assert.deepEqual(pair.a.main.peer.key, rawPublicKey(other))
})

test('without a node key there is none', async () => {
  await using raw = await rawPeer('dialler')
  assert.equal(raw.main.peer.key, undefined)
  assert.equal(raw.main.peer.label, '')
})

/** A hello with a node key; `signed` is what its signature is over. */
function helloWithKey(key: KeyObject, signed: Buffer, by: KeyObject = key): Buffer {
  const value = Buffer.concat([rawPublicKey(key), sign(null, signed, by)])
  return Buffer.concat([u64(0), Buffer.from([2, 0, 96]), value])
}

const NEUTRAL = Buffer.from(`01${'00'.repeat(31)}`, 'hex')
const proven = (role: string, hash: Buffer): Buffer => Buffer.concat([Buffer.from(`symport node key, ${role}\0`), hash])

for (const role of ROLES) {
  const other = role === 'dialler' ? 'acceptor' : 'dialler'

  test(`a signature over the hash of this handshake is taken from a ${role}`, async () => {
    await using session = await rawSession(role)
    if (role === 'acceptor') await session.next(Frame.hello)
    session.sendHello(helloWithKey(identity, proven(role, session.hash)))
    const main = await session.real
    assert.deepEqual(main.peer.key, rawPublicKey(identity))
    main.close()
  })

  const forged: [string, (hash: Buffer) => Buffer][] = [
    ['of another key', (hash) => helloWithKey(identity, proven(role, hash), generateKeyPairSync('ed25519').privateKey)],
    ['of another handshake', () => helloWithKey(identity, proven(role, randomBytes(32)))],
    ['of the other side', (hash) => helloWithKey(identity, proven(other, hash))],
    ['over the bare hash', (hash) => helloWithKey(identity, hash)],
    ['of zeros', () => Buffer.concat([u64(0), Buffer.from([2, 0, 96]), rawPublicKey(identity), Buffer.alloc(64)])],
    // The neutral element: as a key, and with it as the signature's first half, it would fit every message there is.
    [
      'that fits everything',
      () => Buffer.concat([u64(0), Buffer.from([2, 0, 96]), NEUTRAL, NEUTRAL, Buffer.alloc(32)]),
    ],
    ['of bytes that are no key', () => Buffer.concat([u64(0), Buffer.from([2, 0, 96]), Buffer.alloc(96, 0xff)])],
  ]
  for (const [what, hello] of forged) {
    test(`a signature ${what} is refused (raw ${role})`, async () => {
      await using session = await rawSession(role)
      session.sendHello(hello(session.hash))
      await assert.rejects(session.real, { name: 'ProxyError', code: 'PROXY_ERR_IDENTITY' })
    })
  }
}

// --- rules of records ---

for (const role of ROLES) {
  const first: [string, Buffer, string][] = [
    ['ack', frame(Frame.ack, 0, u64(0)), 'PROXY_ERR_FRAME'],
    ['ping', frame(Frame.ping, 0, u64(0)), 'PROXY_ERR_FRAME'],
    ['open', frame(Frame.open, 1, openPayload(1, { to: { Domain: 'x', Addr: '' } })), 'PROXY_ERR_FRAME'],
    ['a hello that is too short', frame(Frame.hello, 0, Buffer.alloc(7)), 'PROXY_ERR_FRAME'],
    ['a hello of a session that is not new', frame(Frame.hello, 0, u64(1)), 'PROXY_ERR_ACK_RANGE'],
    [
      'a hello and more',
      Buffer.concat([frame(Frame.hello, 0, u64(0)), frame(Frame.ping, 0, u64(0))]),
      'PROXY_ERR_FRAME',
    ],
    ['two hellos', Buffer.concat([frame(Frame.hello, 0, u64(0)), frame(Frame.hello, 0, u64(0))]), 'PROXY_ERR_FRAME'],
    ['half a frame', Buffer.from([0]), 'PROXY_ERR_FRAME'],
  ]
  for (const [what, record, code] of first) {
    test(`a first record of ${what} is refused (raw ${role})`, async () => {
      await using session = await rawSession(role)
      session.sendRecord(record)
      await assert.rejects(session.real, { name: 'ProxyError', code })
    })
  }
}

test('a dialler is told why its hello was not taken', async () => {
  await using session = await rawSession('acceptor')
  session.send(frame(Frame.goaway, 0, '\x12PROXY_ERR_IDENTITYa signature'))
  await assert.rejects(session.real, { code: 'PROXY_ERR_IDENTITY', message: 'a signature' })
})

test('an acceptor takes no goaway before the hello', async () => {
  await using session = await rawSession('dialler')
  session.send(frame(Frame.goaway, 0, '\x12PROXY_ERR_IDENTITYa signature'))
  await assert.rejects(session.real, { code: 'PROXY_ERR_FRAME' })
})

const ack = frame(Frame.ack, 0, u64(0))
const ping = frame(Frame.ping, 0, u64(0))
const VIOLATIONS: [string, Buffer][] = [
  ['a second hello', frame(Frame.hello, 0, u64(0))],
  ['an ack before data of a session', Buffer.concat([ack, harmless()])],
  ['a ping before a credit', Buffer.concat([ping, frame(Frame.credit, 1, u32(1))])],
  ['a pong before a goaway', Buffer.concat([frame(Frame.pong, 0, u64(0)), frame(Frame.goaway, 0, '\0')])],
  ['an ack before a hello', Buffer.concat([ack, frame(Frame.hello, 0, u64(0))])],
  ['an ack behind a counted frame', Buffer.concat([harmless(), ack])],
  ['a ping behind a counted frame', Buffer.concat([harmless(), ping])],
  ['a pong behind a counted frame', Buffer.concat([harmless(), frame(Frame.pong, 0, u64(0))])],
  ['an ack of 7 bytes', frame(Frame.ack, 0, Buffer.alloc(7))],
  ['an ack beyond 2^53', frame(Frame.ack, 0, u64(2n ** 53n))],
  ['a ping of 7 bytes', frame(Frame.ping, 0, Buffer.alloc(7))],
  ['a ping of 9 bytes', frame(Frame.ping, 0, Buffer.alloc(9))],
  ['a frame type of 0x06', frame(0x06, 0)],
  ['a frame type of 0x16', frame(0x16, 1)],
  ['a frame type of 0x24', frame(0x24, 1)],
  ['a frame type of 0xff', frame(0xff, 1)],
  ['half a header', Buffer.from([Frame.fin, 0, 0])],
  ['a frame that is longer than its record', frame(Frame.listen, 1, '{}', 3)],
  ['a control frame of 8,193 bytes', harmless(8193)],
]
for (const [what, record] of VIOLATIONS) {
  test(`${what} ends the session with a reason`, async () => {
    await using raw = await rawPeer('dialler')
    raw.sendRecord(record)
    assert.equal((await raw.ended).code, 'PROXY_ERR_FRAME')
    assert.equal(reasonOf(await raw.next(Frame.goaway)).code, 'PROXY_ERR_FRAME')
  })
}

test('ack, ping and pong may share a record', async () => {
  await using raw = await rawPeer('dialler')
  raw.send(ack, ping, frame(Frame.pong, 0, u64(0)), ack)
  await raw.next(Frame.pong)
  assert.equal(raw.main.reason, undefined)
})

// --- what is wrong outside the seal ---

test('a flipped bit at every byte of a record ends the link, and tells nobody anything', async () => {
  const length = 4 + harmless().length + 16
  const codes = new Set<string>()
  for (let at = 0; at < length; at++) {
    await using raw = await rawPeer('dialler')
    const record = raw.seal(harmless())
    assert.equal(record.length, length)
    record.writeUInt8(record.readUInt8(at) ^ (1 << (at % 8)), at)
    raw.sendRaw(record)
    // A length that says more is believed until that much has come.
    if (at < 4) raw.sendRaw(Buffer.alloc(524_288))
    const { code } = await raw.lost
    if (at >= 4) assert.equal(code, 'PROXY_ERR_RECORD_AUTH', `byte ${at}`)
    codes.add(code)
    assertWaiting(raw)
    await raw.over()
    assert.equal(raw.frames.length, 1, 'nothing came but the hello')
  }
  for (const code of codes) assert.match(code, /^PROXY_ERR_RECORD_(AUTH|TOO_LARGE|TOO_SHORT)$/)
})

const LENGTHS: [number, string][] = [
  [0, 'PROXY_ERR_RECORD_TOO_SHORT'],
  [16, 'PROXY_ERR_RECORD_TOO_SHORT'],
  [524_289, 'PROXY_ERR_RECORD_TOO_LARGE'],
  [0xffff_ffff, 'PROXY_ERR_RECORD_TOO_LARGE'],
]
for (const [length, code] of LENGTHS) {
  test(`a record of ${length} bytes ends the link before it has come`, async () => {
    await using raw = await rawPeer('acceptor')
    raw.sendRaw(u32(length))
    assert.equal((await raw.lost).code, code)
    assertWaiting(raw)
    await raw.over()
  })
}

test('a record of 524,288 bytes is taken', async () => {
  await using raw = await rawPeer('dialler')
  const frames = Array.from({ length: 63 }, () => harmless(8192))
  const rest = 524_288 - 16 - Buffer.concat(frames).length - 8
  raw.send(...frames, harmless(rest))
  raw.send(ping)
  await raw.next(Frame.pong)
})

test('a record that is replayed, left out or out of order ends the link', async () => {
  for (const order of [[0, 0], [1], [1, 0]]) {
    await using raw = await rawPeer('dialler')
    const records = [raw.seal(harmless()), raw.seal(harmless())]
    for (const index of order) raw.sendRaw(records[index] ?? Buffer.alloc(0))
    assert.equal((await raw.lost).code, 'PROXY_ERR_RECORD_AUTH', `${order}`)
    assertWaiting(raw)
  }
})

test('a session that is not to be resumed ends with a record that does not open, and says why', async () => {
  await using raw = await rawPeer('dialler', { main: { resumeTimeout: 0 } })
  raw.sendRaw(Buffer.concat([u32(17), Buffer.alloc(17)]))
  const reason = await raw.ended
  assert.equal(reason.code, 'PROXY_ERR_SESSION_LOST')
  assert.ok(reason.cause instanceof ProxyError)
  assert.equal(reason.cause.code, 'PROXY_ERR_RECORD_AUTH')
  assert.equal(raw.main.linkError, reason.cause)
  await raw.over()
  assert.equal(raw.frames.length, 1, 'nobody is told')
})
