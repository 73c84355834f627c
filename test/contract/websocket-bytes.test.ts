import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { echo, pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { ask, webPort } from '../helpers/contract/web-port.ts'

/** TCP behind a WebSocket at the server's one port. */

watchForStrays()

function open(port: number, path: string, protocols: string[] = [], headers: Record<string, string> = {}): WebSocket {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols, { headers, perMessageDeflate: false })
  ws.binaryType = 'nodebuffer'
  ws.on('error', () => {})
  return ws
}

async function closing(ws: WebSocket): Promise<{ code: number; reason: string }> {
  const [code, reason]: [number, Buffer] = (await soon(once(ws, 'close'), 'the close')) as [number, Buffer]
  return { code, reason: String(reason) }
}

async function bytesOf(ws: WebSocket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let left = length
  ws.on('message', (data: Buffer, isBinary) => {
    assert.ok(isBinary)
    chunks.push(data)
    left -= data.length
    if (left <= 0) ws.emit('enough')
  })
  if (left > 0) await once(ws, 'enough')
  return Buffer.concat(chunks)
}

test('bytes go both ways, whoever offers which subprotocol, from pages of any origin', async () => {
  await using there = await echo()
  await using port = await webPort()
  await port.listen('/vnc', there.port, 'ws')
  for (const [offered, chosen] of [
    [['binary'], 'binary'],
    [['base64', 'binary'], 'binary'],
    [['mqtt'], 'mqtt'],
    [[], ''],
  ] as const) {
    const ws = open(port.port, '/vnc', [...offered], { origin: 'https://novnc.example' })
    await soon(once(ws, 'open'), 'the WebSocket')
    assert.equal(ws.protocol, chosen)
    const body = pattern(100_000, 3)
    const back = bytesOf(ws, body.length)
    ws.send(body)
    assert.equal(sha256(await soon(back, 'the echo')), sha256(body))
    ws.close()
    assert.equal((await closing(ws)).code, 1005)
  }
})

test('the end of the target is 1000, behind all that it has sent', async () => {
  const body = pattern(3_000_000, 4)
  await using there = await program((socket) => void socket.end(body))
  await using port = await webPort()
  await port.listen('/', there.port, 'ws')
  const ws = open(port.port, '/')
  const got = bytesOf(ws, body.length)
  const end = closing(ws)
  assert.equal(sha256(await soon(got, 'all of it')), sha256(body))
  assert.equal((await end).code, 1000)
})

test('what a visitor has sent before the close arrives, and the end behind it', async () => {
  await using there = await program()
  await using port = await webPort()
  await port.listen('/', there.port, 'ws')
  const ws = open(port.port, '/')
  await soon(once(ws, 'open'), 'the WebSocket')
  const body = pattern(3_000_000, 5)
  for (let at = 0; at < body.length; at += 500_000) ws.send(body.subarray(at, at + 500_000))
  ws.close()
  const socket = await there.accepted()
  assert.equal(sha256(await soon(readAll(socket), 'all of it')), sha256(body))
  socket.end()
})

test('a visitor who is cut off is a reset for the target', async () => {
  await using there = await program()
  await using port = await webPort()
  await port.listen('/', there.port, 'ws')
  const ws = open(port.port, '/')
  await soon(once(ws, 'open'), 'the WebSocket')
  const socket = await there.accepted()
  socket.resume()
  const closed = new Promise((resolve) => socket.once('close', resolve))
  ws.terminate()
  assert.equal(await soon(closed, 'the close'), true)
})

test('text is 1003, too much at once 1009, a target that breaks 1011 with a reason', async () => {
  await using there = await program()
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  await using port = await webPort()
  await port.listen('/', there.port, 'ws')
  await port.listen('/gone', gone.port, 'ws')
  const talking = open(port.port, '/')
  await soon(once(talking, 'open'), 'the WebSocket')
  talking.send('hello')
  assert.equal((await closing(talking)).code, 1003)
  const loud = open(port.port, '/')
  await soon(once(loud, 'open'), 'the WebSocket')
  loud.send(Buffer.alloc(2_000_000))
  assert.equal((await closing(loud)).code, 1009)
  const late = open(port.port, '/gone')
  assert.deepEqual(await closing(late), { code: 1011, reason: 'the target cannot be reached' })
  for (const socket of there.sockets) socket.destroy()
  const broken = open(port.port, '/')
  await soon(once(broken, 'open'), 'the WebSocket')
  const end = closing(broken)
  while (there.sockets.size === 0) await new Promise((resolve) => setImmediate(resolve))
  for (const socket of there.sockets) socket.resetAndDestroy()
  assert.deepEqual(await end, { code: 1011, reason: 'the connection to the target was lost' })
})

test('who stops reading is not read for: neither side fills the memory in between', async () => {
  let sent = 0
  await using there = await program((socket) => {
    const more = (): void => {
      while (sent < 200_000_000 && socket.write(Buffer.alloc(65_536))) sent += 65_536
      if (sent < 200_000_000) socket.once('drain', more)
    }
    more()
  })
  await using port = await webPort()
  await port.listen('/', there.port, 'ws')
  const ws = open(port.port, '/')
  await soon(once(ws, 'open'), 'the WebSocket')
  ws.pause()
  let before = -1
  while (before !== sent) {
    before = sent
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  assert.ok(sent > 0 && sent < 40_000_000, `${sent} bytes were taken`)
  ws.terminate()
})

test('who does not answer a ping is taken for gone', async () => {
  await using there = await program()
  await using port = await webPort({ pingInterval: 40 })
  await port.listen('/', there.port, 'ws')
  const ws = new WebSocket(`ws://127.0.0.1:${port.port}/`, { autoPong: false })
  ws.on('error', () => {})
  assert.equal((await closing(ws)).code, 1006)
  const alive = open(port.port, '/')
  for (let round = 0; round < 4; round++) await soon(once(alive, 'ping'), 'a ping')
  assert.equal(alive.readyState, alive.OPEN)
  alive.terminate()
})

test('a request that is no WebSocket is told what is there', async () => {
  await using there = await program()
  await using port = await webPort()
  await port.listen('/vnc', there.port, 'ws')
  const answer = await ask(port.port, '/vnc')
  assert.equal(answer.status, 426)
  assert.match(answer.body, /WebSocket/)
  for (const line of ['Upgrade: h2c', 'Upgrade: websocket\r\nSec-WebSocket-Version: 1']) {
    const socket = connect(port.port, '127.0.0.1')
    socket.write(`GET /vnc HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n${line}\r\n\r\n`)
    assert.match(await soon(text(socket), 'the answer'), /^HTTP\/1\.1 4/)
  }
  assert.equal(there.sockets.size, 0)
})

test("the path of the server's own WebSocket is nobody else's, but on a host of one's own", async () => {
  await using there = await echo()
  await using port = await webPort({ reserved: ['/symport'] })
  const refusal = { code: 'PROXY_ERR_LISTEN_FAILED', message: /own WebSocket is at \/symport/ }
  await assert.rejects(port.listen('/symport/', there.port, 'ws'), refusal)
  await port.listen('x.test/symport', there.port, 'ws')
  const ws = open(port.port, '/symport', [], { host: 'x.test' })
  await soon(once(ws, 'open'), 'the WebSocket')
  const back = bytesOf(ws, 5)
  ws.send(Buffer.from('hello'))
  assert.equal(String(await soon(back, 'the echo')), 'hello')
  ws.terminate()
})
