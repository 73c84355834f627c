// Makes a fresh clone ready: installs what package-lock.json names and builds, each only when something changed.
// Plain JavaScript with no imports outside Node.js, because it runs before anything is installed.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
process.chdir(root)
const major = Number(process.versions.node.split('.')[0])
if (major < 20) {
  console.error(`symport needs Node.js 20.19 or later; this is ${process.version}`)
  process.exit(2)
}

function run(title, args) {
  if (process.stderr.isTTY) process.stderr.write(`${title} ...\n`)
  const [command, ...rest] = args
  const done = spawnSync(command, rest, { stdio: ['ignore', 'pipe', 'pipe'], shell: process.platform === 'win32' })
  if (done.status === 0) return
  process.stderr.write(`${title} failed:\n${done.stdout ?? ''}${done.stderr ?? ''}${done.error ?? ''}\n`)
  process.exit(1)
}

const lock = readFileSync('package-lock.json', 'utf8')
const stamp = 'node_modules/.symport-lock'
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) {
  run('installing the packages of package-lock.json', ['npm', 'ci', '--ignore-scripts', '--loglevel=error'])
  writeFileSync(stamp, lock)
}
run('building', [process.execPath, 'node_modules/typescript/bin/tsc', '-p', '.'])
// The compiler touches its own file only when something has changed.
if (changedAt('dist/.tsbuildinfo') > changedAt('dist/apps/bundle/main.js')) {
  run('bundling', [process.execPath, 'tools/bundle.mjs'])
}

function changedAt(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}
