import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { Acceptor, type Link, linkFrom, Proxy } from '../../lib/core/index.ts'
import { SINK } from '../helpers/contract/attacker.ts'
import { codePairs } from '../helpers/contract/code.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u32, u64 } from '../helpers/core/bytes.ts'
import { PSK } from '../helpers/core/raw-peer.ts'
import { faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { knock, rawResumer } from '../helpers/resume/raw-resume.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** Moments that are easy to forget, and what somebody with bad intentions makes of them. */

watchForStrays()
hurry()

const MIB = 1024 * 1024

/** A link over a stream that is destroyed in the very turn in which the bytes of a hello come, `length` before these. */
function hasty(link: Link, length: number, before: () => void = () => {}): Link {
  let total = 0
  const duplex = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, callback) {
      link.write([chunk])
      callback()
    },
    destroy(error, callback) {
      link.destroy()
      callback(error)
    },
  })
  link.start({
    received(bytes) {
      total += bytes.length
      if (total > length) before()
      duplex.push(Buffer.from(bytes))
      if (total > length) duplex.destroy(new Error('gone'))
      return true
    },
    drained() {},
    ended: () => duplex.push(null),
    closed: () => duplex.destroy(),
  })
  return linkFrom(duplex)
}

/** What comes before the hello of a dialler, and of an acceptor. */
const HANDSHAKE = { dialler: 89, acceptor: 80 }

test('a link that is lost in the turn of its hello leaves the acceptor able to go on, and to end', async () => {
  for (const cut of [true, false]) {
    await using raw = await rawResumer('dialler', { main: { resumeTimeout: 100 } })
    if (cut) raw.cut()
    const link = await knock(raw.acceptor, { ticket: raw.ticket(), wrap: (at) => hasty(at, HANDSHAKE.dialler) })
    assert.equal(link.resumed, true)
    link.hello(0)
    await soon(link.over(), 'the end of the link')
    await turns()
    if (raw.main.linked) {
      raw.link.send(frame(Frame.ping, 0, u64(1)))
      await soon(raw.link.next(Frame.pong), 'the link that was there before, if it was left')
      raw.cut()
    }
    assert.equal((await soon(raw.ended, 'the end', 1000)).code, 'PROXY_ERR_SESSION_LOST')
  }
})

test('a link that is lost in the turn of its hello is one lost link more for a dialler', async () => {
  await using raw = await rawResumer('acceptor')
  let turn = 0
  raw.door.wrap = (link) =>
    hasty(link, HANDSHAKE.acceptor, () => {
      turn++
      // Whatever this side has to say in that very turn.
      raw.main.control(Frame.unlisten, turn)
    })
  raw.cut()
  for (let attempt = 1; attempt <= 3; attempt++) {
    const link = await raw.shake()
    await link.greeting()
    // The next attempt follows at once.
    if (attempt === 3) raw.door.wrap = (link) => link
    link.hello(0)
    await soon(link.over(), 'the end of the link')
    await turns()
  }
  assert.ok(turn >= 3)
  const link = await raw.again({ cut: false })
  for (let id = 1; id <= 3; id++) assert.equal((await soon(link.next(Frame.unlisten), 'what was said')).id, id)
})

test('a main connection that loses its link before anybody takes it goes on, and can be closed', async () => {
  for (const then of ['close', 'attach', 'resume'] as const) {
    const acceptor = new Acceptor({ pskFor: async () => PSK, resumeTimeout: 200 })
    const link = await knock(acceptor)
    link.hello(0)
    const main = await link.real
    link.link.destroy(new Error('cut'))
    await turns()
    if (then === 'close') {
      main.close()
      assert.equal((await soon(main.closed, 'the end')).code, 'PROXY_ERR_CLOSED')
    } else if (then === 'attach') {
      const proxy = new Proxy(main)
      const states: string[] = []
      proxy.on('state', (state) => states.push(state))
      assert.equal((await soon(main.closed, 'the end')).code, 'PROXY_ERR_SESSION_LOST')
      await turns()
      assert.equal(proxy.state, 'closed')
    } else {
      const next = await knock(acceptor, { ticket: { session: link.session, secret: link.secret, epoch: 1 } })
      next.hello(0)
      await soon(next.greeting(), 'hello')
      await using proxy = new Proxy(main)
      next.send(frame(Frame.ping, 0, u64(1)))
      await soon(next.next(Frame.pong), 'a pong')
      assert.equal(proxy.state, 'connected')
      next.link.destroy()
    }
  }
})

test('a Proxy that is made while there is no link knows it', async () => {
  const acceptor = new Acceptor({ pskFor: async () => PSK, resumeTimeout: 5000 })
  const link = await knock(acceptor)
  link.hello(0)
  const main = await link.real
  link.link.destroy(new Error('cut'))
  await turns()
  await using proxy = new Proxy(main)
  await until(() => proxy.state === 'resuming', `it says ${proxy.state}`, 200)
})

for (const way of ['dialling', 'accepting'] as const) {
  test(`what a drain of the ${way} side has finished reaches the far side over the next link`, async () => {
    await using pair = await faultyPair({ record: false })
    const [near, far] = way === 'dialling' ? [pair.dialling, pair.accepting] : [pair.accepting, pair.dialling]
    const { opened, accepted } = await (await codePairs(far.proxy, near.code)).next()
    const [one, two] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
    await two.sayAll(1000, 1000)
    await one.hearAll(1000)
    // The far side's direction has ended. This one ends now, and nothing of it arrives.
    pair.network.hold()
    await one.sayAll(20_000, 20_000)
    await until(() => [...near.proxy.subConnections].length === 0, 'nothing open here')
    pair.network.block('refuse')
    pair.network.cut('rst')
    await until(() => !near.proxy.main.linked, 'no link')
    const draining = near.proxy.drain()
    await turns()
    pair.network.unblock()
    await soon(two.hearAll(20_000), 'what was said')
    await soon(draining, 'the drain')
  })
}

for (const role of ['dialler', 'acceptor'] as const) {
  test(`a peer that breaks a rule behind its hello is not sent again all that was kept for it (raw ${role})`, async () => {
    await using raw = await rawResumer(role, { capacity: 65_536 })
    const sub = await raw.proxy.open({ to: SINK })
    sub.on('error', () => {})
    const { id } = await raw.link.next(Frame.open)
    raw.link.send(frame(Frame.opened, id, u32(0xffff_ffff)))
    sub.write(Buffer.alloc(4 * MIB, 1))
    let came = 0
    while (came < 4 * MIB) came += (await soon(raw.link.next(Frame.data, id), 'data')).payload.length
    raw.cut()
    const link = await raw.shake()
    if (role === 'acceptor') await link.greeting()
    link.hello(0)
    link.send(frame(Frame.ack, 0, u64(10_000_000)))
    link.pause()
    assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_ACK_RANGE')
    await turns()
    const real = role === 'dialler' ? link.links.b : link.links.a
    const { pending } = real
    link.resume()
    link.link.destroy()
    assert.ok(pending <= MIB, `${pending} bytes wait in a link of a session that is over`)
  })
}

test('sessions without a link have their place, and resume in it when there is no other one left', async () => {
  const acceptor = new Acceptor({ pskFor: async () => PSK, maxSessions: 2, resumeTimeout: 60_000 })
  const links = []
  for (let count = 0; count < 2; count++) {
    const link = await knock(acceptor)
    link.hello(0)
    new Proxy(await link.real)
    link.link.destroy(new Error('cut'))
    links.push(link)
  }
  const third = await knock(acceptor)
  third.hello(0)
  await assert.rejects(third.real, { code: 'PROXY_ERR_TOO_MANY_SESSIONS' })
  third.link.destroy()
  for (const { session, secret, real } of links) {
    const next = await knock(acceptor, { ticket: { session, secret, epoch: 1 } })
    assert.equal(next.resumed, true)
    next.hello(0)
    await soon(next.greeting(), 'hello')
    const main = await real
    main.close()
    next.link.destroy()
  }
  // Those have ended, and there is room.
  const fourth = await knock(acceptor)
  fourth.hello(0)
  const main = await fourth.real
  main.close()
  fourth.link.destroy()
  await main.closed
})
