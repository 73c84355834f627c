import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { ProxyError } from '../../lib/core/index.ts'
import { httpProxy } from '../../lib/domains/http-proxy.ts'
import { mixed } from '../../lib/domains/mixed.ts'
import { socks5 } from '../../lib/domains/socks5.ts'
import { mutateBytes } from '../fuzz/mutations.ts'
import { Random } from '../fuzz/random.ts'
import { clientOf, socksRequest } from '../helpers/contract/dynamic.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'

const ROUNDS = 120
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
  Buffer.from([4, 1, 0, 80, 192, 0, 2, 1, 0]),
]

const folder = mkdtempSync(join(tmpdir(), 'symport-fuzz-'))
writeFileSync(join(folder, 'password'), 'C', { mode: 0o600 })
after(() => rmSync(folder, { recursive: true }))
const LOGIN = `?user=AB&password_file=${join(folder, 'password')}`
/** RFC 1929, user `AB`, password `C`. */
const login = Buffer.from([5, 1, 2, 1, 2, 65, 66, 1, 67])
const BASIC = 'Proxy-Authorization: Basic QUI6Qw==\r\n'

/** Of each proxy: what it is asked beside the corpus, and what some of it must be answered. */
const PROXIES = [
  { make: mixed, query: '', more: [], answers: ['HTTP/1.1 400', 'HTTP/1.1 403', 'closed', 'socks 2'] },
  {
    make: socks5,
    query: LOGIN,
    more: [
      Buffer.concat([login, socksRequest(1, 'target.test', 443)]),
      Buffer.concat([login, socksRequest(3, '0.0.0.0', 0)]),
      Buffer.from([5, 1, 2, 1, 2, 65, 66, 1, 68]),
    ],
    answers: ['HTTP/1.1 400', 'socks4 91', 'socks none', 'login right', 'login wrong'],
  },
  {
    make: httpProxy,
    query: LOGIN,
    more: [
      Buffer.from(`CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\n${BASIC}\r\n`),
      Buffer.from(`GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\n${BASIC}\r\n`),
    ],
    answers: ['HTTP/1.1 400', 'HTTP/1.1 403', 'HTTP/1.1 407', 'socks none', 'socks4 91'],
  },
] as const

function kindOf(answer: Buffer): string {
  const text = answer.toString('latin1')
  const status = /^(HTTP\/1\.1 \d{3}) /.exec(text)?.[1]
  if (status !== undefined) return status
  if (answer.length === 0) return 'closed'
  if (answer[0] === 0 && answer.length === 8) return `socks4 ${answer[1]}`
  if (answer[0] !== 5) return `neither: ${answer.toString('hex')}`
  if (answer[1] === 255) return 'socks none'
  // The method with a password, and what became of that.
  if (answer[1] === 2) return answer[3] === undefined ? 'login asked' : answer[3] === 0 ? 'login right' : 'login wrong'
  return `socks ${answer[3] ?? '-'}`
}

for (const [name, seed] of [
  ['a seed that stays', 1928],
  ['a new seed', randomInt(2 ** 31)],
] as const) {
  for (const { make, query, more, answers } of PROXIES)
    test(`mutated SOCKS and HTTP get a refusal of their own from ${make().name}, or the end (${name})`, {
      timeout: 30_000,
    }, async (t) => {
      t.diagnostic(`seed ${seed}`)
      const corpus = [...CORPUS, ...more, ...more]
      const asked: string[] = []
      const open = async ({ to }: { to?: { Domain: string; Addr: string } | undefined } = {}): Promise<never> => {
        asked.push(`${to?.Domain} ${to?.Addr}`)
        throw new ProxyError('PROXY_ERR_DIAL_DENIED', 'nobody may go anywhere')
      }
      const domain = make({ handshakeTimeout: DEADLINE })
      const at = { Domain: domain.name, Addr: `127.0.0.1:0${query}` }
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
        const kind = kindOf(answer)
        assert.match(kind, /^(?:closed|login .*|socks.*|HTTP\/1\.1 (?:100|400|403|407|408|431|501))$/, what)
        outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1)
      }

      for (let round = 0; round < ROUNDS; round += AT_ONCE) {
        await Promise.all(
          Array.from({ length: AT_ONCE }, async () => {
            let bytes: Buffer = random.pick(corpus) ?? Buffer.alloc(0)
            for (let times = random.between(0, 5) - 2; times > 0; times--) bytes = mutateBytes(random, bytes)
            await attempt(bytes, random.int(bytes.length + 1))
          }),
        )
      }
      // It has been nearly everywhere; what a new seed does is chance.
      for (const kind of name === 'a new seed' ? [] : answers) {
        assert.ok((outcomes.get(kind) ?? 0) > 0, `${kind} of ${JSON.stringify([...outcomes])}`)
      }
      // What is asked for is a target, whatever was said.
      for (const target of asked) assert.match(target, /^(?:tcp|udp) (?:\[[0-9a-f:.]+\]|[\x21-\x7e]+):[1-9][0-9]*$/)
      assert.ok(asked.length > 0)
    })
}
