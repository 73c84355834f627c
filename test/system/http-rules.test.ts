import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { connectNode, run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import type { Child } from '../helpers/system/child.ts'
import { Curl } from '../helpers/system/curl.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import type { Address } from '../helpers/system/symport.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** `symport http` with what stands in front of the target, asked by curl. */

/** Says what it was asked, but for what curl says of itself. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const {
    host,
    authorization,
    'x-user': user,
    'x-forwarded-for': visitor,
    'x-forwarded-proto': proto,
  } = request.headers
  response.setHeader('Server', 'secret/1.0')
  if (request.url === '/go') response.setHeader('Location', `http://${host}/there`)
  request.resume().on('end', () => {
    response.end(
      JSON.stringify({ host, authorization, user, visitor, proto, forwarded: request.headers['x-forwarded-host'] }),
    )
  })
}

async function listening(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

interface Published {
  readonly child: Child
  readonly url: string
  /** For curl: where the name leads. */
  readonly resolve: readonly string[]
}

async function publish(
  stage: Stage,
  at: Address,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Published> {
  const where = ['--server', `tcp://${at.host}:${at.port}`, '--state', stage.path('node')]
  const child = await start(stage, ['http', ...args, ...where], { env: { SYMPORT_UUID: SECRET, ...env } })
  const url = await child.line((line) => /^(http:\/\/\S+)(?= -> )/.exec(line)?.[1], 'the URL')
  return { child, url, resolve: ['--resolve', `${new URL(url).host}:127.0.0.1`, '--noproxy', '*'] }
}

async function site(t: TestContext): Promise<{ stage: Stage; curl: Curl; at: Address; port: number } | undefined> {
  const found = requirePrograms(t, ['curl'])
  if (!found) return undefined
  const stage = new Stage(t)
  const { at } = await startServer(stage, ['--domain', 'example.test'])
  return { stage, curl: new Curl(stage, found.curl), at, port: await listening(t, createServer(answer)) }
}

test('a password, headers and the host of the target, each request with its line', { timeout: 60_000 }, async (t) => {
  const found = await site(t)
  if (!found) return
  const { stage, curl, at, port } = found
  const rules = ['--host-header', 'rewrite', '--request-header', 'X-User: ann', '--response-header', 'Server:']
  const { child, url, resolve } = await publish(stage, at, [
    String(port),
    '--name',
    'app',
    '--basic-auth',
    'ann:correct horse',
    ...rules,
  ])
  assert.equal(await curl.status(...resolve, url), 401)
  assert.equal(await curl.status(...resolve, '--user', 'ann:wrong', url), 401)
  const known = [...resolve, '--user', 'ann:correct horse']
  const seen = JSON.parse(await curl.get(...known, '--header', 'X_User: root', url))
  assert.deepEqual(seen, {
    host: `127.0.0.1:${port}`,
    user: 'ann',
    visitor: '127.0.0.1',
    proto: 'http',
    forwarded: new URL(url).host,
  })
  const head = await curl.get(...known, '--include', `${url}/go`)
  assert.match(head, new RegExp(`^location: ${url}/there\\r?$`, 'im'))
  assert.doesNotMatch(head, /secret\/1\.0/)
  assert.equal(await curl.status(...known, '--upload-file', import.meta.filename, `${url}/up`), 200)
  for (const line of [/GET +\/ +401 /, /GET +\/ +200 /, /GET +\/go +200 /, /PUT +\/up +200 /]) {
    await child.line((text) => (line.test(text) ? text : undefined), String(line))
  }
  await child.stop('SIGTERM', 5000)
  assert.equal((await child.exited).status, 0)
})

test('a target that speaks TLS, and passwords that stand in no list of processes', { timeout: 60_000 }, async (t) => {
  const found = await site(t)
  if (!found) return
  const { stage, curl, at } = found
  const { key, cert } = Identity.create('localhost', { ca: true, purpose: 'any' })
  const port = await listening(t, createTlsServer({ key, cert }, answer))
  writeFileSync(stage.path('users'), '# who may come\n\nann:one\nbob:t:wo\n', { mode: 0o600 })
  const target = `https://localhost:${port}?verify=off`
  const flags = [target, '--name', 'tls', '--host-header', 'rewrite']
  const { url, resolve } = await publish(stage, at, [...flags, '--basic-auth-file', stage.path('users')])
  for (const user of ['ann:one', 'bob:t:wo']) {
    assert.equal(JSON.parse(await curl.get(...resolve, '--user', user, url)).host, `localhost:${port}`)
  }
  const env = { SYMPORT_BASIC_AUTH: 'eve:three' }
  const other = await publish(stage, at, [target, '--name', 'env'], env)
  assert.equal(await curl.status(...other.resolve, other.url), 401)
  assert.equal(await curl.status(...other.resolve, '--user', 'eve:three', other.url), 200)
})

test('a page while there is nothing to see, and a target that is not there', { timeout: 60_000 }, async (t) => {
  const found = await site(t)
  if (!found) return
  const { stage, curl, at, port } = found
  writeFileSync(stage.path('page.html'), '<h1>soon</h1>\n')
  const page = ['--maintenance', stage.path('page.html')]
  const { child, url, resolve } = await publish(stage, at, [String(port), '--name', 'down', ...page])
  const got = (await curl.run(...resolve, '--include', url)).output
  assert.match(got, /^HTTP\/1\.1 503 [\s\S]*retry-after: 120[\s\S]*<h1>soon<\/h1>/i)
  await child.line((line) => (/GET +\/ +503 /.test(line) ? line : undefined), 'the line')
  const gone = await publish(stage, at, ['9', '--name', 'gone', '--host-header', 'rewrite'])
  assert.equal(await curl.status(...gone.resolve, gone.url), 502)
  const line = await gone.child.line((text) => (/GET +\/ +502 /.test(text) ? text : undefined), 'the line')
  assert.match(line, /nothing listens on 127\.0\.0\.1:9$/)
})

test('the operator of a server puts the same in front of a mapping, and changes it live', {
  timeout: 60_000,
}, async (t) => {
  const found = await site(t)
  if (!found) return
  const { stage, curl, at, port } = found
  await connectNode(stage, at, ['--id', 'one', '--allow', `127.0.0.1:${port}`], { state: 'operated' })
  const mappings = async (...args: string[]): Promise<void> => {
    const { status, stderr } = await run(stage, ['mappings', ...args, '--state', stage.path('server')])
    assert.equal(status, 0, stderr)
  }
  const rules = ['--basic-auth', 'ann:one', '--host-header', 'rewrite', '--request-header', 'X-User: ann']
  await mappings('add', 'web://op.test', `127.0.0.1:${port}`, '--node', 'one', ...rules)
  const url = [`http://op.test:${at.port}`, '--resolve', `op.test:${at.port}:127.0.0.1`, '--noproxy', '*']
  assert.equal(await curl.status(...url), 401)
  const seen = JSON.parse(await curl.get(...url, '--user', 'ann:one'))
  assert.deepEqual([seen.host, seen.user, seen.authorization], [`127.0.0.1:${port}`, 'ann', undefined])
  await mappings('set', '1', '--maintenance')
  assert.equal(await curl.status(...url, '--user', 'ann:one'), 503)
  await mappings('set', '1', '--maintenance', 'none', '--basic-auth', 'none')
  assert.equal(await curl.status(...url), 200)
})

test('what is wrong is said, and never with the password', { timeout: 60_000 }, async (t) => {
  const stage = new Stage(t)
  for (const [flags, message] of [
    [['--basic-auth', 'hunter2'], /--basic-auth: write NAME:PASSWORD/],
    [['--basic-auth', 'ann:hunter2', '--basic-auth', 'ann:hunter2'], /a name is given twice/],
    [['--basic-auth', 'ann:hunter2\n'], /--basic-auth/],
    [['--basic-auth-file', stage.path('no')], /--basic-auth-file: cannot read/],
    [['--request-header', 'Host: x'], /--request-header: a header that rules may change: Host is not/],
    [['--request-header', 'Transfer_Encoding: chunked'], /a header that rules may change/],
    [['--response-header', 'X-A: a\r\nX-B: b'], /--response-header: the value of a header/],
    [['--response-header', 'nothing'], /--response-header: write "NAME: VALUE"/],
    [['--host-header', 'a b'], /--host-header: a host/],
    [['--maintenance', './no.html'], /--maintenance: cannot read/],
    [['--basic-auth', 'none'], /nothing to take away/],
  ] as const) {
    const { status, stderr } = await runHere(stage, ['http', '3000', ...flags])
    assert.equal(status, 2, stderr)
    assert.match(stderr, message)
    assert.doesNotMatch(stderr, /hunter2/)
    assert.equal(stderr.trim().split('\n').length, 1)
  }
})
