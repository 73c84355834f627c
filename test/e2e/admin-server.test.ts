import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import * as v from 'valibot'
import { auditEntry, listOf, mappingStatus, nodeStatus, serverStatus } from '../../lib/admin/schemas.ts'
import { ask } from '../helpers/admin/client.ts'
import { logLine, type Result, run, SECRET, start } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, logged, parseAddress } from '../helpers/system/symport.ts'

// The commands of an operator against a server that runs, and what is left of it.

const statusShape = v.object({ server: serverStatus, nodes: listOf(nodeStatus), mappings: listOf(mappingStatus) })

interface Bench {
  readonly stage: Stage
  readonly server: Child
  readonly at: Address
  readonly state: readonly string[]
  cli(...args: string[]): Promise<unknown>
}

async function setUp(t: TestContext, stage = new Stage(t), args: readonly string[] = []): Promise<Bench> {
  const state = ['--state', stage.path('server')]
  // With a secret that is given no certificate is made.
  const env = { SYMPORT_UUID: SECRET }
  const server = await start(stage, ['server', '--host', '127.0.0.1', '--port', '0', ...state, ...args], { env })
  const at = parseAddress((await logged(server, 'listening')).address)
  return { stage, server, at, state, cli: async (...words) => ok(await runHere(stage, [...words, ...state])) }
}

function ok({ status, stdout, stderr }: Result): unknown {
  assert.deepEqual([status, stderr], [0, ''])
  return stdout === '' ? undefined : JSON.parse(stdout)
}

async function join({ stage, at }: Bench, id: string, secret: string): Promise<Child> {
  const where = ['--host', at.host, '--port', String(at.port), '--state', stage.path(`node-${id}`)]
  const node = await start(stage, ['node', ...where, '--id', id, '--uuid', secret])
  await logged(node, 'connected')
  return node
}

describe('an operator of a server that runs', { concurrency: 2 }, () => {
  test('adds a node and a mapping, and sees their bytes; all of it is there again after kill -9', async (t) => {
    const bench = await setUp(t)
    const { cli, stage, server } = bench
    const secret = 'ta1-key-7f3c9e0b2d-chosen'
    await cli('nodes', 'add', 'test-agent-1', secret)
    await join(bench, 'test-agent-1', secret)
    const target = (await startEcho(stage)).replace('tcp://', '')
    const flags = ['--node', 'test-agent-1', '--note', 'a local agent']
    const added = v.parse(mappingStatus, await cli('mappings', 'add', '127.0.0.1:0', target, ...flags))
    assert.equal(await visit(stage, `tcp://${added.bound?.Addr}`, 'hello'), 'hello')
    const { nodes, mappings } = v.parse(statusShape, await cli('status'))
    assert.deepEqual(
      nodes.map(({ id, connected, totals }) => [id, connected, totals.bytesIn, totals.bytesOut]),
      [['test-agent-1', true, 5, 5]],
    )
    assert.deepEqual(
      mappings.map(({ id, state, note, totals }) => [id, state, note, totals.connections]),
      [[added.id, 'ready', 'a local agent', 1]],
    )

    await server.stop('SIGKILL')
    const again = await setUp(t, stage)
    const [mapping] = v.parse(listOf(mappingStatus), await again.cli('mappings'))
    assert.deepEqual([mapping?.id, mapping?.note, mapping?.nodes], [added.id, 'a local agent', ['test-agent-1']])
    await join(again, 'test-agent-1', secret)
    const [, address] = [mapping?.id, v.parse(listOf(mappingStatus), await again.cli('mappings'))[0]?.bound?.Addr]
    assert.equal(await visit(stage, `tcp://${address}`, 'hello'), 'hello')
  })

  test('a node that is removed, disabled or rotated is disconnected at once, and one that is kicked comes back', async (t) => {
    const bench = await setUp(t)
    const { cli, server } = bench
    for (const change of [['remove'], ['disable'], ['rotate']]) {
      const id = `by-${change[0]}`
      const { secret } = v.parse(v.object({ secret: v.string() }), await cli('nodes', 'add', id))
      const node = await join(bench, id, secret)
      await cli('nodes', ...change, id)
      await logLine(server, `the end of ${id}`, (log) => log.msg === 'node disconnected' && log.node === id)
      await node.stop()
    }
    const { secret } = v.parse(v.object({ secret: v.string() }), await cli('nodes', 'add', 'a'))
    const node = await join(bench, 'a', secret)
    const from = node.lines.length
    assert.deepEqual(await cli('nodes', 'kick', 'a'), { kicked: 1 })
    await logged(node, 'connected', from)
  })

  test('adds, changes and removes while no server runs; the next start has it', async (t) => {
    const stage = new Stage(t)
    const state = ['--state', stage.path('server')]
    const offline = async (...args: string[]): Promise<unknown> => {
      const { stderr, ...result } = await runHere(stage, [...args, ...state])
      assert.match(
        stderr,
        /^symport: no server runs with .*server: this is about its files, for the next one that does$/,
      )
      return ok({ ...result, stderr: '' })
    }
    const { secret } = v.parse(v.object({ secret: v.string() }), await offline('nodes', 'add', 'a'))
    await offline('nodes', 'add', 'b')
    await offline('nodes', 'disable', 'b')
    await offline('nodes', 'add', 'c')
    await offline('nodes', 'remove', 'c')
    const mapping = v.parse(
      mappingStatus,
      await offline('mappings', 'add', '127.0.0.1:0', '127.0.0.1:1', '--node', 'a'),
    )
    assert.equal(existsSync(stage.path('server', 'admin.sock')), false)
    assert.deepEqual([mapping.state, mapping.bound, mapping.problem], ['no node', undefined, undefined])
    const held = createServer().listen(0, '127.0.0.1')
    t.after(() => held.close())
    await once(held, 'listening')
    const { port } = v.parse(v.object({ port: v.number() }), held.address())
    const later = await offline('mappings', 'add', `127.0.0.1:${port}`, '127.0.0.1:1', '--node', 'a')
    const [first, second] = v.parse(listOf(mappingStatus), await offline('mappings'))
    assert.deepEqual([first, second], [mapping, later], 'whether a port can be had is for the server to find out')
    held.close()
    const audited = readFileSync(stage.path('server', 'audit.log'), 'utf8').trimEnd().split('\n')
    assert.deepEqual(
      audited.map((line) => v.parse(auditEntry, JSON.parse(line)).action),
      ['node.add', 'node.add', 'node.disable', 'node.add', 'node.remove', 'mapping.add', 'mapping.add'],
    )
    const bench = await setUp(t, stage)
    const nodes = v.parse(listOf(nodeStatus), await bench.cli('nodes'))
    assert.deepEqual(
      nodes.map(({ id, enabled }) => [id, enabled]),
      [
        ['a', true],
        ['b', false],
      ],
    )
    assert.equal(v.parse(listOf(mappingStatus), await bench.cli('mappings'))[0]?.id, mapping.id)
    await join(bench, 'a', secret)
  })

  test('a second server with the same state folder is an error in plain words, and the socket goes with the first', async (t) => {
    const { stage, state, server } = await setUp(t)
    const second = await run(stage, ['server', '--host', '127.0.0.1', '--port', '0', ...state])
    assert.equal(second.status, 1)
    assert.match(second.stderr, /another server runs with the state folder/)
    assert.ok(existsSync(stage.path('server', 'admin.sock')))
    assert.deepEqual(await server.stop(), { status: 0, signal: null })
    assert.equal(existsSync(stage.path('server', 'admin.sock')), false)
  })

  test('--admin serves the API over TCP for the token in the state folder, and --admin asks it', async (t) => {
    const stage = new Stage(t)
    const { server, state } = await setUp(t, stage, ['--admin', '127.0.0.1:0'])
    const { address } = await logLine(server, 'the address of the API', (log) => log.msg === 'admin API ready')
    const token = readFileSync(stage.path('server', 'admin-token'), 'utf8').trim()
    assert.equal((await ask(String(address), 'GET', '/readyz')).status, 200)
    assert.equal((await ask(String(address), 'GET', '/api/v1/status')).status, 401)
    const headers = { authorization: `Bearer ${token}` }
    assert.match((await ask(String(address), 'GET', '/metrics', { headers })).text, /^symport_nodes_connected 0$/m)
    assert.deepEqual(ok(await run(stage, ['nodes', '--admin', String(address), ...state])), [])
  })
})
