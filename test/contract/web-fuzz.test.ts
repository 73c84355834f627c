import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { connect } from 'node:net'
import { test } from 'node:test'
import { mutateBytes } from '../fuzz/mutations.ts'
import { Random } from '../fuzz/random.ts'
import { echo } from '../helpers/contract/programs.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { target, webPort } from '../helpers/contract/web-port.ts'

const ROUNDS = 120
const AT_ONCE = 40
/** For what a client leaves unsaid, in ms. */
const DEADLINE = 250

watchForStrays()

const UPGRADE =
  'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
/** A binary message of one byte, masked with zeros; and a close. */
const MESSAGE = Buffer.from([0x82, 0x81, 0, 0, 0, 0, 7, 0x88, 0x80, 0, 0, 0, 0])
const CORPUS: readonly Buffer[] = [
  Buffer.from('GET /app/x?y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
  Buffer.from('GET /nobody HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n'),
  Buffer.from('POST /app HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello'),
  Buffer.from('PUT /app HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'),
  Buffer.from('GET http://x/app/../etc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
  Buffer.from('GET /app HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n'),
  Buffer.from(`GET /app HTTP/1.1\r\n${UPGRADE}`),
  Buffer.concat([Buffer.from(`GET /bytes HTTP/1.1\r\n${UPGRADE}`), MESSAGE]),
  Buffer.from('GET /bytes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
]

for (const [name, seed] of [
  ['a seed that stays', 9112],
  ['a new seed', randomInt(2 ** 31)],
] as const) {
  test(`mutated requests and WebSockets get an answer of HTTP, or the end (${name})`, {
    timeout: 30_000,
  }, async (t) => {
    t.diagnostic(`seed ${seed}`)
    await using site = await target((request, response) => {
      request.resume()
      request.on('error', () => {})
      response.end('fine')
    })
    await using there = await echo()
    await using port = await webPort({ answerTimeout: DEADLINE }, { timeout: DEADLINE })
    await port.listen('/app', site.port)
    await port.listen('/bytes', there.port, 'ws')
    const random = new Random(seed)
    const outcomes = new Map<string, number>()

    /** All that is answered, until it ends or nothing comes any more. */
    const say = async (bytes: Buffer, cut: number): Promise<string> => {
      const socket = connect(port.port, '127.0.0.1')
      socket.on('error', () => {})
      let answer = ''
      const over = new Promise<void>((resolve) => {
        socket.on('data', (chunk: Buffer) => {
          answer += chunk.toString('latin1')
          if (answer.includes('\r\n\r\n')) resolve()
        })
        socket.once('end', resolve).once('close', resolve)
      })
      socket.write(bytes.subarray(0, cut))
      setImmediate(() => socket.write(bytes.subarray(cut)))
      await soon(over, `an answer to ${bytes.toString('latin1')}`)
      socket.destroy()
      return answer
    }

    for (let round = 0; round < ROUNDS; round += AT_ONCE) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          let bytes: Buffer = random.pick(CORPUS) ?? Buffer.alloc(0)
          for (let times = random.between(0, 5) - 2; times > 0; times--) bytes = mutateBytes(random, bytes)
          const answer = await say(bytes, random.int(bytes.length + 1))
          const kind = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? (answer === '' ? 'closed' : 'no HTTP')
          // TLS gets an alert, and symport's own protocol its one byte.
          if (kind === 'no HTTP') {
            const first = bytes[0] ?? 0
            assert.equal(answer.charCodeAt(0), first === 0x16 ? 0x15 : 0, bytes.toString('hex'))
            assert.ok(first === 0x16 || first >= 0x80, bytes.toString('hex'))
          } else
            assert.match(
              kind,
              /^(?:closed|101|200|400|404|405|408|413|417|426|431|501|502|504)$/,
              bytes.toString('latin1'),
            )
          outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1)
        }),
      )
    }
    for (const kind of name === 'a new seed' ? [] : ['101', '200', '400', '404', '426']) {
      assert.ok((outcomes.get(kind) ?? 0) > 0, `${kind} of ${JSON.stringify([...outcomes])}`)
    }
    assert.match(await say(Buffer.from('GET /app HTTP/1.1\r\nHost: x\r\n\r\n'), 3), /^HTTP\/1\.1 200 /)
  })
}
