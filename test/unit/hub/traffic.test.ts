import assert from 'node:assert/strict'
import test from 'node:test'
import type { SubConnection } from '../../../lib/core/index.ts'
import { Flow, isLimited, Traffic, visitorOf } from '../../../lib/hub/traffic.ts'
import { QuotaMeter } from '../../../lib/policy/quota-meter.ts'
import type { LimitKind, TrafficLimits } from '../../../lib/policy/traffic-limits.ts'
import { hosted } from '../../helpers/core/fake-host.ts'

const ME = '192.0.2.1:1000'
const YOU = '192.0.2.2:1000'

class Clock {
  ms = 1000
  readonly now = (): number => this.ms
}

function traffic(limits: TrafficLimits | undefined, more: { clock?: Clock; used?: () => number } = {}) {
  const refused: [LimitKind, string | undefined][] = []
  const { clock = new Clock(), used } = more
  const onRefused = (kind: LimitKind, from: string | undefined): void => void refused.push([kind, from])
  return { traffic: new Traffic({ name: 'mapping 1', limits, used, now: clock.now, onRefused }), refused, clock }
}

const denied = { code: 'PROXY_ERR_VISITOR_DENIED', retryable: false }
const tooMany = { code: 'PROXY_ERR_TOO_MANY_CONNECTIONS', retryable: true }
const tooOften = { code: 'PROXY_ERR_RATE', retryable: true }
const usedUp = { code: 'PROXY_ERR_QUOTA', retryable: false }

test('without limits everybody may come', () => {
  const { traffic: one } = traffic(undefined)
  for (let i = 0; i < 1000; i++) one.enter(ME)
  assert.equal(one.visitors, 0)
  assert.equal(one.refusals, undefined)
})

test('who is on a list may come, unless another list has them too', () => {
  const { traffic: one, refused } = traffic({ allow: ['192.0.2.0/24', '2001:db8::/32'], deny: ['192.0.2.1'] })
  one.enter(YOU)
  one.enter('[2001:db8:1::1]:80')
  one.enter('2001:db8:1::1')
  for (const stranger of [ME, '198.51.100.1:1', '[2001:db9::1]:1', undefined, 'unix', '', '192.0.2.999:1']) {
    assert.throws(() => one.enter(stranger), denied, String(stranger))
  }
  assert.throws(() => one.enter('[::ffff:192.0.2.1]:80'), denied, 'the same address, written in the other version')
  assert.equal(refused.length, 8)
  assert.deepEqual(one.refusals, { denied: 8 })
})

test('a list of those who may not come does not concern who has no address', () => {
  const { traffic: one } = traffic({ deny: ['0.0.0.0/0', '::/0'] })
  one.enter(undefined)
  assert.throws(() => one.enter(ME), denied)
})

test('connections are counted until they leave, of all and of each', () => {
  const { traffic: one } = traffic({ connections: 3, visitor: { connections: 2 } })
  const [a, b] = [one.enter(ME), one.enter('192.0.2.1:2000')]
  assert.throws(() => one.enter(ME), { ...tooMany, message: /this address has 2 connections/ })
  const c = one.enter(YOU)
  assert.throws(() => one.enter(YOU), { ...tooMany, message: /has 3 connections/ })
  a.leave()
  a.leave()
  one.enter(YOU)
  assert.throws(() => one.enter(ME), tooMany)
  b.leave()
  c.leave()
  one.enter(ME)
})

test('a customer of IPv6 is one visitor, whatever address of its /64 it takes', () => {
  const { traffic: one } = traffic({ visitor: { connections: 1 } })
  one.enter('[2001:db8::1]:1')
  assert.throws(() => one.enter('[2001:db8::ffff:1]:2'), tooMany)
  one.enter('[2001:db8:0:1::1]:1')
})

test('new connections have a rate, and who comes too often takes nothing of what is for all', () => {
  const { traffic: one, clock } = traffic({ rate: 10, visitor: { rate: 3 } })
  for (let i = 0; i < 3; i++) one.enter(ME).leave()
  for (let i = 0; i < 1000; i++) assert.throws(() => one.enter(ME), tooOften)
  for (let i = 0; i < 7; i++) one.enter(`198.51.100.${i}:1`)
  assert.throws(() => one.enter('198.51.100.9:1'), tooOften)
  clock.ms += 100
  one.enter('198.51.100.9:1')
  clock.ms += 10_000
  for (let i = 0; i < 3; i++) one.enter(ME)
  assert.throws(() => one.enter(ME), tooOften, 'nothing is saved up')
})

test('ten thousand addresses, and ten times as many, take a bounded memory', () => {
  const { traffic: one, clock } = traffic({ visitor: { rate: 1, connections: 1 } })
  const staying = one.enter(ME)
  let most = 0
  for (let i = 0; i < 100_000; i++) {
    one.enter(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:1`).leave()
    most = Math.max(most, one.visitors)
  }
  assert.ok(most >= 10_000, 'it remembers as many')
  assert.ok(most <= 11_500, `${most} visitors`)
  assert.throws(() => one.enter(ME), tooMany, 'who is here is not forgotten')
  staying.leave()
  clock.ms += 10_000
  for (let i = 0; i < 2000; i++) one.enter(`10.200.${i >> 8}.${i & 255}:1`).leave()
  assert.ok(one.visitors < 3000, `${one.visitors} are left long after the last of them`)
})

test('coming again does not make anybody faster', () => {
  const { traffic: one } = traffic({ visitor: { in: 1000 } })
  const waits: number[] = []
  for (let i = 0; i < 4; i++) {
    const { sub } = hosted()
    const entry = one.enter(ME)
    new Flow(sub, { from: ME, traffics: [one], entries: [entry], opened: true, alone: true })
    waits.push(sub.throttles?.sent?.take(100) ?? -1)
    sub.destroy()
    entry.leave()
  }
  assert.deepEqual(waits, [0, 0, 100, 200])
})

test('other limits hold at once for what is open', () => {
  const { traffic: one } = traffic(undefined)
  const flowOf = (from: string): SubConnection => {
    const { sub } = hosted()
    new Flow(sub, { from, traffics: [one], entries: [one.enter(from)], opened: true, alone: true })
    return sub
  }
  const [mine, yours] = [flowOf(ME), flowOf(YOU)]
  assert.equal(mine.throttles?.sent, undefined)
  one.become({ in: 1000, visitor: { out: 500, connections: 1 } })
  assert.ok(mine.throttles?.sent)
  assert.equal(mine.throttles?.sent, yours.throttles?.sent, 'one for all')
  assert.notEqual(mine.throttles?.received, yours.throttles?.received)
  assert.throws(() => one.enter(ME), tooMany, 'who is here counts')
  one.become({})
  assert.deepEqual(mine.throttles, { sent: undefined, received: undefined })
  one.enter(ME)
})

test('what the peer has opened is limited the other way round', () => {
  const { traffic: one } = traffic({ in: 1000 })
  const { sub } = hosted()
  new Flow(sub, { from: undefined, traffics: [one], entries: [one.join()], opened: false, alone: false })
  assert.equal(sub.throttles?.sent, undefined)
  assert.ok(sub.throttles?.received)
})

test('the same limits again are no change: nobody gets a new burst', () => {
  const { traffic: one } = traffic({ in: 1000, rate: 1 })
  one.enter(ME)
  one.become({ in: 1000, rate: 1 })
  assert.throws(() => one.enter(ME), tooOften)
  one.become({ in: 2000, rate: 1 })
  assert.throws(() => one.enter(ME), tooOften)
})

test('a quota that is used up lets nobody in, and ends what is open; a larger one lets it go on', async () => {
  let used = 900
  const { traffic: one, refused } = traffic({ quota: 1000 }, { used: () => used })
  const { sub, host } = hosted()
  new Flow(sub, { from: ME, traffics: [one], entries: [one.enter(ME)], opened: true, alone: true })
  sub.write(Buffer.alloc(90))
  sub.write(Buffer.alloc(20))
  used = 1010
  sub.write(Buffer.alloc(5))
  assert.throws(() => one.enter(YOU), usedUp)
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(sub.destroyed, true)
  assert.ok(host.calls.includes('reset PROXY_ERR_QUOTA'))
  assert.equal(Buffer.concat(host.data).length, 110, 'not another byte')
  one.become({ quota: 2000 })
  one.enter(YOU)
  assert.deepEqual(refused, [['quota', YOU]])
})

test('whoever was stopped by a quota goes on if it is not used up after all', async (t) => {
  let used = 1000
  const { traffic: one, clock } = traffic({ quota: 2000 }, { used: () => used })
  const { sub, host } = hosted()
  t.after(() => sub.destroy())
  new Flow(sub, { from: ME, traffics: [one], entries: [one.enter(ME)], opened: true, alone: true })
  used = 2000
  sub.write(Buffer.alloc(1000))
  sub.write(Buffer.alloc(7))
  // The month ends just now.
  used = 0
  clock.ms += 1000
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(sub.destroyed, false)
  sub.onWritable(65_536)
  assert.equal(Buffer.concat(host.data).length, 1007)
})

test('what the peer opens is no visitor, also where visitors are limited later', () => {
  const { traffic: one } = traffic(undefined)
  const own = [one.join(), one.join()]
  one.become({ visitor: { connections: 1 } })
  assert.equal(one.visitors, 0)
  one.enter(undefined)
  for (const entry of own) entry.leave()
  assert.throws(() => one.enter(undefined), tooMany)
})

test('a visitor with many connections keeps nobody else waiting', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { traffic: one } = traffic({ in: 100_000, visitor: { in: 10_000 } })
  const open = (from: string) => {
    const { sub, host } = hosted()
    new Flow(sub, { from, traffics: [one], entries: [one.enter(from)], opened: true, alone: true })
    sub.write(Buffer.alloc(10_000))
    return { sub, host }
  }
  const many = Array.from({ length: 1000 }, () => open(ME))
  const { sub, host } = open(YOU)
  assert.ok(Buffer.concat(host.data).length > 0)
  for (const { sub: other } of [...many, { sub }]) other.destroy()
})

test('a meter asks rarely, and never lets much more than the quota go', () => {
  let asked = 0
  let used = 0
  let told = 0
  const usedSoFar = (): number => {
    asked++
    return used
  }
  const meter = new QuotaMeter(10_000_000, { used: usedSoFar, onUsedUp: () => told++ })
  while (meter.take(1000) === 0) used += 1000
  assert.equal(told, 1)
  assert.equal(used, 10_000_000)
  assert.ok(asked < 100, `${asked} times`)
  assert.equal(meter.take(1), Number.POSITIVE_INFINITY)
})

test('when a month has passed a meter goes on, soon', () => {
  const clock = new Clock()
  let used = 100
  const meter = new QuotaMeter(100, { used: () => used, onUsedUp() {}, now: clock.now })
  assert.equal(meter.usedUp, true)
  used = 0
  clock.ms += 1000
  assert.equal(meter.usedUp, false)
})

test('a refusal of limits is known as one', () => {
  const { traffic: one } = traffic({ deny: ['192.0.2.1'] })
  assert.throws(() => one.enter(ME), isLimited)
  assert.equal(isLimited(new Error('x')), false)
  assert.equal(visitorOf(ME), visitorOf('192.0.2.1'))
  assert.notEqual(visitorOf(ME), visitorOf(YOU))
})
