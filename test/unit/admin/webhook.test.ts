import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { describe, type TestContext, test } from 'node:test'
import { Webhook, type WebhookOptions } from '../../../lib/admin/webhook.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import type { Connected } from '../../../lib/hub/events.ts'
import { createProxyPair } from '../../../lib/testing.ts'

interface Post {
  readonly body: string
  readonly request: IncomingMessage
}

interface Receiver {
  readonly url: string
  readonly posts: Post[]
  /** Resolves when one about such a node has come. */
  got(isIt: (id: unknown) => boolean): Promise<void>
}

/** Answers with these statuses, one after the other, the last one again and again. */
async function receive(
  t: TestContext,
  statuses: number[],
  headers: Record<string, string> = {},
  hangs: (body: string) => boolean = () => false,
): Promise<Receiver> {
  const posts: Post[] = []
  const wake = new Set<() => void>()
  const server = createServer(async (request: IncomingMessage, response: ServerResponse) => {
    const body = await text(request)
    const status = statuses[Math.min(posts.length, statuses.length - 1)] ?? 200
    posts.push({ body, request })
    if (!hangs(body)) response.writeHead(status, headers).end('thanks')
    for (const look of wake) look()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  assert.ok(typeof address === 'object' && address)
  const got = (isIt: (id: unknown) => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (!posts.some(({ body }) => isIt(JSON.parse(body).peer.id))) return
        wake.delete(look)
        resolve()
      }
      wake.add(look)
      look()
    })
  return { url: `http://127.0.0.1:${address.port}/path-with-a-secret`, posts, got }
}

async function somePeer(t: TestContext, id = 'a'): Promise<Connected> {
  const { a, b } = await createProxyPair()
  t.after(() => {
    a.close()
    b.close()
  })
  return {
    proxy: a,
    id,
    instance: 'i',
    connectedAt: new Date(0),
    remote: '192.0.2.1:5',
    transport: 'tcp',
    enrolled: true,
  }
}

function start(t: TestContext, options: WebhookOptions): { hook: Webhook; errors: ProxyError[] } {
  const errors: ProxyError[] = []
  const hook = new Webhook({ backoff: 1, ...options }, (error) => errors.push(error))
  t.after(() => hook.close(0))
  return { hook, errors }
}

describe('the webhook', { concurrency: 4 }, () => {
  test('is told when a node comes and goes, in order, and signed; nothing else', async (t) => {
    const receiver = await receive(t, [204])
    const { hook, errors } = start(t, { url: receiver.url, secret: 'shared' })
    const peer = await somePeer(t)
    hook.tell({ type: 'connected', peer, standby: false })
    hook.tell({ type: 'listening', address: 'x' })
    hook.tell({ type: 'draining', peer })
    hook.tell({ type: 'disconnected', peer, reason: new ProxyError('PROXY_ERR_CLOSED', 'over') })
    await hook.close(5000)
    const events = receiver.posts.map(({ body }) => JSON.parse(body))
    assert.deepEqual(
      events.map(({ type, peer }) => [type, peer.id]),
      [
        ['connected', 'a'],
        ['disconnected', 'a'],
      ],
    )
    assert.equal(events[1].reason.code, 'PROXY_ERR_CLOSED')
    for (const { body, request } of receiver.posts) {
      const signature = createHmac('sha256', 'shared').update(body).digest('hex')
      assert.equal(request.headers['x-symport-signature'], `sha256=${signature}`)
      assert.equal(request.headers['content-type'], 'application/json')
      assert.equal(request.method, 'POST')
    }
    assert.deepEqual([errors.length, receiver.posts.length], [0, 2])
  })

  test('tries three times, with a failure in between', async (t) => {
    const receiver = await receive(t, [500, 429, 200])
    const { hook, errors } = start(t, { url: receiver.url })
    hook.tell({ type: 'connected', peer: await somePeer(t), standby: false })
    await hook.close(10_000)
    assert.equal(receiver.posts.length, 3)
    assert.equal(new Set(receiver.posts.map(({ body }) => body)).size, 1)
    assert.deepEqual(errors, [])
    assert.equal(receiver.posts[0]?.request.headers['x-symport-signature'], undefined)
  })

  test('gives an event up after that, says so once without the path, and goes on with the next', async (t) => {
    const receiver = await receive(t, [503])
    const { hook, errors } = start(t, { url: receiver.url })
    const peer = await somePeer(t)
    for (let i = 0; i < 3; i++) hook.tell({ type: 'connected', peer, standby: false })
    await hook.close(10_000)
    assert.equal(receiver.posts.length, 9)
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['PROXY_ERR_WEBHOOK'],
    )
    assert.match(errors[0]?.message ?? '', /^the webhook at http:\/\/127\.0\.0\.1:\d+ fails: it answers 503$/)
  })

  test('follows no redirect, and does not ask again where the answer is no', async (t) => {
    const elsewhere = await receive(t, [200])
    for (const status of [302, 307, 403]) {
      const receiver = await receive(t, [status], { location: elsewhere.url })
      const { hook, errors } = start(t, { url: receiver.url })
      hook.tell({ type: 'connected', peer: await somePeer(t), standby: false })
      await hook.close(10_000)
      assert.deepEqual([receiver.posts.length, errors.length], [1, 1], String(status))
    }
    assert.equal(elsewhere.posts.length, 0)
  })

  test('waits for an answer for a bounded time, and holds a bounded number of events meanwhile', async (t) => {
    const receiver = await receive(t, [200], {}, (body) => body.includes('"hangs"'))
    const { hook, errors } = start(t, { url: receiver.url, timeout: 300, queue: 50 })
    const peer = await somePeer(t, 'hangs')
    const tell = (id: string): void => hook.tell({ type: 'connected', peer: { ...peer, id }, standby: false })
    tell('hangs')
    await receiver.got((id) => id === 'hangs')
    const ids = Array.from({ length: 120 }, (_, i) => `n${i}`)
    for (const id of ids) tell(id)
    await receiver.got((id) => id === 'n119')
    await hook.close(1000)
    assert.match(errors[0]?.message ?? '', /no answer in 0\.3 s/)
    const got = new Set(receiver.posts.map(({ body }) => JSON.parse(body).peer.id))
    assert.deepEqual([...got], ['hangs', ...ids.slice(-50)])
  })

  test('a receiver that is not there is an error, and closing does not wait for its turn', async (t) => {
    const { hook, errors } = start(t, { url: 'http://127.0.0.1:1/', backoff: 60_000 })
    hook.tell({ type: 'connected', peer: await somePeer(t), standby: false })
    const started = performance.now()
    await hook.close(20)
    assert.ok(performance.now() - started < 1000)
    assert.deepEqual(errors, [])
  })

  test('a URL that cannot be told is an error at the start', () => {
    for (const url of [
      '',
      'example.com',
      'ftp://example.com/',
      'file:///etc/passwd',
      'https://user:pass@example.com/',
    ]) {
      assert.throws(() => new Webhook({ url }, () => {}), { code: 'PROXY_ERR_USAGE' }, url)
    }
  })
})
