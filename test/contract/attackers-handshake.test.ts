import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import {
  Acceptor,
  type AcceptorOptions,
  connect,
  type Link,
  type MainConnection,
  type ProxyError,
} from '../../lib/core/index.ts'
import { rawPublicKey, type Suite, x25519PublicKey } from '../../lib/core/noise.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { flip, type Middle, manInTheMiddle } from '../helpers/contract/man-in-the-middle.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ByteStream } from '../helpers/core/byte-stream.ts'
import { PREAMBLE } from '../helpers/core/bytes.ts'

/** Strangers at the door, and people in the middle. */

const PSK = Buffer.alloc(32, 0x6b)
const KEY = generateKeyPairSync('x25519').privateKey
const PUBLIC = x25519PublicKey(rawPublicKey(KEY))

watchForStrays()

const acceptor = (options: Partial<AcceptorOptions> = {}): Acceptor =>
  new Acceptor({ pskFor: async (name) => (name === '' ? PSK : undefined), staticKey: KEY, timeout: 300, ...options })

interface Outcome {
  dialler: string
  acceptor: string
}

const outcome = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'through',
    (error: ProxyError) => error.code,
  )

/** A handshake between an honest dialler and an honest acceptor; each one's end, by its code. */
async function handshake(
  links: { dialled: Link; accepted: Link },
  options: { suite?: Suite; name?: string; psk?: Buffer; timeout?: number } = {},
): Promise<Outcome> {
  const { suite = 'NNpsk0', name = '', psk = PSK, timeout = 300 } = options
  const accepting = acceptor({ timeout }).accept(links.accepted)
  const dialling = connect(async () => links.dialled, { secret: { name, suite, psk, serverKey: PUBLIC }, timeout })
  const [atDialler, atAcceptor] = await soon(
    Promise.all([outcome(dialling), outcome(accepting)]),
    'the end of the handshake',
    timeout + 2000,
  )
  for (const main of [await dialling.catch(() => undefined), (await accepting.catch(() => undefined))?.main]) {
    main?.close()
    await main?.closed
  }
  return { dialler: atDialler, acceptor: atAcceptor }
}

/** What a stranger gets who sends these bytes, and how it looks from inside. */
async function knock(bytes: Uint8Array, options: { end?: boolean; timeout?: number } = {}): Promise<[Buffer, string]> {
  const { a, b } = memoryPair()
  const stream = new ByteStream(a)
  const accepting = outcome(acceptor(options.timeout ? { timeout: options.timeout } : {}).accept(b))
  if (bytes.length > 0) a.write([bytes])
  if (options.end) a.end()
  const code = await soon(accepting, 'the refusal')
  const answer = await soon(stream.rest(), 'the answer')
  a.destroy()
  return [answer, code]
}

test('a wrong secret and an unknown name get one and the same answer', async () => {
  for (const suite of ['NNpsk0', 'NKpsk0'] as const) {
    for (const wrong of [{ psk: Buffer.alloc(32, 1) }, { name: 'nobody' }, { name: 'ü'.repeat(32) }]) {
      const middle = manInTheMiddle()
      const end = await handshake(middle, { suite, ...wrong })
      assert.deepEqual(end, { dialler: 'PROXY_ERR_REFUSED', acceptor: 'PROXY_ERR_HANDSHAKE' })
      assert.equal(Buffer.concat(middle.fromAcceptor).toString('hex'), '00')
    }
  }
})

test('another static key than the one in the token is refused', async () => {
  const { a, b } = memoryPair()
  const other = generateKeyPairSync('x25519').privateKey
  const accepting = outcome(acceptor({ staticKey: other }).accept(b))
  const secret = { name: '', suite: 'NKpsk0', psk: PSK, serverKey: PUBLIC } as const
  assert.equal(await outcome(connect(async () => a, { secret })), 'PROXY_ERR_REFUSED')
  assert.equal(await accepting, 'PROXY_ERR_HANDSHAKE')
})

test('an honest handshake goes through, so that the tests of dishonest ones mean something', async () => {
  for (const suite of ['NNpsk0', 'NKpsk0'] as const) {
    assert.deepEqual(await handshake(manInTheMiddle(), { suite, timeout: 10_000 }), {
      dialler: 'through',
      acceptor: 'through',
    })
  }
})

test('a preamble that is cut off anywhere is refused', async () => {
  const { fromDialler } = await recorded('NNpsk0')
  const whole = Buffer.concat(fromDialler).subarray(0, HANDSHAKE_BYTES.NNpsk0.dialler)
  const cuts = await Promise.all([...whole.keys()].map((length) => knock(whole.subarray(0, length), { end: true })))
  for (const [answer, code] of cuts) {
    assert.equal(code, 'PROXY_ERR_LINK_LOST')
    assert.equal(answer.toString('hex'), '00')
  }
})

test('a preamble that stops and waits ends with the deadline', async () => {
  const waits = [0, 1, 6, 7, 8, 9, 20].map((length) =>
    knock(Buffer.concat([PREAMBLE.NNpsk0, Buffer.from([0, 80]), Buffer.alloc(40)]).subarray(0, length), {
      timeout: 50,
    }),
  )
  for (const [answer, code] of await Promise.all(waits)) {
    assert.equal(code, 'PROXY_ERR_HANDSHAKE_TIMEOUT')
    assert.equal(answer.toString('hex'), '00')
  }
})

test('a stranger who sends a byte now and then does not move the deadline', async () => {
  const { a, b } = memoryPair()
  const dripping = setInterval(() => a.write([Buffer.from([0xf5])]), 5).unref()
  const begun = performance.now()
  assert.equal(await outcome(acceptor({ timeout: 10_000 }).accept(b)), 'PROXY_ERR_HANDSHAKE')
  clearInterval(dripping)
  const { a: c, b: d } = memoryPair()
  let at = 0
  const slow = setInterval(() => c.write([PREAMBLE.NNpsk0.subarray(at, ++at)]), 15).unref()
  assert.equal(await outcome(acceptor({ timeout: 60 }).accept(d)), 'PROXY_ERR_HANDSHAKE_TIMEOUT')
  clearInterval(slow)
  assert.ok(performance.now() - begun < 1000)
  a.destroy()
  c.destroy()
})

test('an oversized or foreign preamble is refused before more is waited for', async () => {
  const bad: Record<string, Uint8Array> = {
    'a name of 65 bytes': Buffer.from([...PREAMBLE.NNpsk0.subarray(0, 6), 65]),
    'a name of 255 bytes': Buffer.from([...PREAMBLE.NNpsk0.subarray(0, 6), 255]),
    'a message of 1,025 bytes': Buffer.from([...PREAMBLE.NNpsk0, 0x04, 0x01]),
    'a message of 65,535 bytes': Buffer.from([...PREAMBLE.NNpsk0, 0xff, 0xff]),
    'a message of no bytes': Buffer.from([...PREAMBLE.NNpsk0, 0, 0]),
    'a message that is too short': Buffer.from([...PREAMBLE.NNpsk0, 0, 47, ...Buffer.alloc(47)]),
    'another magic': Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    'a later version': Buffer.from([0xf5, 0x53, 0x59, 0x4d, 2, 1, 0]),
    'version 0': Buffer.from([0xf5, 0x53, 0x59, 0x4d, 0, 1, 0]),
    'suite 0': Buffer.from([0xf5, 0x53, 0x59, 0x4d, 1, 0, 0]),
    'suite 3': Buffer.from([0xf5, 0x53, 0x59, 0x4d, 1, 3, 0]),
    'suite 255': Buffer.from([0xf5, 0x53, 0x59, 0x4d, 1, 255, 0]),
    'a megabyte of noise': Buffer.alloc(1024 * 1024, 0xf5),
    'an ephemeral key of low order': Buffer.from([...PREAMBLE.NKpsk0, 0, 80, ...Buffer.alloc(80)]),
  }
  for (const [what, bytes] of Object.entries(bad)) {
    const [answer, code] = await knock(bytes, { timeout: 3000 })
    assert.equal(code, 'PROXY_ERR_HANDSHAKE', what)
    assert.equal(answer.toString('hex'), '00', what)
  }
})

test('a suite or version that was changed on the way is refused', async () => {
  for (const suite of ['NNpsk0', 'NKpsk0'] as const) {
    const other = await handshake(manInTheMiddle({ toAcceptor: flip(5, 3) }), { suite })
    assert.deepEqual(other, { dialler: 'PROXY_ERR_REFUSED', acceptor: 'PROXY_ERR_HANDSHAKE' })
    const version = await handshake(manInTheMiddle({ toAcceptor: flip(4, 2) }), { suite })
    assert.deepEqual(version, { dialler: 'PROXY_ERR_REFUSED', acceptor: 'PROXY_ERR_HANDSHAKE' })
  }
})

/** Bytes before the first record, by suite and direction. */
const HANDSHAKE_BYTES: Record<Suite, { dialler: number; acceptor: number }> = {
  NNpsk0: { dialler: 7 + 2 + 32 + 32 + 16, acceptor: 1 + 2 + 32 + 29 + 16 },
  NKpsk0: { dialler: 7 + 2 + 32 + 32 + 16, acceptor: 1 + 2 + 32 + 29 + 16 },
}

for (const suite of ['NNpsk0', 'NKpsk0'] as const) {
  test(`a bit that is flipped in any byte of the handshake or the hellos keeps both sides out (${suite})`, async () => {
    const { dialler, acceptor: answer } = HANDSHAKE_BYTES[suite]
    const middle = await recorded(suite)
    const total = { dialler: size(middle.fromDialler), acceptor: size(middle.fromAcceptor) }
    assert.ok(total.dialler > dialler && total.acceptor > answer)
    const runs: Promise<void>[] = []
    for (const bits of [0x01, 0x80]) {
      for (const [to, length] of [
        ['toAcceptor', dialler + 36],
        ['toDialler', answer],
      ] as const) {
        for (let position = 0; position < length; position++) {
          const links = manInTheMiddle({ [to]: flip(position, bits) })
          runs.push(
            handshake(links, { suite, timeout: 400 }).then((end) => {
              const where = `${to}, byte ${position}, bits ${bits}`
              // The dialler of NNpsk0 and NKpsk0 is through when the acceptor's hello has opened.
              assert.notEqual(end.dialler, 'through', where)
              assert.notEqual(end.acceptor, 'through', where)
              assert.match(end.dialler, /^PROXY_ERR_/, where)
              assert.match(end.acceptor, /^PROXY_ERR_/, where)
              for (const code of Object.values(end)) assert.notEqual(code, 'PROXY_ERR_INTERNAL', where)
            }),
          )
        }
      }
    }
    await Promise.all(runs)
  })
}

const size = (chunks: readonly Buffer[]): number => Buffer.concat(chunks).length

/** An honest session through a listening middle, both hellos done. */
async function recorded(suite: Suite): Promise<Middle> {
  const middle = manInTheMiddle()
  assert.deepEqual(await handshake(middle, { suite, timeout: 10_000 }), { dialler: 'through', acceptor: 'through' })
  return middle
}

test('a recorded session that is played again gets message 2 and not one record', async () => {
  for (const suite of ['NNpsk0', 'NKpsk0'] as const) {
    const session = Buffer.concat((await recorded(suite)).fromDialler)
    const [answer, code] = await knock(session)
    assert.equal(code, 'PROXY_ERR_RECORD_AUTH')
    assert.equal(answer.length, HANDSHAKE_BYTES[suite].acceptor)
  }
})

test('a first message that is played again leads nowhere, and ends with the deadline', async () => {
  const session = Buffer.concat((await recorded('NNpsk0')).fromDialler)
  const [answer, code] = await knock(session.subarray(0, HANDSHAKE_BYTES.NNpsk0.dialler), { timeout: 60 })
  assert.equal(answer.length, HANDSHAKE_BYTES.NNpsk0.acceptor)
  assert.equal(code, 'PROXY_ERR_HANDSHAKE_TIMEOUT')
})

test('who has only played a first message again cannot make the acceptor wait for a large record', async () => {
  const session = Buffer.concat((await recorded('NNpsk0')).fromDialler)
  const first = session.subarray(0, HANDSHAKE_BYTES.NNpsk0.dialler)
  const begun = performance.now()
  // 512 KiB, of which the acceptor would have to keep every byte for a stranger: a hello has a few hundred.
  const [, code] = await knock(Buffer.concat([first, Buffer.from([0, 8, 0, 0]), Buffer.alloc(100_000)]), {
    timeout: 1500,
  })
  assert.match(code, /^PROXY_ERR_RECORD_/)
  assert.ok(performance.now() - begun < 1000)
})

test('records that are sent back to who sent them do not open', async () => {
  const middle = manInTheMiddle()
  const accepting = acceptor().accept(middle.accepted)
  const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
  const main = await connect(async () => middle.dialled, { secret })
  await accepting
  const records = Buffer.concat(middle.fromDialler).subarray(HANDSHAKE_BYTES.NNpsk0.dialler)
  const lost = loss(main)
  middle.toDialler(records)
  assert.equal((await soon(lost, 'the end of the link')).code, 'PROXY_ERR_RECORD_AUTH')
  await end(main, (await accepting).main)
})

test('records that are sent twice do not open the second time', async () => {
  const middle = manInTheMiddle()
  const accepting = acceptor().accept(middle.accepted)
  const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
  const main = await connect(async () => middle.dialled, { secret })
  const accepted = (await accepting).main
  const losses = [loss(accepted), loss(main)]
  middle.toAcceptor(Buffer.concat(middle.fromDialler).subarray(HANDSHAKE_BYTES.NNpsk0.dialler))
  const codes = await soon(Promise.all(losses), 'the end of the link')
  assert.deepEqual(
    codes.map(({ code }) => code),
    ['PROXY_ERR_RECORD_AUTH', 'PROXY_ERR_LINK_LOST'],
  )
  await end(main, accepted)
})

/** Why a main connection loses its link. The session waits for another one. */
function loss(main: MainConnection): Promise<ProxyError> {
  return new Promise((resolve) => {
    main.attach({ onFrame: () => true, onWritable() {}, onPaused: resolve, onResumed() {}, onClosed() {} })
  })
}

async function end(...mains: MainConnection[]): Promise<void> {
  for (const main of mains) {
    assert.equal(main.reason, undefined)
    main.close()
    await main.closed
  }
}

test('handshakes at once are bounded, and places are given back', async () => {
  const door = acceptor({ maxHandshakes: 3, timeout: 60 })
  const knocking = [1, 2, 3, 4].map(() => outcome(door.accept(memoryPair().b)))
  // The newcomer is heard, and the one that has been silent longest is not waited for any more.
  assert.equal(await Promise.race(knocking), 'PROXY_ERR_TOO_MANY_HANDSHAKES')
  const late = 'PROXY_ERR_HANDSHAKE_TIMEOUT'
  assert.deepEqual(await Promise.all(knocking), ['PROXY_ERR_TOO_MANY_HANDSHAKES', late, late, late])
  assert.equal(await outcome(door.accept(memoryPair().b)), late)
})

test('strangers who fill all places keep nobody out who knows the secret', async () => {
  const door = acceptor({ maxHandshakes: 3, timeout: 3000 })
  const strangers = [1, 2, 3].map(() => memoryPair())
  const knocking = strangers.map(({ b }) => outcome(door.accept(b)))
  for (const turn of [1, 2, 3, 4]) {
    const { a, b } = memoryPair()
    const [main, accepted] = await soon(
      Promise.all([
        connect(async () => a, { secret: { name: '', suite: 'NNpsk0', psk: PSK } }),
        door.accept(b).then(({ main }) => main),
      ]),
      `node ${turn}`,
    )
    await end(main, accepted)
    const stranger = memoryPair()
    strangers.push(stranger)
    knocking.push(outcome(door.accept(stranger.b)))
  }
  for (const { a } of strangers) a.destroy()
  const over = await soon(Promise.all(knocking), 'the strangers')
  const [given, lost] = [Array(4).fill('PROXY_ERR_TOO_MANY_HANDSHAKES'), Array(3).fill('PROXY_ERR_LINK_LOST')]
  assert.deepEqual(over, [...given, ...lost])
})

test('a signal ends a handshake on either side', async () => {
  const stop = new AbortController()
  const ends = [
    outcome(acceptor().accept(memoryPair().b, { signal: stop.signal })),
    outcome(
      connect(async () => memoryPair().a, {
        secret: { name: '', suite: 'NNpsk0', psk: PSK },
        signal: stop.signal,
      }),
    ),
    outcome(acceptor().accept(memoryPair().b, { signal: AbortSignal.abort() })),
  ]
  await new Promise((resolve) => setImmediate(resolve))
  stop.abort()
  assert.deepEqual(await soon(Promise.all(ends), 'the ends'), Array(3).fill('PROXY_ERR_ABORTED'))
})

test('a dialler does not fall for what only answers like a server', async () => {
  const answers: Record<string, [string, string]> = {
    'an HTTP server': ['HTTP/1.1 400 Bad Request\r\n\r\n', 'PROXY_ERR_HANDSHAKE'],
    'an SSH server': ['SSH-2.0-x\r\n', 'PROXY_ERR_HANDSHAKE'],
    'a message 2 of noise': [`\x01\x00\x4d${'x'.repeat(77)}`, 'PROXY_ERR_HANDSHAKE'],
    'a message 2 that is too long': ['\x01\xff\xff', 'PROXY_ERR_HANDSHAKE'],
    'a message 2 that is too short': ['\x01\x00\x01x', 'PROXY_ERR_HANDSHAKE'],
    'nothing at all': ['', 'PROXY_ERR_HANDSHAKE_TIMEOUT'],
    'half of an answer': ['\x01\x00', 'PROXY_ERR_HANDSHAKE_TIMEOUT'],
  }
  for (const [who, [text, expected]] of Object.entries(answers)) {
    const { a, b } = memoryPair()
    b.start({ received: () => true, drained() {}, ended() {}, closed() {} })
    if (text) b.write([Buffer.from(text, 'latin1')])
    const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
    assert.equal(await outcome(connect(async () => a, { secret, timeout: 60 })), expected, who)
  }
})

test('a pskFor that fails is a refusal like any other', async () => {
  const { a, b } = memoryPair()
  const accepting = acceptor({
    pskFor: async () => {
      throw new Error('the store is gone')
    },
  }).accept(b)
  const secret = { name: '', suite: 'NNpsk0', psk: PSK } as const
  const dialling = outcome(connect(async () => a, { secret }))
  assert.equal(await outcome(accepting), 'PROXY_ERR_HANDSHAKE')
  assert.equal(await dialling, 'PROXY_ERR_REFUSED')
})
