import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { cleanEnvironment } from '../../helpers/system/child.ts'
import { ROOT } from '../../helpers/system/symport.ts'

/** What tools/test-reporter.mjs says of a run, in a folder of its own. */

const REPORTER = pathToFileURL(join(ROOT, 'tools/test-reporter.mjs')).href
const TEST = "import { describe, test } from 'node:test'\n"
const FILES = {
  'good.test.mjs': `${TEST}console.log('all is well')\ntest('is good', (t) => t.diagnostic('by the way'))\ntest('is not yet', { todo: true }, () => { throw 1 })`,
  'bad.test.mjs': `${TEST}console.log('look here')\ndescribe('a suite', () => {
    test('is bad', () => { throw new Error('two\\nlines') })
    test('is good', () => {})
  })`,
  'ends.test.mjs': `${TEST}test('ends', () => process.exit(3))`,
  'garbage.test.mjs': 'no such thing',
  'none.test.mjs': '',
  'hangs.test.mjs': `${TEST}test('for ever', () => new Promise(() => setTimeout(() => {}, 6000)))`,
}
/** Node.js 20 ends a file that takes too long; later versions end the test, and wait for the file. */
const ENDS_FILES = Number.parseInt(process.versions.node, 10) < 24
const HANGS = ENDS_FILES
  ? ['  hangs.test.mjs: the whole file', '    test timed out after 3000ms; running: for ever']
  : ['  hangs.test.mjs: for ever', '    test timed out after 3000ms']

let folder = ''
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'symport-'))
  for (const [name, text] of Object.entries(FILES)) writeFileSync(join(folder, name), text)
})
after(() => rmSync(folder, { recursive: true, force: true }))

function report(...names: (keyof typeof FILES)[]): { status: number | null; stdout: string } {
  const args = ['--test', '--test-concurrency=2', '--test-timeout=3000', `--test-reporter=${REPORTER}`, ...names]
  return spawnSync(process.execPath, args, { cwd: folder, env: cleanEnvironment(), encoding: 'utf8' })
}

test('a run without failures is a line for each file, the totals and the slowest', () => {
  const { status, stdout } = report('good.test.mjs')
  assert.equal(status, 0)
  assert.match(
    stdout,
    /^ok +\d\.\d s {2}good\.test\.mjs\n\n2 tests, 1 pass, 0 fail, 0 cancelled, 0 skipped, 1 todo in \d\.\d s; the slowest:\n +\d\.\d s {2}good\.test\.mjs\n$/,
  )
})

test('what fails, crashes, hangs or has no tests is red, and named at the very end', () => {
  const { status, stdout } = report(...(Object.keys(FILES) as (keyof typeof FILES)[]))
  assert.equal(status, 1)
  const end = stdout.slice(stdout.indexOf('\nfailed: ') + 1).trimEnd()
  assert.deepEqual(
    end.split('\n').sort(),
    [
      'failed: 5',
      '  bad.test.mjs:4: a suite > is bad',
      '    two lines',
      '  ends.test.mjs: the whole file',
      '    the process has failed: status 3',
      '  garbage.test.mjs: the whole file',
      "    the process has failed: status 1; SyntaxError: Unexpected identifier 'such'",
      '  none.test.mjs: the whole file',
      '    has no tests',
      ...HANGS,
    ].sort(),
  )
  assert.match(stdout, /^FAILED bad\.test\.mjs:4: a suite > is bad\n {2}Error: two\n {2}lines\n {6}at /m)
  assert.match(stdout, /^FAILED +\d\.\d s {2}bad\.test\.mjs\nit has printed:\n {2}look here$/m)
  assert.match(stdout, /^FAILED +\d\.\d s {2}garbage\.test\.mjs$/m)
  assert.doesNotMatch(stdout, /all is well|is not yet/)
})
