import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectSocket, type Socket } from 'node:net'
import test, { type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { connect } from '../../../lib/core/index.ts'
import { dialTcp } from '../../../lib/transports/tcp.ts'

const LISTENER = `
  const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 })
  server.on('listening', () => process.stdout.write(String(server.address().port)))
`

/** A port on which nobody answers, not even the system: its listener stands still, and its queue is full. */
async function blackHole(t: TestContext): Promise<number> {
  const listener = spawn(process.execPath, ['-e', LISTENER], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => listener.kill('SIGKILL'))
  const [port] = await once(listener.stdout, 'data')
  listener.kill('SIGSTOP')
  const sockets: Socket[] = []
  t.after(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (let open = true; open; ) {
    assert.ok(sockets.length < 100, 'the queue does not fill')
    const socket = connectSocket(Number(port), '127.0.0.1')
    sockets.push(socket)
    const late = AbortSignal.timeout(300)
    open = await once(socket, 'connect', { signal: late }).then(
      () => true,
      () => false,
    )
  }
  return Number(port)
}

test('where nothing answers, whoever connects hears of the firewall', {
  skip: process.platform === 'linux' ? false : 'other systems answer for a listener that stands still',
}, async (t) => {
  const port = await blackHole(t)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const psk = Buffer.alloc(32)
  const connecting = connect((options) => dialTcp({ host: '127.0.0.1', port }, options), {
    secret: { name: '', suite: 'NNpsk0', psk },
  })
  const refused = assert.rejects(connecting, {
    code: 'PROXY_ERR_DIAL_FAILED',
    message: `no answer from 127.0.0.1:${port} in time: is TCP ${port} open in the firewall?`,
  })
  await turn()
  t.mock.timers.tick(9500)
  // The socket tells of its end in a later turn; only then may the deadline of `connect` pass.
  await turn()
  t.mock.timers.tick(500)
  await refused
})
