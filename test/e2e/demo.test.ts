import assert from 'node:assert/strict'
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { keptAtHome, start } from '../helpers/e2e/cli.ts'
import { refused } from '../helpers/e2e/talk.ts'
import { Stage } from '../helpers/system/stage.ts'

function get(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent: false }, (response) => resolve(text(response)))
    sent.on('error', reject)
    sent.end()
  })
}

test('symport demo prints the mapped address and what to try next; the page answers; Ctrl-C ends it with 0', async (t) => {
  const stage = new Stage(t)
  const demo = await start(stage, ['demo'])
  const url = await demo.line((line) => /^ +(http:\/\/127\.0\.0\.1:\d+\/)$/.exec(line)?.[1], 'the address')
  await demo.line((line) => (line.includes('Ctrl-C ends the demo.') ? line : undefined), 'how to end it')
  const shown = demo.lines.join('\n')
  assert.match(shown, /Try next: .*curl http:\/\/127\.0\.0\.1:\d+\//)
  assert.match(shown, /symport server --listener 8080:127\.0\.0\.1:80/)
  assert.match(await get(url), /It works.*Request 1\./s)
  assert.match(await get(url), /Request 2\./)
  demo.signal('SIGINT')
  assert.deepEqual(await demo.exited, { status: 0, signal: null })
  assert.ok(await refused(stage, url.replace('http:', 'tcp:').replace(/\/$/, '')))
  assert.deepEqual(keptAtHome(stage), [], 'it keeps no state')
})
