import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { allowAll, Domains } from '../../../lib/core/index.ts'
import { openHere } from '../../../lib/domains/open-here.ts'
import { proxyHeader } from '../../../lib/domains/proxy-header.ts'
import { tcp } from '../../../lib/domains/tcp.ts'
import { unix } from '../../../lib/domains/unix.ts'
import { readProxyHeader } from '../../../lib/transports/proxy-header.ts'
import { program } from '../../helpers/contract/programs.ts'

const TO = { address: '10.0.0.5', port: 22 }
const hex = (text: string): Buffer => Buffer.from(text.replace(/\s/g, ''), 'hex')
const SIGNATURE = '0d0a0d0a000d0a515549540a'

test('version 2, byte for byte', () => {
  for (const [from, to, rest] of [
    ['192.0.2.9:49152', TO, '21 11 000c c0000209 0a000005 c000 0016'],
    ['192.0.2.9', TO, '21 11 000c c0000209 0a000005 0000 0016'],
    [
      '[2001:db8::9]:1',
      { address: '::1', port: 2 },
      '21 21 0024 20010db8000000000000000000000009 00000000000000000000000000000001 0001 0002',
    ],
    // Where one is IPv6, the other is written as if it were.
    ['[2001:db8::9]:1', TO, '21 21 0024 20010db8000000000000000000000009 00000000000000000000ffff0a000005 0001 0016'],
    [
      '192.0.2.9:1',
      { address: 'fe80::1%eth0', port: 2 },
      '21 21 0024 00000000000000000000ffffc0000209 fe800000000000000000000000000001 0001 0002',
    ],
    ['[::ffff:192.0.2.9]:1', { address: '::ffff:10.0.0.5', port: 22 }, '21 11 000c c0000209 0a000005 0001 0016'],
    [
      '[fe80::1%eth0]:1',
      { address: '::1', port: 2 },
      `21 21 0024 fe80${'00'.repeat(13)}01 ${'00'.repeat(15)}01 0001 0002`,
    ],
    // To a Unix socket, which has no address.
    ['192.0.2.9:1', undefined, '21 11 000c c0000209 00000000 0001 0000'],
    // Nobody with an address.
    [undefined, TO, '20 00 0000'],
    ['', TO, '20 00 0000'],
    ['unix', TO, '20 00 0000'],
    ['192.0.2.9:99999', TO, '20 00 0000'],
    ['192.0.2.999:1', TO, '20 00 0000'],
    ['192.0.2.9:1\r\nX', TO, '20 00 0000'],
    ['[2001:db8::9', TO, '20 00 0000'],
    ['x'.repeat(100_000), TO, '20 00 0000'],
  ] as const) {
    assert.deepEqual(proxyHeader('v2', from, to), hex(SIGNATURE + rest), from?.slice(0, 40))
  }
})

test('version 1, as text', () => {
  for (const [from, to, line] of [
    ['192.0.2.9:49152', TO, 'PROXY TCP4 192.0.2.9 10.0.0.5 49152 22'],
    ['[2001:db8::9]:1', TO, 'PROXY TCP6 2001:db8:0:0:0:0:0:9 0:0:0:0:0:ffff:a00:5 1 22'],
    [undefined, TO, 'PROXY UNKNOWN'],
    ['192.0.2.9:1\r\nPROXY', TO, 'PROXY UNKNOWN'],
  ] as const) {
    assert.equal(proxyHeader('v1', from, to).toString(), `${line}\r\n`)
  }
})

test('what is written is what is read at our own entrance', () => {
  for (const version of ['v1', 'v2'] as const) {
    for (const [address, from] of [
      ['192.0.2.9', '192.0.2.9:7'],
      ['2001:db8::9', '[2001:db8::9]:7'],
    ] as const) {
      const bytes = proxyHeader(version, from, TO)
      assert.deepEqual(readProxyHeader(bytes), { found: { length: bytes.length, source: { address, port: 7 } } })
    }
    const local = proxyHeader(version, undefined, TO)
    assert.deepEqual(readProxyHeader(local), { found: { length: local.length, source: undefined } })
  }
})

test('tcp and unix say it first, before anything of the visitor, and to nobody who did not ask', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'symport-'))
  t.after(() => rm(folder, { recursive: true }))
  const path = join(folder, 'x.sock')
  const plugins = new Domains([tcp(), unix()], allowAll)
  await using there = await program()
  await using local = await program(() => {}, path)
  const signal = AbortSignal.timeout(5000)
  for (const [to, at, expected] of [
    [
      { Domain: 'tcp', Addr: `127.0.0.1:${there.port}?proxy=v2` },
      there,
      proxyHeader('v2', '192.0.2.9:7', { address: '127.0.0.1', port: there.port }),
    ],
    [
      { Domain: 'tcp', Addr: `localhost:${there.port}?proxy=v1` },
      there,
      Buffer.from(`PROXY TCP4 192.0.2.9 127.0.0.1 7 ${there.port}\r\n`),
    ],
    [{ Domain: 'tcp', Addr: `127.0.0.1:${there.port}` }, there, Buffer.alloc(0)],
    [{ Domain: 'unix', Addr: `${path}?proxy=v2` }, local, proxyHeader('v2', '192.0.2.9:7', undefined)],
    [{ Domain: 'unix', Addr: path }, local, Buffer.alloc(0)],
  ] as const) {
    const sub = openHere(plugins, to, { signal, from: '192.0.2.9:7' })
    sub.end('hello')
    const socket = await at.accepted()
    const got = Buffer.concat(await socket.toArray())
    assert.deepEqual(got, Buffer.concat([expected, Buffer.from('hello')]), to.Addr)
    socket.end()
    sub.resume()
  }
})
