import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, request, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { type SeenRequest, watched } from '../../lib/domains/http-watch.ts'
import { tcp } from '../../lib/domains/tcp.ts'
import { createWeb } from '../../lib/domains/web.ts'
import { Publisher } from '../../lib/hub/publisher.ts'
import { allowAll } from '../../lib/index.ts'
import { StateFolder } from '../../lib/store/state-folder.ts'
import { type ChannelStage, channelStage, type TestNode } from '../helpers/hub/channels.ts'

const HOST = 'shop.example.com'

interface Street {
  readonly stage: ChannelStage
  readonly seen: SeenRequest[]
  /** A node that publishes the target as `shop`. */
  publish(id: string, key?: Key): Promise<TestNode>
  ask(path: string, body?: Buffer): Promise<{ status: number | undefined; body: Buffer }>
  readonly port: number
  readonly target: Server
}

type Key = ReturnType<typeof generateKeyPairSync>['privateKey']

const newKey = (): Key => generateKeyPairSync('ed25519').privateKey

async function listening(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A server with a domain, its web port, and a target that answers with what it gets. */
async function street(t: TestContext): Promise<Street> {
  const path = await mkdtemp(join(tmpdir(), 'symport-street-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  const web = createWeb()
  t.after(() => web.close())
  const domains = [tcp(), ...web.domains]
  const publisher = await Publisher.open(new StateFolder(path), {
    ...{ domain: 'example.com', domains, bind: '127.0.0.1', ports: () => [] },
    placeOf: () => ({ scheme: 'https', port: 443 }),
  })
  t.after(() => publisher[Symbol.asyncDispose]())
  const stage = await channelStage({ domains, domainsFor: (...peer) => publisher.domainsFor(...peer) })
  t.after(() => stage[Symbol.asyncDispose]())
  const front = createServer((incoming, response) =>
    web.onRequest(incoming, response, { remote: 'visitor', secure: false }),
  )
  front.on('upgrade', (incoming, socket: Duplex, head) => {
    web.onUpgrade(incoming, socket, head, { remote: 'visitor', secure: false })
  })
  const port = await listening(t, front)
  const target = createServer((incoming, response) => void incoming.pipe(response))
  target.on('upgrade', (_request, socket: Duplex) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n')
    socket.pipe(socket)
  })
  const behind = await listening(t, target)
  const seen: SeenRequest[] = []
  return {
    ...{ stage, seen, port, target },
    publish: (id, key = newKey()) =>
      stage.node(id, {
        domains: [watched(tcp(), (one) => seen.push(one))],
        offers: [
          {
            Listen: { Domain: 'public', Addr: 'http?name=shop' },
            Forward: { Domain: 'tcp', Addr: `127.0.0.1:${behind}` },
          },
        ],
        options: { identity: key, policy: allowAll },
      }),
    async ask(path, body) {
      const asked = request({
        host: '127.0.0.1',
        port,
        path,
        headers: { host: HOST },
        method: body ? 'POST' : 'GET',
        agent: false,
      })
      asked.end(body)
      const [response] = await once(asked, 'response')
      return { status: response.statusCode, body: await buffer(response) }
    },
  }
}

test('bytes go through as they are, in both directions, while requests are told', async (t) => {
  const { publish, ask, seen } = await street(t)
  const node = await publish('a')
  const { bound } = await node.event('listener-ready')
  assert.deepEqual(bound, { Domain: 'https', Addr: HOST })
  const bytes = randomBytes(1_500_000)
  const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex')
  const answers = await Promise.all([ask('/1?x', bytes), ask('/2'), ask('/3', bytes)])
  assert.deepEqual(
    answers.map(({ status, body }) => [status, body.length, digest(body)]),
    [bytes, Buffer.alloc(0), bytes].map((body) => [200, body.length, digest(body)]),
  )
  const lines = seen.map(({ method, path, status }) => `${method} ${path} ${status}`)
  assert.deepEqual(lines.sort(), ['GET /2 200', 'POST /1 200', 'POST /3 200'])
})

test('a WebSocket is told as one request, and is left alone', async (t) => {
  const { publish, port, seen } = await street(t)
  await publish('a')
  const headers = {
    ...{ host: HOST, connection: 'upgrade', upgrade: 'websocket' },
    ...{ 'sec-websocket-version': '13', 'sec-websocket-key': randomBytes(16).toString('base64') },
  }
  const asked = request({ host: '127.0.0.1', port, path: '/live', headers, agent: false })
  asked.end()
  const [, socket] = (await once(asked, 'upgrade')) as [unknown, Duplex]
  socket.write('GET / HTTP/1.1\r\n\r\n')
  const [echoed] = await once(socket, 'data')
  assert.equal(String(echoed), 'GET / HTTP/1.1\r\n\r\n')
  socket.destroy()
  assert.deepEqual(
    seen.map(({ path, status }) => [path, status]),
    [['/live', 101]],
  )
})

test('a name outlives a lost link, and is given back at the end', async (t) => {
  const { publish, ask } = await street(t)
  const node = await publish('a')
  node.cut()
  assert.equal((await ask('/while it is away'.replaceAll(' ', '-'))).status, 200)
  assert.equal(node.told('connected').length, 1, 'it is the same session')
  await node[Symbol.asyncDispose]()
  assert.equal((await ask('/later')).status, 404)
})

test('an owner that comes back in a new session has its name again at once; another node never has it', async (t) => {
  const { publish, ask } = await street(t)
  const key = newKey()
  const lost = await publish('a', key)
  lost.stun()
  await lost.event('paused')
  const other = await publish('b')
  const { reason } = await other.event('listener-failed')
  assert.equal(reason.code, 'PROXY_ERR_NAME_TAKEN')
  const back = await publish('a', key)
  assert.equal((await back.event('listener-ready')).bound.Addr, HOST)
  assert.equal((await ask('/x')).status, 200)
})

test('a target that goes away is a 502 that says why, and so is one that closes without an answer', async (t) => {
  const { publish, ask, seen, target } = await street(t)
  await publish('a')
  target.removeAllListeners('request')
  target.once('request', (incoming) => incoming.socket.destroy())
  assert.equal((await ask('/cut', Buffer.from('x'))).status, 502)
  target.closeAllConnections()
  await new Promise((resolve) => target.close(resolve))
  const { status, body } = await ask('/gone')
  assert.equal(status, 502)
  assert.doesNotMatch(String(body), /127\.0\.0\.1/, 'where it leads to is nothing to visitors')
  assert.deepEqual(
    seen.map(({ path, status }) => [path, status]),
    [
      ['/cut', 502],
      ['/gone', 502],
    ],
  )
  assert.match(seen[1]?.problem ?? '', /^nothing listens on /)
})

test('who publishes something serves no mapping of the server: that is for its other nodes', async (t) => {
  const { stage, publish, port } = await street(t)
  const publisher = await publish('a')
  const mapping = await stage.server.mappings.add({ listen: 'tcp://127.0.0.1:0', forward: `tcp://127.0.0.1:${port}` })
  const node = await stage.node('b')
  const visitor = connect(Number(/\d+$/.exec(mapping.bound?.Addr ?? '')?.[0]), '127.0.0.1')
  visitor.end('GET / HTTP/1.0\r\n\r\n')
  assert.match(String(await buffer(visitor)), /^HTTP\/1.1 404 /)
  for (const { told } of [publisher, node]) assert.deepEqual(told('refused'), [])
})
