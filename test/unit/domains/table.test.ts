import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createDomains } from '../../../apps/common/options.ts'
import type { Domain, KnownDomain } from '../../../lib/domains/domain.ts'
import { checkPair } from '../../../lib/domains/endpoint-url.ts'
import { DOMAINS, ownDomains, peerDomains } from '../../../lib/domains/table.ts'

type Known = Exclude<KnownDomain, string>
const known = (name: string, list: readonly KnownDomain[] = DOMAINS): Known | undefined =>
  list.filter((one) => typeof one !== 'string').find((one) => one.name === name)

test('the table says of each plug-in of this side what the plug-in says itself', () => {
  for (const plugin of createDomains() as Domain[]) {
    const row = known(plugin.name)
    assert.ok(row, plugin.name)
    assert.equal(row.carries ?? 'stream', plugin.carries ?? 'stream', plugin.name)
    // Names of TLS are a server's alone, which has another plug-in for them.
    if (plugin.name !== 'tls')
      assert.equal(row.listen !== undefined, plugin.listen !== undefined, `${plugin.name} listens`)
    // http:// is written for what is dialled as tcp.
    if (plugin.name !== 'http') assert.equal(row.dial !== undefined, plugin.dial !== undefined, `${plugin.name} dials`)
    const role = plugin.listen ? 'listen' : 'forward'
    const Addr = plugin.name === 'unix' ? '/run/x.sock' : '127.0.0.1:80'
    const at = { Domain: plugin.name, Addr }
    assert.deepEqual(row.read?.(at, role) ?? at, plugin.read?.(at, role) ?? at, plugin.name)
  }
})

test('the other side can do all of it, and what the plug-ins of an embedder are called', () => {
  const peer = peerDomains([{ name: 'tcp' }, { name: 'mine', listen: () => undefined }])
  assert.equal(peer.filter((one) => typeof one === 'object').length, DOMAINS.length)
  assert.deepEqual(
    peer.filter((one) => typeof one === 'string'),
    ['mine'],
  )
})

test('this side can do what its plug-ins can, and is the exit of proxies', () => {
  const own = ownDomains([{ name: 'tcp', listen: () => undefined }])
  assert.notEqual(known('tcp', own)?.listen, undefined)
  assert.equal(known('tcp', own)?.dial, undefined)
  assert.notEqual(known('tunnel', own)?.dial, undefined)
  assert.equal(known('channel', own)?.listen, undefined)
})

test('two halves go together if what comes in at one can go out at the other', () => {
  const goes = (listen: string, forward: string): boolean => {
    try {
      checkPair({ Listen: { Domain: listen, Addr: '' }, Forward: { Domain: forward, Addr: '' } }, DOMAINS)
      return true
    } catch (error) {
      assert.ok(error instanceof Error && 'code' in error && error.code === 'PROXY_ERR_SPEC')
      assert.doesNotMatch(error.message, /undefined|\n/)
      return false
    }
  }
  const exits = ['tcp', 'udp', 'unix', 'tls', 'tunnel', 'channel']
  const to = (listen: string): string => exits.filter((forward) => goes(listen, forward)).join(' ')
  assert.equal(to('tcp'), 'tcp unix tls channel')
  assert.equal(to('unix'), 'tcp unix tls channel')
  assert.equal(to('web'), 'tcp unix tls channel')
  assert.equal(to('ws'), 'tcp unix tls channel')
  assert.equal(to('udp'), 'udp channel')
  for (const proxy of ['socks5', 'http', 'mixed']) assert.equal(to(proxy), 'tunnel', proxy)
  assert.equal(to('channel'), exits.join(' '))
  // What nobody knows can be anything.
  assert.ok(goes('mine', 'tunnel') && goes('socks5', 'mine'))
})
