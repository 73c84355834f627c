import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { type Place, type PlaceOptions, parsePlace } from '../../../../apps/common/transports.ts'
import { parsePin, parseVia } from '../../../../lib/index.ts'

const PROXY_NAMES = ['http_proxy', 'https_proxy', 'all_proxy', 'no_proxy']

/** The environment's proxies are these and no others while the test runs. */
function environment(t: TestContext, set: Record<string, string> = {}): void {
  const names = PROXY_NAMES.flatMap((name) => [name, name.toUpperCase()])
  const before = names.map((name) => [name, process.env[name]] as const)
  for (const name of names) delete process.env[name]
  Object.assign(process.env, set)
  t.after(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  })
}

const parse = (text: string, options: Partial<PlaceOptions> = {}): Place =>
  parsePlace(text, '--server', { port: undefined, ...options })

const at = (text: string, options: Partial<PlaceOptions> = {}): unknown[] => {
  const { name, host, port } = parse(text, options)
  return [name, host, port]
}

test('a server is a host, host:port or a URL, each scheme with a port of its own', (t) => {
  environment(t)
  const cases: [string, unknown[]][] = [
    ['a.example', ['a.example:925', 'a.example', 925]],
    ['a.example:8925', ['a.example:8925', 'a.example', 8925]],
    ['tcp://a.example/', ['a.example:925', 'a.example', 925]],
    ['::1', ['[::1]:925', '::1', 925]],
    ['tls://a.example', ['tls://a.example:925', 'a.example', 925]],
    ['tls://[::1]:443', ['tls://[::1]:443', '::1', 443]],
    ['ws://a.example', ['ws://a.example:80/symport', 'a.example', 80]],
    ['ws://127.0.0.1:3699/symport', ['ws://127.0.0.1:3699/symport', '127.0.0.1', 3699]],
    ['WSS://a.example', ['wss://a.example:443/symport', 'a.example', 443]],
    ['wss://a.example/', ['wss://a.example:443/', 'a.example', 443]],
    ['wss://[2001:db8::1]/t/ws?x=1', ['wss://[2001:db8::1]:443/t/ws?x=1', '2001:db8::1', 443]],
    ['wss://ann:s3cret@a.example:8443/x', ['wss://a.example:8443/x', 'a.example', 8443]],
    ['unix:///run/symport.sock', ['unix:///run/symport.sock', '', undefined]],
  ]
  for (const [text, expected] of cases) assert.deepEqual(at(text), expected, text)
})

test('--port goes with a URL that has none', (t) => {
  environment(t)
  assert.deepEqual(at('wss://a.example/x', { port: 8443 }), ['wss://a.example:8443/x', 'a.example', 8443])
  assert.deepEqual(at('tls://a.example', { port: 8443 }), ['tls://a.example:8443', 'a.example', 8443])
  assert.throws(() => parse('wss://a.example:1/x', { port: 2 }), { message: /has a port, and --port is given/ })
})

test('emits PROXY_ERR_USAGE for what is no server', (t) => {
  environment(t)
  const bad = [
    '',
    'wss://',
    'wss:///symport',
    'ws://:80',
    'tls://',
    'tls://a:x',
    'wss://a:0',
    'wss://a b',
    'wss://a/#x',
  ]
  for (const text of [
    ...bad,
    'wss://a/b c',
    'wss://a?x',
    'wss://::1:x/',
    'http://a',
    'unix://relative',
    'tls://a/path',
  ]) {
    assert.throws(() => parse(text), { code: 'PROXY_ERR_USAGE', message: /^--server: / }, text)
  }
  assert.throws(() => parse('wsss://a'), { message: /did you mean wss?:\/\/\?$/ })
})

test('a server listens for TLS and WebSockets without being asked to', () => {
  for (const text of ['tls://0.0.0.0', 'ws://0.0.0.0:80', 'wss://:443']) {
    assert.throws(() => parse(text, { listening: true }), {
      code: 'PROXY_ERR_USAGE',
      message: '--server: a server takes TLS and WebSockets on its one port: write tcp://HOST:PORT',
    })
  }
  assert.deepEqual(at('tcp://:0', { listening: true }), [':0', '', 0])
})

test('a pin or a CA for ws:// is an error, because nobody would look at it; with tcp:// there is nothing to check', (t) => {
  environment(t)
  const verify = parsePin(`sha256:${'ab'.repeat(32)}`)
  const dialling = { verify, via: undefined }
  assert.throws(() => parse('ws://a', { dialling }), {
    code: 'PROXY_ERR_USAGE',
    message: '--server: --pin is about a certificate, and ws:// has none: is it wss://?',
  })
  assert.throws(() => parse('ws://a', { dialling: { verify: { by: 'ca', pem: '' }, via: undefined } }), /--ca is about/)
  for (const text of ['a', 'tls://a', 'wss://a', 'unix:///a']) parse(text, { dialling })
})

/** What a dial of `text` says: its proxy is nobody, so that it says which one it was. */
async function dialled(text: string, options: Partial<PlaceOptions> = {}): Promise<string> {
  const error: unknown = await parse(text, options)
    .dial({})
    .then(
      (link) => link.destroy(),
      (reason: unknown) => reason,
    )
  assert.ok(error instanceof Error)
  return error.message
}

test('the environment has proxies for tls, ws and wss, and none for tcp and unix', async (t) => {
  environment(t, { HTTPS_PROXY: 'http://127.0.0.1:1', HTTP_PROXY: 'socks5://127.0.0.1:1', NO_PROXY: 'b.test' })
  const gone = (kind: string): string => `nothing listens on the proxy ${kind}://127.0.0.1:1`
  assert.equal(await dialled('tls://a.test'), gone('http'))
  assert.equal(await dialled('wss://a.test'), gone('http'))
  assert.equal(await dialled('ws://a.test'), gone('socks5'))
  assert.equal(await dialled('tcp://127.0.0.1:1'), 'nothing listens on 127.0.0.1:1')
  assert.equal(await dialled('unix:///none/such'), 'nothing listens on /none/such')
})

test('--proxy goes before the environment and is for tcp as well; none switches off', async (t) => {
  environment(t, { ALL_PROXY: 'http://127.0.0.1:1', NO_PROXY: '*' })
  const by = (proxy: string): Partial<PlaceOptions> => ({
    dialling: { verify: { by: 'system' }, via: proxy === 'none' ? proxy : parseVia(proxy) },
  })
  for (const scheme of ['tcp', 'tls', 'ws', 'wss']) {
    const message = await dialled(`${scheme}://a.test`, by('socks5://127.0.0.1:1'))
    assert.equal(message, 'nothing listens on the proxy socks5://127.0.0.1:1')
  }
  assert.equal(await dialled('unix:///none/such', by('socks5://127.0.0.1:1')), 'nothing listens on /none/such')
  delete process.env.NO_PROXY
  assert.equal(await dialled('tls://127.0.0.1:1', by('none')), 'nothing listens on 127.0.0.1:1')
})

test('a proxy of the environment that is none is an error before anything is dialled', (t) => {
  environment(t, { HTTPS_PROXY: 'ftp://p' })
  assert.throws(() => parse('wss://a'), { code: 'PROXY_ERR_USAGE', message: /^--server: HTTPS_PROXY in the env/ })
  parse('tcp://a')
})
