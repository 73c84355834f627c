import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const ROOT = new URL('../../../../', import.meta.url)
const page = readFileSync(new URL('doc/from-gnar.md', ROOT), 'utf8')
const published: { anyOf: unknown[]; definitions: Record<string, unknown> } = JSON.parse(
  readFileSync(new URL('config.schema.json', ROOT), 'utf8'),
)

/** Whether a schema has a key, as `peer-listener.note`, in any of its forms. */
function has(schema: unknown, [key, ...rest]: readonly string[]): boolean {
  if (key === undefined) return true
  if (typeof schema !== 'object' || schema === null) return false
  const { $ref, anyOf, items, properties }: { [name: string]: unknown } = { ...schema }
  if (typeof $ref === 'string') return has(published.definitions[$ref.replace('#/definitions/', '')], [key, ...rest])
  if (Array.isArray(anyOf) && anyOf.some((one) => has(one, [key, ...rest]))) return true
  if (items !== undefined && has(items, [key, ...rest])) return true
  const inner = typeof properties === 'object' && properties !== null ? new Map(Object.entries(properties)) : new Map()
  return inner.has(key) && has(inner.get(key), rest)
}

test('each key that stands for a setting of gnar is one of our files', () => {
  let count = 0
  for (const [, cells = ''] of page.matchAll(/^\| (.*) \|$/gm)) {
    const [setting = '', , keys = ''] = cells.split(' | ')
    for (const [, key = ''] of keys.matchAll(/`([^`]+)`/g)) {
      count++
      assert.ok(
        published.anyOf.some((role) => has(role, key.split('.'))),
        `${setting}: there is no ${key}`,
      )
    }
  }
  assert.ok(count >= 20, `${count} keys`)
  assert.equal(has(published.anyOf[0], ['no-such-key']), false)
})

test('every setting of gnar has its line', () => {
  const settings = [
    ...['port', 'token', 'admin-port', 'domain', 'domain-tunnel', 'multiplex', 'caddy-srv-name'],
    ...['server-addr', 'proxys[]', 'forwards[]', 'proxy-name', 'subdomain', 'local-port', 'remote-port', 'proxy-type'],
    'speed-limit',
  ]
  const first = [...page.matchAll(/^\| ([^|]*) \|/gm)].map(([, cell = '']) => cell)
  for (const setting of settings) {
    assert.ok(
      first.some((cell) => cell.includes(`\`${setting}\``)),
      setting,
    )
  }
})
