import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** Bytes for each sub-connection. While some table or hidden class held on to what had ended it was about 4,000. */
const LEFT = 1500

test('sub-connections that have ended are young garbage: no full collection has to be made for them', async () => {
  const script = fileURLToPath(new URL('../helpers/core/garbage-main.js', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script], { timeout: 30_000 })
  const left = Number(stdout)
  assert.ok(left < LEFT, `${left} bytes are left of each`)
})
