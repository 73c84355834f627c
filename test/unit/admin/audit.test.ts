import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, statSync } from 'node:fs'
import { describe, test } from 'node:test'
import { AuditLog } from '../../../lib/admin/audit.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { serveAdmin, temporaryFolder } from '../../helpers/admin/client.ts'
import { someMapping, someNode } from '../../helpers/admin/fake-operations.ts'

describe('the audit log', { concurrency: 4 }, () => {
  test('has every change with who, what and how it ended, and nothing that only looks', async (t) => {
    const { ask, askTcp, operations, folder } = await serveAdmin(t, { tcp: { host: '127.0.0.1', port: 0 } })
    operations.mappingList.push(someMapping('9', { source: 'config' }))
    const json = { 'content-type': 'application/json' }
    const token = async (): Promise<string> => `Bearer ${(await folder.read('admin-token'))?.text.trim()}`
    await ask('GET', '/api/v1/nodes')
    await ask('POST', '/api/v1/nodes', { body: { id: 'a', secret: 'never to be seen' } })
    await askTcp('POST', '/api/v1/nodes', { raw: '{"id":"a"}', headers: { ...json, authorization: await token() } })
    await ask('POST', '/api/v1/nodes:batch', { body: { nodes: [{ id: 'b' }] } })
    for (const verb of ['disable', 'enable', 'kick', 'rotate']) await ask('POST', `/api/v1/nodes/a/${verb}`)
    await ask('DELETE', '/api/v1/nodes/a')
    await ask('POST', '/api/v1/mappings', { body: { listen: ':80', forward: { Domain: 'tcp', Addr: ':81' } } })
    await ask('POST', '/api/v1/mappings/9/disable')
    await ask('POST', '/api/v1/reload')
    await ask('POST', '/api/v1/nodes', { body: { id: 7 } })
    const text = readFileSync(folder.file('audit.log'), 'utf8')
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line): unknown[] => {
        const { by, action, subject, error, at } = JSON.parse(line)
        assert.ok(Math.abs(Date.parse(at) - Date.now()) < 60_000)
        return [by, action, subject, error]
      })
    assert.deepEqual(lines, [
      ['cli', 'node.add', 'a', undefined],
      ['api 127.0.0.1', 'node.add', 'a', 'PROXY_ERR_EXISTS'],
      ['cli', 'node.add', 'b', undefined],
      ['cli', 'node.disable', 'a', undefined],
      ['cli', 'node.enable', 'a', undefined],
      ['cli', 'node.kick', 'a', undefined],
      ['cli', 'node.rotate', 'a', undefined],
      ['cli', 'node.remove', 'a', undefined],
      ['cli', 'mapping.add', ':80', undefined],
      ['cli', 'mapping.disable', '9', 'PROXY_ERR_READ_ONLY'],
      ['cli', 'config.reload', '', undefined],
    ])
    assert.doesNotMatch(text, /never to be seen|symport_/)
    assert.equal(statSync(folder.file('audit.log')).mode & 0o777, 0o600)
    const newest = await ask('GET', '/api/v1/audit?limit=2')
    assert.ok(Array.isArray(newest.json))
    assert.deepEqual(
      newest.json.map(({ action }) => action),
      ['config.reload', 'mapping.disable'],
    )
    const all = await ask('GET', '/api/v1/audit')
    assert.ok(Array.isArray(all.json) && all.json.length === 11)
  })

  test('is one file and an older one, however many changes there are, and is read across both', async (t) => {
    const folder = temporaryFolder(t)
    const log = new AuditLog(folder, { largest: 1000 })
    for (let i = 0; i < 100; i++) await log.add({ by: 'cli', action: 'node.add', subject: `n${i}` })
    for (const name of ['audit.log', 'audit.log.1']) assert.ok(statSync(folder.file(name)).size <= 1000, name)
    assert.throws(() => statSync(folder.file('audit.log.2')))
    const entries = await log.read(12)
    assert.deepEqual(
      entries.map(({ subject }) => subject),
      Array.from({ length: 12 }, (_, i) => `n${99 - i}`),
    )
    assert.ok(readFileSync(folder.file('audit.log'), 'utf8').split('\n').length < 13, 'some are of the older one')
  })

  test('keeps the order of changes at the same time, and leaves out a line that a crash has cut', async (t) => {
    const folder = temporaryFolder(t)
    const log = new AuditLog(folder)
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => log.add({ by: 'cli', action: 'node.add', subject: `n${i}` })),
    )
    appendFileSync(folder.file('audit.log'), '{"at":"2026\n[]\nnull\n')
    const entries = await log.read(1000)
    assert.deepEqual(
      entries.map(({ subject }) => subject).reverse(),
      Array.from({ length: 200 }, (_, i) => `n${i}`),
    )
  })

  test('cuts what is long, and keeps what is one entry on one line', async (t) => {
    const folder = temporaryFolder(t)
    const log = new AuditLog(folder)
    await log.add({ by: 'cli', action: 'mapping.add', subject: `a\nb${'x'.repeat(10_000)}` })
    const text = readFileSync(folder.file('audit.log'), 'utf8')
    assert.ok(text.length < 400)
    assert.equal(text.split('\n').length, 2)
  })

  test('a log that cannot be written is told, and the change is made all the same', async (t) => {
    const blocked = temporaryFolder(t)
    await blocked.write('file', '')
    const audit = new AuditLog(new StateFolder(blocked.file('file')))
    const { ask, operations, errors } = await serveAdmin(t, { audit })
    const answer = await ask('POST', '/api/v1/nodes', { body: { id: 'a' } })
    assert.equal(answer.status, 201)
    assert.equal(operations.nodes().length, 1)
    assert.ok(errors[0] instanceof ProxyError)
    assert.equal(errors[0].code, 'PROXY_ERR_STATE')
    await assert.rejects(audit.add({ by: 'cli', action: 'x', subject: '' }), { code: 'PROXY_ERR_STATE' })
    operations.nodeList.push(someNode('b'))
  })
})
