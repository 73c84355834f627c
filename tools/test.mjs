// Runs the compiled tests below the named folders of dist/test, with the other arguments passed on to `node --test`.
// Node.js 20 knows no patterns there, and later ones no folders: it is given the files.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const GROUPS = 'dist/test/groups'

/**
 * Most tests are small, and a process for each file would take longer than they do: so many share one, in groups that are
 * the same each time. What changes a clock, an environment or a function of Node.js for a while puts it back. As many
 * files as are here to a group.
 */
const GROUP = { unit: 20, contract: 6, e2e: 3 }

/**
 * These have a process each: they change or measure something that belongs to a whole process, or take long. The longest
 * begin, so that what is left at the end is short, and the workers end together.
 */
const ALONE = [
  'contract/attackers-floods',
  'e2e/resume',
  'e2e/transports',
  'e2e/connect',
  'e2e/admin-server',
  'contract/fairness',
  'e2e/names',
  'e2e/publish',
  'e2e/limits',
  'e2e/identities',
  'contract/one-port',
  'contract/proxy-streams',
  'contract/resume-cuts',
  'contract/attach',
  'contract/channels',
  'contract/channels-attackers',
  'contract/embedding',
  'contract/limits',
  'contract/mapping-change',
  'contract/one-port-attackers',
  'contract/properties',
  'contract/resume-leaks',
  'contract/resume-memory',
  'contract/statistics',
  'contract/throttle',
  'contract/udp',
  'contract/web-http2-attackers',
].map((name) => join('dist/test', `${name}.test.js`))

/** These measure, or take all that the machine has: they come last, with nothing beside them. */
const QUIET = ['flood', 'http2', 'limits', 'many-nodes', 'resume', 'udp'].map((name) =>
  join('dist/test/system', `${name}.test.js`),
)

const args = process.argv.slice(2)
const flags = args.filter((arg) => arg.startsWith('-'))
const folders = args.filter((arg) => !arg.startsWith('-'))

/** @param {string} folder */
function testsIn(folder) {
  const root = join('dist/test', folder)
  const names = existsSync(root) ? readdirSync(root, { recursive: true, encoding: 'utf8' }) : []
  const files = names.filter((name) => name.endsWith('.test.js')).map((name) => join(root, name))
  return files.sort()
}

/**
 * The files to run in place of these.
 * @param {string} folder
 * @param {string[]} files
 */
function grouped(folder, files) {
  const size = GROUP[folder]
  if (!size) return files
  const count = Math.ceil(files.length / size)
  return Array.from({ length: count }, (_, number) => {
    const file = join(GROUPS, `${folder}-${number + 1}.test.js`)
    // Neighbours go to different groups: they are about the same, and long together.
    const members = files.filter((_, index) => index % count === number)
    const lines = members.map((member) => `import '../../../${member.replaceAll('\\', '/')}'\n`)
    writeFileSync(file, lines.join(''))
    return file
  })
}

rmSync(GROUPS, { recursive: true, force: true })
mkdirSync(GROUPS, { recursive: true })
const all = folders.map((folder) => ({ folder, files: testsIn(folder) }))
const found = all.flatMap(({ files }) => files)
if (found.length === 0) {
  console.error('no tests found: npm run build')
  process.exit(1)
}
const alone = ALONE.filter((file) => found.includes(file))
const rest = all.map(({ folder, files }) => ({ folder, files: files.filter((file) => !alone.includes(file)) }))
const order = [...alone, ...rest.flatMap(({ folder, files }) => grouped(folder, files))]

const reporter = flags.some((flag) => flag.startsWith('--test-reporter'))
  ? []
  : [`--test-reporter=${new URL('test-reporter.mjs', import.meta.url).href}`]
const folder = mkdtempSync(join(tmpdir(), 'symport-tests-'))
const env = { ...process.env, TEST_FAILED: join(folder, 'failed.json') }
// See test/helpers/core/kept-scrypt.ts. The system tests measure what a start costs, and do without.
const kept = folders.includes('system')
  ? []
  : ['--import', pathToFileURL(resolve('dist/test/helpers/core/kept-scrypt-main.js')).href]
if (kept.length > 0) {
  env.TEST_KEYS = join(folder, 'keys')
  mkdirSync(env.TEST_KEYS)
}

let interrupted = false

/**
 * @param {string[]} files
 * @param {string[]} more
 * @returns {Promise<number>}
 */
function run(files, more = []) {
  if (files.length === 0) return Promise.resolve(0)
  const child = spawn(process.execPath, [...kept, '--test', ...reporter, ...flags, ...more, ...files], {
    stdio: 'inherit',
    env,
  })
  const forward = (signal) => {
    interrupted = true
    child.kill(signal)
  }
  process.on('SIGINT', forward)
  process.on('SIGTERM', forward)
  return new Promise((done) => {
    child.on('exit', (status) => {
      process.off('SIGINT', forward)
      process.off('SIGTERM', forward)
      done(status ?? 130)
    })
  })
}

const quiet = order.filter((file) => QUIET.includes(file))
let status = await run(order.filter((file) => !quiet.includes(file)))
if (!interrupted) status = (await run(quiet, ['--test-concurrency=1'])) || status
rmSync(folder, { recursive: true, force: true })
process.exitCode = status
