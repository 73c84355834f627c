// A server and a node inside a program that has a web server already: main connections come in through the web server's
// own port, as an HTTP upgrade, and a port here leads to something that only the node reaches.
// In a program of your own: import from 'symport'. Server and node would be two programs.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createWeb, get, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import {
  type Abortable,
  createNode,
  createPolicy,
  createServer,
  type Link,
  linkFrom,
  makeToken,
  parsePattern,
  parseSpec,
  rawPublicKey,
  tcp,
} from '../../lib/index.ts'

const domains = [tcp()]

// The web server that is there already.
const web = createWeb((_request, response) => response.end('the web server itself\n')).listen(0, '127.0.0.1')
// What only the node reaches.
const inner = createWeb((_request, response) => response.end('hello from behind the node\n')).listen(0, '127.0.0.1')
await Promise.all([once(web, 'listening'), once(inner, 'listening')])
const webPort = (web.address() as AddressInfo).port
const target = `127.0.0.1:${(inner.address() as AddressInfo).port}`

// A strong secret: random bits, and the server's public key. Keep both in your own store.
const { privateKey, publicKey } = generateKeyPairSync('x25519')
const secret = makeToken(randomBytes(16), rawPublicKey(publicKey))

let mapped = ''
await using _server = await createServer({
  async listen(onLink) {
    web.on('upgrade', (upgrade, socket, head) => {
      if (upgrade.headers.upgrade !== 'symport') {
        socket.destroy()
        return
      }
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: symport\r\n\r\n')
      if (head.length > 0) socket.unshift(head)
      onLink(linkFrom(socket))
    })
    return { address: `127.0.0.1:${webPort}`, close: async () => void web.removeAllListeners('upgrade') }
  },
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

async function dialWeb({ signal }: Abortable): Promise<Link> {
  const headers = { connection: 'Upgrade', upgrade: 'symport' }
  const upgrade = request({ port: webPort, host: '127.0.0.1', headers, ...(signal && { signal }) }).end()
  const [, socket, head] = await once(upgrade, 'upgrade')
  if (head.length > 0) socket.unshift(head)
  return linkFrom(socket)
}

await using _node = await createNode({
  dial: dialWeb,
  server: 'the web server',
  secret,
  id: 'example',
  domains,
  // What the server may have dialled here: the one target.
  policy: createPolicy({ dial: [parsePattern(target)], listenPorts: 'none' }),
})

// A connection that comes in before the node is there waits for it, up to 5 s.
const [response] = await once(get(`http://${mapped}/`, { agent: false }), 'response')
process.stdout.write(await text(response))
web.close()
inner.close()
