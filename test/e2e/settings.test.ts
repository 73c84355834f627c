import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, get, type OutgoingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { serveAdmin } from '../helpers/admin/client.ts'
import { someMapping, someNode } from '../helpers/admin/fake-operations.ts'
import { connectNode, type Result, SECRET, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { Stage } from '../helpers/system/stage.ts'

function ok({ status, stdout, stderr }: Result): unknown {
  assert.deepEqual([status, stderr], [0, ''])
  return stdout === '' ? undefined : JSON.parse(stdout)
}

/** A web server that answers with the headers that it was asked with. */
async function startSite(t: TestContext): Promise<number> {
  const server = createServer((request, response) =>
    response.end(`site ${request.headers['x-env']} ${request.headers.host}`),
  )
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function ask(port: number, headers: OutgoingHttpHeaders): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, headers, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve(`${response.statusCode} ${body}`))
    }).on('error', reject)
  })
}

const basic = (user: string): string => `Basic ${Buffer.from(user).toString('base64')}`

describe('limits and what is done to requests', { concurrency: 3 }, () => {
  test('are flags of mappings and nodes, for what is added and what is there', async (t) => {
    const { operations, folder } = await serveAdmin(t)
    const stage = new Stage(t)
    const cli = (...args: string[]): Promise<Result> => runHere(stage, [...args, '--state', folder.path])
    writeFileSync(stage.path('users'), '# ours\nann:correct horse\n')
    writeFileSync(stage.path('page.html'), '<h1>Back soon</h1>')
    const limits = [
      '--limit-in',
      '1MB',
      '--limit-out',
      '500KB/s',
      '--connections',
      '100',
      '--rate',
      '10',
      '--quota',
      '50GB',
    ]
    const visitor = ['--visitor-limit-in', '10Mbit/s', '--visitor-limit-out', '1MiB', '--visitor-connections=5']
    const nets = [
      '--visitor-rate',
      '2',
      '--allow-from',
      '10.0.0.0/8',
      '--allow-from',
      '2001:db8::/32',
      '--deny-from',
      '10.6.6.6',
    ]
    const wanted = {
      ...{ in: 1_000_000, out: 500_000, connections: 100, rate: 10, quota: 50_000_000_000 },
      visitor: { in: 1_250_000, out: 1_048_576, connections: 5, rate: 2 },
      ...{ allow: ['10.0.0.0/8', '2001:db8::/32'], deny: ['10.6.6.6'] },
    }
    ok(await cli('nodes', 'add', 'office', ...limits, ...visitor, ...nets))
    assert.deepEqual(operations.nodes()[0]?.limits, wanted)
    ok(await cli('mappings', 'add', ':8078', ':8077', ...limits, ...visitor, ...nets))
    assert.deepEqual(operations.mappings()[0]?.limits, wanted)
    const http = ['--basic-auth', 'joe:a:b', '--basic-auth-file', stage.path('users'), '--host-header', 'rewrite']
    const headers = ['--request-header', 'X-Env: test', '--request-header', 'Cookie:', '--response-header', 'Server:']
    ok(await cli('mappings', 'add', '--maintenance', 'web://x.com', ':1', ...http, ...headers, '--inspect'))
    assert.deepEqual(operations.added[1]?.http, {
      basicAuth: { joe: { password: 'a:b' }, ann: { password: 'correct horse' } },
      requestHeaders: { 'X-Env': 'test', Cookie: null },
      responseHeaders: { Server: null },
      ...{ hostHeader: 'rewrite', maintenance: true, inspect: true },
    })

    operations.mappingList.push(someMapping('3'))
    operations.nodeList.push(someNode('a'))
    ok(
      await cli(
        'mappings',
        'set',
        '3',
        '--limit-in',
        'none',
        '--visitor-rate',
        '3',
        '--allow-from',
        'none',
        '--node',
        'b',
      ),
    )
    ok(await cli('mappings', 'set', '--maintenance', stage.path('page.html'), '3', '--inspect', 'none', '--health'))
    ok(await cli('mappings', 'set', '3', '--maintenance', 'none', '--basic-auth', 'none', '--request-header', 'X-A: b'))
    ok(await cli('mappings', 'set', '3', '--note', 'none', '--node', 'none', '--balance', 'none', '--health', 'none'))
    ok(await cli('nodes', 'set', 'a', '--quota', '1GB', '--expires', 'none', '--dial', 'none', '--listen', '9000'))
    assert.deepEqual(operations.changes, [
      { nodes: ['b'], limits: { in: null, visitor: { rate: 3 }, allow: null } },
      { health: { interval: 10_000 }, http: { maintenance: '<h1>Back soon</h1>', inspect: null } },
      { http: { basicAuth: null, requestHeaders: { 'X-A': 'b' }, maintenance: null } },
      { nodes: null, balance: null, note: null, health: null },
      { expires: null, grants: { listen: '9000', dial: null }, limits: { quota: 1_000_000_000 } },
    ])
  })

  test('that make no sense end with 2, in one line without a password', async (t) => {
    const stage = new Stage(t)
    const { folder } = await serveAdmin(t)
    for (const [message, args] of [
      [/^symport: --limit-in: "10Mb" may be bytes or bits/, ['mappings', 'add', ':1', ':2', '--limit-in', '10Mb']],
      [/^symport: --rate: "0" is no whole number/, ['nodes', 'set', 'a', '--rate', '0']],
      [/^symport: --quota: there is nothing to take away/, ['nodes', 'add', 'a', '--quota', 'none']],
      [
        /^symport: --deny-from: none stands alone/,
        ['mappings', 'set', '1', '--deny-from', 'none', '--deny-from', '::1'],
      ],
      [
        /^symport: --allow-from: "everybody" is no address or CIDR/,
        ['mappings', 'add', ':1', ':2', '--allow-from', 'everybody'],
      ],
      [/^symport: --basic-auth: write NAME:PASSWORD/, ['mappings', 'set', '1', '--basic-auth', 'hunter2']],
      [
        /^symport: --basic-auth: a name/,
        ['mappings', 'set', '1', '--basic-auth', 'a:hunter2', '--basic-auth', 'a:hunter2'],
      ],
      [/^symport: --request-header: .*not one of them/, ['mappings', 'set', '1', '--request-header', 'Host: x']],
      [/^symport: --host-header: a host/, ['mappings', 'set', '1', '--host-header', 'a b']],
      [/^symport: --maintenance: cannot read/, ['mappings', 'set', '1', '--maintenance', '/nowhere/x.html']],
      [/^symport: --inspect: write --inspect alone/, ['mappings', 'set', '1', '--inspect=perhaps']],
      [/^symport: what is to change\?/, ['mappings', 'set', '1']],
      [/^symport: what is to change\?/, ['nodes', 'set', 'a']],
      [/^symport: which mapping\?/, ['mappings', 'set', '--rate', '1']],
    ] as const) {
      const { status, stdout, stderr } = await runHere(stage, [...args, '--state', folder.path])
      assert.deepEqual([status, stdout], [2, ''], stderr)
      assert.match(stderr, message)
      assert.doesNotMatch(stderr, /hunter2|\n/)
    }
  })

  test('hold at once: of a file that is read again, and of a command', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const file = (http: string): void =>
      writeFileSync(
        stage.path('server.toml'),
        `[[mapping]]\nlisten = "web://a.localhost"\nforward = "127.0.0.1:${site}"\n[mapping.http]\n${http}\n`,
        { mode: 0o600 },
      )
    file('basic-auth = ["joe:hunter2"]\nrequest-headers = ["X-Env: test"]\nhost-header = "rewrite"')
    const { server, at } = await startServer(stage, ['--config', stage.path('server.toml')], { secret: SECRET })
    await connectNode(stage, at, ['--allow', `127.0.0.1:${site}`])
    const state = stage.path('server')
    const cli = (...args: string[]): Promise<Result> => runHere(stage, [...args, '--state', state])
    const asked = (host: string, user?: string): Promise<string> =>
      ask(at.port, { host, ...(user === undefined ? {} : { authorization: basic(user) }) })

    assert.match(await asked('a.localhost'), /^401 /)
    assert.match(await asked('a.localhost', 'joe:hunter3'), /^401 /)
    assert.equal(await asked('a.localhost', 'joe:hunter2'), `200 site test 127.0.0.1:${site}`)
    file('maintenance = true')
    ok(await cli('reload'))
    assert.match(await asked('a.localhost'), /^503 /)

    ok(await cli('mappings', 'add', 'web://b.localhost', `127.0.0.1:${site}`, '--deny-from', '127.0.0.0/8'))
    assert.match(await asked('b.localhost'), /^[45]\d\d /)
    ok(await cli('mappings', 'set', '2', '--deny-from', 'none', '--request-header', 'X-Env: b'))
    assert.equal(await asked('b.localhost'), '200 site b b.localhost')
    ok(await cli('mappings', 'set', '2', '--basic-auth', 'ann:correct horse'))
    assert.match(await asked('b.localhost'), /^401 /)
    assert.equal(await asked('b.localhost', 'ann:correct horse'), '200 site b b.localhost')

    const told = [
      (await cli('mappings', 'list')).stdout,
      server.lines.join('\n'),
      readFileSync(`${state}/mappings.json`, 'utf8'),
    ]
    assert.doesNotMatch(told.join(), /hunter2|correct horse/)
  })
})
