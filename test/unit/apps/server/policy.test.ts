import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AllowValues, givesNames, policyOf, wspAllow } from '../../../../apps/server/policy.ts'

const values = (given: Partial<AllowValues> = {}): AllowValues => {
  return { allow: [], 'allow-ports': undefined, 'allow-names': [], ...given }
}
const OURS = { own: { paths: ['/symport'] }, wsp: undefined }
const WSP = { own: { paths: ['/symport'], hosts: ['wsp.example.com'] }, wsp: {} }
const tcp = (Addr: string) => ({ Domain: 'tcp', Addr })
const web = (Addr: string) => ({ Domain: 'web', Addr })
const LISTEN = { code: 'PROXY_ERR_LISTEN_DENIED' }
const DIAL = { code: 'PROXY_ERR_DIAL_DENIED' }

test('without flags a server gives nothing', () => {
  const policy = policyOf(values(), OURS)
  assert.throws(() => policy.listen(web('/api')), LISTEN)
  assert.throws(() => policy.listen(tcp(':80')), LISTEN)
  assert.throws(() => policy.dial(tcp('192.0.2.1:80'), '192.0.2.1'), DIAL)
})

test('each flag gives what it names', () => {
  const policy = policyOf(
    values({ allow: ['192.0.2.1:80'], 'allow-ports': '80', 'allow-names': ['/api', '*.x.com'] }),
    OURS,
  )
  policy.listen(web('/api/v1'))
  policy.listen({ Domain: 'ws', Addr: 'a.x.com' })
  policy.listen(tcp(':80'))
  policy.dial(tcp('192.0.2.1:80'), '192.0.2.1')
  assert.throws(() => policy.listen(web('/b')), LISTEN)
  assert.throws(() => policyOf(values({ 'allow-names': ['*'] }), OURS).listen(web('/symport')), LISTEN)
  assert.throws(() => policyOf(values({ 'allow-names': ['/'] }), OURS), { code: 'PROXY_ERR_PATTERN' })
})

test('a file of wsp gives what wsp gives, and flags and its allow say it more exactly', () => {
  const policy = policyOf(values(), WSP)
  policy.dial(tcp('192.0.2.1:80'), '192.0.2.1')
  policy.listen(web('/api'))
  assert.throws(() => policy.dial(tcp('127.0.0.1:80'), '127.0.0.1'), DIAL)
  assert.throws(() => policy.listen(tcp(':80')), LISTEN)
  assert.throws(() => policy.listen(web('wsp.example.com')), LISTEN)
  const exact = policyOf(values({ allow: ['127.0.0.1:80'], 'allow-ports': '80', 'allow-names': ['/api'] }), WSP)
  exact.dial(tcp('127.0.0.1:80'), '127.0.0.1')
  exact.listen(tcp(':80'))
  assert.throws(() => exact.dial(tcp('192.0.2.1:80'), '192.0.2.1'), DIAL)
  assert.throws(() => exact.listen(web('/b')), LISTEN)
  const none = policyOf(values(), { ...WSP, wsp: { allow: [] } })
  assert.throws(() => none.dial(tcp('192.0.2.1:80'), '192.0.2.1'), DIAL)
})

test('what is told at the start fits what holds', () => {
  assert.equal(wspAllow(values(), {}), undefined)
  assert.deepEqual(wspAllow(values(), { allow: [] }), [])
  assert.deepEqual(wspAllow(values({ allow: ['a:1'] }), {}), ['a:1'])
  assert.equal(givesNames(values(), undefined), false)
  assert.equal(givesNames(values(), {}), true)
  assert.equal(givesNames(values({ 'allow-names': ['/x'] }), undefined), true)
})
