import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const ROOT = new URL('../../../../', import.meta.url)

/** The names of all keys that a file may have, at any depth. */
function keysOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return []
  const properties = 'properties' in schema && !Array.isArray(schema) ? schema.properties : undefined
  return [...Object.keys(properties ?? {}), ...Object.values(schema).flatMap(keysOf)]
}

test('config.md names every key that a file may have, and none twice in a section', () => {
  const schema: unknown = JSON.parse(readFileSync(new URL('config.schema.json', ROOT), 'utf8'))
  const page = readFileSync(new URL('doc/config.md', ROOT), 'utf8')
  // Those of lists of SPECs are spelled as their flags, too.
  const keys = [...new Set(keysOf(schema).map((key) => key.replaceAll('_', '-')))]
  assert.ok(keys.length > 60, `${keys.length} keys`)
  const named = (key: string): boolean =>
    [`\`${key}\``, `"${key}"`, `[${key}]`, `${key} =`].some((form) => page.includes(form))
  assert.deepEqual(
    keys.filter((key) => !named(key)),
    [],
  )
  const twice = page.split(/^## /m).flatMap((section) => {
    const rows = [...section.matchAll(/^\| (`[^|]+) \|/gm)].map(([, first = '']) => first)
    return rows.filter((row, i) => rows.indexOf(row) !== i)
  })
  assert.deepEqual(twice, [], 'rows of a section that are there twice')
})
