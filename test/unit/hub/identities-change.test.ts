import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { rawPublicKey } from '../../../lib/core/index.ts'
import { Identities } from '../../../lib/hub/identities.ts'
import type { NodeChange } from '../../../lib/hub/operations.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'

const SERVER_KEY = rawPublicKey(generateKeyPairSync('x25519').publicKey)

async function bench(t: TestContext) {
  const path = await mkdtemp(join(tmpdir(), 'symport-change-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  const folder = new StateFolder(join(path, 'state'))
  const again = (): Promise<Identities> => Identities.open(folder, { serverKey: async () => SERVER_KEY })
  const identities = await again()
  const told: string[] = []
  t.after(identities.onChanged((id, why) => told.push(`${id} ${why}`)))
  t.after(identities.onLimits((id) => told.push(`limits of ${id ?? 'all'}`)))
  return { folder, identities, told, again }
}

test('limits of a node are kept, merged, told and taken away', async (t) => {
  const { identities, told, again } = await bench(t)
  await identities.add({ id: 'a', limits: { in: 1000, visitor: { rate: 3 } } })
  assert.deepEqual(identities.limitsOf('a'), { in: 1000, visitor: { rate: 3 } })
  const psk = identities.pskFor('a', 'NKpsk0')
  await identities.change('a', {
    limits: { out: 2000, visitor: { rate: null, connections: 4 }, deny: ['192.0.2.0/24'] },
  })
  const changed = { in: 1000, out: 2000, visitor: { connections: 4 }, deny: ['192.0.2.0/24'] }
  assert.deepEqual(identities.get('a')?.limits, changed)
  assert.deepEqual((await again()).limitsOf('a'), changed)
  assert.equal(identities.pskFor('a', 'NKpsk0'), psk, 'it proves itself with the same')
  await identities.change('a', { limits: null })
  assert.equal(identities.limitsOf('a'), undefined)
  assert.equal('limits' in (identities.get('a') ?? {}), false)
  assert.deepEqual(told, ['a added', 'limits of a', ...['a changed', 'limits of a'], ...['a changed', 'limits of a']])
})

test('defaults hold for what a node does not say, and for nodes that nobody enrolled', async (t) => {
  const { identities, told } = await bench(t)
  await identities.add({ id: 'a', limits: { out: 5 } })
  identities.defaultLimits = { in: 1, out: 2, visitor: { rate: 9 } }
  identities.defaultLimits = { in: 1, out: 2, visitor: { rate: 9 } }
  assert.deepEqual(identities.limitsOf('a'), { in: 1, out: 5, visitor: { rate: 9 } })
  assert.deepEqual(identities.limitsOf('nobody'), { in: 1, out: 2, visitor: { rate: 9 } })
  assert.deepEqual(identities.get('a')?.limits, { out: 5 }, 'its own are its own')
  identities.defaultLimits = {}
  assert.equal(identities.limitsOf('nobody'), undefined)
  assert.deepEqual(told.filter((line) => line === 'limits of all').length, 2, 'only what is another one is told')
})

test('expiry and grants change, and what changes nothing else leaves them', async (t) => {
  const { identities, again } = await bench(t)
  const later = new Date(Date.now() + 3_600_000).toISOString()
  await identities.add({ id: 'a', expires: later, grants: { listen: '9000', dial: ['127.0.0.1:80'] } })
  await identities.change('a', { limits: { rate: 1 } })
  assert.deepEqual([identities.get('a')?.expires, identities.get('a')?.grants?.listen], [later, '9000'])
  await identities.change('a', { expires: null, grants: { listen: null, names: ['/x'] } })
  const reopened = (await again()).get('a')
  assert.deepEqual(reopened?.grants, { dial: ['127.0.0.1:80'], names: ['/x'] })
  assert.equal(reopened?.expires, undefined)
  await identities.change('a', { grants: null, expires: '2099-01-01' })
  assert.deepEqual([identities.get('a')?.grants, identities.get('a')?.expires], [undefined, '2099-01-01T23:59:59.999Z'])
})

test('a change that makes no sense changes nothing', async (t) => {
  const { identities, folder } = await bench(t)
  await identities.add({ id: 'a', limits: { in: 7 } })
  const before = await readFile(folder.file('nodes.json'), 'utf8')
  const bad: readonly (readonly [NodeChange | object, RegExp])[] = [
    [{ limits: { in: 0 } }, /^limits\.in: bytes per second/],
    [{ limits: { allow: ['10.0.0.0/33'] } }, /^limits\.allow\.0: an address or a CIDR/],
    [{ limits: { allow: Array.from({ length: 300 }, (_, i) => `10.0.${i % 256}.0/24`) } }, /more than 4096 bytes/],
    [{ limits: { inn: null } }, /limits\.inn/],
    [{ grants: { dial: ['nonsense'] } }, /dial|pattern/],
    [{ expires: '2001-01-01' }, /has passed/],
    [{ expires: 'soon' }, /no time/],
    [{ secret: 'x' }, /secret/],
    [{ limits: 5 }, /limits/],
    [{ limits: [] }, /list/],
    [[], /list/],
  ]
  for (const [change, message] of bad) {
    await assert.rejects(identities.change('a', change as NodeChange), (error: Error & { code?: string }) => {
      assert.match(error.message, message)
      return error.code === 'PROXY_ERR_REQUEST'
    })
  }
  await assert.rejects(identities.change('b', {}), { code: 'PROXY_ERR_NOT_FOUND' })
  assert.equal(await readFile(folder.file('nodes.json'), 'utf8'), before)
})

test('a file of an older version has no limits', async (t) => {
  const { identities, folder, again } = await bench(t)
  await identities.add({ id: 'a', limits: { in: 7 } })
  const kept = JSON.parse(await readFile(folder.file('nodes.json'), 'utf8'))
  delete kept.value[0].limits
  await writeFile(folder.file('nodes.json'), JSON.stringify(kept))
  assert.equal((await again()).limitsOf('a'), undefined)
})
