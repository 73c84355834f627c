import assert from 'node:assert/strict'
import { once } from 'node:events'
import test, { type TestContext } from 'node:test'
import type { SubConnection } from '../../../lib/core/sub-connection.ts'
import type { Throttle } from '../../../lib/core/throttle.ts'
import { type FakeHost, hosted } from '../../helpers/core/fake-host.ts'

/** Lets `turn` bytes go each `interval` ms, the first ones at once. */
class Metronome implements Throttle {
  readonly turn: number
  readonly #interval: number
  taken = 0
  back = 0
  #next = 0

  constructor(turn: number, interval = 10) {
    this.turn = turn
    this.#interval = interval
  }

  take(bytes: number): number {
    assert.ok(bytes > 0 && bytes <= this.turn, `${bytes} bytes in one turn`)
    this.taken += bytes
    const wait = this.#next
    this.#next = this.#interval
    return wait
  }

  giveBack(bytes: number): void {
    this.back += bytes
  }
}

const text = (host: FakeHost): string => String(Buffer.concat(host.data))

/** Timers go when `tick` is called. */
function timers(t: TestContext): (ms: number) => void {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  return (ms) => t.mock.timers.tick(ms)
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What the host does when it has room for this one. */
const pump = (sub: SubConnection, host: FakeHost): void => {
  while (!host.congested && sub.onWritable(65_536));
}

test('what is sent goes turn by turn, the fin behind it', async (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  const throttle = new Metronome(4)
  sub.throttle({ sent: throttle })
  sub.end('0123456789')
  assert.equal(text(host), '0123')
  pump(sub, host)
  assert.equal(text(host), '0123', 'it has left the queue')
  tick(9)
  assert.ok(!host.calls.includes('queue'))
  tick(1)
  assert.equal(host.calls.at(-1), 'queue')
  pump(sub, host)
  assert.equal(text(host), '01234567')
  assert.ok(!host.calls.includes('fin'))
  tick(10)
  pump(sub, host)
  await once(sub, 'finish')
  assert.equal(text(host), '0123456789')
  assert.equal(host.calls.at(-1), 'fin')
  assert.equal(throttle.taken - throttle.back, 10)
})

test('whoever writes without a copy is told when there is a turn again', (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  sub.throttle({ sent: new Metronome(4) })
  assert.equal(sub.tryWrite(Buffer.from('012345')), 4)
  let told = 0
  assert.equal(
    sub.canWrite(() => told++),
    false,
  )
  assert.equal(sub.tryWrite(Buffer.from('45')), 0)
  pump(sub, host)
  tick(10)
  pump(sub, host)
  assert.equal(told, 1)
  assert.equal(sub.tryWrite(Buffer.from('45')), 2)
  assert.equal(text(host), '012345')
})

test('a turn that the link has no room for is not lost', (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  const throttle = new Metronome(4)
  sub.throttle({ sent: throttle })
  host.room = 1
  sub.write('01234567')
  host.room = 100
  pump(sub, host)
  assert.equal(text(host), '0123')
  host.congested = true
  tick(10)
  pump(sub, host)
  assert.equal(text(host), '0123')
  host.congested = false
  pump(sub, host)
  assert.equal(text(host), '01234567')
  assert.equal(throttle.taken, 8)
})

test('what comes is handed on turn by turn, and credit with it; the end comes last', async (t) => {
  const tick = timers(t)
  const { sub, host } = hosted({ window: 8 })
  sub.throttle({ received: new Metronome(4) })
  const heard: string[] = []
  sub.on('data', (chunk) => heard.push(String(chunk)))
  sub.on('end', () => heard.push('end'))
  sub.onData(Buffer.from('01234567'))
  await turn()
  assert.equal(heard.join(''), '0123')
  assert.equal(host.credit, 4)
  tick(10)
  await turn()
  assert.equal(heard.join(''), '01234567')
  assert.equal(host.credit, 8)
  sub.onData(Buffer.from('89'))
  sub.onFin()
  await turn()
  assert.equal(heard.join(''), '01234567')
  tick(10)
  await turn()
  assert.equal(heard.join(''), '0123456789end')
})

test('a joined sub-connection gets it turn by turn as well, and not more than it has taken', (t) => {
  const tick = timers(t)
  const { sub } = hosted()
  const heard: string[] = []
  const downstream = {
    pending: 0,
    write(chunks: readonly Uint8Array[]): void {
      heard.push(String(Buffer.concat(chunks)))
    },
  }
  sub.throttle({ received: new Metronome(3) })
  sub.joined(downstream)
  sub.onData(Buffer.from('0123456789'))
  assert.deepEqual(heard, ['012'])
  tick(10)
  assert.deepEqual(heard, ['012', '345'])
  downstream.pending = 1
  tick(10)
  assert.deepEqual(heard, ['012', '345'])
  downstream.pending = 0
  sub.release()
  assert.deepEqual(heard, ['012', '345', '678'])
  tick(10)
  assert.equal(heard.join(''), '0123456789')
})

test('another throttle, or none, holds at once for what waits', async (t) => {
  timers(t)
  const { sub, host } = hosted()
  const slow = new Metronome(2, 100_000)
  sub.throttle({ sent: slow, received: new Metronome(2, 100_000) })
  const heard: string[] = []
  sub.on('data', (chunk) => heard.push(String(chunk)))
  sub.write('0123456789')
  sub.onData(Buffer.from('abcdef'))
  await turn()
  assert.equal(heard.join(''), 'ab')
  const quick = new Metronome(100)
  sub.throttle({ sent: quick })
  pump(sub, host)
  await turn()
  assert.equal(text(host), '0123456789')
  assert.equal(heard.join(''), 'abcdef')
  assert.ok(slow.back > 0, 'what waited for its turn is given back')
  assert.equal(quick.taken, 8)
  sub.throttle(undefined)
  sub.write('more')
  assert.equal(text(host), '0123456789more')
  assert.equal(quick.taken, 8)
})

test('a reset goes at once, and leaves no turn and no timer behind', (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  const throttle = new Metronome(2)
  sub.throttle({ sent: throttle, received: throttle })
  sub.on('data', () => {})
  sub.write('0123456789')
  sub.onData(Buffer.from('abcdef'))
  sub.destroy()
  assert.equal(host.calls.at(-1), 'reset')
  const { back, taken } = throttle
  assert.ok(back > 0)
  tick(1000)
  pump(sub, host)
  assert.deepEqual([throttle.taken, throttle.back], [taken, back])
  sub.throttle({ sent: throttle })
  assert.equal(sub.tryWrite(Buffer.from('x')), 0)
})

test('a peer that breaks off is heard of at once', async (t) => {
  timers(t)
  const { sub } = hosted()
  sub.throttle({ received: new Metronome(2, 100_000) })
  sub.onData(Buffer.from('abcdef'))
  const closed = once(sub, 'close').catch(() => {})
  sub.onLost(Object.assign(new Error('lost'), { name: 'ProxyError' }) as never)
  await closed
  assert.equal(sub.destroyed, true)
})

test('whoever paces it themselves finds the throttles, and nothing waits', (t) => {
  timers(t)
  const { sub, host } = hosted()
  const sent = new Metronome(2, 100_000)
  sub.throttle({ sent })
  sub.paceSelf()
  sub.write('0123456789')
  assert.equal(text(host), '0123456789')
  assert.equal(sub.throttles?.sent, sent)
  const other = new Metronome(1)
  sub.throttle({ sent: other })
  assert.equal(sub.throttles?.sent, other)
  sub.write('more')
  assert.equal(text(host), '0123456789more')
})

test('a wait that is longer than timers can be ends no sooner', (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  const never: Throttle = { turn: 10, take: () => Number.POSITIVE_INFINITY, giveBack() {} }
  sub.throttle({ sent: never })
  sub.write('01234')
  tick(1_000_000_000)
  pump(sub, host)
  assert.equal(text(host), '')
  sub.destroy()
})

test('what waits for its turn at one part takes nothing of the next, and gives back what it has taken', (t) => {
  const tick = timers(t)
  const { sub, host } = hosted()
  const [slow, fast] = [new Metronome(4, 100), new Metronome(8, 50)]
  sub.throttle({ sent: { turn: 4, parts: [slow, fast], take: () => assert.fail(), giveBack: () => assert.fail() } })
  sub.write('0123456789')
  assert.equal(text(host), '0123')
  pump(sub, host)
  assert.deepEqual([slow.taken, fast.taken], [8, 4])
  tick(100)
  assert.deepEqual([slow.taken, fast.taken], [8, 8], 'then it has to wait for the next')
  pump(sub, host)
  assert.equal(text(host), '0123')
  tick(50)
  pump(sub, host)
  assert.equal(text(host), '01234567')
  assert.deepEqual([slow.taken, fast.taken], [10, 8])
  sub.destroy()
  assert.deepEqual([slow.back, fast.back], [2, 0])
})
