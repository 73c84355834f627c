import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { ProxyError } from '../../../lib/core/index.ts'
import { Rejections } from '../../../lib/hub/door.ts'

const WRONG = new ProxyError('PROXY_ERR_HANDSHAKE', 'a message that does not open')
const TWICE = new ProxyError('PROXY_ERR_DUPLICATE', 'node a is connected already', { retryable: true })

function bench(t: TestContext): { rejections: Rejections; told: (string | undefined)[] } {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const told: (string | undefined)[] = []
  return { rejections: new Rejections((remote) => told.push(remote)), told }
}

test('the rejection of an unknown name is told after 2 s', (t) => {
  const { rejections, told } = bench(t)
  rejections.add('192.0.2.1:1000', WRONG, 'a')
  t.mock.timers.tick(1999)
  assert.deepEqual(told, [])
  t.mock.timers.tick(1)
  assert.deepEqual(told, ['192.0.2.1:1000'])
})

test('it is not told if one of that address and name connects meanwhile, another port notwithstanding', (t) => {
  const { rejections, told } = bench(t)
  for (const remote of ['192.0.2.1:1000', '[2001:db8::1]:1000', undefined]) rejections.add(remote, WRONG, 'a')
  for (const remote of ['192.0.2.1:1001', '[2001:db8::1]:1001', undefined]) rejections.explain(remote, 'a')
  t.mock.timers.tick(10_000)
  assert.deepEqual(told, [])
})

test('one that connects explains one rejection, of its own address and name', (t) => {
  const { rejections, told } = bench(t)
  rejections.add('192.0.2.1:1', WRONG, 'a')
  rejections.add('192.0.2.1:2', WRONG, 'a')
  rejections.add('192.0.2.1:3', WRONG, 'b')
  rejections.add('192.0.2.2:4', WRONG, 'a')
  rejections.explain('192.0.2.1:9', 'a')
  t.mock.timers.tick(2000)
  assert.deepEqual(told, ['192.0.2.1:2', '192.0.2.1:3', '192.0.2.2:4'])
})

test('what has another reason, or comes while many wait, is told at once', (t) => {
  const { rejections, told } = bench(t)
  rejections.add('wrong secret', WRONG)
  rejections.add('slow', new ProxyError('PROXY_ERR_HANDSHAKE_TIMEOUT', 'late'), 'a')
  assert.deepEqual(told, ['wrong secret', 'slow'])
  for (let i = 0; i < 256; i++) rejections.add('192.0.2.1:1', WRONG, `${i}`)
  assert.equal(told.length, 2)
  rejections.add('one more', WRONG, 'a')
  assert.equal(told.at(-1), 'one more')
  rejections.flush()
  assert.equal(told.length, 2 + 1 + 256)
  t.mock.timers.tick(10_000)
  assert.equal(told.length, 2 + 1 + 256)
})

test('a duplicate that asks again and again is told once a minute', (t) => {
  const { rejections, told } = bench(t)
  let now = 1000
  t.mock.method(performance, 'now', () => now)
  for (let i = 0; i < 100; i++) rejections.add(`192.0.2.1:${i}`, TWICE)
  assert.deepEqual(told, ['192.0.2.1:0'])
  rejections.add('192.0.2.2:1', TWICE)
  now += 60_000
  rejections.add('192.0.2.1:7', TWICE)
  assert.deepEqual(told, ['192.0.2.1:0', '192.0.2.2:1', '192.0.2.1:7'])
})
