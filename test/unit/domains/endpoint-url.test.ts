import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseEndpointUrl, type Role } from '../../../lib/domains/endpoint-url.ts'

const parse = (text: string, role: Role = 'forward') => parseEndpointUrl(text, { domains: ['tcp', 'unix'], role })
const rejects = (text: string, message: RegExp, role: Role = 'forward'): void =>
  assert.throws(() => parse(text, role), { name: 'ProxyError', code: 'PROXY_ERR_SPEC', message })

test('takes tcp with a host and port, and unix with a path', () => {
  assert.deepEqual(parse('tcp://example.com:80'), { Domain: 'tcp', Addr: 'example.com:80' })
  assert.deepEqual(parse('TCP://[::1]:80'), { Domain: 'tcp', Addr: '[::1]:80' })
  assert.deepEqual(parse('unix:///run/x.sock'), { Domain: 'unix', Addr: '/run/x.sock' })
})

test('an empty host is all interfaces when listening and 127.0.0.1 when forwarding', () => {
  assert.equal(parse('tcp://:80', 'listen').Addr, ':80')
  assert.equal(parse('tcp://:80', 'forward').Addr, '127.0.0.1:80')
})

test('port 0 is for listening only', () => {
  assert.equal(parse('tcp://127.0.0.1:0', 'listen').Addr, '127.0.0.1:0')
  rejects('tcp://127.0.0.1:0', /port 0 is out of range \(1 to 65535\)/)
})

test('an unknown domain is named with the nearest known one and all of them', () => {
  rejects('tpc://a:80', /unknown domain "tpc": did you mean tcp\? \(known: tcp, unix\)/)
  rejects('quic://a:80', /unknown domain "quic" \(known: tcp, unix\)/)
})

test('/udp behind an address is the domain udp', () => {
  rejects('tcp://a:53/udp', /unknown domain "udp".*known: tcp, unix/)
  const domains = ['tcp', 'udp']
  assert.deepEqual(parseEndpointUrl('tcp://a:53/udp', { domains, role: 'forward' }), { Domain: 'udp', Addr: 'a:53' })
  assert.deepEqual(parse('tcp://a:53/tcp'), { Domain: 'tcp', Addr: 'a:53' })
  assert.deepEqual(parse('unix:///run/udp'), { Domain: 'unix', Addr: '/run/udp' })
})

test('a domain that cannot do what is asked says so', () => {
  const domains = [
    { name: 'in', listen: () => undefined },
    { name: 'out', dial: () => undefined },
  ]
  assert.equal(parseEndpointUrl('in://:1', { domains, role: 'listen' }).Domain, 'in')
  assert.throws(() => parseEndpointUrl('in://:1', { domains, role: 'forward' }), /in cannot be forwarded to/)
  assert.throws(() => parseEndpointUrl('out://:1', { domains, role: 'listen' }), /out cannot be listened on/)
})

test('http and https are written for tcp and tls, where these can be forwarded to', () => {
  const domains = [
    { name: 'tcp', dial: () => undefined },
    { name: 'http', listen: () => undefined },
  ]
  const take = (text: string, role: Role = 'forward') => parseEndpointUrl(text, { domains, role })
  assert.deepEqual(take('http://a'), { Domain: 'tcp', Addr: 'a:80' })
  assert.deepEqual(take('http://:8080/'), { Domain: 'tcp', Addr: '127.0.0.1:8080' })
  assert.deepEqual(take('http://:8080', 'listen'), { Domain: 'http', Addr: ':8080' })
  assert.throws(() => take('http://a/b'), /there is no path here/)
  assert.throws(() => take('https://a'), /unknown domain "https": did you mean http\?/)
  const tls = [{ name: 'tls', dial: () => undefined }]
  assert.equal(parseEndpointUrl('https://a?verify=off', { domains: tls, role: 'forward' }).Addr, 'a:443?verify=off')
})

test('user information is an error that does not show it', () => {
  rejects('tcp://name:hunter2 hunter2@host:80', /^bad endpoint "…@host:80": /)
  rejects('tcp://name:hunter2@host:80', /^bad endpoint "…@host:80": user information .* not known here/)
})

test('a Unix path is absolute, names a file, and has at most 107 bytes', () => {
  assert.equal(parse(`unix:///${'x'.repeat(106)}`).Addr.length, 107)
  rejects(`unix:///${'x'.repeat(107)}`, /108 bytes: a Unix socket's has at most 107/)
  rejects(`unix:///${'é'.repeat(54)}`, /109 bytes/)
  rejects('unix://x.sock', /not absolute/)
  rejects('unix://@abstract', /not absolute/)
  rejects('unix:///', /names a folder/)
  rejects('unix:///a\0b', /zero byte/)
})

test('what is no URL is shown as one', () => {
  rejects('127.0.0.1:80', /is not an endpoint: write tcp:\/\/host:port/)
  rejects('/run/x.sock', /write unix:\/\/\/run\/x.sock/)
  rejects('unix:/run/x.sock', /write unix:\/\/\/run\/x.sock/)
  rejects('tcp://a:80/path', /port "80\/path" is not a number/)
})
