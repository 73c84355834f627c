import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { defaultStateFolder, StateFolder, stateError } from '../../../lib/store/state-folder.ts'

const posix = process.platform === 'win32' ? 'needs file modes' : false

async function temporary(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'symport-state-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return path
}
const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777

test('the default folder is XDG_STATE_HOME, else in the home, else /var/lib for root', () => {
  const at = { platform: 'linux', uid: 1000, home: '/home/a' } as const
  assert.equal(defaultStateFolder({ ...at, env: { XDG_STATE_HOME: '/s' } }), '/s/symport')
  assert.equal(defaultStateFolder({ ...at, env: {} }), '/home/a/.local/state/symport')
  assert.equal(defaultStateFolder({ ...at, env: { XDG_STATE_HOME: 'relative' } }), '/home/a/.local/state/symport')
  assert.equal(defaultStateFolder({ ...at, env: { XDG_STATE_HOME: '' } }), '/home/a/.local/state/symport')
  assert.equal(defaultStateFolder({ ...at, uid: 0, env: {} }), '/var/lib/symport')
  assert.equal(defaultStateFolder({ ...at, uid: 0, env: { XDG_STATE_HOME: '/s' } }), '/s/symport')
})

test('the default folder on Windows is in LOCALAPPDATA', () => {
  const at = { platform: 'win32', uid: undefined, home: 'C:\\Users\\a' } as const
  assert.equal(defaultStateFolder({ ...at, env: { LOCALAPPDATA: 'D:\\L' } }), 'D:\\L\\symport')
  assert.equal(defaultStateFolder({ ...at, env: {} }), 'C:\\Users\\a\\AppData\\Local\\symport')
})

test('a look for a file makes nothing', async (t) => {
  const path = join(await temporary(t), 'state')
  assert.equal(await new StateFolder(path).read('secret'), undefined)
  await assert.rejects(stat(path), { code: 'ENOENT' })
})

test('a write makes the folder with mode 700 and the file with mode 600', { skip: posix }, async (t) => {
  const folder = new StateFolder(join(await temporary(t), 'a', 'b'))
  await folder.write('secret', 'x')
  assert.equal(await modeOf(folder.path), 0o700)
  assert.equal(await modeOf(folder.file('secret')), 0o600)
  assert.deepEqual(await folder.read('secret'), { text: 'x', exposed: false })
})

test('a write replaces the file as a whole and leaves no other behind', async (t) => {
  const folder = new StateFolder(await temporary(t))
  await folder.write('secret', 'a long first text')
  await folder.write('secret', 'b')
  assert.equal((await folder.read('secret'))?.text, 'b')
  assert.deepEqual(await readdir(folder.path), ['secret'])
})

test('many writes at once leave one of the texts', async (t) => {
  const folder = new StateFolder(await temporary(t))
  const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(1000))
  await Promise.all(texts.map((text) => folder.write('x', text)))
  assert.ok(texts.includes((await folder.read('x'))?.text ?? ''))
  assert.deepEqual(await readdir(folder.path), ['x'])
})

test('of many creates at once one wins, and its text stays', async (t) => {
  const folder = new StateFolder(await temporary(t))
  const won = await Promise.all(Array.from({ length: 20 }, (_, i) => folder.create('x', `text ${i}`)))
  assert.equal(won.filter(Boolean).length, 1)
  assert.equal((await folder.read('x'))?.text, `text ${won.indexOf(true)}`)
  assert.equal(await folder.create('x', 'later'), false)
  assert.deepEqual(await readdir(folder.path), ['x'])
})

test('a file that others can read is made private, and said to have been exposed', { skip: posix }, async (t) => {
  const folder = new StateFolder(await temporary(t))
  await writeFile(folder.file('secret'), 'x')
  await chmod(folder.file('secret'), 0o640)
  assert.deepEqual(await folder.read('secret'), { text: 'x', exposed: true })
  assert.equal(await modeOf(folder.file('secret')), 0o600)
  assert.deepEqual(await folder.read('secret'), { text: 'x', exposed: false })
})

test('an existing folder keeps its mode', { skip: posix }, async (t) => {
  const path = await temporary(t)
  await chmod(path, 0o755)
  await new StateFolder(path).write('x', 'y')
  assert.equal(await modeOf(path), 0o755)
})

test('a path that goes through a file is a plain error', async (t) => {
  const path = join(await temporary(t), 'file')
  await writeFile(path, '')
  for (const folder of [new StateFolder(path), new StateFolder(join(path, 'below'))]) {
    const message = `cannot write ${folder.file('secret')}: a part of this path is a file (--state takes another folder)`
    await assert.rejects(folder.write('secret', 'x'), { name: 'ProxyError', code: 'PROXY_ERR_STATE', message })
    await assert.rejects(folder.read('secret'), { code: 'PROXY_ERR_STATE', message: /^cannot read / })
  }
})

test('a folder or something huge in the place of a file is a plain error', { skip: posix }, async (t) => {
  const folder = new StateFolder(await temporary(t))
  await symlink('.', folder.file('x'))
  await assert.rejects(folder.read('x'), { code: 'PROXY_ERR_STATE', message: /it is a folder/ })
  await writeFile(folder.file('big'), Buffer.alloc(1024 * 1024 + 1))
  await assert.rejects(folder.read('big'), { code: 'PROXY_ERR_STATE', message: /it is too large/ })
})

test('a full, foreign or read-only disk is told in words', () => {
  const cause = (code: string): Error => Object.assign(new Error(`${code}: something, open 'x'`), { code })
  const message = (code: string): string => stateError('write', '/x/secret', cause(code)).message
  assert.equal(message('ENOSPC'), 'cannot write /x/secret: no space left')
  assert.equal(message('EACCES'), 'cannot write /x/secret: permission denied (--state takes another folder)')
  assert.match(message('EROFS'), /^cannot write \/x\/secret: the file system is read-only/)
  assert.equal(message('EWHATEVER'), 'cannot write /x/secret: EWHATEVER')
})

test('a pipe in place of a file is an error, and nobody waits for it', { skip: posix }, async (t) => {
  const folder = new StateFolder(await temporary(t))
  execFileSync('mkfifo', [folder.file('x')])
  await assert.rejects(folder.read('x'), { code: 'PROXY_ERR_STATE', message: /it is not a file/ })
})

test('what a link leads to is read, and not changed', { skip: posix }, async (t) => {
  const path = await temporary(t)
  const folder = new StateFolder(path)
  await writeFile(join(path, 'elsewhere'), 'text', { mode: 0o644 })
  await chmod(join(path, 'elsewhere'), 0o644)
  await symlink('elsewhere', folder.file('x'))
  assert.deepEqual(await folder.read('x'), { text: 'text', exposed: true })
  assert.equal(await modeOf(join(path, 'elsewhere')), 0o644)
})
