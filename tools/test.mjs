// Runs the compiled tests below the named folders of dist/test, with the other arguments passed on to `node --test`.
// Node.js 20 knows no patterns there, and later ones no folders: it is given the files.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Those that take longest begin: what is left at the end is short, and the workers end together. */
const LONG = [
  'e2e/resume',
  'e2e/nodes',
  'e2e/connect',
  'e2e/transports',
  'contract/attackers-floods',
  'e2e/limits',
  'e2e/names',
  'e2e/admin-server',
  'contract/fairness',
  'contract/one-port',
  'e2e/mappings',
  'contract/resume-cuts',
].map((name) => join('dist/test', `${name}.test.js`))

/**
 * Unit tests are small, and a process for each would take longer than they do: so many share one, in groups that are the
 * same each time. What changes a clock, an environment or a function of Node.js for a while puts it back.
 */
const GROUP = 12
const GROUPS = 'dist/test/groups'

const args = process.argv.slice(2)
const flags = args.filter((arg) => arg.startsWith('-'))
const files = args
  .filter((arg) => !arg.startsWith('-'))
  .flatMap((folder) => {
    const root = join('dist/test', folder)
    const names = existsSync(root) ? readdirSync(root, { recursive: true, encoding: 'utf8' }) : []
    return names.filter((name) => name.endsWith('.test.js')).map((name) => join(root, name))
  })
  .sort()
if (files.length === 0) {
  console.error('no tests found: npm run build')
  process.exit(1)
}

/** @param {string[]} units */
function grouped(units) {
  rmSync(GROUPS, { recursive: true, force: true })
  mkdirSync(GROUPS, { recursive: true })
  const count = Math.ceil(units.length / GROUP)
  return Array.from({ length: count }, (_, number) => {
    const file = join(GROUPS, `unit-${number + 1}.test.js`)
    // Neighbours go to different groups: they are about the same, and long together.
    const members = units.filter((_, index) => index % count === number)
    const lines = members.map((member) => `import '../../../${member.replaceAll('\\', '/')}'\n`)
    writeFileSync(file, lines.join(''))
    return file
  })
}

const unit = join('dist/test', 'unit')
const [units, others] = [files.filter((file) => file.startsWith(unit)), files.filter((file) => !file.startsWith(unit))]
const long = LONG.filter((file) => others.includes(file))
const rest = others.filter((file) => !long.includes(file))
const order = [...long, ...rest, ...grouped(units)]
const { status } = spawnSync(process.execPath, ['--test', ...flags, ...order], { stdio: 'inherit' })
process.exit(status ?? 1)
