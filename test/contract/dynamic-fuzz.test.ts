import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { ProxyError } from '../../lib/core/index.ts'
import { mixed } from '../../lib/domains/mixed.ts'
import { mutateBytes } from '../fuzz/mutations.ts'
import { Random } from '../fuzz/random.ts'
import { clientOf, socksRequest } from '../helpers/contract/dynamic.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'

const ROUNDS = 320
const AT_ONCE = 40
const DEADLINE = 100

watchForStrays()

const socks = (request: Buffer): Buffer => Buffer.concat([Buffer.from([5, 1, 0]), request])
/** What is right, to begin with. */
const CORPUS: readonly Buffer[] = [
  socks(socksRequest(1, '192.0.2.1', 80)),
  socks(socksRequest(1, 'target.test', 443)),
  socks(Buffer.concat([socksRequest(1, 'target.test', 443), Buffer.from('early')])),
  socks(socksRequest(3, '0.0.0.0', 0)),
  socks(Buffer.from([5, 1, 0, 4, ...Buffer.alloc(15), 1, 0, 80])),
  Buffer.from([5, 2, 0, 2, 1, 2, 65, 66, 1, 67]),
  Buffer.from('CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\n\r\n'),
  Buffer.from('GET http://target.test/path?query HTTP/1.1\r\nHost: target.test\r\nConnection: close\r\n\r\n'),
  Buffer.from('POST http://[::1]:8080/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello'),
  Buffer.from(
    'PUT http://target.test/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  ),
  Buffer.from('GET ws://target.test/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
  Buffer.from('GET http://target.test/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic QTpC\r\n\r\n'),
]

for (const [name, seed] of [
  ['a seed that stays', 1928],
  ['a new seed', randomInt(2 ** 31)],
] as const) {
  test(`mutated SOCKS and HTTP get a refusal of their own, or the end (${name})`, { timeout: 30_000 }, async (t) => {
    t.diagnostic(`seed ${seed}`)
    const asked: string[] = []
    const open = async ({ to }: { to?: { Domain: string; Addr: string } | undefined } = {}): Promise<never> => {
      asked.push(`${to?.Domain} ${to?.Addr}`)
      throw new ProxyError('PROXY_ERR_DIAL_DENIED', 'nobody may go anywhere')
    }
    const domain = mixed({ handshakeTimeout: DEADLINE })
    const at = { Domain: 'mixed', Addr: '127.0.0.1:0' }
    const listener = await domain.listen?.(at, { signal: new AbortController().signal, open })
    assert.ok(listener)
    await using _ = listener
    const port = Number(listener.bound.Addr.split(':')[1])
    const random = new Random(seed)
    const outcomes = new Map<string, number>()

    const attempt = async (bytes: Buffer, cut: number): Promise<void> => {
      const what = `${bytes.toString('hex')} cut at ${cut}`
      const socket = await clientOf(port)
      let answer = Buffer.alloc(0)
      socket.on('data', (chunk: Buffer) => {
        answer = Buffer.concat([answer, chunk])
      })
      // By a reset, where it had more to say than anybody wanted to read.
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
      const ended = new Promise<void>((resolve) => socket.once('end', resolve).once('close', resolve))
      const settled = new Promise<void>((resolve) => {
        socket.on('data', () => (answer.length > 2 ? resolve() : undefined))
        void ended.then(resolve)
      })
      socket.write(bytes.subarray(0, cut))
      setImmediate(() => socket.write(bytes.subarray(cut)))
      await soon(settled, `an answer to ${what}`)
      socket.end()
      await soon(ended, `the end after ${what}`)
      socket.destroy()
      await closed
      const text = answer.toString('latin1')
      const kind =
        /^(HTTP\/1\.1 \d{3}) /.exec(text)?.[1] ?? (answer.length === 0 ? 'closed' : `socks ${answer[3] ?? '-'}`)
      if (kind.startsWith('socks')) assert.equal(answer[0], 5, what)
      else if (kind.startsWith('HTTP')) assert.match(text, /^HTTP\/1\.1 (?:100|400|403|408|431|501) /, what)
      outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1)
    }

    for (let round = 0; round < ROUNDS; round += AT_ONCE) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          let bytes: Buffer = random.pick(CORPUS) ?? Buffer.alloc(0)
          for (let times = random.between(0, 3); times > 0; times--) bytes = mutateBytes(random, bytes)
          await attempt(bytes, random.int(bytes.length + 1))
        }),
      )
    }
    // It has been nearly everywhere.
    for (const kind of ['HTTP/1.1 400', 'HTTP/1.1 403', 'closed', 'socks 2']) {
      assert.ok((outcomes.get(kind) ?? 0) > 0, `${kind} of ${JSON.stringify([...outcomes])}`)
    }
    // What is asked for is a target, whatever was said.
    for (const target of asked) assert.match(target, /^(?:tcp|udp) (?:\[[0-9a-f:.]+\]|[\x21-\x7e]+):[1-9][0-9]*$/)
    assert.ok(asked.length > 0)
  })
}
