import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const FOLDER = new URL('../../../doc/examples/', import.meta.url)
const SOURCES = new URL('../../../../doc/examples/', import.meta.url)
const OUTPUT: Readonly<Record<string, string>> = {
  attached: 'the node is connected\nhello from behind the node\nthe web server itself\n',
  'attached-fastify': 'example is connected\nthe app itself\n',
  embedded: 'hello from behind the node\n',
  'memory-link': 'HELLO THROUGH THE TUNNEL\n',
  'own-key': 'hello from behind the node\n',
  service: '1: FIRST QUESTION\n2: SECOND QUESTION\n',
}

test('every example is run here', () => {
  const files = readdirSync(SOURCES).filter((file) => file.endsWith('.ts'))
  assert.deepEqual(
    files.sort(),
    Object.keys(OUTPUT)
      .map((name) => `${name}.ts`)
      .sort(),
  )
})

for (const [name, output] of Object.entries(OUTPUT)) {
  test(`doc/examples/${name}.ts prints its line and exits by itself`, async () => {
    const file = fileURLToPath(new URL(`${name}.js`, FOLDER))
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { timeout: 30_000 })
    assert.equal(stdout, output)
    assert.equal(stderr, '')
  })
}
