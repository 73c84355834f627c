import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type AcmeEvent, openAcme } from '../../lib/store/acme.ts'
import { StateFolder } from '../../lib/store/state-folder.ts'
import { run, startServer } from '../helpers/e2e/cli.ts'
import { MovedClock } from '../helpers/system/clock.ts'
import { freePort, startWebPage } from '../helpers/system/net.ts'
import { Pebble, type PebbleOptions, shown } from '../helpers/system/pebble.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { publish } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseLog } from '../helpers/system/symport.ts'
import { startZone } from '../helpers/system/zone.ts'

/** Certificates of a real CA that looks into the DNS, which a program of the operator's writes. */

const DOMAIN = 'tunnel.example.com'

interface Place {
  readonly stage: Stage
  readonly pebble: Pebble
  readonly curl: string
  /** The server's one port, on 127.0.0.1. */
  readonly port: number
}

async function prepare(t: TestContext, more: Partial<PebbleOptions> = {}): Promise<Place | undefined> {
  const programs = requirePrograms(t, ['pebble', 'pebble-challtestsrv', 'curl'])
  if (!programs) return undefined
  const stage = new Stage(t)
  const port = await freePort()
  const pebble = await Pebble.start(stage, { programs, httpPort: port, tlsPort: port, ...more })
  return { stage, pebble, port, curl: programs.curl }
}

/** A hook, as an operator would write one. What it was called with is in `hook.log`. */
function writeHook(stage: Stage, lines: string): string {
  const path = stage.path('hook')
  writeFileSync(path, `#!/bin/sh\necho "$*" >> '${stage.path('hook.log')}'\n${lines}\n`)
  chmodSync(path, 0o755)
  return path
}

function calls(stage: Stage): string[] {
  return readFileSync(stage.path('hook.log'), 'utf8').trimEnd().split('\n')
}

test('with a hook a server gets one certificate for all names directly below its domain', {
  timeout: 120_000,
}, async (t) => {
  const place = await prepare(t)
  if (!place) return
  const { stage, pebble, curl, port } = place
  const api = `${curl} -fsS -o /dev/null ${pebble.names}`
  const hook = writeHook(
    stage,
    `case $1 in
present) ${api}/set-txt -d "{\\"host\\":\\"$2\\",\\"value\\":\\"$3\\"}" ;;
cleanup) ${api}/clear-txt -d "{\\"host\\":\\"$2\\"}" ;;
esac`,
  )
  const args = ['--domain', DOMAIN, ...pebble.flags, '--acme-dns-hook', hook, '--acme-dns-wait', '0s']
  const { server, at } = await startServer(stage, args, { port })

  await t.test('without anybody asking for it, by records that are taken away again', async () => {
    const { name, by } = await logged(server, 'certificate issued')
    assert.deepEqual([name, by], [`*.${DOMAIN}`, 'dns-01'])
    const certificate = await shown(port, `a.${DOMAIN}`)
    assert.deepEqual(certificate.subjectAltName?.split(', ').sort(), [`DNS:*.${DOMAIN}`, `DNS:${DOMAIN}`])
    const called = calls(stage)
    assert.deepEqual(
      called.map((line) => line.split(' ').slice(0, 2).join(' ')),
      ['present', 'present', 'cleanup', 'cleanup'].map((action) => `${action} _acme-challenge.${DOMAIN}.`),
    )
    const values = called.map((line) => line.split(' ')[2] ?? '')
    assert.deepEqual(values.slice(0, 2), values.slice(2))
    for (const value of values) assert.match(value, /^[A-Za-z0-9_-]{43}$/)
    assert.equal(new Set(values).size, 2)
  })

  await t.test('which all of them are shown, and no other is ordered for them', async () => {
    const page = await startWebPage(stage, 'behind the node')
    const names = [`a.${DOMAIN}`, `b.${DOMAIN}`, `x.b.${DOMAIN}`]
    const node = await publish(
      stage,
      at,
      names.map((name) => `http://127.0.0.1:${page}?mode=domain&value=${name}`),
    )
    const [own, a, b, nobody] = await Promise.all(
      [DOMAIN, `a.${DOMAIN}`, `b.${DOMAIN}`, `nobody.${DOMAIN}`].map((name) => shown(port, name)),
    )
    for (const other of [a, b, nobody]) assert.equal(other?.serialNumber, own?.serialNumber)
    assert.equal(pebble.orders, 1)
    const deeper = await shown(port, `x.b.${DOMAIN}`)
    assert.equal(deeper.subjectAltName, `DNS:x.b.${DOMAIN}`)
    assert.equal(pebble.orders, 2, 'what it does not cover is had as ever')
    assert.equal(calls(stage).length, 4)
    await node.stop()
  })

  await t.test('which the operator sees, with its beginning and its end', async () => {
    const { stdout } = await run(stage, ['status', '--json', '--state', stage.path('server')])
    const [first, ...rest] = JSON.parse(stdout).server.certificates
    assert.equal(first.name, `*.${DOMAIN}`)
    assert.ok(Date.parse(first.begins) <= Date.now() && Date.parse(first.ends) > Date.now())
    assert.equal('problem' in first, false)
    assert.equal(rest.length, 1)
  })

  await t.test('and which is there after a restart, with nobody to ask', async () => {
    await server.stop()
    await pebble.stop()
    await startServer(stage, args, { port })
    assert.equal((await shown(port, DOMAIN)).checkHost(`any.${DOMAIN}`), `*.${DOMAIN}`)
    assert.equal(calls(stage).length, 4)
  })
})

test('a hook that fails is told with what it says, and what it may have written is cleaned up', {
  timeout: 60_000,
}, async (t) => {
  const place = await prepare(t)
  if (!place) return
  const { stage, pebble, port } = place
  const hook = writeHook(stage, '[ $1 = cleanup ] || { echo "no zone for $2" >&2; exit 1; }')
  const args = ['--domain', DOMAIN, ...pebble.flags, '--acme-dns-hook', hook, '--acme-dns-wait', '0s']
  const { server } = await startServer(stage, args, { port })
  const pick = (line: string) => (line.includes('"PROXY_ERR_ACME"') ? parseLog(line) : undefined)
  const { msg } = await server.line(pick, 'why there is no certificate')
  assert.equal(
    msg,
    `no certificate for *.${DOMAIN}: the hook ${hook} present ended with 1 (it says: no zone for _acme-challenge.${DOMAIN}.)`,
  )
  assert.deepEqual(
    calls(stage).map((line) => line.split(' ')[0]),
    ['present', 'cleanup'],
  )
  assert.match((await shown(port, DOMAIN)).issuer, /symport/)
  const { stdout } = await run(stage, ['status', '--json', '--state', stage.path('server')])
  const [{ name, ends, problem }] = JSON.parse(stdout).server.certificates
  assert.deepEqual([name, ends], [`*.${DOMAIN}`, undefined])
  assert.match(problem, /^the hook .* \(it says: no zone for/)
})

test('records are waited for at the name servers of their zone, behind an alias, also for a renewal', {
  timeout: 60_000,
}, async (t) => {
  const alias = `_acme-challenge.${DOMAIN}`
  const target = 'auth.example.net'
  const zone = await startZone({
    'example.net': { NS: ['ns.example.net'] },
    'ns.example.net': { A: ['127.0.0.1'] },
    [alias]: { CNAME: [target] },
    [target]: {},
  })
  t.after(() => zone.close())
  const place = await prepare(t, { dns: zone.port, validity: 600 })
  if (!place) return
  const { stage, pebble } = place
  const clock = new MovedClock()
  const events: AcmeEvent[] = []
  let heard = (): void => {}
  const written: string[] = []
  const acme = await openAcme(new StateFolder(stage.path('state')), {
    ...{ directory: pebble.directory, email: 'admin@example.com', clock, random: () => 0.5 },
    ...{ verify: { by: 'ca', pem: pebble.ownCa }, isName: () => false },
    dns: {
      domain: DOMAIN,
      look: { resolvers: [`127.0.0.1:${zone.port}`], port: zone.port },
      records: {
        async present(name, value) {
          written.push(value)
          // It takes a moment until it is everywhere.
          setTimeout(() => zone.names.set(name, { TXT: [...(zone.names.get(name)?.TXT ?? []), value] }), 300)
        },
        async cleanup(name, value) {
          zone.names.set(name, { TXT: (zone.names.get(name)?.TXT ?? []).filter((one) => one !== value) })
        },
      },
    },
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
  acme.want(DOMAIN)
  const issued = await told('issued')
  assert.ok(issued.type === 'issued' && issued.by === 'dns-01')
  assert.equal(written.length, 2)
  assert.deepEqual(zone.names.get(target)?.TXT, [])
  const [{ begins, ends } = {}] = acme.list()
  // The last second belongs to it.
  assert.equal((ends?.getTime() ?? 0) - (begins?.getTime() ?? 0), 599_000)
  // It is told a moment before the next one is planned.
  while (clock.left > 600_000) await turn()
  clock.move(clock.left + 1)
  await told('renewed')
  // A CA may remember what it has seen.
  assert.ok(written.length <= 4)
  assert.equal(pebble.orders, 2)
  assert.deepEqual(zone.names.get(target)?.TXT, [])
})

test('a CA that wants an account there gets its key', { timeout: 60_000 }, async (t) => {
  const hmac = 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W'
  const place = await prepare(t, { accounts: { 'kid-1': hmac } })
  if (!place) return
  const { stage, pebble, port } = place
  const args = ['--domain', DOMAIN, ...pebble.flags]
  const { server } = await startServer(stage, args, { port })
  const pick = (line: string) => (line.includes('"PROXY_ERR_ACME"') ? parseLog(line) : undefined)
  const { msg } = await server.line(pick, 'why there is no certificate')
  assert.match(String(msg), /: this CA wants an account .*: give its key with --acme-eab-kid and --acme-eab-hmac-file/)
  await server.stop()
  writeFileSync(stage.path('hmac'), `${hmac}\n`, { mode: 0o600 })
  const account = ['--acme-eab-kid', 'kid-1', '--acme-eab-hmac-file', stage.path('hmac')]
  const { server: next } = await startServer(stage, [...args, ...account], { port, state: 'next' })
  assert.equal((await logged(next, 'certificate issued')).name, DOMAIN)
  for (const line of [...server.lines, ...next.lines]) assert.equal(line.includes(hmac), false)
})
