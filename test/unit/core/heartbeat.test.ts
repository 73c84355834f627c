import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import type { ProxyError } from '../../../lib/core/errors.ts'
import { Heartbeat, KEEPALIVE, type Keepalive } from '../../../lib/core/heartbeat.ts'
import { u64 } from '../../helpers/core/bytes.ts'

interface Bench {
  readonly heartbeat: Heartbeat
  /** How often there was something to send. */
  readonly woken: { times: number }
  readonly deaths: ProxyError[]
  /** Time passes, for clocks and timers; back it goes for clocks only. */
  pass(ms: number): void
}

function bench(t: TestContext, keepalive: Keepalive = KEEPALIVE): Bench {
  let now = 1000
  t.mock.method(performance, 'now', () => now)
  t.mock.timers.enable({ apis: ['setInterval', 'setTimeout'] })
  const woken = { times: 0 }
  const deaths: ProxyError[] = []
  const heartbeat = new Heartbeat(
    keepalive,
    () => woken.times++,
    (error) => deaths.push(error),
  )
  const pass = (ms: number): void => {
    now += ms
    if (ms > 0) t.mock.timers.tick(ms)
  }
  return { heartbeat, woken, deaths, pass }
}

/** A ping goes out, and its pong comes `ms` later. */
function roundTrip({ heartbeat, pass }: Bench, ms: number): void {
  pass(1000)
  heartbeat.measure()
  const ping = heartbeat.takePing()
  assert.ok(ping)
  pass(ms)
  heartbeat.onPong(ping)
}

test('by default a ping goes out after 15 s of silence, and 10 s later the link is dead', (t) => {
  const { heartbeat, woken, deaths, pass } = bench(t)
  heartbeat.start()
  pass(14_999)
  assert.equal(woken.times, 0)
  assert.equal(heartbeat.takePing(), undefined)
  pass(1)
  assert.equal(heartbeat.takePing()?.length, 8)
  pass(9999)
  assert.equal(deaths.length, 0)
  pass(1)
  assert.deepEqual(
    deaths.map(({ code, retryable }) => [code, retryable]),
    [['PROXY_ERR_KEEPALIVE', true]],
  )
})

test('whatever comes puts that off; it may then be early by half a timeout, and is never late', (t) => {
  const { heartbeat, woken, deaths, pass } = bench(t, { idle: 1000, timeout: 400 })
  heartbeat.start()
  for (let turn = 0; turn < 20; turn++) {
    pass(770)
    heartbeat.heard()
    heartbeat.said()
  }
  assert.deepEqual([woken.times, deaths.length], [0, 0])
  pass(1000)
  assert.ok(woken.times > 0)
  assert.deepEqual(deaths, [])
  pass(400)
  assert.ok(deaths.length > 0)
})

test('who hears much and says nothing pings, so that a far side with a long record hears that it arrives', (t) => {
  const { heartbeat, woken, deaths, pass } = bench(t)
  heartbeat.start()
  for (let second = 1; second <= 60; second++) {
    pass(1000)
    heartbeat.heard()
    if (second < 15) assert.equal(woken.times, 0)
    if (heartbeat.takePing()) heartbeat.said()
  }
  assert.equal(woken.times, 3)
  assert.deepEqual(deaths, [])
})

test('a link that was stopped is neither asked nor given up', (t) => {
  const { heartbeat, woken, deaths, pass } = bench(t)
  heartbeat.start()
  pass(10_000)
  heartbeat.stop()
  pass(1e6)
  assert.deepEqual([woken.times, deaths.length], [0, 0])
})

test('a pong echoes the 8 bytes of the last ping, once', (t) => {
  const { heartbeat, woken } = bench(t)
  assert.equal(heartbeat.takePong(), undefined)
  const payload = u64(1)
  heartbeat.onPing(payload)
  // The bytes stand in a buffer that is read into again.
  payload.fill(0xff)
  assert.equal(woken.times, 1)
  assert.equal(heartbeat.takePong()?.toString('hex'), '0000000000000001')
  assert.equal(heartbeat.takePong(), undefined)
  for (const number of [2, 3, 4]) heartbeat.onPing(u64(number))
  assert.equal(heartbeat.takePong()?.toString('hex'), '0000000000000004')
  assert.equal(heartbeat.takePong(), undefined)
})

test('a ping of another length is a violation', (t) => {
  const { heartbeat } = bench(t)
  for (const length of [0, 7, 9, 8192]) {
    assert.throws(() => heartbeat.onPing(Buffer.alloc(length)), { name: 'ProxyError', code: 'PROXY_ERR_FRAME' })
  }
  assert.equal(heartbeat.takePong(), undefined)
})

test('the round trip is the time to the pong that matches, and nothing else', (t) => {
  const { heartbeat, pass } = bench(t)
  heartbeat.onPong(u64(0))
  heartbeat.onPong(Buffer.alloc(0))
  heartbeat.measure()
  const ping = heartbeat.takePing()
  assert.ok(ping)
  pass(40)
  for (const wrong of [u64(0), Buffer.alloc(0), ping.subarray(1), Buffer.concat([ping, Buffer.alloc(1)])]) {
    heartbeat.onPong(wrong)
  }
  assert.equal(heartbeat.rtt, undefined)
  pass(2)
  heartbeat.onPong(Buffer.from(ping))
  assert.equal(heartbeat.rtt, 42)
  pass(-41)
  heartbeat.onPong(Buffer.from(ping))
  assert.equal(heartbeat.rtt, 42, 'it was answered already')
})

test('the round trip falls at once and rises slowly', (t) => {
  const all = bench(t)
  const { heartbeat } = all
  roundTrip(all, 100)
  roundTrip(all, 64)
  assert.equal(heartbeat.rtt, 64)
  roundTrip(all, 128)
  assert.equal(heartbeat.rtt, 65)
  roundTrip(all, 65 + 640)
  assert.equal(heartbeat.rtt, 75)
  roundTrip(all, 1)
  assert.equal(heartbeat.rtt, 1)
})

test('it is not measured again while the ping is under way, or within 250 ms', (t) => {
  const { heartbeat, woken, pass } = bench(t)
  heartbeat.measure()
  heartbeat.measure()
  assert.equal(woken.times, 1)
  const ping = heartbeat.takePing()
  assert.ok(ping)
  assert.equal(heartbeat.takePing(), undefined)
  pass(1000)
  heartbeat.measure()
  assert.equal(heartbeat.takePing(), undefined, 'it is under way')
  heartbeat.onPong(ping)
  heartbeat.measure()
  const second = heartbeat.takePing()
  assert.ok(second)
  assert.notDeepEqual(second, ping)
  pass(1)
  heartbeat.onPong(second)
  pass(248)
  heartbeat.measure()
  assert.equal(heartbeat.takePing(), undefined, 'the last one is young')
  pass(1)
  heartbeat.measure()
  assert.ok(heartbeat.takePing())
})

test('a probe asks, and is answered by whatever comes', async (t) => {
  const { heartbeat, woken } = bench(t)
  const probes = [heartbeat.probe(2000), heartbeat.probe(1)]
  assert.ok(woken.times > 0)
  assert.ok(heartbeat.takePing())
  heartbeat.heard()
  assert.deepEqual(await Promise.all(probes), [true, true])
})

test('a probe that nothing answers in time says so, and a later one is on its own', async (t) => {
  const { heartbeat, pass } = bench(t)
  // What came before does not count.
  heartbeat.heard()
  const [short, long] = [heartbeat.probe(2000), heartbeat.probe(3000)]
  pass(2000)
  assert.equal(await short, false)
  heartbeat.heard()
  assert.equal(await long, true)
  const last = heartbeat.probe(2000)
  pass(2000)
  assert.equal(await last, false)
})

test('probes of a link that is stopped are answered at once', async (t) => {
  const { heartbeat } = bench(t)
  const probes = [heartbeat.probe(2000), heartbeat.probe(1e9)]
  heartbeat.stop()
  assert.deepEqual(await Promise.all(probes), [false, false])
})
