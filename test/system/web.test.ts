import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import { startServer } from '../helpers/e2e/cli.ts'
import { Browser } from '../helpers/system/browser.ts'
import { Curl } from '../helpers/system/curl.ts'
import { makeCertificates, writeCertificates } from '../helpers/system/fronts.ts'
import { eventually, freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { publish } from '../helpers/system/publish.ts'
import { browse, startSecureSite, startSite } from '../helpers/system/site.ts'
import { Stage } from '../helpers/system/stage.ts'
import type { Address } from '../helpers/system/symport.ts'

/** Web servers behind a node, at the server's web port, for curl and a browser. */

const MIB = 1024 * 1024
const certificates = makeCertificates()

/** What makes curl ask the server for a host that it does not know. */
function as(host: string, at: Address): string[] {
  return ['--connect-to', `${host}:${at.port}:127.0.0.1:${at.port}`]
}

test("curl finds what the wsp seed's four examples publish", { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const site = await startSite(stage)
  const { at } = await startServer(stage, ['--allow-names', '*'])
  const target = `http://127.0.0.1:${site.port}`
  // The seed has its two paths one below the other; here the second is another one, so that both can be seen.
  await publish(stage, at, [
    `${target}?mode=path&value=api`,
    `${target}/api/?mode=path&value=api2`,
    `${target}?mode=domain&value=customwsp.com`,
    `${target}/api/?mode=domain&value=customapi.com`,
  ])
  const asked = async (url: string, ...args: string[]): Promise<string> => JSON.parse(await curl.get(...args, url)).url
  const here = `http://127.0.0.1:${at.port}`

  await t.test('each path as the seed has it', async () => {
    assert.equal(await asked(`${here}/api/greet`), '/greet')
    assert.equal(await asked(`${here}/api2/greet?a=b%2Fc`), '/api/greet?a=b%2Fc')
    const [wsp, api] = ['customwsp.com', 'customapi.com']
    assert.equal(await asked(`http://${wsp}:${at.port}/api/greet`, ...as(wsp, at)), '/api/greet')
    assert.equal(await asked(`http://${api}:${at.port}/greet`, ...as(api, at)), '/api/greet')
    // A Host without a port is the same.
    assert.equal(await asked(`${here}/api/greet`, '--header', `Host: ${wsp}`), '/api/greet')
  })

  await t.test('the target is told who asks, and for what', async () => {
    const { headers } = JSON.parse(await curl.get('--header', 'X-Forwarded-For: 203.0.113.9', `${here}/api/echo`))
    assert.equal(headers['x-forwarded-for'], '127.0.0.1', 'and not what anybody says')
    assert.equal(headers['x-forwarded-proto'], 'http')
    assert.equal(headers['x-forwarded-host'], `127.0.0.1:${at.port}`)
  })

  await t.test('20 MiB there and back, with a length and in chunks', async () => {
    const back = `${here}/api/back`
    assert.ok(await curl.echoes(20 * MIB, back))
    assert.ok(await curl.echoes(20 * MIB, '--header', 'Transfer-Encoding: chunked', back))
    // curl asks first, and sends the body when it is told to go on.
    assert.ok(await curl.echoes(2 * MIB, '--header', 'Expect: 100-continue', back))
  })

  await t.test('other methods', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const args = ['--request', method, '--data-binary', 'x'.repeat(10)]
      const { method: got, bytes } = JSON.parse(await curl.get(...args, `${here}/api/echo`))
      assert.deepEqual([got, bytes], [method, 10])
    }
    assert.match(await curl.get('--head', `${here}/api/echo`), /^HTTP\/1\.1 200/)
  })

  await t.test('404 for what nobody has published', async () => {
    assert.equal(await curl.status(`${here}/apis/greet`), 404)
    assert.equal(await curl.status(...as('other.com', at), `http://other.com:${at.port}/greet`), 404)
  })

  await t.test('many requests', async () => {
    const count = 1_000
    const before = site.connections
    const parallel = ['--parallel', '--parallel-max', '20', '--output', '/dev/null']
    const start = performance.now()
    await curl.get(...parallel, `${here}/api/echo/[1-${count}]`)
    const rate = count / ((performance.now() - start) / 1000)
    t.diagnostic(`${Math.round(rate)} requests/s on 20 connections, ${site.connections - before} to the target`)
    t.diagnostic(`200 MiB: ${Math.round((await curl.rate(`${here}/api/bytes?count=${200 * MIB}`)) / MIB)} MiB/s`)
    assert.ok(site.connections - before < count / 2, 'connections to the target are used again')
  })
})

test('curl is told 502 where nothing listens behind the node, and 404 when the node is gone', {
  timeout: 60_000,
}, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const { at } = await startServer(stage, ['--allow-names', '*'])
  const node = await publish(stage, at, [`http://127.0.0.1:${await freePort()}?mode=path&value=api`])
  const url = `http://127.0.0.1:${at.port}/api/`
  assert.equal(await curl.status(url), 502)
  await node.stop()
  await eventually(async () => assert.equal(await curl.status(url), 404))
})

test('a browser uses a site below a path and under a name: a script, an upload, events, a WebSocket', {
  timeout: 120_000,
}, async (t) => {
  const programs = requirePrograms(t, ['chromium'])
  if (programs === undefined) return
  const stage = new Stage(t)
  writeCertificates(stage, await certificates)
  const site = await startSite(stage)
  const tls = ['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')]
  const { at } = await startServer(stage, ['--allow-names', '*', ...tls])
  const target = `http://127.0.0.1:${site.port}`
  await publish(stage, at, [`${target}?mode=path&value=site`, `${target}?mode=domain&value=customwsp.com`])
  const browser = await Browser.start(stage, programs.chromium, {
    hosts: ['customwsp.com'],
    trusted: [(await certificates).own.cert],
  })
  for (const scheme of ['http', 'https']) {
    await browse(await browser.open(`${scheme}://127.0.0.1:${at.port}/site/`))
    await browse(await browser.open(`${scheme}://customwsp.com:${at.port}/`))
  }
})

test('nginx with TLS behind a node, verified by its CA, by a pin, and not at all', { timeout: 90_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'nginx'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const { ca, own } = await certificates
  writeCertificates(stage, { ca, own })
  const port = await startSecureSite(stage, programs.nginx)
  const pin = (cert: string): string => new X509Certificate(cert).fingerprint256.replaceAll(':', '').toLowerCase()
  const { at } = await startServer(stage, ['--allow-names', '*'])
  const target = `https://127.0.0.1:${port}`
  const node = await publish(stage, at, [
    `${target}?mode=path&value=ca&ca=${stage.path('ca.pem')}`,
    `${target}/deep/?mode=path&value=pin&pin=sha256:${pin(own.cert)}`,
    `${target}?mode=path&value=off&verify=off`,
    `${target}?mode=domain&value=secure.com&ca=${stage.path('ca.pem')}`,
    `${target}?mode=path&value=stranger`,
    `${target}?mode=path&value=other-pin&pin=sha256:${'0'.repeat(64)}`,
    `${target}?mode=path&value=other-name&ca=${stage.path('ca.pem')}&name=example.com`,
  ])
  const here = `http://127.0.0.1:${at.port}`
  assert.match(await curl.get(`${here}/ca/x?y`), /^GET \/x\?y of .* behind TLS$/)
  assert.match(await curl.get(`${here}/pin/x`), /^GET \/deep\/x of .* behind TLS$/)
  assert.match(await curl.get(`${here}/off/x`), /^GET \/x of .* behind TLS$/)
  assert.match(await curl.get('--header', 'Host: secure.com', `${here}/x`), /^GET \/x of .* behind TLS$/)
  for (const path of ['stranger', 'other-pin', 'other-name']) assert.equal(await curl.status(`${here}/${path}/`), 502)
  assert.ok(
    node.lines.some((line) => /not verified|verify=off/.test(line)),
    'that nobody is verified is said aloud',
  )
})
