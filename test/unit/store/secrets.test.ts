import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createPublicKey, diffieHellman, generateKeyPairSync, randomBytes, randomUUID, sign, verify } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import {
  isGuessable,
  keepSecret,
  loadNodeKey,
  loadOrMakeSecret,
  loadServerIdentity,
  makeToken,
  readSecret,
  readToken,
  secretFileFor,
} from '../../../lib/store/secrets.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'

async function temporary(t: TestContext): Promise<StateFolder> {
  const path = await mkdtemp(join(tmpdir(), 'symport-secrets-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return new StateFolder(join(path, 'state'))
}

test('a token holds 16 random bytes and the public key, in 72 characters', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (publicKey) => {
      const token = makeToken(publicKey)
      assert.match(token, /^symport_[\w-]{64}$/)
      assert.deepEqual(readToken(token)?.publicKey, Buffer.from(publicKey))
      assert.equal(readToken(token)?.random.length, 16)
      assert.notEqual(makeToken(publicKey), token)
    }),
  )
})

test('reads the literal bytes of a token', () => {
  const bytes = Buffer.from(Array.from({ length: 48 }, (_, i) => i))
  const token = 'symport_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v'
  assert.deepEqual(readToken(token), { random: bytes.subarray(0, 16), publicKey: bytes.subarray(16) })
})

test('what is not a whole token is a chosen secret', () => {
  const token = makeToken(randomBytes(32))
  const others = ['', 'testuuid', 'symport_', token.slice(0, -1), `${token}A`, `${token}\n`, ` ${token}`]
  for (const text of [...others, token.toUpperCase(), `${token.slice(0, -1)}+`, `${token.slice(0, -1)}=`]) {
    assert.equal(readToken(text), undefined, text)
  }
})

test('tells guessable secrets', () => {
  const weak = ['', 'testuuid', 'idste', 'hunter2', 'a'.repeat(40), 'abcd'.repeat(10), '12345678901234567890']
  const patterned = [
    'password12345678',
    'testuuid'.repeat(4),
    '00000000-0000-0000-0000-000000000000',
    'qwertyqwertyqwerty',
  ]
  for (const secret of [...weak, ...patterned]) assert.equal(isGuessable(secret), true, secret)
  assert.equal(isGuessable(makeToken(randomBytes(32))), false)
})

test('a random UUID, with or without dashes, is not guessable', () => {
  for (let i = 0; i < 2000; i++) {
    const uuid = randomUUID()
    assert.equal(isGuessable(uuid), false, uuid)
    assert.equal(isGuessable(uuid.replaceAll('-', '')), false, uuid)
  }
})

test("the server's key is made once, and is X25519", async (t) => {
  const folder = await temporary(t)
  const { privateKey, publicKey, exposed } = await loadServerIdentity(folder)
  assert.equal(exposed, false)
  assert.equal(publicKey.length, 32)
  assert.match(await readFile(folder.file('server-key.pem'), 'utf8'), /^-----BEGIN PRIVATE KEY-----\n/)
  if (process.platform !== 'win32') assert.equal((await stat(folder.file('server-key.pem'))).mode & 0o777, 0o600)
  assert.deepEqual((await loadServerIdentity(folder)).publicKey, publicKey)

  const other = generateKeyPairSync('x25519')
  const x = Buffer.from(publicKey).toString('base64url')
  const imported = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' })
  assert.deepEqual(
    diffieHellman({ privateKey, publicKey: other.publicKey }),
    diffieHellman({ privateKey: other.privateKey, publicKey: imported }),
  )
})

test("the node's key is made once, and is Ed25519", async (t) => {
  const folder = await temporary(t)
  const { privateKey, publicKey } = await loadNodeKey(folder)
  assert.deepEqual((await loadNodeKey(folder)).publicKey, publicKey)
  const key = { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') }
  const message = Buffer.from('hello')
  assert.ok(verify(null, message, createPublicKey({ key, format: 'jwk' }), sign(null, message, privateKey)))
})

test('a key file that holds something else is an error that says what to do', async (t) => {
  const folder = await temporary(t)
  await folder.write('server-key.pem', 'nonsense')
  const message = /server-key.pem is not a private key in PEM: put it back, or delete it to make a new one$/
  await assert.rejects(loadServerIdentity(folder), { code: 'PROXY_ERR_STATE', message })
  await loadNodeKey(folder)
  await folder.write('server-key.pem', (await folder.read('node-key.pem'))?.text ?? '')
  await assert.rejects(loadServerIdentity(folder), { code: 'PROXY_ERR_STATE', message: /is not an x25519 key/ })
})

test('a secret is made once, for the key of the server', async (t) => {
  const folder = await temporary(t)
  assert.equal(await readSecret(folder), undefined)
  await assert.rejects(stat(folder.path), { code: 'ENOENT' })
  const first = await loadOrMakeSecret(folder)
  assert.equal(first.made, true)
  const { publicKey } = await loadServerIdentity(folder)
  assert.deepEqual(readToken(first.secret)?.publicKey, Buffer.from(publicKey))
  assert.deepEqual(await loadOrMakeSecret(folder), { ...first, made: false })
  assert.deepEqual(await readSecret(folder), { ...first, made: false })
})

test('a kept secret is used as it is, without the newline of an editor', async (t) => {
  const folder = await temporary(t)
  await keepSecret(folder, ' 007 ')
  assert.equal((await readSecret(folder))?.secret, ' 007 ')
  assert.deepEqual(await loadOrMakeSecret(folder), { secret: ' 007 ', made: false, exposed: false })
  await writeFile(folder.file('secret'), 'abc\r\n')
  assert.equal((await readSecret(folder))?.secret, 'abc')
})

test('each server has a file of its own, and what an older version kept is found', async (t) => {
  const names = [
    'h',
    'h:1',
    'h-1',
    'h/1',
    'h_1',
    'ws://h/a/b',
    'ws://h/a_b',
    'ws://h/a?b',
    'wss://h/a/b',
    '[::1]:1',
    '::1:1',
  ]
  const files = names.map(secretFileFor)
  assert.equal(new Set(files).size, names.length)
  assert.deepEqual(files.slice(0, 2), ['secret-for-h', 'secret-for-h_1'])
  for (const file of files) assert.match(file, /^[A-Za-z0-9._-]+$/)
  const folder = await temporary(t)
  await keepSecret(folder, 'older', 'secret-for-ws_h_a_b')
  const [one, other] = [secretFileFor('ws://h/a/b'), secretFileFor('ws://h/a_b')]
  await keepSecret(folder, 'newer', one)
  assert.equal((await readSecret(folder, one))?.secret, 'newer')
  assert.equal((await readSecret(folder, other))?.secret, 'older')
  assert.equal(await readSecret(folder, secretFileFor('ws://other/')), undefined)
})

test('an empty secret file, or a token for another key, is an error that says what to do', async (t) => {
  const folder = await temporary(t)
  await folder.write('secret', '\n')
  await assert.rejects(readSecret(folder), { code: 'PROXY_ERR_STATE', message: /secret is empty/ })
  await assert.rejects(loadOrMakeSecret(folder), { code: 'PROXY_ERR_STATE' })
  await keepSecret(folder, makeToken(randomBytes(32)))
  await assert.rejects(loadOrMakeSecret(folder), {
    code: 'PROXY_ERR_STATE',
    message: /was not made for the key in .*server-key/,
  })
})

test('starts at the same time, in one process, end with the same keys and secret', async (t) => {
  const folder = await temporary(t)
  const secrets = await Promise.all(Array.from({ length: 10 }, () => loadOrMakeSecret(folder)))
  assert.equal(new Set(secrets.map(({ secret }) => secret)).size, 1)
  assert.equal(secrets.filter(({ made }) => made).length, 1)
})

test('two processes that start at once end with the same key and secret', async (t) => {
  const folder = await temporary(t)
  const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href)
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const code = `
    const { StateFolder } = await import(${url(`../../../lib/store/state-folder.${extension}`)})
    const { loadOrMakeSecret } = await import(${url(`../../../lib/store/secrets.${extension}`)})
    console.log((await loadOrMakeSecret(new StateFolder(process.argv[1]))).secret)`
  const run = async (): Promise<string> => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, folder.path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    const [status] = await once(child, 'close')
    assert.equal(status, 0)
    return output.trim()
  }
  const [one, two, three] = await Promise.all([run(), run(), run()])
  assert.match(one, /^symport_/)
  assert.equal(two, one)
  assert.equal(three, one)
})
