import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { projectPath } from '../helpers/core/project.ts'
import { readSources } from '../helpers/core/sources.ts'

/** Whole codes; `PROXY_ERR_RECORD_`, the beginning of several, is none. */
const CODE = /PROXY_ERR_[A-Z]+(?:_[A-Z]+)*(?![A-Z_])/g

const codes = new Set([...readSources('lib', 'apps').values()].flatMap((source) => source.match(CODE) ?? []))
const headings = [...readFileSync(projectPath('doc/errors.md'), 'utf8').matchAll(/^#+ .*$/gm)].flatMap(
  ([heading]) => heading.match(CODE) ?? [],
)

test('there are codes to look at', () => {
  assert.ok(codes.has('PROXY_ERR_REFUSED'))
  assert.ok(codes.size > 20)
})

test('every code has a heading in doc/errors.md', () => {
  assert.deepEqual(
    [...codes].filter((code) => !headings.includes(code)),
    [],
  )
})

test('no heading in doc/errors.md is without a code', () => {
  assert.deepEqual(
    headings.filter((heading) => !codes.has(heading)),
    [],
  )
})

test('no code has two headings, and they are in order', () => {
  assert.deepEqual(headings, [...new Set(headings)].sort())
})
