import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

const ROOT = new URL('../../../../', import.meta.url)
const PAGES = [
  'README.md',
  'supervisor/README.md',
  ...readdirSync(new URL('doc/', ROOT))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `doc/${file}`),
]

/** The anchors of a page, as GitHub and npm make them out of headings. */
function anchors(text: string): Set<string> {
  const headings = text.replace(/^```.*?^```/gms, '').match(/^#+ .*$/gm) ?? []
  return new Set(
    headings.map((line) =>
      line
        .replace(/^#+ /, '')
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}

for (const page of PAGES) {
  test(`every link of ${page} leads to a file and heading that are there`, () => {
    const here = new URL(page, ROOT)
    const text = readFileSync(here, 'utf8')
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      const [path = '', anchor] = target.split('#')
      const file = path === '' ? here : new URL(path, here)
      assert.ok(existsSync(file), `${target}: there is no such file`)
      if (anchor === undefined) continue
      assert.ok(anchors(readFileSync(file, 'utf8')).has(anchor), `${target}: there is no such heading`)
    }
  })
}
