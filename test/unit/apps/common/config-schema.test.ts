import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fastify } from 'fastify'
import { parseConfigText } from '../../../../apps/common/config-file.ts'
import { checkFile, type Role, schemaOf } from '../../../../apps/common/config-schema.ts'
import { projectPath } from '../../../helpers/core/project.ts'

const published: unknown = JSON.parse(readFileSync(projectPath('config.schema.json'), 'utf8'))

test('config.schema.json is that of this version: node tools/config-schema.mjs', async () => {
  const tool: { publishedSchema(schema: typeof schemaOf): unknown } = await import(
    projectPath('tools/config-schema.mjs')
  )
  assert.deepEqual(published, JSON.parse(JSON.stringify(tool.publishedSchema(schemaOf))))
})

const GOOD: readonly [Role, object][] = [
  ['server', {}],
  ['server', { role: 'server', port: 8925, allow: 'a:1', 'allow-ports': ['1-2', '3'], balance: true }],
  ['server', { port: '925', mapping: [{ listen: ':1', forward: ':2', node: 'a', health: true, wait: '1s' }] }],
  [
    'server',
    { mapping: { listen: { Domain: 'tcp', Addr: ':1' }, forward: ':2', nodes: ['a'], health: { interval: '1s' } } },
  ],
  [
    'server',
    { listener: ['1:a:2', { Listen: { Domain: 'tcp', Addr: ':1' }, Forward: { Domain: 'tcp', Addr: ':2' } }] },
  ],
  [
    'server',
    {
      tls: { cert: 'a', key: 'b' },
      http: { path: '/x' },
      limits: { 'open-timeout': '1s' },
      buffers: { window: '1MiB' },
    },
  ],
  ['server', { buffers: { window: 1048576, held: '1 GiB' }, log: { level: 'info' }, admin: { listen: '127.0.0.1:1' } }],
  ['node', { role: 'node', server: 'wss://a/b', id: 'x', 'peer-listener': '1:a:2', $schema: 'x' }],
  [
    'node',
    { listener: [{ listen: ':1', forward: ':2', note: 'x', enabled: false }], tls: { ca: 'x' }, keepalive: '1.5s' },
  ],
  ['node', { client: { server: 'a:1', auth: 'x', local: 'tcp://ssh:x@:1', remote: ['tunnel://a:b@'], dynamic: '1' } }],
  [
    'node',
    {
      client: [
        { server: 'a:1', 'uuid-file': 'x', listener: '1:a:2', 'peer-listener': [{ listen: ':1', forward: ':2' }] },
        { server: 'a:1', allow: 'a:1', proxy: 'none', pin: `sha256:${'0'.repeat(64)}`, id: 'x' },
      ],
    },
  ],
  [
    'node',
    {
      dynamic: ['1080'],
      listener: [{ listen: ':1', forward: { Domain: 'channel', Addr: 'ssh', Password: 'x' } }],
      'peer-listener': [{ listen: 'channel://x:y@', forward: { Domain: 'tunnel', Addr: '' } }],
    },
  ],
  ['server', { 'allow-names': ['*.example.com', '/x'], listener: 'web://x.com,tcp://:80' }],
]
const BAD: readonly [Role, object][] = [
  ['server', { hots: 'x' }],
  ['server', { port: 1.5 }],
  ['server', { port: true }],
  ['server', { allow: 5 }],
  ['server', { allow: [''] }],
  ['server', { balance: 'yes' }],
  ['server', { 'drain-timeout': '30' }],
  ['server', { keepalive: 30 }],
  ['server', { buffers: { window: '1XB' } }],
  ['server', { limits: { 'pending-opens': 1025 } }],
  ['server', { limits: { nothing: 1 } }],
  ['server', { log: { level: 'loud' } }],
  ['server', { log: [] }],
  ['server', { mapping: [{ listen: ':1' }] }],
  ['server', { mapping: [{ listen: ':1', forward: ':2', x: 1 }] }],
  ['server', { mapping: [{ listen: ':1', forward: ':2', balance: 'x' }] }],
  ['server', { 'peer-listener': [{ listen: ':1', forward: ':2', balance: 'first' }] }],
  ['node', { listener: [{ listen: ':1', forward: ':2', node: 'a' }], id: 'x' }],
  ['node', { client: [{ server: 'a', uuid: 5 }] }],
  ['node', { client: [{ uuid: 'a' }] }],
  ['node', { client: [{ server: 'a', host: 'b' }] }],
  ['node', { id: 'x', dynamic: [1080] }],
  ['node', { id: 'x', local: '' }],
  ['node', { id: 'x', mapping: [] }],
]

describe('the published schema takes what we take, and nothing that we do not take:', async () => {
  const app = fastify({ ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false } } })
  app.post('/', { schema: { body: published } }, () => 'good')
  const takes = async (file: object): Promise<boolean> => {
    const { statusCode, body } = await app.inject({ method: 'POST', url: '/', payload: file })
    assert.ok([200, 400].includes(statusCode), body)
    return statusCode === 200
  }
  for (const [role, file] of GOOD) {
    test(JSON.stringify(file), async () => {
      assert.deepEqual(checkFile(file, role).problems, [])
      assert.equal(await takes(file), true)
    })
  }
  for (const [role, file] of BAD) {
    test(`not ${JSON.stringify(file)}`, async () => {
      assert.notDeepEqual(checkFile(file, role).problems, [])
      assert.equal(await takes(file), false)
    })
  }
})

describe('doc/config.md', () => {
  const page = readFileSync(projectPath('doc/config.md'), 'utf8')

  test('has files that are good', async () => {
    const blocks = [...page.matchAll(/```(toml|json)\n(.*?)```/gs)]
    assert.equal(blocks.length, 5)
    for (const [, kind, text = ''] of blocks) {
      const raw = await parseConfigText(text, `x.${kind}`)
      assert.deepEqual(checkFile(raw).problems, [])
    }
  })

  test('names every key', () => {
    const { anyOf }: { anyOf: { properties: Record<string, { properties?: object }> }[] } = JSON.parse(
      readFileSync(projectPath('config.schema.json'), 'utf8'),
    )
    const keys = anyOf.flatMap(({ properties }) =>
      Object.entries(properties).flatMap(([key, inner]) => [key, ...Object.keys(inner.properties ?? {})]),
    )
    assert.ok(keys.includes('max-sessions'))
    assert.deepEqual(
      keys.filter((key) => !page.includes(`\`${key}\``) && !page.includes(`[${key}]`) && key !== '$schema'),
      ['peer_listener', 'peer_listener'],
    )
  })
})

test('every key of the published schema says what it is', () => {
  const silent: string[] = []
  const visit = (value: unknown, at: string): void => {
    if (typeof value !== 'object' || value === null) return
    for (const [name, inner] of Object.entries(value)) {
      if (name !== 'properties') {
        visit(inner, `${at}/${name}`)
        continue
      }
      for (const [key, schema] of Object.entries(inner as Record<string, object>)) {
        if (!('description' in schema)) silent.push(`${at}/${key}`)
        visit(schema, `${at}/${key}`)
      }
    }
  }
  visit(published, '')
  assert.deepEqual(silent, [])
})
