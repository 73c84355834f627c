import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { MappingRequest } from '../../lib/hub/operations.ts'
import { echo, nobodyListens } from '../helpers/contract/programs.ts'
import { eventually, watchForStrays } from '../helpers/contract/strays.ts'
import { ANYWHERE, ask, fill, hub, named, stateFolder } from '../helpers/hub/mappings.ts'

watchForStrays()

const limit = { timeout: 20_000 }
const FILE = 'mappings.json'

test('mappings of run time are there again after a restart, with their ids and all that was said', limit, async (t) => {
  const folder = await stateFolder(t)
  await using target = await named('hello')
  const request: MappingRequest = {
    ...{ listen: ANYWHERE, forward: target.endpoint, nodes: ['a', 'b'], note: 'ä note', wait: 7 },
    balance: 'least-connections',
    health: { interval: 5000 },
  }
  let before: unknown
  {
    await using here = await hub({ folder })
    await assert.rejects(stat(folder.path), { code: 'ENOENT' }, 'nothing is written before there is something')
    await here.table.add({ listen: ANYWHERE, forward: ':1' })
    const { bound: _, ...kept } = await here.table.add(request)
    before = { ...kept, targets: [] }
    const off = await here.table.add({ listen: ANYWHERE, forward: ':3' })
    await here.table.setEnabled(off.id, false)
    await here.table.add({ listen: ANYWHERE, forward: ':4' })
    await here.table.remove('4')
    await here.table.remove('1')
  }
  await using here = await hub({ folder })
  const [again, off, more] = here.table.status()
  assert.ok(again)
  const { bound, ...rest } = again
  assert.deepEqual(rest, before)
  assert.ok(bound)
  assert.deepEqual([off?.id, off?.state, more], ['3', 'disabled', undefined])
  await here.join('b')
  assert.equal(await ask(again), 'hello')
  assert.equal((await here.table.add({ listen: ANYWHERE, forward: ':5' })).id, '5', 'an id is not used twice')
})

test('what comes from elsewhere is called the same after a restart, in whatever order', limit, async (t) => {
  const folder = await stateFolder(t)
  const Listen = { Domain: 'tcp', Addr: ANYWHERE }
  const spec = { Listen, Forward: { Domain: 'tcp', Addr: ':9' } }
  const requests = [1, 2, 3].map((port) => ({ listen: ANYWHERE, forward: `127.0.0.1:${port}` }))
  const ids = (here: Awaited<ReturnType<typeof hub>>): Record<string, string> =>
    Object.fromEntries(here.table.status().map(({ id, forward }) => [forward.Addr, id]))
  let before: Record<string, string>
  {
    await using here = await hub({ folder, unstarted: true })
    await here.table.setCommandLine([spec, spec])
    await here.table.setConfigured(requests)
    await here.table.add({ listen: ANYWHERE, forward: ':7' })
    before = ids(here)
  }
  await using here = await hub({ folder, unstarted: true })
  await here.table.setConfigured([...requests].reverse())
  await here.table.setCommandLine([spec, spec])
  assert.deepEqual(ids(here), before)
  assert.equal(here.table.size, 6)
  await here.table.setConfigured([])
  await here.table.setConfigured(requests)
  const all = here.table.status().map(({ id }) => id)
  assert.deepEqual(all, ['1', '2', '6', '7', '8', '9'], 'what was removed and comes again is another one')
})

test('a change that cannot be written is told, and has not happened', limit, async (t) => {
  const folder = await stateFolder(t)
  await using here = await hub({ folder })
  await using target = await named('hello')
  await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint })
  const asleep = await here.table.add({ listen: ANYWHERE, forward: ':1', enabled: false })
  await using spare = await echo()
  const listen = spare.endpoint
  await spare[Symbol.asyncDispose]()
  const before = here.table.status()
  const text = await readFile(folder.file(FILE), 'utf8')
  const events = here.events.length
  const free = fill(folder)
  const code = 'PROXY_ERR_STATE'
  const adds = [':1', ':2', ':3'].map((forward) => here.table.add({ listen: ANYWHERE, forward }))
  const results = await Promise.allSettled([...adds, here.table.add({ listen, forward: ':4' })])
  assert.deepEqual(
    results.map((result) => result.status === 'rejected' && result.reason.code),
    [code, code, code, code],
  )
  await assert.rejects(here.table.remove(mapping.id), { code })
  await assert.rejects(here.table.setEnabled(mapping.id, false), { code })
  await assert.rejects(here.table.setEnabled(asleep.id, true), { code })
  assert.deepEqual(here.table.status(), before)
  assert.equal(here.events.length, events, 'nothing is told that has not happened')
  assert.equal(await ask(mapping), 'hello')
  await nobodyListens(listen)
  assert.equal(await readFile(folder.file(FILE), 'utf8'), text)
  // What needs no file goes on without one.
  assert.equal((await here.table.setConfigured([{ listen, forward: ':4' }])).length, 1)
  await here.table.setConfigured([])
  free()
  assert.equal((await here.table.add({ listen, forward: ':4' })).bound?.Addr, listen.Addr)
})

test('a damaged file is an error with its name, and stays as it is', limit, async (t) => {
  const folder = await stateFolder(t)
  {
    await using here = await hub({ folder })
    await here.table.add({ listen: ANYWHERE, forward: ':1' })
  }
  const text = await readFile(folder.file(FILE), 'utf8')
  const path = folder.file(FILE)
  const twice = JSON.parse(text)
  twice.value.entries.push(twice.value.entries[0])
  const bad = [
    '',
    text.slice(0, -20),
    text.replace('"1"', '"x"'),
    text.replace('"enabled"', '"e"'),
    JSON.stringify(twice),
  ]
  for (const damaged of bad) {
    await writeFile(path, damaged)
    await assert.rejects(hub({ folder }), { code: 'PROXY_ERR_STATE', message: /mappings\.json is damaged/ })
    assert.equal(await readFile(path, 'utf8'), damaged)
  }
  await writeFile(path, text)
  await using here = await hub({ folder })
  assert.equal(here.table.size, 1)
})

test('after a kill -9 in the middle of writes all that was said to be kept is there', limit, async (t) => {
  const folder = await stateFolder(t)
  const program = fileURLToPath(new URL('../helpers/hub/mapping-adder-main.js', import.meta.url))
  const said = new Set<string>()
  for (const wait of [3, 11, 20]) {
    const child = spawn(process.execPath, [program, folder.path], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk
    })
    await eventually(() => text.split('\n').length > wait, 'it adds', 10_000)
    child.kill('SIGKILL')
    await once(child, 'close')
    for (const id of text.split('\n').slice(0, -1)) {
      assert.ok(!said.has(id), `${id} is not used twice`)
      said.add(id)
    }
    await using here = await hub({ folder, unstarted: true })
    const kept = here.table.status().map(({ id }) => id)
    assert.deepEqual(
      [...said].filter((id) => !kept.includes(id)),
      [],
    )
    assert.ok(kept.length <= said.size + 3, 'and of each run one at most that was under way')
  }
})

test('a thousand mappings are written in few writes, and are there at once after a restart', limit, async (t) => {
  const folder = await stateFolder(t)
  let writes = 0
  const { write } = folder
  folder.write = (name, text) => {
    writes++
    return write.call(folder, name, text)
  }
  {
    await using here = await hub({ folder })
    const all = Array.from({ length: 1000 }, (_, i) => here.table.add({ listen: ANYWHERE, forward: `:${i + 1}` }))
    await Promise.all(all)
    assert.ok(writes <= 6, `${writes} writes`)
  }
  await using here = await hub({ folder })
  assert.equal(here.told('listener-ready').length, 1000)
  assert.equal(here.told('listener-failed').length, 0)
})
