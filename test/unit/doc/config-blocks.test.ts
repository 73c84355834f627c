import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../../apps/common/config.ts'
import { makeToken } from '../../../lib/core/index.ts'

const ROOT = new URL('../../../../', import.meta.url)
const PAGES = ['README.md', ...readdirSync(new URL('doc/', ROOT)).map((file) => `doc/${file}`)].filter((file) =>
  file.endsWith('.md'),
)
/** In the place of the secrets that pages do not show. */
const TOKEN = makeToken(new Uint8Array(16), new Uint8Array(32).fill(9))

test('every configuration file that a page shows is a good one', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'symport-doc-'))
  t.after(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'secret.txt'), TOKEN, { mode: 0o600 })
  let count = 0
  for (const page of PAGES) {
    const text = readFileSync(new URL(page, ROOT), 'utf8')
    for (const [, kind = '', block = ''] of text.matchAll(/^```(toml|json)\n(.*?)^```/gms)) {
      // The answers of the API are JSON too.
      if (kind === 'json' && !/"(port|mapping|server)":/.test(block)) continue
      const path = join(folder, `${++count}.${kind}`)
      writeFileSync(path, block.replace('symport_...', TOKEN), { mode: 0o600 })
      const role = /^"?server"? *[=:]/m.test(block) ? 'node' : 'server'
      await assert.doesNotReject(loadConfig(path, role), `${page}:\n${block}`)
    }
  }
  assert.ok(count >= 5, `${count} blocks`)
})
