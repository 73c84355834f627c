import assert from 'node:assert/strict'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Recorder } from '../../../lib/domains/web-inspect.ts'
import { harOf } from '../../../lib/domains/web-inspect-har.ts'
import { KeptBody } from '../../../lib/domains/web-recording.ts'
import { tell } from '../../helpers/contract/inspected.ts'

test('a body of many small pieces costs what it has, and no more than is allowed', () => {
  let held = 0
  const body = new KeptBody(10_000, (bytes) => {
    held += bytes
    assert.ok(held <= 10_000)
  })
  const piece = Buffer.alloc(1_000_000, 'a').subarray(5, 6)
  for (let i = 0; i < 50_000; i++) body.add(piece)
  assert.deepEqual([body.size, body.bytes.length, body.isWhole], [50_000, 10_000, false])
  assert.equal(body.bytes.buffer.byteLength, 10_000, 'it holds nothing else')
  body.end(true)
  assert.equal(body.isWhole, false)
})

test('what is kept is a copy, cut to its length at the end', () => {
  let held = 0
  const body = new KeptBody(10_000, (bytes) => {
    held += bytes
  })
  const chunk = Buffer.from('abc')
  body.add(chunk)
  chunk.fill('x')
  body.end(true)
  assert.deepEqual([String(body.bytes), body.isWhole, held], ['abc', true, 3])
  body.close()
  body.add(chunk)
  assert.deepEqual([body.bytes.length, body.size], [0, 6])
})

test('the figure of what is held is right, whatever comes and goes', () => {
  const recorder = new Recorder({ mostBytes: 100_000, bodyBytes: 5000 })
  const ends: (() => void)[] = []
  for (let i = 0; i < 300; i++) {
    ends.push(tell(recorder, { method: 'POST', body: Buffer.alloc((i * 97) % 8000) }).end)
    assert.ok(recorder.bytes <= 100_000)
    if (i % 3 === 0) ends.shift()?.()
  }
  for (const end of ends) end()
  assert.equal(
    recorder.bytes,
    recorder.list().reduce((sum, one) => sum + one.bytes, 0),
  )
  assert.ok(recorder.size > 10)
  const { size } = recorder
  assert.equal(recorder.clear(), size)
  assert.deepEqual([recorder.size, recorder.bytes], [0, 0])
})

test('a flood of requests is held to the number of one listener', () => {
  const recorder = new Recorder({ mostOfOne: 50 })
  for (let i = 0; i < 10_000; i++) tell(recorder)
  assert.equal(recorder.size, 50)
  assert.ok(recorder.bytes < 50 * 4096)
  assert.match(recorder.list()[0]?.id ?? '', /^[a-z]{3}10000$/)
})

test('nothing is kept longer than its time', async () => {
  const recorder = new Recorder({ lifetime: 40 })
  const { recording } = tell(recorder, { method: 'POST', body: 'password=x' })
  assert.equal(recorder.get(recording.id), recording)
  const until = performance.now() + 2000
  // The timer of the recorder keeps nothing alive.
  while (recorder.size > 0 && performance.now() < until) await delay(10)
  assert.deepEqual([recorder.size, recorder.bytes, recording.asked.bytes.length], [0, 0, 0])
})

test('a head is kept up to a limit', () => {
  const recorder = new Recorder()
  const headers = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? `X-${i}` : 'v'.repeat(1000)))
  const { recording } = tell(recorder, { headers })
  assert.equal(recording.isHeadCut, true)
  assert.ok(recording.bytes < 80_000)
})

test('a HAR of cookies that are mostly spaces takes no time', async () => {
  const recorder = new Recorder()
  const { recording, end } = tell(recorder)
  const answer = new IncomingMessage(new Socket())
  recording.onAnswer(answer, ['Set-Cookie', `a=1; Path = /x ; Comment=x${' '.repeat(60_000)}y`])
  end()
  const started = performance.now()
  const har = JSON.stringify(await harOf([recording], '1'))
  assert.ok(performance.now() - started < 1000)
  assert.match(har, /"name":"a","value":"[^"]*"/)
})
