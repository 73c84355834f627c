import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { eventually, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u32, u64 } from '../helpers/core/bytes.ts'
import { hurry, turns } from '../helpers/resume/hurry.ts'
import { type RawLink, type RawResumer, rawResumer } from '../helpers/resume/raw-resume.ts'

/** Links on which a record does not open: each is lost, and three in a row that brought nothing else end the session. */

const ROLES = ['dialler', 'acceptor'] as const

watchForStrays()
hurry()

const harmless = frame(Frame.unlisten, 77)

/** Bytes that look like a record and do not open. */
const BROKEN: Record<string, (link: RawLink) => void> = {
  'a changed record': (link) => {
    const record = link.seal(harmless)
    record[6] = (record[6] ?? 0) ^ 1
    link.sendRaw(record)
  },
  'a record twice': (link) => {
    const record = link.seal(frame(Frame.ping, 0, u64(1)))
    link.sendRaw(Buffer.concat([record, record]))
  },
  'a length beyond all bounds': (link) => link.sendRaw(u32(524_289)),
  'a length below all bounds': (link) => link.sendRaw(u32(16)),
}

async function lost(link: RawLink): Promise<void> {
  await soon(link.over(), 'the end of the link')
}

/** The session still carries something, over the present link. */
async function goesOn(raw: RawResumer): Promise<void> {
  const { link } = raw
  link.send(frame(Frame.ping, 0, u64(99)))
  await soon(link.next(Frame.pong), 'a pong')
  assert.equal(raw.main.reason, undefined)
}

for (const role of ROLES) {
  const real = role === 'dialler' ? 'acceptor' : 'dialler'

  for (const [what, send] of Object.entries(BROKEN)) {
    test(`${what}: the third resume in a row that begins so ends the session (${real})`, async () => {
      await using raw = await rawResumer(role)
      // What came over other links does not count for this one.
      raw.link.send(harmless)
      send(raw.link)
      await lost(raw.link)
      for (let resume = 1; resume <= 3; resume++) {
        const link = await raw.again()
        assert.equal(raw.main.reason, undefined, `after ${resume - 1} resumes`)
        send(link)
        await lost(link)
      }
      const reason = await soon(raw.ended, 'the end')
      assert.equal(reason.code, 'PROXY_ERR_SESSION_LOST')
      assert.match(reason.message, /again and again/)
      assert.match(String(reason.cause), /PROXY_ERR_RECORD_|ProxyError/)
    })
  }

  test(`a counted record before the broken one begins the count again (${real})`, async () => {
    await using raw = await rawResumer(role)
    for (let resume = 1; resume <= 8; resume++) {
      const link = await raw.again()
      // Twice nothing but a broken one, then one that counts before it.
      if (resume % 3 === 0) link.send(harmless)
      link.sendRaw(u32(16))
      await lost(link)
      await turns(3)
    }
    await raw.again()
    await goesOn(raw)
  })

  test(`what is not counted does not begin the count again (${real})`, async () => {
    await using raw = await rawResumer(role)
    for (let resume = 1; resume <= 3; resume++) {
      const link = await raw.again()
      link.send(frame(Frame.ping, 0, u64(resume)))
      link.ack(0)
      await soon(link.next(Frame.pong), 'a pong')
      link.sendRaw(u32(16))
      await lost(link)
    }
    assert.match((await soon(raw.ended, 'the end')).message, /again and again/)
  })

  test(`a broken record on a first link is not a resume that failed (${real})`, async () => {
    await using raw = await rawResumer(role)
    raw.link.sendRaw(u32(16))
    await lost(raw.link)
    for (let resume = 1; resume <= 2; resume++) {
      const link = await raw.again()
      link.sendRaw(u32(16))
      await lost(link)
    }
    await raw.again()
    await goesOn(raw)
  })

  test(`an idle session outlives any number of cuts (${real})`, async () => {
    await using raw = await rawResumer(role)
    for (let resume = 1; resume <= 20; resume++) {
      const link = await raw.again()
      if (resume % 3 === 0) link.sendRaw(u32(100))
      if (resume % 2 === 0) link.links.cut(resume % 4 === 0 ? 'fin' : 'rst')
      await turns(3)
    }
    await raw.again()
    await goesOn(raw)
  })
}

test('a hello that does not open costs the acceptor that link, and the session nothing', async () => {
  await using raw = await rawResumer('dialler')
  const states: string[] = []
  raw.proxy.on('state', (state) => states.push(state))
  for (let attempt = 1; attempt <= 5; attempt++) {
    const link = await raw.shake()
    assert.equal(link.resumed, true)
    link.sendRaw(Buffer.concat([u32(40), Buffer.alloc(40, attempt)]))
    await lost(link)
    assert.equal(link.stream.total, 3 + 77, 'nothing but message 2')
  }
  await goesOn(raw)
  assert.deepEqual(states, [])
})

test('a hello that does not open costs the dialler that attempt, and it tries again', async () => {
  await using raw = await rawResumer('acceptor')
  raw.cut()
  for (let attempt = 1; attempt <= 5; attempt++) {
    const link = await raw.shake()
    await link.greeting()
    link.sendRaw(Buffer.concat([u32(40), Buffer.alloc(40, attempt)]))
    await lost(link)
    assert.equal(raw.main.reason, undefined)
  }
  await raw.again({ cut: false })
  await goesOn(raw)
  await eventually(() => raw.proxy.state === 'connected', 'connected')
})
