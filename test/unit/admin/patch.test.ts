import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { codeOf, messageOf, serveAdmin } from '../../helpers/admin/client.ts'
import { someMapping, someNode } from '../../helpers/admin/fake-operations.ts'

const API = '/api/v1'
const AS_PATCH = { 'content-type': 'application/merge-patch+json' }

describe('PATCH', { concurrency: 4 }, () => {
  test('changes a mapping and a node, with the type of RFC 7396 as well as plain JSON', async (t) => {
    const { ask, operations, errors } = await serveAdmin(t)
    operations.mappingList.push(someMapping('1'))
    operations.nodeList.push(someNode('a'))
    const change = {
      limits: { in: 1000, quota: null, visitor: { connections: 3 }, allow: ['192.0.2.0/24'] },
      http: { basicAuth: { joe: { password: 'x' }, ann: null }, requestHeaders: { Cookie: null }, maintenance: null },
      note: null,
    }
    const changed = await ask('PATCH', `${API}/mappings/1`, { body: change })
    assert.deepEqual([changed.status, changed.json], [200, operations.mappings()[0]])
    const node = await ask('PATCH', `${API}/nodes/a`, {
      raw: JSON.stringify({ limits: { out: 5 }, expires: '2099-12-31', grants: { dial: null } }),
      headers: AS_PATCH,
    })
    assert.deepEqual([node.status, node.json], [200, operations.nodes()[0]])
    assert.deepEqual(operations.changes, [
      change,
      { limits: { out: 5 }, expires: '2099-12-31T23:59:59.999Z', grants: { dial: null } },
    ])
    assert.deepEqual(errors, [])
  })

  test('a list is no object, at any depth', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.mappingList.push(someMapping('1'))
    operations.nodeList.push(someNode('a'))
    const bodies: [object, string][] = [
      [[], 'the request is not an object'],
      [{ limits: [] }, '"limits" is not an object'],
      [{ limits: { in: 5, visitor: [] } }, '"limits.visitor" is not an object'],
    ]
    for (const [body, message] of bodies) {
      for (const of of ['mappings/1', 'nodes/a']) {
        const answer = await ask('PATCH', `${API}/${of}`, { body })
        assert.deepEqual([answer.status, codeOf(answer), messageOf(answer)], [400, 'PROXY_ERR_REQUEST', message])
      }
    }
    assert.deepEqual(operations.changes, [])
  })

  test('is written down, with what came of it', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.mappingList.push(someMapping('1'), someMapping('2', { source: 'config' }))
    operations.nodeList.push(someNode('a'))
    await ask('PATCH', `${API}/mappings/1`, { body: { note: 'x' } })
    await ask('PATCH', `${API}/nodes/a`, { body: { limits: null } })
    const refused = await ask('PATCH', `${API}/mappings/2`, { body: { note: 'x' } })
    assert.deepEqual([refused.status, codeOf(refused)], [403, 'PROXY_ERR_READ_ONLY'])
    for (const path of ['/mappings/x', '/nodes/x']) {
      const none = await ask('PATCH', API + path, { body: {} })
      assert.deepEqual([none.status, codeOf(none)], [404, 'PROXY_ERR_NOT_FOUND'])
    }
    const { json } = await ask('GET', `${API}/audit`)
    assert.ok(Array.isArray(json))
    assert.deepEqual(
      json.map(({ action, subject, error }) => [action, subject, error]),
      [
        ['node.change', 'x', 'PROXY_ERR_NOT_FOUND'],
        ['mapping.change', 'x', 'PROXY_ERR_NOT_FOUND'],
        ['mapping.change', '2', 'PROXY_ERR_READ_ONLY'],
        ['node.change', 'a', undefined],
        ['mapping.change', '1', undefined],
      ],
    )
  })

  test('is refused where it makes no sense, in one line that names the key', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    operations.mappingList.push(someMapping('1'))
    operations.nodeList.push(someNode('a'))
    const bad: readonly (readonly [string, unknown, RegExp])[] = [
      ['/mappings/1', { limts: null }, /^unknown key "limts": did you mean "limits"\?$/],
      ['/mappings/1', { limits: { qutoa: 1 } }, /^unknown key "limits\.qutoa": did you mean "quota"\?$/],
      ['/mappings/1', { limits: { in: '1MB' } }, /^"limits\.in": bytes per second/],
      ['/mappings/1', { limits: { allow: ['everybody'] } }, /^"limits\.allow\.0": an address or a CIDR/],
      ['/mappings/1', { http: { hostHeader: 'a b' } }, /^"http\.hostHeader"/],
      ['/mappings/1', { listen: ':1' }, /^unknown key "listen"/],
      ['/mappings/1', [], /^the request is not an object$/],
      ['/nodes/a', { limits: { rate: 0 } }, /^"limits\.rate": a whole number/],
      ['/nodes/a', { expires: '30d' }, /^"expires" is not a date in ISO 8601/],
      ['/nodes/a', { expires: '2099-02-30' }, /no such day/],
      ['/nodes/a', { secret: 'x' }, /^unknown key "secret"/],
    ]
    for (const [path, body, message] of bad) {
      const answer = await ask('PATCH', API + path, { body })
      assert.deepEqual([answer.status, codeOf(answer)], [400, 'PROXY_ERR_REQUEST'], JSON.stringify(body))
      assert.match(messageOf(answer), message)
    }
    const poisoned = await ask('PATCH', `${API}/mappings/1`, { raw: '{"__proto__": {"x": 1}}', headers: AS_PATCH })
    assert.equal(poisoned.status, 400)
    assert.equal((await ask('PATCH', `${API}/mappings/1`, { raw: '{', headers: AS_PATCH })).status, 400)
    assert.equal((await ask('PATCH', `${API}/mappings/1`)).status, 400)
    assert.deepEqual(operations.changes, [])
  })

  test('what is added may have limits from the start', async (t) => {
    const { ask, operations } = await serveAdmin(t)
    const limits = { out: 7, visitor: { rate: 1 } }
    const http = { inspect: true, basicAuth: { joe: { password: 'x' } } }
    const mapping = await ask('POST', `${API}/mappings`, {
      body: { listen: 'web://x.com', forward: ':1', limits, http },
    })
    assert.equal(mapping.status, 201)
    assert.equal((await ask('POST', `${API}/nodes`, { body: { id: 'a', limits } })).status, 201)
    assert.deepEqual([operations.mappings()[0]?.limits, operations.nodes()[0]?.limits], [limits, limits])
    const bad = await ask('POST', `${API}/nodes`, { body: { id: 'b', limits: { allow: ['10.0.0.0/99'] } } })
    assert.match(messageOf(bad), /^"limits\.allow\.0"/)
  })
})
