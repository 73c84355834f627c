// A symport server inside a Fastify app: it ends with the app. See attached.ts for a node of it.
// In a program of your own: import from 'symport'.
import { once } from 'node:events'
import fastify from 'fastify'
import { attach, createNode, createPolicy, dialWebSocket } from '../../lib/index.ts'

const app = fastify({ forceCloseConnections: true })
app.get('/', async () => 'the app itself\n')

// Long and random in a program of your own, and from its own store.
const both = { secret: 'an example 3b1c9f', domains: [], policy: createPolicy({ dial: 'none', listenPorts: 'none' }) }
const server = await attach(app.server, { ...both, path: '/tunnel' })
// Before the app waits for its connections to end: those of nodes do not by themselves.
app.addHook('preClose', async () => await server.close())

const at = await app.listen({ port: 0, host: '127.0.0.1' })
const url = `${at.replace('http', 'ws')}/tunnel`
const connected = new EventTarget()
const node = await createNode({
  ...both,
  ...{ server: url, id: 'example' },
  dial: (options) => dialWebSocket(url, { ...options, verify: { by: 'system' } }),
  onEvent: ({ type }) => connected.dispatchEvent(new Event(type)),
})
await once(connected, 'connected')
process.stdout.write(`${[...server.nodes].map(({ id }) => id)} is connected\n`)
process.stdout.write(await (await fetch(at)).text())

await node.close()
await app.close()
