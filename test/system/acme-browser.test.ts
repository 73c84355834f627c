import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { Browser } from '../helpers/system/browser.ts'
import { freePort } from '../helpers/system/net.ts'
import { Pebble } from '../helpers/system/pebble.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { browse, startSite } from '../helpers/system/site.ts'
import { Stage } from '../helpers/system/stage.ts'

const DOMAIN = 'tunnel.example.com'

test('a browser that believes the CA opens what "symport http" has published, as a secure page', {
  timeout: 120_000,
}, async (t) => {
  const programs = requirePrograms(t, ['chromium', 'certutil', 'pebble', 'pebble-challtestsrv'])
  if (!programs) return
  const stage = new Stage(t)
  const port = await freePort()
  const pebble = await Pebble.start(stage, { programs, httpPort: port, tlsPort: port })
  const site = await startSite(stage)
  await startServer(stage, ['--domain', DOMAIN, ...pebble.flags], { port })
  const where = ['--server', `tcp://127.0.0.1:${port}`, '--state', stage.path('publisher')]
  const publisher = await start(stage, ['http', String(site.port), '--name', 'checkout', '--json', ...where], {
    env: { SYMPORT_UUID: SECRET },
  })
  const pick = (line: string): string | undefined => /"url":"([^"]*)"/.exec(line)?.[1]
  const url = await publisher.line(pick, 'the URL')
  assert.equal(url, `https://checkout.${DOMAIN}:${port}`)
  const browser = await Browser.start(stage, programs.chromium, {
    hosts: [`*.${DOMAIN}`],
    authorities: { certutil: programs.certutil, pems: [await pebble.root()] },
  })

  const page = await browser.open(`${url}/`)
  // A script, an upload by fetch, a WebSocket and a stream of events.
  await browse(page)
  assert.equal(await page.evaluate('document.title'), 'A site')
  assert.equal(await page.evaluate('document.getElementById("text").textContent'), 'loaded')
  assert.deepEqual(await page.evaluate('[isSecureContext, location.protocol, typeof crypto.subtle]'), [
    true,
    'https:',
    'object',
  ])
  const echo = await page.evaluate('fetch("/echo/x?y=1", { method: "PUT", body: "body" }).then((it) => it.json())')
  assert.ok(typeof echo === 'object' && echo !== null && 'url' in echo && 'bytes' in echo)
  assert.deepEqual([echo.url, echo.bytes], ['/echo/x?y=1', 4])

  await t.test('and does not open a name that has no certificate of that CA', async () => {
    await assert.rejects(browser.open(`https://nobody.${DOMAIN}:${port}/`), /ERR_CERT_AUTHORITY_INVALID/)
  })
})
