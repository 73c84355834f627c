import assert from 'node:assert/strict'
import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { type AcmeEvent, openAcme } from '../../lib/store/acme.ts'
import { StateFolder } from '../../lib/store/state-folder.ts'
import { acmeRequests, acmeRoute } from '../../lib/transports/acme-answers.ts'
import { listenOnePort } from '../../lib/transports/one-port.ts'
import { run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { MovedClock } from '../helpers/system/clock.ts'
import { Curl } from '../helpers/system/curl.ts'
import { freePort, startWebPage } from '../helpers/system/net.ts'
import { Pebble, type PebbleOptions, shown } from '../helpers/system/pebble.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { publish } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseLog } from '../helpers/system/symport.ts'

/** Certificates of a real CA that speaks ACME, on the one port, which it looks at. */

const DOMAIN = 'tunnel.example.com'

interface Place {
  readonly stage: Stage
  readonly pebble: Pebble
  readonly curl: Curl
  /** The server's one port, on 127.0.0.1. */
  readonly port: number
  /** Gets a page of a host at that port, believing nobody but Pebble's root. */
  get(host: string): Promise<string>
}

async function prepare(t: TestContext, more: Partial<PebbleOptions> = {}): Promise<Place | undefined> {
  const programs = requirePrograms(t, ['pebble', 'pebble-challtestsrv', 'curl'])
  if (!programs) return undefined
  const stage = new Stage(t)
  const port = await freePort()
  const pebble = await Pebble.start(stage, { programs, httpPort: port, tlsPort: port, ...more })
  const curl = new Curl(stage, programs.curl)
  const root = stage.path('root.pem')
  writeFileSync(root, await pebble.root())
  const get = (host: string): Promise<string> =>
    curl.get('--cacert', root, '--resolve', `${host}:${port}:127.0.0.1`, `https://${host}:${port}/`)
  return { stage, pebble, curl, port, get }
}

test('a server gets certificates for its names, keeps them, and orders none for others', {
  timeout: 120_000,
}, async (t) => {
  const place = await prepare(t)
  if (!place) return
  const { stage, pebble, port, get } = place
  const args = ['--domain', DOMAIN, ...pebble.flags]
  const page = await startWebPage(stage, 'behind the node')
  const { server, at } = await startServer(stage, args, { port })
  const names = [`a.${DOMAIN}`, `b.${DOMAIN}`]
  const node = await publish(
    stage,
    at,
    names.map((name) => `http://127.0.0.1:${page}?mode=domain&value=${name}`),
  )

  await t.test('its own without being asked for it, by the way that needs port 443 only', async () => {
    const { name, by } = await logged(server, 'certificate issued')
    assert.deepEqual([name, by], [DOMAIN, 'tls-alpn-01'])
    assert.equal((await shown(port, DOMAIN)).checkHost(DOMAIN), DOMAIN)
  })

  await t.test('those of its nodes when somebody first asks for them, several at once', async () => {
    const visits = [...names, ...names].map((name) => get(name))
    assert.deepEqual(await Promise.all(visits), Array(4).fill('behind the node'))
    assert.equal(pebble.orders, 3, 'one for each name')
  })

  await t.test('what is published in one command is at an https:// URL that works', async () => {
    const where = ['--server', `tcp://127.0.0.1:${port}`, '--state', stage.path('publisher')]
    const publisher = await start(stage, ['http', String(page), '--name', 'checkout', '--json', ...where], {
      env: { SYMPORT_UUID: SECRET },
    })
    const pick = (line: string): string | undefined => /"url":"([^"]*)"/.exec(line)?.[1]
    const url = await publisher.line(pick, 'the URL')
    assert.equal(url, `https://checkout.${DOMAIN}:${port}`)
    assert.equal(await get(`checkout.${DOMAIN}`), 'behind the node')
    await publisher.stop()
  })

  await t.test('none for a name that nobody has, and none for a CA that looks without having been asked', async () => {
    const certificate = await shown(port, `nobody.${DOMAIN}`)
    assert.match(certificate.issuer, /symport/)
    assert.match((await shown(port, 'localhost')).issuer, /symport/)
    await assert.rejects(get(`nobody.${DOMAIN}`), /curl .* ended with 60/)
    const socket = connectTls({ port, host: '127.0.0.1', servername: names[0] ?? '', ALPNProtocols: ['acme-tls/1'] })
    await assert.rejects(new Promise((resolve, reject) => socket.on('error', reject).on('secureConnect', resolve)))
    assert.equal(pebble.orders, 4)
  })

  await t.test('which the operator sees', async () => {
    const { stdout } = await run(stage, ['status', '--json', '--state', stage.path('server')])
    const { certificates } = JSON.parse(stdout).server
    assert.deepEqual(
      certificates.map(({ name }: { name: string }) => name),
      [`a.${DOMAIN}`, `b.${DOMAIN}`, `checkout.${DOMAIN}`, DOMAIN],
    )
  })

  await t.test('in files that nobody else may read', () => {
    const [folder = ''] = readdirSync(stage.path('server')).filter((name) => name.startsWith('acme-localhost'))
    const files = readdirSync(stage.path('server', folder))
    assert.deepEqual(files.sort(), [
      'account-key.pem',
      ...[`a.${DOMAIN}`, `b.${DOMAIN}`, `checkout.${DOMAIN}`, DOMAIN].map((name) => `cert-${name}.pem`),
      'state.json',
    ])
    for (const file of files) assert.equal(statSync(stage.path('server', folder, file)).mode & 0o777, 0o600)
  })

  await t.test('and has them after a restart, with nobody to ask', async () => {
    await node.stop()
    await server.stop()
    await pebble.stop()
    await startServer(stage, args, { port })
    await publish(stage, at, [`http://127.0.0.1:${page}?mode=domain&value=${names[0]}`])
    assert.equal(await get(names[0] ?? ''), 'behind the node')
    assert.equal((await shown(port, DOMAIN)).checkHost(DOMAIN), DOMAIN)
  })
})

test('where port 443 leads elsewhere, the CA looks by plain HTTP', { timeout: 60_000 }, async (t) => {
  const place = await prepare(t, { tlsPort: await freePort() })
  if (!place) return
  const { stage, pebble, port, get, curl } = place
  const page = await startWebPage(stage, 'behind the node')
  const { server, at } = await startServer(stage, ['--domain', DOMAIN, ...pebble.flags], { port })
  assert.equal((await logged(server, 'certificate issued')).by, 'http-01')
  assert.equal(pebble.orders, 2)
  // It is remembered; and what no CA looks for just now is the node's to answer.
  await publish(stage, at, [`http://127.0.0.1:${page}?mode=domain&value=a.${DOMAIN}`])
  assert.equal(await get(`a.${DOMAIN}`), 'behind the node')
  assert.equal(pebble.orders, 3)
  const url = `http://127.0.0.1:${port}/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0`
  assert.equal(await curl.get('--header', `Host: a.${DOMAIN}`, url), 'behind the node')
})

test('a name that does not lead here gets none, and the CA is left alone for a while', {
  timeout: 60_000,
}, async (t) => {
  const place = await prepare(t)
  if (!place) return
  const { stage, pebble, port } = place
  await pebble.point(DOMAIN, '127.0.0.9')
  const args = ['--domain', DOMAIN, ...pebble.flags]
  const { server } = await startServer(stage, args, { port })
  const pick = (line: string) => {
    const log = parseLog(line)
    return log?.code === 'PROXY_ERR_ACME' ? log : undefined
  }
  const { msg, again, time } = await server.line(pick, 'why there is no certificate')
  assert.match(
    msg,
    /^no certificate for tunnel\.example\.com: the CA cannot connect to tunnel\.example\.com: .*port 443 or 80/,
  )
  const pause = Date.parse(String(again)) - Date.parse(String(time))
  assert.ok(pause > 50_000 && pause <= 60_000, `${pause} ms`)
  assert.equal(pebble.orders, 2, 'once each way')

  assert.match((await shown(port, DOMAIN)).issuer, /symport/)
  // Nor does a start forget it.
  await server.stop('SIGKILL')
  await startServer(stage, args, { port })
  assert.match((await shown(port, DOMAIN)).issuer, /symport/)
  assert.equal(pebble.orders, 2)
})

test('a certificate is renewed after two thirds of its life, short as that may be', { timeout: 60_000 }, async (t) => {
  const place = await prepare(t, { validity: 600 })
  if (!place) return
  const { stage, pebble, port } = place
  const clock = new MovedClock()
  const sooner = [0, 0.99]
  const events: AcmeEvent[] = []
  let heard: () => void = () => {}
  const acme = await openAcme(new StateFolder(stage.path('state')), {
    ...{ directory: pebble.directory, email: 'admin@example.com', clock },
    // The second is due sooner in its life than the first.
    random: () => sooner.shift() ?? 0,
    verify: { by: 'ca', pem: pebble.ownCa },
    isName: (name) => name === DOMAIN,
    onEvent(event) {
      events.push(event)
      heard()
    },
  })
  stage.defer(() => acme.close())
  const told = (type: AcmeEvent['type']): Promise<AcmeEvent> =>
    new Promise((resolve, reject) => {
      heard = () => {
        const event = events.find((event) => event.type === type)
        const failed = events.find((event) => event.type === 'failed')
        if (event) resolve(event)
        else if (failed) reject(failed.reason)
      }
      heard()
    })
  const listener = await listenOnePort(
    { host: '127.0.0.1', port },
    {
      tls: ({ serverName = '' }) => acme.contextFor(serverName),
      route: acmeRoute(acme.challenges),
      onRequest: acmeRequests(acme.challenges, (_, response) => response.destroy()),
    },
    (link) => link.destroy(),
  )
  stage.defer(() => listener.close())

  const first = await shown(port, DOMAIN)
  assert.equal((await told('issued')).type, 'issued')
  assert.ok(clock.left > 390_000 && clock.left <= 400_000, `${clock.left} ms until it is renewed`)
  clock.move(300_000)
  assert.equal((await shown(port, DOMAIN)).serialNumber, first.serialNumber)
  assert.equal(pebble.orders, 1)

  clock.move(clock.left + 1)
  await told('renewed')
  const second = await shown(port, DOMAIN)
  assert.notEqual(second.serialNumber, first.serialNumber, 'new connections get the new one at once')
  assert.equal(pebble.orders, 2)
  // The CA's clock has not moved with this one: that is noticed, and does not have it ask again and again.
  const late = await told('failed')
  assert.match(late.type === 'failed' ? late.reason.message : '', /is the clock of this machine right/)
  clock.move(1)
  await shown(port, DOMAIN)
  assert.equal(pebble.orders, 2)
})
