import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { memoryPair } from '../../lib/transports/memory.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ByteStream } from '../helpers/core/byte-stream.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import { hurry, turns } from '../helpers/resume/hurry.ts'
import { knock, type RawLink, type RawResumer, rawResumer } from '../helpers/resume/raw-resume.ts'

/** Attempts to resume that overlap, and links that are taken over while they live. */

watchForStrays()
hurry()

/** Message 2, and what stands before it. */
const ANSWER = 80

const harmless = (id: number): Buffer => frame(Frame.unlisten, id)

function statesOf(raw: RawResumer): string[] {
  const states: string[] = []
  raw.proxy.on('state', (state) => states.push(state))
  return states
}

/** Both directions of this link carry counted records, each once. */
async function carries(raw: RawResumer, link: RawLink, id: number): Promise<void> {
  raw.main.control(Frame.unlisten, id)
  assert.equal((await soon(link.next(Frame.unlisten), 'a counted record')).id, id)
  link.send(harmless(id))
  link.send(frame(Frame.ping, 0, u64(id)))
  assert.equal((await soon(link.next(Frame.pong), 'a pong')).payload.readBigUInt64BE(), BigInt(id))
  assert.equal(raw.main.reason, undefined)
}

/** Nothing but message 2 has come on it, and it is closed. */
async function turnedAway(link: RawLink): Promise<void> {
  await soon(link.over(), 'the end of the link')
  assert.equal(link.stream.total, ANSWER)
  await assert.rejects(link.real, { code: 'PROXY_ERR_STALE_EPOCH' })
}

test('an attempt whose hello comes after that of a later one is turned away', async () => {
  for (const cut of [true, false]) {
    await using raw = await rawResumer('dialler')
    await carries(raw, raw.link, 1)
    if (cut) raw.cut()
    const late = await raw.shake()
    const live = await raw.again({ cut: false })
    await carries(raw, live, 2)
    const states = statesOf(raw)
    late.hello(raw.received)
    await turnedAway(late)
    await carries(raw, live, 3)
    assert.deepEqual(states, [])
    assert.equal(raw.main.epoch, 2)
  }
})

test('even a hello that would end the session is worth nothing when it comes late', async () => {
  await using raw = await rawResumer('dialler')
  const late = await raw.shake()
  const live = await raw.again({ cut: false })
  late.hello(2 ** 40)
  await turnedAway(late)
  await carries(raw, live, 2)
})

test('an attempt that ends before the hello of a later one is taken, and then the later one', async () => {
  for (const cut of [true, false]) {
    await using raw = await rawResumer('dialler')
    await carries(raw, raw.link, 1)
    if (cut) raw.cut()
    const first = await raw.shake()
    const second = await raw.shake()
    first.hello(raw.received)
    await soon(first.greeting(), 'the first hello')
    assert.equal(raw.main.epoch, 1)
    raw.main.control(Frame.unlisten, 2)
    assert.equal((await soon(first.next(Frame.unlisten), 'over the first')).id, 2)
    // The dialler has given the first one up meanwhile, and never saw that record.
    second.hello(raw.received)
    assert.equal(await soon(second.greeting(), 'the second hello'), 1)
    assert.equal(raw.main.epoch, 2)
    assert.equal((await soon(second.next(Frame.unlisten), 'once more')).id, 2)
    await carries(raw, second, 3)
    await soon(first.over(), 'the end of the first')
    second.link.destroy()
  }
})

test('of two attempts with one epoch the first hello wins', async () => {
  await using raw = await rawResumer('dialler')
  const ticket = raw.ticket()
  const [one, two] = await Promise.all([knock(raw.acceptor, { ticket }), knock(raw.acceptor, { ticket })])
  two.hello(0)
  await soon(two.greeting(), 'hello')
  one.hello(0)
  await turnedAway(one)
  await carries(raw, two, 1)
  two.link.destroy()
})

test('many attempts at once: the newest epoch that says hello is the one that lives', async () => {
  await using raw = await rawResumer('dialler')
  const attempts = await Promise.all(Array.from({ length: 40 }, () => raw.shake()))
  // In an order of their own; each hello is a commit, or comes too late.
  let highest = 0
  for (const turn of attempts.keys()) {
    const epoch = ((turn * 17) % 40) + 1
    const link = attempts[epoch - 1]
    assert.ok(link)
    link.hello(0)
    if (epoch > highest) await soon(link.greeting(), `hello of ${epoch}`)
    else await turnedAway(link)
    highest = Math.max(highest, epoch)
    assert.equal(raw.main.epoch, highest)
  }
  const last = attempts.at(-1)
  assert.ok(last)
  await carries(raw, last, 1)
  for (const link of attempts.slice(0, -1)) await soon(link.over(), 'the end of the others')
  last.link.destroy()
})

test('message 1 of an epoch that is committed, or older, is closed unanswered', async () => {
  await using raw = await rawResumer('dialler')
  for (let resume = 0; resume < 3; resume++) await raw.again()
  const states = statesOf(raw)
  for (const epoch of [0, 1, 2, 3]) {
    await assert.rejects(knock(raw.acceptor, { ticket: raw.ticket(epoch) }), /ended 1 bytes early/)
  }
  assert.deepEqual(states, [])
  await carries(raw, raw.link, 1)
  // And the next one is not, however far ahead.
  const far = await knock(raw.acceptor, { ticket: raw.ticket(0xffff_ffff) })
  assert.equal(far.resumed, true)
  assert.equal(raw.main.epoch, 3)
  far.link.destroy()
})

test('a session that ends while an attempt is under way takes that attempt along', async () => {
  await using raw = await rawResumer('dialler')
  const link = await raw.shake()
  raw.proxy.close()
  await raw.proxy.closed
  link.hello(0)
  await turnedAway(link)
})

test('a link that the acceptor still believes in is destroyed, and what it had not opened is dropped', async () => {
  for (const how of ['part of a record', 'a whole record, later', 'nothing']) {
    await using raw = await rawResumer('dialler')
    await carries(raw, raw.link, 1)
    const states = statesOf(raw)
    const old = raw.link
    const record = old.seal(Buffer.concat([harmless(2), frame(Frame.ping, 0, u64(2))]))
    if (how === 'part of a record') old.sendRaw(record.subarray(0, record.length - 1))
    await turns()
    const link = await raw.again({ cut: false })
    await soon(old.over(), 'the end of the old link')
    // What the old link swallowed was not counted.
    assert.equal(Number(link.records[0]?.readBigUInt64BE(8)), 1)
    if (how === 'part of a record') old.sendRaw(record.subarray(-1))
    if (how === 'a whole record, later') old.sendRaw(record)
    await turns()
    await carries(raw, link, 3)
    assert.deepEqual(states, ['resuming', 'connected'])
    const third = await raw.again()
    assert.equal(Number(third.records[0]?.readBigUInt64BE(8)), 2)
  }
})

test('records on their way when the link is taken over come once, over the new one', async () => {
  await using raw = await rawResumer('dialler', { capacity: 0 })
  const old = raw.link
  old.pause()
  for (let id = 1; id <= 50; id++) {
    raw.main.control(Frame.unlisten, id)
    await turns(1)
  }
  const before = old.counted
  assert.ok(before < 50, 'some wait')
  const link = await raw.again({ cut: false, expected: before })
  old.resume()
  const ids: number[] = []
  while (ids.length < 50 - before) ids.push((await soon(link.next(Frame.unlisten), 'a record')).id)
  assert.deepEqual(
    ids,
    Array.from(ids.keys(), (index) => before + index + 1),
  )
  await turns()
  assert.equal(raw.main.reason, undefined)
})

test('a dialler takes nothing from an attempt that it has given up', async () => {
  for (const stage of ['message 2', 'hello'] as const) {
    await using raw = await rawResumer('acceptor', { timeout: 60 })
    raw.main.control(Frame.unlisten, 1)
    await raw.link.next(Frame.unlisten)
    raw.cut()
    const first = await raw.door.next()
    const early = stage === 'hello' ? first.answer(raw.ticket(first.epoch)) : undefined
    if (early) await early.greeting()
    const second = await soon(raw.door.next(), 'the next attempt')
    assert.equal(second.epoch, first.epoch + 1)
    const late = early ?? first.answer(raw.ticket(first.epoch))
    late.hello(raw.received)
    late.send(harmless(2))
    await soon(late.over(), 'the end of the first')
    const link = second.answer(raw.ticket(second.epoch))
    assert.equal(await soon(link.greeting(), 'hello'), 0, 'nothing of the first was counted')
    link.hello(raw.received)
    await eventually(() => raw.main.linked, 'a link')
    await carries(raw, link, 3)
    link.link.destroy()
  }
})

test('a dialler sends nothing behind its hello before the acceptor has said its own', async () => {
  await using raw = await rawResumer('acceptor')
  raw.main.control(Frame.unlisten, 1)
  await raw.link.next(Frame.unlisten)
  raw.cut()
  const link = await raw.shake()
  await link.greeting()
  raw.main.control(Frame.unlisten, 2)
  await turns()
  assert.equal(link.records.length, 1)
  link.hello(0)
  assert.equal((await soon(link.next(Frame.unlisten), 'once more')).id, 1)
  assert.equal((await soon(link.next(Frame.unlisten), 'what waited')).id, 2)
  link.link.destroy()
})

test('an acceptor says nothing before the hello of a dialler has opened', async () => {
  await using raw = await rawResumer('dialler')
  raw.main.control(Frame.unlisten, 1)
  await raw.link.next(Frame.unlisten)
  const links = memoryPair()
  const stream = new ByteStream(links.a)
  raw.acceptor.accept(links.b).catch(() => {})
  const attempt = await raw.shake()
  links.a.write([attempt.opening])
  await stream.read(ANSWER)
  const hello = attempt.seal(frame(Frame.hello, 0, u64(0)))
  attempt.sendRaw(hello.subarray(0, hello.length - 1))
  links.a.write([hello])
  await turns()
  assert.equal(attempt.records.length, 0)
  assert.equal(stream.total, ANSWER)
  assert.equal(raw.main.epoch, 0)
  attempt.sendRaw(hello.subarray(-1))
  await soon(attempt.greeting(), 'hello')
  attempt.link.destroy()
  links.a.destroy()
})
