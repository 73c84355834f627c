import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import type { Acceptor, Link } from '../../lib/core/index.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { codePairs } from '../helpers/contract/code.ts'
import { type Middle, manInTheMiddle } from '../helpers/contract/man-in-the-middle.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ByteStream } from '../helpers/core/byte-stream.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import { type FaultyPair, faultyPair, resumingPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, until } from '../helpers/resume/hurry.ts'
import { knock, type RawLink, type RawResumer, rawResumer } from '../helpers/resume/raw-resume.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** Somebody in between who has kept all that was ever said, and says it again. */

watchForStrays()
hurry()

/** Preamble and message 1; what answers them. */
const OPENING = 89
const ANSWER = 80

/** What an acceptor answers to these bytes until it closes, or `ms` are over, and whether it has closed. */
async function replay(acceptor: Acceptor, bytes: Uint8Array): Promise<{ answer: Buffer; code: string }> {
  const links = memoryPair()
  const stream = new ByteStream(links.a)
  const accepting = acceptor.accept(links.b).then(
    () => 'through',
    (error: { code?: string }) => String(error.code),
  )
  links.a.write([bytes])
  const answer = await soon(stream.rest(), 'the end of a replay')
  const code = await soon(accepting, 'the end of a replay, inside')
  links.a.destroy()
  return { answer, code }
}

/** A conversation, resumed some times, whose every byte is known; it still works afterwards, and noticed nothing. */
async function undisturbed(resumes: number, run: (pair: FaultyPair) => Promise<void>): Promise<void> {
  await using pair = await faultyPair()
  const { opened, accepted } = await (await codePairs(pair.accepting.proxy, pair.dialling.code)).next()
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  const talk = async (): Promise<void> => {
    await Promise.all([near.say(5000), far.say(5000)])
    await soon(Promise.all([near.hear(far.said.at), far.hear(near.said.at)]), 'what was said')
  }
  await talk()
  for (let resume = 1; resume <= resumes; resume++) {
    pair.network.cut('rst')
    await until(() => pair.network.paths.length === 1 + resume, 'the next link')
    await talk()
  }
  const before = [pair.dialling.states.length, pair.accepting.states.length]
  const links = pair.network.paths.length
  await run(pair)
  await talk()
  assert.deepEqual([pair.dialling.states.length, pair.accepting.states.length], before)
  assert.equal(pair.network.paths.length, links)
  assert.deepEqual(pair.others, [])
}

test('what a dialler sent to resume is closed unanswered when it comes again, whole or in part', async () => {
  await undisturbed(4, async ({ network, acceptor }) => {
    for (const path of network.paths.slice(1)) {
      const said = path.sent('up')
      assert.ok(said.length > 5000)
      for (const length of [OPENING, OPENING + 36, said.length - 1, said.length]) {
        const { answer, code } = await replay(acceptor, said.subarray(0, length))
        assert.deepEqual({ answer: answer.length, code }, { answer: 0, code: 'PROXY_ERR_STALE_EPOCH' })
      }
    }
  })
})

test('what a dialler sent to begin gets message 2 and nothing more when it comes again', async () => {
  await undisturbed(1, async ({ network, acceptor }) => {
    const [first] = network.paths
    assert.ok(first)
    for (let turn = 0; turn < 3; turn++) {
      const { answer, code } = await replay(acceptor, first.sent('up'))
      assert.deepEqual({ answer: answer.length, code }, { answer: ANSWER, code: 'PROXY_ERR_RECORD_AUTH' })
    }
  })
})

/** The session goes on over this link. */
async function lives(raw: RawResumer, link: RawLink = raw.link): Promise<void> {
  link.send(frame(Frame.ping, 0, u64(7)))
  await soon(link.next(Frame.pong), 'a pong')
  assert.equal(raw.main.reason, undefined)
}

test('an attempt that never said hello is worth nothing to whoever repeats it', async () => {
  await using raw = await rawResumer('dialler')
  const states: string[] = []
  raw.proxy.on('state', (state) => states.push(state))
  const attempt = await raw.shake()
  const hello = attempt.seal(frame(Frame.hello, 0, u64(0)))
  const more = Buffer.concat([hello, attempt.seal(frame(Frame.unlisten, 1))])
  for (const behind of [hello, more]) {
    const { answer, code } = await replay(raw.acceptor, Buffer.concat([attempt.opening, behind]))
    assert.deepEqual({ answer: answer.length, code }, { answer: ANSWER, code: 'PROXY_ERR_RECORD_AUTH' })
    await lives(raw)
  }
  assert.deepEqual(states, [])
  assert.equal(raw.main.epoch, 0)
  // And the attempt itself is as good as before.
  attempt.sendRaw(more)
  await soon(attempt.greeting(), 'hello')
  await lives(raw, attempt)
  attempt.link.destroy()
})

test('two sessions whose links are crossed in the middle lose these links and nothing else', async () => {
  await using one = await rawResumer('dialler')
  await using two = await rawResumer('dialler', { acceptor: one.acceptor })
  const [first, second] = [await one.shake(), await two.shake()]
  const hello = frame(Frame.hello, 0, u64(0))
  const [ofFirst, ofSecond] = [first.seal(hello), second.seal(hello)]
  first.sendRaw(ofSecond)
  second.sendRaw(ofFirst)
  for (const link of [first, second]) {
    await soon(link.over(), 'the end of the link')
    assert.equal(link.stream.total, ANSWER)
  }
  await lives(one)
  await lives(two)
})

test('a session is worth nothing to one of the same credential who does not hold its secret', async () => {
  await using mine = await rawResumer('dialler')
  await using theirs = await rawResumer('dialler', { acceptor: mine.acceptor })
  const { session } = theirs.ticket()
  const secrets = [mine.ticket().secret, Buffer.alloc(32), Buffer.alloc(0)]
  for (const [index, secret] of secrets.entries()) {
    const link = await knock(mine.acceptor, { ticket: { session, secret, epoch: 1000 + index } })
    assert.equal(link.resumed, true)
    link.hello(0)
    await soon(link.over(), 'the end of the link')
    assert.equal(link.stream.total, ANSWER)
    await lives(theirs)
  }
  assert.equal(theirs.main.epoch, 0)
  await theirs.again()
  await lives(theirs)
})

for (const role of ['dialler', 'acceptor'] as const) {
  test(`records of an older link, or sent back to their sender, open nothing (from the ${role})`, async () => {
    await using raw = await rawResumer(role)
    const old = raw.link
    const link = await raw.again()
    old.sendRaw(link.seal(frame(Frame.unlisten, 1)))
    for (const record of [old.seal(frame(Frame.unlisten, 1)), link.seal(frame(Frame.unlisten, 2)).reverse()]) {
      raw.link.sendRaw(record)
      await soon(raw.link.over(), 'the end of the link')
      await raw.again()
      await lives(raw)
    }
  })
}

test('a hello sent back to the dialler is not the hello of the acceptor', async () => {
  let onLink: (link: Link) => void = () => {}
  const middles: Middle[] = []
  let sentBack = 0
  const dial = async (): Promise<Link> => {
    const reflects = middles.length === 1
    const middle = manInTheMiddle({
      toAcceptor(bytes, at) {
        if (!reflects || at < OPENING) return bytes
        sentBack += bytes.length
        middle.toDialler(bytes)
        return Buffer.alloc(0)
      },
    })
    middles.push(middle)
    onLink(middle.accepted)
    return middle.dialled
  }
  const listen = (callback: (link: Link) => void): void => {
    onLink = callback
  }
  await using pair = await resumingPair({ dial, listen })
  middles[0]?.dialled.destroy(new Error('cut'))
  await until(() => pair.dialling.states.length === 2, 'the resume')
  assert.equal(sentBack, 36)
  assert.equal(middles.length, 3)
  assert.equal(pair.accepting.proxy.main.epoch, 2)
  assert.equal(pair.dialling.proxy.main.reason, undefined)
})

test('what an acceptor has said before is not an answer, however much of it comes', async () => {
  await using pair = await faultyPair()
  const { network, dialling } = pair
  network.cut('rst')
  await until(() => dialling.states.length === 2, 'the first resume')
  const before = network.paths.map((path) => path.sent('down'))
  assert.deepEqual(
    before.map(({ length }) => length > ANSWER),
    [true, true],
  )
  const { onLink } = network
  let attempts = 0
  network.onLink = (link, path) => {
    const answer = before[attempts++]
    if (!answer) {
      onLink?.(link, path)
      return
    }
    const stream = new ByteStream(link)
    void stream.read(OPENING).then(() => link.write([answer]))
    void stream.rest().then((rest) => {
      assert.equal(rest.length, 0, 'no hello')
      link.destroy()
    })
  }
  network.cut('rst')
  await until(() => dialling.states.length === 4, 'the second resume')
  assert.equal(attempts, 3)
  assert.deepEqual(dialling.states, ['resuming', 'connected', 'resuming', 'connected'])
  assert.deepEqual(pair.others, [])
})
