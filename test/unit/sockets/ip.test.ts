import assert from 'node:assert/strict'
import { BlockList } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { bitsOf, isConfined, isIn, isLoopback, parseIp, parseTarget } from '../../../lib/sockets/ip.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(`${text} is an address`)

test('reads IPv4 and IPv6 as numbers', () => {
  assert.deepEqual(ip('127.0.0.1'), { version: 4, value: 0x7f000001n })
  assert.deepEqual(ip('::1'), { version: 6, value: 1n })
  assert.deepEqual(ip('::'), { version: 6, value: 0n })
  assert.deepEqual(ip('2001:db8::8:800:200c:417a'), { version: 6, value: 0x20010db80000000000080800200c417an })
  assert.deepEqual(ip('1:2:3:4:5:6:7:8'), { version: 6, value: 0x00010002000300040005000600070008n })
  assert.deepEqual(ip('64:ff9b::192.0.2.33'), { version: 6, value: 0x0064ff9b0000000000000000c0000221n })
})

test('IPv4-mapped IPv6 is the IPv4 address', () => {
  for (const text of ['::ffff:10.0.0.1', '::ffff:a00:1', '0:0:0:0:0:FFFF:0A00:0001']) {
    assert.deepEqual(ip(text), { version: 4, value: 0x0a000001n })
  }
})

test('zones and odd spellings are no addresses', () => {
  for (const text of ['fe80::1%eth0', '127.1', '0177.0.0.1', '010.0.0.1', '2130706433', '0x7f.0.0.1', '[::1]', '']) {
    assert.equal(parseIp(text), undefined, text)
  }
})

test('a connection to the unspecified address reaches loopback', () => {
  assert.deepEqual(parseTarget('0.0.0.0'), ip('127.0.0.1'))
  assert.deepEqual(parseTarget('::ffff:0.0.0.0'), ip('127.0.0.1'))
  assert.deepEqual(parseTarget('::'), ip('::1'))
})

test('knows loopback, link-local, multicast and unspecified addresses', () => {
  for (const text of ['127.0.0.1', '127.255.255.255', '::1', '::ffff:127.0.0.1']) assert.ok(isLoopback(ip(text)), text)
  const confined = ['0.0.0.0', '0.1.2.3', '127.8.8.8', '169.254.169.254', '224.0.0.1', '239.1.1.1', '255.255.255.255']
  for (const text of [...confined, '::', '::1', 'fe80::1', 'febf::1', 'ff02::1', '::ffff:169.254.0.1']) {
    assert.ok(isConfined(ip(text)), text)
  }
  for (const text of [
    '10.0.0.1',
    '169.253.0.1',
    '223.0.0.1',
    '240.0.0.1',
    'fec0::1',
    'fe7f::1',
    'fd00::1',
    '2001::1',
  ]) {
    assert.ok(!isConfined(ip(text)), text)
  }
})

test('agrees with BlockList on which addresses a prefix covers', () => {
  const pair = fc.oneof(
    fc.tuple(fc.constant(4 as const), fc.ipV4(), fc.ipV4(), fc.nat(32)),
    fc.tuple(fc.constant(6 as const), fc.ipV6(), fc.ipV6(), fc.nat(128)),
  )
  fc.assert(
    fc.property(pair, ([version, base, address, prefix]) => {
      const family = version === 4 ? 'ipv4' : 'ipv6'
      fc.pre(ip(base).version === version && ip(address).version === version)
      const list = new BlockList()
      list.addSubnet(base, prefix, family)
      assert.equal(isIn({ ...ip(base), prefix }, ip(address)), list.check(address, family))
      assert.ok(isIn({ ...ip(base), prefix: bitsOf(version) }, ip(base)))
    }),
  )
})
