import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import type { SubConnection } from '../../lib/core/index.ts'
import { TokenBucket } from '../../lib/policy/token-bucket.ts'
import { codeDomain, codePairs } from '../helpers/contract/code.ts'
import { connectPair, MEMORY } from '../helpers/contract/proxies.ts'
import { play, resets, script, total } from '../helpers/contract/script.ts'
import { eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { faultyPair } from '../helpers/resume/faulty-pair.ts'
import { hurry, until } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** Sub-connections with a throttle: the same promises, only later; and nobody else is any slower. */

watchForStrays()
hurry()

const SEED = Number(process.env.SEED ?? 925)

/** In bytes per ms; 0 is no throttle. Some are changed while all goes. */
const rate = fc.constantFrom(0, 1000, 3000, 20_000, 100_000)
const pace = fc.record({ sent: rate, received: rate, later: fc.option(fc.record({ sent: rate, received: rate })) })

function throttle(sub: SubConnection, { sent, received }: { sent: number; received: number }): void {
  const bucket = (perMs: number): TokenBucket | undefined => {
    return perMs > 0 ? new TokenBucket(perMs * 1000, { burst: 5 }) : undefined
  }
  sub.throttle({ sent: bucket(sent), received: bucket(received) })
}

test('throttled any way, each byte comes once and in order, or a reset does', async () => {
  const property = fc.asyncProperty(
    fc.array(fc.record({ opener: script, answerer: script, near: pace, far: pace }), { minLength: 1, maxLength: 4 }),
    async (plan) => {
      const pair = await faultyPair()
      const { dialling, accepting } = pair
      const pairs = await codePairs(accepting.proxy, dialling.code)
      try {
        const plays = plan.map(async ({ opener, answerer, near, far }, index) => {
          const { opened, accepted } = await pairs.next()
          for (const [sub, how] of [
            [opened, near],
            [accepted, far],
          ] as const) {
            throttle(sub, how)
            const { later } = how
            if (later) setTimeout(() => throttle(sub, later), 10)
          }
          const salts = [2 * index + 1, 2 * index + 2] as const
          const [atOpener, atAnswerer] = await Promise.all([
            play(opened, opener, salts[0], salts[1]),
            play(accepted, answerer, salts[1], salts[0]),
          ])
          for (const [end, other] of [
            [atOpener, answerer],
            [atAnswerer, opener],
          ] as const) {
            assert.equal(end.fault, undefined)
            assert.ok(end.received <= total(other), 'more than was sent')
            if (end.ended) assert.equal(end.received, total(other), 'an end before all bytes')
            if (resets(opener) || resets(answerer)) continue
            assert.equal(end.error, undefined)
            assert.equal(end.ended, true)
          }
        })
        const playing = Promise.all(plays)
        // Whatever waits for its turn, the link may be lost meanwhile.
        setTimeout(() => pair.network.cut('rst'), 15)
        await soon(playing, 'the end of all sub-connections', 10_000)
        await nothingLeft(dialling.proxy, accepting.proxy)
      } finally {
        await pair[Symbol.asyncDispose]()
      }
    },
  )
  await fc.assert(property, {
    seed: SEED,
    numRuns: 25,
    interruptAfterTimeLimit: 4000,
    markInterruptAsFailure: false,
    endOnFailure: true,
  })
})

test('a link that is lost while bytes wait for their turn costs none of them', async () => {
  await using pair = await faultyPair()
  const { opened, accepted } = await (await codePairs(pair.accepting.proxy, pair.dialling.code)).next()
  throttle(opened, { sent: 1000, received: 1000 })
  const [near, far] = [new Talk(opened, 1, 2), new Talk(accepted, 2, 1)]
  const saying = Promise.all([near.say(300_000), far.say(300_000)])
  for (let cuts = 1; cuts <= 3; cuts++) {
    await eventually(() => far.heard.at > cuts * 50_000, 'it goes on', 3000)
    const { length } = pair.network.paths
    pair.network.cut('rst')
    await until(() => pair.network.paths.length > length, 'the next link', 3000)
  }
  await saying
  await Promise.all([near.hear(300_000), far.hear(300_000)])
  assert.equal(near.fault ?? far.fault, undefined)
})

test('one that is throttled takes neither speed nor room from a hundred others', async () => {
  const code = codeDomain()
  await using pair = await connectPair(MEMORY, { dialling: { domains: [code] } })
  const pairs = await codePairs(pair.accepting, code)
  const slow = await pairs.next()
  throttle(slow.opened, { sent: 1, received: 0 })
  throttle(slow.accepted, { sent: 0, received: 1 })
  const chunk = Buffer.alloc(65_536)
  for (const sub of [slow.opened, slow.accepted]) {
    sub.on('data', () => {})
    const more = (): void => {
      while (!sub.destroyed && sub.write(chunk)) {}
    }
    sub.on('drain', more)
    more()
  }
  const others = []
  for (let n = 0; n < 100; n++) others.push(await pairs.next())
  const each = 200_000
  const begun = performance.now()
  const heard = others.map(async ({ opened, accepted }) => {
    let bytes = 0
    accepted.on('data', (data: Buffer) => {
      bytes += data.length
    })
    opened.end(Buffer.alloc(each))
    await once(accepted, 'end')
    assert.equal(bytes, each)
  })
  await soon(Promise.all(heard), 'the bytes of the others', 5000)
  const elapsed = performance.now() - begun
  // The slow one had 1 byte in each ms, and a burst.
  assert.ok(slow.opened.bytesWritten <= elapsed + 3000, `${slow.opened.bytesWritten} in ${elapsed} ms`)
  assert.ok(slow.opened.bytesWritten > 0)
  // What came and waits for its turn is no more than a window, and windows do not grow for it.
  const { readableLength, bytesRead, window } = slow.accepted
  assert.ok(readableLength <= window)
  assert.ok(bytesRead <= 2 * 262_144, `${bytesRead} bytes`)
  assert.ok(window <= 262_144, `a window of ${window}`)
})
