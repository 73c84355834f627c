import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type MainConnection, Proxy, type ProxyError } from '../../../lib/core/index.ts'
import { Hidden } from '../../../lib/domains/hidden.ts'
import {
  answerChannel,
  type ChannelOptions,
  contextOf,
  joinChannel,
  keysOf,
} from '../../../lib/hub/channel-handshake.ts'
import { ChannelTries } from '../../../lib/hub/channel-tries.ts'
import { beginCpace } from '../../../lib/hub/cpace.ts'
import { memoryPair } from '../../../lib/transports/memory.ts'
import { type Change, flip, type Middle, manInTheMiddle } from '../../helpers/contract/man-in-the-middle.ts'
import { soon, watchForStrays } from '../../helpers/contract/strays.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'

watchForStrays()

const MESSAGE_1 = 49
const MESSAGE_2 = 33
const TAG = 32
const GUESS = { prs: Buffer.from('guess'), ci: contextOf('ssh'), sid: Buffer.alloc(16) }

/** The options of one end; its tries are its own. */
function end(password = 'ssh', options: Partial<ChannelOptions> = {}): ChannelOptions {
  const name = options.name ?? 'ssh'
  return { name, password: new Hidden(password), tries: new ChannelTries(name), timeout: 1000, ...options }
}

interface Outcome {
  readonly joiner: MainConnection | ProxyError
  readonly offerer: MainConnection | ProxyError
}

async function outcome(
  ends: Pick<Middle, 'dialled' | 'accepted'>,
  joiner: ChannelOptions,
  offerer: ChannelOptions,
): Promise<Outcome> {
  const [joined, answered] = await Promise.all([
    joinChannel(ends.dialled, joiner).catch((error: ProxyError) => error),
    answerChannel(ends.accepted, offerer).catch((error: ProxyError) => error),
  ])
  return { joiner: joined, offerer: answered }
}

function codeOf(outcome: MainConnection | ProxyError): string {
  return 'code' in outcome ? outcome.code : 'joined'
}

async function proxies({ joiner, offerer }: Outcome): Promise<[Proxy, Proxy]> {
  if ('code' in joiner) throw joiner
  if ('code' in offerer) throw offerer
  return [new Proxy(joiner), new Proxy(offerer)]
}

async function close(...all: Proxy[]): Promise<void> {
  for (const proxy of all) proxy.close()
  await Promise.all(all.map((proxy) => proxy.closed))
}

for (const fragment of [undefined, 1]) {
  test(`ends with the same password have a main connection (reads of ${fragment ?? 'any'} size)`, async () => {
    const { a, b } = memoryPair(fragment === undefined ? {} : { fragment })
    const joiner = end()
    const offerer = end()
    const made = await outcome({ dialled: a, accepted: b }, joiner, offerer)
    const [near, far] = await proxies(made)
    await assert.rejects(near.dial({ Domain: 'tcp', Addr: 'x:1' }), { code: 'PROXY_ERR_UNKNOWN_DOMAIN' })
    assert.ok(joiner.tries.idle && offerer.tries.idle)
    await close(near, far)
  })
}

test('a password is the same however its letters are composed', async () => {
  const { a, b } = memoryPair()
  await close(...(await proxies(await outcome({ dialled: a, accepted: b }, end('\u00fc'), end('u\u0308')))))
})

test('both ends say in the same words that the password is another one, and both count it', async () => {
  const wrong: [string, string][] = [
    ['ssh', 'SSH'],
    ['', 'ssh'],
    ['ssh', ''],
  ]
  for (const [here, there] of wrong) {
    const { a, b } = memoryPair()
    const joiner = end(here)
    const offerer = end(there)
    // A memory link does not carry the reason as a sub-connection does.
    const made = await outcome({ dialled: a, accepted: b }, joiner, offerer)
    assert.equal(codeOf(made.offerer), 'PROXY_ERR_CHANNEL_PASSWORD')
    assert.match(String(made.offerer), /the password of channel ssh is another one there$/)
    assert.equal(codeOf(made.joiner), 'PROXY_ERR_LINK_LOST')
    assert.equal(joiner.tries.idle, false)
    assert.equal(offerer.tries.idle, false)
  }
})

test('a key for one channel is none for another', async () => {
  const { a, b } = memoryPair()
  const made = await outcome({ dialled: a, accepted: b }, end('ssh', { name: 'a' }), end('ssh', { name: 'b' }))
  assert.equal(codeOf(made.offerer), 'PROXY_ERR_CHANNEL_PASSWORD')
})

for (let position = 0; position < MESSAGE_1 + TAG; position += 4) {
  test(`a bit flipped in byte ${position} of what the joiner sends: no key, and a failure`, async () => {
    const middle = manInTheMiddle({ toAcceptor: flip(position, 1 << (position % 8)) })
    const offerer = end()
    const made = await outcome(middle, end(), offerer)
    const code = codeOf(made.offerer)
    // What is no point is no guess of anybody's, and is counted all the same.
    assert.ok(['PROXY_ERR_CHANNEL_PASSWORD', 'PROXY_ERR_HANDSHAKE'].includes(code), code)
    assert.notEqual(codeOf(made.joiner), 'joined')
    assert.equal(offerer.tries.idle, position === 0)
  })
}

for (let position = 0; position < MESSAGE_2 + TAG; position += 4) {
  test(`a bit flipped in byte ${position} of what the offerer sends: no key, and a failure`, async () => {
    const middle = manInTheMiddle({ toDialler: flip(position, 1 << (position % 8)) })
    const joiner = end()
    const made = await outcome(middle, joiner, end())
    assert.notEqual(codeOf(made.joiner), 'joined')
    assert.notEqual(codeOf(made.offerer), 'joined')
    assert.equal(joiner.tries.idle, position === 0)
  })
}

test('another version is refused, and read no further', async () => {
  const { a, b } = memoryPair()
  const offerer = end()
  const answer = answerChannel(b, offerer)
  new ByteStream(a)
  a.write([Buffer.from([2])])
  await assert.rejects(answer, { code: 'PROXY_ERR_HANDSHAKE', message: /channel ssh: version 2/ })
  assert.ok(offerer.tries.idle)
})

test('an end that gets its own messages back learns nothing from them, and joins nothing', async () => {
  const { a, b } = memoryPair()
  const joining = joinChannel(a, end())
  const stream = new ByteStream(b)
  const first = await stream.read(MESSAGE_1)
  // Its own point, as if it were the offerer's.
  b.write([Buffer.concat([first.subarray(0, 1), first.subarray(17)])])
  const tag = await stream.read(TAG)
  b.write([tag])
  await assert.rejects(joining, { code: 'PROXY_ERR_CHANNEL_PASSWORD' })
})

test('a message 1 that is played again gets another point, and its tag does not fit any more', async () => {
  const seen: Buffer[] = []
  const keep: Change = (bytes) => {
    seen.push(Buffer.from(bytes))
    return bytes
  }
  const first = manInTheMiddle({ toAcceptor: keep })
  await close(...(await proxies(await outcome(first, end(), end()))))
  const said = Buffer.concat(seen)
  const { a, b } = memoryPair()
  const offerer = end()
  const answer = answerChannel(b, offerer)
  const stream = new ByteStream(a)
  a.write([said.subarray(0, MESSAGE_1)])
  const point = await stream.read(MESSAGE_2)
  assert.notDeepEqual(point, Buffer.concat(first.fromAcceptor).subarray(0, MESSAGE_2))
  a.write([said.subarray(MESSAGE_1, MESSAGE_1 + TAG)])
  await assert.rejects(answer, { code: 'PROXY_ERR_CHANNEL_PASSWORD' })
  assert.equal(offerer.tries.idle, false)
  // Nothing that a guess could be checked by.
  assert.equal(stream.total, MESSAGE_2)
})

test('an offerer shows no tag to whoever has shown none', async () => {
  const { a, b } = memoryPair()
  const offerer = end('ssh', { timeout: 50 })
  const answer = answerChannel(b, offerer)
  const stream = new ByteStream(a)
  const sid = Buffer.alloc(16, 7)
  const side = await beginCpace({ prs: Buffer.from('guess'), ci: contextOf('ssh'), sid })
  a.write([Buffer.concat([Buffer.from([1]), sid, side.point])])
  await assert.rejects(answer, { code: 'PROXY_ERR_HANDSHAKE_TIMEOUT' })
  assert.equal(stream.total, MESSAGE_2)
  assert.equal(offerer.tries.idle, false)
})

test('the layout is as it is written down: a stranger who knows the password joins', async () => {
  const { a, b } = memoryPair()
  const answer = answerChannel(b, end())
  answer.catch(() => {})
  const stream = new ByteStream(a)
  const sid = Buffer.alloc(16, 7)
  const side = await beginCpace({ prs: Buffer.from('ssh'), ci: contextOf('ssh'), sid })
  a.write([Buffer.concat([Buffer.from([1]), sid, side.point])])
  const theirs = (await stream.read(MESSAGE_2)).subarray(1)
  const keys = keysOf(sid, side.common(theirs), side.point, theirs)
  a.write([keys.joinerTag])
  assert.deepEqual(await stream.read(TAG), keys.offererTag)
  assert.equal(keys.main.length, 16)
  a.destroy()
  await assert.rejects(answer)
})

const silences: [name: string, say: Uint8Array][] = [
  ['says nothing', Buffer.alloc(0)],
  ['says one byte', Buffer.from([1])],
  ['stops in the middle of message 1', Buffer.alloc(30, 1)],
]
for (const [name, say] of silences) {
  test(`an offerer gives up one that ${name}, and one that is cut there`, async () => {
    for (const cut of [false, true]) {
      const { a, b } = memoryPair()
      const offerer = end('ssh', { timeout: 50 })
      const answer = answerChannel(b, offerer)
      if (say.length > 0) a.write([say])
      if (cut) a.destroy()
      const code = cut ? 'PROXY_ERR_LINK_LOST' : 'PROXY_ERR_HANDSHAKE_TIMEOUT'
      await assert.rejects(soon(answer, name), { code })
      assert.ok(offerer.tries.idle)
    }
  })
}

test('a joiner gives up an offerer that never answers, without counting it as a guess', async () => {
  const { a } = memoryPair()
  const joiner = end('ssh', { timeout: 50 })
  await assert.rejects(joinChannel(a, joiner), { code: 'PROXY_ERR_HANDSHAKE_TIMEOUT' })
  assert.ok(joiner.tries.idle)
})

test('after ten failures nobody is answered until the minute is over, at either end', async (t) => {
  const tries = new ChannelTries('ssh')
  for (let guess = 0; guess < 10; guess++) {
    const { a, b } = memoryPair()
    const made = await outcome({ dialled: a, accepted: b }, end('wrong'), end('ssh', { tries }))
    assert.equal(codeOf(made.offerer), 'PROXY_ERR_CHANNEL_PASSWORD')
  }
  const full = { code: 'PROXY_ERR_CHANNEL_LIMIT', retryable: true }
  const late = memoryPair()
  const stream = new ByteStream(late.a)
  late.a.write([Buffer.alloc(MESSAGE_1, 1)])
  await assert.rejects(answerChannel(late.b, end('ssh', { tries })), full)
  assert.equal(stream.total, 0)
  await assert.rejects(joinChannel(memoryPair().a, end('ssh', { tries })), full)
  const minuteLater = performance.now() + 60_000
  t.mock.method(performance, 'now', () => minuteLater)
  const { a, b } = memoryPair()
  await close(...(await proxies(await outcome({ dialled: a, accepted: b }, end(), end('ssh', { tries })))))
})

test('guesses at once are no more than guesses one after the other', async () => {
  const tries = new ChannelTries('ssh')
  const streams: ByteStream[] = []
  const answers: Promise<unknown>[] = []
  const said = Buffer.concat([Buffer.from([1]), GUESS.sid, (await beginCpace(GUESS)).point])
  for (let guess = 0; guess < 30; guess++) {
    const { a, b } = memoryPair()
    streams.push(new ByteStream(a))
    answers.push(assert.rejects(answerChannel(b, end('ssh', { tries, timeout: 400 }))))
    a.write([said])
  }
  await Promise.all(answers)
  assert.equal(streams.filter(({ total }) => total > 0).length, 10)
  await assert.rejects(tries.begin(), { code: 'PROXY_ERR_CHANNEL_LIMIT' })
})

test('those who know the password come in however many they are', async () => {
  const tries = new ChannelTries('ssh')
  const many = await Promise.all(
    Array.from({ length: 25 }, () => {
      const { a, b } = memoryPair()
      const patient = { tries, timeout: 5000 }
      return outcome({ dialled: a, accepted: b }, end('ssh', { timeout: 5000 }), end('ssh', patient))
    }),
  )
  for (const made of many) await close(...(await proxies(made)))
  assert.ok(tries.idle)
})

test('one that is lost while it waits for its turn takes nobody else\u2019s', async () => {
  const tries = new ChannelTries('ssh', { failures: 1 })
  const first = await tries.begin()
  const { a, b } = memoryPair()
  const answer = answerChannel(b, end('ssh', { tries }))
  a.write([Buffer.concat([Buffer.from([1]), Buffer.alloc(16), (await beginCpace(GUESS)).point])])
  a.destroy()
  await assert.rejects(answer, { code: 'PROXY_ERR_LINK_LOST' })
  first.right()
  first.end()
  const next = await soon(tries.begin(), 'a turn')
  next.end()
  assert.ok(tries.idle)
})
