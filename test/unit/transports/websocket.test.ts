import assert from 'node:assert/strict'
import test, { before, describe, type TestContext } from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { parseCa, parsePin, type Verify } from '../../../lib/sockets/verify.ts'
import { dialWebSocket } from '../../../lib/transports/websocket.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { Identity } from '../../helpers/transports/authority.ts'
import { serveTcp, serveWeb, type WebOptions } from '../../helpers/transports/servers.ts'

const SYSTEM: Verify = { by: 'system' }

async function failure(dial: Promise<unknown>): Promise<ProxyError> {
  const error: unknown = await dial.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof ProxyError)
  assert.equal(error.code, 'PROXY_ERR_DIAL_FAILED')
  return error
}

describe('dialling a WebSocket', () => {
  let ca: Identity
  let leaf: Identity

  before(async () => {
    ca = await Identity.make('the CA', { ca: true, names: [] })
    leaf = await ca.issue('server')
  })

  const secure = (): WebOptions => ({ tls: { key: leaf.key, cert: leaf.cert + ca.cert } })

  test('bytes pass both ways over ws and wss, and the link says which', async (t) => {
    const [plain, tls] = [await serveWeb(t), await serveWeb(t, secure())]
    for (const [url, verify] of [
      [`ws://127.0.0.1:${plain}/symport`, SYSTEM],
      [`wss://127.0.0.1:${tls}/symport`, parseCa(ca.cert)],
      [`wss://localhost:${tls}/symport`, parsePin(leaf.pin)],
    ] as const) {
      const link = await dialWebSocket(url, { verify })
      assert.deepEqual([link.transport, link.remote], [url.split(':')[0], url.split('/')[2]])
      const stream = new ByteStream(link)
      const bulk = Buffer.alloc(1_000_000, 'abcdefg')
      link.write([Buffer.from('first'), bulk])
      assert.equal((await stream.read(5)).toString(), 'first')
      assert.ok((await stream.read(bulk.length)).equals(bulk))
      link.end()
      assert.equal((await stream.rest()).length, 0)
    }
  })

  test('what the server sends right behind its answer is not lost', async (t) => {
    const port = await serveWeb(t, {
      onWebSocket: (ws) => {
        for (let i = 0; i < 100; i++) ws.send(Buffer.from(`<${i}>`))
      },
    })
    const link = await dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify: SYSTEM })
    await new Promise((resolve) => setTimeout(resolve, 20))
    const expected = Array.from({ length: 100 }, (_, i) => `<${i}>`).join('')
    assert.equal((await new ByteStream(link).read(expected.length)).toString(), expected)
    link.destroy()
  })

  test('certificates are checked as with tls, before there is a request', async (t) => {
    let requests = 0
    const options = { ...secure(), onWebSocket: () => requests++, onRequest: () => requests++ }
    const port = await serveWeb(t, options)
    const other = await Identity.make('another CA', { ca: true, names: [] })
    for (const [verify, words] of [
      [SYSTEM, /nobody whom this machine trusts/],
      [parseCa(other.cert), /has not signed/],
      [parsePin(other.pin), /fits the pin/],
    ] as const) {
      const { message } = await failure(dialWebSocket(`wss://127.0.0.1:${port}/symport`, { verify }))
      assert.match(message, words)
    }
    assert.equal(requests, 0)
  })

  test('a name and password in the URL are for the web server, and in no error', async (t) => {
    let authorization: string | undefined
    const port = await serveWeb(t, {
      onRequest: (request, response) => {
        authorization = request.headers.authorization
        response.writeHead(401).end()
      },
    })
    const { message } = await failure(dialWebSocket(`ws://ann:s%40cret@127.0.0.1:${port}/x`, { verify: SYSTEM }))
    assert.equal(authorization, `Basic ${Buffer.from('ann:s@cret').toString('base64')}`)
    assert.equal(message, `the web server on 127.0.0.1:${port} does not let us in (HTTP 401)`)
  })

  const answering =
    (status: number, headers: Record<string, string> = {}): NonNullable<WebOptions['onRequest']> =>
    (_request, response) => {
      response.writeHead(status, headers).end()
    }

  test('the answers of a web server that is no symport are told in plain words', async (t) => {
    const cases: [number, Record<string, string>, string, boolean][] = [
      [404, {}, 'AT is a web server, and /path there is no symport (HTTP 404): is the path right?', false],
      [200, {}, 'AT is a web server, and /path there is no symport (HTTP 200): is the path right?', false],
      [403, {}, 'the web server on AT does not let us in (HTTP 403)', false],
      [
        426,
        {},
        'a proxy on the way to AT does not pass on the Upgrade header, which a WebSocket needs (HTTP 426)',
        false,
      ],
      [429, {}, 'the web server on AT wants us to slow down (HTTP 429)', true],
      [502, {}, 'the web server on AT cannot reach symport behind it now (HTTP 502)', true],
      [
        301,
        { location: 'https://elsewhere.example/' },
        "AT sends us on to https://elsewhere.example/ (HTTP 301): if that is right, give it as the server's address",
        false,
      ],
    ]
    for (const [status, headers, words, retryable] of cases) {
      const port = await serveWeb(t, { onRequest: answering(status, headers) })
      const error = await failure(dialWebSocket(`ws://127.0.0.1:${port}/path`, { verify: SYSTEM }))
      assert.equal(error.message.replace(`127.0.0.1:${port}`, 'AT'), words)
      assert.equal(error.retryable, retryable)
    }
  })

  test('a WebSocket of something else is an error', async (t) => {
    const port = await serveWeb(t, { subprotocol: 'chat' })
    const { message } = await failure(dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify: SYSTEM }))
    assert.equal(message, `127.0.0.1:${port} speaks WebSocket, but not symport: is the path right?`)
  })

  test('garbage, silence, an endless head and a cut are errors in plain words, in time', async (t) => {
    const serve = (onData: (socket: import('node:net').Socket) => void): Promise<number> =>
      serveTcp(t, (socket) => void socket.once('data', () => onData(socket)))
    const cases = [
      [await serve((socket) => socket.write('SSH-2.0-OpenSSH_9.0\r\n')), /does not answer in HTTP/],
      [await serve(() => {}), /^no answer from 127\.0\.0\.1:\d+ in time$/],
      [await serve((socket) => socket.write(`HTTP/1.1 101 x\r\nx: ${'y'.repeat(70_000)}`)), /does not answer in HTTP/],
      [await serve((socket) => socket.destroy()), /closed the connection at once/],
    ] as const
    for (const [port, words] of cases) {
      const dial = dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify: SYSTEM, timeout: 300 })
      assert.match((await failure(dial)).message, words)
    }
  })

  test('a dial that is given up ends at once', async (t: TestContext) => {
    const port = await serveTcp(t, () => {})
    const given = new AbortController()
    const dialling = dialWebSocket(`ws://127.0.0.1:${port}/symport`, { verify: SYSTEM, signal: given.signal })
    setTimeout(() => given.abort(), 20)
    await assert.rejects(dialling, { code: 'PROXY_ERR_ABORTED' })
  })
})
