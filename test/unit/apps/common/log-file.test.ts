import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { LogFile } from '../../../../apps/common/log-file.ts'

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'symport-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8)

test('a log that was moved away goes on in a new one, and neither loses a line', (t) => {
  const path = join(folder(t), 'log')
  const file = new LogFile(path)
  file.write('1\n')
  renameSync(path, `${path}.1`)
  file.write('2\n')
  file.reopen()
  file.write('3\n')
  assert.equal(readFileSync(`${path}.1`, 'utf8'), '1\n2\n')
  assert.equal(readFileSync(path, 'utf8'), '3\n')
  file.reopen()
  file.write('4\n')
  assert.equal(readFileSync(path, 'utf8'), '3\n4\n')
})

test('a log is nobody else’s to read, and the next one is as private as the last', {
  skip: process.platform === 'win32',
}, (t) => {
  const path = join(folder(t), 'log')
  const before = process.umask(0)
  t.after(() => process.umask(before))
  const file = new LogFile(path)
  assert.equal(mode(path), '640')
  for (const [changed, next] of [
    [0o600, '600'],
    [0o666, '600'],
  ] as const) {
    chmodSync(path, changed)
    if (changed === 0o666) chmodSync(path, 0o606)
    renameSync(path, `${path}.1`)
    file.reopen()
    assert.equal(mode(path), next)
  }
})

test('where there can be no new one, the old one goes on', (t) => {
  const path = join(folder(t), 'folder')
  execFileSync('mkdir', [path])
  const file = new LogFile(join(path, 'log'))
  renameSync(path, `${path}-away`)
  file.reopen()
  file.write('still here\n')
  assert.equal(readFileSync(join(`${path}-away`, 'log'), 'utf8'), 'still here\n')
})

test('what a full disk does not take is lost, and the next one takes lines again', {
  skip: !existsSync('/dev/full'),
}, (t) => {
  const path = join(folder(t), 'log')
  symlinkSync('/dev/full', path)
  const file = new LogFile(path)
  for (let count = 0; count < 1000; count++) file.write('lost\n')
  unlinkSync(path)
  file.reopen()
  file.write('again\n')
  assert.equal(readFileSync(path, 'utf8'), 'again\n')
})

test('a reader that takes nothing is not waited for long; lines are whole again when it does', {
  skip: process.platform === 'win32',
}, (t) => {
  const path = join(folder(t), 'pipe')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.after(() => closeSync(fd))
  const file = new LogFile(fd)
  const line = `${'x'.repeat(997)}\n`
  const began = performance.now()
  for (let count = 0; count < 1000; count++) file.write(line)
  assert.ok(performance.now() - began < 2000, 'a thousand lines, of which it takes 65')
  const read = Buffer.alloc(1 << 20)
  let length = readSync(fd, read)
  file.write('the next\n')
  file.write('and one more\n')
  length += readSync(fd, read, { offset: length })
  const lines = read.toString('utf8', 0, length).split('\n')
  assert.deepEqual(lines.slice(-3), ['the next', 'and one more', ''])
  assert.ok(lines.filter((text) => text === line.trim()).length > 30)
})
