import assert from 'node:assert/strict'
import { channel } from 'node:diagnostics_channel'
import { test } from 'node:test'
import { allowAll, createNode, createServer, type Link, ProxyError } from '../../lib/index.ts'
import { createProxyPair } from '../../lib/testing.ts'

const nothing = { domains: [], policy: allowAll }

test('a server and a node with an empty secret are refused before anything is listened on or dialled', async () => {
  let touched = 0
  const never = async (): Promise<never> => {
    touched++
    throw new Error('not reached')
  }
  const empty = { code: 'PROXY_ERR_SECRET' }
  await assert.rejects(createServer({ ...nothing, secret: '', listen: never }), empty)
  await assert.rejects(createNode({ ...nothing, secret: '', dial: never, server: 'x', id: 'x' }), empty)
  assert.equal(touched, 0)
})

test('a server that cannot listen hears of nothing afterwards', async () => {
  const failed = new ProxyError('PROXY_ERR_LISTEN_FAILED', 'taken')
  const listen = async (_onLink: (link: Link) => void): Promise<never> => {
    throw failed
  }
  const heard: unknown[] = []
  const onMessage = (message: unknown): void => void heard.push(message)
  await assert.rejects(createServer({ ...nothing, secret: 'some secret', listen, onEvent: onMessage }), failed)
  assert.equal(channel('symport:refused').hasSubscribers, false)
  assert.deepEqual(heard, [])
})

test('a listen whose endpoint is no endpoint leaves the Proxy able to drain', async () => {
  await using pair = await createProxyPair()
  await assert.rejects(pair.a.accept({ Domain: '', Addr: '' }), { code: 'PROXY_ERR_ENDPOINT' })
  await pair.a.drain()
  assert.equal(pair.a.state, 'closed')
})
