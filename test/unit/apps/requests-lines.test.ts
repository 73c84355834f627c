import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exchangeLines, requestColumns, requestLine, safeJson } from '../../../apps/cli/requests-lines.ts'
import { formatTable } from '../../../apps/common/table.ts'
import type { InspectedExchange } from '../../../lib/domains/web-inspection.ts'

const NASTY = '\x1b]0;evil\x07\x9b31m\u202e\r\nX'

const exchange: InspectedExchange = {
  ...{ id: 'kxb12', time: '2026-11-21T12:03:04.000Z', mapping: '7', state: 'done', method: 'POST' },
  ...{ url: 'https://a.test/cart?token=***', from: '192.0.2.1:5', status: 201, by: 'target' },
  ...{ waited: 31.4, took: 42, bytesIn: 5, bytesOut: 2, replayOf: 'kxb1', httpVersion: '1.1' },
  request: {
    headers: [{ name: 'Host', value: 'a.test' }],
    body: { size: 5, type: 'text/plain', encoding: 'utf8', text: 'a\r\n\tb\n', truncated: false },
  },
  answer: {
    ...{ status: 201, reason: 'Created', headers: [{ name: 'X-A', value: 'b' }] },
    trailers: [{ name: 'X-Sum', value: '1' }],
    body: { size: 2, type: 'image/png', encoding: 'base64', text: 'AP8=', truncated: false },
  },
}

test('a request is shown as it was sent, and its answer', () => {
  assert.deepEqual(exchangeLines(exchange), [
    'kxb12, 2026-11-21 12:03:04 UTC, from 192.0.2.1:5, mapping 7, answered after 31 ms, 42 ms in all, replay of kxb1',
    '',
    'POST https://a.test/cart?token=*** HTTP/1.1',
    'Host: a.test',
    '',
    'a',
    ' b',
    '',
    '',
    'HTTP/1.1 201 Created',
    'X-A: b',
    '',
    '(2 B of image/png: no text; --json has it)',
    '',
    'X-Sum: 1',
  ])
})

test('what is missing is said', () => {
  const { answer: _, status: __, took: ___, ...rest } = exchange
  const cut: InspectedExchange = {
    ...rest,
    state: 'open',
    problem: 'nothing listens there',
    request: {
      headers: [],
      cut: true,
      body: { size: 5_000_000, encoding: 'utf8', text: 'a', truncated: true, coding: 'gzip' },
    },
  }
  const text = exchangeLines(cut).join('\n')
  assert.match(text, /^the target: nothing listens there$/m)
  assert.match(text, /still under way/)
  assert.match(text, /\(and more headers, which were not kept\)/)
  assert.match(text, /\(\.\.\. of 4\.8 MiB, gzip only this was kept\)/)
  assert.match(text, /\(no answer yet\)$/)
})

test('nothing that came from outside steers the terminal, or begins a line', () => {
  const header = [{ name: `X-A${NASTY}`, value: NASTY }]
  const evil: InspectedExchange = {
    ...exchange,
    ...{ url: `http://${NASTY}`, method: NASTY, from: NASTY, problem: NASTY, mapping: NASTY },
    request: { headers: header, body: { size: 1, type: NASTY, encoding: 'utf8', text: NASTY, truncated: true } },
    answer: { status: 200, reason: NASTY, headers: header, trailers: header },
  }
  const lines = [
    ...exchangeLines(evil),
    ...formatTable([evil], requestColumns(), { width: 200, color: false }),
    requestLine(evil, false),
  ]
  for (const line of lines) assert.doesNotMatch(line, /\p{C}/u)
  // Of a body the lines are its own.
  assert.deepEqual(
    lines.filter((line) => line.startsWith('X')),
    ['X-A]0;evil31m X: ]0;evil31m X', 'X', 'X-A]0;evil31m X: ]0;evil31m X', 'X-A]0;evil31m X: ]0;evil31m X'],
  )
})

test('JSON says the same, and nothing in it steers a terminal', () => {
  const value = { a: NASTY, 'b\x9b': '\u{e0001}\ufeff漢 é', list: [1, null] }
  for (const indent of [undefined, 2]) {
    const json = safeJson(value, indent)
    assert.deepEqual(JSON.parse(json), value)
    assert.doesNotMatch(json, /(?!\n)\p{C}/u)
  }
})

test('a line tells what is to be known at a glance', () => {
  const line = requestLine(exchange, false)
  assert.match(
    line,
    /^kxb12 {4}\d\d:\d\d:\d\d POST {4}201 {4}31 ms {2}a\.test\/cart\?token=\*\*\* {2}\(replay of kxb1\)$/,
  )
  const { status: _, answer: __, ...left } = exchange
  assert.match(requestLine({ ...left, state: 'cut' }, false), /POST {4}- .*\(the visitor left\)$/)
  assert.ok(requestLine(exchange, true).includes('\x1b[32m201\x1b[0m'))
})
