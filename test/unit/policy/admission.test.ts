import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { Admission, type AdmissionOptions, type Visit } from '../../../lib/policy/admission.ts'

const HERE = '192.0.2.1:4915'
const ELSEWHERE = '198.51.100.7:4915'
const MINUTE = 60_000

/** An Admission whose time only `tick` moves. */
function admissionOf(t: TestContext, options: AdmissionOptions = {}) {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const clock = { now: 1000 }
  const admission = new Admission({ now: () => clock.now, ...options })
  const tick = async (ms: number): Promise<void> => {
    clock.now += ms
    t.mock.timers.tick(ms)
    await turn()
  }
  return { admission, tick }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** A whole handshake that shows a wrong secret, of whoever need not wait. */
async function fail(admission: Admission, remote: string, credential = 'node', times = 1): Promise<void> {
  const visits = Array.from({ length: times }, () => admission.enter(remote))
  for (const visit of visits) assert.equal(await tryNow(visit, credential), 'let through')
  for (const visit of visits) {
    visit.failed()
    visit.leave()
  }
}

interface Try {
  visit: Visit
  state: string
}

/** What becomes of a try: 'waits', 'let through', or the code that it is rejected with. */
function tryOf(visit: Visit, credential = 'node'): Try {
  const result: Try = { visit, state: 'waits' }
  visit.attempt(credential).then(
    () => {
      result.state = 'let through'
    },
    (error) => {
      result.state = error.code
    },
  )
  return result
}

async function tryNow(visit: Visit, credential = 'node'): Promise<string> {
  const result = tryOf(visit, credential)
  await turn()
  return result.state
}

/** Whether a try from there has to wait; it is given up again. */
async function isSlowed(admission: Admission, remote: string | undefined, credential = 'node'): Promise<boolean> {
  const visit = admission.enter(remote)
  const state = await tryNow(visit, credential)
  visit.leave()
  await turn()
  return state === 'waits'
}

const states = (tries: readonly Try[]): string[] => tries.map(({ state }) => state)

// --- handshakes at once ---

const tooManyHandshakes = { name: 'ProxyError', code: 'PROXY_ERR_TOO_MANY_HANDSHAKES', retryable: true }

test('one address has at most so many handshakes under way, and others are not touched by that', () => {
  const admission = new Admission({ perAddress: 2 })
  const first = admission.enter('192.0.2.1:1')
  admission.enter('192.0.2.1:2')
  assert.throws(() => admission.enter('192.0.2.1:3'), tooManyHandshakes)
  admission.enter(ELSEWHERE)
  first.leave()
  admission.enter('192.0.2.1:4')
  assert.throws(() => admission.enter('192.0.2.1:5'), tooManyHandshakes)
})

test('64 handshakes of one address go on at once unless told otherwise', () => {
  const admission = new Admission()
  for (let port = 1; port <= 64; port++) admission.enter(`192.0.2.1:${port}`)
  assert.throws(() => admission.enter(HERE), tooManyHandshakes)
})

test('leaving twice frees one place only', () => {
  const admission = new Admission({ perAddress: 2 })
  const first = admission.enter(HERE)
  admission.enter(HERE)
  first.leave()
  first.leave()
  admission.enter(HERE)
  assert.throws(() => admission.enter(HERE), tooManyHandshakes)
})

test('a session takes no place of a handshake', () => {
  const admission = new Admission({ perAddress: 1 })
  const visit = admission.enter(HERE)
  visit.succeeded()
  visit.leave()
  admission.enter(HERE)
})

// --- what counts as one address ---

test('one address is an IPv4 address however it is written, or a /64 of IPv6', async (t) => {
  const same: [string, string][] = [
    ['192.0.2.1:1', '192.0.2.1:65535'],
    ['192.0.2.1:1', '[::ffff:192.0.2.1]:1'],
    ['192.0.2.1:1', '192.0.2.1'],
    ['[2001:db8::1]:1', '[2001:db8::ffff:ffff:ffff:ffff]:1'],
    ['[2001:db8::1]:1', '2001:db8::2'],
    ['[fe80::1%eth0]:1', '[fe80::2]:1'],
  ]
  const different: [string, string][] = [
    ['192.0.2.1:1', '192.0.2.2:1'],
    ['[::ffff:192.0.2.1]:1', '[::ffff:192.0.2.2]:1'],
    ['[2001:db8::1]:1', '[2001:db8:0:1::1]:1'],
    ['1.2.3.4:1', '[0:0:102:304::1]:1'],
  ]
  const { admission: slow } = admissionOf(t)
  for (const [pairs, expected] of [
    [same, true],
    [different, false],
  ] as const) {
    for (const [one, other] of pairs) {
      const admission = new Admission({ perAddress: 1 })
      admission.enter(one)
      if (expected) assert.throws(() => admission.enter(other), tooManyHandshakes, `${one} and ${other}`)
      else admission.enter(other)
      const credential = `${one} ${other}`
      await fail(slow, one, credential)
      assert.equal(await isSlowed(slow, other, credential), expected, credential)
    }
  }
})

test('loopback, Unix sockets, what has no address, and trusted proxies are never slowed or bounded', async (t) => {
  const trusted = ['10.0.0.0/8', '198.51.100.7', '2001:db8:1::/48', '::ffff:203.0.113.0/120']
  const { admission } = admissionOf(t, { perAddress: 1, trusted })
  const loopback = ['127.0.0.1:1', '127.9.9.9:1', '[::1]:1', '[::ffff:127.0.0.1]:1']
  const nameless = ['unix:/run/symport.sock', 'memory', '', undefined]
  const proxies = ['10.1.2.3:1', '[::ffff:10.1.2.3]:1', '198.51.100.7:1', '[2001:db8:1:2::3]:1', '203.0.113.9:1']
  for (const remote of [...loopback, ...nameless, ...proxies]) {
    const failing = admission.enter(remote)
    assert.equal(await tryNow(failing), 'let through')
    failing.failed()
    assert.equal(await isSlowed(admission, remote), false, remote)
  }
  for (const remote of ['11.1.2.3:1', '198.51.100.8:1', '[2001:db8:2::1]:1', '203.0.114.1:1', '126.0.0.1:1']) {
    await fail(admission, remote)
    assert.equal(await isSlowed(admission, remote), true, remote)
  }
})

test('what cannot be trusted because it is no address is an error', () => {
  for (const text of ['proxy.example', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '::/129', '::ffff:0.0.0.0/95', '']) {
    assert.throws(() => new Admission({ trusted: [text] }), { code: 'PROXY_ERR_PATTERN' }, text)
  }
})

// --- delays ---

test('nobody waits before a failure, however many come at once', async (t) => {
  const { admission } = admissionOf(t)
  const tries = Array.from({ length: 64 }, () => tryOf(admission.enter(HERE)))
  await turn()
  assert.deepEqual(new Set(states(tries)), new Set(['let through']))
})

test('after a failure the same credential from the same address waits 250 ms', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  const next = tryOf(admission.enter('192.0.2.1:4916'))
  await tick(249)
  assert.equal(next.state, 'waits')
  await tick(1)
  assert.equal(next.state, 'let through')
})

test('another credential from there, and the same one from elsewhere, do not wait', async (t) => {
  const { admission } = admissionOf(t)
  await fail(admission, HERE, 'one')
  assert.equal(await isSlowed(admission, HERE, 'one'), true)
  assert.equal(await isSlowed(admission, HERE, 'other'), false)
  assert.equal(await isSlowed(admission, HERE, ''), false)
  assert.equal(await isSlowed(admission, ELSEWHERE, 'one'), false)
})

test('a try that comes when the delay is over does not wait', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  await tick(250)
  assert.equal(await isSlowed(admission, HERE), false)
})

test('the delay doubles with every failure, up to 4 s', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  for (const delay of [250, 500, 1000, 2000, 4000, 4000, 4000]) {
    const next = tryOf(admission.enter(HERE))
    await tick(delay - 1)
    assert.equal(next.state, 'waits', `${delay} ms are not over`)
    await tick(1)
    assert.equal(next.state, 'let through', `${delay} ms are over`)
    next.visit.failed()
    next.visit.leave()
  }
})

test('tries of a failed pair go one after the other, in the order in which they came', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  const tries = Array.from({ length: 3 }, () => tryOf(admission.enter(HERE)))
  await tick(250)
  assert.deepEqual(states(tries), ['let through', 'waits', 'waits'])
  await tick(249)
  assert.deepEqual(states(tries), ['let through', 'waits', 'waits'])
  await tick(1)
  assert.deepEqual(states(tries), ['let through', 'let through', 'waits'])
  await tick(250)
  assert.deepEqual(states(tries), ['let through', 'let through', 'let through'])
})

test('a failure makes those wait longer that wait already', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  const tries = Array.from({ length: 2 }, () => tryOf(admission.enter(HERE)))
  await tick(250)
  await tick(100)
  tries[0]?.visit.failed()
  await tick(150)
  assert.deepEqual(states(tries), ['let through', 'waits'])
  await tick(349)
  assert.deepEqual(states(tries), ['let through', 'waits'])
  await tick(1)
  assert.deepEqual(states(tries), ['let through', 'let through'])
})

test('tries that are let through without waiting keep the same distance', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  await tick(MINUTE)
  const tries = Array.from({ length: 2 }, () => tryOf(admission.enter(HERE)))
  await tick(249)
  assert.deepEqual(states(tries), ['let through', 'waits'])
  await tick(1)
  assert.deepEqual(states(tries), ['let through', 'let through'])
})

test('8 tries of a pair wait, more are rejected, and that is no failure', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  const tries = Array.from({ length: 8 }, () => tryOf(admission.enter(HERE)))
  const ninth = admission.enter(HERE)
  await ninth.attempt('other')
  await assert.rejects(ninth.attempt('node'), {
    name: 'ProxyError',
    code: 'PROXY_ERR_TOO_MANY_FAILURES',
    retryable: true,
  })
  ninth.failed()
  assert.equal(await isSlowed(admission, HERE, 'other'), false)
  for (let done = 0; done < 8; done++) {
    assert.equal(states(tries).filter((state) => state === 'waits').length, 8 - done)
    await tick(250)
  }
  assert.deepEqual(new Set(states(tries)), new Set(['let through']))
})

test('a visit that shows no credential, or was judged already, makes nobody slower', async (t) => {
  const { admission, tick } = admissionOf(t)
  admission.enter(HERE).failed()
  assert.equal(await isSlowed(admission, HERE), false)
  const visit = admission.enter(HERE)
  assert.equal(await tryNow(visit), 'let through')
  visit.failed()
  visit.failed()
  const next = tryOf(admission.enter(HERE))
  await tick(250)
  assert.equal(next.state, 'let through')
})

test('the credential that was attempted last is the one that failed', async (t) => {
  const { admission } = admissionOf(t)
  const visit = admission.enter(HERE)
  assert.equal(await tryNow(visit, 'one'), 'let through')
  assert.equal(await tryNow(visit, 'other'), 'let through')
  visit.failed()
  assert.equal(await isSlowed(admission, HERE, 'one'), false)
  assert.equal(await isSlowed(admission, HERE, 'other'), true)
})

// --- success ---

test('a success forgets the failures of its pair, and of no other', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE, 'one', 5)
  await fail(admission, HERE, 'other')
  await tick(4000)
  await fail(admission, HERE, 'other')
  const visit = admission.enter(HERE)
  assert.equal(await tryNow(visit, 'one'), 'let through')
  visit.succeeded()
  visit.leave()
  visit.ended()
  assert.equal(await isSlowed(admission, HERE, 'other'), true)
  await fail(admission, HERE, 'one')
  const next = tryOf(admission.enter(HERE), 'one')
  assert.equal(await tryNow(admission.enter(HERE), 'one'), 'waits')
  await tick(250)
  assert.equal(next.state, 'let through', 'it began again with the first delay')
})

test('an address with a live session is not slowed, until the last one has ended', async (t) => {
  const { admission } = admissionOf(t)
  const sessions = [admission.enter(HERE), admission.enter(HERE)]
  for (const visit of sessions) {
    visit.succeeded()
    visit.succeeded()
    visit.leave()
  }
  await fail(admission, HERE, 'node', 3)
  await fail(admission, ELSEWHERE)
  assert.equal(await isSlowed(admission, HERE), false)
  assert.equal(await isSlowed(admission, ELSEWHERE), true)
  sessions[0]?.ended()
  sessions[0]?.ended()
  assert.equal(await isSlowed(admission, HERE), false)
  sessions[1]?.ended()
  assert.equal(await isSlowed(admission, HERE), true)
})

test('it may turn out after the handshake that it succeeded', async (t) => {
  const { admission } = admissionOf(t)
  const visit = admission.enter(HERE)
  assert.equal(await tryNow(visit), 'let through')
  visit.leave()
  await fail(admission, HERE)
  visit.succeeded()
  await fail(admission, HERE)
  assert.equal(await isSlowed(admission, HERE), false)
  visit.ended()
  assert.equal(await isSlowed(admission, HERE), true)
})

test('the end of a session that never was changes nothing', async (t) => {
  const { admission } = admissionOf(t)
  const session = admission.enter(HERE)
  session.succeeded()
  const other = admission.enter(HERE)
  other.ended()
  await fail(admission, HERE)
  assert.equal(await isSlowed(admission, HERE), false)
})

test('a success lets all go on that wait at its address, and only there', async (t) => {
  const { admission } = admissionOf(t)
  // As numbers in decimal, one is the beginning of the other.
  const [here, elsewhere] = ['1.0.0.0:1', '10.0.0.0:1']
  const session = admission.enter(here)
  await session.attempt('good')
  for (const credential of ['good', 'bad']) await fail(admission, here, credential)
  await fail(admission, elsewhere, 'good')
  const tries = ['good', 'good', 'bad', 'bad'].map((credential) => tryOf(admission.enter(here), credential))
  const other = tryOf(admission.enter(elsewhere), 'good')
  const left = tryOf(admission.enter(here), 'good')
  left.visit.leave()
  await turn()
  assert.deepEqual(states([...tries, other]), ['waits', 'waits', 'waits', 'waits', 'waits'])
  session.succeeded()
  await turn()
  assert.deepEqual(states(tries), ['let through', 'let through', 'let through', 'let through'])
  assert.equal(other.state, 'waits')
})

// --- leaving ---

test('a try that waits rejects when its link is gone, and the next one takes its turn', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE)
  const tries = Array.from({ length: 3 }, () => tryOf(admission.enter(HERE)))
  tries[0]?.visit.leave()
  tries[0]?.visit.failed()
  await turn()
  assert.deepEqual(states(tries), ['PROXY_ERR_ABORTED', 'waits', 'waits'])
  await tick(250)
  assert.deepEqual(states(tries), ['PROXY_ERR_ABORTED', 'let through', 'waits'])
})

test('a try whose link is gone already is rejected, also where nobody waits', async (t) => {
  const { admission } = admissionOf(t)
  const visit = admission.enter(HERE)
  visit.leave()
  await assert.rejects(visit.attempt('node'), { name: 'ProxyError', code: 'PROXY_ERR_ABORTED' })
})

test('those that left make room for others to wait', async (t) => {
  const { admission } = admissionOf(t)
  await fail(admission, HERE)
  const tries = Array.from({ length: 8 }, () => tryOf(admission.enter(HERE)))
  assert.equal(await tryNow(admission.enter(HERE)), 'PROXY_ERR_TOO_MANY_FAILURES')
  tries[4]?.visit.leave()
  assert.equal(await tryNow(admission.enter(HERE)), 'waits')
})

test('a timer runs only while somebody waits', async () => {
  const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
  const admission = new Admission()
  const before = timers()
  await fail(admission, HERE)
  assert.equal(timers(), before)
  const tries = Array.from({ length: 2 }, () => tryOf(admission.enter(HERE)))
  assert.equal(timers(), before + 1)
  for (const { visit } of tries) visit.leave()
  assert.equal(timers(), before)
  const last = tryOf(admission.enter(HERE))
  assert.equal(timers(), before + 1)
  const session = admission.enter(HERE)
  session.succeeded()
  assert.equal(timers(), before)
  await turn()
  assert.equal(last.state, 'let through')
})

test('its own clock is that of the timers', async () => {
  const admission = new Admission()
  await fail(admission, HERE)
  const start = performance.now()
  await admission.enter(HERE).attempt('node')
  assert.ok(performance.now() - start > 200)
})

// --- the table ---

test('a pair is forgotten 10 minutes after its last failure', async (t) => {
  const { admission, tick } = admissionOf(t)
  const delayAfter = async (pause: number): Promise<number> => {
    await fail(admission, HERE)
    await tick(pause)
    await fail(admission, HERE)
    for (let waited = 0; ; waited += 250) {
      if (!(await isSlowed(admission, HERE))) return waited
      await tick(250)
    }
  }
  assert.equal(await delayAfter(10 * MINUTE - 1), 500)
  await tick(10 * MINUTE)
  assert.equal(await delayAfter(10 * MINUTE), 250)
})

/** Fills the table up to `total` pairs where there are `present` ones already. */
async function fill(admission: Admission, present: number, total: number): Promise<void> {
  const visit = admission.enter(ELSEWHERE)
  for (let count = present; count < total; count++) {
    await visit.attempt(String(count))
    visit.failed()
  }
  visit.leave()
}

test('a full table of 10,000 pairs gives up the one whose last failure is the oldest', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE, 'a')
  await fail(admission, HERE, 'b', 5)
  await tick(250)
  await fail(admission, HERE, 'a')
  await fill(admission, 2, 10_000)
  for (const credential of ['a', 'b']) assert.equal(await isSlowed(admission, HERE, credential), true, credential)
  await fail(admission, HERE, 'c')
  assert.equal(await isSlowed(admission, HERE, 'b'), false)
  for (const credential of ['a', 'c']) assert.equal(await isSlowed(admission, HERE, credential), true, credential)
})

test('a full table keeps a pair that somebody waits for', async (t) => {
  const { admission, tick } = admissionOf(t)
  await fail(admission, HERE, 'a')
  await fail(admission, HERE, 'b')
  const waiting = tryOf(admission.enter(HERE), 'a')
  await fill(admission, 2, 10_001)
  assert.equal(await isSlowed(admission, HERE, 'a'), true)
  assert.equal(await isSlowed(admission, HERE, 'b'), false)
  assert.equal(waiting.state, 'waits')
  await tick(250)
  assert.equal(waiting.state, 'let through')
})
