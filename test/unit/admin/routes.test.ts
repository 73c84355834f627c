import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ProxyError } from '../../../lib/core/errors.ts'
import { type Answer, codeOf, messageOf, type Served, serveAdmin } from '../../helpers/admin/client.ts'
import { connectedNode, START, someMapping, someNode } from '../../helpers/admin/fake-operations.ts'

const API = '/api/v1'

function refusal(answer: Answer): [number, unknown] {
  return [answer.status, codeOf(answer)]
}

async function message(served: Served, method: string, path: string, body: unknown): Promise<string> {
  const answer = await served.ask(method, API + path, { body })
  assert.deepEqual(refusal(answer), [400, 'PROXY_ERR_REQUEST'], messageOf(answer))
  return messageOf(answer)
}

describe('the API', { concurrency: 4 }, () => {
  test('shows the server, nodes, mappings and connections as the operations have them', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.nodeList.push(connectedNode('a'), someNode('b'))
    operations.mappingList.push(someMapping('1'), someMapping('2', { source: 'config' }))
    assert.deepEqual((await ask('GET', `${API}/status`)).json, operations.status())
    assert.deepEqual((await ask('GET', `${API}/nodes`)).json, operations.nodes())
    assert.deepEqual((await ask('GET', `${API}/nodes/b`)).json, operations.nodes()[1])
    assert.deepEqual((await ask('GET', `${API}/mappings`)).json, operations.mappings())
    assert.deepEqual((await ask('GET', `${API}/mappings/2`)).json, operations.mappings()[1])
    assert.deepEqual((await ask('GET', `${API}/connections`)).json, [])
  })

  test('adds a node, and tells its secret only if it was made', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    const made = await ask('POST', `${API}/nodes`, { body: { id: 'a', grants: { dial: ['127.0.0.1:80'] } } })
    assert.equal(made.status, 201)
    assert.deepEqual(made.json, { id: 'a', secret: operations.secrets.get('a') })
    const chosen = await ask('POST', `${API}/nodes`, { body: { id: 'b', secret: 'chosen by somebody' } })
    assert.deepEqual(chosen.json, { id: 'b' })
    assert.equal(operations.secrets.get('b'), 'chosen by somebody')
    assert.deepEqual(operations.nodes()[0]?.grants, { dial: ['127.0.0.1:80'] })
    assert.deepEqual(refusal(await ask('POST', `${API}/nodes`, { body: { id: 'a' } })), [409, 'PROXY_ERR_EXISTS'])
  })

  test('a day as expiry is its end in UTC, and there must be such a day', async (t) => {
    const served = await serveAdmin(t)
    const { ask, operations } = served
    await ask('POST', `${API}/nodes`, { body: { id: 'a', expires: '2099-12-31' } })
    await ask('POST', `${API}/nodes`, { body: { id: 'b', expires: '2099-12-31T12:00:00+02:00' } })
    assert.deepEqual(
      operations.nodes().map(({ expires }) => expires),
      ['2099-12-31T23:59:59.999Z', '2099-12-31T10:00:00.000Z'],
    )
    for (const expires of ['2099-02-30', 'soon', '30d', '2099-13-01', '']) {
      assert.match(await message(served, 'POST', '/nodes', { id: 'c', expires }), /expires/)
    }
  })

  test('enables, disables, rotates, kicks and removes a node', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.nodeList.push(connectedNode('a'))
    assert.deepEqual((await ask('POST', `${API}/nodes/a/kick`)).json, { kicked: 1 })
    assert.deepEqual((await ask('POST', `${API}/nodes/a/disable`)).json, { ...operations.nodes()[0], enabled: false })
    assert.equal(operations.nodes()[0]?.enabled, false)
    assert.equal((await ask('POST', `${API}/nodes/a/enable`, { body: {} })).status, 200)
    assert.equal(operations.nodes()[0]?.enabled, true)
    const rotated = await ask('POST', `${API}/nodes/a/rotate`)
    assert.deepEqual(rotated.json, { id: 'a', secret: operations.secrets.get('a') })
    const chosen = await ask('POST', `${API}/nodes/a/rotate`, { body: { secret: 'another one' } })
    assert.deepEqual([chosen.json, operations.secrets.get('a')], [{ id: 'a' }, 'another one'])
    const removed = await ask('DELETE', `${API}/nodes/a`)
    assert.deepEqual([removed.status, removed.text], [204, ''])
    assert.deepEqual(operations.nodes(), [])
  })

  test('an id may have any character that an id has', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    const id = "树莓派/%2e#?'&"
    operations.nodeList.push(someNode(id))
    const answer = await ask('GET', `${API}/nodes/${encodeURIComponent(id)}`)
    assert.deepEqual(answer.json, operations.nodes()[0])
  })

  test('adds many nodes, each for itself, with the outcomes in their order', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.nodeList.push(someNode('b'))
    const nodes = [{ id: 'a' }, { id: 'b' }, { id: 'c', secret: 'chosen' }]
    const answer = await ask('POST', `${API}/nodes:batch`, { body: { nodes } })
    assert.equal(answer.status, 200)
    const error = { code: 'PROXY_ERR_EXISTS', message: 'there is a node b already' }
    assert.deepEqual(answer.json, {
      nodes: [{ id: 'a', secret: operations.secrets.get('a') }, { id: 'b', error }, { id: 'c' }],
    })
    const many = Array.from({ length: 1001 }, (_, i) => ({ id: `n${i}` }))
    assert.equal((await ask('POST', `${API}/nodes:batch`, { body: { nodes: many } })).status, 400)
    assert.equal(operations.nodes().length, 3)
  })

  test('adds, disables, enables and removes a mapping', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    const body = {
      listen: ':8078',
      forward: { Domain: 'tcp', Addr: '127.0.0.1:8077' },
      nodes: ['a'],
      wait: 0,
      note: 'n',
    }
    const added = await ask('POST', `${API}/mappings`, { body })
    assert.equal(added.status, 201)
    assert.deepEqual(added.json, operations.mappings()[0])
    assert.deepEqual(operations.mappings()[0]?.nodes, ['a'])
    await ask('POST', `${API}/mappings/m1/disable`)
    assert.equal(operations.mappings()[0]?.state, 'disabled')
    await ask('POST', `${API}/mappings/m1/enable`)
    assert.equal(operations.mappings()[0]?.state, 'ready')
    assert.equal((await ask('DELETE', `${API}/mappings/m1`)).status, 204)
    assert.deepEqual(operations.mappings(), [])
  })

  test('what the configuration maps is read-only, what is not there is not found, and a bad half is 400', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.mappingList.push(someMapping('1', { source: 'config' }))
    for (const [method, path] of [
      ['DELETE', '/mappings/1'],
      ['POST', '/mappings/1/disable'],
    ] as const) {
      assert.deepEqual(refusal(await ask(method, API + path)), [403, 'PROXY_ERR_READ_ONLY'])
    }
    for (const [method, path] of [
      ['GET', '/nodes/x'],
      ['DELETE', '/nodes/x'],
      ['POST', '/nodes/x/kick'],
      ['POST', '/nodes/x/enable'],
      ['POST', '/nodes/x/rotate'],
      ['GET', '/mappings/x'],
      ['DELETE', '/mappings/x'],
      ['POST', '/mappings/x/enable'],
      ['GET', '/nowhere'],
      ['PUT', '/nodes'],
    ] as const) {
      assert.deepEqual(refusal(await ask(method, API + path)), [404, 'PROXY_ERR_NOT_FOUND'], path)
    }
    const bad = await ask('POST', `${API}/mappings`, { body: { listen: 'garbage', forward: ':1' } })
    assert.deepEqual(refusal(bad), [400, 'PROXY_ERR_SPEC'])
  })

  test('an unknown key is an error that names the one that was meant', async (t) => {
    const served = await serveAdmin(t)
    assert.equal(
      await message(served, 'POST', '/nodes', { id: 'a', epxires: '' }),
      'unknown key "epxires": did you mean "expires"?',
    )
    assert.equal(
      await message(served, 'POST', '/nodes', { id: 'a', grants: { dail: [] } }),
      'unknown key "grants.dail": did you mean "dial"?',
    )
    assert.equal(
      await message(served, 'POST', '/nodes:batch', { nodes: [{ id: 'a' }, { id: 'b', secert: 'x' }] }),
      'unknown key "nodes.1.secert": did you mean "secret"?',
    )
    assert.equal(
      await message(served, 'POST', '/mappings', { listen: ':1', forward: ':2', blance: 'first' }),
      'unknown key "blance": did you mean "balance"?',
    )
    assert.equal(await message(served, 'POST', '/reload', { now: true }), 'unknown key "now" (known: none)')
    const query = await served.ask('GET', `${API}/connections?limt=3`)
    assert.equal(messageOf(query), 'unknown key "limt": did you mean "limit"?')
    assert.deepEqual(served.operations.nodes(), [])
  })

  test('what has the wrong type is named', async (t) => {
    const served = await serveAdmin(t)
    const of = (path: string, body: unknown): Promise<string> => message(served, 'POST', path, body)
    assert.equal(await of('/nodes', { id: 7 }), '"id" is not a text')
    assert.equal(await of('/nodes', {}), '"id" is missing')
    assert.equal(await of('/nodes', { id: '' }), '"id" is empty')
    assert.equal(await of('/nodes', { id: 'a b' }), '"id" has a space in it, or a character that does not show')
    assert.equal(await of('/nodes', { id: 'x'.repeat(65) }), '"id" is too long: at most 64')
    assert.equal(await of('/nodes', []), 'the request is not an object')
    assert.equal(await of('/nodes', 'text'), 'the request is not an object')
    assert.equal(await of('/nodes', { id: 'a', grants: { dial: '127.0.0.1:80' } }), '"grants.dial" is not a list')
    for (const wait of ['5s', 1.5, -1, 1e9]) {
      const said = await of('/mappings', { listen: ':1', forward: ':2', wait })
      assert.equal(said, '"wait": a whole number of milliseconds, 0 to 60000', String(wait))
    }
    assert.equal(await of('/mappings', { listen: ':1', forward: ':2', enabled: 1 }), '"enabled": true or false')
    assert.match(await of('/mappings', { listen: 1, forward: ':2' }), /^"listen": an address, or/)
    assert.equal(
      await of('/mappings', { listen: ':1', forward: ':2', balance: 'fair' }),
      '"balance" is not one of "first", "round-robin", "least-connections"',
    )
    const missing = await served.ask('POST', `${API}/nodes`)
    assert.equal(messageOf(missing), 'the request has no body')
    assert.deepEqual(served.operations.nodes(), [])
  })

  test('what is no JSON, too large, or a form of another site is refused', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    const json = { 'content-type': 'application/json' }
    const post = (raw: string, headers: Record<string, string>): Promise<Answer> =>
      ask('POST', `${API}/nodes`, { raw, headers })
    assert.deepEqual(refusal(await post('{', json)), [400, 'PROXY_ERR_REQUEST'])
    assert.deepEqual(refusal(await post('{"__proto__":{"id":"a"}}', json)), [400, 'PROXY_ERR_REQUEST'])
    assert.deepEqual(refusal(await post('{"id":"a"}', { 'content-type': 'text/plain' })), [400, 'PROXY_ERR_REQUEST'])
    const form = { 'content-type': 'application/x-www-form-urlencoded' }
    assert.deepEqual(refusal(await post('id=a', form)), [400, 'PROXY_ERR_REQUEST'])
    const large = JSON.stringify({ id: 'a', secret: 'x'.repeat(1024 * 1024) })
    assert.deepEqual(refusal(await post(large, json)), [413, 'PROXY_ERR_REQUEST_TOO_LARGE'])
    assert.deepEqual(refusal(await ask('GET', `${API}/nodes/%`)), [400, 'PROXY_ERR_REQUEST'])
    assert.deepEqual(operations.nodes(), [])
  })

  test('an error that nobody foresaw is told to the log, and shows nothing of itself', async (t) => {
    const { ask, operations, errors } = await serveAdmin(t)
    operations.failure = new TypeError('secret internals')
    const answer = await ask('POST', `${API}/nodes`, { body: { id: 'a' } })
    assert.deepEqual(refusal(answer), [500, 'PROXY_ERR_INTERNAL'])
    assert.doesNotMatch(answer.text, /internals|at .*\.[jt]s/)
    assert.match(errors[0]?.message ?? '', /secret internals/)
    operations.failure = new ProxyError('PROXY_ERR_STATE', 'cannot write nodes.json: no space left')
    const full = await ask('POST', `${API}/nodes`, { body: { id: 'a' } })
    assert.deepEqual(
      [...refusal(full), messageOf(full)],
      [500, 'PROXY_ERR_STATE', 'cannot write nodes.json: no space left'],
    )
  })

  test('reload answers what changed, and why a bad file was not applied', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.report = { changes: ['mapping :80 added'], restart: ['--port'] }
    assert.deepEqual((await ask('POST', `${API}/reload`)).json, operations.report)
    operations.failure = new ProxyError('PROXY_ERR_CONFIG', 'symport.toml: unknown key "prot"')
    assert.deepEqual(refusal(await ask('POST', `${API}/reload`)), [400, 'PROXY_ERR_CONFIG'])
  })

  test('connections can be limited, and those of one node or mapping shown', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    for (let id = 0; id < 10; id++) {
      const node = id % 2 ? 'odd' : 'even'
      const mapping = id < 5 ? '1' : '2'
      operations.connectionList.push({ instance: 'i', id, node, mapping, created: START, bytesIn: 0, bytesOut: 0 })
    }
    const ids = async (query: string): Promise<unknown> => {
      const { json } = await ask('GET', `${API}/connections${query}`)
      return Array.isArray(json) ? json.map((one) => one.id) : json
    }
    assert.deepEqual(await ids('?limit=3'), [0, 1, 2])
    assert.deepEqual(await ids('?node=odd&limit=2'), [1, 3])
    assert.deepEqual(await ids('?node=odd&mapping=2'), [5, 7, 9])
    assert.deepEqual(await ids('?node=nobody'), [])
    for (const query of ['?limit=0', '?limit=x', '?limit=10001', '?limit=1&limit=2', '?limit=-1', '?limit=1e3']) {
      assert.deepEqual(refusal(await ask('GET', `${API}/connections${query}`)), [400, 'PROXY_ERR_REQUEST'], query)
    }
  })

  test('it is ready when the server listens and no mapping of the configuration failed', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    assert.equal((await ask('GET', '/healthz')).status, 200)
    assert.deepEqual([(await ask('GET', '/readyz')).status, (await ask('GET', '/readyz')).json], [200, { ready: true }])
    operations.mappingList.push(someMapping('1', { state: 'failed', problem: 'in use' }))
    assert.equal((await ask('GET', '/readyz')).status, 200, 'what came at run time does not count')
    operations.mappingList.push(someMapping('2', { state: 'failed', problem: 'in use', source: 'config' }))
    const failed = await ask('GET', '/readyz')
    assert.deepEqual([failed.status, failed.json], [503, { ready: false, reason: 'mapping 2 failed: in use' }])
    operations.address = ''
    assert.deepEqual((await ask('GET', '/readyz')).json, { ready: false, reason: 'the server does not listen' })
  })
})
