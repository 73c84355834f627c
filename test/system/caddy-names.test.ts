import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo, LookupFunction } from 'node:net'
import { test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { Caddy } from '../helpers/system/caddy.ts'
import type { Child } from '../helpers/system/child.ts'
import { Curl } from '../helpers/system/curl.ts'
import { eventually } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { startReadyNode } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged } from '../helpers/system/symport.ts'

/** A real Caddy in front that is told the names by its API, and gets their certificates. */

const DOMAIN = 'tunnel.example.com'
const THEIRS = {
  match: [{ host: [`own.${DOMAIN}`] }],
  handle: [{ handler: 'static_response', body: 'theirs' }],
  terminal: true,
}
const ANY = { handle: [{ handler: 'static_response', body: 'nobody', status_code: 404 }] }

/** All names are this machine's. */
const here: LookupFunction = (_host, { all }, done) =>
  all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)

/** Says what it was asked, and sends back what comes through a WebSocket. */
async function startTarget(stage: Stage): Promise<number> {
  const server = createServer((request, response) => response.end(JSON.stringify(request.headers)))
  new WebSocketServer({ server }).on('connection', (ws) => ws.on('message', (data) => ws.send(String(data))))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** `symport http`: the URL that it prints. */
async function publish(stage: Stage, at: Address, port: number, name: string): Promise<{ node: Child; url: string }> {
  const where = ['--server', `tcp://127.0.0.1:${at.port}`, '--state', stage.path(`node-${name}`)]
  const node = await start(stage, ['http', String(port), '--name', name, '--json', ...where], {
    env: { SYMPORT_UUID: SECRET },
  })
  const url = await node.line((line) => /"url":"([^"]*)"/.exec(line)?.[1], 'the URL')
  return { node, url }
}

test('Caddy serves the names of nodes over HTTPS while they are there', { timeout: 90_000 }, async (t) => {
  const programs = requirePrograms(t, ['caddy', 'curl'])
  if (!programs) return
  const stage = new Stage(t)
  const caddy = await Caddy.make(stage, programs.caddy)
  await caddy.start([THEIRS, ANY])
  const target = await startTarget(stage)
  const args = ['--domain', DOMAIN, '--caddy', caddy.admin]
  const { server, at } = await startServer(stage, args)
  const { server: name } = await logged(server, 'Caddy serves the names')
  assert.equal(name, 'web')
  const curl = new Curl(stage, programs.curl)
  const to = (host: string): string[] => ['--cacert', caddy.root, '--resolve', `${host}:${caddy.https}:127.0.0.1`]
  const get = (host: string, ...more: string[]): Promise<string> =>
    curl.get(...to(host), ...more, `https://${host}:${caddy.https}/`)
  const shop = `shop.${DOMAIN}`
  const { node, url } = await publish(stage, at, target, 'shop')

  await t.test('at the URL that the node prints, at once, by HTTP/2, with the Host and who it was', async () => {
    assert.equal(url, `https://${shop}:${caddy.https}`)
    const said = JSON.parse(await get(shop, '--http2', '--interface', '127.0.0.2', '-H', 'X-Forwarded-For: 192.0.2.9'))
    assert.equal(said.host, `${shop}:${caddy.https}`)
    assert.equal(said['x-forwarded-for'], '127.0.0.2')
    assert.equal(said['x-forwarded-proto'], 'https')
    assert.equal(said['x-forwarded-symport'], undefined)
    const version = await curl.run('-o', '/dev/null', '-w', '%{http_version}', ...to(shop), url)
    assert.equal(version.output, '2')
  })

  await t.test('but nobody else who says so is believed', async () => {
    const lies = ['-H', `Host: ${shop}`, '-H', 'X-Forwarded-For: 192.0.2.9', '-H', 'X-Forwarded-Symport: x']
    const said = JSON.parse(await curl.get(...lies, `http://127.0.0.1:${at.port}/`))
    assert.deepEqual([said['x-forwarded-for'], said['x-forwarded-proto']], ['127.0.0.1', 'http'])
  })

  await t.test('WebSockets too', async () => {
    const ca = readFileSync(caddy.root)
    const ws = new WebSocket(`wss://${shop}:${caddy.https}/x`, [], { ca, lookup: here })
    await once(ws, 'open')
    ws.send('hello')
    const [data] = await once(ws, 'message')
    assert.equal(String(data), 'hello')
    ws.terminate()
  })

  await t.test('and leaves what others have there', async () => {
    assert.equal(await get(`own.${DOMAIN}`), 'theirs')
    const where = ['--server', `tcp://127.0.0.1:${at.port}`, '--state', stage.path('node-own')]
    const env = { SYMPORT_UUID: SECRET }
    const taken = await run(stage, ['http', String(target), '--name', 'own', ...where], { env })
    assert.deepEqual(
      [taken.status, taken.stderr],
      [1, `symport: name taken: the Caddy in front has own.${DOMAIN} for something else`],
    )
    // By -R it is the operator's business.
    const own = `http://127.0.0.1:${target}?mode=domain&value=own.${DOMAIN}`
    await startReadyNode(stage, at, [['-R', own]], { state: 'node-own' })
    await logged(server, 'Caddy has routes of its own for these names: they do not lead here')
    assert.equal(await get(`own.${DOMAIN}`), 'theirs')
    const { web } = await caddy.servers()
    assert.deepEqual(web?.routes.slice(1), [THEIRS, ANY])
    assert.deepEqual(web?.routes[0]?.match, [{ host: [shop] }])
  })

  await t.test('a Caddy that is started anew with an empty config has them again', async () => {
    const from = server.lines.length
    await caddy.stop()
    const { code, msg } = await logged(
      server,
      `Caddy cannot be asked: nothing listens on ${caddy.admin.slice(7)}; tried again until it works`,
      from,
    )
    assert.equal(code, 'PROXY_ERR_CADDY', msg)
    await caddy.start()
    assert.equal((await logged(server, 'Caddy serves the names', from)).server, 'srv0')
    assert.equal(JSON.parse(await eventually(() => get(shop))).host, `${shop}:${caddy.https}`)
    // In a Caddy of its own there is nobody else.
    assert.match(await get(`own.${DOMAIN}`), /"x-forwarded-for"/)
  })

  await t.test('after kill -9 of the server the next one takes away what it has left', async () => {
    await server.stop('SIGKILL')
    const before = await caddy.servers()
    assert.ok(JSON.stringify(before).includes(shop))
    const { server: next } = await startServer(stage, args, { port: at.port })
    await logged(next, 'Caddy serves the names')
    // The nodes are back by themselves.
    assert.equal(JSON.parse(await eventually(() => get(shop))).host, `${shop}:${caddy.https}`)
    const from = next.lines.length
    await node.stop()
    await logged(next, 'names in Caddy changed', from, ({ removed }) => removed === shop)
    assert.ok(!JSON.stringify(await caddy.servers()).includes(shop))
    await assert.rejects(get(shop))
    await next.stop()
    assert.deepEqual(await caddy.servers(), {})
  })
})

test('symport server says in one line what is wrong with --caddy', { timeout: 30_000 }, async (t) => {
  const stage = new Stage(t)
  for (const [args, expected] of [
    [['--caddy', '127.0.0.1:2019'], /^.*--caddy: "127\.0\.0\.1:2019" is no URL of an admin API: write .*\n$/],
    [['--caddy', 'http://192.0.2.1:2019'], /^.*--caddy: http:\/\/192\.0\.2\.1:2019 is another machine, .*\n$/],
    [['--caddy-server', 'web'], /^.*--caddy-server says nothing without --caddy\n$/],
  ] as const) {
    const { status, stderr } = await run(stage, ['server', '--port', '0', '--state', stage.path('s'), ...args])
    assert.equal(status, 2)
    assert.match(`${stderr.trim()}\n`, expected)
  }
})
