import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Frame } from '../../lib/core/frame.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import { faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { knock, rawResumer } from '../helpers/resume/raw-resume.ts'

/** A key and a nonce seal one record and never another one, however often a session changes its link. */

watchForStrays()
hurry()

const ROLES = ['dialler', 'acceptor'] as const
/** Preamble and message 1, or status and message 2. */
const HANDSHAKE = { up: 89, down: 80 } as const

/** The ciphertexts in what was sent on one link. */
function records(sent: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at + 4 <= sent.length; ) {
    const length = sent.readUInt32BE(at)
    if (at + 4 + length > sent.length) break
    found.push(sent.subarray(at + 4, at + 4 + length - 16))
    at += 4 + length
  }
  return found
}

for (const role of ROLES) {
  test(`each link of a session has two keys of its own (raw ${role})`, async () => {
    await using raw = await rawResumer(role)
    for (let resume = 1; resume <= 30; resume++) {
      await raw.again({ cut: resume % 2 === 0 || role === 'acceptor' })
      // Keys as the raw side computes them are those of the real side, or nothing would open.
      raw.link.send(frame(Frame.ping, 0, u64(resume)))
      await soon(raw.link.next(Frame.pong), 'a pong')
    }
    const keys = raw.all.flatMap((link) => link.keys)
    assert.equal(keys.length, 62)
    assert.equal(new Set(keys).size, 62)
  })
}

test('the same records, sent again and again, never look the same', async () => {
  await using pair = await faultyPair()
  const { network, dialling, accepting } = pair
  const sides = [dialling.proxy.main, accepting.proxy.main]
  network.hold()
  for (let record = 0; record < 8; record++) {
    // A header of 8 bytes and a payload that fill a block and more, the same each time.
    for (const main of sides) main.control(Frame.unlisten, 0x7fff_ffff, Buffer.alloc(32))
    await turns(2)
  }
  for (let resume = 1; resume <= 25; resume++) {
    network.arm((path) => {
      // The hellos pass; what follows is as good as lost.
      path.at('up', HANDSHAKE.up + 36, () => path.blackhole('up'))
      path.at('down', HANDSHAKE.down + 36, () => path.blackhole('down'))
    })
    network.cut('rst')
    await until(() => network.paths.length === 1 + resume, 'the next link')
    const sent = (): number[] => [pair.path.sent('up').length, pair.path.sent('down').length]
    await until(() => sent().every((length) => length > 89 + 36 + 8 * 60), 'all of it once more')
  }
  for (const direction of ['up', 'down'] as const) {
    const seen = new Set<string>()
    let count = 0
    for (const path of network.paths) {
      for (const record of records(path.sent(direction).subarray(HANDSHAKE[direction]))) {
        // The first block: under one key and nonce, equal plaintexts would be equal here.
        seen.add(record.subarray(0, 16).toString('hex'))
        count++
      }
    }
    assert.ok(count >= 26 * 9, `${count} records`)
    assert.equal(seen.size, count)
  }
})

test('attempts that ask for the same session and the same epoch use no key twice', async () => {
  await using raw = await rawResumer('dialler')
  const keys: string[] = [...raw.link.keys]
  for (let attempt = 1; attempt <= 10; attempt++) {
    const link = await knock(raw.acceptor, { ticket: raw.ticket(1) })
    keys.push(...link.keys)
    // The last one says hello and is taken.
    if (attempt === 10) link.hello(0)
    if (attempt === 10) await soon(link.greeting(), 'hello')
    link.link.destroy()
  }
  assert.equal(keys.length, 22)
  assert.equal(new Set(keys).size, 22)
})
