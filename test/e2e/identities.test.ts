import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { after, type TestContext } from 'node:test'
import { Feed } from '../../lib/hub/feed.ts'
import { Identities } from '../../lib/hub/identities.ts'
import { Statistics } from '../../lib/hub/statistics.ts'
import {
  allowAll,
  type Connected,
  createNode,
  createPolicy,
  createServer,
  type HubEvent,
  type Link,
  type NodeOptions,
  rawPublicKey,
  type ServerOptions,
  type SymportNode,
  type SymportServer,
  tcp,
} from '../../lib/index.ts'
import { Operator } from '../../lib/operator.ts'
import { StateFolder } from '../../lib/store/state-folder.ts'
import { memoryPair } from '../../lib/testing.ts'
import { eventually } from '../helpers/contract/strays.ts'
import { echo } from '../helpers/core/echo-domain.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'

const SHARED = 'shared-secret-8c41e0d97f'
const CHOSEN = 'chosen-secret-f03b61aa52'
const SERVER_KEY = generateKeyPairSync('x25519')
// What a secret costs is for others to test.
const scrypt = cheapScrypt()
after(() => scrypt[Symbol.dispose]())

/** What the name in the preamble of each try was, the order in which they came, and the means to cut and hold. */
class Wire {
  readonly tried: string[] = []
  #cut: () => void = () => {}
  /** While set, a node's links carry the first so many writes only. */
  held: number | undefined
  #release: (() => void)[] = []

  cut(): void {
    this.#cut()
  }

  release(): void {
    this.held = undefined
    for (const go of this.#release.splice(0)) go()
  }

  /** How many links have something to say that is held. */
  get holding(): number {
    return this.#release.length
  }

  dial(hub: Hub, remote: string): Link {
    const { a, b, cut } = memoryPair()
    this.#cut = () => cut('rst')
    let writes = 0
    const near = like(a, a.remote, (chunks) => {
      const bytes = Buffer.concat(chunks)
      if (writes === 0) this.tried.push(bytes.toString('utf8', 7, 7 + (bytes[6] ?? 0)))
      if (this.held !== undefined && writes >= this.held) this.#release.push(() => a.write([bytes]))
      else a.write(chunks)
      writes++
    })
    hub.knock(like(b, remote, (chunks) => b.write(chunks)))
    return near
  }
}

function like(link: Link, remote: string | undefined, write: (chunks: readonly Uint8Array[]) => void): Link {
  return {
    remote,
    get pending() {
      return link.pending
    },
    start: (sink) => link.start(sink),
    write,
    resume: () => link.resume(),
    end: () => link.end(),
    destroy: (error) => link.destroy(error),
  }
}

interface Hub {
  readonly server: SymportServer
  readonly identities: Identities
  readonly events: HubEvent[]
  /** `id < others`, for each that is not the only instance of its node. */
  readonly instances: string[]
  knock(link: Link): void
  /** Waits for so many nodes. */
  connected(count: number): Promise<readonly Connected[]>
}

async function startHub(t: TestContext, options: Partial<ServerOptions> = {}): Promise<Hub> {
  const path = await mkdtemp(join(tmpdir(), 'symport-e2e-'))
  const serverKey = async (): Promise<Uint8Array> => rawPublicKey(SERVER_KEY.publicKey)
  const identities = await Identities.open(new StateFolder(path), { serverKey })
  let accept: (link: Link) => void = () => {}
  const events: HubEvent[] = []
  const instances: string[] = []
  const server = await createServer({
    ...{ domains: [tcp(), echo], policy: allowAll, secret: SHARED, staticKey: SERVER_KEY.privateKey, identities },
    ...options,
    onEvent(event) {
      events.push(event)
      if (event.type === 'duplicate') instances.push(`${event.peer.id} < ${event.others.length}`)
    },
    async listen(onLink) {
      accept = onLink
      return { address: 'by hand', close: async () => {} }
    },
  })
  t.after(async () => {
    await server.close()
    await rm(path, { recursive: true, force: true })
  })
  return {
    ...{ server, identities, events, instances },
    knock: (link) => accept(link),
    async connected(count) {
      await eventually(() => [...server.nodes].length === count, `not ${count} nodes`, 4000)
      return [...server.nodes]
    },
  }
}

interface Agent {
  readonly node: SymportNode
  readonly wire: Wire
  readonly events: HubEvent[]
}

interface AgentOptions extends Partial<Omit<NodeOptions, 'onEvent'>> {
  readonly remote?: string
  readonly wire?: Wire
}

let port = 1000
/** A node that was started with `--id` names itself; `name: ''` for one that was not. */
async function startAgent(t: TestContext, hub: Hub, id: string, options: AgentOptions = {}): Promise<Agent> {
  const { remote = '192.0.2.1', wire = new Wire(), ...rest } = options
  const events: HubEvent[] = []
  const node = await createNode({
    ...{ server: 'the server', secret: SHARED, id, name: id, domains: [tcp(), echo], policy: allowAll },
    dial: async () => wire.dial(hub, `${remote}:${port++}`),
    ...rest,
    onEvent: (event) => events.push(event),
  })
  t.after(() => node.close())
  return { node, wire, events }
}

function nodeKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey
}

type Of<T extends HubEvent['type']> = Extract<HubEvent, { type: T }>
function all<T extends HubEvent['type']>(events: readonly HubEvent[], type: T): Of<T>[] {
  return events.filter((event): event is Of<T> => event.type === type)
}

/** The next time that the node says it will try again, and why. */
async function retrying({ events }: Agent): Promise<Of<'retrying'>> {
  await eventually(() => all(events, 'retrying').length > 0, 'it does not try again', 4000)
  const [event] = all(events, 'retrying')
  assert.ok(event)
  return event
}

async function visit(at: string): Promise<string> {
  const [host = '', to = ''] = at.split(':')
  const socket = connectSocket({ host, port: Number(to), allowHalfOpen: true }).end('hello')
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk))
  await once(socket, 'end')
  socket.destroy()
  return Buffer.concat(chunks).toString()
}

test('an enrolled node connects by its name with a token or a chosen secret, and serves what is mapped to it', async (t) => {
  const mapped = (Node: string): object => ({
    ...{ Node, Listen: { Domain: 'tcp', Addr: '127.0.0.1:0' }, Forward: { Domain: 'echo', Addr: 'x' } },
  })
  const listeners = [mapped('token'), mapped('chosen')] as ServerOptions['listeners']
  const hub = await startHub(t, { listeners })
  const { secret } = await hub.identities.add({ id: 'token' })
  await hub.identities.add({ id: 'chosen', secret: CHOSEN })
  assert.ok(secret)
  await startAgent(t, hub, 'other', { secret, name: 'token' })
  await hub.connected(1)
  await startAgent(t, hub, 'chosen', { secret: CHOSEN })
  const peers = await hub.connected(2)
  assert.deepEqual(
    peers.map(({ id, proxy: { main } }) => [id, main.peer.credential, main.peer.label]),
    [
      ['token', 'token', 'other'],
      ['chosen', 'chosen', 'chosen'],
    ],
  )
  for (const { bound } of all(hub.events, 'listener-ready')) assert.equal(await visit(bound.Addr), 'hello')
  for (const { proxy } of peers) assert.ok(proxy.state === 'connected')
  assert.deepEqual(all(hub.events, 'rejected'), [])
})

test('both ways refused is one refusal: one event, and a try again in 60 s', async (t) => {
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const agent = await startAgent(t, hub, 'a', { secret: 'neither-of-them-77d1' })
  const { reason, delay } = await retrying(agent)
  assert.deepEqual([reason.code, delay], ['PROXY_ERR_REFUSED', 60_000])
  assert.deepEqual(agent.wire.tried, ['a', ''])
  assert.equal(all(agent.events, 'retrying').length, 1)
  // Of a name that exists each one is told at once.
  await eventually(() => all(hub.events, 'rejected').length === 2, 'not told')
})

test('a node that only calls itself something tries that name once, is not told as rejected, and not slowed', async (t) => {
  const hub = await startHub(t)
  const agent = await startAgent(t, hub, 'laptop', { resumeTimeout: 0 })
  for (let round = 1; round <= 4; round++) {
    await hub.connected(1)
    await eventually(() => all(agent.events, 'connected').length === round, 'not connected', 4000)
    assert.equal([...hub.server.nodes][0]?.id, 'laptop')
    if (round === 4) break
    agent.wire.cut()
    await eventually(
      () => all(hub.events, 'disconnected').length + all(hub.events, 'paused').length >= round,
      'not cut',
    )
    for (const { proxy } of hub.server.nodes) proxy.close()
    await hub.connected(0)
  }
  assert.deepEqual(agent.wire.tried, ['laptop', '', '', '', ''])
  assert.equal(
    all(agent.events, 'retrying').every(({ delay }) => delay < 1500),
    true,
  )
  await hub.server.close()
  assert.deepEqual(all(hub.events, 'rejected'), [])
})

test('what was held back is told when the server closes', async (t) => {
  const hub = await startHub(t)
  await startAgent(t, hub, 'stranger', { secret: 'neither-of-them-77d1' })
  await eventually(() => all(hub.events, 'rejected').length === 1, 'not told')
  await hub.server.close()
  assert.equal(all(hub.events, 'rejected').length, 2)
})

test('a node without a name of its own tries the shared secret only', async (t) => {
  const hub = await startHub(t)
  const { wire } = await startAgent(t, hub, 'laptop', { name: undefined })
  await hub.connected(1)
  assert.deepEqual(wire.tried, [''])
})

test('what cannot be changed about a node without a secret of its own is said as what it is', async (t) => {
  const hub = await startHub(t)
  await startAgent(t, hub, 'office')
  await hub.connected(1)
  const statistics = await Statistics.open(undefined)
  t.after(() => statistics.close())
  const operator = new Operator({ ...hub, statistics, feed: new Feed(), version: '0' })
  const code = 'PROXY_ERR_NOT_FOUND'
  const message = 'node "office" is not enrolled: it came by the shared secret'
  const limits = `${message}; the limits that hold for it are those of [node-limits]`
  await assert.rejects(operator.changeNode('office', { limits: { in: 1 } }), { code, message: limits })
  await assert.rejects(operator.setNodeEnabled('office', false), { code, message })
  await assert.rejects(operator.rotateNode('office'), { code, message })
  await assert.rejects(operator.removeNode('office'), { code, message })
  await assert.rejects(operator.removeNode('nobody'), { code, message: 'there is no node "nobody"' })
})

test('with enrolledOnly nobody connects by the shared secret, and an empty one is none', async (t) => {
  const hub = await startHub(t, { enrolledOnly: true })
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const stranger = await startAgent(t, hub, 'b')
  assert.equal((await retrying(stranger)).reason.code, 'PROXY_ERR_REFUSED')
  await startAgent(t, hub, 'a', { secret: CHOSEN })
  assert.equal((await hub.connected(1))[0]?.id, 'a')
  await startHub(t, { enrolledOnly: true, secret: '' })
})

test('nobody passes for an enrolled node by calling itself so', async (t) => {
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  await hub.identities.setEnabled('a', false)
  const impostor = await startAgent(t, hub, 'a')
  const { reason, delay } = await retrying(impostor)
  assert.deepEqual([reason.code, delay], ['PROXY_ERR_ID_TAKEN', 60_000])
  assert.match(reason.message, /^a is the id of a node with a secret of its own/)
  assert.equal(all(hub.events, 'connected').length, 0)
  await eventually(() => all(hub.events, 'rejected').some((e) => e.reason.code === 'PROXY_ERR_ID_TAKEN'), 'not told')
})

test('enrolling an id ends the main connections of those that only call themselves so', async (t) => {
  const hub = await startHub(t)
  const agents = [await startAgent(t, hub, 'a'), await startAgent(t, hub, 'a', { name: undefined })]
  await startAgent(t, hub, 'b')
  await hub.connected(3)
  await hub.identities.add({ id: 'a' })
  for (const agent of agents) assert.equal((await retrying(agent)).reason.code, 'PROXY_ERR_ID_TAKEN')
  assert.deepEqual(
    (await hub.connected(1)).map(({ id }) => id),
    ['b'],
  )
})

const ENDS: [why: RegExp, end: (identities: Identities) => Promise<unknown>][] = [
  [/was removed/, (identities) => identities.remove('a')],
  [/was disabled/, (identities) => identities.setEnabled('a', false)],
  [/has a new secret/, (identities) => identities.rotate('a')],
]
for (const [why, end] of ENDS) {
  test(`one that ${why.source} is disconnected at once, is told so, and its session is gone`, async (t) => {
    const hub = await startHub(t)
    await hub.identities.addMany([
      { id: 'a', secret: CHOSEN },
      { id: 'b', secret: CHOSEN },
    ])
    const agent = await startAgent(t, hub, 'a', { secret: CHOSEN })
    await hub.connected(1)
    const away = await startAgent(t, hub, 'a', { secret: CHOSEN })
    await startAgent(t, hub, 'b', { secret: CHOSEN })
    const peers = await hub.connected(3)
    // Its resume has begun, and has not come to its hello yet.
    away.wire.held = 1
    away.wire.cut()
    await eventually(() => away.wire.holding === 1, 'no resume', 4000)
    const ended = peers.filter(({ id }) => id === 'a').map(({ proxy }) => proxy.main.closed)
    await end(hub.identities)
    for (const reason of await Promise.all(ended)) assert.equal(reason.code, 'PROXY_ERR_REFUSED')
    away.wire.release()
    const { reason, delay } = await retrying(agent)
    assert.match(reason.message, why)
    assert.deepEqual([reason.code, reason.retryable, delay], ['PROXY_ERR_REFUSED', true, 60_000])
    // Another try to resume is refused like any other.
    await eventually(() => all(away.events, 'retrying').some((e) => e.delay === 60_000), 'not refused', 4000)
    assert.deepEqual(
      (await hub.connected(1)).map(({ id }) => id),
      ['b'],
    )
  })

  test(`a handshake that began before the node ${why.source} does not slip through`, async (t) => {
    const hub = await startHub(t)
    await hub.identities.add({ id: 'a', secret: CHOSEN })
    const wire = new Wire()
    wire.held = 1
    const agent = await startAgent(t, hub, 'a', { secret: CHOSEN, wire })
    await eventually(() => wire.holding === 1, 'no hello', 4000)
    await end(hub.identities)
    wire.release()
    const { reason, delay } = await retrying(agent)
    assert.deepEqual([reason.code, delay], ['PROXY_ERR_REFUSED', 60_000])
    assert.equal(all(hub.events, 'connected').length, 0)
  })
}

test('an expiry that passes ends what is connected', async (t) => {
  const hub = await startHub(t)
  const expires = new Date(Date.now() + 1500).toISOString()
  await hub.identities.add({ id: 'a', secret: CHOSEN, expires })
  const agent = await startAgent(t, hub, 'a', { secret: CHOSEN })
  await hub.connected(1)
  const { reason } = await retrying(agent)
  assert.match(reason.message, /for a time that is over/)
  assert.ok(Date.now() >= Date.parse(expires))
  await hub.connected(0)
})

test('a label that is in flight while its id is enrolled is refused', async (t) => {
  const hub = await startHub(t)
  const wire = new Wire()
  wire.held = 1
  const agent = await startAgent(t, hub, 'a', { wire, name: undefined })
  await eventually(() => wire.holding === 1, 'no hello', 4000)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  wire.release()
  assert.equal((await retrying(agent)).reason.code, 'PROXY_ERR_ID_TAKEN')
  assert.equal(all(hub.events, 'connected').length, 0)
})

test('instances of one node coexist, and that is told', async (t) => {
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  for (let count = 1; count <= 3; count++) {
    await startAgent(t, hub, 'a', { secret: CHOSEN, identity: nodeKey() })
    await hub.connected(count)
  }
  const identity = nodeKey()
  for (let count = 4; count <= 5; count++) {
    await startAgent(t, hub, `shared-${count}`, { identity, name: undefined })
    await hub.connected(count)
  }
  // The same label under another key is another node; with no key at all there is nothing but the label.
  await startAgent(t, hub, 'shared-5', { identity: nodeKey(), name: undefined })
  await hub.connected(6)
  for (let count = 7; count <= 8; count++) {
    await startAgent(t, hub, 'shared-5', { name: undefined })
    await hub.connected(count)
  }
  assert.deepEqual(hub.instances, ['a < 1', 'a < 2', 'shared-5 < 1', 'shared-5 < 1'])
})

test('of two machines with one name a restart of the first does not end the second while it is away', async (t) => {
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const identity = nodeKey()
  await startAgent(t, hub, 'a', { secret: CHOSEN, identity })
  const [first] = await hub.connected(1)
  const other = await startAgent(t, hub, 'a', { secret: CHOSEN, identity: nodeKey() })
  const [, second] = await hub.connected(2)
  assert.ok(first && second)
  other.wire.held = 0
  other.wire.cut()
  await eventually(() => second.proxy.state === 'resuming', 'not cut')
  // Closed without a word, and started again.
  first.proxy.main.probe = async () => false
  await startAgent(t, hub, 'a', { secret: CHOSEN, identity })
  assert.equal((await first.proxy.main.closed).code, 'PROXY_ERR_REPLACED')
  assert.equal(second.proxy.state, 'resuming')
  other.wire.release()
  await eventually(() => second.proxy.state === 'connected', 'it does not go on', 4000)
})

test('secrets are derived when a server starts, a node starts or is enrolled, and at no handshake', async (t) => {
  const before = scrypt.calls
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const agent = await startAgent(t, hub, 'a', { secret: CHOSEN, resumeTimeout: 0 })
  assert.equal(scrypt.calls - before, 1 + 1 + 1)
  await hub.connected(1)
  for (const { proxy } of hub.server.nodes) proxy.close()
  await eventually(() => all(hub.events, 'connected').length === 2, 'not again', 4000)
  await startAgent(t, hub, 'x', { secret: 'neither-of-them-77d1', name: undefined })
  await eventually(() => all(hub.events, 'rejected').length === 1, 'not refused')
  assert.deepEqual(agent.wire.tried, ['a', 'a'])
  assert.equal(scrypt.calls - before, 1 + 1 + 1 + 1)
})

test('with refuse a second instance is turned away, and tries again until the first is gone', async (t) => {
  const hub = await startHub(t, { onDuplicate: 'refuse' })
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const first = await startAgent(t, hub, 'a', { secret: CHOSEN })
  const [peer] = await hub.connected(1)
  const second = await startAgent(t, hub, 'a', { secret: CHOSEN })
  const { reason, delay } = await retrying(second)
  assert.deepEqual([reason.code, reason.retryable, delay < 1500], ['PROXY_ERR_DUPLICATE', true, true])
  assert.match(reason.message, /node a is connected already/)
  await eventually(() => all(second.events, 'retrying').length >= 3, 'it gives up', 6000)
  assert.equal(all(hub.events, 'rejected').length, 1)
  assert.deepEqual([...hub.server.nodes], [peer])
  await first.node.close()
  await eventually(() => all(hub.events, 'connected').length === 2, 'it does not come in', 6000)
  assert.equal([...hub.server.nodes].length, 1)
})

test('with refuse one that is dead has two seconds to say so, and of two that wait for that one comes in', async (t) => {
  const hub = await startHub(t, { onDuplicate: 'refuse' })
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  const dead = await startAgent(t, hub, 'a', { secret: CHOSEN })
  const [ghost] = await hub.connected(1)
  assert.ok(ghost)
  dead.wire.held = 0
  await startAgent(t, hub, 'a', { secret: CHOSEN })
  await startAgent(t, hub, 'a', { secret: CHOSEN })
  assert.equal((await ghost.proxy.main.closed).code, 'PROXY_ERR_REPLACED')
  await eventually(() => all(hub.events, 'connected').length === 2, 'nobody comes in')
  await eventually(() => all(hub.events, 'rejected').some((e) => e.reason.code === 'PROXY_ERR_DUPLICATE'), 'both in')
  assert.equal([...hub.server.nodes].length, 1)
})

test('with replace the newcomer takes the place, and the other one waits before it comes back', async (t) => {
  const hub = await startHub(t, { onDuplicate: 'replace' })
  const first = await startAgent(t, hub, 'a', { name: undefined })
  const [peer] = await hub.connected(1)
  await startAgent(t, hub, 'a', { name: undefined })
  assert.equal((await peer?.proxy.main.closed)?.code, 'PROXY_ERR_REPLACED')
  const { reason, delay } = await retrying(first)
  assert.deepEqual([reason.code, delay], ['PROXY_ERR_REPLACED', 60_000])
  const [second] = await hub.connected(1)
  assert.ok(second && second !== peer)
  await Promise.all([startAgent(t, hub, 'a', { name: undefined }), startAgent(t, hub, 'a', { name: undefined })])
  await eventually(() => all(hub.events, 'disconnected').length === 3, 'not replaced', 4000)
  assert.equal([...hub.server.nodes].length, 1)
})

test('a node may dial what it was granted, and no other may', async (t) => {
  const hub = await startHub(t, { policy: createPolicy({ dial: 'none', listenPorts: 'none' }) })
  const target = all(hub.events, 'listening')
  assert.equal(target.length, 1)
  await hub.identities.addMany([
    { id: 'a', secret: CHOSEN, grants: { dial: ['127.0.0.1:1'] } },
    { id: 'b', secret: CHOSEN },
  ])
  const codes: (string | undefined)[] = []
  for (const id of ['a', 'b']) {
    const { node } = await startAgent(t, hub, id, { secret: CHOSEN })
    await eventually(() => node.server !== undefined, 'not connected', 4000)
    const dial = node.server?.proxy.dial({ Domain: 'tcp', Addr: '127.0.0.1:1' })
    codes.push(
      await dial?.then(
        () => 'connected',
        (error) => error.code,
      ),
    )
  }
  assert.deepEqual(codes, ['PROXY_ERR_DIAL_FAILED', 'PROXY_ERR_DIAL_DENIED'])
})

test('a server that has closed looks at no identities any more', async (t) => {
  const hub = await startHub(t)
  await hub.identities.add({ id: 'a', secret: CHOSEN })
  await startAgent(t, hub, 'a', { secret: CHOSEN })
  await hub.connected(1)
  await hub.server.close()
  const before = hub.events.length
  await hub.identities.remove('a')
  assert.equal(hub.events.length, before)
})
