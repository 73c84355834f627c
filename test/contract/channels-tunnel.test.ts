import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  createPolicy,
  type DomainPlugin,
  type Endpoint,
  httpProxy,
  type ListenContext,
  mixed,
  type Policy,
  parsePattern,
  parseShort,
  type ShortUse,
  type Spec,
  type SubConnection,
  socks5,
  tcp,
  udp,
  unix,
} from '../../lib/index.ts'
import { datagramEcho, datagramServer, visitor } from '../helpers/contract/datagrams.ts'
import { dialProgram, echo, ending, readAll } from '../helpers/contract/programs.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ANY_TCP, type ChannelStage, channelStage, named, type TestNode } from '../helpers/hub/channels.ts'

watchForStrays()

const LIMIT = { timeout: 20_000 }
const TUNNEL: Endpoint = { Domain: 'tunnel', Addr: '' }

interface Asking extends DomainPlugin {
  ask(to: Endpoint | undefined): Promise<SubConnection>
}

/** Connections that name their own targets, as a SOCKS client's, made by code. */
function asking(): Asking {
  let context: ListenContext | undefined
  return {
    name: 'asking',
    carries: 'requests',
    async listen(at, given) {
      context = given
      const close = async (): Promise<void> => {}
      return { bound: at, close, [Symbol.asyncDispose]: close }
    },
    async ask(to) {
      if (!context) throw new Error('nobody listens')
      const sub = await context.open({ to, from: '192.0.2.1:1000' })
      sub.on('error', () => {})
      return sub
    },
  }
}

const ASKING: Endpoint = { Domain: 'asking', Addr: 'x' }

/** A node with a tunnel, and one that uses it. */
async function tunnelStage(
  stage: ChannelStage,
  tunnelPolicy: Policy | undefined,
  forward: Endpoint = named('tunnel', 'work'),
): Promise<{ far: TestNode; near: TestNode; ask: Asking['ask'] }> {
  const domain = asking()
  const far = await stage.node('far', {
    offers: [{ Listen: named('channel', 'work'), Forward: TUNNEL }],
    relay: { tunnelPolicy },
  })
  const near = await stage.node('near', {
    listeners: [{ Listen: ASKING, Forward: forward }],
    domains: [tcp(), udp(), domain],
  })
  return { far, near, ask: domain.ask }
}

const LOOPBACK = createPolicy({ dial: [parsePattern('127.0.0.1:*')], listenPorts: 'any' })

async function failure(sub: SubConnection): Promise<string> {
  sub.resume()
  await soon(new Promise((resolve) => sub.once('close', resolve)), 'the end')
  return sub.errored && 'code' in sub.errored ? String(sub.errored.code) : 'no error'
}

test('a tunnel reaches what its far node may reach, by TCP and by UDP', LIMIT, async () => {
  await using target = await echo()
  await using datagrams = await datagramEcho()
  await using stage = await channelStage()
  const { ask } = await tunnelStage(stage, LOOPBACK)
  const sub = await ask(target.endpoint)
  sub.end('hello')
  assert.equal(String(await soon(readAll(sub), 'an answer')), 'hello')
  const flow = await ask(datagrams.endpoint)
  await soon(new Promise((resolve) => flow.once('connect', resolve)), 'a way to the datagrams')
  flow.destroy()
})

test('names are resolved at the far node, and each address is asked about there', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const { far, ask } = await tunnelStage(stage, LOOPBACK)
  const near = await ask({ Domain: 'tcp', Addr: `localhost:${target.port}` })
  near.end('by name')
  assert.equal(String(await soon(readAll(near), 'an answer')), 'by name')
  const denied = createPolicy({ dial: [parsePattern('*.example:*')], listenPorts: 'any' })
  await using other = await channelStage()
  const second = await tunnelStage(other, denied)
  assert.equal(
    await failure(await second.ask({ Domain: 'tcp', Addr: `localhost:${target.port}` })),
    'PROXY_ERR_DIAL_DENIED',
  )
  const refused = await second.far.event('refused')
  assert.deepEqual([refused.by, refused.peer.id], ['here', 'the server'])
  assert.equal(refused.request, `channel://work (tcp://localhost:${target.port})`)
  assert.deepEqual(far.told('refused'), [])
})

test('without a policy of tunnels nothing is reached through one', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const { ask } = await tunnelStage(stage, undefined)
  assert.equal(await failure(await ask(target.endpoint)), 'PROXY_ERR_DIAL_DENIED')
  assert.equal(target.sockets.size, 0)
})

test('a tunnel has exits for TCP and UDP, and nothing else is dialled or listened on there', LIMIT, async () => {
  await using stage = await channelStage()
  const any = createPolicy({ dial: 'any', listenPorts: 'any' })
  const { ask } = await tunnelStage(stage, any)
  const unknown = 'PROXY_ERR_UNKNOWN_DOMAIN'
  assert.equal(await failure(await ask({ Domain: 'unix', Addr: '/run/docker.sock' })), unknown)
  assert.equal(await failure(await ask({ Domain: 'channel', Addr: 'work' })), unknown)
})

test('a tunnel and a channel with one target are told apart, in words', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const domain = asking()
  const far = await stage.node('far', {
    offers: [
      { Listen: named('channel', 'work'), Forward: TUNNEL },
      { Listen: named('channel', 'ssh'), Forward: target.endpoint },
    ],
    relay: { tunnelPolicy: LOOPBACK },
  })
  const near = await stage.node('near', {
    domains: [tcp(), domain],
    listeners: [
      { Listen: ASKING, Forward: named('tunnel', 'ssh') },
      { Listen: ANY_TCP, Forward: named('channel', 'work') },
    ],
  })
  assert.equal(await failure(await domain.ask(target.endpoint)), 'PROXY_ERR_CHANNEL_KIND')
  const first = await near.event('refused')
  assert.equal(first.reason.message, 'channel ssh leads to one target, and is no tunnel')
  await assert.rejects(domain.ask(undefined), { code: 'PROXY_ERR_CHANNEL_KIND' })

  await ending(await dialProgram(near.bound(1)))
  const second = await near.event('refused', ({ request }) => request.includes('work'))
  assert.match(second.reason.message, /^channel work is a tunnel: listen with socks5, http or mixed/)
  assert.equal(target.sockets.size, 0)
  assert.ok(far.told('refused').length >= 2)
})

test('connections that name their own targets do not go to a channel with one target', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const domain = asking()
  const near = await stage.node('near', {
    offers: [{ Listen: named('channel', 'ssh'), Forward: target.endpoint }],
    domains: [tcp(), domain],
    listeners: [{ Listen: ASKING, Forward: named('channel', 'ssh') }],
  })
  await assert.rejects(domain.ask(target.endpoint), { code: 'PROXY_ERR_CHANNEL_KIND' })
  assert.equal((await near.event('unserved')).reason.code, 'PROXY_ERR_CHANNEL_KIND')
})

test('a tunnel without a name is the peer itself, under the policy of the peer', LIMIT, async () => {
  await using target = await echo()
  await using other = await datagramServer()
  await using stage = await channelStage({ policy: LOOPBACK })
  const domain = asking()
  await stage.node('near', { listeners: [{ Listen: ASKING, Forward: TUNNEL }], domains: [tcp(), domain] })
  const sub = await domain.ask(target.endpoint)
  sub.end('hello')
  assert.equal(String(await soon(readAll(sub), 'an answer')), 'hello')
  assert.equal(await failure(await domain.ask({ Domain: 'tcp', Addr: '169.254.169.254:80' })), 'PROXY_ERR_DIAL_DENIED')
  // The server of this test has no UDP.
  assert.equal(await failure(await domain.ask(other.endpoint)), 'PROXY_ERR_UNKNOWN_DOMAIN')
})

test('whoever comes through a tunnel cannot make it dial while it does not know the password', LIMIT, async () => {
  await using target = await echo()
  await using stage = await channelStage()
  const { far, ask } = await tunnelStage(stage, LOOPBACK, named('tunnel', 'work', 'guess'))
  await assert.rejects(ask(target.endpoint), { code: 'PROXY_ERR_CHANNEL_PASSWORD' })
  assert.equal((await far.event('channel-failed')).reason.code, 'PROXY_ERR_CHANNEL_PASSWORD')
  assert.equal(target.sockets.size, 0)
})

test('a password mismatch is told in one line for each form that names a channel', LIMIT, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'symport-'))
  try {
    await using target = await echo()
    await using stage = await channelStage()
    const domains = [tcp(), udp(), unix(), socks5(), httpProxy(), mixed()]
    const short = (text: string, use: ShortUse): Spec => parseShort(text, use, { domains })
    // A channel each: three wrong passwords close one for a while.
    const tunnels = ['socks5', 'http', 'mixed'].map((form) => `${form}://t-${form}:hunter2@127.0.0.1:0`)
    const channels = [
      'tcp://c-tcp:hunter2@127.0.0.1:0',
      'udp://c-udp:hunter2@127.0.0.1:0',
      `unix://c-unix:hunter2@${join(folder, 'x.sock')}`,
    ]
    const offers = [
      ...tunnels.map((text) => text.replace(/^.*:\/\//, 'tunnel://').replace(/hunter2@.*/, 'correct@')),
      ...channels.map((text) => text.replace('hunter2', 'correct').replace(/:0$/, ':1')),
    ]
    const far = await stage.node('far', { domains, offers: offers.map((text) => short(text, 'remote')) })
    const near = await stage.node('near', {
      domains,
      listeners: [...tunnels.map((text) => short(text, 'dynamic')), ...channels.map((text) => short(text, 'local'))],
    })
    const connect = `CONNECT ${target.endpoint.Addr} HTTP/1.1\r\n\r\n`
    const socks = [Buffer.from('050100', 'hex'), Buffer.from('0501000108080808ffff', 'hex')]
    for (const [index, text] of [...tunnels, ...channels].entries()) {
      const at = near.bound(index)
      const name = /\/\/([^:]*)/.exec(text)?.[1] ?? ''
      if (at.Domain === 'udp') {
        await using client = await visitor(at)
        client.send('x')
        await far.event('channel-failed', ({ channel }) => channel === name)
      } else {
        const socket = await dialProgram(at)
        for (const bytes of at.Domain === 'socks5' ? socks : [connect]) {
          socket.write(bytes)
          if (at.Domain === 'socks5') await once(socket, 'data')
        }
        await soon(ending(socket), `the end of ${text}`)
      }
      const words = `the password of channel ${name} is another one there`
      const there = await far.event('channel-failed', ({ channel }) => channel === name)
      assert.deepEqual([there.reason.code, there.reason.message], ['PROXY_ERR_CHANNEL_PASSWORD', words], text)
      const here = await near.event('unserved', ({ reason }) => reason.message.includes(name))
      assert.deepEqual([here.reason.code, here.reason.message], ['PROXY_ERR_CHANNEL_PASSWORD', words], text)
    }
    assert.equal(target.sockets.size, 0)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
