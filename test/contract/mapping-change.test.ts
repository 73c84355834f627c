import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { tcp } from '../../lib/domains/tcp.ts'
import { createWeb } from '../../lib/domains/web.ts'
import type { MappingChange } from '../../lib/hub/operations.ts'
import { watchForStrays } from '../helpers/contract/strays.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'
import { ANYWHERE, fill, hub, named, stateFolder, visit } from '../helpers/hub/mappings.ts'

watchForStrays()

const limit = { timeout: 20_000 }
const SITE = { listen: 'web://shop.example.com', forward: ':3000' }

test('limits and all else that can be changed change while it listens, and are kept', limit, async (t) => {
  const folder = await stateFolder(t)
  {
    await using here = await hub({ folder })
    const { id, bound } = await here.table.add({
      listen: ANYWHERE,
      forward: ':9',
      limits: { in: 5, visitor: { rate: 2 } },
    })
    const told = here.next('mapping')
    const changed = await here.table.change(id, {
      limits: { in: null, out: 7, visitor: { connections: 3 } },
      ...{ note: 'n', nodes: ['a', 'a'], wait: 5, health: { interval: 5000 }, balance: 'round-robin' },
    })
    assert.deepEqual(changed.limits, { out: 7, visitor: { rate: 2, connections: 3 } })
    assert.deepEqual([changed.note, changed.nodes, changed.wait, changed.balance], ['n', ['a'], 5, 'round-robin'])
    assert.deepEqual(changed.bound, bound, 'it listens where it did')
    assert.equal((await told).change, 'changed')
    assert.deepEqual((await here.table.change(id, { health: { timeout: 100 } })).health, {
      interval: 5000,
      timeout: 100,
    })
  }
  await using here = await hub({ folder })
  const [again] = here.table.status()
  assert.deepEqual(again?.limits, { out: 7, visitor: { rate: 2, connections: 3 } })
  const gone = { limits: null, note: null, nodes: null, wait: null, health: null, balance: null }
  const { limits, note, nodes, wait, health, balance } = await here.table.change(again?.id ?? '', gone)
  assert.deepEqual(
    { limits, note, nodes, wait, health, balance },
    {
      ...{ limits: undefined, note: '', nodes: [], wait: 5000, health: undefined, balance: 'first' },
    },
  )
})

test('what is open goes on while it is changed', limit, async () => {
  await using target = await named('hello')
  await using here = await hub()
  await here.join('a')
  const mapping = await here.table.add({ listen: ANYWHERE, forward: target.endpoint })
  const { socket } = await visit(mapping)
  await here.table.change(mapping.id, { limits: { connections: 5 }, note: 'other' })
  const ended = once(socket, 'end')
  socket.end()
  await ended
  assert.equal(socket.errored, null)
  socket.destroy()
})

test('a change that says what is so already is no event', limit, async () => {
  await using here = await hub()
  const { id } = await here.table.add({ listen: ANYWHERE, forward: ':9', limits: { in: 5 } })
  await here.table.change(id, { limits: { in: 5, out: null } })
  await here.table.change(id, {})
  assert.deepEqual(
    here.told('mapping').map(({ change }) => change),
    ['added'],
  )
})

test('of a password only the hash is kept, and neither is shown', limit, async (t) => {
  using _scrypt = cheapScrypt()
  const folder = await stateFolder(t)
  await using here = await hub({ folder, domains: [tcp(), ...createWeb().domains] })
  const { id, http } = await here.table.add({
    ...SITE,
    http: {
      basicAuth: { joe: { password: 'hunter2' } },
      requestHeaders: { Authorization: 'Bearer abcdef', 'X-Env': 'a' },
    },
  })
  assert.deepEqual(http, { basicAuth: ['joe'], requestHeaders: { Authorization: '(hidden)', 'X-Env': 'a' } })
  const changed = await here.table.change(id, {
    http: { basicAuth: { ann: { password: 'correct horse' } }, requestHeaders: { Cookie: null }, maintenance: true },
  })
  assert.deepEqual(changed.http, { basicAuth: ['joe', 'ann'], requestHeaders: { Cookie: null }, maintenance: true })
  const file = await readFile(folder.file('mappings.json'), 'utf8')
  assert.match(file, /"joe": "\$scrypt\$/)
  assert.match(file, /"ann": "\$scrypt\$/)
  for (const text of [file, JSON.stringify(here.table.status())]) assert.doesNotMatch(text, /hunter2|correct horse/)
  assert.doesNotMatch(JSON.stringify(here.table.status()), /scrypt|abcdef/)
  const left = await here.table.change(id, { http: { basicAuth: { joe: null }, requestHeaders: null } })
  assert.deepEqual(left.http, { basicAuth: ['ann'], maintenance: true })
  // Nobody means all to let all in by this.
  await assert.rejects(here.table.change(id, { http: { basicAuth: { ann: null } } }), { code: 'PROXY_ERR_REQUEST' })
  assert.deepEqual((await here.table.change(id, { http: { basicAuth: null, maintenance: null } })).http, undefined)
})

test('a value that is not shown stays what it is when it is sent back so', limit, async (t) => {
  const folder = await stateFolder(t)
  await using here = await hub({ folder, domains: [tcp(), ...createWeb().domains] })
  const before = { Authorization: 'Bearer abcdef', 'X-Api-Key': null, 'X-Env': 'a' }
  const { id, http } = await here.table.add({ ...SITE, http: { requestHeaders: before } })
  const { Authorization, ...others } = http?.requestHeaders ?? {}
  assert.equal(Authorization, '(hidden)')
  const headers = { ...others, authorization: '(hidden)', 'X-Env': '(hidden)' }
  await here.table.change(id, { http: { requestHeaders: headers } })
  const kept = await readFile(folder.file('mappings.json'), 'utf8')
  assert.deepEqual(JSON.parse(kept).value.entries[0].settings.http.requestHeaders, {
    'X-Api-Key': null,
    'X-Env': '(hidden)',
    authorization: 'Bearer abcdef',
  })
  const refused = { code: 'PROXY_ERR_REQUEST', message: /^http\.re\w+Headers: .*write the value itself$/ }
  for (const bad of [
    { requestHeaders: { 'X-Api-Key': '(hidden)' } },
    { responseHeaders: { 'Set-Cookie': '(hidden)' } },
  ]) {
    await assert.rejects(here.table.change(id, { http: bad }), refused)
    await assert.rejects(here.table.add({ ...SITE, listen: 'web://b.test', http: bad }), refused)
    await assert.rejects(here.table.setConfigured([{ ...SITE, listen: 'web://b.test', http: bad }]), refused)
  }
  assert.equal(await readFile(folder.file('mappings.json'), 'utf8'), kept)
})

test('what makes no sense is refused in one line, and changes nothing', limit, async () => {
  await using here = await hub({ domains: [tcp(), ...createWeb().domains] })
  const { id } = await here.table.add({ listen: ANYWHERE, forward: ':9', limits: { in: 5 } })
  const site = await here.table.add(SITE)
  const before = here.table.status()
  const bad: readonly (readonly [string, MappingChange | object, RegExp])[] = [
    [id, { limits: { in: -1 } }, /^limits\.in: bytes per second/],
    [id, { limits: { quta: 1 } }, /did you mean "quota"/],
    [id, { limits: { visitor: { quota: 1 } } }, /visitor\.quota/],
    [id, { limit: null }, /did you mean "limits"/],
    [id, { listen: ':1' }, /"listen" is not known here/],
    [id, { enabled: false }, /"enabled" is not known here/],
    [id, { http: { maintenance: true } }, /http is for mappings that listen at the web port/],
    [site.id, { http: { basicAuth: { joe: 'hunter2' } } }, /basicAuth/],
    [site.id, { http: { basicAuth: { 'a:b': { password: 'x' } } } }, /basicAuth/],
    [site.id, { http: { basicAuth: {} } }, /null is for all/],
    [site.id, { http: { requestHeaders: { 'X-A': 'a\r\nX-B: b' } } }, /one line/],
    [id, [], /object/],
    [id, { limits: [] }, /object/],
    [id, { limits: { visitor: [] } }, /object/],
    [id, { limits: 5 }, /limits/],
  ]
  for (const [of, change, message] of bad) {
    await assert.rejects(here.table.change(of, change as MappingChange), (error: Error & { code?: string }) => {
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /hunter2|\n/)
      return error.code === 'PROXY_ERR_REQUEST'
    })
  }
  await assert.rejects(here.table.change('99', {}), { code: 'PROXY_ERR_NOT_FOUND' })
  assert.deepEqual(here.table.status(), before)
})

test(
  'mappings of the file change with the file: they listen on, and their passwords stay the same',
  limit,
  async () => {
    using _scrypt = cheapScrypt()
    await using here = await hub({ domains: [tcp(), ...createWeb().domains] })
    const http = { basicAuth: { joe: { password: 'hunter2' } } }
    const requests = (out: number) => [
      { listen: ANYWHERE, forward: ':9', limits: { out } },
      { ...SITE, http },
    ]
    await here.table.setConfigured(requests(1))
    const [before] = here.table.status()
    const lines = await here.table.setConfigured(requests(2))
    assert.deepEqual(lines, [`mapping 1 changed (limits): tcp://${ANYWHERE} to tcp://127.0.0.1:9`])
    const [after] = here.table.status()
    assert.deepEqual([after?.limits, after?.bound], [{ out: 2 }, before?.bound])
    assert.deepEqual(await here.table.setConfigured(requests(2)), [], 'the same file changes nothing')
    const other = [requests(2)[0] ?? SITE, { ...SITE, http: { basicAuth: { joe: { password: 'hunter3' } } } }]
    assert.match((await here.table.setConfigured(other)).join(), /mapping 2 changed \(http\)/)
    await assert.rejects(here.table.change('1', { note: 'x' }), { code: 'PROXY_ERR_READ_ONLY' })
  },
)

test('a change that cannot be kept is taken back', limit, async (t) => {
  const folder = await stateFolder(t)
  await using here = await hub({ folder })
  const { id } = await here.table.add({ listen: ANYWHERE, forward: ':9', limits: { in: 5 } })
  fill(folder)
  await assert.rejects(here.table.change(id, { limits: { in: 6 } }), { code: 'PROXY_ERR_STATE' })
  assert.deepEqual(here.table.get(id)?.limits, { in: 5 })
})
