import assert from 'node:assert/strict'
import { test } from 'node:test'
import { customerOf, NetSet, parseIp } from '../../../lib/sockets/ip.ts'
import { formatRemote } from '../../../lib/sockets/remote.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(`${text} is an address`)

test('addresses are written with their port if there is one', () => {
  assert.equal(formatRemote('192.0.2.1', 80), '192.0.2.1:80')
  assert.equal(formatRemote('192.0.2.1', 0), '192.0.2.1')
  assert.equal(formatRemote('2001:db8::1', 80), '[2001:db8::1]:80')
  assert.equal(formatRemote('2001:db8::1', undefined), '[2001:db8::1]')
  assert.equal(formatRemote('::ffff:192.0.2.1', 80), '192.0.2.1:80')
  assert.equal(formatRemote('::ffff:c000:201', 80), '[::ffff:c000:201]:80')
})

test('a set of addresses and CIDRs knows what is in it', () => {
  const set = new NetSet(['192.0.2.1', '10.0.0.0/8', '2001:db8::/32'])
  for (const text of ['192.0.2.1', '::ffff:192.0.2.1', '10.255.0.1', '2001:db8:ffff::1'])
    assert.ok(set.has(ip(text)), text)
  for (const text of ['192.0.2.2', '11.0.0.1', '2001:db9::1', '::1']) assert.ok(!set.has(ip(text)), text)
  assert.ok(!new NetSet([]).has(ip('127.0.0.1')))
  for (const text of ['localhost', '10.0.0.0/33', '', '10.0.0.0/8 ', '::1%lo']) {
    assert.throws(() => new NetSet([text]), { code: 'PROXY_ERR_PATTERN' }, text)
  }
})

test('an IPv6 address counts by its /64', () => {
  assert.equal(customerOf(ip('2001:db8::1')), customerOf(ip('2001:db8::ffff:1')))
  assert.notEqual(customerOf(ip('2001:db8::1')), customerOf(ip('2001:db8:0:1::1')))
  assert.notEqual(customerOf(ip('192.0.2.1')), customerOf(ip('192.0.2.2')))
  assert.equal(customerOf(ip('::ffff:192.0.2.1')), customerOf(ip('192.0.2.1')))
})
