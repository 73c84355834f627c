import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { connect } from 'node:tls'
import fc from 'fast-check'
import { type ClientHello, readClientHello } from '../../../lib/transports/client-hello.ts'
import { clientHello, extension, inRecords, vector } from '../../helpers/contract/one-port.ts'

const bad = { code: 'PROXY_ERR_TLS' }

function read(bytes: Buffer): ClientHello {
  const verdict = readClientHello(bytes)
  assert.ok('found' in verdict, 'it is whole')
  return verdict.found
}

/** What Node.js says first. */
async function realHello(options: object): Promise<Buffer> {
  return await new Promise((resolve) => {
    const wire = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        resolve(chunk)
        done()
      },
    })
    connect({ socket: wire, ...options })
      .on('error', () => {})
      .unref?.()
  })
}

test('reads name and protocols of what a real client says', async () => {
  const bytes = await realHello({ servername: 'Server.Example', ALPNProtocols: ['symport', 'http/1.1'] })
  assert.deepEqual(read(bytes), { serverName: 'server.example', alpn: ['symport', 'http/1.1'] })
  assert.deepEqual(read(await realHello({ maxVersion: 'TLSv1.2' })), { serverName: undefined, alpn: [] })
})

test('every beginning of it asks for more, and never for less than one byte or more than there is to come', () => {
  for (const whole of [
    clientHello({ serverName: 'a.example', alpn: ['h2', 'symport'] }),
    clientHello({ serverName: 'a.example', alpn: ['h2', 'symport'], record: 1 }),
    clientHello({ serverName: 'a.example', alpn: ['h2', 'symport'], record: 7 }),
  ]) {
    for (let length = 0; length < whole.length; length++) {
      const verdict = readClientHello(whole.subarray(0, length))
      assert.ok('need' in verdict && verdict.need > length && verdict.need <= whole.length, `at ${length}`)
    }
    assert.deepEqual(read(whole), { serverName: 'a.example', alpn: ['h2', 'symport'] })
  }
})

test('what comes behind it is not looked at', () => {
  const whole = Buffer.concat([clientHello({ serverName: 'b' }), Buffer.from('0-RTT')])
  assert.deepEqual(read(whole), { serverName: 'b', alpn: [] })
})

test('one of 16 KiB is read, and one of a byte more is refused before it is there', () => {
  const around = clientHello({ padding: 0 }).length - 5
  const largest = clientHello({ padding: 16_384 - around, record: 4096 })
  assert.deepEqual(read(largest), { serverName: undefined, alpn: [] })
  const tooLarge = clientHello({ padding: 16_385 - around, record: 4096 })
  assert.throws(() => readClientHello(tooLarge.subarray(0, 5 + 4096)), bad)
  assert.throws(() => readClientHello(clientHello({ padding: 17 * 1024 })), bad)
})

test('one in so many records that these outweigh it is refused', () => {
  const tiny = clientHello({ padding: 12_000, record: 1 })
  assert.throws(() => readClientHello(tiny), bad)
})

test('names that are none do not reach anybody', () => {
  for (const name of ['../../etc', 'a b', '', '.', 'a..b', 'a.', 'ä', 'a/b', 'x'.repeat(254), 'a\0b']) {
    assert.equal(read(clientHello({ serverName: name })).serverName, undefined, JSON.stringify(name))
  }
  assert.equal(read(clientHello({ serverName: 'A_1-b.EXAMPLE' })).serverName, 'a_1-b.example')
})

test('other kinds of names are passed over', () => {
  const names = vector(
    2,
    Buffer.concat([Buffer.from([9]), vector(2, Buffer.from('x')), Buffer.from([0]), vector(2, Buffer.from('y'))]),
  )
  assert.equal(read(clientHello({ extra: [extension(0, names)] })).serverName, 'y')
})

test('before TLS 1.3 there need not be extensions', () => {
  const body = Buffer.concat([
    Buffer.alloc(34, 3),
    vector(1, Buffer.alloc(0)),
    vector(2, Buffer.from([0, 47])),
    vector(1, Buffer.from([0])),
  ])
  const message = Buffer.concat([Buffer.from([1]), vector(3, body)])
  assert.deepEqual(read(inRecords(message, 100)), { serverName: undefined, alpn: [] })
})

test('what is no ClientHello is refused', () => {
  const whole = clientHello({ serverName: 'a.example' })
  const changed = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(whole)
    bytes[at] = value
    return bytes
  }
  const cases: Record<string, Buffer> = {
    'another record': changed(0, 23),
    'another version': changed(1, 2),
    'an empty record': Buffer.from([22, 3, 1, 0, 0, 1]),
    'a record that is too long': changed(3, 0x41),
    'another message': changed(5, 2),
    'a session that goes beyond the end': changed(5 + 4 + 34, 255),
    'something twice': clientHello({ extra: [extension(9, Buffer.alloc(1)), extension(9, Buffer.alloc(1))] }),
    'a list that goes beyond its extension': clientHello({ extra: [extension(16, Buffer.from([0, 9, 1]))] }),
    'a half length': clientHello({ extra: [extension(0, Buffer.from([0]))] }),
    'something behind the extensions': inRecords(
      Buffer.concat([Buffer.from([1]), vector(3, Buffer.concat([whole.subarray(9), Buffer.from([0])]))]),
      1000,
    ),
  }
  for (const [what, bytes] of Object.entries(cases)) assert.throws(() => readClientHello(bytes), bad, what)
})

test('no bytes make it throw anything else, or ask for what is too much', () => {
  const whole = clientHello({ serverName: 'a.example', alpn: ['h2'], record: 50 })
  const garbage = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.concat([Buffer.from([22, 3, 1]), bytes])),
    fc.tuple(fc.nat(whole.length - 1), fc.nat(255)).map(([at, value]) => {
      const bytes = Buffer.from(whole)
      bytes[at] = value
      return bytes
    }),
  )
  fc.assert(
    fc.property(garbage, (bytes) => {
      try {
        const verdict = readClientHello(bytes)
        if ('need' in verdict) assert.ok(verdict.need > bytes.length && verdict.need <= 32_768)
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error && error.code === 'PROXY_ERR_TLS')
      }
    }),
    { seed: 4, numRuns: 2000 },
  )
})
