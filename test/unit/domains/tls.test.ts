import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join as joinPath } from 'node:path'
import { after, test } from 'node:test'
import { createServer } from 'node:tls'
import { isLink, type Link } from '../../../lib/core/index.ts'
import { type TlsOptions, tls } from '../../../lib/domains/tls.ts'
import { selfSigned } from '../../helpers/contract/one-port.ts'
import { program } from '../../helpers/contract/programs.ts'
import { soon } from '../../helpers/contract/strays.ts'

const certificate = selfSigned()
const pin = `sha256:${createHash('sha256').update(new X509Certificate(certificate.pem).raw).digest('hex')}`
const folder = await mkdtemp(joinPath(tmpdir(), 'symport-tls-'))
const ca = joinPath(folder, 'ca.pem')
await writeFile(ca, certificate.pem)
after(() => rm(folder, { recursive: true }))

/** Echoes, and tells which names were asked for. */
async function secureEcho(options: object = {}): Promise<AsyncDisposable & { port: number; names: unknown[] }> {
  const names: unknown[] = []
  const settings: object = { allowHalfOpen: true, ...options }
  const server = createServer({ SNICallback: (_name, done) => done(null, certificate.context), ...settings })
  const sockets = new Set<Socket>()
  server.setSecureContext(options)
  server.on('connection', (socket) => sockets.add(socket))
  server.on('secureConnection', (socket) => {
    names.push(socket.servername)
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    names,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

async function dial(Addr: string, options: TlsOptions = {}, signal = new AbortController().signal): Promise<Link> {
  const domain = tls(options)
  const to = { Domain: 'tls', Addr }
  const addresses = (await domain.resolve?.(to, { signal })) ?? []
  const link = await domain.dial?.(to, { signal, addresses: addresses.filter((address) => address.includes('.')) })
  assert.ok(link && isLink(link))
  return link
}

/** Says something, ends, and hears it all. */
function talk(link: Link): Promise<string> {
  return new Promise((resolve, reject) => {
    let heard = ''
    link.start({
      received: (bytes) => {
        heard += Buffer.from(bytes)
        return true
      },
      drained: () => {},
      ended: () => {
        resolve(heard)
        link.destroy()
      },
      closed: reject,
    })
    link.write([Buffer.from('hello')])
    link.end()
  })
}

test('the name is asked for and verified, by the CA in a file or by a pin, with half-close', async () => {
  await using server = await secureEcho()
  for (const query of [`ca=${ca}`, `pin=${pin}`, 'verify=off']) {
    assert.equal(await soon(talk(await dial(`localhost:${server.port}?${query}`)), query), 'hello')
  }
  assert.equal(await soon(talk(await dial(`127.0.0.1:${server.port}?ca=${ca}&name=localhost`)), 'name'), 'hello')
  assert.deepEqual(server.names, ['localhost', 'localhost', 'localhost', 'localhost'])
})

test('whoever is not known is refused in plain words', async () => {
  await using server = await secureEcho()
  for (const [query, why] of [
    ['', /nobody whom this machine trusts has signed/],
    [`?pin=sha256:${'ab'.repeat(32)}`, /fits the pin: it is another server, or has a new certificate$/],
    [`?ca=${ca}&name=other.test`, /is for other names/],
    [`?ca=${folder}`, /cannot be used: it is no file/],
    [`?ca=${folder}/none`, /cannot be used: there is no such file/],
  ] as const) {
    const error = { code: 'PROXY_ERR_TLS', message: why }
    await assert.rejects(soon(dial(`localhost:${server.port}${query}`), 'the refusal'), error, query)
  }
})

test('what speaks no TLS, too old a TLS, or nothing at all is said so', async () => {
  await using plain = await program((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
  await assert.rejects(dial(`127.0.0.1:${plain.port}?verify=off`), { code: 'PROXY_ERR_TLS' })
  await using closing = await program((socket) => socket.end())
  await assert.rejects(dial(`127.0.0.1:${closing.port}?verify=off`), { code: 'PROXY_ERR_DIAL_FAILED', retryable: true })
  await using old = await secureEcho({ maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' })
  await assert.rejects(dial(`localhost:${old.port}?verify=off`), { code: 'PROXY_ERR_TLS' })
  await using silent = await program()
  const late = dial(`127.0.0.1:${silent.port}?verify=off`, { dialTimeout: 50 })
  await assert.rejects(late, { code: 'PROXY_ERR_DIAL_FAILED', message: /no answer/ })
  const abort = new AbortController()
  const given = dial(`127.0.0.1:${silent.port}?verify=off`, {}, abort.signal)
  setImmediate(() => abort.abort())
  await assert.rejects(given, { code: 'PROXY_ERR_ABORTED' })
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  const refused = { code: 'PROXY_ERR_DIAL_FAILED', message: /nothing listens/ }
  await assert.rejects(dial(`127.0.0.1:${gone.port}?verify=off`), refused)
})

test('that nothing is verified is said aloud, once for each endpoint', async () => {
  await using server = await secureEcho()
  const warnings: string[] = []
  const domain = tls({ onWarning: (text) => warnings.push(text) })
  const { signal } = new AbortController()
  for (const host of ['localhost', 'localhost', '127.0.0.1']) {
    const to = { Domain: 'tls', Addr: `${host}:${server.port}?verify=off&name=localhost` }
    const link = await domain.dial?.(to, { signal, addresses: ['127.0.0.1'] })
    assert.ok(link && isLink(link))
    await soon(talk(link), 'the echo')
  }
  assert.equal(warnings.length, 2)
  assert.match(warnings[0] ?? '', /not checked \(verify=off\)/)
})

test('policy is asked about the addresses behind the name', async () => {
  const to = { Domain: 'tls', Addr: '10.1.2.3:443?name=x.com' }
  assert.deepEqual(await tls().resolve?.(to, {}), ['10.1.2.3'])
})
