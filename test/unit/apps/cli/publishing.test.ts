import assert from 'node:assert/strict'
import test from 'node:test'
import { pino } from 'pino'
import { dnsAdvice } from '../../../../apps/cli/dns-advice.ts'
import { readPublishTarget } from '../../../../apps/cli/publish-target.ts'
import { RequestLines } from '../../../../apps/cli/request-lines.ts'
import { Published, publicUrl } from '../../../../apps/cli/run-published.ts'
import { parseDomain } from '../../../../apps/common/domain.ts'
import { ProxyError } from '../../../../lib/core/index.ts'
import type { SeenRequest } from '../../../../lib/domains/http-watch.ts'

const seen: SeenRequest = { at: new Date(2030, 0, 2, 3, 4, 5), method: 'GET', path: '/cart', status: 200, ms: 12.34 }

function told(json: boolean, color: boolean, requests: readonly SeenRequest[]): string {
  let text = ''
  const lines = new RequestLines({
    json,
    color,
    write: (more) => {
      text += more
    },
  })
  for (const request of requests) lines.add(request)
  lines.flush()
  return text
}

test('a request is a line for people, or an object', () => {
  assert.equal(told(false, false, [seen]), `03:04:05 GET     ${'/cart'.padEnd(40)} 200    12 ms\n`)
  const failed = told(false, true, [{ ...seen, status: 502, problem: 'gone' }])
  assert.ok(failed.endsWith(` \u{1b}[31m502\u{1b}[0m    12 ms  gone\n`), failed)
  const object = { time: seen.at.toISOString(), method: 'GET', path: '/cart', status: 200, ms: 12.3 }
  assert.deepEqual(JSON.parse(told(true, true, [seen])), object)
})

test('lines in one second are limited, to fewer for people; how many are left out is told at the end too', () => {
  for (const [json, most, last] of [
    [false, 200, '... and 7 more'],
    [true, 5000, '{"more":7}'],
  ] as const) {
    const many = Array.from({ length: most }, () => seen)
    assert.equal(told(json, false, many).split('\n').length - 1, most)
    const lines = told(json, false, [...many, ...many.slice(0, 7)]).split('\n')
    assert.equal(lines.length - 1, most + 1)
    assert.equal(lines.at(-2), last)
  }
})

test('what a reader does not take is left out, and told when it does', () => {
  let [text, full] = ['', true]
  const write = (more: string): void => {
    text += more
  }
  const lines = new RequestLines({ json: true, color: false, write, isFull: () => full })
  for (let count = 0; count < 3; count++) lines.add(seen)
  full = false
  lines.add(seen)
  lines.flush()
  const told = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual([told.length, told[0].more, told[1].path], [2, 3, '/cart'])
})

test('a missing record of the DNS is named, and nothing where nobody can tell', async () => {
  const dns =
    (names: Readonly<Record<string, readonly string[]>>) =>
    async (name: string): Promise<readonly string[]> =>
      names[name] ?? []
  const [host, server] = ['shop.example.com', 'tunnel.example.com']
  assert.match(
    (await dnsAdvice(host, server, dns({ [server]: ['192.0.2.1'] }))) ?? '',
    /add the record "\*\.example\.com A 192\.0\.2\.1" to the DNS of example\.com$/,
  )
  assert.match((await dnsAdvice(host, '2001:db8::1', dns({}))) ?? '', /"\*\.example\.com AAAA 2001:db8::1"/)
  assert.match((await dnsAdvice(host, '127.0.0.1', dns({}))) ?? '', /A \(the address of the server\)/)
  const elsewhere = dns({ [host]: ['198.51.100.1'], [server]: ['192.0.2.1'] })
  assert.match((await dnsAdvice(host, server, elsewhere)) ?? '', /leads to 198\.51\.100\.1, and the server is at 192/)
  assert.equal(await dnsAdvice(host, server, dns({ [host]: ['192.0.2.1'], [server]: ['192.0.2.1'] })), undefined)
  assert.equal(await dnsAdvice(host, '127.0.0.1', elsewhere), undefined)
  assert.equal(await dnsAdvice('shop.example.localhost', server, dns({})), undefined)
  const broken = (): Promise<never> => Promise.reject(new Error('no DNS'))
  assert.equal(await dnsAdvice(host, server, broken), undefined)
})

test('the URL is what the server says, or a port where the node has found it; nothing else is printed', () => {
  assert.equal(publicUrl({ Domain: 'https', Addr: 'shop.example.com' }, 'x'), 'https://shop.example.com')
  assert.equal(publicUrl({ Domain: 'tcp', Addr: ':9000' }, 'server.example.com'), 'tcp://server.example.com:9000')
  assert.equal(publicUrl({ Domain: 'udp', Addr: ':53' }, '2001:db8::1'), 'udp://[2001:db8::1]:53')
  for (const at of [
    { Domain: 'javascript', Addr: 'x' },
    { Domain: 'http', Addr: '' },
    { Domain: 'http', Addr: 'a\x1b[2Jb' },
    { Domain: 'http', Addr: 'a\nb' },
    { Domain: 'http', Addr: 'a/b' },
    { Domain: 'http', Addr: 'x'.repeat(1000) },
  ]) {
    assert.equal(publicUrl(at, 'server'), undefined, at.Addr)
  }
})

test('a refusal ends it before there was a URL; after that the server may think better of it', async () => {
  for (const code of ['PROXY_ERR_REFUSED', 'PROXY_ERR_ID_TAKEN', 'PROXY_ERR_TLS'] as const) {
    for (const was of [false, true]) {
      const [log, target] = [pino({ level: 'silent' }), { name: 'x' }]
      const published = new Published({ target, host: 'x', json: false, onTerminal: false, write: () => {}, log })
      const of = { spec: { Listen: { Domain: 'public', Addr: 'tcp' }, Forward: { Domain: 'tcp', Addr: 'x:1' } } }
      const at = 'here'
      const bound = { Domain: 'tcp', Addr: ':9000' }
      if (was) published.onEvent({ type: 'listener-ready', ...of, bound, at })
      published.onEvent({ type: 'retrying', reason: new ProxyError(code, 'no'), delay: 60_000 })
      const going = new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', 'still there')
      published.onEvent({ type: 'listener-failed', ...of, reason: going, at })
      assert.equal((await published.failed).code, was ? going.code : code)
    }
  }
})

test('what is published is a port, host:port or a URL', () => {
  const web = (text: string): unknown => readPublishTarget('http', text)
  const plain = { forward: { Domain: 'tcp', Addr: '127.0.0.1:3000' }, base: '/', name: '127.0.0.1:3000' }
  for (const text of ['3000', ':3000', '127.0.0.1:3000', 'http://127.0.0.1:3000', 'HTTP://127.0.0.1:3000/']) {
    assert.deepEqual(web(text), plain, text)
  }
  assert.deepEqual(web('http://a/app/x/'), {
    ...{ forward: { Domain: 'tcp', Addr: 'a:80' }, base: '/app/x/' },
    name: 'http://a:80/app/x/',
  })
  assert.deepEqual(web('https://a:8443?verify=off'), {
    ...{ forward: { Domain: 'tls', Addr: 'a:8443?verify=off' }, base: '/' },
    name: 'https://a:8443',
  })
  assert.deepEqual(readPublishTarget('udp', 'udp://[::1]:53').forward, { Domain: 'udp', Addr: '[::1]:53' })
})

test('a domain is a name, or the URL at which visitors find it', () => {
  assert.deepEqual(parseDomain('Example.COM.'), { host: 'example.com' })
  assert.deepEqual(parseDomain('https://example.com/'), { host: 'example.com', scheme: 'https', port: 443 })
  assert.deepEqual(parseDomain('http://example.com:8080'), { host: 'example.com', scheme: 'http', port: 8080 })
  for (const text of [
    ...['', '.', '*.example.com', '127.0.0.1', '[::1]', 'a b', 'a/b', 'ftp://a', 'example.com:80', 'https://a:0'],
    ...['https://a:99999', 'https://u@a', 'https://a/b', '"', 'x'.repeat(64), `${'a.'.repeat(95)}com`],
  ]) {
    assert.throws(() => parseDomain(text), { code: 'PROXY_ERR_USAGE' }, text)
  }
})

test('whose word about visitors is true is told by where it is: at the web port, or at a port of its own', () => {
  const [log, target] = [pino({ level: 'silent' }), { name: 'x' }]
  const published = new Published({ target, host: 'x', json: true, onTerminal: false, write: () => {}, log })
  const spec = { Listen: { Domain: 'public', Addr: 'http' }, Forward: { Domain: 'tcp', Addr: 'x:1' } }
  assert.equal(published.isNamed, false)
  for (const [Addr, expected] of [
    ['k7.example.localhost', true],
    [':9000', false],
    ['k7.example.localhost:925', true],
  ] as const) {
    published.onEvent({ type: 'listener-ready', spec, bound: { Domain: 'http', Addr }, at: 'here' })
    assert.equal(published.isNamed, expected, Addr)
  }
})
