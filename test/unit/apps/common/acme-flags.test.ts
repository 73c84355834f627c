import assert from 'node:assert/strict'
import test from 'node:test'
import { parseAcmeDirectory, parseAcmeEmail, parseAcmeFlags } from '../../../../apps/common/acme-flags.ts'

type Values = Parameters<typeof parseAcmeFlags>[0]

const parse = (values: Partial<Values>): ReturnType<typeof parseAcmeFlags> =>
  parseAcmeFlags({ 'acme-email': undefined, 'acme-directory': undefined, 'acme-ca': undefined, ...values })

test('an address is enough: then it is Let\u2019s Encrypt', async () => {
  assert.equal(await parse({}), undefined)
  assert.deepEqual(await parse({ 'acme-email': 'admin@example.com' }), {
    email: 'admin@example.com',
    directory: 'https://acme-v02.api.letsencrypt.org/directory',
    verify: { by: 'system' },
  })
  assert.match(parseAcmeDirectory('LetsEncrypt-Staging'), /^https:\/\/acme-staging-v02/)
  assert.equal(parseAcmeDirectory('https://ca.internal:14000/dir'), 'https://ca.internal:14000/dir')
})

test('emits PROXY_ERR_USAGE for what makes no sense', async () => {
  const cases: [Partial<Values>, RegExp][] = [
    [{ 'acme-directory': 'letsencrypt' }, /^--acme-directory says nothing without --acme-email$/],
    [{ 'acme-ca': 'x' }, /^--acme-ca says nothing without --acme-email$/],
    [{ 'acme-email': '' }, /^--acme-email: the value is empty/],
    [
      { 'acme-email': 'a@b.c', 'acme-ca': '/none/such' },
      /^--acme-ca: cannot read \/none\/such: there is no such file$/,
    ],
    [{ 'acme-email': 'a@b.c', 'acme-directory': 'letsencrypt-stage' }, /did you mean letsencrypt-staging\?$/],
    [{ 'acme-email': 'a@b.c', 'acme-directory': 'http://ca/dir' }, /^--acme-directory: .* is no directory: write/],
    [{ 'acme-email': 'a@b.c', 'acme-directory': 'https://u:p@ca/dir' }, /is no directory/],
  ]
  for (const [values, message] of cases) await assert.rejects(parse(values), { code: 'PROXY_ERR_USAGE', message })
  for (const text of [
    'admin',
    'a@b',
    'a@b.c,d@e.f',
    'a@b.c?cc=x',
    'a b@c.d',
    'a@b.c\n',
    '@b.c',
    `${'a'.repeat(250)}@b.cd`,
  ]) {
    assert.throws(() => parseAcmeEmail(text), { code: 'PROXY_ERR_USAGE' }, text)
  }
})
