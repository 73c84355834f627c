import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import test, { type TestContext } from 'node:test'
import {
  type AcmeFlagValues,
  parseAcmeDirectory,
  parseAcmeEmail,
  parseAcmeFlags,
} from '../../../../apps/common/acme-flags.ts'

type Values = AcmeFlagValues

const NOTHING: Values = {
  ...{ 'acme-email': undefined, 'acme-directory': undefined, 'acme-ca': undefined, domain: undefined },
  ...{ 'acme-eab-kid': undefined, 'acme-eab-hmac-file': undefined },
  ...{ 'acme-dns-hook': undefined, 'acme-dns-wait': undefined },
}

const parse = (values: Partial<Values>): ReturnType<typeof parseAcmeFlags> => parseAcmeFlags({ ...NOTHING, ...values })

const EMAIL = { 'acme-email': 'a@b.cd' }

function file(t: TestContext, text: string, mode = 0o600): string {
  const folder = mkdtempSync(join(tmpdir(), 'symport-flags-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'file')
  writeFileSync(path, text)
  chmodSync(path, mode)
  return path
}

test('an account at the CA is given by its id and a file with its key', async (t) => {
  const path = file(t, 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n')
  const settings = await parse({ ...EMAIL, 'acme-eab-kid': 'kid-1', 'acme-eab-hmac-file': path })
  assert.deepEqual(settings?.external, {
    kid: 'kid-1',
    hmacKey: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W',
  })
  const bad: [Partial<Values>, RegExp][] = [
    [{ 'acme-eab-kid': 'k' }, /^--acme-eab-kid is given without --acme-eab-hmac-file$/],
    [{ 'acme-eab-hmac-file': path }, /^--acme-eab-hmac-file is given without --acme-eab-kid$/],
    [{ 'acme-eab-kid': 'a b', 'acme-eab-hmac-file': path }, /^--acme-eab-kid: that is no id of an account$/],
    [{ 'acme-eab-kid': 'k', 'acme-eab-hmac-file': '/none/such' }, /cannot read \/none\/such: there is no such file$/],
    [{ 'acme-eab-kid': 'k', 'acme-eab-hmac-file': file(t, 'secret words') }, /there is no key, as the CA shows it/],
    [{ 'acme-eab-kid': 'k', 'acme-eab-hmac-file': file(t, 'x'.repeat(5000)) }, /is too large$/],
  ]
  for (const [values, message] of bad) {
    await assert.rejects(parse({ ...EMAIL, ...values }), (error: Error) => {
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /secret words/)
      return true
    })
  }
})

test('a program that writes into the DNS is there and executable, before anything is started', async (t) => {
  const [hook, plain] = [file(t, '#!/bin/sh\n', 0o700), file(t, '#!/bin/sh\n')]
  const domain = 'example.com'
  const settings = await parse({
    ...{ ...EMAIL, domain },
    ...{ 'acme-dns-hook': relative(process.cwd(), hook), 'acme-dns-wait': '90s' },
  })
  assert.deepEqual(settings?.dns, { hook, wait: 90_000 })
  assert.equal((await parse({ ...EMAIL, domain, 'acme-dns-hook': hook }))?.dns?.wait, undefined)
  const bad: [Partial<Values>, RegExp][] = [
    [{ 'acme-dns-hook': plain }, /^--acme-dns-hook: cannot run .*: it is not executable \(chmod \+x\)$/],
    [{ 'acme-dns-hook': '/none/such' }, /^--acme-dns-hook: cannot run \/none\/such: there is no such file$/],
    [{ 'acme-dns-hook': tmpdir() }, /^--acme-dns-hook: .* is no file$/],
    [{ 'acme-dns-hook': hook, domain: undefined }, /^--acme-dns-hook says nothing without --domain$/],
    [{ 'acme-dns-wait': '1m' }, /^--acme-dns-wait says nothing without --acme-dns-hook$/],
    [{ 'acme-dns-hook': hook, 'acme-dns-wait': 'soon' }, /^--acme-dns-wait: "soon" is not a duration/],
    [{ 'acme-dns-hook': hook, 'acme-dns-wait': '1h' }, /^--acme-dns-wait: 10m are the most$/],
    [{ 'acme-dns-hook': '' }, /^--acme-dns-hook: the value is empty/],
    [{ 'acme-dns-hook': hook, 'acme-email': undefined }, /^--acme-dns-hook says nothing without --acme-email$/],
  ]
  for (const [values, message] of bad) {
    await assert.rejects(parse({ ...EMAIL, domain, ...values }), { code: 'PROXY_ERR_USAGE', message })
  }
})

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
