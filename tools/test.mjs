// Runs the compiled tests below the named folders of dist/test, with the other arguments passed on to `node --test`.
// Node.js 20 knows no patterns there, and later ones no folders: it is given the files.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const args = process.argv.slice(2)
const flags = args.filter((arg) => arg.startsWith('-'))
const files = args
  .filter((arg) => !arg.startsWith('-'))
  .flatMap((folder) => {
    const root = join('dist/test', folder)
    const names = existsSync(root) ? readdirSync(root, { recursive: true, encoding: 'utf8' }) : []
    return names.filter((name) => name.endsWith('.test.js')).map((name) => join(root, name))
  })
if (files.length === 0) {
  console.error('no tests found: npm run build')
  process.exit(1)
}
const { status } = spawnSync(process.execPath, ['--test', ...flags, ...files.sort()], { stdio: 'inherit' })
process.exit(status ?? 1)
