import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import fc from 'fast-check'
import { Budget } from '../../../lib/core/limits.ts'
import { EARLY_WINDOW, ReceiveWindow, WINDOW_FLOOR, WindowPool } from '../../../lib/core/window.ts'

const KIB = 1024
const POOL = 64 * KIB * KIB

/** A clock that tests move. */
function clockOf(t: TestContext): { now: number } {
  const clock = { now: 1000 }
  t.mock.method(performance, 'now', () => clock.now)
  return clock
}

/** Sends and consumes as much as the window allows; answers the credit that came back for it. */
function useUp(window: ReceiveWindow, bytes: number, rtt?: number): number {
  assert.ok(window.accept(bytes), 'the bytes were granted')
  return window.release(0, rtt)
}

test('the sizes are those of the protocol', () => {
  assert.equal(WINDOW_FLOOR, 4 * KIB)
  assert.equal(EARLY_WINDOW, 16 * KIB)
  assert.equal(new WindowPool().free, POOL)
})

test('a first window is 256 KiB, less where there are many others, and never below 4 KiB', () => {
  const first = (count: number): number => new WindowPool().first(count)
  assert.equal(first(0), 256 * KIB)
  assert.equal(first(15), 256 * KIB)
  assert.equal(first(16), Math.floor((4 * KIB * KIB) / 17))
  assert.equal(first(1023), 4 * KIB)
  assert.equal(first(16_383), 4 * KIB)
})

test('a window of the floor takes nothing from the pool', () => {
  const pool = new WindowPool()
  for (let count = 1023; count < 16_384; count++) pool.first(count)
  assert.equal(pool.free, POOL)
})

test('first windows leave most of the pool to those that grow', () => {
  const pool = new WindowPool()
  for (let count = 0; count < 16_384; count++) assert.ok(pool.first(count) >= WINDOW_FLOOR)
  assert.ok(pool.free > POOL / 2, `${pool.free}`)
})

test('a pool that is given back is whole again', () => {
  const pool = new WindowPool()
  const windows = Array.from({ length: 100 }, (_, count) => new ReceiveWindow(pool, pool.first(count), 0))
  assert.ok(pool.free < POOL)
  for (const window of windows) window.dispose()
  assert.equal(pool.free, POOL)
})

test('bytes up to the window are accepted, and one more is not', () => {
  const pool = new WindowPool()
  const window = new ReceiveWindow(pool, 10_000, 0)
  assert.equal(window.accept(9999), true)
  assert.equal(window.accept(1), true)
  assert.equal(window.accept(0), true)
  assert.equal(window.accept(1), false)
  assert.equal(window.received, 10_001)
})

test('what was sent before the peer heard of a smaller window is accepted', () => {
  const window = new ReceiveWindow(new WindowPool(), WINDOW_FLOOR, EARLY_WINDOW)
  assert.equal(window.accept(EARLY_WINDOW), true)
  assert.equal(window.accept(1), false)
})

test('an early window does not come on top of a larger one', () => {
  const window = new ReceiveWindow(new WindowPool(), 20_000, EARLY_WINDOW)
  assert.equal(window.accept(20_000), true)
  assert.equal(window.accept(1), false)
})

test('credit comes back when half the window was written on, and not for what is still held', () => {
  const window = new ReceiveWindow(new WindowPool(), 10_000, 0)
  window.accept(8000)
  assert.equal(window.release(8000, undefined), 0)
  assert.equal(window.release(3001, undefined), 0, '4,999 bytes are less than half')
  assert.equal(window.release(3000, undefined), 5000)
  assert.equal(window.release(3000, undefined), 0, 'nothing twice')
  assert.equal(window.accept(7000), true)
  assert.equal(window.accept(1), false)
})

test('credit of a large window comes back in steps of 1 MiB', (t) => {
  clockOf(t)
  const window = new ReceiveWindow(new WindowPool(), 8 * KIB * KIB, 0)
  window.accept(KIB * KIB - 1)
  assert.equal(window.release(0, undefined), 0)
  window.accept(1)
  assert.equal(window.release(0, undefined), KIB * KIB)
})

test('a window that took more than eight round trips is halved, not below 64 KiB, and what was granted stays', (t) => {
  const clock = clockOf(t)
  const window = new ReceiveWindow(new WindowPool(), 256 * KIB, 0)
  const sizes: number[] = []
  let credit = 256 * KIB
  for (let round = 0; round < 5; round++) {
    clock.now += 1000
    // All that was granted may be used, also right after the window was halved.
    credit = useUp(window, credit, 1)
    assert.equal(credit, window.size)
    sizes.push(window.size / KIB)
  }
  assert.deepEqual(sizes, [128, 64, 64, 64, 64])
})

test('a window that is used up within three round trips doubles', (t) => {
  const clock = clockOf(t)
  const window = new ReceiveWindow(new WindowPool(), 10_000, 0)
  assert.equal(useUp(window, 10_000, 50), 10_000, 'the first one only starts the clock')
  clock.now += 149
  assert.equal(useUp(window, 10_000, 50), 20_000)
  assert.equal(window.size, 20_000)
  clock.now += 149
  assert.equal(useUp(window, 20_000, 50), 40_000)
})

test('a window that lasts four round trips stays as it is', (t) => {
  const clock = clockOf(t)
  const window = new ReceiveWindow(new WindowPool(), 10_000, 0)
  useUp(window, 10_000, 50)
  clock.now += 200
  assert.equal(useUp(window, 10_000, 50), 10_000)
  assert.equal(window.size, 10_000)
})

test('a round trip that is not known, or hardly takes any time, counts as 0.5 ms', (t) => {
  const clock = clockOf(t)
  for (const rtt of [undefined, 0, 0.1]) {
    const window = new ReceiveWindow(new WindowPool(), 10_000, 0)
    useUp(window, 10_000, rtt)
    clock.now += 2
    useUp(window, 10_000, rtt)
    assert.equal(window.size, 10_000)
    clock.now += 1.4
    useUp(window, 10_000, rtt)
    assert.equal(window.size, 20_000)
  }
})

test('a reader that is slow does not make its window grow', (t) => {
  const clock = clockOf(t)
  const window = new ReceiveWindow(new WindowPool(), 10_000, 0)
  window.accept(10_000)
  for (let held = 10_000; held >= 0; held -= 1000) {
    clock.now += 1000
    window.release(held, 50)
  }
  assert.equal(window.size, 10_000)
})

test('no window grows by more than half of what is free', (t) => {
  clockOf(t)
  const pool = new WindowPool()
  const window = new ReceiveWindow(pool, pool.first(0), 0)
  useUp(window, window.size)
  for (let turn = 0; turn < 100; turn++) {
    const [size, free] = [window.size, pool.free]
    useUp(window, size)
    assert.ok(window.size - size <= Math.min(size, free / 2), `turn ${turn}`)
    assert.ok(pool.free >= 0)
  }
})

test('one that has grown as far as it can has no more than half of the pool, and leaves room for another', (t) => {
  clockOf(t)
  const pool = new WindowPool()
  const greedy = new ReceiveWindow(pool, pool.first(0), 0)
  for (let turn = 0; turn < 100; turn++) useUp(greedy, greedy.size)
  assert.ok(greedy.size <= POOL / 2 + WINDOW_FLOOR, `${greedy.size}`)
  assert.equal(pool.first(1), 256 * KIB)
})

test('when all that is free is used, windows stand still and nothing breaks', (t) => {
  clockOf(t)
  const pool = new WindowPool()
  const windows = Array.from({ length: 8 }, (_, count) => new ReceiveWindow(pool, pool.first(count), 0))
  for (let turn = 0; turn < 100; turn++) for (const window of windows) useUp(window, window.size)
  assert.ok(pool.free >= 0)
  for (const window of windows) assert.ok(useUp(window, window.size) >= 0)
  assert.ok(pool.first(8) >= WINDOW_FLOOR)
  assert.ok(pool.free >= 0)
})

test('a budget that many sessions share stops growth above the floors', (t) => {
  clockOf(t)
  const budget = new Budget(1024 * KIB)
  const pools = [0, 1, 2, 3, 4, 5, 6, 7].map(() => new WindowPool(undefined, budget))
  const windows = pools.map((pool) => new ReceiveWindow(pool, pool.first(0), 0))
  for (let turn = 0; turn < 50; turn++) for (const window of windows) useUp(window, window.size)
  const above = windows.map(({ size }) => size - WINDOW_FLOOR).reduce((sum, size) => sum + size)
  assert.ok(above <= 1024 * KIB, `${above}`)
  assert.ok(budget.free >= 0)
  for (const window of windows) {
    assert.ok(window.size >= WINDOW_FLOOR)
    window.dispose()
  }
  assert.equal(budget.free, 1024 * KIB)
})

interface Peer {
  window: ReceiveWindow
  /** Bytes that the sender may still send. */
  credit: number
  held: number
}

test('whatever is sent and read in whatever order, credit is never negative and never beyond the window', (t) => {
  const clock = clockOf(t)
  const step = fc.record({
    peer: fc.nat(3),
    send: fc.double({ min: 0, max: 1, noNaN: true }),
    read: fc.double({ min: 0, max: 1, noNaN: true }),
    wait: fc.nat(5),
    rtt: fc.option(fc.nat(200), { nil: undefined }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), fc.boolean(), (steps, whole) => {
      const pool = new WindowPool()
      const peers = [0, 1, 2, 3].map((count): Peer => {
        const size = pool.first(count * 200)
        return { window: new ReceiveWindow(pool, size, 0), credit: size, held: 0 }
      })
      for (const { peer: index, send, read, wait, rtt } of steps) {
        const peer = peers[index]
        assert.ok(peer)
        const { window } = peer
        clock.now += wait
        const bytes = whole ? peer.credit : Math.floor(peer.credit * send)
        peer.credit -= bytes
        peer.held += bytes
        assert.ok(window.accept(bytes), 'what was granted is accepted')
        peer.held -= whole ? peer.held : Math.floor(peer.held * read)
        const credit = window.release(peer.held, rtt)
        assert.ok(credit >= 0 && Number.isInteger(credit))
        peer.credit += credit
        assert.ok(peer.credit + peer.held <= window.size, 'no more is under way than the window')
        assert.ok(window.size >= WINDOW_FLOOR)
        assert.ok(pool.free >= 0)
      }
      for (const { window, credit } of peers) {
        assert.equal(window.accept(credit), true)
        assert.equal(window.accept(1), false, 'not one byte beyond what was granted')
        window.dispose()
      }
      assert.equal(pool.free, POOL)
    }),
  )
})

test('windows of busy sub-connections become alike: a small one grows, and a large one shrinks', (t) => {
  const clock = clockOf(t)
  const pool = new WindowPool()
  const small = new ReceiveWindow(pool, 64 * KIB, 0)
  const large = new ReceiveWindow(pool, 4096 * KIB, 0)
  const credit = new Map([small, large].map((window) => [window, window.size]))
  for (let round = 0; round < 60; round++) {
    // Six round trips each: neither too little nor too much by itself.
    clock.now += 60
    for (const window of [small, large]) credit.set(window, useUp(window, credit.get(window) ?? 0, 10))
  }
  assert.ok(large.size <= 4 * small.size, `${small.size / KIB} and ${large.size / KIB} KiB`)
})
