import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { test } from 'node:test'
import { decodeReason, Frame } from '../../lib/core/frame.ts'
import { ProxyError } from '../../lib/core/index.ts'
import { rawPublicKey } from '../../lib/core/noise.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { frame, u64 } from '../helpers/core/bytes.ts'
import { hurry, turns } from '../helpers/resume/hurry.ts'
import { type RawLink, type RawResumer, rawResumer } from '../helpers/resume/raw-resume.ts'

/** What the hellos of a resumed link may say, and records that do not open. */

const ROLES = ['dialler', 'acceptor'] as const
const FALLBACK = new ProxyError('PROXY_ERR_RESET', 'no reason')

watchForStrays()
hurry()

/** A counted record that changes nothing: a listener that does not exist is unlistened. */
const harmless = (id = 77): Buffer => frame(Frame.unlisten, id)

/** Makes the real side send this many counted records, and waits until they have come. */
async function sendCounted(raw: RawResumer, count: number): Promise<void> {
  for (let id = 1; id <= count; id++) {
    raw.main.control(Frame.unlisten, id)
    await soon(raw.link.next(Frame.unlisten, id), 'a counted record')
  }
}

async function goodbye(link: RawLink): Promise<string> {
  return decodeReason((await soon(link.next(Frame.goaway), 'goaway')).payload, FALLBACK).code
}

/** The next counted records, by the ids in them. */
async function resent(link: RawLink, count: number): Promise<number[]> {
  const ids: number[] = []
  while (ids.length < count) ids.push((await soon(link.next(Frame.unlisten), 'a record once more')).id)
  return ids
}

for (const role of ROLES) {
  const real = role === 'dialler' ? 'acceptor' : 'dialler'

  test(`what a hello does not count is sent again, in order, and nothing else (${real})`, async () => {
    for (const expected of [0, 1, 4, 5]) {
      await using raw = await rawResumer(role)
      await sendCounted(raw, 5)
      const link = await raw.again({ expected })
      raw.main.control(Frame.unlisten, 6)
      assert.deepEqual(await resent(link, 6 - expected), [1, 2, 3, 4, 5, 6].slice(expected))
      await turns()
      assert.equal(link.counted, 6 - expected)
      assert.equal(raw.main.reason, undefined)
    }
  })

  test(`what was acknowledged is not sent again (${real})`, async () => {
    await using raw = await rawResumer(role)
    await sendCounted(raw, 5)
    raw.link.ack(3)
    while (!raw.main.acknowledged) await turns(1)
    const link = await raw.again({ expected: 3 })
    assert.deepEqual(await resent(link, 2), [4, 5])
  })

  test(`the hello of the next link counts what came over all links before (${real})`, async () => {
    await using raw = await rawResumer(role)
    const greeted: number[] = []
    let sent = 0
    for (let round = 0; round < 5; round++) {
      for (let count = 0; count < round; count++, sent++) raw.link.send(harmless())
      // What is not counted shows that all before it has come.
      raw.link.send(frame(Frame.ping, 0, u64(round)))
      await soon(raw.link.next(Frame.pong), 'a pong')
      const link = await raw.again()
      greeted.push(Number(link.records[0]?.readBigUInt64BE(8)))
      assert.equal(greeted.at(-1), sent)
    }
    assert.deepEqual(greeted, [0, 1, 3, 6, 10])
  })

  test(`a hello with a number that cannot be ends the session (${real})`, async () => {
    for (const expected of [2, 6, 2 ** 53 - 1]) {
      await using raw = await rawResumer(role)
      await sendCounted(raw, 5)
      raw.link.ack(3)
      while (!raw.main.acknowledged) await turns(1)
      const link = await raw.again({ expected })
      assert.equal((await soon(raw.ended, `the end of a session at ${expected}`)).code, 'PROXY_ERR_ACK_RANGE')
      assert.equal(await goodbye(link), 'PROXY_ERR_ACK_RANGE')
      assert.equal(raw.proxy.state, 'closed')
    }
  })

  test(`an ack on a later link that cannot be ends the session (${real})`, async () => {
    for (const [expected, ack] of [
      [3, 2],
      [3, 6],
      [0, 6],
    ] as const) {
      await using raw = await rawResumer(role)
      await sendCounted(raw, 5)
      const link = await raw.again({ expected })
      link.ack(ack)
      assert.equal((await soon(raw.ended, `the end after ${ack}`)).code, 'PROXY_ERR_ACK_RANGE')
      assert.equal(await goodbye(link), 'PROXY_ERR_ACK_RANGE')
    }
  })

  test(`a hello that is none ends the session, and a number beyond 2^53 too (${real})`, async () => {
    for (const bad of [
      frame(Frame.hello, 0, Buffer.alloc(8, 0xff)),
      frame(Frame.hello, 0, Buffer.alloc(7)),
      frame(Frame.ack, 0, u64(0)),
      Buffer.concat([frame(Frame.hello, 0, u64(0)), harmless()]),
      Buffer.concat([frame(Frame.hello, 0, u64(0)), frame(Frame.hello, 0, u64(0))]),
      frame(Frame.hello, 0, u64(0), 9),
    ]) {
      await using raw = await rawResumer(role)
      raw.cut()
      const link = await raw.shake()
      link.sendRecord(bad)
      assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_FRAME')
      await soon(link.over(), 'the end of the link')
    }
  })
}

/** The field of a hello that proves a node key, on this link. */
function proof(identity: KeyObject, { role, hash }: RawLink): Buffer {
  const statement = Buffer.concat([Buffer.from(`symport node key, ${role}\0`), hash])
  return Buffer.concat([Buffer.from([2, 0, 96]), rawPublicKey(identity), sign(null, statement, identity)])
}

test('a session goes on with the node key it began with, and with no other and not without', async () => {
  const [mine, other] = [generateKeyPairSync('ed25519').privateKey, generateKeyPairSync('ed25519').privateKey]
  for (const role of ROLES) {
    for (const [first, second, code] of [
      [mine, mine, undefined],
      [undefined, undefined, undefined],
      [mine, other, 'PROXY_ERR_IDENTITY'],
      [mine, undefined, 'PROXY_ERR_IDENTITY'],
      [undefined, mine, 'PROXY_ERR_IDENTITY'],
    ] as const) {
      await using raw = await rawResumer(role, first ? { fields: (link) => proof(first, link) } : {})
      assert.deepEqual(raw.main.peer.key, first && rawPublicKey(first))
      const link = await raw.again(second ? { fields: (link) => proof(second, link) } : {})
      if (code) {
        assert.equal((await soon(raw.ended, 'the end')).code, code)
        assert.equal(await goodbye(link), code)
      } else {
        raw.main.control(Frame.unlisten, 5)
        assert.deepEqual(await resent(link, 1), [5])
      }
    }
  }
})

test('a proof for another link does not fit this one', async () => {
  const identity = generateKeyPairSync('ed25519').privateKey
  for (const role of ROLES) {
    await using raw = await rawResumer(role, { fields: (link) => proof(identity, link) })
    const [first] = raw.all
    assert.ok(first)
    const link = await raw.again({ fields: () => proof(identity, first) })
    assert.equal((await soon(raw.ended, 'the end')).code, 'PROXY_ERR_IDENTITY')
    assert.equal(await goodbye(link), 'PROXY_ERR_IDENTITY')
  }
})
