import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { decodeReason, Frame } from '../../lib/core/frame.ts'
import { Acceptor, type AcceptorOptions, type MainConnection, Proxy, ProxyError } from '../../lib/core/index.ts'
import { SINK } from '../helpers/contract/attacker.ts'
import { CODE, endOf } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, openPayload, u32 } from '../helpers/core/bytes.ts'
import { PSK } from '../helpers/core/raw-peer.ts'
import { hurry, turns } from '../helpers/resume/hurry.ts'
import {
  type KnockOptions,
  knock,
  type RawLink,
  type RawResumerOptions,
  rawResumer,
} from '../helpers/resume/raw-resume.ts'

/** Asking for a session that the acceptor does not know, or not from this one, and being answered so. */

watchForStrays()
hurry()

/** A status byte, a length, and message 2: an ephemeral key, the payload, a tag. */
const ANSWER = 1 + 2 + 32 + 29 + 16

async function begun(acceptor: Acceptor, options: KnockOptions = {}): Promise<{ link: RawLink; main: MainConnection }> {
  const link = await knock(acceptor, options)
  link.hello(0)
  const main = await link.real
  await link.greeting()
  return { link, main }
}

function acceptorOf(options: Partial<AcceptorOptions> = {}): Acceptor {
  return new Acceptor({ ...options, pskFor: async () => PSK })
}

test('a session that is unknown, over, expired or of another credential is answered alike, by a new one', async () => {
  const acceptor = acceptorOf({ resumeTimeout: 30 })
  const open: MainConnection[] = []
  const begin = async (options: KnockOptions = {}): Promise<RawLink> => {
    const { link, main } = await begun(acceptor, options)
    new Proxy(main)
    open.push(main)
    return link
  }
  const theirs = await begin({ name: 'theirs' })
  const closed = await begin({ name: 'mine' })
  const expired = await begin({ name: 'mine' })
  open[1]?.close()
  const lost = performance.now()
  expired.link.destroy(new Error('cut'))
  assert.equal((await soon(open[2]?.closed ?? Promise.reject(), 'the end')).code, 'PROXY_ERR_SESSION_LOST')
  assert.ok(performance.now() - lost >= 25, 'not before its time')
  const asked: Record<string, { session: Buffer; secret?: Buffer }> = {
    unknown: { session: randomBytes(16) },
    over: closed,
    expired,
    theirs,
    none: { session: Buffer.alloc(16) },
  }
  const answers = new Map<string, string>()
  for (const [what, { session, secret = Buffer.alloc(32) }] of Object.entries(asked)) {
    for (const epoch of [0, 1, 0xffff_ffff]) {
      const link = await knock(acceptor, { name: 'mine', ticket: { session, secret, epoch } })
      await turns(3)
      assert.equal(link.resumed, false, what)
      assert.equal(link.stream.total, ANSWER, what)
      assert.ok(!link.session.equals(session), what)
      answers.set(link.session.toString('hex'), what)
      link.hello(0)
      const main = await soon(link.real, what)
      assert.equal(await link.greeting(), 0)
      main.close()
      await soon(link.over(), 'the end of the link')
      link.link.destroy()
    }
  }
  assert.equal(answers.size, 15, 'each a session of its own')
  assert.equal(open[0]?.reason, undefined, 'that of another credential lives')
  assert.equal(open[0]?.linked, true)
  for (const main of open) main.close()
  await Promise.all(open.map((main) => main.closed))
  for (const { link } of [theirs, closed]) link.destroy()
})

test('the answer to one that is known has the same length', async () => {
  await using raw = await rawResumer('dialler')
  const link = await raw.shake()
  await turns(3)
  assert.equal(link.resumed, true)
  assert.equal(link.stream.total, ANSWER)
  link.link.destroy()
})

/** A real dialler that is told its session is gone; what then became of the old one and the new one. */
async function renewed(
  options: RawResumerOptions,
  run: (found: { old: Proxy; link: RawLink; main: MainConnection | undefined }) => Promise<void>,
): Promise<void> {
  let main: MainConnection | undefined
  const onRenewed = (fresh: MainConnection): void => {
    main = fresh
    options.onRenewed?.(fresh)
  }
  await using raw = await rawResumer('acceptor', { ...options, ...(options.onRenewed && { onRenewed }) })
  const sub = await raw.proxy.open({ to: SINK })
  const opening = raw.proxy.dial(SINK).catch((error: ProxyError) => error.code)
  const listening = raw.proxy.accept(CODE).catch((error: ProxyError) => error.code)
  const states: string[] = []
  raw.proxy.on('state', (state) => states.push(state))
  await raw.link.next(Frame.listen)
  raw.cut()
  const link = (await raw.door.next()).answer()
  assert.equal(await link.greeting(), 0)
  assert.deepEqual(states, ['resuming'], 'it waits for the hello')
  link.hello(0)
  const reason = await soon(raw.ended, 'the end of the old one')
  assert.equal(reason.code, 'PROXY_ERR_SESSION_LOST')
  assert.match(reason.message, /does not know it/)
  assert.equal((await soon(endOf(sub), 'the end of a sub-connection'))?.code, 'PROXY_ERR_SESSION_LOST')
  assert.deepEqual(await Promise.all([opening, listening]), Array(2).fill('PROXY_ERR_SESSION_LOST'))
  assert.deepEqual(states, ['resuming', 'closed'])
  await nothingLeft(raw.proxy)
  await run({ old: raw.proxy, link, main })
  link.link.destroy()
}

test('onRenewed gets a main connection that goes on over the very link that was dialled', async () => {
  await renewed({ onRenewed() {} }, async ({ link, main }) => {
    assert.ok(main)
    assert.ok(main.session.equals(link.session))
    const sink = { name: 'sink', dial: async () => Promise.reject(new ProxyError('PROXY_ERR_X', 'asked')) }
    await using proxy = new Proxy(main, { domains: [sink] })
    const states: string[] = []
    proxy.on('state', (state) => states.push(state))
    link.send(frame(Frame.open, 2, openPayload(1000, { to: SINK })))
    const { payload } = await soon(link.next(Frame.reset, 2), 'an answer')
    assert.equal(decodeReason(payload, new ProxyError('PROXY_ERR_RESET', '')).code, 'PROXY_ERR_X')
    assert.equal(main.linked, true)
    assert.deepEqual(states, [])
  })
})

test('the new main connection resumes in its turn', async () => {
  await using raw = await rawResumer('acceptor', { onRenewed: (main) => void fresh.push(main) })
  const fresh: MainConnection[] = []
  raw.cut()
  const link = (await raw.door.next()).answer()
  await link.greeting()
  link.hello(0)
  await soon(raw.ended, 'the end of the old one')
  const [main] = fresh
  assert.ok(main)
  await using proxy = new Proxy(main)
  await turns()
  link.link.destroy(new Error('cut'))
  const { session, epoch, answer } = await soon(raw.door.next(), 'the next attempt')
  assert.ok(session.equals(link.session))
  assert.equal(epoch, 1)
  const next = answer({ session, epoch, secret: link.secret })
  assert.equal(await soon(next.greeting(), 'hello'), 0)
  next.hello(0)
  next.send(frame(Frame.ping, 0, Buffer.alloc(8)))
  await soon(next.next(Frame.pong), 'a pong')
  assert.equal(proxy.state, 'connected')
  next.link.destroy()
})

test('without onRenewed the new main connection is closed, and the peer is told', async () => {
  await renewed({}, async ({ link }) => {
    const { payload } = await soon(link.next(Frame.goaway), 'goaway')
    assert.equal(decodeReason(payload, new ProxyError('PROXY_ERR_RESET', '')).code, 'PROXY_ERR_CLOSED')
    await soon(link.over(), 'the end of the link')
  })
})

test('a renewal that fails before its hello ends nothing: the old one is asked for again', async () => {
  await using raw = await rawResumer('acceptor', { onRenewed: () => assert.fail('nothing was renewed') })
  for (const bad of ['cut', 'hello', 'number'] as const) {
    if (bad === 'cut') raw.cut()
    const { answer } = await soon(raw.door.next(), 'an attempt')
    const link = answer()
    await link.greeting()
    if (bad === 'cut') link.link.destroy(new Error('cut'))
    else if (bad === 'hello') link.sendRaw(Buffer.concat([u32(40), Buffer.alloc(40)]))
    else link.hello(1)
    await soon(link.over(), 'the end of the link')
    assert.equal(raw.main.reason, undefined)
  }
  await raw.again({ cut: false })
  assert.equal(raw.main.linked, true)
})
