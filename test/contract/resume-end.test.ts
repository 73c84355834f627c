import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { type Abortable, type Link, Proxy, type SubConnection } from '../../lib/core/index.ts'
import { CODE, codePairs, endOf } from '../helpers/contract/code.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { echo } from '../helpers/core/echo-domain.ts'
import { FaultyNetwork, type FaultyPath } from '../helpers/faults/fault-link.ts'
import {
  type End,
  type FaultyPair,
  type FaultyPairOptions,
  faultyPair,
  resumingPair,
} from '../helpers/resume/faulty-pair.ts'
import { hurry, turns, until } from '../helpers/resume/hurry.ts'
import { Talk } from '../helpers/resume/streams.ts'

/** Sessions that end while they have no link, or soon after; and what is asked for meanwhile. */

watchForStrays()
hurry()

const ECHO = { Domain: 'echo', Addr: 'x' }

interface Stage {
  readonly pair: FaultyPair
  readonly near: End
  readonly far: End
}

/** Both ways round: `near` is the one that does something. */
function bothWays(
  name: string,
  options: FaultyPairOptions & { both?: FaultyPairOptions['dialling'] },
  run: (s: Stage) => Promise<void>,
): void {
  for (const way of ['dialling', 'accepting'] as const) {
    test(`${name} (${way} side)`, { timeout: 10_000 }, async () => {
      const both = { domains: [echo], ...options.both }
      await using pair = await faultyPair({ record: false, dialling: both, accepting: both, ...options })
      await run({ pair, near: pair[way], far: pair[way === 'dialling' ? 'accepting' : 'dialling'] })
    })
  }
}

/** No link, and none to be had until `unblock`. */
async function loseLink({ network, dialling, accepting }: FaultyPair): Promise<void> {
  network.block('refuse')
  network.cut('rst')
  await until(() => !dialling.proxy.main.linked && !accepting.proxy.main.linked, 'no link')
}

async function opened({ near, far }: Stage): Promise<[SubConnection, SubConnection]> {
  const { opened, accepted } = await (await codePairs(far.proxy, near.code)).next()
  return [opened, accepted]
}

bothWays(
  'both sides end when no link was found in time, and say why',
  { both: { resumeTimeout: 60 } },
  async (stage) => {
    const { pair, near, far } = stage
    const subs = await opened(stage)
    await loseLink(pair)
    const lost = performance.now()
    for (const { proxy } of [near, far]) {
      const reason = await soon(proxy.main.closed, 'the end')
      assert.equal(reason.code, 'PROXY_ERR_SESSION_LOST')
      assert.match(reason.message, /no way to go on was found within 0\.06 s/)
      assert.equal(reason.retryable, true)
      assert.equal(proxy.state, 'closed')
    }
    assert.ok(performance.now() - lost >= 50, 'not before its time')
    for (const sub of subs) {
      const reason = await soon(endOf(sub), 'the end of a sub-connection')
      assert.equal(reason?.code, 'PROXY_ERR_SESSION_LOST')
      assert.match(String(reason?.message), /within 0\.06 s/)
    }
    for (const { states } of [near, far]) assert.deepEqual(states, ['resuming', 'closed'])
    await nothingLeft(near.proxy, far.proxy)
    // Nobody tries any more.
    const { refused } = pair.network
    await turns(50)
    assert.equal(pair.network.refused, refused)
  },
)

test('the time begins again with each link that is lost', async () => {
  await using pair = await faultyPair({
    record: false,
    dialling: { resumeTimeout: 150 },
    accepting: { resumeTimeout: 150 },
  })
  const begun = performance.now()
  for (let round = 1; round <= 4; round++) {
    await loseLink(pair)
    await new Promise((resolve) => setTimeout(resolve, 60))
    pair.network.unblock()
    await until(() => pair.dialling.states.length === 2 * round, 'the resume')
    await until(() => pair.accepting.proxy.state === 'connected', 'the resume')
  }
  assert.ok(performance.now() - begun > 200)
  for (const { proxy } of [pair.dialling, pair.accepting]) assert.equal(proxy.main.reason, undefined)
})

for (const way of ['dialling', 'accepting'] as const) {
  test(`with a resumeTimeout of 0 the ${way} side ends with its link, and the other one hears of it`, async () => {
    const options = { [way]: { resumeTimeout: 0 }, record: false }
    const renewed: Proxy[] = []
    await using pair = await faultyPair({ ...options, onRenewed: (main) => void renewed.push(new Proxy(main)) })
    const pairs = await codePairs(pair.accepting.proxy, pair.dialling.code)
    const { opened, accepted } = await pairs.next()
    pair.network.cut('fin')
    const { main } = pair[way].proxy
    assert.equal((await soon(main.closed, 'the end')).code, 'PROXY_ERR_SESSION_LOST')
    assert.deepEqual(pair[way].states, ['closed'])
    assert.equal((await soon(endOf(way === 'dialling' ? opened : accepted), 'an end'))?.code, 'PROXY_ERR_SESSION_LOST')
    if (way === 'accepting') {
      const reason = await soon(pair.dialling.proxy.main.closed, 'the end of the dialling side')
      assert.match(reason.message, /does not know it/)
      await until(() => renewed.length === 1, 'a new one')
      renewed[0]?.close()
      await renewed[0]?.closed
    } else {
      await turns(50)
      assert.equal(pair.network.paths.length, 1, 'nobody dials')
      assert.equal(pair.accepting.proxy.state, 'resuming')
    }
  })
}

bothWays('close without a link ends at once', {}, async (stage) => {
  const { pair, near } = stage
  const [sub] = await opened(stage)
  await loseLink(pair)
  near.proxy.close()
  assert.equal(near.proxy.state, 'closed')
  assert.equal((await soon(near.proxy.main.closed, 'the end', 200)).code, 'PROXY_ERR_CLOSED')
  assert.equal((await endOf(sub))?.code, 'PROXY_ERR_CLOSED')
  await soon(near.proxy.closed, 'the end')
  pair.network.unblock()
})

bothWays('drain without a link and with nothing open ends at once', {}, async ({ pair, near }) => {
  await loseLink(pair)
  await soon(near.proxy.drain(), 'the drain', 200)
  assert.equal(near.proxy.state, 'closed')
})

bothWays('a drain with nothing open that loses its link ends', {}, async ({ pair, near }) => {
  pair.network.hold()
  const draining = near.proxy.drain()
  await turns(5)
  assert.equal(near.proxy.state, 'draining')
  await loseLink(pair)
  await soon(draining, 'the drain', 200)
})

bothWays(
  'a drain that lost its link, or begins without one, finishes what is open when it has one',
  {},
  async (stage) => {
    const { pair, near, far } = stage
    const [a, b] = await opened(stage)
    const [one, two] = [new Talk(a, 1, 2), new Talk(b, 2, 1)]
    let drained = false
    const begin = async (): Promise<void> => {
      await near.proxy.drain()
      drained = true
    }
    const early = pair.dialling === near
    const draining = early ? begin() : undefined
    await loseLink(pair)
    const late = draining ?? begin()
    const saying = Promise.all([one.sayAll(300_000, 20_000), two.sayAll(200_000, 20_000)])
    await turns(30)
    assert.equal(drained, false)
    assert.equal(near.proxy.state, 'draining')
    pair.network.unblock()
    await saying
    await Promise.all([one.hearAll(200_000), two.hearAll(300_000)])
    await soon(late, 'the drain')
    assert.equal((await soon(far.proxy.main.closed, 'the far side')).code, 'PROXY_ERR_CLOSED')
  },
)

bothWays('what is asked for without a link is answered when there is one', {}, async (stage) => {
  const { pair, near, far } = stage
  await loseLink(pair)
  assert.equal(near.proxy.state, 'resuming')
  const dialling = near.proxy.dial(ECHO)
  const refused = assert.rejects(near.proxy.dial({ ...ECHO, Addr: 'nowhere' }), { code: 'PROXY_ERR_DIAL_FAILED' })
  const listening = near.proxy.newListener({ Listen: CODE, Forward: ECHO })
  const listeningThere = near.proxy.newPeerListener({ Listen: CODE, Forward: ECHO })
  const accepting = near.proxy.accept(CODE)
  // A listener of one's own needs no link; what comes in there does.
  await soon(listening, 'a listener here')
  const visitor = await near.code.open()
  await turns(20)
  assert.equal(visitor.connecting, true)
  pair.network.unblock()
  await refused
  await soon(Promise.all([listeningThere, accepting]), 'listeners there')
  const incoming = (await accepting)[Symbol.asyncIterator]()
  const [dialled, next] = await Promise.all([dialling, incoming.next(), far.code.open()])
  assert.ok(!next.done)
  for (const sub of [dialled, visitor]) {
    const talk = new Talk(sub, 1, 1)
    await talk.sayAll(50_000, 9000)
    await soon(talk.hearAll(50_000), 'the echo')
  }
  next.value.destroy()
})

bothWays('a listener at the other side takes connections while there is no link', {}, async (stage) => {
  const { pair, near, far } = stage
  const incoming = (await near.proxy.accept(CODE))[Symbol.asyncIterator]()
  await loseLink(pair)
  const visitors = await Promise.all(Array.from({ length: 5 }, () => far.code.open()))
  for (const [index, visitor] of visitors.entries()) visitor.resume().end(`visitor ${index}`)
  // One who does not wait is not let in for nothing: it has gone when there is a link.
  visitors[4]?.destroy()
  await turns(20)
  pair.network.unblock()
  for (let index = 0; index < 4; index++) {
    const { value: sub } = await soon(incoming.next(), `visitor ${index}`)
    assert.ok(sub)
    assert.equal(String(await buffer(sub)), `visitor ${index}`)
    sub.end()
  }
  await nothingLeft(near.proxy, far.proxy)
})

/** The dialling side has closed its end, which the far side of a black hole cannot know. */
async function givenUp(path: FaultyPath | undefined): Promise<void> {
  path?.cut('rst', 'up')
  await soon(path?.closed ?? Promise.reject(new Error('no such link')), 'the end of the attempt')
}

test('an attempt that hangs is given up after its time, and another one is made', async () => {
  await using pair = await faultyPair({ record: false, timeout: 400 })
  const { network } = pair
  network.arm((path) => path.blackhole())
  network.cut('rst')
  await until(() => network.paths.length === 3, 'a third link')
  await until(() => pair.dialling.proxy.state === 'connected', 'the resume')
  await givenUp(network.paths[1])
})

test('a dial that hangs is given up after its time too', async () => {
  const network = new FaultyNetwork({ record: false })
  let dials = 0
  const dial = async (options: Abortable): Promise<Link> => {
    if (++dials === 2) await once(new EventEmitter(), 'never', options.signal ? { signal: options.signal } : {})
    return await network.dial(options)
  }
  const listen = (onLink: (link: Link) => void): void => {
    network.onLink = onLink
  }
  await using pair = await resumingPair({ dial, listen }, { timeout: 400 })
  network.cut('rst')
  await until(() => dials === 2, 'the first attempt')
  await until(() => pair.dialling.proxy.state === 'connected', 'the resume')
})

test('close gives up the attempt that is under way', async () => {
  for (const how of ['hang', 'blackhole', 'refuse'] as const) {
    await using pair = await faultyPair({ record: false })
    const { network, dialling } = pair
    if (how === 'blackhole') network.arm((path) => path.blackhole())
    else network.block(how)
    network.cut('rst')
    await until(() => dialling.states.length === 1 && (how !== 'blackhole' || network.paths.length === 2), 'no link')
    await turns(5)
    dialling.proxy.close()
    await soon(dialling.proxy.closed, 'the end', 200)
    const { refused, paths } = network
    await turns(30)
    // Its link is closed now, not when its time is over.
    if (how === 'blackhole') await givenUp(paths[1])
    assert.deepEqual([network.refused, network.paths.length], [refused, paths.length])
  }
})
