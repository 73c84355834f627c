import assert from 'node:assert/strict'
import { test } from 'node:test'
import { codePairs } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import type { Cut, Direction } from '../helpers/faults/direction.ts'
import { type FaultyPair, faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** The link is cut, and the one after it too, behind each of its first bytes in turn. */

watchForStrays()
hurry()

const DIRECTIONS = ['up', 'down'] as const
/** Preamble, length and message 1; status, length and message 2. Then a hello of 8 bytes, in a frame, in a record. */
const HELLO = 4 + 8 + 8 + 16
const HANDSHAKE: Record<Direction, number> = { up: 7 + 2 + 32 + 32 + 16, down: 1 + 2 + 32 + 29 + 16 }

interface Conversation {
  readonly pair: FaultyPair
  readonly near: Talk
  readonly far: Talk
  /** Both say this many bytes and hear what the other has said. */
  both(length: number): Promise<void>
  /** The present link is lost, and so is the next one, when `offset` bytes have passed there. Bytes under way meanwhile. */
  loseTwo(direction: Direction, offset: number, how: Cut, length: number): Promise<void>
}

async function conversation(pair: FaultyPair): Promise<Conversation> {
  const { opened, accepted } = await (await codePairs(pair.accepting.proxy, pair.dialling.code)).next()
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  const say = async (length: number): Promise<void> => {
    await Promise.all([near.say(length), far.say(length)])
  }
  const both = async (length: number): Promise<void> => {
    await say(length)
    await hear()
  }
  const hear = async (): Promise<void> => {
    await Promise.all([near.hear(far.said.at), far.hear(near.said.at)])
  }
  return {
    pair,
    near,
    far,
    both,
    async loseTwo(direction, offset, how, length) {
      const { network } = pair
      const before = network.paths.length
      const what = `${direction} ${offset} ${how}`
      network.cutAt(direction, offset, how)
      // Sent, and as good as lost.
      if (length > 0) network.blackhole()
      const saying = length > 0 ? say(length) : undefined
      await turns(2)
      network.cut(how)
      await until(() => network.paths.length >= before + 2, `a third link: ${what}`, 5000)
      await saying
      // Nothing of it was said on the link that works.
      await soon(length > 0 ? hear() : both(3), `what was said: ${what}`, 5000)
      assert.equal(network.paths.length, before + 2, what)
      assert.equal(network.paths[before]?.forwarded[direction], offset, what)
    },
  }
}

async function end({ near, far, pair }: Conversation): Promise<void> {
  near.sub.end()
  far.sub.end()
  await Promise.all([near.hearAll(far.said.at), far.hearAll(near.said.at)])
  await nothingLeft(pair.dialling.proxy, pair.accepting.proxy)
  for (const { proxy, states } of [pair.dialling, pair.accepting]) {
    assert.equal(proxy.main.reason, undefined)
    for (const [index, state] of states.entries()) assert.equal(state, index % 2 === 0 ? 'resuming' : 'connected')
  }
  assert.deepEqual(pair.others, [])
}

/** Several conversations side by side, since each mostly waits; each takes its share of the offsets. */
async function sideBySide(offsets: number, run: (talk: Conversation, offset: number) => Promise<void>): Promise<void> {
  const shares = Array.from({ length: 4 }, async (_, share) => {
    await using pair = await faultyPair({ record: false })
    const talk = await conversation(pair)
    await talk.both(10)
    for (let offset = share; offset < offsets; offset += 4) await run(talk, offset)
    await end(talk)
    assert.ok(pair.dialling.states.length >= offsets / 4)
  })
  await Promise.all(shares)
}

for (const direction of DIRECTIONS) {
  const hellos = HANDSHAKE[direction] + HELLO

  test(`a resume whose link ends behind any byte of handshake and hello is tried again (${direction})`, async () => {
    await sideBySide(hellos + 1, async (talk, offset) => {
      // Every fourth offset is one conversation's.
      await talk.loseTwo(direction, offset, offset % 8 < 4 ? 'fin' : 'rst', 0)
    })
  })

  test(`a link that ends behind any byte of what is sent again is as good as none (${direction})`, async () => {
    await sideBySide(240, (talk, offset) =>
      talk.loseTwo(direction, hellos + 1 + offset, offset % 8 < 4 ? 'fin' : 'rst', 150),
    )
  })
}

test('many links in a row that end a byte later each: what waits comes once, over the first that is long enough', async () => {
  for (const direction of DIRECTIONS) {
    await using pair = await faultyPair({ record: false })
    const talk = await conversation(pair)
    const { network } = pair
    const hellos = HANDSHAKE[direction] + HELLO
    network.blackhole()
    const said = Promise.all([talk.near.say(2000), talk.far.say(2000)])
    await turns(3)
    let cuts = 0
    const arm = (): void =>
      network.arm((path) => {
        if (cuts === 100) return
        path.cutAt(direction, hellos + cuts * 5, cuts++ % 2 === 0 ? 'rst' : 'fin')
        arm()
      })
    arm()
    network.cut('rst')
    await said
    await soon(Promise.all([talk.near.hear(2000), talk.far.hear(2000)]), 'what was said', 5000)
    await until(() => cuts === 100, 'all cuts')
    await talk.both(5)
    assert.ok(pair.dialling.proxy.main.epoch > 100)
    await end(talk)
  }
})
