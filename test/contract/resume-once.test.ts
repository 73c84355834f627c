import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { codePairs, type Pairs } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { type Random, seeded } from '../helpers/faults/random.ts'
import { type FaultyPair, faultyPair, type ResumingPair, resumingPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'
import { tcpNetwork } from '../helpers/resume/tcp-network.ts'

/** Whatever happens to the links: every byte once and in order, every half-close in its place. */

// Memory that was given back too early shows where giving it back is possible.
setFlagsFromString('--harmony-rab-gsab-transfer')

watchForStrays()
hurry()

const CUTS = 60
const HOW = ['fin', 'rst'] as const
const DIRECTIONS = ['up', 'down'] as const
/** Enough of them that each kind of cut falls into some. */
const REQUESTS = 10

interface Ends {
  readonly opened: Talk
  readonly accepted: Talk
}

let salts = 0

async function talks(pairs: Pairs): Promise<Ends> {
  const { opened, accepted } = await pairs.next()
  const [first, second] = [++salts, ++salts]
  return { opened: new Talk(opened, first, second), accepted: new Talk(accepted, second, first) }
}

/** Loses the link in one of all the ways there are, at a moment that means nothing. */
async function loseOne({ network }: FaultyPair, random: Random): Promise<void> {
  const how = random.pick(HOW)
  const direction = random.pick(DIRECTIONS)
  // The next link as well, somewhere between its first byte and some records.
  if (random.chance(0.5)) network.cutAt(direction, random.integer(0, random.pick([130, 3000, 200_000])), how)
  await turns(random.integer(0, 40))
  const [path] = network.live
  if (!path) return
  if (random.chance(0.3)) path.cutAt(direction, path.forwarded[direction] + random.integer(0, 90_000), how)
  else if (random.chance(0.5)) path.cut(how)
  else {
    // One side hears of it, and something of the other side's is under way for ever.
    path.hold(random.pick([...DIRECTIONS, 'both']))
    await turns(random.integer(0, 5))
    path.cut(how)
  }
}

/** Both directions, until told to stop. */
async function bulk({ opened, accepted }: Ends, random: Random, most: number, over: () => boolean): Promise<void> {
  const pieces = [random.integer(1, 3000), random.integer(most / 20, most)]
  await Promise.all([
    ...[opened, accepted].map(async (talk, index) => {
      while (!over() && !talk.sub.destroyed) {
        await talk.say(pieces[index] ?? 1)
        await turns(1)
      }
      talk.sub.end()
    }),
    opened.hearAll(),
    accepted.hearAll(),
  ])
  assert.equal(opened.heard.at, accepted.said.at)
  assert.equal(accepted.heard.at, opened.said.at)
  assert.ok(opened.said.at > 0 && accepted.said.at > 0)
}

/** One side asks and ends its direction; only then the other one answers. */
async function request({ opened, accepted }: Ends, random: Random): Promise<void> {
  const [question, answer] = [random.integer(0, 5000), random.integer(0, 40_000)]
  await opened.sayAll(question, 1000)
  await accepted.hearAll(question)
  assert.equal(opened.ended, false)
  await accepted.sayAll(answer, 7000)
  await opened.hearAll(answer)
}

/** Traffic both ways that `lose` disturbs, until each kind of it has been; then nothing is missing, and nothing left. */
async function survive(
  { dialling, accepting, others }: ResumingPair,
  random: Random,
  { most, cuts }: { most: number; cuts: number },
  lose: () => Promise<void>,
): Promise<void> {
  const openedBy = [
    await codePairs(accepting.proxy, dialling.code),
    await codePairs(dialling.proxy, accepting.code),
  ] as const
  let over = false
  let requests = 0
  const traffic = [
    ...openedBy.flatMap((pairs) => [0, 1].map(async () => bulk(await talks(pairs), random, most, () => over))),
    ...openedBy.flatMap((pairs) =>
      [0, 1, 2].map(async () => {
        while (!over) {
          await request(await talks(pairs), random)
          requests++
        }
      }),
    ),
  ]
  const losing = (async () => {
    for (let cut = 0; cut < cuts || (requests < REQUESTS && cut < 20 * cuts); cut++) {
      await lose()
      while (!dialling.proxy.main.linked || !accepting.proxy.main.linked) await turns(1)
    }
    over = true
  })()
  await soon(Promise.all([...traffic, losing]), 'the end of all traffic', 20_000)
  assert.ok(requests >= REQUESTS, `${requests} requests`)
  for (const { proxy, states } of [dialling, accepting]) {
    for (const [index, state] of states.entries()) assert.equal(state, index % 2 === 0 ? 'resuming' : 'connected')
    assert.ok(states.length > cuts / 3, `${states.length} states`)
    assert.equal(proxy.main.reason, undefined)
  }
  await nothingLeft(dialling.proxy, accepting.proxy)
  assert.deepEqual(others, [])
}

/** A link that ends before it has carried one record carries nothing: where reads are small, records have to be. */
for (const { most, ...options } of [
  { most: 400_000 },
  { most: 400_000, capacity: 0 },
  { most: 4000, fragment: 1500, capacity: 8000 },
]) {
  const how = JSON.stringify(options)
  test(`${CUTS} cuts of any kind: every byte once, nothing reset, nothing left ${how}`, { timeout: 30_000 }, () =>
    seeded(async (random) => {
      await using pair = await faultyPair({ ...options, record: false })
      await survive(pair, random, { most, cuts: CUTS }, () => loseOne(pair, random))
      assert.ok(pair.network.paths.length > CUTS / 2, `${pair.network.paths.length} links`)
    }),
  )
}

test('cuts of TCP links: every byte once, nothing reset, nothing left', { timeout: 30_000 }, () =>
  seeded(async (random) => {
    await using network = await tcpNetwork()
    await using pair = await resumingPair(network)
    await survive(pair, random, { most: 400_000, cuts: 30 }, async () => {
      await sleep(random.integer(0, 12))
      network.cut(random.pick(HOW), random.pick(DIRECTIONS))
    })
    assert.ok(network.links > 10, `${network.links} links`)
  }),
)
