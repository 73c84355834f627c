// A symport server inside a program that has a web server already, without taking its routes: nodes come in as WebSockets
// at /symport, and a port here leads to something that only the node reaches.
// In a program of your own: import from 'symport'. Server and node would be two programs.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import {
  attach,
  createNode,
  createPolicy,
  dialWebSocket,
  makeToken,
  parsePattern,
  parseSpec,
  rawPublicKey,
  tcp,
} from '../../lib/index.ts'

const domains = [tcp()]

// The web server that is there already, and what only the node reaches.
const web = createServer((_request, response) => response.end('the web server itself\n')).listen(0, '127.0.0.1')
const inner = createServer((_request, response) => response.end('hello from behind the node\n')).listen(0, '127.0.0.1')
await Promise.all([once(web, 'listening'), once(inner, 'listening')])
const webPort = (web.address() as AddressInfo).port
const target = `127.0.0.1:${(inner.address() as AddressInfo).port}`

// A strong secret: random bits, and the server's public key. Keep both in your own store.
const { privateKey, publicKey } = generateKeyPairSync('x25519')
const secret = makeToken(randomBytes(16), rawPublicKey(publicKey))

let mapped = ''
const server = await attach(web, {
  secret,
  staticKey: privateKey,
  listeners: [parseSpec(`tcp://127.0.0.1:0,tcp://${target}`, { domains })],
  domains,
  // What nodes ask this side for: nothing.
  policy: createPolicy({ dial: 'none', listenPorts: 'none' }),
  onEvent: (event) => {
    if (event.type === 'listener-ready') mapped = event.bound.Addr
  },
})

const node = await createNode({
  dial: (options) => dialWebSocket(`ws://127.0.0.1:${webPort}/symport`, { ...options, verify: { by: 'system' } }),
  server: 'the web server',
  secret,
  id: 'example',
  domains,
  // What the server may have dialled here: the one target.
  policy: createPolicy({ dial: [parsePattern(target)], listenPorts: 'none' }),
  onEvent: (event) => {
    if (event.type === 'connected') process.stdout.write('the node is connected\n')
  },
})

async function show(url: string): Promise<void> {
  const [response] = await once(get(url, { agent: false }), 'response')
  process.stdout.write(await text(response))
}

// A connection that comes in before the node is there waits for it, up to 5 s.
await show(`http://${mapped}/`)
await show(`http://127.0.0.1:${webPort}/`)

await node.close()
await server.close()
web.close()
inner.close()
