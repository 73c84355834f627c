import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Recorder } from '../../../lib/domains/web-inspect.ts'
import { type CurlCommand, curlOf, shellQuoted } from '../../../lib/domains/web-inspect-curl.ts'
import { type Told, tell } from '../../helpers/contract/inspected.ts'

/** A curl that tells its words, each with its bytes in hexadecimal, and its standard input. */
const CURL = `curl() { for word; do printf '%s' "$word" | od -An -v -tx1 | tr -d ' \\n'; echo; done; case "$*" in *@-) echo in; od -An -v -tx1 | tr -d ' \\n'; echo;; esac; }`

async function made(told: Told): Promise<CurlCommand> {
  const { recording } = tell(new Recorder(), told)
  return await curlOf(recording)
}

/** What curl gets to see of the command, as the characters of its bytes. */
function seen(command: string, env: NodeJS.ProcessEnv = {}): { words: string[]; input: Buffer | undefined } {
  const lines = execFileSync('sh', ['-c', `${CURL}\n${command}`], { env: { PATH: process.env.PATH, ...env } })
    .toString()
    .split('\n')
  const at = lines.indexOf('in')
  const words = (at < 0 ? lines.slice(0, -1) : lines.slice(0, at)).map((hex) =>
    Buffer.from(hex, 'hex').toString('latin1'),
  )
  return { words, input: at < 0 ? undefined : Buffer.from(lines[at + 1] ?? '', 'hex') }
}

test('any bytes but zero come through a shell as they are', { skip: process.platform === 'win32' }, () => {
  const all = Buffer.from(Array.from({ length: 255 }, (_, i) => i + 1))
  for (const bytes of [
    all,
    Buffer.from(`'"$\`\\!%{}[]#~*?;&|<>() \t`),
    Buffer.from("'$(touch /tmp/never)'"),
    Buffer.from('é 漢 \u202e \u2028'),
    Buffer.from('two\nlines'),
    Buffer.from([0xc3]),
    Buffer.from('-n %s \\n'),
  ]) {
    const got = execFileSync('sh', ['-c', `printf '%s' ${shellQuoted(bytes)}`])
    assert.deepEqual(got, bytes)
  }
})

test('what steers a terminal is never in a command', async () => {
  const nasty = '\x1b]0;evil\x07\x9b31m\u202e'
  const { command } = await made({
    method: 'POST',
    headers: ['X-A', Buffer.from(nasty).toString('latin1'), 'X-B', '\x9b1m'],
    body: `${nasty}\n`,
  })
  assert.doesNotMatch(command, /(?!\n)\p{C}/u)
})

test('a command asks what was asked', { skip: process.platform === 'win32' }, async () => {
  const { command, notes, placeholders } = await made({
    method: 'POST',
    url: "/a'b?x=[1]&y=$HOME",
    headers: [
      ...['User-Agent', "it's", 'X-Empty', '', 'X-Latin', 'caf\xe9', 'Accept-Encoding', 'gzip'],
      ...['Connection', 'keep-alive', 'X-Forwarded-For', '6.6.6.6', 'Content-Type', 'text/plain'],
    ],
    body: "@file it's\n$(id) `id`\n",
  })
  assert.deepEqual(seen(command).words, [
    '--globoff',
    "https://a.test/a'b?x=[1]&y=$HOME",
    ...['-H', "User-Agent: it's", '-H', 'X-Empty;', '-H', 'X-Latin: caf\xe9', '-H', 'Accept-Encoding: gzip'],
    ...['-H', 'Content-Type: text/plain', '-H', 'Accept:', '--compressed', '--data-raw', "@file it's\n$(id) `id`\n"],
  ])
  assert.deepEqual([notes, placeholders], [[], []])
})

test('methods are told where curl would take another', async () => {
  const start = async (told: Told): Promise<string> => (await made(told)).command.split(' -H')[0] ?? ''
  assert.equal(await start({}), "curl 'https://a.test/'")
  assert.equal(await start({ method: 'HEAD' }), "curl --head 'https://a.test/'")
  assert.equal(await start({ method: 'POST' }), "curl -X 'POST' 'https://a.test/'")
  assert.equal(await start({ method: 'DELETE' }), "curl -X 'DELETE' 'https://a.test/'")
  assert.equal(await start({ method: 'GET', body: 'x' }), "curl -X 'GET' 'https://a.test/'")
  assert.equal(await start({ method: 'POST', body: 'x' }), "curl 'https://a.test/'")
  assert.equal(await start({ url: '/./a' }), "curl --path-as-is 'https://a.test/./a'")
})

test('secrets become variables, wherever they stand', { skip: process.platform === 'win32' }, async () => {
  const { command, placeholders } = await made({
    method: 'POST',
    url: '/?access_token=s3cret&b=1',
    headers: [
      'Authorization',
      'Bearer s3cret',
      'Cookie',
      'sid=s3cret; lang=s3cret',
      'Content-Type',
      'application/json',
    ],
    body: '{"user":"it\'s","newPassword":"s3cret","n":1}',
  })
  assert.doesNotMatch(command, /s3cret/)
  assert.deepEqual(placeholders, [
    'MASKED_ACCESS_TOKEN',
    'MASKED_AUTHORIZATION',
    'MASKED_LANG',
    'MASKED_NEW_PASSWORD',
    'MASKED_SID',
  ])
  const env = {
    ...{ MASKED_ACCESS_TOKEN: 'a b', MASKED_AUTHORIZATION: '$x', MASKED_LANG: 'C', MASKED_SID: "'1" },
    ...{ MASKED_NEW_PASSWORD: '"', LANG: 'none of this', ACCESS_TOKEN: 'nor this' },
  }
  const { words } = seen(command, env)
  assert.ok(words.includes('https://a.test/?access_token=a b&b=1'))
  assert.ok(words.includes('Authorization: Bearer $x'))
  assert.ok(words.includes("Cookie: sid='1; lang=C"))
  assert.equal(words.at(-1), '{"user":"it\'s","newPassword":""","n":1}')
})

test('binary bodies come through, compressed ones as they were unless they hold secrets', {
  skip: process.platform === 'win32',
}, async () => {
  const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  const sent = seen((await made({ method: 'PUT', body: binary })).command)
  assert.deepEqual(sent.input, binary)
  const coded = ['Content-Encoding', 'gzip', 'Content-Type', 'application/json']
  const plain = gzipSync('{"a":1}')
  const first = await made({ method: 'POST', headers: coded, body: plain })
  assert.deepEqual(seen(first.command).input, plain)
  assert.match(first.command, /Content-Encoding: gzip/)
  const second = await made({ method: 'POST', headers: coded, body: gzipSync('{"a":1,"token":"s3cret"}') })
  assert.equal(seen(second.command, { MASKED_TOKEN: 't' }).words.at(-1), '{"a":1,"token":"t"}')
  assert.doesNotMatch(second.command, /Content-Encoding/)
  assert.deepEqual(second.notes, ['the body is sent without its coding (gzip)'])
})

test('a form with a file and a password has the one as it is and the other as a variable', {
  skip: process.platform === 'win32',
}, async () => {
  const part = (name: string): string => `--B\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n`
  const file = Buffer.from([0, 1, 2, 0xff, 0xfe])
  const body = Buffer.concat([
    Buffer.from(`${part('password')}s3cret\r\n${part('file')}`),
    file,
    Buffer.from('\r\n--B--\r\n'),
  ])
  const { command, placeholders } = await made({
    method: 'POST',
    headers: ['Content-Type', 'multipart/form-data; boundary=B'],
    body,
  })
  assert.deepEqual(placeholders, ['MASKED_PASSWORD'])
  assert.ok(!command.includes('s3cret') && !command.includes(Buffer.from('s3cret').toString('base64').slice(0, 6)))
  const { input } = seen(command, { MASKED_PASSWORD: 's3cret' })
  assert.deepEqual(input, body)
})
