import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readSpeech } from '../../../lib/transports/sniff.ts'

test('every first byte means one thing, or nothing that is spoken here', () => {
  for (let first = 0; first < 256; first++) {
    const bytes = Buffer.from([first])
    if (first >= 0x80) assert.deepEqual(readSpeech(bytes), { found: 'symport' })
    else if (first === 0x16) assert.deepEqual(readSpeech(bytes), { found: 'tls' })
    else if (/[A-Za-z]/.test(String.fromCharCode(first))) assert.deepEqual(readSpeech(bytes), { found: 'http' })
    else assert.throws(() => readSpeech(bytes), { code: 'PROXY_ERR_UNKNOWN_PROTOCOL' })
  }
  assert.deepEqual(readSpeech(Buffer.alloc(0)), { need: 1 })
})
