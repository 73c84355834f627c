import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { createServer, get, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { coded, connectNode, logLine, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress } from '../helpers/system/symport.ts'

/** A web server that answers with the path that it was asked for. */
async function startSite(t: TestContext): Promise<number> {
  const server = createServer((request, response) => response.end(`site ${request.url}`))
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Status and body. */
function ask(at: Address, path: string, headers: IncomingHttpHeaders = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ ...at, path, headers, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve(`${response.statusCode} ${body}`))
    }).on('error', reject)
  })
}

const path = (port: number, value: string): string[] => ['-R', `http://127.0.0.1:${port}?mode=path&value=${value}`]
const ready = (name: string) => (log: { msg: string; listen?: unknown }) =>
  log.msg === 'listener ready' && log.listen === name

describe('names of the web port and of channels', { concurrency: 3 }, () => {
  test('a server gives the web names that --allow-names says, and both logs say why it gives no other', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { server, at } = await startServer(stage, ['--allow-names', '/api', '--allow-names', '*.example.com'])
    const { web } = await logged(server, 'nodes may have names of the web port')
    assert.equal(web, `http://127.0.0.1:${at.port}/`)
    const node = await connectNode(stage, at, [
      ...[...path(site, 'api'), ...path(site, 'other'), ...path(site, 'symport')],
      ...['-R', `http://127.0.0.1:${site}?mode=domain&value=app.example.com`],
    ])
    await logLine(node, 'a host', ready('web://app.example.com'))
    await logLine(node, 'a path', ready('web:///api'))
    for (const side of [node, server]) {
      const { by, msg } = await coded(side, 'PROXY_ERR_LISTEN_DENIED')
      assert.equal(by, 'server')
      assert.match(msg, /the web name \/(other|symport) is not given to this node \(see --allow-names\)$/)
    }
    assert.equal(await ask(at, '/api/greet'), '200 site /greet')
    assert.equal(await ask(at, '/greet', { host: 'app.example.com' }), '200 site /greet')
    assert.match(await ask(at, '/other/greet'), /^404 /)
  })

  test('--allow-names of a file holds anew after SIGHUP, for what is asked for from then on', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const file = stage.path('server.toml')
    const allow = (name: string): Promise<void> => writeFile(file, `allow-names = ["${name}"]\n`)
    await allow('/one')
    const { server, at } = await startServer(stage, ['-c', file])
    const node = await connectNode(stage, at, path(site, 'one'), { state: 'first' })
    await logLine(node, 'a name', ready('web:///one'))
    await allow('/two')
    server.signal('SIGHUP')
    await logLine(server, 'the reload', (log) => /^reload: allow-names: /.test(log.msg))
    const next = await connectNode(stage, at, [...path(site, 'two'), ...path(site, 'one')], { state: 'second' })
    await logLine(next, 'a name', ready('web:///two'))
    await logLine(next, 'no name', (log) => /the web name \/one is not given/.test(log.msg))
    assert.equal(await ask(at, '/one/x'), '200 site /x', 'what is open stays')
    assert.equal(await ask(at, '/two/x'), '200 site /x')
  })

  test('an enrolled node has the names that it was granted, and a channel of its own', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { server, at } = await startServer(stage)
    const operator = ['--state', stage.path('server')]
    for (const [args, message] of [
      [['--name', '/'], /write \* for every name/],
      [['--channel', 'a b'], /bad channel/],
    ] as const) {
      const { status, stderr } = await runHere(stage, ['nodes', 'add', 'bad', 'a-secret-7731-x', ...args, ...operator])
      assert.equal(status, 2)
      assert.match(stderr, message)
    }
    const secret = 'the-secret-of-office-5512'
    const grants = ['--name', 'app.example.com', '--channel', 'web*']
    const added = await runHere(stage, ['nodes', 'add', 'office', secret, ...grants, ...operator])
    assert.equal(added.status, 0, added.stderr)
    const listed = await runHere(stage, ['nodes', 'list', '--json', ...operator])
    assert.deepEqual(JSON.parse(listed.stdout)[0].grants, { channels: ['web*'], names: ['app.example.com'] })
    const app = ['-R', `http://127.0.0.1:${site}?mode=domain&value=app.example.com`]
    const channel = ['-R', `tcp://web1:pw@127.0.0.1:${site}`]
    const other = await connectNode(stage, at, [...app, ...channel], { state: 'other' })
    await logLine(other, 'no name', (log) => /app\.example\.com is not given to this node/.test(log.msg))
    await logLine(other, 'no channel', (log) => /channel web1 is granted to another node$/.test(log.msg))
    const office = await connectNode(stage, at, ['--id', 'office', ...app, ...channel], { state: 'office', secret })
    await logLine(office, 'the name', ready('web://app.example.com'))
    await logLine(office, 'the channel', ready('channel://web1'))
    assert.equal(await ask(at, '/x', { host: 'app.example.com' }), '200 site /x')
    assert.ok(server.running)
  })

  test("a channel is still its first node's while that is away, and after the server was started again", async (t) => {
    const stage = new Stage(t)
    const channel = ['-R', 'tcp://ssh:pw@127.0.0.1:22']
    const first = await startServer(stage)
    const node = await connectNode(stage, first.at, channel, { state: 'mine' })
    await logLine(node, 'the channel', ready('channel://ssh'))
    await node.stop()
    await first.server.stop()
    const { at } = await startServer(stage)
    const other = await connectNode(stage, at, channel, { state: 'theirs' })
    await logLine(other, 'no channel', (log) => /channel ssh belongs to another node/.test(log.msg))
    const again = await connectNode(stage, at, channel, { state: 'mine' })
    await logLine(again, 'the channel', ready('channel://ssh'))
  })

  test('a file of wsp says what holds, keeps its own names, and takes nodes at its path and at ours', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const file = stage.path('wsps.json')
    const wsps = { host: 'own.example.com', path: 'ws', port: 0, auth: SECRET }
    await writeFile(file, JSON.stringify(wsps), { mode: 0o600 })
    const where = ['--host', '127.0.0.1', '--state', stage.path('server'), '--domain', 'own.example.org']
    const server = await start(stage, ['server', '-c', file, ...where])
    await logLine(server, 'what holds', (log) => /^as in wsp, nodes may dial all but loopback/.test(log.msg))
    const at = parseAddress((await logged(server, 'listening')).address)
    const publish = (name: string): string[] => ['-R', `http://127.0.0.1:${site}?mode=domain&value=${name}`]
    for (const [number, where] of ['', '/', '/ws', '/symport'].entries()) {
      const url = `ws://127.0.0.1:${at.port}${where}`
      const args = ['node', url, '--state', stage.path(`node-${number}`), ...publish(`app${number}.example.com`)]
      const own = number % 2 === 0 ? 'own.example.com' : 'own.example.org'
      const node = await start(stage, [...args, ...publish(own)], { env: { SYMPORT_UUID: SECRET } })
      await logLine(node, 'its name', ready(`web://app${number}.example.com`))
      await logLine(node, 'not ours', (log) => log.msg.includes(`${own} is not given to this node`))
      assert.equal(await ask(at, '/x', { host: `app${number}.example.com` }), '200 site /x')
    }
  })
})
