import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ProxyError } from '../../../lib/core/index.ts'
import { formatTarget } from '../../../lib/domains/dynamic-target.ts'
import {
  addressLength,
  datagramTarget,
  encodeReply,
  payloadOffset,
  readAddress,
} from '../../../lib/domains/socks5-wire.ts'

const NAME = Buffer.from([3, 9, ...Buffer.from('localhost'), 0x1f, 0x90])
const IPV4 = Buffer.from([1, 192, 0, 2, 1, 0, 80])
const IPV6 = Buffer.from([4, 0x20, 1, 0x0d, 0xb8, ...Buffer.alloc(11), 1, 1, 0xbb])

test('the three kinds of address', () => {
  for (const [bytes, target] of [
    [IPV4, '192.0.2.1:80'],
    [NAME, 'localhost:8080'],
    [IPV6, '[2001:db8::1]:443'],
  ] as const) {
    assert.equal(addressLength(bytes, 0), bytes.length)
    assert.equal(formatTarget(readAddress(bytes, 0)), target)
    const shifted = Buffer.concat([Buffer.alloc(3), bytes, Buffer.from('rest')])
    assert.equal(addressLength(shifted, 3), bytes.length)
    assert.equal(formatTarget(readAddress(shifted, 3)), target)
    assert.equal(payloadOffset(shifted), 3 + bytes.length)
    assert.equal(datagramTarget(shifted), target)
  }
  for (const type of [0, 2, 5, 255]) assert.equal(addressLength(Buffer.from([type, 1]), 0), undefined)
  assert.equal(addressLength(Buffer.alloc(0), 0), undefined)
})

test('a target has a name or an address, and a port', () => {
  for (const host of ['', ' ', 'a b', 'a\0', 'caf\xe9', 'a/b', 'a..b', 'a:80', '*', 'fe80::1%eth0', 'x'.repeat(64)]) {
    assert.throws(() => formatTarget({ host, port: 80 }), { code: 'PROXY_ERR_ADDRESS' }, host)
  }
  assert.throws(() => formatTarget({ host: 'a', port: 0 }), { code: 'PROXY_ERR_ADDRESS' })
  assert.equal(formatTarget({ host: 'a.test.', port: 1 }), 'a.test.:1')
  assert.equal(formatTarget({ host: '::1', port: 1 }), '[::1]:1')
})

test('a reply tells where datagrams are taken, and else nothing', () => {
  assert.deepEqual([...encodeReply(0)], [5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
  assert.deepEqual([...encodeReply(7)], [5, 7, 0, 1, 0, 0, 0, 0, 0, 0])
  const four = encodeReply(0, { address: '127.0.0.1', port: 8080 })
  assert.deepEqual([...four], [5, 0, 0, 1, 127, 0, 0, 1, 0x1f, 0x90])
  for (const address of ['::', '::1', '2001:db8::1', 'fe80::1:0:0:2', '1:2:3:4:5:6:7:8', '2001::']) {
    const six = encodeReply(0, { address, port: 1 })
    assert.equal(six.length, 22)
    assert.deepEqual(readAddress(six, 3), { host: address, port: 1 })
  }
  const zone = encodeReply(0, { address: 'fe80::1%eth0', port: 1 })
  assert.deepEqual(readAddress(zone, 3), { host: 'fe80::1', port: 1 })
})

test('a fragment is no datagram, and neither is what is cut off', () => {
  const whole = Buffer.concat([Buffer.alloc(3), NAME])
  assert.equal(payloadOffset(whole), whole.length)
  for (let length = 0; length < whole.length; length++)
    assert.equal(payloadOffset(whole.subarray(0, length)), undefined)
  const fragment = Buffer.from(whole)
  fragment[2] = 1
  assert.equal(payloadOffset(fragment), undefined)
})

test('whatever comes is a datagram for a target, or is not', () => {
  const address = fc.oneof(fc.constantFrom(IPV4, NAME, IPV6), fc.uint8Array({ maxLength: 30 }))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4 }), address, fc.uint8Array({ maxLength: 300 }), (head, at, rest) => {
      const datagram = Buffer.concat([head.length === 4 ? Buffer.alloc(3) : head, at, rest])
      const offset = payloadOffset(datagram)
      if (offset === undefined) return
      assert.ok(offset <= datagram.length)
      try {
        assert.match(datagramTarget(datagram), /^(?:\[[0-9a-f:.]+\]|[\x21-\x7e]+):[1-9][0-9]*$/)
      } catch (error) {
        assert.ok(error instanceof ProxyError, String(error))
      }
    }),
    { numRuns: 500 },
  )
})
