import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import {
  Agent,
  createServer as createHttp,
  get,
  type IncomingMessage,
  type RequestListener,
  request,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttps } from 'node:https'
import { createRequire } from 'node:module'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import fastify from 'fastify'
import { WebSocket, WebSocketServer } from 'ws'
import {
  type AttachOptions,
  allowAll,
  attach,
  createNode,
  dialWebSocket,
  type Endpoint,
  type HubEvent,
  parseCa,
  parseSpec,
  type SymportNode,
  type SymportServer,
  tcp,
} from '../../lib/index.ts'
import { dialProgram, echo, type Program } from '../helpers/contract/programs.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'
import { Identity } from '../helpers/transports/authority.ts'

const secret = 'a secret of the tests about attaching'
const domains = [tcp()]
const ROUTE = 'a route of the program'

const scrypt = cheapScrypt()
after(() => scrypt[Symbol.dispose]())

/** As much of it as is used here: it has no types of its own. */
interface Express {
  (): RequestListener & Record<'get' | 'post', (path: string, ...handlers: unknown[]) => void>
  text(): unknown
}
const express: Express = createRequire(import.meta.url)('express')

interface Site {
  readonly server: Server
  close(): unknown
}

async function listening(t: TestContext, { server, close }: Site): Promise<number> {
  if (!server.listening) await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(close)
  return (server.address() as AddressInfo).port
}

function plain(handler = (_: IncomingMessage): string => ROUTE): Site {
  const server = createHttp(async (request, response) => response.end(`${handler(request)}${await text(request)}`))
  return { server, close: () => server.close() }
}

async function onExpress(): Promise<Site> {
  const app = express()
  app.get('/', (_: unknown, response: ServerResponse) => response.end(ROUTE))
  app.post('/', express.text(), (request: { body: string }, response: ServerResponse) =>
    response.end(`${ROUTE}${request.body}`),
  )
  const server = createHttp(app)
  return { server, close: () => server.close() }
}

async function onFastify(): Promise<Site> {
  const app = fastify()
  app.get('/', async () => ROUTE)
  app.post('/', async ({ body }) => `${ROUTE}${body}`)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { server: app.server, close: () => app.close() }
}

async function ask(port: number, path = '/', headers = {}): Promise<string> {
  const [response] = await once(get({ port, path, headers, agent: false, host: '127.0.0.1' }), 'response')
  return await text(response)
}

/** An attached server whose one mapping leads to an echo behind its node, and that mapping's port when a node is there. */
async function attached(
  server: Server,
  { endpoint }: Program,
  options: Partial<AttachOptions> = {},
): Promise<{ symport: SymportServer; mapped: Endpoint; events: HubEvent[] }> {
  const events: HubEvent[] = []
  const symport = await attach(server, {
    ...{ secret, domains, policy: allowAll },
    listeners: [parseSpec(`tcp://127.0.0.1:0,tcp://${endpoint.Addr}`, { domains })],
    onEvent: (event) => events.push(event),
    ...options,
  })
  const ready = events.find((event) => event.type === 'listener-ready')
  assert.ok(ready && 'bound' in ready)
  return { symport, mapped: ready.bound, events }
}

async function nodeAt(port: number, path = '/symport'): Promise<SymportNode> {
  const url = `ws://127.0.0.1:${port}${path}`
  return await createNode({
    dial: (options) => dialWebSocket(url, { ...options, verify: { by: 'system' } }),
    ...{ server: url, secret, id: 'a node', domains, policy: allowAll },
  })
}

async function throughIt(mapped: Endpoint): Promise<string> {
  const socket = await dialProgram(mapped)
  socket.end('hello through it')
  return await text(socket)
}

const SITES: Readonly<Record<string, () => Site | Promise<Site>>> = {
  'node:http': () => plain(),
  Express: onExpress,
  Fastify: onFastify,
}

for (const [name, make] of Object.entries(SITES)) {
  test(`inside ${name} a node connects, and the program's own routes work before, during and after`, async (t) => {
    await using target = await echo()
    const site = await make()
    const port = await listening(t, site)
    const listeners = (): unknown[] => site.server.eventNames().map((event) => [event, site.server.listeners(event)])
    const before = listeners()
    assert.equal(await ask(port), ROUTE)
    const { symport, mapped } = await attached(site.server, target)
    t.after(() => symport.close())
    assert.equal(symport.address, `127.0.0.1:${port}/symport`)
    assert.equal(await ask(port), ROUTE)
    const node = await nodeAt(port)
    t.after(() => node.close())
    assert.equal(await throughIt(mapped), 'hello through it')
    assert.equal([...symport.nodes].length, 1)
    assert.equal(await ask(port), ROUTE)
    await node.close()
    await symport.close()
    assert.deepEqual(listeners(), before)
    assert.ok(!Object.hasOwn(site.server, 'emit'))
    assert.equal(await ask(port), ROUTE)
    await assert.rejects(dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify: { by: 'system' } }), {
      code: 'PROXY_ERR_DIAL_FAILED',
    })
  })

  test(`inside ${name} an upgrade that nobody wants is a request like any other, with its body`, async (t) => {
    await using target = await echo()
    const site = await make()
    const port = await listening(t, site)
    const { symport } = await attached(site.server, target)
    t.after(() => symport.close())
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    t.after(() => agent.destroy())
    const sockets = new Set<Socket>()
    for (const body of ['one', 'two'.repeat(30_000)]) {
      const headers = {
        connection: 'Upgrade, HTTP2-Settings, keep-alive',
        upgrade: 'h2c',
        'content-type': 'text/plain',
      }
      const asked = request({ port, host: '127.0.0.1', method: 'POST', headers, agent }).end(body)
      asked.on('socket', (socket) => sockets.add(socket))
      const [response] = await once(asked, 'response')
      assert.equal(response.statusCode, 200)
      assert.equal(await text(response), `${ROUTE}${body}`)
    }
  })
}

test('what is answered to an upgrade that nobody wants is the same, to the byte, as without us', async (t) => {
  await using target = await echo()
  const site = plain(({ headers, url }) => JSON.stringify({ headers, url }))
  const port = await listening(t, site)
  site.server.on('request', (_request, response) => response.removeHeader('date'))
  const answers: string[] = []
  const say = async (): Promise<void> => {
    const socket = connect(port, '127.0.0.1')
    const one = (path: string, more: string): string =>
      `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Some: a\r\nX-Some: b\r\n${more}\r\n`
    socket.write(`${one('/first', 'Content-Length: 3\r\n')}abc`)
    socket.end(one('/symportal', '').replace('Upgrade\r\n', 'Upgrade, close\r\n'))
    answers.push((await text(socket)).replaceAll(/Date: .*\r\n/g, ''))
  }
  await say()
  const { symport } = await attached(site.server, target)
  await say()
  await symport.close()
  assert.ok(answers[0]?.includes('abc'))
  assert.equal(answers[1], answers[0])
})

test("the program's own WebSockets get what is not ours, and nothing of what is, before and after us", async (t) => {
  await using target = await echo()
  const site = plain()
  const port = await listening(t, site)
  // This one ends whatever asks for another path.
  new WebSocketServer({ server: site.server, path: '/chat' }).on('connection', (ws) => ws.send('chat'))
  const { symport, mapped } = await attached(site.server, target)
  t.after(() => symport.close())
  const heard: (string | undefined)[] = []
  site.server.on('upgrade', ({ url }) => heard.push(url))
  const node = await nodeAt(port)
  t.after(() => node.close())
  assert.equal(await throughIt(mapped), 'hello through it')
  const chat = async (): Promise<void> => {
    const ws = new WebSocket(`ws://127.0.0.1:${port}/chat`)
    const [message] = await once(ws, 'message')
    assert.equal(String(message), 'chat')
    ws.close()
    await once(ws, 'close')
  }
  await chat()
  await node.close()
  await symport.close()
  await chat()
  assert.deepEqual(heard, ['/chat', '/chat'])
})

test('two are attached at two paths, each with nodes of its own, and either may go first; one path is taken once', async (t) => {
  await using target = await echo()
  const site = plain()
  const port = await listening(t, site)
  for (const first of [0, 1]) {
    const two = [
      await attached(site.server, target, { path: '/one' }),
      await attached(site.server, target, { path: 'two/' }),
    ]
    for (const { symport } of two) t.after(() => symport.close())
    await assert.rejects(attached(site.server, target, { path: '/two' }), { code: 'PROXY_ERR_LISTEN_FAILED' })
    const nodes = [await nodeAt(port, '/one'), await nodeAt(port, '/two')]
    for (const node of nodes) t.after(() => node.close())
    for (const { mapped } of two) assert.equal(await throughIt(mapped), 'hello through it')
    await nodes[first]?.close()
    await two[first]?.symport.close()
    const other = two[1 - first]
    assert.ok(other)
    assert.equal(await throughIt(other.mapped), 'hello through it')
    await nodes[1 - first]?.close()
    await other.symport.close()
    assert.ok(!Object.hasOwn(site.server, 'emit'))
    assert.equal(site.server.listenerCount('upgrade'), 0)
  }
})

test('an emit that the program has put in place is there again afterwards', async (t) => {
  await using target = await echo()
  const site = plain()
  const port = await listening(t, site)
  const seen: unknown[] = []
  const own: Server['emit'] = (event: string, ...args: unknown[]) => {
    seen.push(event)
    return Reflect.apply(EventEmitter.prototype.emit, site.server, [event, ...args])
  }
  site.server.emit = own
  const { symport } = await attached(site.server, target)
  assert.equal(await ask(port), ROUTE)
  await symport.close()
  assert.equal(site.server.emit, own)
  assert.ok(seen.includes('request'))
})

test('inside an HTTPS server a node comes by wss://', async (t) => {
  await using target = await echo()
  const ca = await Identity.make('a CA of the test', { ca: true })
  const { cert, key } = await ca.issue('localhost')
  const server = createHttps({ cert, key }, (_request, response) => response.end(ROUTE))
  const port = await listening(t, { server, close: () => server.close() })
  const { symport, mapped, events } = await attached(server, target)
  t.after(() => symport.close())
  const node = await createNode({
    dial: (options) => dialWebSocket(`wss://localhost:${port}/symport`, { ...options, verify: parseCa(ca.cert) }),
    ...{ server: 'x', secret, id: 'a node', domains, policy: allowAll },
  })
  t.after(() => node.close())
  assert.equal(await throughIt(mapped), 'hello through it')
  const connected = events.find((event) => event.type === 'connected')
  assert.ok(connected && 'peer' in connected)
  assert.equal(connected.peer.proxy.main.transport, 'wss')
  await node.close()
})

test('X-Forwarded-For is believed from trusted proxies only', async (t) => {
  await using target = await echo()
  for (const [trustedProxies, expected] of [
    [['127.0.0.0/8'], /^203\.0\.113\.9$/],
    [['10.0.0.0/8'], /^127\.0\.0\.1:/],
  ] as const) {
    const site = plain()
    const port = await listening(t, site)
    const { symport, events } = await attached(site.server, target, { trustedProxies })
    t.after(() => symport.close())
    const ws = new WebSocket(`ws://127.0.0.1:${port}/symport`, 'symport', {
      headers: { 'x-forwarded-for': '198.51.100.1, 203.0.113.9' },
    })
    await once(ws, 'open')
    ws.send(Buffer.from('no handshake of ours'))
    ws.on('error', () => {})
    await once(ws, 'close')
    const rejected = events.find((event) => event.type === 'rejected')
    assert.ok(rejected && 'remote' in rejected, JSON.stringify(events.map(({ type }) => type)))
    assert.match(String(rejected.remote), expected)
    await symport.close()
  }
})

test('a page of another site, and a WebSocket whose Upgrade got lost, are told so; the path itself is the program’s', async (t) => {
  await using target = await echo()
  const site = plain()
  const port = await listening(t, site)
  const { symport } = await attached(site.server, target)
  t.after(() => symport.close())
  const ws = new WebSocket(`ws://127.0.0.1:${port}/symport`, 'symport', { origin: 'https://elsewhere.example' })
  const [, response] = await once(ws, 'unexpected-response')
  assert.equal(response.statusCode, 403)
  assert.match(await ask(port, '/symport', { 'sec-websocket-key': 'x' }), /Upgrade header/)
  assert.equal(await ask(port, '/symport'), ROUTE)
})

test('with names, what nodes have registered is served before the routes of the program, and nothing else', async (t) => {
  await using target = await echo()
  const inner = plain(({ url, headers }) => `behind the node: ${url} for ${headers['x-forwarded-for']} `)
  const innerPort = await listening(t, inner)
  const site = plain()
  const port = await listening(t, site)
  const { symport } = await attached(site.server, target, { names: true })
  t.after(() => symport.close())
  const events = new EventEmitter()
  const ready = once(events, 'listener-ready')
  const node = await createNode({
    dial: (options) => dialWebSocket(`ws://127.0.0.1:${port}/symport`, { ...options, verify: { by: 'system' } }),
    ...{ server: 'x', secret, id: 'a node', domains, policy: allowAll },
    peerListeners: [
      { Listen: { Domain: 'web', Addr: '/api' }, Forward: { Domain: 'tcp', Addr: `127.0.0.1:${innerPort}` } },
    ],
    onEvent: (event) => events.emit(event.type),
  })
  t.after(() => node.close())
  assert.equal(await ask(port), ROUTE)
  await ready
  assert.equal(await ask(port, '/api/x?y'), 'behind the node: /x?y for 127.0.0.1 ')
  assert.equal(await ask(port, '/apiary'), ROUTE)
  assert.equal(await ask(port), ROUTE)
  await symport.close()
  assert.equal(await ask(port, '/api/x?y'), ROUTE)
})

test('closing while nodes connect, and twice, leaves nothing', async (t) => {
  await using target = await echo()
  const site = plain()
  const port = await listening(t, site)
  const { symport } = await attached(site.server, target)
  const sockets = Array.from({ length: 20 }, () => {
    const socket = connect(port, '127.0.0.1').on('error', () => {})
    socket.write(
      'GET /symport HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    )
    return socket
  })
  await Promise.all(sockets.slice(0, 3).map((socket) => once(socket, 'data')))
  await Promise.all([symport.close(), symport.close()])
  for (const socket of sockets) socket.resume()
  await Promise.all(sockets.map((socket) => socket.closed || Promise.race([once(socket, 'close'), pause(3000)])))
  for (const socket of sockets) socket.destroy()
  assert.equal(site.server.listenerCount('upgrade'), 0)
  assert.equal(await ask(port), ROUTE)
})

test('a program with an attached server and a node ends by itself when both are closed', async () => {
  const script = `
    import { createServer } from 'node:http'
    import { EventEmitter, once } from 'node:events'
    import { allowAll, attach, createNode, dialWebSocket } from ${JSON.stringify(new URL('../../lib/index.js', import.meta.url).href)}
    const web = createServer((_request, response) => response.end()).listen(0, '127.0.0.1')
    await once(web, 'listening')
    const both = { secret: ${JSON.stringify(secret)}, domains: [], policy: allowAll }
    const server = await attach(web, both)
    const events = []
    const connected = new EventEmitter()
    const here = once(connected, 'here')
    const node = await createNode({
      ...both, server: 'x', id: 'x',
      dial: (options) => dialWebSocket('ws://127.0.0.1:' + web.address().port + '/symport', { ...options, verify: { by: 'system' } }),
      onEvent(event) { events.push(event.type); if (event.type === 'connected') connected.emit('here') },
    })
    await here
    await node.close()
    await server.close()
    web.close()
    console.log(events.join())
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const timer = setTimeout(() => child.kill(), 10_000)
  const [printed, [status]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  clearTimeout(timer)
  assert.equal(status, 0)
  assert.equal(printed, 'connected,disconnected\n')
})
