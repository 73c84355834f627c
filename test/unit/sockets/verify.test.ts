import assert from 'node:assert/strict'
import test from 'node:test'
import { parseCa, parsePin } from '../../../lib/sockets/verify.ts'
import { Identity } from '../../helpers/transports/authority.ts'

const HEX = '00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff'

test('a pin is read with and without colons, in upper and lower case', () => {
  const colons = HEX.toUpperCase().match(/../g)?.join(':')
  for (const text of [`sha256:${HEX}`, `SHA256:${HEX.toUpperCase()}`, `sha256:${colons}`, ` sha256:${HEX}\n`]) {
    assert.deepEqual(parsePin(text), { by: 'pin', sha256: HEX })
  }
})

test('emits PROXY_ERR_USAGE for a pin that is none', () => {
  const bad = ['', 'sha256:', HEX, `sha1:${HEX}`, `sha256:${HEX}0`, `sha256:${HEX.slice(1)}`, `sha256:g${HEX.slice(1)}`]
  for (const text of [...bad, `sha256:${HEX}:`, `sha256::${HEX}`, `sha256:${HEX.replace('11', '1:1')}`]) {
    assert.throws(() => parsePin(text), { code: 'PROXY_ERR_USAGE' }, text)
  }
})

test('a file of CAs may have several, and remarks between them', async () => {
  const [a, b] = await Promise.all([Identity.make('a', { ca: true }), Identity.make('b', { ca: true })])
  const verify = parseCa(`# ours\r\n${a.cert}\n# theirs\n${b.cert}`)
  assert.ok(verify.by === 'ca')
  assert.equal(verify.pem.match(/BEGIN CERTIFICATE/g)?.length, 2)
})

test('emits PROXY_ERR_USAGE for a file of CAs without one, or with a damaged one', async () => {
  const { cert, key } = await Identity.make('a', { ca: true })
  for (const text of ['', 'hello', key, cert.replace(/\n(.{20})/, '\nAAAA$1')]) {
    assert.throws(() => parseCa(text), { code: 'PROXY_ERR_USAGE' })
  }
})
