import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createNode, createPolicy, dialTcp, parsePattern, tcp } from '../../../lib/index.ts'

/**
 * Plays many nodes in one process, and the targets behind them: `many-nodes-main PORT TARGET FILE`, the port of the server
 * and one for the targets, and a file with a line `id,secret,address...` for each node. A node dials nothing but its own
 * addresses. Whoever dials one of them at TARGET hears that address in a line, and after that what it says itself. Prints
 * `nodes OPEN, EVER`: how many are connected and how many times one was, whenever that changes.
 */
const [port = '', targetPort = '', file = ''] = process.argv.slice(2)
const target = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {})
  // The port is open to the network, and nobody there is meant.
  if (!socket.remoteAddress?.startsWith('127.')) return void socket.destroy()
  socket.write(`${socket.localAddress}\n`)
  socket.pipe(socket)
})
target.listen({ port: Number(targetPort), host: '0.0.0.0', backlog: 1024 })

let [open, ever, told] = [0, 0, '']
setInterval(() => {
  const now = `nodes ${open}, ${ever}`
  if (now === told) return
  told = now
  console.log(now)
}, 20)

const nodes = readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((line) => line.split(','))
await Promise.all(
  nodes.map(([id = '', secret = '', ...addresses]) =>
    createNode({
      ...{ server: 'server', secret, id, name: id, domains: [tcp()] },
      dial: (options) => dialTcp({ host: '127.0.0.1', port: Number(port) }, options),
      policy: createPolicy({ dial: addresses.map((address) => parsePattern(`${address}:*`)), listenPorts: 'none' }),
      onEvent(event) {
        if (event.type === 'connected') {
          open++
          ever++
        }
        if (event.type === 'disconnected') open--
        if (event.type === 'retrying' && event.reason.code === 'PROXY_ERR_REFUSED') console.log(`${id} was refused`)
      },
    }),
  ),
)
