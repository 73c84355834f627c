import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import type { InspectedRequest } from '../../lib/domains/web-inspection.ts'
import { run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { cleanEnvironment } from '../helpers/system/child.ts'
import { Curl } from '../helpers/system/curl.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'

/** Requests of a real curl, recorded, and asked again by the commands that are exported. */

interface Seen {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly headers: readonly string[]
  readonly body: string
}

/** What the target was asked, without what the way there says. */
function seenOf({ method, url, rawHeaders }: IncomingMessage, body: Buffer): Seen {
  const headers: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (!/^(?:connection|x-forwarded-.*|x-real-ip)$/i.test(rawHeaders[i] ?? '')) {
      headers.push(`${rawHeaders[i]?.toLowerCase()}: ${rawHeaders[i + 1]}`)
    }
  }
  return { method, url, headers: headers.sort(), body: body.toString('latin1') }
}

async function startTarget(t: TestContext): Promise<{ readonly port: number; readonly seen: Seen[] }> {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => {
      seen.push(seenOf(request, Buffer.concat(chunks)))
      response.setHeader('Content-Encoding', 'gzip').end(gzipSync(`answer to ${request.method}`))
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, seen }
}

test('a command that is exported asks what curl has asked, secrets put back', { timeout: 120_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const curl = new Curl(stage, programs.curl)
  const target = await startTarget(t)
  const { at } = await startServer(stage, ['--domain', 'example.localhost'])
  const args = ['http', String(target.port), '--name', 'shop', '--inspect', '--json', '--state', stage.path('node')]
  const published = await start(stage, [...args, '--server', `tcp://127.0.0.1:${at.port}`], {
    env: { SYMPORT_UUID: SECRET },
  })
  await published.line((line) => (line.startsWith('{"url"') ? line : undefined), 'the URL')
  const requests = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await run(stage, ['requests', ...words, '--state', stage.path('node')])
    assert.equal(status, 0, stderr)
    return stdout
  }

  const host = `shop.example.localhost:${at.port}`
  const there = ['--resolve', `${host}:127.0.0.1`]
  const binary = stage.path('binary')
  writeFileSync(binary, Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256)))
  const form = stage.path('form')
  writeFileSync(form, 'user=it\'s "me"&password=s3cret-a&n=1')
  const url = `http://${host}`
  const asked: string[][] = [
    [`${url}/plain`],
    ['--head', `${url}/head`],
    ['--request', 'DELETE', `${url}/delete?access_token=s3cret-b&x=%27`],
    ['--data-binary', `@${form}`, '--header', 'Authorization: Bearer s3cret-c', `${url}/form`],
    [
      '--header',
      'Content-Type: application/json',
      '--data-binary',
      '{"a":"$(id) `id` \\\\ it\'s\\n","b":"é漢"}',
      `${url}/json`,
    ],
    ['--data-binary', "two\nlines of 'text'\n\n", '--header', 'Content-Type:', `${url}/lines`],
    ['--request', 'PUT', '--data-binary', `@${binary}`, '--header', 'Content-Type: image/png', `${url}/binary`],
    ['--form', `file=@${binary}`, '--form', 'password=s3cret-d', `${url}/multipart`],
    [
      '--globoff',
      '--header',
      'X-Empty;',
      '--header',
      'User-Agent:',
      '--header',
      'Accept:',
      `${url}/none?a=[1-3]&b={c,d}`,
    ],
    ['--header', 'Cookie: sid=s3cret-e; lang=de', '--compressed', `${url}/cookie`],
    ['--request', 'GET', '--data-raw', '@no file', `${url}/get-with-body`],
  ]
  for (const words of asked) {
    const { status, output } = await curl.run('--output', '/dev/null', ...there, ...words)
    assert.equal(status, 0, output)
  }
  const list: InspectedRequest[] = JSON.parse(await requests('list'))
  assert.equal(list.length, asked.length)
  const first = target.seen.splice(0)
  const env = cleanEnvironment({
    ...{ MASKED_ACCESS_TOKEN: 's3cret-b', MASKED_PASSWORD: 's3cret-a', MASKED_AUTHORIZATION: 's3cret-c' },
    ...{ MASKED_SID: 's3cret-e', MASKED_LANG: 'de', no_proxy: '*', HOME: stage.path('nowhere') },
  })
  for (const { id, url } of list.reverse()) {
    const command = await requests('curl', id)
    assert.doesNotMatch(command, /s3cret/)
    const there = `--resolve ${host}:127.0.0.1 -q -sS --max-time 20 --output ${stage.path('out')}`
    const own = url.endsWith('/multipart') ? { ...env, MASKED_PASSWORD: 's3cret-d' } : env
    const script = command.replace(/(^|\| )curl /, `$1${programs.curl} ${there} `)
    const { status, output } = await stage.run('/bin/sh', ['-c', script], { env: own })
    assert.equal(status, 0, `${command}\n${output}`)
  }
  assert.deepEqual(target.seen.splice(0), first)
  // And by symport itself.
  const list2: InspectedRequest[] = JSON.parse(await requests('list', '--path', '/multipart'))
  await requests('replay', list2.at(-1)?.id ?? '')
  assert.deepEqual(target.seen, [first.find((one) => one.url === '/multipart')])
})
