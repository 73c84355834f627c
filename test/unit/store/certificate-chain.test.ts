import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { chainCertificates, loadCertificates } from '../../../lib/store/certificates.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { listenOnePort } from '../../../lib/transports/one-port.ts'
import { Identity } from '../../helpers/transports/authority.ts'

function folderOf(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'symport-chain-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('a given certificate for its names, then one for the very name, then the given one', async (t) => {
  const path = folderOf(t)
  const given = await Identity.make('given', { names: ['given.example.com', '*.sub.example.com'] })
  const [cert, key] = [join(path, 'cert.pem'), join(path, 'key.pem')]
  writeFileSync(cert, given.cert)
  writeFileSync(key, given.key)
  const base = await loadCertificates(new StateFolder(path), { cert, key })
  t.after(() => base.close())
  const asked: string[] = []
  const own = createSecureContext()
  const chain = chainCertificates(base, {
    async contextFor(name): Promise<SecureContext | undefined> {
      asked.push(name)
      return name === 'own.example.com' ? own : undefined
    },
  })
  const theirs = await base.context()
  for (const name of [undefined, 'given.example.com', 'x.sub.example.com', 'other.example.com']) {
    assert.equal(await chain.context(name), theirs, name)
  }
  assert.equal(await chain.context('own.example.com'), own)
  assert.deepEqual(asked, ['other.example.com', 'own.example.com'])
  assert.equal(await chain.fingerprint(), await base.fingerprint())
})

test("a certificate that takes its time is not at the client's cost, who then has the rest of its own", async (t) => {
  const { cert, key } = await Identity.make('slow')
  const timeout = 300
  let reject: (code: string) => void = () => {}
  const rejected = new Promise<string>((resolve) => {
    reject = resolve
  })
  let ready: (context: SecureContext) => void = () => {}
  const listener = await listenOnePort(
    { host: '127.0.0.1', port: 0 },
    {
      timeout,
      tls: () =>
        new Promise((resolve) => {
          ready = resolve
        }),
      onRejected: (_, { code }) => reject(code),
    },
    (link) => link.destroy(),
  )
  t.after(() => listener.close())
  const port = Number(listener.address.split(':').at(-1))
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
  socket.on('error', () => {})
  t.after(() => socket.destroy())
  const secured = new Promise((resolve) => socket.once('secureConnect', resolve))
  await new Promise((resolve) => setTimeout(resolve, timeout * 1.5))
  ready(createSecureContext({ cert, key }))
  await secured
  // It says nothing.
  const since = performance.now()
  assert.equal(await rejected, 'PROXY_ERR_HANDSHAKE_TIMEOUT')
  assert.ok(performance.now() - since < timeout * 1.5)
})
