import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { boundAt, SECRET, start } from '../helpers/e2e/cli.ts'
import { Browser } from '../helpers/system/browser.ts'
import type { Child } from '../helpers/system/child.ts'
import { Curl } from '../helpers/system/curl.ts'
import { ask, startAssociation, startDns } from '../helpers/system/dns.ts'
import { makeCertificates, writeCertificates } from '../helpers/system/fronts.ts'
import { pushAndClone, startGitServer } from '../helpers/system/git.ts'
import { HOST, KNOWS_HOST } from '../helpers/system/names.ts'
import { freePort } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { startReadyNode } from '../helpers/system/publish.ts'
import { browse, startSecureSite, startSite } from '../helpers/system/site.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress } from '../helpers/system/symport.ts'

/** What a browser, curl, git and dig get through a node's `-D`, with the server as the exit. */

const MIB = 1024 * 1024

/** A server and a node with these proxies; the exit may dial these ports of 127.0.0.1, and nothing else. Gives the proxies' ports. */
async function startProxies(stage: Stage, ports: readonly number[], dynamic: readonly string[]): Promise<number[]> {
  const allowed = ports.flatMap((port) => ['--allow', `127.0.0.1:${port}`])
  const flags = ['--host', '127.0.0.1', '--port', '0', '--state', stage.path('server'), ...allowed]
  const server = await start(stage, ['server', ...flags], {
    env: { SYMPORT_UUID: SECRET, ...KNOWS_HOST },
  })
  const at = parseAddress((await logged(server, 'listening')).address)
  const node = await startReadyNode(
    stage,
    at,
    dynamic.map((text) => ['-D', text]),
  )
  return await Promise.all(dynamic.map((_, number) => portOf(node, number)))
}

async function portOf(node: Child, number: number): Promise<number> {
  return Number(/:(\d+)(?:\?|$)/.exec(await boundAt(node, number))?.[1])
}

test('curl gets to what the exit may reach, through socks5, http and both on one port', {
  timeout: 120_000,
}, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const [site, hidden, nobody] = [await startSite(stage), await startSite(stage), await freePort()]
  writeFileSync(stage.path('password'), 'pass-w0rd\n', { mode: 0o600 })
  const access = `?user=ann&password_file=${stage.path('password')}`
  const [mixed, socks, http, lockedSocks, lockedHttp] = await startProxies(
    stage,
    [site.port, nobody],
    [
      '127.0.0.1:0',
      'socks5://127.0.0.1:0',
      'http://127.0.0.1:0',
      `socks5://127.0.0.1:0${access}`,
      `http://127.0.0.1:0${access}`,
    ],
  )
  const url = (port = site.port): string => `http://${HOST}:${port}`
  const open = [
    ['--proxy', `socks5h://127.0.0.1:${socks}`],
    ['--proxy', `http://127.0.0.1:${http}`],
    ['--proxytunnel', '--proxy', `http://127.0.0.1:${http}`],
    ['--proxy', `socks5h://127.0.0.1:${mixed}`],
    ['--proxy', `http://127.0.0.1:${mixed}`],
    ['--proxytunnel', '--proxy', `http://127.0.0.1:${mixed}`],
  ]

  await t.test('a page, 2 MiB there and back, and the same connection twice', async () => {
    for (const proxy of open) {
      const { url: asked, headers } = JSON.parse(await curl.get(...proxy, `${url()}/echo/a?b=c`))
      assert.equal(asked, '/echo/a?b=c')
      assert.equal(headers.host, `${HOST}:${site.port}`)
      assert.equal(headers['proxy-connection'], undefined)
      assert.ok(await curl.echoes(2 * MIB, ...proxy, `${url()}/back`))
      assert.ok(await curl.echoes(2 * MIB, '--header', 'Transfer-Encoding: chunked', ...proxy, `${url()}/back`))
      const before = site.connections
      await curl.get(...proxy, `${url()}/echo/1`, `${url()}/echo/2`)
      assert.equal(site.connections - before, 1, proxy.join(' '))
    }
  })

  await t.test('addresses, IPv4 by socks5 too', async () => {
    const asked = `http://127.0.0.1:${site.port}/echo`
    for (const proxy of [...open, ['--proxy', `socks5://127.0.0.1:${mixed}`]]) await curl.get(...proxy, asked)
  })

  await t.test('a target that the exit may not reach is refused, by its name too, and the reason told', async () => {
    const before = hidden.connections
    for (const target of [url(hidden.port), `http://127.0.0.1:${hidden.port}`]) {
      const socks5 = await curl.run('--proxy', `socks5h://127.0.0.1:${mixed}`, target)
      assert.equal(socks5.status, 97)
      assert.match(socks5.output, /\(2\)/, 'RFC 1928: not allowed by ruleset')
      assert.equal(await curl.status('--proxy', `http://127.0.0.1:${mixed}`, target), 403)
      const tunnel = await curl.run('--proxytunnel', '--proxy', `http://127.0.0.1:${mixed}`, target)
      assert.equal(tunnel.status, 56)
      assert.match(tunnel.output, /response 403|403 from proxy/)
    }
    assert.equal(hidden.connections, before)
  })

  await t.test('a target where nothing listens, too', async () => {
    const socks5 = await curl.run('--proxy', `socks5h://127.0.0.1:${mixed}`, url(nobody))
    assert.equal(socks5.status, 97)
    assert.match(socks5.output, /\(5\)/, 'RFC 1928: connection refused')
    assert.equal(await curl.status('--proxy', `http://127.0.0.1:${mixed}`, url(nobody)), 502)
  })

  await t.test('a proxy with a user takes no other', async () => {
    for (const [scheme, port] of [
      ['socks5h', lockedSocks],
      ['http', lockedHttp],
    ]) {
      const proxy = (user: string): string[] => ['--proxy', `${scheme}://${user}127.0.0.1:${port}`]
      await curl.get(...proxy('ann:pass-w0rd@'), `${url()}/echo`)
      await curl.get('--proxytunnel', ...proxy('ann:pass-w0rd@'), `${url()}/echo`)
      for (const user of ['', 'ann:wrong@', 'bob:pass-w0rd@']) {
        const { status, output } = await curl.run('--fail', ...proxy(user), `${url()}/echo`)
        assert.notEqual(status, 0, output)
      }
    }
    assert.equal(await curl.status('--proxy', `http://127.0.0.1:${lockedHttp}`, `${url()}/echo`), 407)
  })

  await rates(t, curl, { direct: `http://127.0.0.1:${site.port}`, through: url(), port: Number(mixed) })
})

/** Figures for people who read the report; nothing depends on them. */
async function rates(t: TestContext, curl: Curl, at: { direct: string; through: string; port: number }): Promise<void> {
  const path = `/bytes?count=${200 * MIB}`
  const [socks, http] = ['socks5h', 'http'].map((scheme) => ['--proxy', `${scheme}://127.0.0.1:${at.port}`])
  for (const [what, args] of [
    ['direct', [`${at.direct}${path}`]],
    ['through socks5', [...(socks ?? []), `${at.through}${path}`]],
    ['through http', [...(http ?? []), `${at.through}${path}`]],
  ] as const) {
    t.diagnostic(`200 MiB ${what}: ${Math.round((await curl.rate(...args)) / MIB)} MiB/s`)
  }
}

test('git pushes and clones over socks5 and over an http proxy', { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['git'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const server = await startGitServer(stage, programs.git)
  const [port] = await startProxies(stage, [server.port], ['127.0.0.1:0'])
  const url = `http://${HOST}:${server.port}/repo.git`
  for (const scheme of ['socks5h', 'http']) {
    await pushAndClone(stage, programs.git, { server, url, proxy: `${scheme}://127.0.0.1:${port}` })
  }
})

test('a browser loads a page with all that belongs to it over socks5 and over an http proxy', {
  timeout: 120_000,
}, async (t) => {
  const programs = requirePrograms(t, ['chromium', 'nginx'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const certificates = await makeCertificates()
  writeCertificates(stage, certificates)
  const site = await startSite(stage)
  const secure = await startSecureSite(stage, programs.nginx)
  const [port] = await startProxies(stage, [site.port, secure], ['127.0.0.1:0'])
  const trusted = [certificates.own.cert]
  for (const scheme of ['socks5', 'http']) {
    const before = site.connections
    const proxy = `${scheme}://127.0.0.1:${port}`
    const browser = await Browser.start(stage, programs.chromium, { proxy, trusted })
    await browse(await browser.open(`http://${HOST}:${site.port}/below/`))
    assert.ok(site.connections > before)
    const page = await browser.open(`https://${HOST}:${secure}/page`)
    assert.equal(await page.evaluate('document.body.innerText'), `GET /page of ${HOST} behind TLS`)
  }
})

test('dig asks a real DNS server by UDP ASSOCIATE', { timeout: 90_000 }, async (t) => {
  const programs = requirePrograms(t, ['dig', 'dnsmasq'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const dns = await startDns(stage, programs)
  writeFileSync(stage.path('password'), 'pass-w0rd\n', { mode: 0o600 })
  const access = `?user=ann&password_file=${stage.path('password')}`
  const [mixed, locked] = await startProxies(stage, [dns], ['127.0.0.1:0', `socks5://127.0.0.1:0${access}`])
  const user = { name: 'ann', password: 'pass-w0rd' }
  const near = await Promise.all([
    startAssociation(stage, { host: '127.0.0.1', port: Number(mixed) }, { host: '127.0.0.1', port: dns }),
    startAssociation(stage, { host: '127.0.0.1', port: Number(mixed) }, { host: HOST, port: dns }),
    startAssociation(stage, { host: '127.0.0.1', port: Number(locked), user }, { host: '127.0.0.1', port: dns }),
  ])
  for (const port of near) {
    await Promise.all(Array.from({ length: 10 }, (_, host) => ask(stage, programs.dig, port, host)))
  }
})
