import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Endpoint } from '../../../lib/core/index.ts'
import { parseListenerFlag } from '../../../lib/domains/short-spec.ts'
import { formatSpec, parseSpec } from '../../../lib/domains/spec.ts'
import { parseTcp, readTcp } from '../../../lib/domains/tcp-address.ts'
import { parsePattern } from '../../../lib/policy/patterns.ts'
import { createPolicy } from '../../../lib/policy/policy.ts'

const domains = ['tcp', 'udp', 'unix']

function forwardOf(text: string, use?: 'local' | 'remote'): Endpoint {
  return (use === undefined ? parseSpec(text, { domains }) : parseListenerFlag(text, use, { domains })).Forward
}

test('proxy=v2 in every form of a SPEC', () => {
  const tcp = { Domain: 'tcp', Addr: '127.0.0.1:81?proxy=v2' }
  const unix = { Domain: 'unix', Addr: '/run/x.sock?proxy=v2' }
  for (const [text, use, expected] of [
    ['tcp://:80,tcp://127.0.0.1:81?proxy=v2', undefined, tcp],
    ['tcp://:80,TCP://:81?proxy=v2', undefined, tcp],
    ['tcp://:80,tcp://127.0.0.1:81?proxy=v2', 'local', tcp],
    ['tcp://:80,tcp://127.0.0.1:81?proxy=v2', 'remote', tcp],
    ['80:127.0.0.1:81?proxy=v2', undefined, tcp],
    ['*:80:127.0.0.1:81?proxy=v2', 'remote', tcp],
    ['{"Listen":{"Domain":"tcp","Addr":":80"},"Forward":{"Domain":"tcp","Addr":":81?proxy=v2"}}', undefined, tcp],
    ['tcp://ssh:secret@127.0.0.1:81?proxy=v2', 'remote', tcp],
    ['tcp://127.0.0.1:81?mode=path&value=x&proxy=v2', 'remote', tcp],
    ['tcp://:80,tcp://[::1]:81?proxy=v1', undefined, { Domain: 'tcp', Addr: '[::1]:81?proxy=v1' }],
    ['tcp://:80,unix:///run/x.sock?proxy=v2', undefined, unix],
    ['80:/run/x.sock?proxy=v2', undefined, unix],
    ['unix://x:secret@/run/x.sock?proxy=v2', 'remote', unix],
  ] as const) {
    assert.deepEqual(forwardOf(text, use), expected, text)
  }
  const spec = parseSpec('tcp://:80,tcp://127.0.0.1:81?proxy=v2', { domains })
  assert.deepEqual(parseSpec(formatSpec(spec), { domains }), spec)
  // A path may have a question mark.
  assert.equal(forwardOf('tcp://:80,unix:///run/what?').Addr, '/run/what?')
})

test('what is wrong with it is said', () => {
  for (const [text, message] of [
    ['tcp://:80,tcp://:81?proxy=v3', /proxy="v3" is not known: write proxy=v2/],
    ['tcp://:80,tcp://:81?proxy', /proxy="" is not known/],
    ['tcp://:80,tcp://:81?verify=off', /unknown option "verify": only proxy/],
    ['tcp://:80,tcp://:81?proxy=v2&proxy=v2', /is not known/],
    ['tcp://:80?proxy=v2,tcp://:81', /Listen: proxy is for where connections go/],
    ['unix:///x?proxy=v2,tcp://:81', /Listen: proxy is for where connections go/],
    ['udp://:80,udp://:81?proxy=v2', /is not a number/],
    ['tcp://:80,tcp://:99999?proxy=v2', /out of range/],
  ] as const) {
    assert.throws(() => forwardOf(text), { code: 'PROXY_ERR_SPEC', message }, text)
  }
  assert.throws(
    () => forwardOf('tcp://a:secret@127.0.0.1:81?prox=v2', 'remote'),
    (error: Error) => {
      return !error.message.includes('secret')
    },
  )
})

test('an address without it is as ever', () => {
  assert.deepEqual(readTcp({ Domain: 'tcp', Addr: ':0' }, 'listen'), { Domain: 'tcp', Addr: ':0' })
  assert.deepEqual(parseTcp('[::1]:80'), { host: '::1', port: 80 })
  assert.deepEqual(parseTcp('x:80?proxy=v2'), { host: 'x', port: 80, proxy: 'v2' })
})

test('a policy is about where it goes, and not about what is said there first', () => {
  const policy = createPolicy({
    dial: [parsePattern('127.0.0.1:22'), parsePattern('unix:/run/x.sock')],
    listenPorts: 'none',
  })
  const denied = { code: 'PROXY_ERR_DIAL_DENIED' }
  for (const option of ['', '?proxy=v1', '?proxy=v2']) {
    policy.dial({ Domain: 'tcp', Addr: `127.0.0.1:22${option}` }, '127.0.0.1')
    policy.resolve?.({ Domain: 'tcp', Addr: `127.0.0.1:22${option}` })
    policy.dial({ Domain: 'unix', Addr: `/run/x.sock${option}` })
    assert.throws(() => policy.dial({ Domain: 'tcp', Addr: `127.0.0.1:23${option}` }, '127.0.0.1'), denied)
    assert.throws(() => policy.dial({ Domain: 'unix', Addr: `/run/y.sock${option}` }), denied)
  }
  for (const Addr of ['127.0.0.1:22?proxy=v9', '127.0.0.1:22?', '127.0.0.1:22?proxy=v2?proxy=v2']) {
    assert.throws(() => policy.dial({ Domain: 'tcp', Addr }, '127.0.0.1'), denied, Addr)
  }
})
