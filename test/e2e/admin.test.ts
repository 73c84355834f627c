import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { describe, type TestContext, test } from 'node:test'
import { type Served, serveAdmin } from '../helpers/admin/client.ts'
import { connectedNode, START, someMapping, someNode } from '../helpers/admin/fake-operations.ts'
import type { Result } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import { Child } from '../helpers/system/child.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, symportEnvironment } from '../helpers/system/symport.ts'

// The command line against the API as it is, with operations behind it that have no tunnel.

interface Bench extends Served {
  readonly stage: Stage
  /** Runs a command against this server. */
  cli(...args: string[]): Promise<Result>
}

async function setUp(t: TestContext): Promise<Bench> {
  const served = await serveAdmin(t, { tcp: { host: '127.0.0.1', port: 0 } })
  const stage = new Stage(t)
  return { ...served, stage, cli: (...args) => runHere(stage, [...args, '--state', served.folder.path]) }
}

function ok({ status, stdout, stderr }: Result): unknown {
  assert.deepEqual([status, stderr], [0, ''])
  return stdout === '' ? undefined : JSON.parse(stdout)
}

function failed(result: Result, status: number): string {
  assert.deepEqual([result.status, result.stdout], [status, ''], result.stderr)
  assert.equal(result.stderr.split('\n').length, 1)
  return result.stderr.replace(/^symport: /, '')
}

describe('the commands of an operator', { concurrency: 3 }, () => {
  test('nodes are added, shown, changed and removed', async (t) => {
    const { cli, operations } = await setUp(t)
    const grants = ['--listen', '9000-9999', '--dial', '127.0.0.1:80', '--dial', '*.example.com:443', '--channel', 'c']
    const made = ok(await cli('nodes', 'add', 'office', '--expires', '2099-12-31', ...grants))
    assert.deepEqual(made, { id: 'office', secret: operations.secrets.get('office') })
    const [node] = operations.nodes()
    assert.equal(node?.expires, '2099-12-31T23:59:59.999Z')
    const dial = ['127.0.0.1:80', '*.example.com:443']
    assert.deepEqual(node?.grants, { listen: '9000-9999', dial, channels: ['c'] })
    assert.deepEqual(ok(await cli('nodes', 'add', '007', 'ta1-key')), { id: '007' })
    assert.equal(operations.secrets.get('007'), 'ta1-key')
    assert.deepEqual(ok(await cli('nodes', 'list')), JSON.parse(JSON.stringify(operations.nodes())))
    assert.deepEqual(ok(await cli('nodes')), JSON.parse(JSON.stringify(operations.nodes())))
    ok(await cli('nodes', 'disable', 'office'))
    assert.equal(operations.nodes()[0]?.enabled, false)
    ok(await cli('nodes', 'enable', 'office'))
    assert.equal(operations.nodes()[0]?.enabled, true)
    assert.deepEqual(ok(await cli('nodes', 'kick', 'office')), { kicked: 0 })
    const rotated = ok(await cli('nodes', 'rotate', 'office'))
    assert.deepEqual(rotated, { id: 'office', secret: operations.secrets.get('office') })
    assert.equal(ok(await cli('nodes', 'remove', '007')), undefined)
    assert.deepEqual(
      operations.nodes().map(({ id }) => id),
      ['office'],
    )
  })

  test('many nodes are added from a file or standard input, and those that could not be are named', async (t) => {
    const { cli, operations, stage, folder } = await setUp(t)
    operations.nodeList.push(someNode('n7'))
    const ids = Array.from({ length: 120 }, (_, i) => `n${i}`)
    writeFileSync(stage.path('ids'), `# ours\n${ids.join('\n')}\n`)
    const result = await cli('nodes', 'add', '--from', stage.path('ids'), '--expires', '30d')
    assert.equal(result.status, 1)
    assert.equal(result.stderr, 'symport: 1 of 120 nodes were not added; the first is n7: there is a node n7 already')
    const results: unknown = JSON.parse(result.stdout)
    assert.ok(Array.isArray(results))
    assert.deepEqual(
      results.map(({ id }) => id),
      ids,
    )
    assert.equal(results[8]?.secret, operations.secrets.get('n8'))
    assert.ok(operations.nodes().every(({ id, expires }) => id === 'n7' || expires !== undefined))

    writeFileSync(stage.path('json'), JSON.stringify([{ id: 'x', secret: 'chosen' }, 'y']))
    const args = [CLI, 'nodes', 'add', '--from', '-', '--state', folder.path]
    const stdin = openSync(stage.path('json'), 'r')
    const child = await Child.start(process.execPath, args, { env: symportEnvironment(stage), stdin })
    assert.equal((await child.exited).status, 0)
    assert.deepEqual(JSON.parse(child.lines.join('\n')), [
      { id: 'x' },
      { id: 'y', secret: operations.secrets.get('y') },
    ])
  })

  test('a secret comes from a file too', async (t) => {
    const { cli, operations, stage } = await setUp(t)
    writeFileSync(stage.path('secret'), 'out of a file\n')
    ok(await cli('nodes', 'add', 'a', '--secret-file', stage.path('secret')))
    assert.equal(operations.secrets.get('a'), 'out of a file')
    const both = failed(await cli('nodes', 'add', 'b', 'secret', '--secret-file', stage.path('secret')), 2)
    assert.equal(both, 'SECRET and --secret-file are both given: keep one')
    assert.match(
      failed(await cli('nodes', 'add', 'b', '--secret-file', stage.path('none')), 2),
      /there is no such file/,
    )
  })

  test('mappings are added in both forms, shown, changed and removed', async (t) => {
    const { cli, operations } = await setUp(t)
    operations.nodeList.push(...['a', 'b', 'c'].map((id) => someNode(id)))
    const flags = ['--node', 'a', '--node', 'b', '--balance', 'round-robin', '--wait', '3s', '--note', 'a local agent']
    const added = ok(await cli('mappings', 'add', ':8078', '127.0.0.1:8077', ...flags, '--health'))
    assert.deepEqual(added, operations.mappings()[0])
    const { nodes, balance, wait, note, health } = operations.mappings()[0] ?? {}
    assert.deepEqual(
      [nodes, balance, wait, note, health],
      [['a', 'b'], 'round-robin', 3000, 'a local agent', { interval: 10_000 }],
    )
    ok(await cli('mappings', 'add', '1080:127.0.0.1:80', '--health', '1m'))
    const spec = { Listen: { Domain: 'tcp', Addr: ':81' }, Forward: { Domain: 'tcp', Addr: ':82' }, Node: 'c' }
    ok(await cli('mappings', 'add', JSON.stringify(spec)))
    const [, second, third] = operations.mappings()
    assert.deepEqual(
      [second?.listen.Addr, second?.forward.Addr, second?.health],
      ['127.0.0.1:1080', '127.0.0.1:80', { interval: 60_000 }],
    )
    assert.deepEqual([third?.listen.Addr, third?.forward.Addr, third?.nodes], [':81', '127.0.0.1:82', ['c']])
    assert.deepEqual(ok(await cli('mappings', 'list')), operations.mappings())
    ok(await cli('mappings', 'disable', 'm1'))
    assert.equal(operations.mappings()[0]?.state, 'disabled')
    ok(await cli('mappings', 'enable', 'm1'))
    assert.equal(operations.mappings()[0]?.state, 'ready')
    ok(await cli('mappings', 'remove', 'm1'))
    assert.equal(operations.mappings().length, 2)
  })

  test('a mapping that names a node which is not there is added with a warning, and so is a node removed', async (t) => {
    const { cli, operations } = await setUp(t)
    operations.nodeList.push(someNode('office'))
    const typo = await cli('mappings', 'add', ':8078', ':1', '--node', 'ofice', '--node', 'office', '--node', 'zzz')
    assert.deepEqual(typo.stderr.split('\n'), [
      'symport: warning: node ofice is neither enrolled nor connected: did you mean office?',
      'symport: warning: node zzz is neither enrolled nor connected: "symport nodes add" adds one',
    ])
    assert.deepEqual(ok({ ...typo, stderr: '' }), operations.mappings()[0])
    ok(await cli('mappings', 'add', ':8079', ':1', '--node', 'office'))
    const removed = await cli('nodes', 'remove', 'office')
    assert.equal(removed.stderr, 'symport: warning: these mappings name it still: m1, m2')
    assert.equal(removed.status, 0)
    assert.deepEqual(operations.nodes(), [])
  })

  test('a wrong command line is one line and 2, what the server refuses is one line and 1', async (t) => {
    const { cli, operations } = await setUp(t)
    operations.mappingList.push(someMapping('9', { source: 'config' }))
    const cases: [number, RegExp, string[]][] = [
      [2, /"id" has a space in it/, ['nodes', 'add', 'a b']],
      [2, /bad endpoint/, ['mappings', 'add', 'garbage', ':1']],
      [2, /^:8078 maps to what\? write: symport mappings add LISTEN TARGET/, ['mappings', 'add', ':8078']],
      [2, /^tcp:\/\/\[::1\]:80\/udp maps to what\?/, ['mappings', 'add', 'tcp://[::1]:80/udp']],
      [2, /^bad SPEC "1:2:": /, ['mappings', 'add', '1:2:']],
      [1, /^mapping 9 comes from the configuration file/, ['mappings', 'remove', '9']],
    ]
    for (const [status, message, args] of cases) assert.match(failed(await cli(...args), status), message)
    assert.deepEqual(operations.nodes(), [])
  })

  test('status has the parts as the API has them, and filters', async (t) => {
    const { cli, operations } = await setUp(t)
    operations.nodeList.push(connectedNode('a'), someNode('b'))
    operations.mappingList.push(someMapping('1', { nodes: ['a'] }), someMapping('2', { nodes: ['b'] }))
    const connection = { instance: 'i', id: 1, node: 'a', mapping: '1', created: START, bytesIn: 5, bytesOut: 6 }
    operations.connectionList.push(connection, { ...connection, id: 2, node: 'b', mapping: '2' })
    const server = operations.status()
    const [nodes, mappings] = [operations.nodes(), operations.mappings()]
    assert.deepEqual(ok(await cli('status')), { server, nodes, mappings })
    assert.deepEqual(ok(await cli('status', '--node', 'a', '--connections')), {
      server,
      nodes: [nodes[0]],
      mappings: [mappings[0]],
      connections: [connection],
    })
    assert.deepEqual(ok(await cli('status', '--json', '--mapping', '2')), {
      server,
      nodes: [nodes[1]],
      mappings: [mappings[1]],
    })
  })

  test('reload shows what changed', async (t) => {
    const { cli, operations } = await setUp(t)
    operations.report = { changes: ['mapping tcp://:80 added'], restart: ['port'] }
    assert.deepEqual(ok(await cli('reload')), operations.report)
  })

  test('where no server runs, status and reload say so', async (t) => {
    const stage = new Stage(t)
    for (const args of [['status'], ['reload'], ['nodes', 'kick', 'a']]) {
      const message = failed(await runHere(stage, [...args, '--state', stage.path('none')]), 1)
      assert.match(message, /^no server runs with this state folder/)
    }
    writeFileSync(stage.path('file'), '')
    const file = failed(await runHere(stage, ['status', '--state', stage.path('file')]), 1)
    assert.match(file, /^cannot reach the server with the state folder [^\n]*: it is a file, and not a folder$/)
  })

  test('a server elsewhere is asked over TCP, with its token', async (t) => {
    const { admin, folder, operations, stage } = await setUp(t)
    operations.nodeList.push(someNode('a'))
    const token = ['--token-file', folder.file('admin-token')]
    for (const url of [String(admin.address), `http://${admin.address}`, `http://${admin.address}/`]) {
      assert.deepEqual(ok(await runHere(stage, ['nodes', '--admin', url, ...token])), operations.nodes())
    }
    writeFileSync(stage.path('wrong'), 'A'.repeat(43))
    const at = ['nodes', '--admin', String(admin.address)]
    assert.equal(failed(await runHere(stage, [...at, '--token-file', stage.path('wrong')]), 1), 'the token is wrong')
    assert.match(
      failed(await runHere(stage, at), 2),
      /^--token-file: cannot read .*admin-token: there is no such file$/,
    )
    assert.deepEqual(
      ok(await runHere(stage, [...at, '--state', folder.path])),
      operations.nodes(),
      'the token of this folder',
    )
    const nowhere = await runHere(stage, ['nodes', '--admin', '127.0.0.1:1', ...token])
    assert.match(failed(nowhere, 1), /^cannot reach http:\/\/127\.0\.0\.1:1: nothing listens there$/)
    assert.match(failed(await runHere(stage, ['nodes', '--admin', 'ftp://x', ...token]), 2), /^--admin: /)
    assert.match(failed(await runHere(stage, ['nodes', ...token]), 2), /^--token-file goes with --admin/)
  })

  test('what is no symport server is told apart, whatever it answers', async (t) => {
    const stage = new Stage(t)
    const bodies = ['', '<html>', '[]', '{"id":1}', '[{"id":"a"}]', '{"error":{"code":"x"}}', 'null']
    const server = createServer((request, response) => {
      const body = bodies[Number(/^\/(\d+)\//.exec(request.url ?? '')?.[1])]
      response.writeHead(request.url?.startsWith('/5') ? 500 : 200).end(body)
    }).listen(0, '127.0.0.1')
    t.after(() => server.close())
    await once(server, 'listening')
    const address = server.address()
    assert.ok(typeof address === 'object' && address)
    writeFileSync(stage.path('token'), 'A'.repeat(43))
    const asked = bodies.map((_, index) =>
      runHere(stage, ['status', '--admin', `127.0.0.1:${address.port}/${index}`, '--token-file', stage.path('token')]),
    )
    for (const result of await Promise.all(asked)) assert.match(failed(result, 1), /is no symport server/)
  })

  test('a socket of another user is named as that', { skip: process.getuid?.() === 0 }, async (t) => {
    const { cli, folder } = await setUp(t)
    chmodSync(folder.file('admin.sock'), 0)
    assert.match(failed(await cli('status'), 1), /permission denied: be the user that the server runs as/)
  })

  test('the help of each command has its words, flags and examples', async (t) => {
    const stage = new Stage(t)
    for (const [args, expected] of [
      [['nodes', '--help'], /add ID \[SECRET\] +add a node/],
      [['nodes', 'add', '--help'], /--expires WHEN.*Examples:.*symport nodes add office/s],
      [['mappings', 'add', '--help'], /--health \[TIME\]/],
    ] as const) {
      const { status, stdout, stderr } = await runHere(stage, args)
      assert.deepEqual([status, stderr], [0, ''])
      assert.match(stdout, expected)
    }
  })
})

describe('watching', { concurrency: 3 }, () => {
  test('redraws in place on a terminal, with rates, and ends cleanly with Ctrl-C', async (t) => {
    const { operations, stage, folder } = await setUp(t)
    const totals = { bytesIn: 0, bytesOut: 0, connections: 1, live: 1 }
    const busy = setInterval(() => {
      totals.bytesIn += 50_000
    }, 20)
    t.after(() => clearInterval(busy))
    operations.nodeList.push(connectedNode('office', totals))
    const args = ['status', '--watch', '200ms', '--state', folder.path]
    const child = await startOnTerminal(t, stage, args, { question: 'IN/S', answer: '\x03' })
    if (!child) return
    assert.deepEqual(await child.exited, { status: 0, signal: null }, child.tail())
    const shown = child.lines.join('\n')
    assert.ok(shown.includes('\x1b[?25l\x1b[2J\x1b[H'))
    assert.match(shown, /office +connected/)
    assert.match(shown, /[MK]iB\/s/)
    assert.ok(shown.includes('\x1b[?25h'), 'the cursor is back')
    assert.ok(shown.split('\x1b[H').length > 2, 'more than one frame')
  })

  test('prints a line of JSON each time where there is no terminal, and ends when nobody reads', async (t) => {
    const { operations, stage, folder } = await setUp(t)
    operations.nodeList.push(someNode('a'))
    const args = [
      '-c',
      `"$0" "$@" | head -n 3`,
      process.execPath,
      CLI,
      'status',
      '--watch',
      '200ms',
      '--state',
      folder.path,
    ]
    const child = await Child.start('/bin/sh', args, { env: symportEnvironment(stage) })
    assert.equal((await child.exited).status, 0)
    assert.equal(child.lines.length, 3)
    for (const line of child.lines) assert.deepEqual(JSON.parse(line).nodes, operations.nodes())
  })

  test('SIGTERM ends it with 0, and a server that ends ends it with 1 where there is no terminal', async (t) => {
    const { stage, folder, admin } = await setUp(t)
    const args = [CLI, 'status', '--watch', '200ms', '--state', folder.path]
    const env = symportEnvironment(stage)
    const [one, two] = await Promise.all([0, 1].map(() => stage.start(process.execPath, args, { env })))
    assert.ok(one && two)
    for (const child of [one, two]) await child.line((line) => (line.startsWith('{') ? true : undefined), 'JSON')
    one.signal('SIGTERM')
    assert.deepEqual(await one.exited, { status: 0, signal: null })
    await admin.close()
    assert.deepEqual(await two.exited, { status: 1, signal: null })
    assert.match(two.tail(1), /no server runs with this state folder/)
  })

  test('on a terminal a secret is shown once, with the command line for the other machine', async (t) => {
    const { operations, stage, folder } = await setUp(t)
    operations.address = '192.0.2.1:925'
    mkdirSync(stage.path('x'))
    const args = ['nodes', 'add', "o'ffice", '--state', folder.path]
    const child = await startOnTerminal(t, stage, args, { question: 'never asked', answer: '' })
    if (!child) return
    assert.equal((await child.exited).status, 0)
    const secret = operations.secrets.get("o'ffice")
    const line = `symport node --host 192.0.2.1 --port 925 --uuid ${secret} --id 'o'\\''ffice'`
    assert.ok(child.lines.map((text) => text.trim()).includes(line), child.tail())
  })
})
