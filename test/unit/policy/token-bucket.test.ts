import assert from 'node:assert/strict'
import test from 'node:test'
import type { Throttle } from '../../../lib/core/throttle.ts'
import { Throttled, TokenBucket } from '../../../lib/policy/token-bucket.ts'

const KIB = 1024

/** Time that passes when a test says so. */
class Clock {
  ms = 1000
  readonly now = (): number => this.ms
}

interface SimulatedFlow {
  readonly throttle: Throttle
  /** When it begins, in ms, and how much it writes at once. */
  readonly from?: number
  readonly writes?: number
  /** How late its timers are, in ms. */
  readonly late?: number
}

/** Flows that have always more to send. Answers the bytes of each within so many seconds. */
function run(clock: Clock, flows: readonly SimulatedFlow[], seconds: number): number[] {
  const begin = clock.ms
  const sent = flows.map(() => 0)
  const at = flows.map(({ from = 0 }) => begin + from)
  const waiting = flows.map(() => 0)
  for (;;) {
    const next = at.indexOf(Math.min(...at))
    const flow = flows[next]
    if (!flow || (at[next] ?? 0) >= begin + seconds * 1000) break
    clock.ms = Math.max(clock.ms, at[next] ?? 0)
    sent[next] = (sent[next] ?? 0) + (waiting[next] ?? 0)
    const bytes = Math.min(flow.writes ?? Number.POSITIVE_INFINITY, flow.throttle.turn)
    const wait = flow.throttle.take(bytes)
    waiting[next] = bytes
    at[next] = clock.ms + (wait > 0 ? wait + (flow.late ?? 0) : 0.001)
  }
  clock.ms = begin + seconds * 1000
  return sent
}

const sum = (all: readonly number[]): number => all.reduce((total, one) => total + one, 0)

function near(actual: number, expected: number, share: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= expected * share, `${what}: ${actual}, and not about ${expected}`)
}

for (const rate of [100, 1000, 10 * KIB, 300_000, 10_000_000, 1_000_000_000]) {
  for (const late of [0, 20]) {
    test(`within 10 s ${rate} bytes per second go, with timers that are ${late} ms late`, () => {
      const clock = new Clock()
      const throttle = new TokenBucket(rate, { now: clock.now })
      near(sum(run(clock, [{ throttle, late }], 10)), 10 * rate, 0.05, 'bytes')
    })
  }
}

test('no second of a minute has more than the rate and a burst', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(10_000, { now: clock.now })
  for (let second = 0; second < 60; second++) {
    // It pauses now and then, and saves nothing up by that.
    if (second % 7 === 0) clock.ms += 5000
    const [sent = 0] = run(clock, [{ throttle, late: second % 13 }], 1)
    assert.ok(sent <= 10_000 * 1.1 + throttle.turn, `${sent} bytes in second ${second}`)
  }
})

test('equal flows have equal shares, also those that came later', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(1_000_000, { now: clock.now })
  const [a = 0, b = 0, c = 0] = run(clock, [{ throttle }, { throttle }, { throttle, from: 5000 }], 10)
  near(a, b, 0.05, 'the first two')
  near(c, (5 * 1_000_000) / 3, 0.1, 'the third one')
  near(a + b + c, 10_000_000, 0.05, 'all')
})

test('a thousand short connections are no faster than one long one', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(100_000, { now: clock.now })
  const flows = Array.from({ length: 1000 }, (_, index) => ({ throttle, from: index, writes: 500 }))
  near(sum(run(clock, flows, 10)), 1_000_000, 0.05, 'all of them')
})

test('what was taken and did not go is there for others', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(1000, { now: clock.now })
  throttle.take(50_000)
  assert.ok(throttle.take(1) > 40_000)
  throttle.giveBack(50_001)
  assert.equal(throttle.take(100), 0)
})

test('what cannot go now is not taken by tryTake', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(1000, { now: clock.now })
  assert.equal(throttle.tryTake(60), true)
  assert.equal(throttle.tryTake(41), false)
  assert.equal(throttle.tryTake(40), true)
  assert.equal(throttle.tryTake(1), false)
  clock.ms += 50
  assert.equal(throttle.tryTake(51), false)
  assert.equal(throttle.tryTake(50), true)
  assert.equal(throttle.idle, false)
  clock.ms += 100
  assert.equal(throttle.idle, true)
  assert.equal(throttle.tryTake(5000), true, 'more than a burst goes when nothing else has')
  clock.ms += 4000
  assert.equal(throttle.tryTake(1), false)
})

test('one per second can be had at once, however short the burst is', () => {
  const clock = new Clock()
  const throttle = new TokenBucket(1, { now: clock.now, burst: 10 })
  assert.equal(throttle.tryTake(1), true)
  assert.equal(throttle.tryTake(1), false)
  clock.ms += 1000
  assert.equal(throttle.tryTake(1), true)
})

test('several as one let nothing go before its turn at each, and a slow one slows nobody else', () => {
  const clock = new Clock()
  const slow = new TokenBucket(10_000, { now: clock.now })
  const fast = new TokenBucket(100_000, { now: clock.now })
  const both = Throttled.by([slow, fast])
  assert.ok(both)
  assert.equal(Throttled.by([]), undefined)
  assert.equal(Throttled.by([slow]), slow)
  const counter: Throttle = { turn: 1, take: () => 0, giveBack() {} }
  assert.deepEqual(Throttled.by([counter, fast, slow])?.parts, [slow, fast, counter], 'one waits where it is slow')
  const [limited = 0, other = 0] = run(clock, [{ throttle: both }, { throttle: fast }], 10)
  near(limited, 100_000, 0.06, 'the one with both')
  near(limited + other, 1_000_000, 0.05, 'all')
  assert.ok(other > 850_000, `${other} of the one that only shares`)
})

test('what several gave is given back to all of them', () => {
  const clock = new Clock()
  const small = new TokenBucket(1000, { now: clock.now })
  const large = new TokenBucket(10_000, { now: clock.now })
  const both = Throttled.by([large, small])
  assert.equal(both?.take(500), 0)
  assert.deepEqual([large.idle, small.idle], [false, false])
  both?.giveBack(500)
  assert.deepEqual([large.idle, small.idle], [true, true])
})
