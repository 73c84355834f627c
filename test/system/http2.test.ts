import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { startServer } from '../helpers/e2e/cli.ts'
import { Browser } from '../helpers/system/browser.ts'
import { Curl } from '../helpers/system/curl.ts'
import { writeCertificates } from '../helpers/system/fronts.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { publish, startReadyNode } from '../helpers/system/publish.ts'
import { browse, startSecureSite, startSite } from '../helpers/system/site.ts'
import { Stage } from '../helpers/system/stage.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** What comes in over TLS, for programs that people have: HTTP/2, and TLS that ends behind the node. */

const MIB = 1024 * 1024
const HOST = 'shop.example.com'
const ca = Identity.create('the CA', { ca: true, names: [] })

test('curl and a browser have HTTP/2, with all that a page needs', { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'chromium'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const own = await ca.issue('this server', { names: ['*.example.com'] })
  writeCertificates(stage, { ca, own })
  const site = await startSite(stage)
  const certificate = ['--cert', stage.path('cert.pem'), '--key', stage.path('key.pem')]
  const { at } = await startServer(stage, ['--domain', 'example.com', ...certificate])
  const target = `http://127.0.0.1:${site.port}`
  await publish(stage, at, [`${target}?mode=domain&value=${HOST}`, `${target}?mode=domain&value=other.example.com`])
  const as = ['--cacert', stage.path('ca.pem'), '--resolve', `${HOST}:${at.port}:127.0.0.1`]
  const here = `https://${HOST}:${at.port}`

  await t.test('curl', async () => {
    const { output } = await curl.run(...as, '--write-out', '\n%{http_version}', `${here}/echo?a=%2f`)
    const [text = '', version] = output.split('\n')
    assert.equal(version, '2')
    const { url, headers } = JSON.parse(text)
    assert.equal(url, '/echo?a=%2f')
    assert.deepEqual([headers['x-forwarded-proto'], headers.host], ['https', `${HOST}:${at.port}`])
    assert.ok(await curl.echoes(20 * MIB, ...as, `${here}/back`))
    assert.ok(await curl.echoes(2 * MIB, ...as, '--header', 'Expect: 100-continue', `${here}/back`))
    assert.match(await curl.get(...as, '--head', `${here}/echo`), /^HTTP\/2 200/)
    assert.equal(await curl.status(...as, `https://${HOST}:${at.port}/%2e%2e/x`), 400)
    const parallel = ['--parallel', '--parallel-max', '50', '--output', '/dev/null']
    await curl.get(...as, ...parallel, `${here}/echo/[1-500]`)
    for (const version of ['--http2', '--http1.1']) {
      const rate = await curl.rate(...as, version, `${here}/bytes?count=${100 * MIB}`)
      t.diagnostic(`100 MiB with ${version}: ${Math.round(rate / MIB)} MiB/s`)
    }
  })

  await t.test('a browser: a script, an upload, a stream of events, and a WebSocket beside it', async () => {
    const browser = await Browser.start(stage, programs.chromium, {
      hosts: [HOST, 'other.example.com'],
      trusted: [own.cert],
    })
    const protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
    const page = await browser.open(`${here}/`)
    await browse(page)
    assert.equal(await page.evaluate(protocol), 'h2')
    // The certificate is for this one, too: it may come on the same connection.
    const other = await browser.open(`https://other.example.com:${at.port}/`)
    await browse(other)
    assert.equal(await other.evaluate(protocol), 'h2')
  })
})

test('TLS ends at nginx behind a node, with the certificate that only nginx has', { timeout: 90_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'nginx', 'openssl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const name = 'db.example.com'
  const own = await ca.issue('nginx', { names: [name] })
  writeCertificates(stage, { ca, own })
  const port = await startSecureSite(stage, programs.nginx)
  const { at } = await startServer(stage, ['--domain', 'example.com'])
  await startReadyNode(stage, at, [['-R', `tls://${name},tcp://127.0.0.1:${port}`]])
  const as = ['--cacert', stage.path('ca.pem'), '--resolve', `${name}:${at.port}:127.0.0.1`]
  const here = `https://${name}:${at.port}`
  assert.equal(await curl.get(...as, `${here}/x?y`), `GET /x?y of ${name} behind TLS`)
  assert.notEqual((await curl.run(...as, `https://${name}x:${at.port}/`)).status, 0)
  writeFileSync(stage.path('nothing'), '')
  const client = [
    's_client',
    '-connect',
    `127.0.0.1:${at.port}`,
    '-CAfile',
    stage.path('ca.pem'),
    '-verify_return_error',
  ]
  const shown = await stage.run('sh', [
    '-c',
    `exec openssl "$@" <${stage.path('nothing')}`,
    'sh',
    ...client,
    '-servername',
    name,
  ])
  assert.match(shown.output, /Verify return code: 0 \(ok\)/)
  assert.match(shown.output, /subject=CN = nginx/)
  const other = await stage.run('sh', [
    '-c',
    `exec openssl "$@" <${stage.path('nothing')}`,
    'sh',
    ...client,
    '-noservername',
  ])
  assert.doesNotMatch(other.output, /CN = nginx/)
})
