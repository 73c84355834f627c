import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import test from 'node:test'
import { Acceptor, type AcceptorOptions, connect, connectWithKey, deriveCredential } from '../../../lib/core/connect.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import type { Credential } from '../../../lib/core/handshake.ts'
import type { Link } from '../../../lib/core/link.ts'
import type { MainConnection } from '../../../lib/core/main-connection.ts'
import { NoiseHandshake, rawPublicKey, type Suite, x25519PublicKey } from '../../../lib/core/noise.ts'
import { makeToken } from '../../../lib/core/token.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { hex, PREAMBLE, payload1, withLength } from '../../helpers/core/bytes.ts'
import { PSK, rawPeer } from '../../helpers/core/raw-peer.ts'

const SCRYPTED = '0596dbef3f837ec59b35e677222274c9a0cc100369a631e06a3d435e4a469c30'
const SUITES: readonly Suite[] = ['NNpsk0', 'NKpsk0']
const staticKey: KeyObject = generateKeyPairSync('x25519').privateKey

function credentialOf(suite: Suite, changed: Partial<Credential> = {}): Credential {
  return { name: '', suite, psk: PSK, serverKey: x25519PublicKey(rawPublicKey(staticKey)), ...changed }
}

/** Knows two credentials: the empty name and `node-1`. */
function acceptorOf(options: Partial<AcceptorOptions> = {}): Acceptor {
  return new Acceptor({
    staticKey,
    pskFor: async (name) => (name === '' || name === 'node-1' ? PSK : undefined),
    ...options,
  })
}

async function bothEnds(credential: Credential, acceptor = acceptorOf()): Promise<[MainConnection, MainConnection]> {
  const { a, b } = memoryPair()
  const [dialled, { main }] = await Promise.all([connect(async () => a, { secret: credential }), acceptor.accept(b)])
  return [dialled, main]
}

async function closeAll(...mains: MainConnection[]): Promise<void> {
  for (const main of mains) main.close()
  await Promise.all(mains.map((main) => main.closed))
}

/** Everything that one side of a link writes, as it goes by. */
function tapped(link: Link): { link: Link; bytes: Buffer[] } {
  const bytes: Buffer[] = []
  return {
    bytes,
    link: {
      remote: link.remote,
      get pending() {
        return link.pending
      },
      start: (sink) => link.start(sink),
      write(chunks) {
        bytes.push(Buffer.concat(chunks))
        link.write(chunks)
      },
      resume: () => link.resume(),
      end: () => link.end(),
      destroy: (error) => link.destroy(error),
    },
  }
}

for (const suite of SUITES) {
  test(`${suite}: both ends agree on the session, and nobody can tell two sessions apart by what is fixed`, async () => {
    const [dialled, accepted] = await bothEnds(credentialOf(suite))
    assert.deepEqual(dialled.session, accepted.session)
    assert.equal(dialled.session.length, 16)
    assert.deepEqual([dialled.role, accepted.role], ['dialler', 'acceptor'])
    assert.deepEqual(dialled.peer.limits, { subConnections: 16_384, pendingOpens: 1024 })
    assert.deepEqual(accepted.peer.limits, { subConnections: 16_384, pendingOpens: 1024 })
    const [other, otherAccepted] = await bothEnds(credentialOf(suite))
    assert.notDeepEqual(other.session, dialled.session)
    await closeAll(dialled, accepted, other, otherAccepted)
  })

  test(`${suite}: the preamble, the lengths and the status are literal bytes`, async () => {
    const { a, b } = memoryPair()
    const [dialler, acceptor] = [tapped(a), tapped(b)]
    const [dialled, { main }] = await Promise.all([
      connect(async () => dialler.link, { secret: credentialOf(suite, { name: 'node-1' }) }),
      acceptorOf().accept(acceptor.link),
    ])
    const [first, hello] = dialler.bytes
    const suiteByte = suite === 'NNpsk0' ? '01' : '02'
    // Magic, version, suite, 6 bytes of name; then 32 bytes of key, 32 of payload, 16 of tag.
    assert.equal(first?.subarray(0, 15).toString('hex'), `f553594d01${suiteByte}066e6f64652d310050`)
    assert.equal(first?.length, 15 + 80)
    // Accepted; 32 bytes of key, 29 of payload, 16 of tag.
    const [answer] = acceptor.bytes
    assert.equal(answer?.subarray(0, 3).toString('hex'), '01004d')
    assert.equal(answer?.length, 3 + 77)
    // The hellos: one record each of 8 + 8 bytes.
    assert.equal(hello?.subarray(0, 4).toString('hex'), '00000020')
    assert.equal(acceptor.bytes[1]?.subarray(0, 4).toString('hex'), '00000020')
    assert.equal(main.peer.credential, 'node-1')
    await closeAll(dialled, main)
  })

  for (const role of ['dialler', 'acceptor'] as const) {
    test(`${suite}: a ${role} that was written from literal bytes is understood`, async () => {
      await using raw = await rawPeer(role, { suite, limits: { subConnections: 7, pendingOpens: 3 } })
      assert.deepEqual(raw.main.peer.limits, { subConnections: 7, pendingOpens: 3 })
    })
  }
}

test('a token and a chosen secret log in as they are', async () => {
  const token = makeToken(Buffer.alloc(16, 1), rawPublicKey(staticKey))
  for (const secret of [token, 'correct horse battery staple']) {
    const known = await deriveCredential(secret)
    const acceptor = acceptorOf({
      pskFor: async (name, suite) => (name + suite === known.suite ? known.psk : undefined),
    })
    const { a, b } = memoryPair()
    const [dialled, { main, resumed }] = await Promise.all([connect(async () => a, { secret }), acceptor.accept(b)])
    assert.equal(resumed, false)
    await closeAll(dialled, main)
  }
})

test('a psk depends on the secret, the name and the suite', async () => {
  const token = makeToken(Buffer.alloc(16, 1), rawPublicKey(staticKey))
  const psks = await Promise.all([
    deriveCredential('secret'),
    deriveCredential('secret', 'node-1'),
    deriveCredential('secret2'),
    deriveCredential(token),
  ])
  assert.equal(new Set(psks.map(({ psk }) => Buffer.from(psk).toString('hex'))).size, 4)
  // scrypt(secret, "Noise_NNpsk0_25519_AESGCM_SHA256" + name), N = 2^15, r = 8, p = 1; by Python's hashlib.
  assert.equal(Buffer.from(psks[1].psk).toString('hex'), SCRYPTED)
})

test('an empty secret is refused before anything is dialled', async () => {
  let dialled = false
  const dial = async (): Promise<Link> => {
    dialled = true
    return memoryPair().a
  }
  await assert.rejects(connect(dial, { secret: '' }), { code: 'PROXY_ERR_SECRET' })
  assert.equal(dialled, false)
})

// --- refusals ---

/** What an acceptor answers to `bytes`, all of it, and why it says it did. */
async function answerTo(
  bytes: Uint8Array,
  options: Partial<AcceptorOptions> = {},
): Promise<{ answer: string; reason: ProxyError }> {
  const { a, b } = memoryPair()
  const stream = new ByteStream(a)
  const accepted = acceptorOf(options).accept(b)
  a.write([bytes])
  const reason = await accepted.then(
    () => assert.fail('it was accepted'),
    (error) => error,
  )
  const answer = (await stream.rest()).toString('hex')
  a.destroy()
  return { answer, reason }
}

/** A preamble and message 1 of somebody who has `psk`. */
function opening(
  options: { suite?: Suite; psk?: Uint8Array; prologue?: Buffer; preamble?: Buffer; payload?: Buffer } = {},
): Buffer {
  const { suite = 'NNpsk0', psk = PSK, payload = payload1() } = options
  const preamble = options.preamble ?? PREAMBLE[suite]
  const prologue = options.prologue ?? preamble
  const noise = new NoiseHandshake({ suite, initiator: true, prologue, psk, static: staticKey })
  return Buffer.concat([preamble, withLength(noise.write(payload))])
}

const named = (name: string, suiteByte = '01'): Buffer =>
  Buffer.concat([hex(`f553594d01${suiteByte}`), Buffer.from([Buffer.from(name).length]), Buffer.from(name)])

const REFUSED: [string, Buffer][] = [
  ['a wrong secret', opening({ psk: Buffer.alloc(32, 9) })],
  ['a wrong secret under a token', opening({ suite: 'NKpsk0', psk: Buffer.alloc(32, 9) })],
  ['a name that is not known', opening({ preamble: named('nobody') })],
  ['the right secret under another name', opening({ preamble: named('node-2') })],
  ['a wrong secret under a name that is known', opening({ preamble: named('node-1'), psk: Buffer.alloc(32, 9) })],
  ['suite 0', opening({ preamble: hex('f553594d 01 00 00') })],
  ['suite 3', opening({ preamble: hex('f553594d 01 03 00') })],
  ['suite 255', opening({ preamble: hex('f553594d 01 ff 00') })],
  ['a suite that was changed on the way', Buffer.concat([PREAMBLE.NKpsk0, opening().subarray(7)])],
  ['version 0', opening({ preamble: hex('f553594d 00 01 00') })],
  ['version 2', opening({ preamble: hex('f553594d 02 01 00') })],
  ['a version that was changed on the way', opening({ prologue: hex('f553594d 02 01 00') })],
  ['a name that was changed on the way', opening({ preamble: named('node-1'), prologue: named('node-2') })],
  ['another magic', opening({ preamble: hex('f553594e 01 01 00') })],
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: example.org\r\n\r\n')],
  ['TLS', hex('16030100c8010000c40303')],
  ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.9\r\n')],
  ['a name of 65 bytes', Buffer.concat([hex('f553594d 01 01 41'), Buffer.alloc(200)])],
  ['a name of 255 bytes', Buffer.concat([hex('f553594d 01 01 ff'), Buffer.alloc(300)])],
  ['a message of 1,025 bytes', Buffer.concat([PREAMBLE.NNpsk0, hex('0401'), Buffer.alloc(1025)])],
  ['a message of 65,535 bytes', Buffer.concat([PREAMBLE.NNpsk0, hex('ffff')])],
  ['a message of 0 bytes', Buffer.concat([PREAMBLE.NNpsk0, hex('0000')])],
  ['a message of 47 bytes', Buffer.concat([PREAMBLE.NNpsk0, hex('002f'), Buffer.alloc(47)])],
  ['a point of low order', Buffer.concat([PREAMBLE.NKpsk0, hex('0050'), Buffer.alloc(80)])],
  ['a payload that is too short', opening({ payload: payload1().subarray(0, 31) })],
  ['an empty payload', opening({ payload: Buffer.alloc(0) })],
  ['limits of zero', opening({ payload: payload1({ subConnections: 0, pendingOpens: 1 }) })],
  ['pending opens of zero', opening({ payload: payload1({ subConnections: 1, pendingOpens: 0 }) })],
]

for (const [what, bytes] of REFUSED) {
  test(`${what} is answered by exactly the byte 00`, async () => {
    const { answer, reason } = await answerTo(bytes)
    assert.equal(answer, '00')
    assert.equal(reason.code, 'PROXY_ERR_HANDSHAKE')
  })
}

test('a token is refused where there is no static key for it', async () => {
  const { answer } = await answerTo(opening({ suite: 'NKpsk0' }), { staticKey: undefined })
  assert.equal(answer, '00')
})

test('a credential of one suite is refused under the other', async () => {
  const pskFor = async (_name: string, suite: Suite): Promise<Uint8Array | undefined> =>
    suite === 'NKpsk0' ? PSK : undefined
  const { answer, reason } = await answerTo(opening({ suite: 'NNpsk0' }), { pskFor })
  assert.equal(answer, '00')
  assert.equal(reason.code, 'PROXY_ERR_HANDSHAKE')
})

test('a lookup that fails is answered by the byte 00', async () => {
  const cause = new Error('the disk is full')
  const pskFor = (): Promise<never> => Promise.reject(cause)
  const { answer, reason } = await answerTo(opening(), { pskFor })
  assert.equal(answer, '00')
  assert.deepEqual([reason.code, reason.cause], ['PROXY_ERR_HANDSHAKE', cause])
})

test('a preamble that is cut off anywhere is answered by the byte 00', async () => {
  const bytes = opening({ preamble: named('node-1') })
  for (let length = 0; length < bytes.length; length += length < 20 ? 1 : 7) {
    const { a, b } = memoryPair()
    const stream = new ByteStream(a)
    const refused = assert.rejects(acceptorOf().accept(b), { code: 'PROXY_ERR_LINK_LOST' })
    if (length > 0) a.write([bytes.subarray(0, length)])
    a.end()
    await refused
    assert.equal((await stream.rest()).toString('hex'), '00', `${length} bytes`)
  }
})

test('every flipped bit of the opening is answered by the byte 00', async () => {
  const bytes = opening({ preamble: named('node-1') })
  await Promise.all(
    Array.from(bytes, async (byte, at) => {
      const changed = Buffer.from(bytes)
      changed.writeUInt8(byte ^ (1 << (at % 8)), at)
      // A length that says more leaves the acceptor waiting for the rest.
      const { answer } = await answerTo(changed, { timeout: 50 })
      assert.equal(answer, '00', `byte ${at}`)
    }),
  )
})

test('an oversized message is refused before it has come', async () => {
  const { answer } = await answerTo(Buffer.concat([PREAMBLE.NNpsk0, hex('0401')]))
  assert.equal(answer, '00')
})

test('a dialler says plainly that it was refused', async () => {
  const { a, b } = memoryPair()
  const wrong = credentialOf('NNpsk0', { psk: Buffer.alloc(32, 9) })
  const [dialled, accepted] = await Promise.allSettled([
    connect(async () => a, { secret: wrong }),
    acceptorOf().accept(b),
  ])
  assert.equal(accepted.status === 'rejected' && accepted.reason.code, 'PROXY_ERR_HANDSHAKE')
  assert.ok(dialled.status === 'rejected')
  assert.equal(dialled.reason.code, 'PROXY_ERR_REFUSED')
  assert.equal(dialled.reason.retryable, true)
})

test('a dialler that trusts another server key is refused, and learns nothing', async () => {
  const { a, b } = memoryPair()
  const serverKey = generateKeyPairSync('x25519').publicKey
  const [dialled] = await Promise.allSettled([
    connect(async () => a, { secret: credentialOf('NKpsk0', { serverKey }) }),
    acceptorOf().accept(b),
  ])
  assert.equal(dialled.status === 'rejected' && dialled.reason.code, 'PROXY_ERR_REFUSED')
})

const ANSWERS: [string, Buffer, string][] = [
  ['what is not symport', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'PROXY_ERR_HANDSHAKE'],
  ['a status of 2', hex('02'), 'PROXY_ERR_HANDSHAKE'],
  ['a message of 1,025 bytes', hex('01 0401'), 'PROXY_ERR_HANDSHAKE'],
  ['a message of 0 bytes', hex('01 0000'), 'PROXY_ERR_HANDSHAKE'],
  ['a message that proves nothing', Buffer.concat([hex('01 004d'), Buffer.alloc(77, 9)]), 'PROXY_ERR_HANDSHAKE'],
  ['a point of low order', Buffer.concat([hex('01 004d'), Buffer.alloc(77)]), 'PROXY_ERR_HANDSHAKE'],
]
for (const [what, answer, code] of ANSWERS) {
  test(`a dialler ends the link when it gets ${what}`, async () => {
    const { a, b } = memoryPair()
    const server = new ByteStream(b)
    b.write([answer])
    await assert.rejects(
      connect(async () => a, { secret: credentialOf('NNpsk0') }),
      { name: 'ProxyError', code },
    )
    await server.rest()
  })
}

test('a replayed opening gets a fresh answer, and no session', async () => {
  const { a, b } = memoryPair()
  const recorded = tapped(a)
  const acceptor = acceptorOf({ timeout: 50 })
  const [dialled, { main }] = await Promise.all([
    connect(async () => recorded.link, { secret: credentialOf('NNpsk0') }),
    acceptor.accept(b),
  ])
  const again = memoryPair()
  const replayer = new ByteStream(again.a)
  const rejected = assert.rejects(acceptor.accept(again.b))
  // Message 1, and the hello that followed it: the keys are others now.
  again.a.write(recorded.bytes.slice(0, 2))
  assert.equal((await replayer.read(3)).toString('hex'), '01004d')
  await rejected
  assert.equal(main.reason, undefined, 'the session that was recorded goes on')
  await closeAll(dialled, main)
})

// --- time, and numbers ---

test('an acceptor gives up a dialler that says nothing, with the byte 00', async () => {
  const { answer, reason } = await answerTo(Buffer.alloc(0), { timeout: 20 })
  assert.equal(answer, '00')
  assert.equal(reason.code, 'PROXY_ERR_HANDSHAKE_TIMEOUT')
  assert.equal(reason.retryable, true)
})

test('an acceptor gives up a dialler that stops after message 1', async () => {
  const { a, b } = memoryPair()
  const stream = new ByteStream(a)
  a.write([opening()])
  await assert.rejects(acceptorOf({ timeout: 20 }).accept(b), { code: 'PROXY_ERR_HANDSHAKE_TIMEOUT' })
  await stream.rest()
  a.destroy()
})

for (const when of ['before the opening', 'before the hello'] as const) {
  test(`a handshake that was given up ${when} leaves no timer once the link is gone`, async () => {
    const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const before = timers()
    const { a, b } = memoryPair()
    const stream = new ByteStream(a)
    if (when === 'before the hello') a.write([opening()])
    await assert.rejects(acceptorOf({ timeout: 20 }).accept(b))
    await stream.rest()
    a.destroy()
    for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve))
    assert.ok(timers() <= before, `${timers()} timers, ${before} before`)
  })
}

test('a signal that fires between message 2 and the hello ends it as any other', async () => {
  const abort = new AbortController()
  const { a, b } = memoryPair()
  const stream = new ByteStream(a)
  a.write([opening()])
  const rejected = assert.rejects(acceptorOf().accept(b, { signal: abort.signal }), { code: 'PROXY_ERR_ABORTED' })
  await stream.read(80)
  abort.abort()
  await rejected
  a.destroy()
})

test('a dialler gives up a server that says nothing', async () => {
  const { a, b } = memoryPair()
  const server = new ByteStream(b)
  const dialled = connect(async () => a, { secret: credentialOf('NNpsk0'), timeout: 20 })
  await assert.rejects(dialled, { code: 'PROXY_ERR_HANDSHAKE_TIMEOUT', retryable: true })
  await server.rest()
})

for (const when of ['before', 'during'] as const) {
  test(`a signal that fires ${when} the handshake ends it, on either side`, async () => {
    const abort = new AbortController()
    if (when === 'before') abort.abort()
    const [here, there] = [memoryPair(), memoryPair()]
    const ends = [new ByteStream(here.b), new ByteStream(there.b)]
    const both = [
      connect(async () => here.a, { secret: credentialOf('NNpsk0'), signal: abort.signal }),
      acceptorOf().accept(there.a, { signal: abort.signal }),
    ].map((promise) => assert.rejects(promise, { code: 'PROXY_ERR_ABORTED' }))
    if (when === 'during') {
      await new Promise((resolve) => setImmediate(resolve))
      abort.abort()
    }
    await Promise.all(both)
    for (const end of ends) await end.rest()
  })
}

test('one handshake more than allowed takes the place of the oldest that has proven nothing', async () => {
  const acceptor = acceptorOf({ maxHandshakes: 2 })
  const knocking = [memoryPair(), memoryPair(), memoryPair()]
  const streams = knocking.map(({ a }) => new ByteStream(a))
  const accepting = knocking.map(({ b }) => acceptor.accept(b).catch((error: ProxyError) => error.code))
  assert.equal(await accepting[0], 'PROXY_ERR_TOO_MANY_HANDSHAKES')
  assert.equal((await streams[0]?.rest())?.length, 0, 'it is not even refused')
  // The newcomer is served, and so is the one after it, at the cost of the second.
  const third = knocking[2]?.a
  third?.write([opening()])
  await streams[2]?.read(80)
  const [dialled, main] = await bothEnds(credentialOf('NNpsk0'), acceptor)
  assert.equal(await accepting[1], 'PROXY_ERR_TOO_MANY_HANDSHAKES')
  third?.destroy()
  assert.equal(await accepting[2], 'PROXY_ERR_LINK_LOST')
  await closeAll(dialled, main)
})

test('one handshake more than allowed takes the place of the oldest when all have shown that they know a secret', async () => {
  const acceptor = acceptorOf({ maxHandshakes: 2 })
  const slow = [memoryPair(), memoryPair()]
  const codes = ['PROXY_ERR_TOO_MANY_HANDSHAKES', 'PROXY_ERR_LINK_LOST']
  const waiting = slow.map(({ b }, index) => assert.rejects(acceptor.accept(b), { code: codes[index] }))
  for (const { a } of slow) {
    const stream = new ByteStream(a)
    a.write([opening()])
    await stream.read(80)
  }
  await closeAll(...(await bothEnds(credentialOf('NNpsk0'), acceptor)))
  for (const { a } of slow) a.destroy()
  await Promise.all(waiting)
})

test('a finished handshake is not counted any more', async () => {
  const acceptor = acceptorOf({ maxHandshakes: 1 })
  const mains = [
    ...(await bothEnds(credentialOf('NNpsk0'), acceptor)),
    ...(await bothEnds(credentialOf('NKpsk0'), acceptor)),
  ]
  await closeAll(...mains)
})

test('one session more than allowed is told why, and a place that is free again is given away', async () => {
  const acceptor = acceptorOf({ maxSessions: 1 })
  const [dialled, main] = await bothEnds(credentialOf('NNpsk0'), acceptor)
  const { a, b } = memoryPair()
  const second = connect(async () => a, { secret: credentialOf('NNpsk0') })
  await assert.rejects(acceptor.accept(b), { code: 'PROXY_ERR_TOO_MANY_SESSIONS', retryable: true })
  const refused = await second
  refused.attach({ onFrame: () => true, onWritable() {}, onPaused() {}, onResumed() {}, onClosed() {} })
  assert.equal((await refused.closed).code, 'PROXY_ERR_TOO_MANY_SESSIONS')
  await closeAll(dialled, main)
  await closeAll(...(await bothEnds(credentialOf('NNpsk0'), acceptor)))
})

test('a name of more than 64 bytes never reaches the wire', async () => {
  const { a, b } = memoryPair()
  const stream = new ByteStream(b)
  const secret = credentialOf('NNpsk0', { name: 'x'.repeat(65) })
  await assert.rejects(
    connect(async () => a, { secret }),
    { code: 'PROXY_ERR_HANDSHAKE' },
  )
  assert.equal((await stream.rest()).length, 0)
})

// --- a key of one's own ---

const KEY = Buffer.alloc(16, 0x77)

async function keyed(key = KEY): Promise<{ mains: MainConnection[]; wires: { bytes: Buffer[] }[] }> {
  const { a, b } = memoryPair()
  const wires = [tapped(a), tapped(b)]
  const [dialler, acceptor] = wires
  assert.ok(dialler && acceptor)
  const mains = await Promise.all([
    connectWithKey(dialler.link, { key, role: 'dialler' }),
    connectWithKey(acceptor.link, { key: KEY, role: 'acceptor' }),
  ])
  return { mains, wires }
}

test('two ends with one key need no more than that', async () => {
  const { mains, wires } = await keyed()
  assert.deepEqual(
    mains.map(({ role }) => role),
    ['dialler', 'acceptor'],
  )
  for (const { bytes } of wires) assert.equal(bytes[0]?.length, 32, 'each end first sends 32 random bytes')
  await closeAll(...mains)
})

test('two links under one key never repeat a record: the same hello is sealed with other keys', async () => {
  const links = [await keyed(), await keyed(), await keyed()]
  const hellos = links.flatMap(({ wires }) => wires.map(({ bytes }) => bytes[1]?.toString('hex')))
  assert.equal(hellos.length, 6)
  assert.equal(new Set(hellos).size, 6)
  const lengths = hellos.map((hello) => hello?.slice(0, 8))
  assert.deepEqual(new Set(lengths), new Set(['00000020']), 'it is the same plaintext every time')
  await closeAll(...links.flatMap(({ mains }) => mains))
})

test('two ends with different keys cannot open what the other sends', async () => {
  const { a, b } = memoryPair()
  const both = await Promise.allSettled([
    connectWithKey(a, { key: KEY, role: 'dialler', timeout: 500 }),
    connectWithKey(b, { key: Buffer.alloc(16, 0x78), role: 'acceptor', timeout: 500 }),
  ])
  const codes = both.map((one) => one.status === 'rejected' && one.reason.code)
  assert.equal(codes[1], 'PROXY_ERR_RECORD_AUTH')
  assert.ok(codes[0])
})

test('two ends of one role cannot talk', async () => {
  const { a, b } = memoryPair()
  const both = await Promise.allSettled([
    connectWithKey(a, { key: KEY, role: 'dialler', timeout: 500 }),
    connectWithKey(b, { key: KEY, role: 'dialler', timeout: 500 }),
  ])
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
})

test('an end that gets its own bytes back does not talk to itself', async () => {
  const { a, b } = memoryPair()
  b.start({
    received(bytes) {
      b.write([Buffer.from(bytes)])
      return true
    },
    drained() {},
    ended: () => b.end(),
    closed() {},
  })
  await assert.rejects(connectWithKey(a, { key: KEY, role: 'dialler', timeout: 500 }), {
    code: 'PROXY_ERR_RECORD_AUTH',
  })
})

test('a recording of the acceptor, played to the dialler of another link, is refused', async () => {
  const recorded = await keyed()
  const { a, b } = memoryPair()
  const stream = new ByteStream(b)
  const dialled = connectWithKey(a, { key: KEY, role: 'dialler', timeout: 500 })
  b.write(recorded.wires[1]?.bytes ?? [])
  await assert.rejects(dialled, { code: 'PROXY_ERR_RECORD_AUTH' })
  await stream.rest()
  await closeAll(...recorded.mains)
})

test('a key of another length is a mistake of the caller', async () => {
  for (const length of [0, 15, 17, 32]) {
    const { a } = memoryPair()
    const error: unknown = await connectWithKey(a, { key: Buffer.alloc(length), role: 'dialler' }).catch(
      (error) => error,
    )
    assert.ok(error instanceof RangeError || (error instanceof ProxyError && error.cause instanceof RangeError))
  }
})
