import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { createNode, createPolicy, dialTcp, ProxyError, tcp } from '../../../lib/index.ts'

/**
 * Plays many nodes in one process: `many-nodes-main PORT FILE`, a line `id,secret` for each. Says `connected N` and `lost N`
 * whenever these change, at most every 50 ms, and answers each connection to the port it says first with the id.
 */
const [port = '', file = ''] = process.argv.slice(2)
const nodes = readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((line) => line.split(','))

const target = createServer((socket) => {
  socket.on('error', () => {})
  socket.end('hello')
})
target.listen(0, '127.0.0.1', () => {
  const address = target.address()
  if (address === null || typeof address === 'string') throw new ProxyError('PROXY_ERR_INTERNAL', 'no port')
  console.log(`target ${address.port}`)
})

let connected = 0
let told = -1
setInterval(() => {
  if (connected === told) return
  told = connected
  console.log(`connected ${connected}`)
}, 50)

const running = nodes.map(async ([id = '', secret = '']) => {
  return await createNode({
    dial: (options) => dialTcp({ host: '127.0.0.1', port: Number(port) }, options),
    server: 'server',
    secret,
    id,
    name: id,
    domains: [tcp()],
    policy: createPolicy({ dial: 'any', listenPorts: 'none' }),
    onEvent(event) {
      if (event.type === 'connected') connected++
      if (event.type === 'disconnected') connected--
    },
  })
})

// The end of standard input is the end.
createInterface({ input: process.stdin }).on('close', () => process.exit(0))
await Promise.all(running)
