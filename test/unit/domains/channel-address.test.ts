import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkEndpoint, type Endpoint } from '../../../lib/core/index.ts'
import {
  isChannelName,
  passwordOf,
  readChannel,
  readTunnel,
  readUserInfo,
} from '../../../lib/domains/channel-address.ts'
import { Hidden } from '../../../lib/domains/hidden.ts'

const channel = (Addr: string): Endpoint => ({ Domain: 'channel', Addr })
const tunnel = (Addr: string): Endpoint => ({ Domain: 'tunnel', Addr })

const right: [written: string, name: string, password: string][] = [
  ['ssh:pw@', 'ssh', 'pw'],
  ['ssh@', 'ssh', ''],
  ['work_tunnel:password@', 'work_tunnel', 'password'],
  ['a.b-C_9:x@', 'a.b-C_9', 'x'],
  [`${'n'.repeat(64)}:x@`, 'n'.repeat(64), 'x'],
  ['ssh:p:q@', 'ssh', 'p:q'],
  ['ssh:p@q@', 'ssh', 'p@q'],
  ['ssh:p%40q%3A%25@', 'ssh', 'p@q:%'],
  ['%73sh:%C3%BC@', 'ssh', 'ü'],
  ['ssh: @', 'ssh', ' '],
  [`ssh:${'p'.repeat(256)}@`, 'ssh', 'p'.repeat(256)],
]

for (const [written, name, password] of right) {
  test(`${written.slice(0, 30)} is a channel called ${name.slice(0, 20)}`, () => {
    for (const read of [readChannel, readTunnel]) {
      for (const role of ['listen', 'forward'] as const) {
        const at = read(channel(written), role)
        assert.equal(at.Addr, name)
        assert.equal(passwordOf(at)?.reveal(), password)
        // What was read already stays what it is.
        assert.deepEqual(read(at, role), at)
        assert.ok(!JSON.stringify(at).includes('Password'))
        // What a peer is told.
        assert.deepEqual(checkEndpoint(at), { Domain: 'channel', Addr: name })
      }
    }
  })
}

const wrong: [written: string, said: RegExp][] = [
  ['', /^channel NAME has no password|the "@" is missing: write channel:\/\/NAME:PASSWORD@/],
  ['ssh', /^channel ssh has no password with it: write channel:\/\/ssh:PASSWORD@, or channel:\/\/ssh@ for one without/],
  ['ssh:s3cr3t', /^the "@" is missing: write channel:\/\/ssh:PASSWORD@/],
  ['@', /^the name of the channel is missing: write NAME:PASSWORD@$/],
  [':s3cr3t@', /^the name of the channel is missing/],
  ['ssh:@', /^the password of channel ssh is empty: write ssh@ for one without$/],
  ['ssh:s3cr3t@host', /^nothing comes behind the "@" of a channel/],
  ['ssh:s3cr3t@127.0.0.1:22', /^nothing comes behind the "@" of a channel/],
  ['ssh:s3cr3t@/', /^nothing comes behind the "@" of a channel/],
  ['a b:s3cr3t@', /^the name of a channel has letters, digits/],
  ['s3cr3t/:x@', /^the name of a channel has letters, digits/],
  ['..:s3cr3t@', /^the name of a channel has letters, digits.*not made of dots$/],
  ['ü:s3cr3t@', /^the name of a channel has letters, digits/],
  ['a%00b:s3cr3t@', /^the name of a channel has letters, digits/],
  ['a%2Fb:s3cr3t@', /^the name of a channel has letters, digits/],
  [`${'n'.repeat(65)}:s3cr3t@`, /^the name of a channel has at most 64 characters$/],
  ['ssh:s3cr3t%@', /^the password of channel ssh has a "%" that is not followed/],
  ['ssh:s3cr3t%zz@', /^the password of channel ssh has a "%" that is not followed/],
  ['ssh:s3cr3t%FF@', /^the password of channel ssh has a "%" that is not followed/],
  ['ss%h:s3cr3t@', /^the name of the channel has a "%" that is not followed/],
  [`ssh:s3cr3t${'p'.repeat(256)}@`, /^the password of channel ssh is longer than 256 bytes$/],
]

for (const [written, said] of wrong) {
  test(`${JSON.stringify(written.slice(0, 30))} is no channel, and the error does not show the password`, () => {
    const failures = [() => readChannel(channel(written), 'listen')]
    if (written !== '') failures.push(() => readTunnel(channel(written), 'forward'))
    for (const read of failures) {
      assert.throws(read, (error: Error & { code?: string }) => {
        assert.equal(error.code, 'PROXY_ERR_ADDRESS')
        assert.match(error.message, said)
        assert.ok(!/s3cr3t|[\n\r]/.test(error.message), error.message)
        return true
      })
    }
  })
}

test('a tunnel without a name is the peer itself', () => {
  assert.deepEqual(readTunnel(tunnel(''), 'forward'), tunnel(''))
  assert.equal(passwordOf(readTunnel(tunnel(''), 'forward')), undefined)
})

test('a name beside its password is checked too, and no other thing passes for a password', () => {
  const at = { ...channel('a/b'), Password: new Hidden('s3cr3t') }
  assert.throws(() => readChannel(at, 'listen'), { code: 'PROXY_ERR_ADDRESS' })
  const text = { ...channel('ssh'), Password: 's3cr3t' }
  assert.equal(passwordOf(text), undefined)
  assert.throws(() => readChannel(text, 'listen'), /has no password with it/)
  assert.equal(passwordOf(channel('ssh')), undefined)
})

test('the user information of another URL is read the same way', () => {
  const { name, password } = readUserInfo('ssh:p%40w')
  assert.deepEqual([name, password.reveal()], ['ssh', 'p@w'])
  assert.equal(readUserInfo('ssh').password.reveal(), '')
  assert.throws(() => readUserInfo(''), { code: 'PROXY_ERR_ADDRESS' })
})

test('names are of a set that is safe in logs, files and URLs', () => {
  for (const name of ['a', 'A.b', '-', '_', '0', '.a']) assert.ok(isChannelName(name), name)
  for (const name of ['', '.', '..', '...', 'a b', 'a\n', '\na', 'a/b', 'a:b', 'a@b', 'a%', 'é', '\0']) {
    assert.ok(!isChannelName(name), JSON.stringify(name))
  }
})
