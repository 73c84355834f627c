import assert from 'node:assert/strict'
import { test } from 'node:test'
import { codePairs } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { type End, type FaultyPair, faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** Links that end without a word: only silence tells. */

watchForStrays()
hurry()

const KEEPALIVE = { idle: 40, timeout: 40 }
const DEAD = KEEPALIVE.idle + KEEPALIVE.timeout

const quick = (): Promise<FaultyPair> =>
  faultyPair({ record: false, dialling: { keepalive: KEEPALIVE }, accepting: { keepalive: KEEPALIVE } })

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

for (const ways of ['up', 'down', 'both'] as const) {
  for (const load of ['idle', 'bulk both ways', 'bulk one way'] as const) {
    test(`a black hole (${ways}, ${load}) is noticed, and the session goes on over the next link`, async () => {
      await using pair = await quick()
      const { network, dialling, accepting } = pair
      const { opened, accepted } = await (await codePairs(accepting.proxy, dialling.code)).next()
      const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
      let over = false
      const keepSaying = async (talk: Talk, speaks: boolean): Promise<void> => {
        while (speaks && !over) {
          await talk.say(50_000)
          await turns(5)
        }
        await talk.sayAll(1000, 1000)
      }
      const talking = [keepSaying(near, load !== 'idle'), keepSaying(far, load === 'bulk both ways')]
      if (load === 'idle') over = true
      else await until(() => near.said.at > 200_000, 'some bulk')
      await turns(20)
      network.blackhole(ways)
      const begun = performance.now()
      await until(() => dialling.states.length === 2 && network.paths.length === 2, 'the next link', 3000)
      const noticed = performance.now() - begun
      over = true
      await Promise.all(talking)
      await soon(Promise.all([near.hearAll(far.said.at), far.hearAll(near.said.at)]), 'all that was said')
      assert.ok(noticed > KEEPALIVE.idle, `after ${noticed} ms`)
      // Whoever notices first may still be able to tell the other one.
      const errors = [dialling, accepting].map(({ proxy }) => proxy.main.linkError?.code)
      assert.ok(errors.includes('PROXY_ERR_KEEPALIVE'), `${errors}`)
      await nothingLeft(dialling.proxy, accepting.proxy)
      for (const { proxy, states } of [dialling, accepting]) {
        assert.equal(proxy.state, 'connected')
        assert.ok(states.length <= 2, `${states}`)
      }
    })
  }
}

test('an idle link whose far side answers is kept', async () => {
  await using pair = await quick()
  await wait(6 * DEAD)
  assert.equal(pair.network.paths.length, 1)
  assert.deepEqual([pair.dialling.states, pair.accepting.states], [[], []])
  const { up, down } = pair.path.forwarded
  assert.ok(up > 89 + 36 + 3 * 36 && down > 80 + 36 + 3 * 36, 'and that was by pings')
})

test('many black holes in a row, each is one resume', async () => {
  await using pair = await quick()
  const { network, dialling, accepting } = pair
  const { opened, accepted } = await (await codePairs(dialling.proxy, accepting.code)).next()
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  for (let hole = 1; hole <= 4; hole++) {
    network.blackhole('both')
    await Promise.all([near.say(700), far.say(900)])
    await soon(Promise.all([near.hear(hole * 900), far.hear(hole * 700)]), 'what was said', 3000)
    assert.equal(network.paths.length, 1 + hole)
  }
})

const sides = (pair: FaultyPair): [string, End][] => [
  ['dialling', pair.dialling],
  ['accepting', pair.accepting],
]

test('probe tells whether the far side is there', async () => {
  await using pair = await faultyPair({ record: false })
  const { network } = pair
  for (const [side, { proxy }] of sides(pair)) {
    assert.equal(await soon(proxy.main.probe(1000), `a probe by the ${side} side`, 500), true)
    const many = await soon(Promise.all(Array.from({ length: 20 }, () => proxy.main.probe(1000))), 'many probes', 500)
    assert.deepEqual(new Set(many), new Set([true]))
  }
  network.hold('both')
  for (const [side, { proxy }] of sides(pair)) {
    const begun = performance.now()
    assert.equal(await soon(proxy.main.probe(30), `a probe by the ${side} side`), false)
    assert.ok(performance.now() - begun > 20)
  }
  network.release('both')
  // Late answers to these are no answers to later ones, and do no harm.
  for (const [, { proxy }] of sides(pair)) assert.equal(await proxy.main.probe(1000), true)
})

test('probe is false without a link, and as soon as there is none', async () => {
  await using pair = await faultyPair({ record: false })
  await turns()
  pair.network.hold('both')
  const probes = sides(pair).map(([, { proxy }]) => proxy.main.probe(5000))
  await turns(5)
  pair.network.block('refuse')
  pair.network.cut('rst')
  assert.deepEqual(await soon(Promise.all(probes), 'the answers', 500), [false, false])
  for (const [, { proxy }] of sides(pair)) assert.equal(await soon(proxy.main.probe(5000), 'no link', 100), false)
  pair.network.unblock()
  for (const [, { proxy }] of sides(pair)) {
    await until(() => proxy.main.linked, 'a link')
    assert.equal(await proxy.main.probe(1000), true)
  }
})

test('probe sees a far side that only sends', async () => {
  await using pair = await faultyPair({ record: false })
  const { opened, accepted } = await (await codePairs(pair.accepting.proxy, pair.dialling.code)).next()
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  let over = false
  const saying = (async () => {
    while (!over) await near.say(60_000)
    near.sub.end()
  })()
  await until(() => far.heard.at > 0, 'some')
  for (let round = 0; round < 5; round++) assert.equal(await pair.accepting.proxy.main.probe(1000), true)
  for (let round = 0; round < 5; round++) assert.equal(await pair.dialling.proxy.main.probe(1000), true)
  over = true
  await saying
  far.sub.end()
  await Promise.all([near.hearAll(0), far.hearAll(near.said.at)])
})
