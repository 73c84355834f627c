import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import test, { type TestContext } from 'node:test'
import { diagnostics } from '../../../lib/core/diagnostics.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import { Frame } from '../../../lib/core/frame.ts'
import type { Proxy } from '../../../lib/core/proxy.ts'
import { createProxyPair, type ProxyPair } from '../../../lib/testing.ts'
import { frame, openPayload, u32, u64 } from '../../helpers/core/bytes.ts'
import { echo } from '../../helpers/core/echo-domain.ts'
import { rawPeer, rawSession } from '../../helpers/core/raw-peer.ts'

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
      'symport:frame',
      'symport:data',
      'symport:record',
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

test('frames are told on both sides with what they say for everybody, and nothing of what they carry', async (t) => {
  await using pair = await pairOf()
  const frames = published(t, 'symport:frame')
  const data = published(t, 'symport:data')
  const records = published(t, 'symport:record')
  const sub = await pair.a.dial(TO)
  sub.end('the payload, which is nobody else’s')
  let length = 0
  sub.on('data', (chunk: Buffer) => {
    length += chunk.length
  })
  await once(sub, 'close')
  await assert.rejects(pair.a.accept({ Domain: 'none', Addr: 'y' }))
  const told = frames.filter(({ type }) => !['ack', 'ping', 'pong'].includes(String(type)))
  const line = ({ via, sent, type, id, ...facts }: Record<string, unknown>): unknown[] => [
    ...[via === pair.a.main ? 'a' : 'b', sent, type, id],
    ...Object.entries(facts).flatMap(([name, value]) => (name === 'credit' ? [typeof value] : [name, value])),
  ]
  const lines = told.map(line).map((parts) => parts.join(' '))
  for (const expected of [
    'a true open 1 number at echo://x',
    'b false open 1 number at echo://x',
    'b true opened 1 number',
    'a false opened 1 number',
    'a true fin 1',
    'b false fin 1',
    'a true listen 1 at none://y',
    'b true refused 1 code PROXY_ERR_UNKNOWN_DOMAIN',
    'a false refused 1 code PROXY_ERR_UNKNOWN_DOMAIN',
  ]) {
    assert.equal(lines.filter((text) => text === expected).length, 1, `${expected}\n${lines.join('\n')}`)
  }
  assert.deepEqual(
    data.map(({ via, ...rest }) => ({ ...rest, at: via === pair.a.main ? 'a' : 'b' })),
    [
      { sent: true, id: 1, length, at: 'a' },
      { sent: false, id: 1, length, at: 'b' },
      { sent: true, id: 1, length, at: 'b' },
      { sent: false, id: 1, length, at: 'a' },
    ],
  )
  // Each record that was sent was received, with the same number and length; all but the last on the way.
  const counted = (sent: boolean): string[] =>
    records.filter((record) => record.sent === sent).map((record) => `${record.number} ${record.length}`)
  const sent = counted(true)
  assert.ok(counted(false).length > 4)
  for (const record of counted(false)) assert.ok(sent.includes(record), record)
  for (const message of [...frames, ...data, ...records]) {
    for (const value of Object.values(message)) assert.ok(!(value instanceof Uint8Array))
  }
})

test('hello and goaway are told, before and after there is a main connection', async (t) => {
  const frames = published(t, 'symport:frame')
  const pair = await pairOf()
  pair.a.main.close(new ProxyError('PROXY_ERR_X', 'a text of whoever closed it'))
  await Promise.all([pair.a.closed, pair.b.closed])
  const of = (type: string): unknown[] =>
    frames.filter((frame) => frame.type === type).map(({ sent, expected, code }) => [sent, expected ?? code])
  assert.deepEqual(of('hello').sort(), [
    [false, 0],
    [false, 0],
    [true, 0],
    [true, 0],
  ])
  assert.deepEqual(of('goaway'), [
    [true, 'PROXY_ERR_X'],
    [false, 'PROXY_ERR_X'],
  ])
  assert.ok(!JSON.stringify(frames.map(({ via: _, ...rest }) => rest)).includes('a text'))
})

test('a frame that is malformed, or of no type that is known, is told without facts', async (t) => {
  const frames = published(t, 'symport:frame')
  const bad = [
    frame(Frame.open, 2, 'x'),
    frame(Frame.open, 2, openPayload(1, { to: { Domain: 'echo', Addr: 5 } })),
    frame(Frame.credit, 1, 'x'),
    frame(Frame.listen, 1, '{'),
    frame(Frame.ack, 0, u32(1)),
    frame(0x7f, 3, 'whatever'),
  ]
  for (const one of bad) {
    await using session = await rawPeer('acceptor')
    const { main } = session
    const heard = frames.length
    session.send(one)
    await main.closed
    const told = frames.slice(heard).find(({ via, sent }) => via === main && !sent)
    assert.ok(told, one.toString('hex'))
    const { via: _, sent: __, type, id, ...facts } = told
    assert.equal(id, one.readUInt32BE(1))
    assert.ok(typeof type === 'string')
    assert.ok(!('at' in facts) && !('expected' in facts))
  }
  assert.ok(frames.some(({ type }) => type === '0x7f'))
})

test('with nobody subscribed everything works all the same', async () => {
  await using pair = await pairOf()
  const sub = await pair.a.dial(TO)
  sub.resume().end()
  await once(sub, 'close')
  await assert.rejects(pair.a.dial({ Domain: 'echo', Addr: 'nowhere' }))
})
