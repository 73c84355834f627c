import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import { AuditLog } from '../../../lib/admin/audit.ts'
import { createRoutes } from '../../../lib/admin/routes.ts'
import * as shapes from '../../../lib/admin/schemas.ts'
import { serveAdmin, temporaryFolder } from '../../helpers/admin/client.ts'
import { connectedNode, FakeOperations, someMapping } from '../../helpers/admin/fake-operations.ts'

// What OpenAPI 3.1.0 demands of a document (section 4.8), as far as this one uses it.
const jsonSchema = v.union([v.boolean(), v.looseObject({})])
const content = v.record(v.string(), v.strictObject({ schema: jsonSchema }))
const operation = v.strictObject({
  summary: v.pipe(v.string(), v.minLength(1)),
  tags: v.array(v.string()),
  security: v.optional(v.array(v.record(v.string(), v.array(v.string())))),
  parameters: v.optional(
    v.array(
      v.strictObject({
        name: v.string(),
        in: v.picklist(['path', 'query']),
        required: v.boolean(),
        schema: jsonSchema,
      }),
    ),
  ),
  requestBody: v.optional(v.strictObject({ required: v.optional(v.boolean()), content })),
  responses: v.record(
    v.pipe(v.string(), v.regex(/^(?:[1-5]\d\d|default)$/)),
    v.strictObject({ description: v.string(), content: v.optional(content) }),
  ),
})
const document = v.strictObject({
  openapi: v.literal('3.1.0'),
  info: v.strictObject({ title: v.string(), description: v.string(), version: v.string() }),
  components: v.strictObject({
    securitySchemes: v.strictObject({
      token: v.strictObject({ type: v.literal('http'), scheme: v.literal('bearer') }),
    }),
    schemas: v.strictObject({}),
  }),
  security: v.array(v.strictObject({ token: v.array(v.string()) })),
  paths: v.record(
    v.pipe(v.string(), v.startsWith('/')),
    v.record(v.picklist(['get', 'post', 'patch', 'delete']), operation),
  ),
})

test('the document is OpenAPI 3.1, and every route is in it', async (t) => {
  const { ask, errors } = await serveAdmin(t)
  const { json } = await ask('GET', '/api/v1/openapi.json')
  const { paths } = v.parse(document, json)
  const listed = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  const audit = new AuditLog(temporaryFolder(t))
  const routes = createRoutes({ operations: new FakeOperations(), audit, onError: () => {} })
  const expected = routes.map(({ method, url }) => `${method} /api/v1${url.replace(':id', '{id}')}`)
  const others = ['/api/v1/events', '/api/v1/openapi.json', '/healthz', '/readyz', '/metrics'].map(
    (url) => `GET ${url}`,
  )
  assert.deepEqual(listed.sort(), [...expected, ...others].sort())
  assert.equal(expected.length, 27)

  // Every parameter in a path is described, and every route in the document is one that answers.
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { parameters = [] }] of Object.entries(methods)) {
      const described = parameters.filter((one) => one.in === 'path').map(({ name }) => name)
      assert.deepEqual(described, path.includes('{id}') ? ['id'] : [], path)
      if (path.endsWith('/events')) continue
      const answer = await ask(method.toUpperCase(), path.replace('{id}', 'x'))
      assert.doesNotMatch(answer.text, /see \/api\/v1\/openapi\.json/, `${method} ${path}`)
    }
  }
  assert.deepEqual(errors, [])
})

test('what is described is what is asked and answered', async (t) => {
  const { ask } = await serveAdmin(t)
  const { json } = await ask('GET', '/api/v1/openapi.json')
  const { paths } = v.parse(document, json)
  const body = paths['/api/v1/mappings']?.post?.requestBody?.content['application/json']?.schema
  assert.ok(typeof body === 'object')
  const { properties, required, additionalProperties } = body
  assert.ok(typeof properties === 'object' && properties)
  assert.deepEqual(Object.keys(properties).sort(), [
    'balance',
    'enabled',
    'forward',
    'health',
    'http',
    'limits',
    'listen',
    'nodes',
    'note',
    'wait',
  ])
  assert.deepEqual([required, additionalProperties], [['listen', 'forward'], false])
  for (const [schema, value] of [
    [shapes.nodeStatus, connectedNode('a')],
    [shapes.mappingStatus, someMapping('1')],
    [shapes.serverStatus, new FakeOperations().status()],
  ] as const) {
    assert.deepEqual(v.parse(v.object({ value: schema }), { value }), { value })
  }
})
