import assert from 'node:assert/strict'
import { createPrivateKey, sign } from 'node:crypto'
import test from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/errors.ts'
import { decodeHello, encodeHello } from '../../../lib/core/hello.ts'
import { hex, u64 } from '../../helpers/core/bytes.ts'

/** RFC 8032, section 7.1, test 1. */
const SECRET = '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'
const PUBLIC = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'
const identity = createPrivateKey({
  key: hex(`302e020100300506032b657004220420${SECRET}`),
  format: 'der',
  type: 'pkcs8',
})

function field(type: number, value: Uint8Array | string, length = Buffer.from(value).length): Buffer {
  return Buffer.concat([Buffer.from([type, length >> 8, length & 0xff]), Buffer.from(value)])
}

const payload = (...fields: Buffer[]): Buffer => Buffer.concat([u64(0), ...fields])

test('a hello that says nothing is 8 bytes', () => {
  assert.equal(encodeHello({ expected: 0, label: '' }).toString('hex'), '0000000000000000')
  assert.equal(encodeHello({ expected: 7, label: '' }).toString('hex'), '0000000000000007')
})

test('a label is field 1', () => {
  assert.equal(encodeHello({ expected: 0, label: 'né' }).toString('hex'), '00000000000000000100036ec3a9')
})

test('a node key is field 2: the raw key, then its signature', () => {
  const signature = Buffer.alloc(64, 0x55)
  const bytes = encodeHello({ expected: 0, label: '', proof: { identity, signature } })
  assert.equal(bytes.toString('hex'), `0000000000000000020060${PUBLIC}${'55'.repeat(64)}`)
})

test('what is encoded is decoded', () => {
  const signature = sign(null, Buffer.from('hash'), identity)
  const decoded = decodeHello(encodeHello({ expected: 2 ** 40, label: 'node one', proof: { identity, signature } }))
  assert.equal(decoded.expected, 2 ** 40)
  assert.equal(decoded.label, 'node one')
  assert.equal(decoded.key?.raw.toString('hex'), PUBLIC)
  assert.deepEqual(decoded.signature, signature)
})

test('without fields there is no label and no key', () => {
  assert.deepEqual(decodeHello(payload()), { expected: 0, label: '', key: undefined, signature: undefined })
})

test('fields of later versions are skipped', () => {
  const decoded = decodeHello(payload(field(0, ''), field(200, 'whatever'), field(1, 'name'), field(255, 'x')))
  assert.equal(decoded.label, 'name')
})

test('a label ends at 64 bytes, not letters', () => {
  assert.equal(decodeHello(payload(field(1, 'x'.repeat(64)))).label, 'x'.repeat(64))
  assert.throws(() => decodeHello(payload(field(1, 'x'.repeat(65)))), { code: 'PROXY_ERR_FRAME' })
  assert.throws(() => encodeHello({ expected: 0, label: 'é'.repeat(33) }), RangeError)
})

test('a label from the other side is one plain line', () => {
  assert.equal(decodeHello(payload(field(1, 'a\x1b[2Jb\nc\u202e'))).label, 'a?[2Jb?c?')
  assert.equal(decodeHello(payload(field(1, hex('ff fe')))).label, '\ufffd\ufffd')
})

test('a node key of another length is refused', () => {
  for (const length of [0, 32, 95, 97, 128]) {
    assert.throws(() => decodeHello(payload(field(2, Buffer.alloc(length)))), { code: 'PROXY_ERR_FRAME' }, `${length}`)
  }
})

test('a hello that is cut off is refused', () => {
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.alloc(7),
    payload(hex('01')),
    payload(hex('0100')),
    payload(field(1, 'name', 5)),
    payload(field(1, '', 0xffff)),
    payload(field(200, 'x', 2)),
  ]) {
    assert.throws(() => decodeHello(bytes), { code: 'PROXY_ERR_FRAME' }, bytes.toString('hex'))
  }
})

test('a number beyond 2^53 is refused', () => {
  assert.throws(() => decodeHello(u64(2n ** 53n)), { code: 'PROXY_ERR_FRAME' })
})

test('any bytes give a hello or a ProxyError', () => {
  const bytes = fc.uint8Array({ maxLength: 200 }).map((tail) => Buffer.concat([u64(0), tail]))
  const keys = fc.uint8Array({ minLength: 96, maxLength: 96 }).map((key) => payload(field(2, key)))
  fc.assert(
    fc.property(fc.oneof(bytes, keys), (hello) => {
      try {
        assert.equal(decodeHello(hello).expected, 0)
      } catch (error) {
        assert.ok(error instanceof ProxyError, String(error))
      }
    }),
  )
})
