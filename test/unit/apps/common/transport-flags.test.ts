import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import {
  type DialFlagValues,
  type ListenFlagValues,
  parseDialFlags,
  parseListenFlags,
} from '../../../../apps/common/transport-flags.ts'
import { Identity } from '../../../helpers/transports/authority.ts'

const dial = (values: Partial<DialFlagValues>): DialFlagValues => ({
  ca: undefined,
  pin: undefined,
  proxy: undefined,
  ...values,
})
const listen = (values: Partial<ListenFlagValues>): ListenFlagValues => ({
  ...{ path: undefined, cert: undefined, key: undefined, 'real-ip-header': undefined },
  'trusted-proxies': [],
  'proxy-protocol': false,
  ...values,
})
const PIN = `sha256:${'ab'.repeat(32)}`

test('without flags a node believes the CAs of this machine, and takes the proxy of the environment', async () => {
  assert.deepEqual(await parseDialFlags(dial({})), { verify: { by: 'system' }, via: undefined })
})

test('a node takes a pin, a file of CAs, and a proxy or none', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'symport-flags-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const { cert } = await Identity.make('ca', { ca: true })
  const file = join(folder, 'ca.pem')
  writeFileSync(file, cert)
  assert.deepEqual(await parseDialFlags(dial({ pin: PIN, proxy: 'none' })), {
    verify: { by: 'pin', sha256: 'ab'.repeat(32) },
    via: 'none',
  })
  assert.deepEqual(await parseDialFlags(dial({ ca: file, proxy: 'socks5://p' })), {
    verify: { by: 'ca', pem: cert.trim() },
    via: { kind: 'socks5', host: 'p', port: 1080, credentials: undefined },
  })
  writeFileSync(file, 'nothing')
  await assert.rejects(parseDialFlags(dial({ ca: file })), { message: /^--ca: there is no certificate in it/ })
})

test('emits PROXY_ERR_USAGE for what a node cannot do, and shows no password', async () => {
  const cases: [Partial<DialFlagValues>, RegExp][] = [
    [{ pin: PIN, ca: 'x' }, /^--pin and --ca are both given: keep one$/],
    [{ pin: 'abc' }, /^--pin: a pin is sha256: and 64/],
    [{ pin: '' }, /^--pin: the value is empty/],
    [{ ca: '/none/such' }, /^--ca: cannot read \/none\/such: there is no such file$/],
    [{ proxy: 'ftp://ann:s3cret@p' }, /^--proxy: a proxy is http:\/\/HOST:PORT or socks5:\/\/HOST:PORT, not ftp:\/\/$/],
    [{ proxy: '' }, /^--proxy: the value is empty/],
  ]
  for (const [values, message] of cases) {
    await assert.rejects(parseDialFlags(dial(values)), { code: 'PROXY_ERR_USAGE', message })
  }
})

test('without flags a server has its WebSocket at /symport, and trusts nobody', () => {
  assert.deepEqual(parseListenFlags(listen({})), {
    ...{ cert: undefined, key: undefined },
    onePort: { path: '/symport', trustedProxies: [], proxyProtocol: undefined, realIpHeader: undefined },
  })
})

test('a server takes its trusted proxies in one flag or in several', () => {
  const nets = ['10.0.0.0/8, ::1', 'unix', '192.0.2.1']
  const { onePort } = parseListenFlags(
    listen({ 'trusted-proxies': nets, 'proxy-protocol': true, 'real-ip-header': 'Tiny-Real-IP', path: '/t/ws' }),
  )
  assert.deepEqual(onePort, {
    path: '/t/ws',
    trustedProxies: ['10.0.0.0/8', '::1', 'unix', '192.0.2.1'],
    ...{ proxyProtocol: true, realIpHeader: 'Tiny-Real-IP' },
  })
})

test('emits PROXY_ERR_USAGE for what a server cannot do', () => {
  const trusted = { 'trusted-proxies': ['::1'] }
  const cases: [Partial<ListenFlagValues>, RegExp][] = [
    [{ cert: 'a' }, /^--cert is given without --key$/],
    [{ key: 'a' }, /^--key is given without --cert$/],
    [{ cert: '', key: 'a' }, /^--cert: the value is empty/],
    [{ path: 'symport' }, /^--path: a path begins with \//],
    [{ path: '/a b' }, /^--path: /],
    [{ path: '/a?b' }, /^--path: /],
    [{ 'trusted-proxies': ['10.0.0.0/33'] }, /^--trusted-proxies: "10\.0\.0\.0\/33" is no address and no CIDR$/],
    [{ 'trusted-proxies': ['::1,'] }, /^--trusted-proxies: "" is no address/],
    [{ 'trusted-proxies': ['proxy.corp'] }, /^--trusted-proxies: /],
    [{ 'proxy-protocol': true }, /^--proxy-protocol says nothing without --trusted-proxies$/],
    [{ 'real-ip-header': 'X-Real-IP' }, /^--real-ip-header says nothing without --trusted-proxies$/],
    [{ ...trusted, 'real-ip-header': 'a b' }, /^--real-ip-header: that is no name of a header$/],
  ]
  for (const [values, message] of cases) {
    assert.throws(() => parseListenFlags(listen(values)), { code: 'PROXY_ERR_USAGE', message })
  }
})
