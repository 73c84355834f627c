import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { test } from 'node:test'
import { readPasswordHash } from '../../../lib/domains/password-hash.ts'
import { hashPassword, type Verdict, WebAuth } from '../../../lib/domains/web-auth.ts'
import { cheapScrypt } from '../../helpers/hub/cheap-scrypt.ts'

function basic(name: string, password: string): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
}

test('a hash has all that checks it, and is another one each time', async () => {
  const [one, two] = await Promise.all([hashPassword('secret'), hashPassword('secret')])
  assert.match(one, /^\$scrypt\$ln=15,r=8,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  assert.notEqual(one, two)
  assert.equal(readPasswordHash(one)?.salt.length, 16)
  for (const bad of ['', 'a\nb', 'a\0']) await assert.rejects(hashPassword(bad))
})

test('a password that was right is not hashed again until it is not used for a while, or the hash is another', async () => {
  using scrypt = cheapScrypt()
  let now = 0
  const auth = new WebAuth({ now: () => now })
  const users = { ann: await hashPassword('secret') }
  const header = basic('ann', 'secret')
  assert.ok(auth.check(header, users, '192.0.2.1:1') instanceof Promise)
  assert.equal(await auth.check(header, users, '192.0.2.1:1'), 'in')
  const calls = scrypt.calls
  for (let round = 0; round < 10; round++) {
    now += 200_000
    assert.equal(auth.check(header, users, '192.0.2.1:1'), 'in')
  }
  assert.equal(scrypt.calls, calls)
  now += 300_001
  assert.ok(auth.check(header, users, '192.0.2.1:1') instanceof Promise)
  const other = { ann: await hashPassword('another') }
  assert.deepEqual(await auth.check(header, other, '192.0.2.1:1'), { status: 401 })
  assert.deepEqual(await auth.check(header, {}, '192.0.2.1:1'), { status: 401 })
})

test('a name that nobody has costs what one costs that somebody has', async () => {
  using scrypt = cheapScrypt()
  const users = { ann: await hashPassword('secret') }
  const before = scrypt.calls
  const auth = new WebAuth()
  assert.deepEqual(await auth.check(basic('bob', 'secret'), users, undefined), { status: 401 })
  assert.deepEqual(await auth.check(basic('ann', 'wrong'), users, undefined), { status: 401 })
  assert.equal(scrypt.calls - before, 2)
})

test('a page that asks for its parts at once costs one hash, and two are made at a time', async () => {
  using scrypt = cheapScrypt()
  const users = { ann: await hashPassword('secret') }
  const before = scrypt.calls
  const auth = new WebAuth()
  const all = await Promise.all(
    Array.from({ length: 50 }, () => auth.check(basic('ann', 'secret'), users, '192.0.2.1:1')),
  )
  assert.ok(all.every((verdict) => verdict === 'in'))
  assert.equal(scrypt.calls - before, 1)
  await Promise.all(Array.from({ length: 20 }, (_, i) => auth.check(basic('ann', `x${i}`), users, `192.0.2.${i}:1`)))
  assert.equal(scrypt.most, 2)
})

test('ten wrong ones, then one every six seconds; a whole /64 is one visitor', async () => {
  using _scrypt = cheapScrypt()
  let now = 0
  const auth = new WebAuth({ now: () => now })
  const users = { ann: await hashPassword('secret') }
  const attempt = async (i: number): Promise<Verdict> =>
    auth.check(basic('ann', `wrong ${i}`), users, `[2001:db8::${i.toString(16)}]:1`)
  for (let i = 0; i < 10; i++) assert.deepEqual(await attempt(i), { status: 401 })
  assert.deepEqual(await attempt(10), { status: 429, after: 6 })
  now += 12_000
  assert.deepEqual(await attempt(11), { status: 401 })
  assert.deepEqual(await attempt(12), { status: 429, after: 6 })
  assert.deepEqual(await auth.check(basic('ann', 'secret'), users, '[2001:db8::1]:1'), { status: 429, after: 12 })
  assert.equal(await auth.check(basic('ann', 'secret'), users, '[2001:db8:0:1::1]:1'), 'in')
})

test('who has no tries left finds nothing out by what others know, nor as a neighbour, but for a few', async () => {
  using scrypt = cheapScrypt()
  let now = 0
  const auth = new WebAuth({ now: () => now })
  const users = { ann: await hashPassword('secret') }
  for (const remote of ['192.0.2.9:1', '192.0.2.1:1']) {
    assert.equal(await auth.check(basic('ann', 'secret'), users, remote), 'in')
  }
  const attempt = async (i: number, remote: string): Promise<Verdict> =>
    auth.check(basic('ann', `wrong ${i}`), users, remote)
  for (let i = 0; i < 10; i++) await attempt(i, '192.0.2.5:1')
  // Somebody else is in with it at this moment.
  assert.deepEqual(await auth.check(basic('ann', 'secret'), users, '192.0.2.5:1'), { status: 429, after: 6 })
  // At the address of somebody who is in.
  const before = scrypt.calls
  for (let i = 0; i < 10; i++) await attempt(i, '192.0.2.1:1')
  for (let i = 10; i < 30; i++) {
    assert.equal(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), 'in')
    assert.deepEqual(await attempt(i, '192.0.2.1:1'), { status: 429, after: 6 * (i - 9) })
  }
  for (let i = 30; i < 40; i++) await attempt(i, '192.0.2.1:1')
  assert.equal(scrypt.calls - before, 10)
  assert.deepEqual(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), { status: 429, after: 6 })
  now += 6000
  assert.equal(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), 'in')
  assert.equal(await auth.check(basic('ann', 'secret'), users, '192.0.2.9:1'), 'in')
})

test('the same wrong one again is no other try, and costs nothing', async () => {
  using scrypt = cheapScrypt()
  const auth = new WebAuth({ now: () => 0 })
  const users = { ann: await hashPassword('secret') }
  for (let i = 0; i < 50; i++) {
    assert.deepEqual(await auth.check(basic('ann', 'the old one'), users, '192.0.2.1:1'), { status: 401 })
  }
  assert.equal(scrypt.calls, 2)
  assert.equal(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), 'in')
  const changed = { ann: await hashPassword('the old one') }
  assert.equal(await auth.check(basic('ann', 'the old one'), changed, '192.0.2.1:1'), 'in')
})

test('right ones are no tries', async () => {
  using _scrypt = cheapScrypt()
  const auth = new WebAuth({ now: () => 0 })
  const users = Object.fromEntries(
    await Promise.all(Array.from({ length: 30 }, async (_, i) => [`u${i}`, await hashPassword('secret')] as const)),
  )
  for (const name of Object.keys(users))
    assert.equal(await auth.check(basic(name, 'secret'), users, '192.0.2.1:1'), 'in')
})

test('when all the world tries at once, some are told to come again', async () => {
  using _scrypt = cheapScrypt()
  const auth = new WebAuth()
  const users = { ann: await hashPassword('secret') }
  const all = await Promise.all(
    Array.from({ length: 200 }, (_, i) => auth.check(basic('ann', 'wrong'), users, `192.0.2.${i}:1`)),
  )
  assert.deepEqual(all.at(-1), { status: 503, after: 2 })
  assert.equal(all.filter((verdict) => verdict !== 'in' && verdict.status === 401).length, 66)
  // It costs nobody a try, and is over with those that waited.
  assert.deepEqual(await auth.check(basic('ann', 'wrong'), users, '192.0.2.199:1'), { status: 401 })
})

test('what could not be computed is nobody’s mistake', async () => {
  const users = { ann: await hashPassword('secret') }
  const auth = new WebAuth({ now: () => 0 })
  const real = crypto.scrypt
  const broken = (...args: readonly unknown[]): void => (args.at(-1) as (error: Error) => void)(new Error('no memory'))
  const put = (scrypt: unknown): void => {
    Object.assign(crypto, { scrypt })
    syncBuiltinESMExports()
  }
  put(broken)
  try {
    for (let i = 0; i < 20; i++) {
      assert.deepEqual(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), { status: 503, after: 2 })
    }
  } finally {
    put(real)
  }
  assert.equal(await auth.check(basic('ann', 'secret'), users, '192.0.2.1:1'), 'in')
})
