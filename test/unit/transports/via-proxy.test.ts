import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import test, { describe, type TestContext } from 'node:test'
import { inspect } from 'node:util'
import { ProxyError } from '../../../lib/core/errors.ts'
import { parsePin } from '../../../lib/sockets/verify.ts'
import { dialTls } from '../../../lib/transports/tls.ts'
import {
  dialTcpVia,
  type ProxyTarget,
  parseVia,
  type Via,
  viaFromEnvironment,
  viaName,
} from '../../../lib/transports/via-proxy.ts'
import { dialWebSocket } from '../../../lib/transports/websocket.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { Identity } from '../../helpers/transports/authority.ts'
import { serveHttpProxy, serveSocks5 } from '../../helpers/transports/proxies.ts'
import { serveTcp, serveTls, serveWeb } from '../../helpers/transports/servers.ts'

const PASSWORD = 's:3cret/@%'
const CREDENTIALS = `ann:${encodeURIComponent(PASSWORD)}`

describe('how a proxy is written', () => {
  test('kind, host, port and credentials are read', () => {
    const cases: [string, Via][] = [
      ['http://proxy.corp', { kind: 'http', host: 'proxy.corp', port: 3128, credentials: undefined }],
      ['http://10.0.0.1:8080/', { kind: 'http', host: '10.0.0.1', port: 8080, credentials: undefined }],
      ['proxy:81', { kind: 'http', host: 'proxy', port: 81, credentials: undefined }],
      ['SOCKS5://[::1]:9', { kind: 'socks5', host: '::1', port: 9, credentials: undefined }],
      ['socks5h://tor', { kind: 'socks5', host: 'tor', port: 1080, credentials: undefined }],
      [
        `http://${CREDENTIALS}@p:1`,
        { kind: 'http', host: 'p', port: 1, credentials: { user: 'ann', password: PASSWORD } },
      ],
      ['http://ann@p:1', { kind: 'http', host: 'p', port: 1, credentials: { user: 'ann', password: '' } }],
      ['http://a@b:c@p:1', { kind: 'http', host: 'p', port: 1, credentials: { user: 'a@b', password: 'c' } }],
    ]
    for (const [text, via] of cases) assert.deepEqual(parseVia(text), via, text)
  })

  test('emits PROXY_ERR_USAGE for what is none, and shows no password', () => {
    const wrong = ['', 'http://', 'ftp://p', 'https://p', 'http://p:0', 'http://p:65536', 'http://p:x', 'http://[p]:1']
    const withPassword = ['http://ann:s3cret@', 'http://ann:s3cret@p:1/x', 'http://ann:s3cret%@p', 'x://ann:s3cret@p']
    for (const text of [...wrong, ...withPassword, `socks5://ann:s3cret${'x'.repeat(300)}@p`]) {
      assert.throws(
        () => parseVia(text),
        (error: unknown) => {
          assert.ok(error instanceof ProxyError, text)
          assert.equal(error.code, 'PROXY_ERR_USAGE')
          assert.ok(!inspect(error).includes('s3cret'), inspect(error))
          return true
        },
      )
    }
  })

  test('its name has no password', () => {
    assert.equal(viaName(parseVia('http://ann:s3cret@[::1]:1')), 'http://[::1]:1')
  })
})

describe('proxies of the environment', () => {
  const to = (host: string, port = 443, scheme: ProxyTarget['scheme'] = 'wss'): ProxyTarget => ({ scheme, host, port })
  const found = (target: ProxyTarget, environment: Record<string, string>): string | undefined =>
    viaFromEnvironment(target, environment)?.host

  test('the one for the scheme comes first, small letters before large ones', () => {
    const all = { ALL_PROXY: 'socks5://all', HTTPS_PROXY: 'http://https', HTTP_PROXY: 'http://http' }
    assert.equal(found(to('a'), all), 'https')
    assert.equal(found(to('a', 925, 'tls'), all), 'https')
    assert.equal(found(to('a', 80, 'ws'), all), 'http')
    assert.equal(found(to('a', 80, 'ws'), { HTTPS_PROXY: 'http://https' }), undefined)
    assert.equal(found(to('a'), { HTTP_PROXY: 'http://http' }), undefined)
    for (const scheme of ['tls', 'ws', 'wss'] as const) {
      assert.equal(found(to('a', 1, scheme), { ALL_PROXY: 'socks5://all' }), 'all')
      assert.equal(found(to('a', 1, scheme), { all_proxy: 'socks5://small', ALL_PROXY: 'socks5://all' }), 'small')
    }
    assert.equal(found(to('a'), { https_proxy: '', HTTPS_PROXY: 'http://large' }), 'large')
    assert.equal(found(to('a'), {}), undefined)
  })

  test('NO_PROXY takes names and all below them, ports, addresses, CIDRs and *', () => {
    const cases: [string, ProxyTarget, boolean][] = [
      ['*', to('a.example'), true],
      ['a.example', to('a.example'), true],
      ['A.Example', to('a.EXAMPLE.'), true],
      ['example', to('a.example'), true],
      ['.example', to('a.example'), true],
      ['.example', to('example'), true],
      ['*.example', to('b.a.example'), true],
      ['example', to('notexample'), false],
      ['example', to('a.example.org'), false],
      ['b,  a.example', to('a.example'), true],
      ['b c', to('c'), true],
      ['a.example:443', to('a.example'), true],
      ['a.example:444', to('a.example'), false],
      ['10.0.0.0/8', to('10.1.2.3'), true],
      ['10.0.0.0/8', to('11.1.2.3'), false],
      ['10.1.2.3', to('10.1.2.3'), true],
      ['10.1.2.3:443', to('10.1.2.3'), true],
      ['10.1.2.3:80', to('10.1.2.3'), false],
      ['2.3', to('10.1.2.3'), false],
      ['fd00::/8', to('fd12::1'), true],
      ['fd00::1', to('fd00::1'), true],
      ['[fd00::1]:443', to('fd00::1'), true],
      ['[fd00::1]:80', to('fd00::1'), false],
      ['fd00::/129', to('fd12::1'), false],
      ['10.0.0.0/', to('10.0.0.1'), false],
      ['10.0.0.0/x', to('10.0.0.1'), false],
      ['', to('a'), false],
      [',, ,', to('a'), false],
      ['.', to('a'), false],
    ]
    for (const [list, target, exempt] of cases) {
      const via = found(target, { HTTPS_PROXY: 'http://p', NO_PROXY: list })
      assert.equal(via, exempt ? undefined : 'p', `${list} and ${target.host}:${target.port}`)
    }
  })

  test('none is used to reach this machine', () => {
    for (const host of ['localhost', 'LOCALHOST', '127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1']) {
      assert.equal(found(to(host), { HTTPS_PROXY: 'http://p' }), undefined, host)
    }
    assert.equal(found(to('localhost.example'), { HTTPS_PROXY: 'http://p' }), 'p')
  })

  test('emits PROXY_ERR_USAGE for one that is none, and says where it stands', () => {
    assert.throws(() => viaFromEnvironment(to('a'), { https_proxy: 'ftp://ann:s3cret@p' }), {
      code: 'PROXY_ERR_USAGE',
      message: /^HTTPS_PROXY in the environment: a proxy is http.*, not ftp:\/\/ \(--proxy none does without\)$/,
    })
  })
})

const KINDS = [
  ['http', serveHttpProxy],
  ['socks5', serveSocks5],
] as const

for (const [kind, serveProxy] of KINDS) {
  describe(`dialling through a proxy, ${kind}`, () => {
    const through = (port: number, credentials = ''): Via =>
      parseVia(`${kind}://${credentials === '' ? '' : `${credentials}@`}127.0.0.1:${port}`)

    const echo = (socket: Socket): void => void socket.pipe(socket)

    test('tcp, tls, ws and wss get through, and the proxy resolves the name', async (t) => {
      const identity = await Identity.make('server', { names: ['server.test'] })
      const { key, cert } = identity
      const verify = parsePin(identity.pin)
      const host = 'server.test'
      const dials = [
        [await serveTcp(t, echo), (port: number, via: Via) => dialTcpVia({ host, port }, { via })],
        [await serveTls(t, { key, cert }), (port: number, via: Via) => dialTls({ host, port }, { via, verify })],
        [await serveWeb(t), (port: number, via: Via) => dialWebSocket(`ws://${host}:${port}/symport`, { via, verify })],
        [
          await serveWeb(t, { tls: { key, cert } }),
          (port: number, via: Via) => dialWebSocket(`wss://${host}:${port}/symport`, { via, verify }),
        ],
      ] as const
      for (const [port, dial] of dials) {
        const proxy = await serveProxy(t, { to: port, credentials: `ann:${PASSWORD}` })
        const stream = new ByteStream(await dial(port, through(proxy.port, CREDENTIALS)))
        const bulk = Buffer.alloc(300_000, 'abcdefg')
        stream.link.write([bulk])
        assert.ok((await stream.read(bulk.length)).equals(bulk))
        assert.equal(stream.link.remote, `server.test:${port}`)
        assert.deepEqual(proxy.asked, [`server.test:${port}`])
        stream.link.destroy()
      }
    })

    test('bytes that come together with the answer are not lost', async (t) => {
      const target = await serveTcp(t, (socket) => socket.write('and more'))
      const early = Buffer.alloc(20_000, 'early ')
      const proxy = await serveProxy(t, { to: target, early })
      const link = await dialTcpVia({ host: '127.0.0.1', port: target }, { via: through(proxy.port) })
      await new Promise((resolve) => setTimeout(resolve, 20))
      const stream = new ByteStream(link)
      assert.ok((await stream.read(early.length)).equals(early))
      assert.equal((await stream.read(8)).toString(), 'and more')
      link.destroy()
    })

    async function failure(via: Via, timeout = 2000): Promise<ProxyError> {
      const error: unknown = await dialTcpVia({ host: 'server.test', port: 925 }, { via, timeout }).then(
        () => undefined,
        (reason: unknown) => reason,
      )
      assert.ok(error instanceof ProxyError)
      assert.equal(error.code, 'PROXY_ERR_DIAL_FAILED')
      const shown = inspect(error, { depth: 10, showHidden: true })
      for (const secret of [
        PASSWORD,
        encodeURIComponent(PASSWORD),
        Buffer.from(`ann:${PASSWORD}`).toString('base64'),
      ]) {
        assert.ok(!shown.includes(secret), shown)
      }
      return error
    }

    test('a name and password that are missing or wrong are told as such', async (t) => {
      const proxy = await serveProxy(t, { to: 1, credentials: 'ann:other' })
      const none = await failure(through(proxy.port))
      assert.match(none.message, /^the proxy (http|socks5):\/\/127\.0\.0\.1:\d+ wants a name and password/)
      const wrong = await failure(through(proxy.port, CREDENTIALS))
      assert.match(wrong.message, /does not take this name and password/)
      assert.deepEqual([none.retryable, wrong.retryable], [false, false])
    })

    const misbehaving = (t: TestContext, answer: (socket: Socket) => unknown): Promise<number> =>
      serveTcp(t, (socket) => void socket.once('data', () => answer(socket)))

    test('one that stalls, closes or is not there is told as such, and may be tried again', async (t) => {
      const stalling = await failure(through(await misbehaving(t, () => {})), 200)
      const closing = await failure(through(await misbehaving(t, (socket) => socket.end())))
      const cut = await failure(through(await misbehaving(t, (socket) => socket.resetAndDestroy())))
      const gone = await failure(parseVia(`${kind}://127.0.0.1:1`))
      assert.match(stalling.message, /^no answer from the proxy \w+:\/\/127\.0\.0\.1:\d+ in time$/)
      for (const { message } of [closing, cut]) assert.match(message, /^the proxy .* closed the connection$/)
      assert.equal(gone.message, `nothing listens on the proxy ${kind}://127.0.0.1:1`)
      assert.ok([stalling, closing, cut, gone].every(({ retryable }) => retryable))
    })

    test('one that speaks something else is told as such, whatever it says', async (t) => {
      const garbage = ['SSH-2.0-OpenSSH_9.0\r\n', Buffer.alloc(100_000, 'x'), Buffer.alloc(100_000)]
      for (const bytes of garbage) {
        const port = await misbehaving(t, (socket) => socket.write(bytes))
        assert.match((await failure(through(port))).message, /does not answer in (HTTP|SOCKS5): is it a proxy\?$/)
      }
    })

    test('a dial that is given up ends at once, and the connection to the proxy with it', async (t) => {
      let closed = (): void => {}
      const over = new Promise<void>((resolve) => {
        closed = resolve
      })
      const given = new AbortController()
      const port = await serveTcp(t, (socket) => {
        socket.resume().on('close', closed)
        socket.on('end', () => socket.end())
        setImmediate(() => given.abort())
      })
      await assert.rejects(dialTcpVia({ host: 'a', port: 1 }, { via: through(port), signal: given.signal }), {
        code: 'PROXY_ERR_ABORTED',
      })
      await over
    })
  })
}

describe('what a web proxy answers', () => {
  async function answer(t: TestContext, head: string): Promise<ProxyError> {
    const port = await serveTcp(t, (socket) => void socket.once('data', () => socket.write(head)))
    const via = parseVia(`http://127.0.0.1:${port}`)
    const error: unknown = await dialTcpVia({ host: 'server.test', port: 925 }, { via, timeout: 2000 }).catch((e) => e)
    assert.ok(error instanceof ProxyError)
    return error
  }

  test('a name and password that it does not take are told as such, with 407 and with 401', async (t) => {
    for (const status of [407, 401]) {
      const none = await answer(t, `HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`)
      assert.match(
        none.message,
        new RegExp(`wants a name and password \\(HTTP ${status}\\): http://USER:PASSWORD@HOST:PORT$`),
      )
      assert.equal(none.retryable, false)
    }
  })

  test('403, 502 and an endless head are told apart', async (t) => {
    const denied = await answer(t, 'HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno!')
    assert.match(denied.message, /does not allow connections to server\.test:925 \(HTTP 403\)$/)
    const bad = await answer(t, 'HTTP/1.0 502 Bad Gateway\r\n\r\n')
    assert.match(bad.message, /cannot connect to server\.test:925 \(HTTP 502\)$/)
    assert.deepEqual([denied.retryable, bad.retryable], [false, true])
    const endless = await answer(t, `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(17_000)}`)
    assert.match(endless.message, /answers with a head that is too long$/)
  })
})

describe('what a SOCKS5 proxy answers', () => {
  test('its reasons are told in plain words', async (t) => {
    const cases = [
      [1, /cannot connect to server\.test:925$/, true],
      [2, /does not allow connections to server\.test:925$/, false],
      [4, /finds no way to server\.test:925$/, true],
      [5, /was refused by server\.test:925: nothing listens there$/, true],
    ] as const
    for (const [reply, words, retryable] of cases) {
      const port = await serveTcp(t, (socket) => {
        socket.once('data', () => {
          socket.write(Buffer.from([5, 0]))
          socket.once('data', () => socket.write(Buffer.from([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])))
        })
      })
      const via = parseVia(`socks5://127.0.0.1:${port}`)
      await assert.rejects(dialTcpVia({ host: 'server.test', port: 925 }, { via }), { message: words, retryable })
    }
  })
})
