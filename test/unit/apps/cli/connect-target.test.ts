import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { readTarget } from '../../../../apps/cli/connect-target.ts'
import { ProxyError } from '../../../../lib/core/index.ts'
import { passwordOf } from '../../../../lib/domains/channel-address.ts'

async function refusal(text: string, file?: string): Promise<string> {
  try {
    await readTarget(text, file)
  } catch (error) {
    assert.ok(error instanceof ProxyError)
    assert.doesNotMatch(error.message, /pa55|\n/)
    return error.message
  }
  return assert.fail(`${text} is taken`)
}

describe('what symport connect joins', () => {
  test('is a channel, with a password that no endpoint shows', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'symport-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'password')
    writeFileSync(file, 'p@ss: %\r\n')
    for (const [text, from, password] of [
      ['tcp://ssh:pa55@', undefined, 'pa55'],
      ['unix://ssh:p%40@', undefined, 'p@'],
      ['channel://ssh:a:b@', undefined, 'a:b'],
      ['TCP://ssh@', undefined, ''],
      ['tcp://ssh@', file, 'p@ss: %'],
    ] as const) {
      const target = await readTarget(text, from)
      assert.deepEqual({ Domain: target.Domain, Addr: target.Addr }, { Domain: 'channel', Addr: 'ssh' })
      assert.equal(passwordOf(target)?.reveal(), password)
      assert.doesNotMatch(JSON.stringify(target), /p[a@]/)
    }
  })

  test('or what the server dials, in any way that is a stream', async () => {
    for (const [text, Domain, Addr] of [
      ['tcp://db.lan:5432', 'tcp', 'db.lan:5432'],
      ['tcp://:22', 'tcp', '127.0.0.1:22'],
      ['unix:///run/a@b.sock', 'unix', '/run/a@b.sock'],
      ['tls://db.lan:5432', 'tls', 'db.lan:5432'],
      ['http://db.lan', 'tcp', 'db.lan:80'],
    ] as const) {
      assert.deepEqual(await readTarget(text, undefined), { Domain, Addr })
    }
  })

  test('and nothing else: what is wrong is told without what stands before an @', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'symport-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const empty = join(folder, 'empty')
    const long = join(folder, 'long')
    writeFileSync(empty, '\n')
    writeFileSync(long, 'x'.repeat(300))
    for (const [text, file, why] of [
      ['udp://a:pa55@', undefined, /^udp carries datagrams, and standard input and output are a stream of bytes: /],
      ['udp://127.0.0.1:53', undefined, /^udp carries datagrams/],
      ['tcp://127.0.0.1:53/udp', undefined, /^udp carries datagrams/],
      ['tunnel://a:pa55@', undefined, /^a tunnel is for connections that name their own targets: /],
      ['socks5://127.0.0.1:1080', undefined, /^bad endpoint .*domain socks5 cannot be forwarded to/],
      ['tcp://a:pa55@127.0.0.1:22', undefined, /^nothing comes behind the "@": /],
      ['a:pa55@', undefined, /^a channel is written tcp:\/\/CHANNEL:PASSWORD@$/],
      ['http://a:pa55@', undefined, /^a channel is written tcp:\/\/CHANNEL:PASSWORD@$/],
      ['tcp://:pa55@', undefined, /^the name of the channel is missing/],
      ['tcp://a:@', undefined, /^the password of channel a is empty/],
      ['tcp://a:%pa55@', undefined, /^the password of channel a has a "%"/],
      ['tcp://a:pa55@', empty, /^the URL has a password, and --password-file is given: keep one$/],
      ['tcp://a@', empty, /^--password-file: .* is empty$/],
      ['tcp://a@', long, /longer than 256 bytes/],
      ['tcp://a@', join(folder, 'none'), /^--password-file: cannot read .*: there is no such file$/],
      ['tcp://a@', folder, /^--password-file: cannot read .*: EISDIR$/],
      ['tcp://127.0.0.1:22', empty, /^--password-file is for a channel: write tcp:\/\/CHANNEL@$/],
      ['127.0.0.1:22', undefined, /^that is no URL: write tcp:/],
      ['', undefined, /^that is no URL: /],
      ['tcp://ssh', undefined, /^"ssh" has no port: write tcp:\/\/ssh:PORT, or for a channel tcp:\/\/ssh:PASSWORD@$/],
      ['tcp://127.0.0.1', undefined, /^bad endpoint "tcp:\/\/127\.0\.0\.1": /],
      ['tcp://a\nb:1', undefined, /^/],
      ['channel://127.0.0.1:1', undefined, /password/],
    ] as const) {
      assert.match(await refusal(text, file), why)
    }
  })
})
