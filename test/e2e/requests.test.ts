import assert from 'node:assert/strict'
import { linkSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import type { Har, InspectedExchange, InspectedRequest } from '../../lib/domains/web-inspection.ts'
import { connectNode, type Result, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import type { Child } from '../helpers/system/child.ts'
import { eventually } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import type { Address } from '../helpers/system/symport.ts'

/** A web server that answers with what it was asked for, who asked, and how often it has been asked. */
async function startSite(t: TestContext): Promise<number> {
  let count = 0
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      response.statusCode = request.url === '/teapot' ? 418 : 200
      response.end(`${++count} ${request.url} ${request.headers.authorization} ${body}`)
    })
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function ask({ port }: Address, host: string, path: string, body?: string): Promise<string> {
  const headers = { host, ...(body === undefined ? {} : { authorization: 'Bearer s3cret' }) }
  return new Promise((resolve, reject) => {
    const method = body === undefined ? 'GET' : 'POST'
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

function good({ status, stdout, stderr }: Result): string {
  assert.deepEqual([status, stderr], [0, ''])
  return stdout
}

describe('requests that are inspected', { concurrency: 2 }, () => {
  test('of each "symport http --inspect" are found in the state folder, however many there are', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { at } = await startServer(stage, ['--domain', 'example.localhost'])
    const state = stage.path('node')
    const cli = (...args: string[]): Promise<Result> => runHere(stage, ['requests', ...args, '--state', state])
    const none = await cli()
    assert.equal(none.status, 1)
    assert.match(none.stderr, /^symport: neither a server nor "symport http --inspect" runs with this state folder/)

    const publish = async (name: string): Promise<Child> => {
      const args = ['http', String(site), '--name', name, '--inspect', '--json', '--state', state]
      const child = await start(stage, [...args, '--server', `tcp://${at.host}:${at.port}`], {
        env: { SYMPORT_UUID: SECRET },
      })
      await child.line((line) => (line.startsWith('{"url"') ? line : undefined), 'the URL')
      return child
    }
    const [one, two] = await Promise.all([publish('one'), publish('two')])
    await ask(at, 'one.example.localhost', '/a?key=s3cret', 'password=s3cret&x=1')
    await ask(at, 'two.example.localhost', '/teapot')
    const list = async (...args: string[]): Promise<InspectedRequest[]> => JSON.parse(good(await cli('list', ...args)))
    await eventually(async () => assert.ok((await list()).every((one) => one.state === 'done')))
    assert.deepEqual(
      (await list()).map(({ url, status }) => `${status} ${new URL(url).host.split('.')[0]}${new URL(url).pathname}`),
      ['418 two/teapot', '200 one/a'],
    )
    assert.deepEqual((await list('--status', '4xx', '--method', 'GET', '--limit', '1')).length, 1)
    assert.deepEqual(await list('--since', '2999-01-01'), [])
    const [first] = await list('--path', '/a')
    const id = first?.id ?? ''

    const follow = await start(stage, ['requests', '--follow', '--json', '--state', state])
    await follow.line((line) => (line.includes(id) ? line : undefined), 'what was there')
    const again: InspectedExchange = JSON.parse(good(await cli('replay', id)))
    assert.equal(again.replayOf, id)
    assert.match(again.answer?.body?.text ?? '', /^3 \/a\?key=/)
    await follow.line((line) => (line.includes(again.id) ? line : undefined), 'what came meanwhile')
    assert.deepEqual(await follow.stop('SIGINT'), { status: 0, signal: null })

    const shown = good(await cli('show', id))
    assert.equal((JSON.parse(shown) as InspectedExchange).request.body?.text, 'password=***&x=1')
    const curl = await cli('curl', id)
    assert.match(curl.stdout, /^curl 'http:\/\/one\.example\.localhost\/a\?key='"\$MASKED_KEY" /)
    assert.match(
      curl.stderr,
      /^symport: set \$MASKED_AUTHORIZATION, \$MASKED_KEY, \$MASKED_PASSWORD: secrets are not shown$/,
    )
    assert.equal((await cli('replay', 'bcd1')).status, 1)
    // Who has not got it writes down nothing.
    const audit = readFileSync(`${state}/audit.log`, 'utf8').trim().split('\n')
    assert.deepEqual(
      audit.map((line) => JSON.parse(line)).map(({ action, subject, error }) => [action, subject, error]),
      [['request.replay', id, undefined]],
    )
    const file = stage.path('all.har')
    const [seen, linked] = [stage.path('seen.har'), stage.path('linked.har')]
    writeFileSync(file, 'old', { mode: 0o644 })
    linkSync(file, seen)
    symlinkSync(file, linked)
    good(await cli('har', '--output', linked))
    assert.equal(readFileSync(seen, 'utf8'), 'old', 'whoever has it open does not get the new one')
    assert.deepEqual(readFileSync(linked, 'utf8'), readFileSync(file, 'utf8'))
    assert.deepEqual(
      readdirSync(stage.path('.')).filter((name) => name.includes('.har')),
      ['all.har', 'linked.har', 'seen.har'],
    )
    const har: Har = JSON.parse(readFileSync(file, 'utf8'))
    assert.equal(har.log.entries.length, 3)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    for (const text of [shown, curl.stdout, readFileSync(file, 'utf8')]) {
      // What the target itself has written into its answer is no field with a name.
      assert.doesNotMatch(text.replace(/[13] \/a\?key=s3cret Bearer s3cret password=s3cret/g, ''), /s3cret/)
    }
    const unknown = await cli('show', 'bcd1')
    assert.deepEqual(
      [unknown.status, unknown.stderr],
      [1, 'symport: there is no request "bcd1": only the last ones are kept'],
    )
    const wrong = await cli('list', '--status', '9')
    assert.deepEqual([wrong.status, /--status: "9" is no status: write 404 or 4xx/.test(wrong.stderr)], [2, true])
    for (const since of ['2026-13-45', '2026-02-31', '2026-11-21T99:00']) {
      const { status, stderr } = await cli('list', '--since', since)
      assert.deepEqual([status, stderr.includes(`--since: "${since}" is neither a duration nor a time`)], [2, true])
    }
    await two.stop()
    assert.equal((await list()).length, 2, 'with it they are gone')
    await one.stop()
    assert.equal((await cli()).status, 1)
  })

  test('of a mapping of a server are there while it asks for it', async (t) => {
    const stage = new Stage(t)
    const site = await startSite(t)
    const { at } = await startServer(stage)
    await connectNode(stage, at, ['--allow', `127.0.0.1:${site}`])
    const cli = (...args: string[]): Promise<Result> => runHere(stage, [...args, '--state', stage.path('server')])
    good(await cli('mappings', 'add', 'web://a.localhost', `127.0.0.1:${site}`))
    await ask(at, 'a.localhost', '/before')
    good(await cli('mappings', 'set', '1', '--inspect'))
    await ask(at, 'a.localhost', '/while')
    good(await cli('mappings', 'set', '1', '--inspect', 'none'))
    await ask(at, 'a.localhost', '/after')
    const list = async (...args: string[]): Promise<InspectedRequest[]> =>
      JSON.parse(good(await cli('requests', 'list', ...args)))
    assert.deepEqual(
      (await list('--mapping', '1', '--host', 'a.localhost')).map(({ url, mapping }) => [url, mapping]),
      [['http://a.localhost/while', '1']],
    )
    assert.deepEqual(JSON.parse(good(await cli('requests', 'clear', '--mapping', '1'))), { cleared: 1 })
    assert.deepEqual(await list(), [])
  })
})
