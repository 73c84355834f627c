import assert from 'node:assert/strict'
import { test } from 'node:test'
import { boundAt, startServer } from '../helpers/e2e/cli.ts'
import { startFaultRelay } from '../helpers/faults/fault-relay.ts'
import { seeded } from '../helpers/faults/random.ts'
import { Browser } from '../helpers/system/browser.ts'
import { Curl } from '../helpers/system/curl.ts'
import { Cuts } from '../helpers/system/cuts.ts'
import { ask, startAssociation, startDns } from '../helpers/system/dns.ts'
import { pushAndClone, startGitServer } from '../helpers/system/git.ts'
import { HOST, KNOWS_HOST } from '../helpers/system/names.ts'
import { eventually, freePort, sha256, writeRandomFile } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { startReadyNode } from '../helpers/system/publish.ts'
import { browse, startSite } from '../helpers/system/site.ts'
import { clientOptions, startSshd } from '../helpers/system/sshd.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, parseAddress } from '../helpers/system/symport.ts'

/** Three processes each: a server that relays, a node that offers, and a node that joins. */

const MIB = 1024 * 1024

/** Where `listener ready` of a side says that it is, whatever the domain. */
function place(listen: string): Address {
  return parseAddress(listen.replace(/^\w+:\/\/(?:[^@]*@)?/, ''))
}

test('ssh and scp reach a real sshd over a channel between two nodes', { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, ['sshd', 'ssh', 'scp', 'ssh-keygen'])
  if (programs === undefined) return
  const { ssh, scp } = programs
  const stage = new Stage(t)
  const { port, sshd } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
  const { server, at } = await startServer(stage)
  const offers = await startReadyNode(stage, at, [['-R', `tcp://ssh:pass-w0rd@127.0.0.1:${port}`]], { state: 'a' })
  const joins = await startReadyNode(
    stage,
    at,
    [
      ['-L', 'tcp://ssh:pass-w0rd@127.0.0.1:0'],
      ['-L', 'tcp://ssh:wr0ng-one@127.0.0.1:0'],
    ],
    { state: 'b' },
  )
  const address = place(await boundAt(joins))
  const options = clientOptions(stage, address)

  await t.test('a login runs a command and passes on its exit status', async () => {
    const { status, output } = await stage.run(ssh, [...options, address.host, 'echo $((6 * 7)); exit 3'])
    assert.equal(output, '42', `sshd says:\n${sshd.tail()}`)
    assert.equal(status, 3)
  })

  await t.test('scp of 20 MiB up and down keeps every byte', async () => {
    const expected = writeRandomFile(stage.path('original'), 20 * MIB)
    const there = `${address.host}:${stage.path('uploaded')}`
    await stage.must(scp, ['-q', ...options, stage.path('original'), there])
    assert.equal(await sha256(stage.path('uploaded')), expected)
    await stage.must(scp, ['-q', ...options, there, stage.path('downloaded')])
    assert.equal(await sha256(stage.path('downloaded')), expected)
  })

  await t.test('ssh gets nowhere with a wrong password, and works with the right one afterwards', async () => {
    const wrong = place(await boundAt(joins, 1))
    const { status } = await stage.run(ssh, [...clientOptions(stage, wrong), wrong.host, 'true'])
    assert.equal(status, 255)
    assert.equal(await stage.must(ssh, [...clientOptions(stage, address), address.host, 'echo on']), 'on')
  })

  const said = [server, offers, joins].flatMap((child) => child.lines).join('\n')
  assert.ok(!/pass-w0rd|wr0ng-one/.test(said), 'no password is in a log')
})

test('scp over a channel keeps every byte while the links of both nodes are cut; what is started again is found again', {
  timeout: 180_000,
}, async (t) => {
  const programs = requirePrograms(t, ['sshd', 'ssh', 'scp', 'ssh-keygen'])
  if (programs === undefined) return
  const { ssh, scp } = programs
  const stage = new Stage(t)
  const { port } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
  const home = await freePort()
  const { server, at } = await startServer(stage, [], { port: home })
  const relays = [await startFaultRelay({ target: at }), await startFaultRelay({ target: at })] as const
  for (const relay of relays) stage.defer(() => relay.close())
  const [first, second] = relays.map((relay) => ({ host: '127.0.0.1', port: relay.port }))
  if (!first || !second) throw new TypeError('two relays')
  const offered = [['-R', `tcp://ssh:pass-w0rd@127.0.0.1:${port}`]] as const
  const offers = await startReadyNode(stage, first, offered, { state: 'a' })
  const joins = await startReadyNode(stage, second, [['-L', 'tcp://ssh:pass-w0rd@127.0.0.1:0']], { state: 'b' })
  const address = place(await boundAt(joins))
  const options = clientOptions(stage, address)
  const works = (): Promise<void> =>
    eventually(async () => assert.equal(await stage.must(ssh, [...options, address.host, 'echo on']), 'on'), 30_000)

  await t.test('cuts', () =>
    seeded(async (random) => {
      t.diagnostic(`SYMPORT_SEED=${random.seed}`)
      const cuts = relays.map((relay) => new Cuts(relay, random))
      for (const each of cuts) each.spread({ every: 2 * MIB, most: 10 })
      const expected = writeRandomFile(stage.path('original'), 20 * MIB)
      const there = `${address.host}:${stage.path('uploaded')}`
      await stage.must(scp, ['-q', ...options, stage.path('original'), there])
      await stage.must(scp, ['-q', ...options, there, stage.path('downloaded')])
      assert.equal(await sha256(stage.path('downloaded')), expected)
      for (const each of cuts) {
        each.stop()
        assert.ok(each.count > 0, 'there were cuts')
      }
    }),
  )

  await t.test('the server is killed, and another one is there', async () => {
    await server.stop('SIGKILL')
    await startServer(stage, [], { port: home })
    await works()
  })

  await t.test('the node that offers is killed, and comes back', async () => {
    await offers.stop('SIGKILL')
    await startReadyNode(stage, at, offered, { state: 'a' })
    await works()
  })
})

test('dig asks a real DNS server over a channel for UDP', { timeout: 90_000 }, async (t) => {
  const programs = requirePrograms(t, ['dig', 'dnsmasq'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const dns = await startDns(stage, programs)
  const { at } = await startServer(stage)
  await startReadyNode(stage, at, [['-R', `udp://dns:pass-w0rd@127.0.0.1:${dns}`]], { state: 'a' })
  const joins = await startReadyNode(stage, at, [['-L', 'udp://dns:pass-w0rd@127.0.0.1:0']], { state: 'b' })
  const { port } = place(await boundAt(joins))
  await Promise.all(Array.from({ length: 20 }, (_, host) => ask(stage, programs.dig, port, host)))
})

test("a browser, curl, git and dig are where the tunnel's far node is", { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, ['chromium', 'curl', 'git', 'dig', 'dnsmasq'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const [site, repository, dns] = [
    await startSite(stage),
    await startGitServer(stage, programs.git),
    await startDns(stage, programs),
  ]
  const { server, at } = await startServer(stage)
  const allowed = [site.port, repository.port, dns].map((port) => ['--allow', `127.0.0.1:${port}`] as const)
  const offers = await startReadyNode(stage, at, [['-R', 'tunnel://work:pass-w0rd@'], ...allowed], {
    state: 'a',
    env: KNOWS_HOST,
  })
  const joins = await startReadyNode(
    stage,
    at,
    [
      ['-D', 'socks5://work:pass-w0rd@127.0.0.1:0'],
      ['-D', 'http://work:pass-w0rd@127.0.0.1:0'],
    ],
    { state: 'b' },
  )
  const [socks, http] = [place(await boundAt(joins)), place(await boundAt(joins, 1))]
  const proxies = [`socks5h://127.0.0.1:${socks.port}`, `http://127.0.0.1:${http.port}`]
  const curl = new Curl(stage, programs.curl)

  await t.test('curl', async () => {
    for (const proxy of proxies) {
      assert.ok(await curl.echoes(5 * MIB, '--proxy', proxy, `http://${HOST}:${site.port}/back`))
      const speed = await curl.rate('--proxy', proxy, `http://${HOST}:${site.port}/bytes?count=${50 * MIB}`)
      t.diagnostic(`50 MiB over a tunnel, ${proxy.split(':')[0]}: ${Math.round(speed / MIB)} MiB/s`)
    }
  })

  await t.test('what the far node may not reach is refused', async () => {
    const other = await startSite(stage)
    const { status } = await curl.run('--proxy', String(proxies[0]), `http://${HOST}:${other.port}/`)
    assert.equal(status, 97)
    assert.equal(await curl.status('--proxy', String(proxies[1]), `http://${HOST}:${other.port}/`), 403)
    assert.equal(other.connections, 0)
  })

  await t.test('git', async () => {
    const url = `http://${HOST}:${repository.port}/repo.git`
    for (const proxy of proxies) await pushAndClone(stage, programs.git, { server: repository, url, proxy })
  })

  await t.test('dig', async () => {
    const port = await startAssociation(stage, socks, { host: HOST, port: dns })
    await Promise.all(Array.from({ length: 10 }, (_, host) => ask(stage, programs.dig, port, host)))
  })

  await t.test('a browser', async () => {
    for (const proxy of [`socks5://127.0.0.1:${socks.port}`, `http://127.0.0.1:${http.port}`]) {
      const browser = await Browser.start(stage, programs.chromium, { proxy })
      await browse(await browser.open(`http://${HOST}:${site.port}/below/`))
    }
  })

  const said = [server, offers, joins].flatMap((child) => child.lines).join('\n')
  assert.ok(!said.includes('pass-w0rd'), 'the password is in no log')
})
