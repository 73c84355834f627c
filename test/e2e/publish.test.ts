import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, get, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { coded, connectNode, logLine, logs, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import type { Child } from '../helpers/system/child.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, symportEnvironment } from '../helpers/system/symport.ts'

/** A web server that answers with the path that it was asked for. */
async function startSite(t: TestContext): Promise<number> {
  const server = createServer((request, response) => {
    response.statusCode = request.url === '/teapot' ? 418 : 200
    request.resume().on('end', () => response.end(`site ${request.url}`))
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Status and body. */
function ask({ port }: { port: number }, path: string, headers: IncomingHttpHeaders = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve(`${response.statusCode} ${body}`))
    }).on('error', reject)
  })
}

const at = ({ host, port }: Address): string[] => ['--server', `tcp://${host}:${port}`]

/** Starts `symport KIND ARGS` of the node with this state folder. */
function publish(stage: Stage, kind: string, args: readonly string[], state = 'node'): Promise<Child> {
  return start(stage, [kind, ...args, '--state', stage.path(state)], { env: { SYMPORT_UUID: SECRET } })
}

/** The URL that is printed, and the object that it is part of. */
async function published(child: Child): Promise<URL> {
  return await child.line((line) => {
    const url = line.startsWith('{')
      ? (JSON.parse(line) as { url?: string }).url
      : /^\S+:\/\/\S+(?= -> )/.exec(line)?.[0]
    return url === undefined ? undefined : new URL(url)
  }, 'the URL')
}

describe('publishing in one command', { concurrency: 3 }, () => {
  test('symport http has a name below the domain, a line for each request, and gives it back at the end', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { server, at: address } = await startServer(stage, ['--domain', 'example.localhost'])
    await logLine(server, 'the policy', (log) => log.names === '*.example.localhost')
    const child = await publish(stage, 'http', [String(site), '--name', 'checkout', ...at(address)])
    const url = await published(child)
    assert.equal(url.href, `http://checkout.example.localhost:${address.port}/`)
    assert.equal(await ask(address, '/a?secret=1', { host: url.host }), '200 site /a?secret=1')
    assert.equal(await ask(address, '/teapot', { host: url.host }), '418 site /teapot')
    await child.line((line) => (/^\d\d:\d\d:\d\d GET +\/a +200 +\d+ ms$/.test(line) ? line : undefined), 'a line')
    await child.line((line) => (/^\d\d:\d\d:\d\d GET +\/teapot +418 +\d+ ms$/.test(line) ? line : undefined), 'a line')
    // Somebody else, meanwhile and later.
    const taken = async (): Promise<void> => {
      const args = ['http', String(site), '--name', 'checkout', ...at(address), '--state', stage.path('other')]
      const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
      const { status, stderr } = await runHere(stage, args, { env })
      assert.equal(status, 1)
      assert.match(stderr, /^symport: name taken: checkout\.example\.localhost belongs to another node/)
    }
    await taken()
    child.signal('SIGINT')
    assert.equal((await child.exited).status, 0)
    assert.match(await ask(address, '/a', { host: url.host }), /^404 /)
    await taken()
  })

  test('without --name the name is the same the next time; --json tells objects; a target that is away is a 502', async (t) => {
    const stage = new Stage(t)
    const { at: address } = await startServer(stage, ['--domain', 'https://example.localhost'])
    const nobody = await freePort()
    const hosts: string[] = []
    for (const _ of ['once', 'twice']) {
      const child = await publish(stage, 'http', [`127.0.0.1:${nobody}`, '--json', ...at(address)])
      const url = await published(child)
      assert.match(url.href, /^https:\/\/[a-z2-9]{8}\.example\.localhost\/$/)
      hosts.push(url.host)
      assert.match(await ask(address, '/x', { host: url.host }), /^502 /)
      const request = await child.line((line) => (line.includes('"path"') ? JSON.parse(line) : undefined), 'a request')
      const { time, ms, ...rest } = request
      assert.ok(Date.parse(time) > 0 && typeof ms === 'number')
      const problem = `nothing listens on 127.0.0.1:${nobody}`
      assert.deepEqual(rest, { method: 'GET', path: '/x', status: 502, problem })
      await logLine(child, 'a warning', ({ msg }) => msg === `the target does not answer yet: ${problem}`)
      await child.stop()
    }
    assert.equal(hosts[0], hosts[1])
  })

  test('on a server without a domain it is a port that it allows; tcp too, and what it does not allow is told', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const [one, other] = [await freePort(), await freePort()]
    const { at: address } = await startServer(stage, ['--allow-ports', `${one},${other}`])
    const web = await publish(stage, 'http', [String(site), ...at(address)])
    const { hostname, port } = await published(web)
    assert.equal(hostname, '127.0.0.1')
    assert.ok([one, other].includes(Number(port)), port)
    assert.equal(await ask({ port: Number(port) }, '/a'), '200 site /a')
    const left = Number(port) === one ? other : one
    const plain = await publish(stage, 'tcp', [String(site), '--remote-port', String(left), ...at(address)])
    assert.equal((await published(plain)).href, `tcp://127.0.0.1:${left}`)
    assert.equal(await ask({ port: left }, '/b'), '200 site /b')
    await web.stop()
    const echo = createSocket('udp4', (bytes, from) => echo.send(`echo ${bytes}`, from.port, from.address))
    const visitor = createSocket('udp4')
    t.after(() => void [echo, visitor].map((socket) => socket.close()))
    await new Promise<void>((resolve) => echo.bind(0, '127.0.0.1', resolve))
    const datagrams = await publish(stage, 'udp', [String(echo.address().port), ...at(address)])
    const { href, port: udpPort } = await published(datagrams)
    assert.ok(/^udp:\/\/127\.0\.0\.1:\d+$/.test(href), href)
    visitor.send('hello', Number(udpPort), '127.0.0.1')
    assert.equal(String((await once(visitor, 'message'))[0]), 'echo hello')
    const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    for (const [args, message] of [
      [['tcp', '22', '--remote-port', String(left)], new RegExp(`^symport: port taken: ${left}$`, 'm')],
      [
        ['udp', '53', '--remote-port', '1'],
        /^symport: not allowed by the server: listening on udp:\/\/127\.0\.0\.1:1 is not/m,
      ],
      [['http', '3000', '--name', 'shop'], /^symport: not allowed by the server: this server has no domain/m],
    ] as const) {
      const { status, stderr } = await runHere(stage, [...args, ...at(address), '--state', stage.path('node')], { env })
      assert.equal(status, 1, stderr)
      assert.match(stderr, message)
    }
  })

  test('after symport login nothing more need be said, and a wrong secret ends both with 1', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { at: address } = await startServer(stage, ['--domain', 'example.localhost'])
    const state = ['--state', stage.path('mine')]
    const url = `tcp://${address.host}:${address.port}`
    const wrong = symportEnvironment(stage, { SYMPORT_UUID: 'no-secret-of-this-server-771' })
    for (const args of [
      ['login', url],
      ['http', String(site), '--server', url],
    ]) {
      const { status, stderr } = await runHere(stage, [...args, ...state], { env: wrong })
      assert.equal(status, 1)
      assert.match(stderr, /^symport: .*a wrong secret/)
      assert.equal(stderr.split('\n').length, 1, stderr)
    }
    await assert.rejects(stat(stage.path('mine/login.json')), { code: 'ENOENT' })
    const right = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    const { status, stdout } = await runHere(stage, ['login', url, ...state], { env: right })
    assert.equal(status, 0)
    assert.match(stdout, /^logged in to 127\.0\.0\.1:\d+: /)
    for (const file of ['login.json', `secret-for-127.0.0.1_${address.port}`]) {
      assert.equal((await stat(stage.path(`mine/${file}`))).mode & 0o777, 0o600)
    }
    assert.doesNotMatch(await readFile(stage.path('mine/login.json'), 'utf8'), new RegExp(SECRET))
    const child = await start(stage, ['http', String(site), ...state])
    const { host } = await published(child)
    assert.equal(await ask(address, '/a', { host }), '200 site /a')
    const node = await start(stage, ['node', ...state])
    await logLine(node, 'the server', ({ msg }) => msg === 'connected')
  })

  test('symport login leaves the enrolled node alone that runs, and reads the secret once', {
    skip: process.platform === 'win32',
  }, async (t) => {
    const stage = new Stage(t)
    const { server, at: address } = await startServer(stage, ['--on-duplicate', 'replace'])
    const secret = 'the-secret-of-office-5512'
    const added = await runHere(stage, ['nodes', 'add', 'office', secret, '--state', stage.path('server')])
    assert.equal(added.status, 0, added.stderr)
    const node = await connectNode(stage, address, ['--id', 'office'], { state: 'office', secret })
    const pipe = stage.path('pipe')
    execFileSync('mkfifo', [pipe])
    const writing = writeFile(pipe, secret)
    const args = ['--id', 'office', '--uuid-file', pipe, '--state', stage.path('office')]
    const { status, stderr } = await runHere(stage, ['login', `tcp://${address.host}:${address.port}`, ...args])
    assert.equal(status, 0, stderr)
    await writing
    await coded(server, 'PROXY_ERR_LINK_LOST')
    assert.ok(logs(server).every(({ msg }) => !/another instance/.test(msg)))
    assert.ok(logs(node).every(({ msg }) => !/another instance/.test(msg)))
  })

  test('symport login asks on a terminal, and does not show what is typed', async (t) => {
    const stage = new Stage(t)
    const { at: address } = await startServer(stage)
    const args = ['login', `${address.host}:${address.port}`, '--state', stage.path('mine')]
    const child = await startOnTerminal(t, stage, args, { question: 'Secret of', answer: SECRET })
    if (!child) return
    assert.equal((await child.exited).status, 0)
    assert.equal(
      child.lines.some((line) => line.includes(SECRET)),
      false,
    )
    assert.ok(child.lines.some((line) => line.startsWith('logged in to')))
  })

  test('what makes no sense is said before anything is dialled, and ends with 2', async (t) => {
    const stage = new Stage(t)
    for (const [args, message] of [
      [['http'], /takes one target/],
      [['http', '3000', '--maintenance', 'page'], /takes one target: .*, and not "3000" and "page"$/m],
      [['http', '3000'], /^symport: the secret of .* is missing: "symport login URL" keeps/],
      [['requests', '--status', '4x'], /^symport: --status: "4x" is no status/],
      [['requests', '--since', 'monday'], /^symport: --since: "monday" is neither a duration nor a time: write 5m/],
      [['requests', '--limit', '0'], /^symport: --limit: "0" is no number from 1 to 1000/],
      [['mappings', 'set', '1', '--deny-from', '1.2.3'], /^symport: --deny-from: "1\.2\.3" is no address or CIDR/],
      [['http', '0'], /out of range/],
      [['http', 'ftp://x'], /is not for "symport http"/],
      [['tcp', 'http://127.0.0.1:80'], /"symport http" publishes that/],
      [['http', 'http://u:p@127.0.0.1:80'], /user information/],
      [['http', '3000', '--name', '../x'], /^symport: --name: /],
      [['http', '3000', '--name', 'a.b'], /has a dot/],
      [['tcp', '22', '--remote-port', '0'], /--remote-port/],
      [['udp', '22', '--name', 'x'], /unknown flag/],
      [['tcp', '22', '--name', 'x', '--remote-port', '9000'], /exclude each other/],
      [['tcp', '22', '--name', 'a.b'], /has a dot/],
      [['login'], /takes one server/],
      [['server', '--domain', '*.example.com'], /is no domain/],
      [['server', '--domain', 'https://example.com/x'], /is no domain/],
      [['server', '--domain', 'example.com:80'], /a port needs a scheme/],
    ] as const) {
      const { status, stderr } = await runHere(stage, args)
      assert.equal(status, 2, `${args.join(' ')}: ${stderr}`)
      assert.match(stderr, message)
    }
  })
})
