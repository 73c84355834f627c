import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Script } from 'node:vm'
import { Stage } from '../helpers/system/stage.ts'
import { ROOT, symportEnvironment } from '../helpers/system/symport.ts'

const BIN = `${ROOT}apps/cli/bin/`

/** What Node.js 12 cannot parse (it has ES2019, and import()), as it would stand in code. */
const TOO_NEW: readonly [string, RegExp][] = [
  ['optional chaining', /\?\.(?!\d)/],
  ['nullish coalescing', /\?\?/],
  ['logical assignment', /(\|\||&&|\?\?)=/],
  ['a private name', /[.{;\s]#[a-z]/i],
  ['a number with a separator', /\d_\d/],
  ['a bigint', /\b\d+n\b/],
  ['a static block', /\bstatic\s*\{/],
  ['await outside a function', /^\s*(?:const .*= )?await\b/m],
  ['node: in a require', /require\(['"]node:/],
  ['replaceAll and other new methods', /\.(replaceAll|at|hasOwn|findLast|toSorted|structuredClone)\(/],
]

function plainCode(text: string): string {
  return text
    .replace(/^#!.*/, '')
    .replace(/\/\/.*$/gm, '')
    .replace(/\/\*.*?\*\//gs, '')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, (text) => (text.startsWith("'node:") ? text : "''"))
}

describe('a Node.js that is too old', () => {
  test('can parse the files that it is given first', () => {
    const files = readdirSync(BIN).filter((name) => name.endsWith('.cjs'))
    assert.deepEqual(files.sort(), ['start.cjs', 'symport-node.cjs', 'symport-server.cjs', 'symport.cjs'])
    for (const name of files) {
      const text = readFileSync(BIN + name, 'utf8')
      assert.doesNotThrow(() => new Script(text, { importModuleDynamically: async () => assert.fail() }), name)
      for (const [what, pattern] of TOO_NEW) assert.doesNotMatch(plainCode(text), pattern, `${name}: ${what}`)
    }
  })

  for (const version of ['12.0.0', '18.20.4', '20.18.3']) {
    test(`${version} prints which version is needed, and ends with 2`, async (t) => {
      const stage = new Stage(t)
      const preload = stage.path('old.cjs')
      writeFileSync(
        preload,
        `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } })
Object.defineProperty(process, 'version', { value: 'v${version}' })\n`,
      )
      for (const name of ['symport.cjs', 'symport-server.cjs', 'symport-node.cjs'].slice(
        0,
        version === '12.0.0' ? 3 : 1,
      )) {
        const { status, output } = await stage.run(process.execPath, ['--require', preload, BIN + name, '--help'], {
          env: symportEnvironment(stage),
        })
        assert.equal(output, `symport: Node.js ${version} is too old: 20.19 or later is needed`)
        assert.equal(status, 2)
      }
    })
  }

  test('symport-server and symport-node are the commands of these names', async (t) => {
    const stage = new Stage(t)
    for (const name of ['server', 'node']) {
      const output = await stage.must(process.execPath, [`${BIN}symport-${name}.cjs`, '--help'], {
        env: symportEnvironment(stage),
      })
      assert.match(output, new RegExp(`^Usage: symport ${name} `))
    }
  })
})
