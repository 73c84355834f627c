import assert from 'node:assert/strict'
import type { RequestListener } from 'node:http'
import type { Socket } from 'node:net'
import test, { type TestContext } from 'node:test'
import { HttpsCaller } from '../../../lib/sockets/https-caller.ts'
import { Identity } from '../../helpers/transports/authority.ts'
import { serveWeb } from '../../helpers/transports/servers.ts'

const identity = Identity.make('somebody')

async function callerOf(t: TestContext, onRequest: RequestListener): Promise<{ caller: HttpsCaller; url: string }> {
  const { cert, key } = await identity
  const port = await serveWeb(t, { tls: { cert, key }, onRequest })
  const caller = new HttpsCaller({ by: 'ca', pem: cert })
  t.after(() => caller.close())
  return { caller, url: `https://127.0.0.1:${port}/` }
}

test('requests go through one connection; where that was closed meanwhile, through another', async (t) => {
  const seen = new Map<Socket, number>()
  const bodies: string[] = []
  const { caller, url } = await callerOf(t, async (request, response) => {
    const count = (seen.get(request.socket) ?? 0) + 1
    seen.set(request.socket, count)
    if (count === 4) return void request.socket.destroy()
    let body = ''
    for await (const chunk of request) body += chunk
    bodies.push(body)
    response.writeHead(201, { 'x-own': 'yes' }).end(`<${body}>`)
  })
  for (const body of ['a', undefined, 'b', 'c']) {
    const method = body === undefined ? 'GET' : 'POST'
    const { status, headers, text } = await caller.call({ method, url, headers: { accept: '*/*' }, body })
    assert.deepEqual([status, headers['x-own'], text], [201, 'yes', `<${body ?? ''}>`])
  }
  assert.deepEqual(
    [[...seen.values()], bodies],
    [
      [4, 1],
      ['a', '', 'b', 'c'],
    ],
  )
})

test('emits a ProxyError for what is not to be had, and waits for nobody who has given up', async (t) => {
  const { caller, url } = await callerOf(t, (request, response) => {
    if (request.url === '/long') response.end(Buffer.alloc(300_000))
    if (request.url === '/broken') response.write('half', () => request.socket.destroy())
  })
  const call = (path: string, signal?: AbortSignal): Promise<unknown> =>
    caller.call({ method: 'GET', url: `${url}${path}`, headers: {}, signal })
  await assert.rejects(call('long'), { code: 'PROXY_ERR_DIAL_FAILED', message: /is too long$/ })
  await assert.rejects(call('broken'), { code: 'PROXY_ERR_DIAL_FAILED' })
  await assert.rejects(call('never', AbortSignal.timeout(50)), { code: 'PROXY_ERR_ABORTED' })
  await assert.rejects(call('never', AbortSignal.abort()), { code: 'PROXY_ERR_ABORTED' })
  for (const bad of ['http://127.0.0.1/', 'file:///etc/passwd', '/dir', '']) {
    await assert.rejects(caller.call({ method: 'GET', url: bad, headers: {} }), { code: 'PROXY_ERR_DIAL_FAILED' })
  }
  // @ts-expect-error: nothing would be verified by it here
  new HttpsCaller({ by: 'pin', sha256: '00' }).close()
  const stranger = new HttpsCaller({ by: 'system' })
  t.after(() => stranger.close())
  await assert.rejects(stranger.call({ method: 'GET', url, headers: {} }), /certificate/)
})
