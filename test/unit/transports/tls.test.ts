import assert from 'node:assert/strict'
import test, { before, describe } from 'node:test'
import type { TlsOptions } from 'node:tls'
import { ProxyError } from '../../../lib/core/errors.ts'
import { parseCa, parsePin, type Verify } from '../../../lib/sockets/verify.ts'
import { dialTls } from '../../../lib/transports/tls.ts'
import { ByteStream } from '../../helpers/core/byte-stream.ts'
import { Identity } from '../../helpers/transports/authority.ts'
import { serveTcp, serveTls } from '../../helpers/transports/servers.ts'

describe('dialling over TLS', () => {
  let ca: Identity
  let otherCa: Identity
  let middle: Identity
  let leaf: Identity

  before(async () => {
    ;[ca, otherCa] = await Promise.all([
      Identity.make('the CA', { ca: true, names: [] }),
      Identity.make('another CA', { ca: true, names: [] }),
    ])
    ;[middle, leaf] = await Promise.all([ca.issue('in the middle', { ca: true, names: [] }), ca.issue('server')])
  })

  const withChain = (own: Identity, ...above: Identity[]): TlsOptions => ({
    key: own.key,
    cert: [own, ...above].map(({ cert }) => cert).join(''),
  })

  /** Why it was refused; and that the server got nothing on the connection. */
  async function refused(
    t: Parameters<typeof serveTls>[0],
    served: TlsOptions,
    verify: Verify,
    to: { host?: string; serverName?: string } = {},
  ): Promise<string> {
    let bytes = 0
    const port = await serveTls(t, served, (socket) => {
      socket.on('data', (chunk) => {
        bytes += chunk.length
      })
    })
    const error = await dialTls({ host: '127.0.0.1', port, ...to }, { verify }).then(
      (link) => {
        link.destroy()
        return undefined
      },
      (reason: unknown) => reason,
    )
    assert.ok(error instanceof ProxyError, 'it was let through')
    assert.equal(error.code, 'PROXY_ERR_DIAL_FAILED')
    assert.equal(error.retryable, false)
    assert.equal(bytes, 0)
    return error.message.replace(`127.0.0.1:${port}`, 'SERVER').replace(`localhost:${port}`, 'SERVER')
  }

  const byCa = (...cas: Identity[]): Verify => parseCa(cas.map(({ cert }) => cert).join(''))

  test('a server whose CA is given is believed; bytes pass both ways, and each direction ends by itself', async (t) => {
    let protocol: unknown
    const port = await serveTls(t, { ...withChain(leaf), allowHalfOpen: true }, (socket) => {
      protocol = [socket.alpnProtocol, socket.getProtocol()]
      socket.on('data', (bytes) => socket.write(bytes))
      socket.on('end', () => socket.end('bye'))
    })
    const link = await dialTls({ host: '127.0.0.1', port }, { verify: byCa(ca) })
    assert.deepEqual([link.transport, link.remote], ['tls', `127.0.0.1:${port}`])
    const stream = new ByteStream(link)
    const bulk = Buffer.alloc(1_000_000, 'abcdefg')
    link.write([bulk])
    assert.ok((await stream.read(bulk.length)).equals(bulk))
    link.end()
    assert.equal((await stream.rest()).toString(), 'bye')
    assert.deepEqual(protocol, ['symport', 'TLSv1.3'])
  })

  test('a name is asked for, and the one that is found in the certificate', async (t) => {
    const port = await serveTls(t, withChain(leaf), (socket) => {
      socket.write('servername' in socket ? String(socket.servername) : 'none')
    })
    for (const [to, asked] of [
      [{ host: 'localhost', port }, 'localhost'],
      [{ host: '127.0.0.1', port, serverName: 'localhost' }, 'localhost'],
      [{ host: '127.0.0.1', port }, 'false'],
    ] as const) {
      const stream = new ByteStream(await dialTls(to, { verify: byCa(ca) }))
      assert.equal((await stream.read(asked.length)).toString(), asked)
      stream.link.destroy()
    }
  })

  test('a server that nobody vouches for is refused, whatever the environment says', async (t) => {
    const self = await Identity.make('self-signed')
    const advice =
      'nobody whom this machine trusts has signed the certificate of SERVER: pin it with --pin, or give its CA with --ca'
    const { NODE_TLS_REJECT_UNAUTHORIZED: before } = process.env
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
    t.after(() => {
      if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
      else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before
    })
    for (const served of [withChain(self), withChain(leaf), withChain(leaf, ca)]) {
      assert.equal(await refused(t, served, { by: 'system' }), advice)
    }
  })

  test('only the given CA counts, not another one, and not one in the chain', async (t) => {
    for (const served of [withChain(leaf), withChain(leaf, ca)]) {
      assert.equal(
        await refused(t, served, byCa(otherCa)),
        'the CA given with --ca has not signed the certificate of SERVER',
      )
    }
  })

  test('an expired certificate is refused, and one that is not valid yet', async (t) => {
    const [old, early] = await Promise.all([
      ca.issue('old', { from: -3, to: -2 }),
      ca.issue('early', { from: 1, to: 2 }),
    ])
    assert.match(await refused(t, withChain(old), byCa(ca)), /^the certificate of SERVER has expired$/)
    assert.match(await refused(t, withChain(early), byCa(ca)), /^the certificate of SERVER is not valid yet: .*clock/)
    for (const [served, words] of [
      [old, 'has expired'],
      [early, 'is not valid yet'],
    ] as const) {
      for (const pinned of [served, ca]) {
        const why = await refused(t, withChain(served, ca), parsePin(pinned.pin))
        assert.ok(why.includes(words), why)
      }
    }
  })

  test('a certificate for another name is refused, and the names are told', async (t) => {
    const other = await ca.issue('other', { names: ['a.example', '192.0.2.1'] })
    assert.equal(
      await refused(t, withChain(other), byCa(ca)),
      'the certificate of SERVER is for other names (DNS:a.example, IP Address:192.0.2.1)',
    )
    assert.match(await refused(t, withChain(leaf), byCa(ca), { serverName: 'b.example' }), /is for other names/)
  })

  test('the pin of the certificate itself is enough, also of a self-signed one and for another name', async (t) => {
    const self = await Identity.make('self-signed', { names: ['elsewhere.example'] })
    for (const served of [self, leaf]) {
      const port = await serveTls(t, withChain(served))
      const link = await dialTls({ host: '127.0.0.1', port }, { verify: parsePin(served.pin) })
      const stream = new ByteStream(link)
      link.write([Buffer.from('ping')])
      assert.equal((await stream.read(4)).toString(), 'ping')
      link.destroy()
    }
  })

  test('the pin of the CA is enough, also with one in the middle and for another name', async (t) => {
    const deep = await middle.issue('deep', { names: ['elsewhere.example'] })
    for (const served of [withChain(leaf, ca), withChain(deep, middle, ca)]) {
      const port = await serveTls(t, served)
      const link = await dialTls({ host: '127.0.0.1', port }, { verify: parsePin(ca.pin) })
      link.destroy()
    }
    const port = await serveTls(t, withChain(deep, middle))
    const link = await dialTls({ host: '127.0.0.1', port }, { verify: parsePin(middle.pin) })
    link.destroy()
  })

  test('a pin that fits nothing in the chain is refused', async (t) => {
    for (const pin of [otherCa.pin, middle.pin]) {
      assert.match(await refused(t, withChain(leaf, ca), parsePin(pin)), /^no certificate of SERVER fits the pin: /)
    }
    // A CA that the server does not show cannot be looked for.
    assert.match(await refused(t, withChain(leaf), parsePin(ca.pin)), /^no certificate of SERVER fits the pin: /)
  })

  test('showing a pinned CA that has signed nothing does not help', async (t) => {
    const self = await Identity.make('self-signed')
    const impostor = await Identity.make('the CA', { ca: true, names: [] })
    const byImpostor = await impostor.issue('server')
    for (const served of [withChain(self, ca), withChain(byImpostor, ca), withChain(byImpostor, impostor, ca)]) {
      const why = await refused(t, served, parsePin(ca.pin))
      assert.match(why, /it has not signed the server's own$|^no certificate of SERVER fits the pin/)
    }
  })

  test('a certificate that is no CA signs nothing, even if it is pinned', async (t) => {
    const under = await leaf.issue('under a leaf')
    const why = await refused(t, withChain(under, leaf, ca), parsePin(leaf.pin))
    assert.match(why, /it has not signed the server's own$|^no certificate of SERVER fits the pin/)
    assert.match(
      await refused(t, withChain(under, leaf, ca), parsePin(ca.pin)),
      /it has not signed the server's own$|^no certificate of SERVER fits the pin/,
    )
  })

  test('a certificate of the pinned CA that is meant for clients is refused', async (t) => {
    const client = await ca.issue('client', { purpose: 'clientAuth' })
    assert.equal(
      await refused(t, withChain(client, ca), parsePin(ca.pin)),
      'the certificate of SERVER is not meant for servers',
    )
  })

  test('TLS before 1.2 is refused', async (t) => {
    const served = {
      ...withChain(leaf),
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    } as const
    assert.match(await refused(t, served, byCa(ca)), /^SERVER speaks no TLS of version 1.2 or later$/)
  })

  test('a TLS server that knows no symport is told from one that does', async (t) => {
    const why = await refused(t, { ...withChain(leaf), ALPNProtocols: ['http/1.1'] }, byCa(ca))
    assert.equal(why, 'SERVER speaks TLS, but not symport (ALPN)')
  })

  test('a server that speaks no TLS, or says nothing, or closes, is an error in plain words', async (t) => {
    const garbage = await serveTcp(t, (socket) => socket.write('SSH-2.0-OpenSSH_9.0\r\n'))
    const closing = await serveTcp(t, (socket) => socket.destroy())
    const silent = await serveTcp(t, () => {})
    const dial = (port: number): Promise<unknown> =>
      dialTls({ host: '127.0.0.1', port }, { verify: byCa(ca), timeout: 200 })
    await assert.rejects(dial(garbage), { message: /^127\.0\.0\.1:\d+ does not speak TLS as it should/ })
    await assert.rejects(dial(closing), { message: /closed the connection during the TLS handshake$/, retryable: true })
    await assert.rejects(dial(silent), { message: `no answer from 127.0.0.1:${silent} in time`, retryable: true })
  })

  test('a dial that is given up ends at once', async (t) => {
    const silent = await serveTcp(t, () => {})
    const given = new AbortController()
    const dialling = dialTls({ host: '127.0.0.1', port: silent }, { verify: byCa(ca), signal: given.signal })
    setTimeout(() => given.abort(), 20)
    await assert.rejects(dialling, { code: 'PROXY_ERR_ABORTED' })
    await assert.rejects(dialTls({ host: '127.0.0.1', port: silent }, { verify: byCa(ca), signal: given.signal }), {
      code: 'PROXY_ERR_ABORTED',
    })
  })

  test('nothing that listens is a refusal that may pass', async (t) => {
    const port = await serveTcp(t, () => {})
    await assert.rejects(dialTls({ host: '127.0.0.1', port: port === 1 ? 2 : 1 }, { verify: byCa(ca) }), {
      code: 'PROXY_ERR_DIAL_FAILED',
      message: /^nothing listens on 127\.0\.0\.1:/,
      retryable: true,
    })
  })
})
