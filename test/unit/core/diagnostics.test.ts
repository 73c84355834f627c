import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import test, { type TestContext } from 'node:test'
import { diagnostics } from '../../../lib/core/diagnostics.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import { Frame } from '../../../lib/core/frame.ts'
import type { Proxy } from '../../../lib/core/proxy.ts'
import { createProxyPair, type ProxyPair } from '../../../lib/testing.ts'
import { frame, u64 } from '../../helpers/core/bytes.ts'
import { echo } from '../../helpers/core/echo-domain.ts'
import { rawSession } from '../../helpers/core/raw-peer.ts'

/** What is published on a channel while the test runs. */
function published(t: TestContext, name: string): Record<string, unknown>[] {
  const messages: Record<string, unknown>[] = []
  const listen = (message: unknown): void => void messages.push({ ...(message as object) })
  subscribe(name, listen)
  t.after(() => unsubscribe(name, listen))
  return messages
}

const pairOf = (): Promise<ProxyPair> => createProxyPair({ b: { domains: [echo] } })
const TO = { Domain: 'echo', Addr: 'x' }

test('the channels have the names that subscribers use', () => {
  assert.deepEqual(
    Object.values(diagnostics).map(({ name }) => name),
    [
      'symport:main:open',
      'symport:main:pause',
      'symport:main:resume',
      'symport:main:close',
      'symport:sub:open',
      'symport:sub:close',
      'symport:refused',
    ],
  )
})

test('main:open and main:close come once for each side', async (t) => {
  const opened = published(t, 'symport:main:open')
  const closed = published(t, 'symport:main:close')
  const pair = await pairOf()
  assert.deepEqual(new Set(opened.map(({ main }) => main)), new Set([pair.a.main, pair.b.main]))
  assert.equal(closed.length, 0)
  const reason = new ProxyError('PROXY_ERR_X', 'because')
  pair.a.main.close(reason)
  await Promise.all([pair.a.closed, pair.b.closed])
  assert.equal(opened.length, 2)
  assert.equal(closed.length, 2)
  const [here, there] = closed
  assert.deepEqual([here?.main, here?.error], [pair.a.main, reason])
  assert.equal(there?.main, pair.b.main)
  assert.ok(there?.error instanceof ProxyError && there.error.code === 'PROXY_ERR_X')
})

test('main:pause and main:resume come once for each side, when a link is lost and there is another', async (t) => {
  const opened = published(t, 'symport:main:open')
  const paused = published(t, 'symport:main:pause')
  const resumed = published(t, 'symport:main:resume')
  const closed = published(t, 'symport:main:close')
  await using pair = await pairOf()
  const mains = new Set([pair.a.main, pair.b.main])
  const again = Promise.all([pair.a, pair.b].map((proxy) => connectedAgain(proxy)))
  assert.deepEqual([paused.length, resumed.length], [0, 0])
  pair.cut('rst')
  await again
  assert.deepEqual(new Set(paused.map(({ main }) => main)), mains)
  assert.deepEqual(new Set(resumed.map(({ main }) => main)), mains)
  for (const { error } of paused) assert.ok(error instanceof ProxyError && error.code === 'PROXY_ERR_LINK_LOST')
  assert.deepEqual(
    [opened, paused, resumed, closed].map(({ length }) => length),
    [2, 2, 2, 0],
  )
})

async function connectedAgain(proxy: Proxy): Promise<void> {
  const states: string[] = []
  while (states.at(-1) !== 'connected') states.push(...(await once(proxy, 'state')))
  assert.deepEqual(states, ['resuming', 'connected'])
}

test('a main connection that never came to be is not told about', async (t) => {
  const opened = published(t, 'symport:main:open')
  const closed = published(t, 'symport:main:close')
  const twoHellos = [frame(Frame.hello, 0, u64(0)), frame(Frame.hello, 0, u64(0))]
  for (const first of [[frame(Frame.ping, 0, u64(0))], twoHellos]) {
    await using session = await rawSession('dialler')
    session.send(...first)
    await assert.rejects(session.real)
  }
  assert.deepEqual([opened.length, closed.length], [0, 0])
})

test('sub:open tells where to, and sub:close when the id is free', async (t) => {
  const opened = published(t, 'symport:sub:open')
  const closed = published(t, 'symport:sub:close')
  await using pair = await pairOf()
  const sub = await pair.a.dial(TO)
  assert.deepEqual(new Set(opened.map(({ proxy }) => proxy)), new Set([pair.a, pair.b]))
  for (const { to } of opened) assert.deepEqual(to, TO)
  assert.ok(opened.some((message) => message.sub === sub))
  assert.equal(closed.length, 0)
  const bothClosed = Promise.all(opened.map((message) => once(message.sub as typeof sub, 'close')))
  sub.resume().end()
  await bothClosed
  assert.equal(closed.length, 2)
  assert.deepEqual(new Set(closed.map(({ main }) => main)), new Set([pair.a.main, pair.b.main]))
  assert.ok(closed.some((message) => message.sub === sub))
})

test('refused tells what was asked for, why not, and who said so', async (t) => {
  const refused = published(t, 'symport:refused')
  await using pair = await pairOf()
  await assert.rejects(pair.a.dial({ Domain: 'echo', Addr: 'nowhere' }))
  await assert.rejects(pair.a.accept({ Domain: 'none', Addr: 'y' }))
  const told = refused.map(({ proxy, error, request, by }) => [
    proxy === pair.a ? 'a' : 'b',
    by,
    request,
    error instanceof ProxyError && error.code,
  ])
  assert.deepEqual(told, [
    ['b', 'here', 'echo://nowhere', 'PROXY_ERR_DIAL_FAILED'],
    ['a', 'peer', 'echo://nowhere', 'PROXY_ERR_DIAL_FAILED'],
    ['b', 'here', 'none://y', 'PROXY_ERR_UNKNOWN_DOMAIN'],
    ['a', 'peer', 'none://y', 'PROXY_ERR_UNKNOWN_DOMAIN'],
  ])
})

test('with nobody subscribed everything works all the same', async () => {
  await using pair = await pairOf()
  const sub = await pair.a.dial(TO)
  sub.resume().end()
  await once(sub, 'close')
  await assert.rejects(pair.a.dial({ Domain: 'echo', Addr: 'nowhere' }))
})
