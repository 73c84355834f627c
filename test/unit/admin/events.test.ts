import assert from 'node:assert/strict'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { eventJson } from '../../../lib/admin/event-json.ts'
import { EventStreams } from '../../../lib/admin/event-streams.ts'
import { ProxyError } from '../../../lib/core/errors.ts'
import type { HubEvent } from '../../../lib/hub/events.ts'
import { createProxyPair } from '../../../lib/testing.ts'
import { codeOf, type Served, serveAdmin } from '../../helpers/admin/client.ts'

const LISTENING: HubEvent = { type: 'listening', address: '127.0.0.1:925' }

/** A reader that has been let in. */
async function read(t: TestContext, { admin }: Served): Promise<IncomingMessage> {
  const request = get({ socketPath: admin.socket, path: '/api/v1/events', agent: false })
  t.after(() => request.destroy())
  const [response]: IncomingMessage[] = await once(request, 'response')
  assert.ok(response)
  response.on('error', () => {})
  return response
}

/** Whoever still counts besides the tally. */
function readers({ operations }: Served): number {
  return operations.listeners.size - 1
}

/** The first events of a stream, which then ends. */
async function take(response: IncomingMessage, count: number): Promise<unknown[]> {
  let got = ''
  for await (const chunk of response) {
    got += chunk
    const events = [...got.matchAll(/^event: .*\ndata: (.*)\n\n/gm)].map(([, json]): unknown => JSON.parse(json ?? ''))
    if (events.length >= count) return events
  }
  return []
}

describe('the event stream', { concurrency: 4 }, () => {
  test('tells every event with its type and time, to every reader', async (t) => {
    const served = await serveAdmin(t)
    const [one, two] = [await read(t, served), await read(t, served)]
    assert.equal(one.headers['content-type'], 'text/event-stream; charset=utf-8')
    const taken = [take(one, 2), take(two, 2)]
    served.operations.emit(LISTENING)
    const reason = new ProxyError('PROXY_ERR_REFUSED', 'wrong secret')
    served.operations.emit({ type: 'rejected', remote: '192.0.2.1:5', reason })
    for (const events of await Promise.all(taken)) {
      const plain = events.map((event) => {
        assert.ok(typeof event === 'object' && event !== null && 'time' in event)
        const { time, ...rest } = event
        assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000)
        return rest
      })
      assert.deepEqual(plain, [
        { type: 'listening', address: '127.0.0.1:925' },
        { type: 'rejected', remote: '192.0.2.1:5', reason: { code: 'PROXY_ERR_REFUSED', message: 'wrong secret' } },
      ])
    }
  })

  test('forgets a reader that has gone', async (t) => {
    const served = await serveAdmin(t)
    const reader = await read(t, served)
    assert.equal(readers(served), 1)
    reader.destroy()
    while (readers(served) > 0) await new Promise((resolve) => setImmediate(resolve))
  })

  test('drops a reader that does not read when 1 MiB waits for it, and nobody else', async (t) => {
    const served = await serveAdmin(t)
    const quick = await read(t, served)
    let events = 0
    quick.on('data', (chunk: Buffer) => {
      events += String(chunk).split('event: ').length - 1
    })
    const slow = connect(String(served.admin.socket))
    slow.write('GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n')
    await once(slow, 'readable')
    const closed = once(slow, 'close')
    const before = process.memoryUsage.rss()
    let told = 0
    const round = async (): Promise<void> => {
      for (let i = 0; i < 200; i++) served.operations.emit({ type: 'listening', address: 'x'.repeat(900) })
      told += 200
      while (events < told) await once(quick, 'data')
    }
    for (let i = 0; i < 40; i++) await round()
    slow.resume()
    await closed
    await round()
    assert.equal(events, told, 'the one that reads missed nothing')
    assert.ok(process.memoryUsage.rss() - before < 100 * 1024 * 1024)
  })

  test('has room for 64 readers', async (t) => {
    const served = await serveAdmin(t)
    for (let i = 0; i < 64; i++) await read(t, served)
    const answer = await served.ask('GET', '/api/v1/events')
    assert.deepEqual([answer.status, codeOf(answer)], [429, 'PROXY_ERR_TOO_MANY_READERS'])
  })

  test('ends when the server does', async (t) => {
    const served = await serveAdmin(t)
    const reader = await read(t, served)
    const ended = once(reader, 'end')
    reader.resume()
    const started = performance.now()
    await served.admin.close()
    await ended
    assert.ok(performance.now() - started < 1000)
    assert.equal(served.operations.listeners.size, 0)
  })

  test('says something now and then, so that no proxy in between gives it up', async (t) => {
    const { createServer } = await import('node:http')
    const streams = new EventStreams(() => () => {}, { pingEvery: 10 })
    const server = createServer((_request, response) => streams.add(response)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => server.closeAllConnections())
    t.after(() => server.close())
    const address = server.address()
    assert.ok(typeof address === 'object' && address)
    const [response]: IncomingMessage[] = await once(get({ host: '127.0.0.1', port: address.port }), 'response')
    assert.ok(response)
    let got = ''
    for await (const chunk of response) {
      got += chunk
      if (got.length >= 9) break
    }
    assert.match(got, /^(:\n\n){3,}$/)
    streams.close()
  })
})

test('an event as JSON holds what is known of a peer, and no secret', async (t) => {
  const { a, b } = await createProxyPair()
  t.after(() => {
    a.close()
    b.close()
  })
  const at = new Date('2026-01-02T03:04:05Z')
  const peer = {
    proxy: a,
    id: 'n',
    instance: 'i',
    connectedAt: at,
    remote: '192.0.2.1:5',
    transport: 'ws',
    enrolled: false,
    secret: 's',
  }
  const reason = new ProxyError('PROXY_ERR_CLOSED', `bad symport_${'x'.repeat(64)} at ws://user:pass@host/ or so`)
  assert.deepEqual(eventJson({ type: 'disconnected', peer, reason }, at), {
    type: 'disconnected',
    time: '2026-01-02T03:04:05.000Z',
    peer: {
      id: 'n',
      instance: 'i',
      connectedAt: '2026-01-02T03:04:05.000Z',
      remote: '192.0.2.1:5',
      transport: 'ws',
      enrolled: false,
    },
    reason: { code: 'PROXY_ERR_CLOSED', message: 'bad … at ws://…@host/ or so' },
  })
  assert.doesNotMatch(JSON.stringify(eventJson({ type: 'connected', peer, standby: false })), /proxy|secret/)
})
