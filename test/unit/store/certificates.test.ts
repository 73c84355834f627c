import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { before, describe, type TestContext } from 'node:test'
import { connect, createServer, type SecureContext } from 'node:tls'
import { type CertificateOptions, type Certificates, loadCertificates } from '../../../lib/store/certificates.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { Stage } from '../../helpers/system/stage.ts'
import { Identity } from '../../helpers/transports/authority.ts'

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'symport-certificates-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

async function load(t: TestContext, path: string, options: CertificateOptions = {}): Promise<Certificates> {
  const certificates = await loadCertificates(new StateFolder(path), options)
  t.after(() => certificates.close())
  return certificates
}

/** What a client of TLS sees that believes `ca` only, and asks for `host`. */
async function shake(context: SecureContext, ca: string, host: string): Promise<X509Certificate> {
  const server = createServer({ SNICallback: (_, done) => done(null, context) })
  // The default for those who send no name, as for an address.
  server.setSecureContext({})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const checkName = (_: string, certificate: Parameters<typeof verifyName>[1]): Error | undefined =>
    verifyName(host, certificate)
  const socket = connect({ port, host: '127.0.0.1', servername: 'any.name', ca, checkServerIdentity: checkName })
  try {
    await once(socket, 'secureConnect')
    const certificate = socket.getPeerX509Certificate()
    assert.ok(certificate)
    return certificate
  } finally {
    socket.destroy()
    server.close()
  }
}

const { checkServerIdentity: verifyName } = await import('node:tls')

const modes = (path: string): Record<string, string> =>
  Object.fromEntries(readdirSync(path).map((name) => [name, (statSync(join(path, name)).mode & 0o777).toString(8)]))

describe('a private CA', () => {
  let made: string

  before(async () => {
    made = mkdtempSync(join(tmpdir(), 'symport-certificates-'))
    const certificates = await loadCertificates(new StateFolder(made))
    await certificates.context()
    certificates.close()
    return () => rmSync(made, { recursive: true, force: true })
  })

  /** A state folder in which all is made already. */
  function copy(t: TestContext): string {
    const path = folder(t)
    cpSync(made, path, { recursive: true })
    return path
  }

  const read = (path: string, name: string): X509Certificate => {
    const text = readFileSync(join(path, name), 'utf8')
    return new X509Certificate(text.slice(text.indexOf('-----BEGIN CERTIFICATE')))
  }

  test('nothing is made before it is asked for, and only the CA for its fingerprint', async (t) => {
    const path = join(folder(t), 'state')
    const certificates = await load(t, path)
    assert.throws(() => readdirSync(path))
    const fingerprint = await certificates.fingerprint()
    assert.match(fingerprint ?? '', /^sha256:[0-9a-f]{64}$/)
    assert.deepEqual(modes(path), { 'ca-key.pem': '600', 'ca.pem': '600' })
    const colons = read(path, 'ca.pem').fingerprint256.replaceAll(':', '').toLowerCase()
    assert.equal(fingerprint, `sha256:${colons}`)
  })

  test('TLS takes the certificate for every name and address of this machine', async (t) => {
    const path = copy(t)
    assert.deepEqual(modes(path), { 'ca-key.pem': '600', 'ca.pem': '600', 'server-cert.pem': '600' })
    const context = await (await load(t, path)).context()
    const ca = readFileSync(join(path, 'ca.pem'), 'utf8')
    for (const host of ['localhost', '127.0.0.1', '::1']) {
      const leaf = await shake(context, ca, host)
      assert.equal(leaf.ca, false)
      assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1'])
    }
    await assert.rejects(shake(context, ca, 'elsewhere.example'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  })

  test('it says the names that it was made for, before it is', async (t) => {
    const certificates = await load(t, join(folder(t), 'state'), { names: ['vpn.example.com', '*.example.com'] })
    const says = (name: string) => certificates.says(name)
    assert.deepEqual(['vpn.example.com', 'localhost', 'db.example.com'].map(says), [true, true, false])
  })

  test('the CA lives for ten years, what it signs for one; serial numbers are random and positive', (t) => {
    const path = copy(t)
    const [ca, leaf] = [read(path, 'ca.pem'), read(path, 'server-cert.pem')]
    for (const one of [ca, leaf]) assert.ok(one.verify(ca.publicKey), one.subject)
    const days = ({ validTo }: X509Certificate): number => Math.round((Date.parse(validTo) - Date.now()) / 86_400_000)
    assert.deepEqual([days(ca), days(leaf)], [3650, 365])
    assert.ok(ca.ca)
    for (const { serialNumber } of [ca, leaf]) assert.match(serialNumber, /^[4-7][0-9A-F]{31}$/)
    assert.notEqual(ca.serialNumber, leaf.serialNumber)
  })

  test('openssl agrees', async (t) => {
    const stage = new Stage(t)
    const path = copy(t)
    const found = await stage.run('openssl', ['version']).catch(() => undefined)
    if (found?.status !== 0) return t.skip('there is no openssl on this machine')
    const files = ['-CAfile', join(path, 'ca.pem'), join(path, 'server-cert.pem')]
    const output = await stage.must('openssl', ['verify', '-x509_strict', '-purpose', 'sslserver', ...files])
    assert.match(output, /server-cert\.pem: OK$/)
  })

  test('what is there is used again, by later starts and by several at once', async (t) => {
    const path = folder(t)
    const all = await Promise.all([load(t, path), load(t, path)])
    const fingerprints = new Set(await Promise.all(all.map((one) => one.fingerprint())))
    fingerprints.add(await (await load(t, path)).fingerprint())
    assert.equal(fingerprints.size, 1)
    const [again, before] = [copy(t), read(made, 'server-cert.pem').fingerprint256]
    await (await load(t, again)).context()
    assert.equal(read(again, 'server-cert.pem').fingerprint256, before)
  })

  test('a certificate that lacks a name, is soon over, or is of another CA is made again; the CA stays', async (t) => {
    const [named, old, foreign, damaged] = [copy(t), copy(t), copy(t), copy(t)]
    const ca = read(made, 'ca.pem').fingerprint256
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
    await (await load(t, named, { names: ['symport.example', '192.0.2.7', '0.0.0.0', 'not a name'] })).context()
    const leaf = read(named, 'server-cert.pem')
    assert.ok(leaf.checkHost('symport.example') && leaf.checkIP('192.0.2.7') && leaf.checkHost('localhost'))
    const other = await Identity.make('other', { to: 100 })
    writeFileSync(join(foreign, 'server-cert.pem'), other.key + other.cert)
    writeFileSync(join(damaged, 'server-cert.pem'), readFileSync(join(made, 'server-cert.pem'), 'utf8').slice(0, 2000))
    for (const path of [foreign, damaged]) {
      await (await load(t, path)).context()
      assert.ok(read(path, 'server-cert.pem').checkIssued(read(path, 'ca.pem')))
    }
    t.mock.timers.tick(340 * 86_400_000)
    await (await load(t, old)).context()
    assert.ok(Date.parse(read(old, 'server-cert.pem').validTo) > Date.now() + 300 * 86_400_000)
    for (const path of [named, old, foreign, damaged]) assert.equal(read(path, 'ca.pem').fingerprint256, ca)
  })

  test('a server that runs on renews by itself', async (t) => {
    const path = copy(t)
    t.mock.timers.enable({ apis: ['Date', 'setInterval'], now: Date.now() })
    let told = (_: string): void => {}
    const renewed = new Promise<string>((resolve) => {
      told = resolve
    })
    const certificates = await load(t, path, { onReload: (message) => told(message) })
    const before = await certificates.context()
    assert.equal(await certificates.reload(), false)
    t.mock.timers.setTime(Date.now() + 340 * 86_400_000)
    t.mock.timers.tick(86_400_000)
    assert.match(await renewed, /was renewed/)
    assert.notEqual(await certificates.context(), before)
  })

  test('emits PROXY_ERR_STATE, and overwrites nothing, if the CA is damaged or its key is another one', async (t) => {
    const [cut, swapped, keyless] = [copy(t), copy(t), copy(t)]
    const other = await Identity.make('other', { ca: true })
    writeFileSync(join(cut, 'ca.pem'), readFileSync(join(cut, 'ca.pem'), 'utf8').slice(0, 500))
    writeFileSync(join(swapped, 'ca-key.pem'), other.key)
    writeFileSync(join(keyless, 'ca-key.pem'), 'no key\n')
    for (const path of [cut, swapped, keyless]) {
      const [ca, key] = ['ca.pem', 'ca-key.pem'].map((name) => readFileSync(join(path, name), 'utf8'))
      const certificates = await load(t, path)
      await assert.rejects(certificates.context(), { code: 'PROXY_ERR_STATE', message: /put it back, or delete/ })
      await assert.rejects(certificates.fingerprint(), { code: 'PROXY_ERR_STATE' })
      assert.deepEqual(
        [ca, key],
        ['ca.pem', 'ca-key.pem'].map((name) => readFileSync(join(path, name), 'utf8')),
      )
    }
  })

  test('a CA that is over is told as such', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 3651 * 86_400_000 })
    const certificates = await load(t, copy(t))
    await assert.rejects(certificates.context(), { code: 'PROXY_ERR_STATE', message: /has expired/ })
  })
})

describe('given files', () => {
  let ca: Identity
  let one: Identity
  let two: Identity

  before(async () => {
    ca = await Identity.make('the CA', { ca: true, names: [] })
    ;[one, two] = await Promise.all([ca.issue('one'), Identity.make('two')])
  })

  function files(path: string, { cert, key }: { cert: string; key: string }): { cert: string; key: string } {
    const at = { cert: join(path, 'cert.pem'), key: join(path, 'key.pem') }
    writeFileSync(at.cert, cert)
    writeFileSync(at.key, key)
    return at
  }

  test('are used with their chain, and nothing is kept', async (t) => {
    const path = folder(t)
    const at = files(path, { cert: `remarks\n${one.cert}\r\n${ca.cert}`, key: one.key })
    const certificates = await load(t, join(path, 'state'), at)
    const leaf = await shake(await certificates.context(), ca.cert, '127.0.0.1')
    assert.match(leaf.subject, /CN=one/)
    assert.throws(() => readdirSync(join(path, 'state')))
  })

  test('what they say is their very names, and what they cover more', async (t) => {
    const names = Identity.create('vpn', { names: ['vpn.example.com', '*.example.com'] })
    const certificates = await load(t, join(folder(t), 'state'), files(folder(t), names))
    const wanted = ['vpn.example.com', 'db.example.com']
    assert.deepEqual(
      [wanted.map((name) => certificates.says(name)), wanted.map((name) => certificates.covers(name))],
      [
        [true, false],
        [true, true],
      ],
    )
  })

  test('the fingerprint is that of a self-signed certificate at the end of the chain, or there is none', async (t) => {
    const cases = [
      [one.cert, one.key, undefined],
      [one.cert + ca.cert, one.key, ca.pin],
      [two.cert, two.key, two.pin],
    ] as const
    for (const [cert, key, pin] of cases) {
      const path = folder(t)
      const fingerprint = await (await load(t, path, files(path, { cert, key }))).fingerprint()
      assert.equal(fingerprint, pin?.replaceAll(':', '').toLowerCase().replace('sha256', 'sha256:'))
    }
  })

  test('emits PROXY_ERR_USAGE for what cannot be used, and says why', async (t) => {
    const path = folder(t)
    const at = files(path, { cert: one.cert, key: one.key })
    const bad: [CertificateOptions, RegExp][] = [
      [{ cert: at.cert }, /^--cert is given without --key$/],
      [{ key: at.key }, /^--key is given without --cert$/],
      [{ ...at, cert: join(path, 'none') }, /^--cert: cannot read .*none: there is no such file$/],
      [{ ...at, key: path }, /^--key: cannot read .*: it is a folder$/],
      [{ ...at, cert: at.key }, /^there is no certificate in PEM \(/],
      [{ ...at, key: at.cert }, /^there is no private key in PEM that can be read/],
      [files(folder(t), { cert: one.cert, key: two.key }), /^the key does not belong to the \(first\) certificate/],
      [files(folder(t), { cert: ca.cert + one.cert, key: one.key }), /^the key does not belong/],
      [
        files(folder(t), { cert: one.cert.replace(/\n.{10}/, '\nAAAAAAAAAA'), key: one.key }),
        /^a certificate is damaged/,
      ],
      [files(folder(t), { cert: one.cert, key: 'x'.repeat(2_000_000) }), /is too large$/],
    ]
    for (const [options, message] of bad) {
      await assert.rejects(load(t, path, options), { code: 'PROXY_ERR_USAGE', message })
    }
  })

  test('an expired one is used, with a warning', async (t) => {
    const old = await ca.issue('old', { from: -3, to: -2 })
    const warnings: string[] = []
    const path = folder(t)
    const certificates = await load(t, path, { ...files(path, old), onWarning: (text) => warnings.push(text) })
    assert.ok(await certificates.context())
    await certificates.reload()
    assert.equal(warnings.length, 1)
    assert.match(warnings[0] ?? '', /has expired \(.*\): nodes will refuse it$/)
  })

  test('files that change are read again by themselves, also if they are replaced by a rename', async (t) => {
    const path = folder(t)
    const at = files(path, one)
    let told = (): void => {}
    const certificates = await load(t, path, { ...at, poll: 20, onReload: () => told() })
    // Looking at the files keeps no process alive.
    const alive = setTimeout(() => assert.fail('nobody looks'), 10_000)
    const reloaded = new Promise<void>((resolve) => {
      told = resolve
    })
    const next = files(folder(t), two)
    renameSync(next.key, at.key)
    renameSync(next.cert, at.cert)
    await reloaded
    clearTimeout(alive)
    const leaf = await shake(await certificates.context(), two.cert, '127.0.0.1')
    assert.match(leaf.subject, /CN=two/)
  })

  test('an expired one that is put in its place is told once', async (t) => {
    const old = await ca.issue('old', { from: -3, to: -2 })
    const path = folder(t)
    const at = files(path, one)
    const warnings: string[] = []
    const certificates = await load(t, path, { ...at, onWarning: (text) => warnings.push(text) })
    files(path, old)
    assert.equal(await certificates.reload(), true)
    for (let i = 0; i < 3; i++) assert.equal(await certificates.reload(), false)
    writeFileSync(at.cert, 'no certificate')
    for (let i = 0; i < 3; i++) assert.equal(await certificates.reload(), false)
    assert.equal(warnings.length, 2)
    assert.match(warnings[0] ?? '', /has expired/)
    assert.match(
      warnings[1] ?? '',
      /^there is no certificate in PEM \(--cert .*\); the certificate from before stays in use$/,
    )
  })

  test('given ones are told with their beginning and end, and what is wrong with the files now', async (t) => {
    const path = folder(t)
    const at = files(path, one)
    const certificates = await load(t, path, at)
    const [told] = certificates.list()
    const leaf = new X509Certificate(one.cert)
    const life = { begins: new Date(leaf.validFrom), ends: new Date(leaf.validTo) }
    assert.deepEqual(certificates.list(), [{ name: '127.0.0.1', ...life }])
    rmSync(at.key)
    await certificates.reload()
    const [broken] = certificates.list()
    assert.deepEqual({ ...broken, problem: undefined }, { ...told, problem: undefined })
    assert.match(broken?.problem ?? '', /^--key: cannot read .*: there is no such file$/)
    files(path, one)
    assert.equal(await certificates.reload(), true)
    assert.deepEqual(certificates.list(), [told])
    assert.deepEqual((await load(t, folder(t), {})).list(), [], 'nobody has to look after those of its own CA')
  })

  test('bad new files change nothing, and are told once', async (t) => {
    const path = folder(t)
    const at = files(path, one)
    const warnings: string[] = []
    const certificates = await load(t, path, { ...at, onWarning: (text) => warnings.push(text) })
    const before = await certificates.context()
    writeFileSync(at.key, two.key)
    assert.equal(await certificates.reload(), false)
    assert.equal(await certificates.reload(), false)
    rmSync(at.cert)
    assert.equal(await certificates.reload(), false)
    assert.equal(await certificates.context(), before)
    assert.equal(warnings.length, 2)
    assert.match(warnings[0] ?? '', /the key does not belong .*; the certificate from before stays in use$/)
    assert.match(warnings[1] ?? '', /there is no such file; the certificate from before stays in use$/)
    writeFileSync(at.cert, two.cert)
    assert.equal(await certificates.reload(), true)
    assert.notEqual(await certificates.context(), before)
  })
})
