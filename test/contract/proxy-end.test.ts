import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type DomainPlugin, tcp } from '../../lib/index.ts'
import { CODE, codePairs, endOf } from '../helpers/contract/code.ts'
import {
  dialProgram,
  echo,
  ending,
  nobodyListens,
  pattern,
  program,
  readAll,
  sha256,
} from '../helpers/contract/programs.ts'
import { connectPair, everyWay, MEMORY, TCP } from '../helpers/contract/proxies.ts'
import { nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

/** How a Proxy ends: drain, close, asyncDispose, and the loss of the link. */

const ANY_PORT = { Domain: 'tcp', Addr: '127.0.0.1:0' }
const both = { near: { domains: [tcp()] }, far: { domains: [tcp()] } }

watchForStrays()

everyWay('a drain takes nothing new, finishes what is open, then closes', both, async ({ near, far }) => {
  await using target = await echo()
  const listener = await near.newListener({ Listen: ANY_PORT, Forward: target.endpoint })
  const socket = await dialProgram(listener.bound)
  socket.write('be')
  await once(socket, 'data')
  const states: string[] = []
  near.on('state', (state) => states.push(state))
  const drained = near.drain()
  assert.equal(near.state, 'draining')
  await soon(nobodyListens(listener.bound), 'the port is free')
  const draining = { code: 'PROXY_ERR_DRAINING' }
  await assert.rejects(near.dial(target.endpoint), draining)
  await assert.rejects(near.accept(ANY_PORT), draining)
  await assert.rejects(near.newListener({ Listen: ANY_PORT, Forward: target.endpoint }), draining)
  await assert.rejects(near.newPeerListener({ Listen: ANY_PORT, Forward: target.endpoint }), draining)
  // What was opened before the other side heard of it would be served.
  while (far.serving) await new Promise((resolve) => setImmediate(resolve))
  await assert.rejects(far.dial(target.endpoint), draining)
  await assert.rejects(far.accept(ANY_PORT), draining)
  assert.equal(near.state, 'draining')
  socket.end('fore')
  assert.equal((await readAll(socket)).toString(), 'fore')
  await soon(drained, 'the drain')
  assert.deepEqual(states, ['draining', 'closed'])
  await soon(far.closed, 'the far side')
  assert.equal(far.main.reason?.code, 'PROXY_ERR_CLOSED')
})

everyWay('a drain with nothing open closes at once', both, async ({ near, far }) => {
  await soon(near.drain(), 'the drain')
  await soon(Promise.all([near.closed, far.closed]), 'both sides')
  await soon(near.drain(), 'another drain')
})

everyWay('a drain that the far side cuts short ends', both, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  await pairs.next()
  const drained = near.drain()
  far.close()
  await soon(drained, 'the drain')
})

everyWay('both sides may drain at once', both, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const { opened, accepted } = await pairs.next()
  const drained = Promise.all([near.drain(), far.drain()])
  opened.end('last words')
  accepted.end()
  assert.equal((await readAll(accepted)).toString(), 'last words')
  opened.resume()
  await soon(drained, 'both drains')
})

everyWay(
  'what was sent before a drain arrives whole, even where it is read late',
  { links: [MEMORY, TCP] },
  async ({ near, far, farCode }) => {
    const pairs = await codePairs(near, farCode)
    const { opened, accepted } = await pairs.next()
    const sent = pattern(100_000)
    opened.end()
    accepted.resume()
    await once(accepted, 'end')
    accepted.end(sent)
    await soon(near.drain(), 'the drain')
    await soon(far.closed, 'the far side')
    // All of it has arrived, fin and all: that the session is over takes nothing away.
    assert.equal(sha256(await soon(readAll(opened), 'the bytes')), sha256(sent))
  },
)

/** A program that has said all it will, and reads only when it is told to. */
class LateReader extends Duplex {
  received = 0
  letRead: () => void = () => {}
  readonly #may: Promise<void> = new Promise((resolve) => {
    this.letRead = resolve
  })
  constructor() {
    super()
    this.push(null)
  }
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    void this.#may.then(() => {
      this.received += chunk.length
      callback()
    })
  }
}

test('a drain of the forwarding side waits until the program there has taken everything', async () => {
  const late = new LateReader()
  const domain: DomainPlugin = { name: 'late', dial: async () => late }
  await using pair = await connectPair(MEMORY, { accepting: { domains: [domain] } })
  const sub = await pair.dialling.dial({ Domain: 'late', Addr: '' })
  sub.end(pattern(100_000))
  await readAll(sub)
  let drained = false
  const draining = pair.accepting.drain().then(() => {
    drained = true
  })
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(drained, false)
  late.letRead()
  await soon(draining, 'the drain')
  assert.equal(late.received, 100_000)
})

test('bytes that a program has not taken count against the limits until it has, or is gone', async () => {
  const late: LateReader[] = []
  const domain: DomainPlugin = {
    name: 'late',
    async dial() {
      const duplex = new LateReader()
      late.push(duplex)
      return duplex
    },
  }
  await using pair = await connectPair(MEMORY, { accepting: { domains: [domain] } })
  for (let turn = 0; turn < 20; turn++) {
    const sub = await pair.dialling.dial({ Domain: 'late', Addr: '' })
    sub.end(pattern(50_000))
    await readAll(sub)
    await endOf(sub)
  }
  // Each still holds 50,000 bytes there. Were they forgotten, a peer could have any number of them.
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal([...pair.accepting.subConnections].length, 20)
  for (const duplex of late) duplex.letRead()
  await nothingLeft(pair.dialling, pair.accepting)
})

everyWay('close resets what is open, frees the ports and says why', both, async ({ near, far }) => {
  await using target = await program()
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  const here = await near.newListener(mapping)
  const there = await near.newPeerListener(mapping)
  const incoming = await near.accept(ANY_PORT)
  const iteration = incoming[Symbol.asyncIterator]().next()
  const client = await dialProgram(here.bound)
  const server = await target.accepted()
  const over = [ending(client), ending(server)]
  near.close()
  near.close()
  await soon(Promise.all([near.closed, far.closed]), 'both sides')
  assert.equal(near.state, 'closed')
  assert.equal(far.state, 'closed')
  assert.equal(near.main.reason?.code, 'PROXY_ERR_CLOSED')
  assert.equal(far.main.reason?.code, 'PROXY_ERR_CLOSED')
  for (const { bound } of [here, there, incoming]) await soon(nobodyListens(bound), 'the port is free')
  assert.deepEqual(await soon(iteration, 'the iteration'), { done: true, value: undefined })
  // One of them is told by whoever dialled it, see the tests of resets.
  assert.ok((await soon(Promise.all(over), 'the connections')).includes('reset'))
  const closed = { code: 'PROXY_ERR_CLOSED' }
  for (const proxy of [near, far]) {
    await assert.rejects(proxy.dial(target.endpoint), closed)
    await assert.rejects(proxy.newListener(mapping), closed)
    await assert.rejects(proxy.newPeerListener(mapping), closed)
  }
  await nothingLeft(near, far)
})

everyWay('what is under way when a Proxy closes is rejected', both, async ({ near, far }) => {
  await using target = await echo()
  const mapping = { Listen: ANY_PORT, Forward: target.endpoint }
  const pending = [
    near.dial(target.endpoint),
    near.accept(ANY_PORT),
    near.newPeerListener(mapping),
    near.newListener(mapping),
  ].map((promise) => promise.then(() => 'resolved').catch((error: { code?: string }) => error.code))
  near.close()
  assert.deepEqual(await soon(Promise.all(pending), 'what was asked for'), Array(4).fill('PROXY_ERR_CLOSED'))
  await nothingLeft(near, far)
})

everyWay('asyncDispose closes', both, async ({ near, far }) => {
  await using target = await echo()
  {
    await using side = near
    const sub = await side.dial(target.endpoint)
    sub.on('error', () => {})
  }
  assert.equal(near.state, 'closed')
  await soon(far.closed, 'the far side')
})

everyWay('listeners and accepts are disposable too', both, async ({ near }) => {
  const bound = []
  {
    await using listener = await near.newListener({ Listen: ANY_PORT, Forward: ANY_PORT })
    await using peerListener = await near.newPeerListener({ Listen: ANY_PORT, Forward: ANY_PORT })
    await using incoming = await near.accept(ANY_PORT)
    bound.push(listener.bound, peerListener.bound, incoming.bound)
  }
  for (const at of bound) await soon(nobodyListens(at), 'the port is free')
})

everyWay('sub-connections end with the reason of the session', {}, async ({ near, far, farCode }) => {
  const pairs = await codePairs(near, farCode)
  const { opened, accepted } = await pairs.next()
  near.close()
  for (const sub of [opened, accepted]) assert.equal((await endOf(sub))?.code, 'PROXY_ERR_CLOSED')
  await nothingLeft(near, far)
  await assert.rejects(near.accept(CODE), { code: 'PROXY_ERR_CLOSED' })
})

for (const kind of ['memory', 'tcp']) {
  for (const side of ['dialling', 'accepting']) {
    test(`no timer is left when the ${side} side has ended a session (${kind})`, async () => {
      const script = fileURLToPath(new URL('../helpers/contract/lone-session.js', import.meta.url))
      const { stdout } = await promisify(execFile)(process.execPath, [script, kind, side])
      assert.deepEqual(JSON.parse(stdout), [])
    })
  }
}
