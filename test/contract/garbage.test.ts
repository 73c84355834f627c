import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** Bytes for each sub-connection. While some table or hidden class held on to what had ended it was about 4,000. */
const LEFT = 1500
/** The two ends are streams, and so is the echo: a `Transform`, with what two have. */
const STREAMS = 4

test('sub-connections that have ended are young garbage: no full collection has to be made for them', async () => {
  const script = fileURLToPath(new URL('../helpers/core/garbage-main.js', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script], { timeout: 30_000 })
  const { ofEach, ofStream } = JSON.parse(stdout)
  assert.ok(ofEach < LEFT + STREAMS * Math.max(0, ofStream), `of each are left: ${stdout}`)
})
