import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import type { SubConnection } from '../../lib/core/index.ts'
import { SINK } from '../helpers/contract/attacker.ts'
import { codePairs, endOf } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u32 } from '../helpers/core/bytes.ts'
import { faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { type RawLink, type RawResumer, rawResumer } from '../helpers/resume/raw-resume.ts'

/** What one side holds for another one that does not acknowledge, does not read, or is not there. */

watchForStrays()
hurry()

const ROLES = ['dialler', 'acceptor'] as const
const KEPT = 1024 * 1024
const RECORD = 512 * 1024

/** A sub-connection that may send without end, as far as the raw side is concerned. */
async function endless(raw: RawResumer): Promise<SubConnection> {
  const sub = await raw.proxy.open({ to: SINK })
  sub.on('error', () => {})
  const { id } = await raw.link.next(Frame.open)
  raw.link.send(frame(Frame.opened, id, u32(0xffff_ffff)))
  return sub
}

const plain = (link: RawLink): number => link.records.reduce((sum, record) => sum + record.length, 0)

/** What the raw side has when for some turns nothing more came. */
async function settled(link: RawLink): Promise<number> {
  let before = -1
  while (plain(link) !== before) {
    before = plain(link)
    await turns(30)
  }
  return before
}

for (const role of ROLES) {
  const real = role === 'dialler' ? 'acceptor' : 'dialler'

  test(`a peer that reads and never acknowledges gets so much, over any number of links (${real})`, async () => {
    await using raw = await rawResumer(role, { main: { limits: { keptBytes: KEPT } } })
    const sub = await endless(raw)
    const bytes = Buffer.alloc(8 * KEPT, 1)
    sub.write(bytes)
    const first = await settled(raw.link)
    assert.ok(first >= KEPT - RECORD && first <= KEPT + RECORD, `${first}`)
    for (let resume = 1; resume <= 3; resume++) {
      const link = await raw.again({ expected: 1 })
      const again = await settled(link)
      // All but the record that the hello counted, which made some room.
      assert.ok(again >= KEPT - RECORD && again <= KEPT + RECORD, `${again} at resume ${resume}`)
      assert.equal(sub.writableLength, bytes.length, 'it is one write, and waits')
    }
    // From the first ack on it goes on.
    for (let acks = 0; acks < 40 && sub.writableLength > 0; acks++) {
      raw.link.ack(raw.received)
      await settled(raw.link)
    }
    assert.equal(sub.bytesWritten, bytes.length)
  })

  test(`small records cost more than their bytes, and are bounded too (${real})`, async () => {
    await using raw = await rawResumer(role, { main: { limits: { keptBytes: 100_000 } } })
    const sub = await endless(raw)
    let written = 0
    for (; written < 5000; written++) {
      sub.write('x')
      await turns(1)
      if (sub.writableLength > 0) break
    }
    assert.ok(written > 100 && written < 100_000 / 256 + 5, `${written} records are kept`)
    const link = await raw.again()
    await until(() => sub.writableLength === 0, 'room')
    assert.ok(link.counted <= 2)
  })

  test(`a peer that does not read is sent no more than its link takes, whatever waits for it (${real})`, async () => {
    await using raw = await rawResumer(role, { capacity: 65_536 })
    const sub = await endless(raw)
    sub.write(Buffer.alloc(4 * KEPT, 1))
    const kept = await settled(raw.link)
    assert.ok(kept > 4 * KEPT, 'much is kept')
    raw.cut()
    const link = await raw.shake()
    if (role === 'acceptor') await link.greeting()
    link.hello(0)
    if (role === 'dialler') await link.greeting()
    link.pause()
    await turns(200)
    const { links } = link
    const real = role === 'dialler' ? links.b : links.a
    assert.ok(real.pending <= RECORD + 65_536, `${real.pending} bytes wait in the link`)
    link.resume()
    await until(() => plain(link) >= kept, 'all of it', 8000)
    link.link.destroy()
  })
}

test('while there is no link, writers wait and little is held for them', async () => {
  await using pair = await faultyPair({ record: false })
  for (const [near, far] of [
    [pair.dialling, pair.accepting],
    [pair.accepting, pair.dialling],
  ] as const) {
    const pairs = await codePairs(far.proxy, near.code)
    const all = await Promise.all(Array.from({ length: 20 }, () => pairs.next()))
    pair.network.block('refuse')
    pair.network.cut('rst')
    await until(() => near.states.at(-1) === 'resuming' && far.states.at(-1) === 'resuming', 'no link')
    for (const { opened } of all) {
      let taken = 0
      while (taken < 200 && opened.write(Buffer.alloc(8192))) taken++
      assert.ok(taken < 20, `${taken} writes were taken`)
      assert.equal(opened.tryWrite(Buffer.alloc(100)), 0)
      assert.equal(
        opened.canWrite(() => {}),
        false,
      )
      assert.equal(opened.bytesWritten, 0)
    }
    await turns(50)
    for (const { opened } of all) assert.equal(opened.bytesWritten, 0)
    pair.network.unblock()
    const drained = all.map(({ opened }) => new Promise<void>((resolve) => opened.once('drain', resolve)))
    await soon(Promise.all(drained), 'room again')
    for (const { opened } of all) opened.destroy()
    for (const { accepted } of all) await endOf(accepted)
    await nothingLeft(near.proxy, far.proxy)
  }
})

test('while there is no link, opens wait up to a limit, are refused beyond it, and go on afterwards', async () => {
  const limits = { pendingOpens: 20, subConnections: 100 }
  await using pair = await faultyPair({ record: false, dialling: { limits }, accepting: { limits } })
  for (const [near, far] of [
    [pair.dialling, pair.accepting],
    [pair.accepting, pair.dialling],
  ] as const) {
    pair.network.block('refuse')
    pair.network.cut('fin')
    await until(() => near.states.at(-1) === 'resuming' && far.states.at(-1) === 'resuming', 'no link')
    const outcomes = new Map<string, number>()
    const count = (outcome: string): void => void outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    const dials = Array.from({ length: 1000 }, () =>
      near.proxy.dial({ Domain: 'none', Addr: '' }).then(
        () => count('connected'),
        (error: { code: string }) => count(error.code),
      ),
    )
    await turns(5)
    assert.deepEqual([...outcomes], [['PROXY_ERR_TOO_MANY_SUB_CONNECTIONS', 1000 - 20 - 100]])
    pair.network.unblock()
    await soon(Promise.all(dials), 'the rest')
    assert.equal(outcomes.get('PROXY_ERR_UNKNOWN_DOMAIN'), 120)
    await nothingLeft(near.proxy, far.proxy)
  }
})
