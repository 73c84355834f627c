import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LazyAbort } from '../../../lib/core/lazy-abort.ts'

test('whoever listens hears of it once', () => {
  const abort = new LazyAbort()
  const heard: string[] = []
  const second = (): void => void heard.push('second')
  abort.addEventListener('abort', () => void heard.push('first'))
  abort.addEventListener('abort', second)
  assert.equal(abort.aborted, false)
  assert.equal(abort.reason, undefined)
  abort.abort()
  abort.abort()
  assert.equal(abort.aborted, true)
  assert.deepEqual(heard.sort(), ['first', 'second'])
})

test('whoever does not listen any more hears nothing', () => {
  const abort = new LazyAbort()
  const heard: string[] = []
  const [first, second] = [() => void heard.push('first'), () => void heard.push('second')]
  abort.addEventListener('abort', first)
  abort.addEventListener('abort', second)
  abort.removeEventListener('abort', second)
  abort.removeEventListener('abort', first)
  abort.removeEventListener('abort', first)
  abort.abort()
  assert.deepEqual(heard, [])
})

test('its signal is a real one, made before or after', async () => {
  const before = new LazyAbort()
  const { signal } = before
  assert.ok(signal instanceof AbortSignal)
  assert.equal(before.signal, signal)
  const fired = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  before.abort()
  await fired
  assert.equal(signal.aborted, true)
  assert.equal(before.reason, signal.reason)

  const after = new LazyAbort()
  after.abort()
  assert.equal(after.signal.aborted, true)
  assert.ok(after.reason instanceof Error && after.reason.name === 'AbortError')
})
