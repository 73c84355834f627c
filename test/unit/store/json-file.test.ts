import assert from 'node:assert/strict'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import * as v from 'valibot'
import { JsonFile } from '../../../lib/store/json-file.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'

const NUMBERS = v.array(v.number())

async function folderOf(t: TestContext): Promise<StateFolder> {
  const path = await mkdtemp(join(tmpdir(), 'symport-json-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return new StateFolder(join(path, 'state'))
}

const open = (folder: StateFolder): Promise<JsonFile<number[]>> => JsonFile.open(folder, 'numbers.json', NUMBERS, [])

test('what was changed is there again, private, after the next start', async (t) => {
  const folder = await folderOf(t)
  const file = await open(folder)
  assert.deepEqual(file.value, [])
  await assert.rejects(stat(folder.path), { code: 'ENOENT' })
  await file.change([1, 2])
  assert.deepEqual((await open(folder)).value, [1, 2])
  assert.equal((await stat(folder.file('numbers.json'))).mode & 0o777, 0o600)
})

test('a thousand changes at once are all on disk when their promises resolve, with few writes', async (t) => {
  const folder = await folderOf(t)
  const file = await open(folder)
  let writes = 0
  const { write } = folder
  folder.write = (name, text) => {
    writes++
    return write.call(folder, name, text)
  }
  await Promise.all(Array.from({ length: 1000 }, (_, i) => file.change([...file.value, i])))
  assert.equal((await open(folder)).value.length, 1000)
  assert.ok(writes <= 3, `${writes} writes`)
})

test('a long list is put into JSON in many turns of the event loop, and is there whole', async (t) => {
  const folder = await folderOf(t)
  const file = await open(folder)
  const numbers = Array.from({ length: 10_000 }, (_, i) => i)
  let turns = 0
  let turnsAtWrite = 0
  let over = false
  const count = (): void => {
    turns++
    if (!over) setImmediate(count)
  }
  const { write } = folder
  folder.write = (name, text) => {
    turnsAtWrite = turns
    return write.call(folder, name, text)
  }
  setImmediate(count)
  await file.change(numbers)
  over = true
  assert.ok(turnsAtWrite >= 5, `${turnsAtWrite} turns`)
  assert.deepEqual((await open(folder)).value, numbers)
})

test('objects, empty lists and fields that are left out are kept as JSON keeps them', async (t) => {
  const folder = await folderOf(t)
  const schema = v.record(v.string(), v.unknown())
  const file = await JsonFile.open(folder, 'any.json', schema, {})
  const value = { list: [], none: {}, out: undefined, deep: { lists: [[1], { a: 'ü\n"' }, null] }, '"key"': false }
  await file.change(value)
  const text = await readFile(folder.file('any.json'), 'utf8')
  assert.equal(text, `${JSON.stringify({ version: 1, value }, undefined, 1)}\n`)
})

test('a change that cannot be written is told, and taken back', async (t) => {
  const folder = await folderOf(t)
  const file = await open(folder)
  await file.change([1])
  const { write } = folder
  folder.write = () => Promise.reject(new Error('no space left'))
  const [first, second] = [file.change([2]), file.change([3])]
  await assert.rejects(first, /no space left/)
  await assert.rejects(second, /no space left/)
  assert.deepEqual(file.value, [1])
  folder.write = write
  await file.change([4])
  assert.deepEqual((await open(folder)).value, [4])
})

test('a file that is damaged is an error with its name, and stays as it is', async (t) => {
  const folder = await folderOf(t)
  await (await open(folder)).change([1])
  const path = folder.file('numbers.json')
  for (const text of ['', '{', '{"version":0,"value":[]}', '{"version":1,"value":["1"]}', '[]']) {
    await chmod(path, 0o600)
    await writeFile(path, text)
    await assert.rejects(open(folder), { code: 'PROXY_ERR_STATE', message: /numbers\.json is damaged/ })
    assert.equal(await readFile(path, 'utf8'), text)
  }
})

test('what stands in a damaged file is not told: it may be a key', async (t) => {
  const folder = await folderOf(t)
  await (await open(folder)).change([1])
  const path = folder.file('numbers.json')
  for (const [text, where] of [
    ['hunter2', 'it is no JSON'],
    ['{"version":1,"value":[1,"hunter2"]}', 'at value.1'],
    ['"hunter2"', 'at its beginning'],
  ] as const) {
    await writeFile(path, text, { mode: 0o600 })
    const message = `${path} is damaged (${where}): put it back, or delete it`
    await assert.rejects(open(folder), { code: 'PROXY_ERR_STATE', message })
  }
})

test('a file of a newer version is not called damaged: nobody should delete it', async (t) => {
  const folder = await folderOf(t)
  await (await open(folder)).change([1])
  const path = folder.file('numbers.json')
  await writeFile(path, '{"version":2,"value":{"numbers":[]}}', { mode: 0o600 })
  const message = `${path} is of a newer version of symport: run that one, or use another state folder`
  await assert.rejects(open(folder), { code: 'PROXY_ERR_STATE', message })
})

test('what could not be read again is not written', async (t) => {
  const folder = await folderOf(t)
  const file = await JsonFile.open(folder, 'text.json', v.string(), '')
  await file.change('small')
  const refused = { code: 'PROXY_ERR_STATE', message: /text\.json would be larger than 64 MiB/ }
  await assert.rejects(file.change('x'.repeat(64 * 1024 * 1024)), refused)
  assert.equal(file.value, 'small')
  await file.change('other')
  assert.equal((await JsonFile.open(folder, 'text.json', v.string(), '')).value, 'other')
})
