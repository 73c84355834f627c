import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import test, { type TestContext } from 'node:test'
import { Backoff, pause } from '../../../lib/core/backoff.ts'
import { ProxyError } from '../../../lib/core/errors.ts'

const REFUSED = new ProxyError('PROXY_ERR_REFUSED', 'a wrong secret', { retryable: true })
const LOST = new ProxyError('PROXY_ERR_LINK_LOST', 'gone', { retryable: true })

/** What the dice show. */
function dice(t: TestContext, value: number): void {
  t.mock.method(Math, 'random', () => value)
}

const delays = (backoff: Backoff, count: number, reason?: unknown): number[] =>
  Array.from({ length: count }, () => backoff.next(reason))

test('the longest delay doubles from 100 ms to 1.5 s', (t) => {
  dice(t, 0.5)
  assert.deepEqual(delays(new Backoff(), 7, LOST), [50, 100, 200, 400, 750, 750, 750])
})

test('a delay is anything from nothing to the longest', (t) => {
  dice(t, 0)
  assert.deepEqual(delays(new Backoff(), 6), [0, 0, 0, 0, 0, 0])
  t.mock.restoreAll()
  const backoff = new Backoff()
  const drawn = delays(backoff, 2000).slice(5)
  assert.ok(drawn.every((delay) => delay >= 0 && delay < 1500))
  assert.ok(Math.min(...drawn) < 300 && Math.max(...drawn) > 1200, 'all of the range is used')
})

test('whoever was replaced, or has the name of somebody else, waits as long as after a refusal; a duplicate does not', (t) => {
  dice(t, 0.5)
  const backoff = new Backoff()
  const delay = (code: `PROXY_ERR_${string}`): number => backoff.next(new ProxyError(code, 'why'))
  assert.deepEqual(
    [delay('PROXY_ERR_REPLACED'), delay('PROXY_ERR_ID_TAKEN'), delay('PROXY_ERR_DUPLICATE')],
    [60_000, 60_000, 50],
  )
})

test('after a refusal it is 60 s, however often, and that counts for nothing', (t) => {
  dice(t, 0.5)
  const backoff = new Backoff()
  assert.deepEqual(delays(backoff, 3, REFUSED), [60_000, 60_000, 60_000])
  assert.deepEqual(delays(backoff, 2, LOST), [50, 100])
  assert.equal(backoff.next(REFUSED), 60_000)
  assert.equal(backoff.next(), 200)
})

test('a reset begins again at 100 ms', (t) => {
  dice(t, 0.5)
  const backoff = new Backoff()
  delays(backoff, 5)
  backoff.reset()
  assert.deepEqual(delays(backoff, 2), [50, 100])
})

/** Whether a promise is settled now. */
async function settled(promise: Promise<void>): Promise<boolean> {
  let done = false
  void promise.then(() => {
    done = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  return done
}

test('a pause lasts as long as it says, and leaves nothing at its signal', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { signal } = new AbortController()
  const paused = pause(1000, signal)
  t.mock.timers.tick(999)
  assert.equal(await settled(paused), false)
  t.mock.timers.tick(1)
  assert.equal(await settled(paused), true)
  assert.equal(getEventListeners(signal, 'abort').length, 0)
})

test('a pause ends at once when its signal fires, and leaves no timer', async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  const before = timers()
  const abort = new AbortController()
  const paused = pause(60_000, abort.signal)
  assert.equal(await settled(paused), false)
  assert.equal(timers(), before + 1)
  abort.abort()
  assert.equal(await settled(paused), true)
  assert.equal(await settled(pause(60_000, abort.signal)), true, 'it has fired already')
  assert.equal(timers(), before)
  assert.equal(getEventListeners(abort.signal, 'abort').length, 0)
})
