import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as v from 'valibot'
import type { Har, InspectedExchange, InspectedRequest } from '../../lib/domains/web-inspection.ts'
import { type Served, serveAdmin } from '../helpers/admin/client.ts'
import { FakeOperations } from '../helpers/admin/fake-operations.ts'
import { last, listenInspected } from '../helpers/contract/inspected.ts'
import { watchForStrays } from '../helpers/contract/strays.ts'
import { ask, target, type WebPort, webPort } from '../helpers/contract/web-port.ts'

/** The requests that were recorded, as the admin API has them. */

watchForStrays()

const API = '/api/v1/requests'

// What HAR 1.2 demands of each object; a name with an underscore in front is anybody's own.
const number = v.number()
const pair = v.strictObject({ name: v.string(), value: v.string(), comment: v.optional(v.string()) })
const cookie = v.strictObject({
  ...pair.entries,
  path: v.optional(v.string()),
  domain: v.optional(v.string()),
  expires: v.optional(v.pipe(v.string(), v.isoTimestamp())),
  httpOnly: v.optional(v.boolean()),
  secure: v.optional(v.boolean()),
})
const text = {
  mimeType: v.pipe(v.string(), v.regex(/^[^/\s]+\/\S+/)),
  text: v.optional(v.string()),
  comment: v.optional(v.string()),
}
const message = {
  httpVersion: v.string(),
  cookies: v.array(cookie),
  headers: v.array(pair),
  headersSize: number,
  bodySize: number,
}
const time = v.pipe(number, v.minValue(0))
const timings = v.strictObject({
  blocked: number,
  dns: number,
  connect: number,
  send: time,
  wait: time,
  receive: time,
  ssl: number,
})
const HAR_1_2 = v.strictObject({
  log: v.strictObject({
    version: v.literal('1.2'),
    creator: v.strictObject({ name: v.string(), version: v.string() }),
    entries: v.array(
      v.pipe(
        v.strictObject({
          startedDateTime: v.pipe(v.string(), v.isoTimestamp()),
          time,
          request: v.strictObject({
            ...message,
            method: v.string(),
            url: v.pipe(v.string(), v.url()),
            queryString: v.array(pair),
            postData: v.optional(v.strictObject({ ...text, _encoding: v.optional(v.literal('base64')) })),
          }),
          response: v.strictObject({
            ...message,
            status: number,
            statusText: v.string(),
            content: v.strictObject({ ...text, size: time, encoding: v.optional(v.literal('base64')) }),
            redirectURL: v.string(),
            _error: v.optional(v.string()),
          }),
          cache: v.strictObject({}),
          timings,
          comment: v.optional(v.string()),
        }),
        v.check(
          ({ time, timings: { send, wait, receive } }) => Math.abs(time - send - wait - receive) < 0.001,
          'the sum',
        ),
      ),
    ),
  }),
})

async function serve(t: Parameters<typeof serveAdmin>[0], port: WebPort): Promise<Served> {
  const operations = Object.assign(new FakeOperations(), { inspection: () => port.web.inspection() })
  return await serveAdmin(t, { operations })
}

test('they are listed, shown, exported, asked again and forgotten', async (t) => {
  await using there = await target((request, response) => {
    request.resume().on('end', () => {
      response.writeHead(request.url === '/moved' ? 302 : 200, {
        ...{ location: '/to?token=s3cret', 'content-type': 'text/plain' },
        'set-cookie': 'sid=s3cret; Path=/; Domain=a.test; Expires=Sat, 21 Nov 2026 22:53:50 GMT; Secure',
      })
      response.end(request.url === '/binary' ? Buffer.from([0, 255]) : 'text')
    })
  })
  await using port = await webPort()
  await listenInspected(port, there.port)
  const { ask: asked, admin } = await serve(t, port)
  const form = { cookie: 'a=s3cret; b=2', 'content-type': 'application/x-www-form-urlencoded' }
  await ask(port.port, '/form?x=1&key=s3cret', { method: 'POST', headers: form, body: 'password=s3cret' })
  await ask(port.port, '/moved')
  await ask(port.port, '/binary')
  await last(await port.web.inspection())
  const list = (await asked('GET', API)).json as InspectedRequest[]
  assert.deepEqual(
    list.map(({ method, status }) => [method, status]),
    [
      ['GET', 200],
      ['GET', 302],
      ['POST', 200],
    ],
  )
  const some = (await asked('GET', `${API}?status=3xx&method=get&limit=5&mapping=7&host=example.test&path=mov`)).json
  assert.deepEqual(some, [list[1]])
  const id = list[2]?.id
  const one = await asked('GET', `${API}/${id}`)
  assert.equal((one.json as InspectedExchange).request.body?.text, 'password=***')
  const har = await asked('GET', `${API}.har`)
  const { log } = v.parse(HAR_1_2, har.json)
  assert.deepEqual(
    log.entries.map(({ request }) => request.url),
    list.map(({ url }) => url).reverse(),
  )
  assert.deepEqual(log.entries[0]?.response.cookies, [
    {
      name: 'sid',
      value: '***',
      path: '/',
      domain: 'a.test',
      expires: '2026-11-21T22:53:50.000Z',
      httpOnly: false,
      secure: true,
    },
  ])
  assert.equal(log.entries[1]?.response.redirectURL, '/to?token=***')
  assert.deepEqual(log.entries[2]?.response.content, {
    size: 2,
    mimeType: 'text/plain',
    text: 'AP8=',
    encoding: 'base64',
  })
  assert.equal(((await asked('GET', `${API}.har?id=${id}`)).json as Har).log.entries.length, 1)
  const curl = await asked('GET', `${API}/${id}/curl`)
  assert.match(curl.text, /MASKED_PASSWORD/)
  const again = await asked('POST', `${API}/${id}/replay`)
  assert.deepEqual([again.status, (again.json as InspectedExchange).replayOf], [200, id])
  for (const answer of [one, har, curl, again]) assert.doesNotMatch(answer.text, /s3cret/)
  assert.deepEqual((await asked('DELETE', API)).json, { cleared: 4 })
  assert.deepEqual((await asked('GET', API)).json, [])
  assert.deepEqual(
    (await admin.audit.read()).map(({ action, subject }) => [action, subject]),
    [
      ['requests.clear', ''],
      ['request.replay', id],
    ],
  )
})

test('a HAR is one where nobody says what a body is', async (t) => {
  await using there = await target((request, response) => void request.resume().on('end', () => response.end('x')))
  await using port = await webPort()
  await listenInspected(port, there.port)
  const { ask: asked } = await serve(t, port)
  await ask(port.port, '/', { method: 'POST', body: Buffer.from([0, 255]) })
  await last(await port.web.inspection())
  const [entry] = v.parse(HAR_1_2, (await asked('GET', `${API}.har`)).json).log.entries
  assert.deepEqual(entry?.request.postData, { mimeType: 'application/octet-stream', text: 'AP8=', _encoding: 'base64' })
  assert.deepEqual(entry?.response.content, { size: 1, mimeType: 'application/octet-stream', text: 'x' })
})

test('what makes no sense is said so, and where nothing is recorded there is nothing', async (t) => {
  await using port = await webPort()
  const { ask: asked } = await serve(t, port)
  for (const [method, path, status, text] of [
    ['GET', '?status=9', 400, /"status" is no status/],
    ['GET', '?limit=0', 400, /limit/],
    ['GET', '?since=yesterday', 400, /"since" is neither an id nor a time/],
    ['GET', '?since=2026-13-45', 400, /"since" is neither an id nor a time/],
    ['GET', '?since=2026-02-31', 400, /"since" is neither an id nor a time/],
    ['GET', '?since=2026-11-21T99:00', 400, /"since" is neither an id nor a time/],
    ['GET', '.har?since=2026-', 400, /"since" is neither an id nor a time/],
    ['GET', '?nobody=1', 400, /unknown key "nobody"/],
    ['DELETE', '?path=/x', 400, /unknown key "path"/],
    ['GET', '/bcd1', 404, /there is no request "bcd1"/],
    ['GET', `/${'x'.repeat(41)}`, 400, /too long/],
    ['POST', '/bcd1/replay', 404, /there is no request/],
    ['GET', '.har?id=bcd1', 404, /there is no request/],
  ] as const) {
    const answer = await asked(method, `${API}${path}`)
    assert.equal(answer.status, status, `${method} ${path}: ${answer.text}`)
    assert.match(answer.text.replaceAll('\\"', '"'), text)
  }
  for (const since of ['bcd1', '2026-02-28', '2026-11-21T10:00:00.123Z', '2026-11-21T10:00%2B01:00']) {
    assert.equal((await asked('GET', `${API}?since=${since}`)).status, 200, since)
  }
  const { ask: other } = await serveAdmin(t)
  assert.deepEqual((await other('GET', API)).json, [])
  assert.equal((await other('GET', `${API}/bcd1`)).status, 404)
  assert.deepEqual(v.parse(HAR_1_2, (await other('GET', `${API}.har`)).json).log.entries, [])
})
