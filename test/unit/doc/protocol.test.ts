import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Frame, MAX_CONTROL_PAYLOAD } from '../../../lib/core/frame.ts'
import { HANDSHAKE_TIMEOUT } from '../../../lib/core/handshake.ts'
import { MAX_PENDING_OPENS, MAX_SUB_CONNECTIONS } from '../../../lib/core/limits.ts'
import { MAX_RECORD, MIN_RECORD } from '../../../lib/core/record.ts'
import { EARLY_WINDOW } from '../../../lib/core/window.ts'

const PAGE = readFileSync(new URL('../../../../doc/protocol.md', import.meta.url), 'utf8')

test('doc/protocol.md lists every frame type with its number, and no other', () => {
  const section = /^## 6\. Frames$(.*?)^## /ms.exec(PAGE)?.[1] ?? ''
  const listed = [...section.matchAll(/^\| ([0-9a-f]{2}) \| ([a-z]+) \|/gm)].map(([, type, name]) => `${type} ${name}`)
  const known = Object.entries(Frame).map(([name, type]) => `${type.toString(16).padStart(2, '0')} ${name}`)
  assert.deepEqual(listed, known)
})

test('doc/protocol.md names the bounds that the code has', () => {
  const number = (value: number): string => value.toLocaleString('en')
  for (const text of [
    `\`length\` is ${MIN_RECORD} to ${number(MAX_RECORD)}`,
    `has at most ${number(MAX_CONTROL_PAYLOAD)} bytes`,
    `allows ${HANDSHAKE_TIMEOUT / 1000} seconds`,
    `| sub-connections | ${number(MAX_SUB_CONNECTIONS)} |`,
    `| ${number(MAX_PENDING_OPENS)} | reset \`PROXY_ERR_TOO_MANY_OPENS\``,
    `${number(EARLY_WINDOW)} bytes, without a frame`,
  ]) {
    assert.ok(PAGE.includes(text), text)
  }
})
