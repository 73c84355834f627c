import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, type TestContext, test } from 'node:test'
import * as v from 'valibot'
import { listOf, mappingStatus, nodeStatus, serverStatus } from '../../lib/admin/schemas.ts'
import { ask } from '../helpers/admin/client.ts'
import { logLine, run, SECRET, start } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress } from '../helpers/system/symport.ts'

// What the operator of a node sees of it: its server stands where a server has its nodes.

const statusShape = v.object({ server: serverStatus, nodes: listOf(nodeStatus), mappings: listOf(mappingStatus) })

interface Bench {
  readonly stage: Stage
  readonly server: Child
  /** Where nodes find it. */
  readonly where: readonly string[]
}

async function setUp(t: TestContext, ...args: string[]): Promise<Bench> {
  const stage = new Stage(t)
  const own = ['--host', '127.0.0.1', '--port', '0', '--uuid', SECRET, '--state', stage.path('server')]
  const server = await start(stage, ['server', ...own, ...args])
  const { host, port } = parseAddress((await logged(server, 'listening')).address)
  return { stage, server, where: ['--host', host, '--port', String(port), '--uuid', SECRET] }
}

async function apiOf(node: Child): Promise<string> {
  return String((await logLine(node, 'the address of the API', (log) => log.msg === 'admin API ready')).address)
}

describe('the operator of a node', { concurrency: 2 }, () => {
  test('sees its server, its listeners and what goes through them, and changes nothing', async (t) => {
    const { stage, server, where } = await setUp(t, '--allow', '127.0.0.1:*')
    const target = (await startEcho(stage)).replace('tcp://', '')
    const state = ['--state', stage.path('node')]
    const node = await start(stage, ['node', ...where, ...state, '--admin', '127.0.0.1:0', '-L', `0:${target}`])
    const api = await apiOf(node)
    await logged(node, 'connected')
    const [mapping] = v.parse(listOf(mappingStatus), await json(stage, 'mappings', ...state))
    assert.equal(await visit(stage, `tcp://${mapping?.bound?.Addr}`, 'hello'), 'hello')

    const status = v.parse(statusShape, await json(stage, 'status', ...state))
    const name = status.server.address
    assert.deepEqual([status.server.role, status.server.nodes], ['node', { enrolled: 0, connected: 1 }])
    assert.deepEqual(
      status.nodes.map(({ id, connected, instances, totals }) => [id, connected, instances.length, totals.bytesIn]),
      [[name, true, 1, 5]],
    )
    assert.deepEqual(
      status.mappings.map(({ state, totals }) => [state, totals.bytesIn, totals.bytesOut, totals.connections]),
      [['ready', 5, 5, 1]],
    )
    const token = readFileSync(stage.path('node', 'admin-token'), 'utf8').trim()
    const headers = { authorization: `Bearer ${token}` }
    assert.match((await ask(api, 'GET', '/metrics', { headers })).text, /^symport_bytes_in_total 5$/m)
    assert.equal((await ask(api, 'GET', '/metrics')).status, 401)
    assert.equal((await ask(api, 'GET', '/readyz')).status, 200)
    for (const command of [['nodes', 'add', 'a'], ['mappings', 'remove', '1'], ['reload']]) {
      const refused = await runHere(stage, [...command, ...state])
      const why = 'symport: this is a node, which can only be looked at: ask its server'
      assert.deepEqual([refused.status, refused.stderr], [1, why])
    }

    const from = node.lines.length
    server.killGroup()
    await logLine(node, 'that the link is lost', ({ server }) => server === name, from)
    assert.equal((await ask(api, 'GET', '/healthz')).status, 200)
    assert.equal((await ask(api, 'GET', '/readyz')).status, 503)
    assert.deepEqual(await node.stop(), { status: 0, signal: null })
    assert.equal(existsSync(stage.path('node', 'admin.sock')), false)
  })

  test('is told that a node is not ready which has not connected, and may ask for all that in a file', async (t) => {
    const stage = new Stage(t)
    const file = stage.path('node.toml')
    writeFileSync(file, `role = "node"\nhost = "127.0.0.1:1"\nuuid = "${SECRET}"\n[admin]\nlisten = "127.0.0.1:0"\n`, {
      mode: 0o600,
    })
    const node = await start(stage, ['node', '--config', file, '--state', stage.path('node')])
    const answer = await ask(await apiOf(node), 'GET', '/readyz')
    assert.deepEqual(answer.json, { ready: false, reason: 'the server is not connected' })
    assert.equal(answer.status, 503)
  })

  test('without --admin there is no socket, so that nodes and a server may share a state folder', async (t) => {
    const { stage, where } = await setUp(t)
    const node = await start(stage, ['node', ...where, '--state', stage.path('server')])
    await logged(node, 'connected')
    const taken = await run(stage, ['node', ...where, '--state', stage.path('server'), '--admin', '127.0.0.1:0'])
    assert.equal(taken.status, 1)
    assert.match(taken.stderr, /^symport: another server runs with the state folder [^\n]*: --state takes another one$/)
  })
})

async function json(stage: Stage, ...args: string[]): Promise<unknown> {
  const { status, stdout, stderr } = await runHere(stage, args)
  assert.deepEqual([status, stderr], [0, ''])
  return JSON.parse(stdout)
}
