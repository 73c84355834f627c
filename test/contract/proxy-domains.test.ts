import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { createPolicy, type DomainPlugin, parsePattern, tcp, unix } from '../../lib/index.ts'
import { dialProgram, echo, readAll } from '../helpers/contract/programs.ts'
import { everyWay, MEMORY, TCP } from '../helpers/contract/proxies.ts'
import { nothingLeft, watchForStrays } from '../helpers/contract/strays.ts'

/** tcp (IPv4, IPv6, names) and unix, in any mix of listening and forwarding. */

watchForStrays()

let folder = ''
let socketNumber = 0
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'symport-contract-'))
})
after(() => rm(folder, { recursive: true, force: true }))

const newPath = (): string => join(folder, `${++socketNumber}.sock`)
const KINDS = {
  'tcp over IPv4': { listen: () => 'tcp://127.0.0.1:0', target: () => '127.0.0.1' },
  'tcp over IPv6': { listen: () => 'tcp://[::1]:0', target: () => '::1' },
  'a name': { listen: () => 'tcp://localhost:0', target: () => '127.0.0.1' },
  unix: { listen: () => `unix://${newPath()}`, target: newPath },
} as const
type Kind = keyof typeof KINDS

const endpoint = (url: string): { Domain: string; Addr: string } => {
  const [Domain = '', Addr = ''] = url.split('://')
  return { Domain, Addr }
}
const domains = [tcp(), unix()]
const both = { near: { domains }, far: { domains }, links: [MEMORY, TCP] }

for (const listens of Object.keys(KINDS) as Kind[]) {
  for (const forwards of Object.keys(KINDS) as Kind[]) {
    everyWay(`${listens} forwards to ${forwards}`, both, async ({ near, far }) => {
      await using target = await echo(KINDS[forwards].target())
      const Forward = forwards === 'a name' ? { Domain: 'tcp', Addr: `localhost:${target.port}` } : target.endpoint
      const here = await near.newListener({ Listen: endpoint(KINDS[listens].listen()), Forward })
      const there = await near.newPeerListener({ Listen: endpoint(KINDS[listens].listen()), Forward })
      for (const { bound } of [here, there]) {
        const socket = await dialProgram(bound)
        socket.end('ping')
        assert.equal((await readAll(socket)).toString(), 'ping')
      }
      await nothingLeft(near, far)
    })
  }
}

everyWay('an empty host listens everywhere and forwards to loopback', both, async ({ near }) => {
  await using target = await echo()
  const { bound } = await near.newListener({
    Listen: { Domain: 'tcp', Addr: ':0' },
    Forward: { Domain: 'tcp', Addr: `:${target.port}` },
  })
  const port = bound.Addr.split(':').at(-1)
  const socket = await dialProgram({ Domain: 'tcp', Addr: `127.0.0.1:${port}` })
  socket.end('ping')
  assert.equal((await readAll(socket)).toString(), 'ping')
})

/** tcp, with a name that leads to several addresses. */
function several(...addresses: string[]): DomainPlugin {
  return { ...tcp({ dialTimeout: 1000 }), resolve: async () => addresses }
}

const tries = { far: { domains: [several('::1', '127.0.0.2', '127.0.0.1')] }, links: [MEMORY, TCP] }
everyWay('a name with several addresses is tried in order until one answers', tries, async ({ near }) => {
  await using target = await echo()
  const sub = await near.dial({ Domain: 'tcp', Addr: `several.example:${target.port}` })
  sub.end('ping')
  assert.equal((await readAll(sub)).toString(), 'ping')
})

everyWay('where no address answers, the error is that of the first', tries, async ({ near, far }) => {
  const gone = await echo()
  await gone[Symbol.asyncDispose]()
  await assert.rejects(near.dial({ Domain: 'tcp', Addr: `several.example:${gone.port}` }), {
    code: 'PROXY_ERR_DIAL_FAILED',
    message: `nothing listens on several.example:${gone.port}`,
  })
  await nothingLeft(near, far)
})

const policy = createPolicy({ dial: [parsePattern('127.0.0.2/32:*')], listenPorts: 'none' })
const judged = { far: { domains: [several('127.0.0.1', '127.0.0.2')], policy }, links: [MEMORY] }
everyWay('of several addresses only those are dialled that policy allows', judged, async ({ near }) => {
  await using denied = await echo('127.0.0.1')
  const Addr = `several.example:${denied.port}`
  await assert.rejects(near.dial({ Domain: 'tcp', Addr }), { code: 'PROXY_ERR_DIAL_FAILED' })
  assert.equal(denied.sockets.size, 0)
  await using allowed = await echo('127.0.0.2')
  const sub = await near.dial({ Domain: 'tcp', Addr: `several.example:${allowed.port}` })
  sub.end('ping')
  assert.equal((await readAll(sub)).toString(), 'ping')
})

const nothing = createPolicy({ dial: 'none', listenPorts: 'none' })
const watched: string[] = []
const watching: DomainPlugin = {
  ...tcp(),
  async resolve({ Addr }) {
    watched.push(Addr)
    return ['127.0.0.1']
  },
}
const closed = { far: { domains: [watching], policy: nothing }, links: [MEMORY] }
everyWay('for who may dial nothing no name is looked up', closed, async ({ near }) => {
  await assert.rejects(near.dial({ Domain: 'tcp', Addr: 'secret.example:80' }), { code: 'PROXY_ERR_DIAL_DENIED' })
  assert.deepEqual(watched, [])
})

everyWay('a name without an address is PROXY_ERR_DIAL_FAILED', both, async ({ near, far }) => {
  await assert.rejects(near.dial({ Domain: 'tcp', Addr: 'no-such-name.invalid:80' }), { code: 'PROXY_ERR_DIAL_FAILED' })
  await nothingLeft(near, far)
})

everyWay('an address that is none is refused, and the session goes on', both, async ({ near, far }) => {
  for (const Addr of ['', 'x', '127.0.0.1', '127.0.0.1:', '127.0.0.1:99999', '[::1:80', '127.0.0.1:80:80']) {
    await assert.rejects(near.dial({ Domain: 'tcp', Addr }), { name: 'ProxyError' }, Addr)
    await assert.rejects(near.accept({ Domain: 'tcp', Addr }), { name: 'ProxyError' }, Addr)
  }
  await assert.rejects(near.dial({ Domain: 'unix', Addr: `${folder}/none` }), { code: 'PROXY_ERR_DIAL_FAILED' })
  await assert.rejects(near.accept({ Domain: 'unix', Addr: `${folder}/none/x` }), { code: 'PROXY_ERR_LISTEN_FAILED' })
  await nothingLeft(near, far)
  assert.equal(far.state, 'connected')
})

everyWay(
  'an endpoint that the peer would not understand is rejected here, and the session goes on',
  both,
  async (stage) => {
    const { near, far } = stage
    for (const wrong of [
      { Domain: 'tcp', Addr: 'x'.repeat(2000) },
      { Domain: 'tcp', Addr: 'x'.repeat(20_000) },
      { Domain: '', Addr: 'x' },
      { Domain: 'x'.repeat(33), Addr: 'x' },
    ]) {
      await assert.rejects(near.dial(wrong), { code: 'PROXY_ERR_ENDPOINT' })
      await assert.rejects(near.accept(wrong), { code: 'PROXY_ERR_ENDPOINT' })
      assert.equal(near.state, 'connected')
    }
    await nothingLeft(near, far)
  },
)
