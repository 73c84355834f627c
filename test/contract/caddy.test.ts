import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { type CaddyEvent, CaddyNames, type CaddyTimes } from '../../lib/hub/caddy-names.ts'
import { CaddyApi, type CaddyPlace, type CaddyTimeouts } from '../../lib/sockets/caddy-api.ts'
import { FakeCaddy } from '../helpers/contract/fake-caddy.ts'

/** The names of a server in the config of a Caddy, whatever that does. */

const ID = 'symport-00112233aabbccdd'
const OTHER = { match: [{ host: ['other.example.com'] }], handle: [{ handler: 'static_response', body: 'theirs' }] }
const OTHERS = (): Record<string, unknown> => ({
  apps: { http: { servers: { srv0: { listen: [':443'], routes: [OTHER] } } } },
})
const QUICK: Partial<CaddyTimes> = { gather: 1, pace: 1, firstBackoff: 5, longestBackoff: 20, patience: 5000 }

class Names {
  readonly events: CaddyEvent[] = []
  readonly hosts = new Set<string>()
  readonly keeper: CaddyNames
  #wake: () => void = () => {}

  constructor(
    t: TestContext,
    place: CaddyPlace,
    more: { times?: Partial<CaddyTimes>; timeouts?: Partial<CaddyTimeouts>; server?: string; token?: string } = {},
  ) {
    this.keeper = new CaddyNames(new CaddyApi(place, more.timeouts), {
      ...{ id: ID, server: more.server, dial: '127.0.0.1:925', token: more.token ?? 'T', hosts: () => [...this.hosts] },
      onEvent: (event) => {
        this.events.push(event)
        this.#wake()
      },
      times: { ...QUICK, ...more.times },
    })
    t.after(() => this.keeper[Symbol.asyncDispose]())
  }

  add(...hosts: string[]): void {
    for (const host of hosts) this.hosts.add(host)
    this.keeper.changed()
  }

  remove(host: string): void {
    this.hosts.delete(host)
    this.keeper.changed()
  }

  of<T extends CaddyEvent['type']>(type: T): Extract<CaddyEvent, { type: T }>[] {
    return this.events.filter((event): event is Extract<CaddyEvent, { type: T }> => event.type === type)
  }

  /** The `count`th event of its kind. */
  async next<T extends CaddyEvent['type']>(type: T, count = 1): Promise<Extract<CaddyEvent, { type: T }>> {
    const late = AbortSignal.timeout(5000)
    for (;;) {
      const found = this.of(type)[count - 1]
      if (found) return found
      if (late.aborted) throw new Error(`no ${count}. ${type} in ${JSON.stringify(this.events)}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        late.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  async failure(): Promise<string> {
    const { reason } = await this.next('failed')
    assert.equal(reason.code, 'PROXY_ERR_CADDY')
    assert.ok(!reason.message.includes('\n') && reason.message.length < 500)
    return reason.message
  }
}

const hostsOf = (route: Record<string, unknown> | undefined): unknown =>
  (route?.match as [{ host: unknown }] | undefined)?.[0].host

test('names are in the route before all others while they are there, and then nothing is left of it', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const names = new Names(t, caddy.place)
  names.add('a.example.com')
  names.keeper.start()
  assert.deepEqual(await names.keeper.placeOf('a.example.com'), { scheme: 'https', port: 443 })
  assert.deepEqual([caddy.routes.length, hostsOf(caddy.routes[0]), caddy.routes[1]], [2, ['a.example.com'], OTHER])
  names.add('b.example.com', 'c.example.com')
  await names.next('names', 2)
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com', 'b.example.com', 'c.example.com'])
  assert.equal(caddy.changes.length, 2, 'one change for both')
  names.remove('b.example.com')
  assert.deepEqual((await names.next('names', 3)).removed, ['b.example.com'])
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com', 'c.example.com'])
  await names.keeper[Symbol.asyncDispose]()
  assert.deepEqual(caddy.config, OTHERS())
  assert.deepEqual(names.of('failed'), [])
})

test('a Caddy without any config gets a server, and loses it again', async (t) => {
  for (const config of [null, {}, { apps: {} }, { apps: { http: { https_port: 8443 } } }]) {
    const caddy = await FakeCaddy.start(t, config)
    const names = new Names(t, caddy.place)
    names.add('a.example.com')
    names.keeper.start()
    const { port } = await names.keeper.placeOf('a.example.com')
    assert.equal(port, JSON.stringify(config).includes('8443') ? 8443 : 443)
    assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com'])
    await names.keeper[Symbol.asyncDispose]()
    assert.ok(!JSON.stringify(caddy.config).includes('symport'))
    assert.deepEqual(names.of('failed'), [])
  }
})

test('what others change at the same moment stays: it is looked at again', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const names = new Names(t, caddy.place)
  let left = 3
  caddy.trick = ({ method }) => {
    if (method !== 'GET' && left-- > 0) caddy.routes.push({ '@id': `theirs-${left}` })
    return undefined
  }
  names.add('a.example.com')
  names.keeper.start()
  await names.next('names')
  assert.deepEqual(
    caddy.routes.map((route) => route['@id']),
    [ID, undefined, 'theirs-2', 'theirs-1', 'theirs-0'],
  )
  assert.equal(caddy.changes.length, 4)
  // Somebody who never stops is not fought.
  left = Number.POSITIVE_INFINITY
  names.add('b.example.com')
  assert.match(await names.failure(), /^others change Caddy's config all the time$/)
  left = 0
  await names.next('names', 2)
})

test('what an older run has left after kill -9 is taken over, with the token of this one', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const old = new Names(t, caddy.place, { token: 'old' })
  old.add('gone.example.com', 'a.example.com')
  old.keeper.start()
  await old.next('names')
  const left = structuredClone(caddy.config)
  await old.keeper[Symbol.asyncDispose]()
  for (const hosts of [[], ['a.example.com']]) {
    caddy.load(structuredClone(left))
    const names = new Names(t, caddy.place)
    if (hosts.length > 0) names.add(...hosts)
    names.keeper.start()
    await names.next('ready')
    assert.ok(!JSON.stringify(caddy.config).includes('gone.example.com'))
    assert.ok(!JSON.stringify(caddy.config).includes('"old"'))
    assert.deepEqual(hostsOf(caddy.routes[0]), hosts.length > 0 ? hosts : ['other.example.com'])
    await names.keeper[Symbol.asyncDispose]()
    assert.deepEqual(caddy.config, OTHERS())
  }
})

test('a Caddy that is away is told once; when it is back with a fresh config, all names are put again', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  await caddy.stop()
  const names = new Names(t, caddy.place)
  names.add('a.example.com')
  names.keeper.start()
  assert.match(await names.failure(), /^Caddy cannot be asked: nothing listens on 127\.0\.0\.1:\d+$/)
  const since = performance.now()
  assert.deepEqual(await names.keeper.placeOf('a.example.com'), { scheme: 'https', port: 443 })
  assert.ok(performance.now() - since < 1000, 'nobody waits for what is known to be wrong')
  await caddy.start()
  await names.next('ready')
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com'])

  // It tells by closing the connection, and not by being asked all the time.
  caddy.asked.length = 0
  caddy.load(OTHERS())
  while (caddy.routes.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  await caddy.stop()
  await names.next('failed', 2)
  caddy.config = null
  await caddy.start()
  await names.next('ready', 2)
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com'])
  assert.equal(names.of('failed').length, 2)
})

test('routes of others for the same host are left alone, which is told once', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const names = new Names(t, caddy.place)
  names.add('other.example.com', 'a.example.com', '*.evil"}')
  names.keeper.start()
  await names.next('left', 2)
  assert.deepEqual(
    names.of('left').map(({ why, hosts }) => [why, hosts]),
    [
      ['other', ['other.example.com']],
      ['impossible', ['*.evil"}']],
    ],
  )
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com'])
  await assert.rejects(names.keeper.placeOf('other.example.com'), { code: 'PROXY_ERR_NAME_TAKEN' })
  names.add('b.example.com')
  await names.next('names', 2)
  assert.equal(names.of('left').length, 2)
  // Their route goes: the name is ours.
  const theirs = caddy.routes.findIndex((route) => route['@id'] !== ID)
  caddy.routes.splice(theirs, 1)
  caddy.load(caddy.config)
  await names.next('names', 3)
  assert.deepEqual(hostsOf(caddy.routes[0]), ['a.example.com', 'b.example.com', 'other.example.com'])
})

test('a setting that an older Caddy does not know is left out', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  let bodies = 0
  caddy.trick = ({ method }, response) => {
    if (method === 'GET' || bodies++ > 0) return undefined
    response.writeHead(500).end('{"error":"json: unknown field \\"stream_close_delay\\""}')
    return true
  }
  const names = new Names(t, caddy.place)
  names.add('a.example.com')
  names.keeper.start()
  await names.next('names')
  assert.ok(!JSON.stringify(caddy.config).includes('stream_close_delay'))
  names.add('b.example.com')
  await names.next('names', 2)
  assert.equal(bodies, 3)
  assert.deepEqual(names.of('failed'), [])
})

test('what Caddy says when it refuses is on one line, and it is tried again', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  let isRefused = true
  caddy.trick = ({ method }, response) => {
    if (method === 'GET' || !isRefused) return undefined
    response.writeHead(500).end(JSON.stringify({ error: `listening on :443:\n\u001b[31m${'x'.repeat(5000)}` }))
    return true
  }
  const names = new Names(t, caddy.place)
  names.add('a.example.com')
  names.keeper.start()
  assert.match(await names.failure(), /^Caddy does not take the names: listening on :443: \[31mx+…$/)
  isRefused = false
  await names.next('ready')
  // What it did not take was not the setting.
  assert.ok(JSON.stringify(caddy.config).includes('stream_close_delay'))
  assert.equal(names.of('failed').length, 1)
})

test('a server that is not there, or not to be chosen, is named with those that are', async (t) => {
  const two = { apps: { http: { servers: { a: { listen: [':443'] }, b: { listen: [':8443'] } } } } }
  const caddy = await FakeCaddy.start(t, two)
  const [missing, several] = [new Names(t, caddy.place, { server: 'web' }), new Names(t, caddy.place)]
  missing.keeper.start()
  several.keeper.start()
  assert.equal(await missing.failure(), 'Caddy has no HTTP server "web": there are a (:443), b (:8443)')
  assert.match(await several.failure(), /^Caddy has several HTTP servers: choose one with --caddy-server: a .*, b /)
  assert.deepEqual(caddy.changes, [])
})

const ANSWERS: readonly [string, string, RegExp][] = [
  [
    'a page',
    'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>',
    /^Caddy cannot be asked: what answers at .* is not its admin API$/,
  ],
  ['no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n', /^Caddy cannot be asked: Parse Error/],
  ['nothing', '', /^Caddy cannot be asked: /],
  [
    'a redirect',
    'HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n',
    /does not show its config: it answers 302$/,
  ],
  [
    'a refusal',
    'HTTP/1.1 403 No\r\nContent-Length: 32\r\n\r\n{"error":"host not allowed: \\n"}',
    /does not show its config: host not allowed: /,
  ],
  ['a number', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7', /^Caddy's config cannot be read: apps\.http /],
  ['no ETag', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull', /no ETag/],
  ['a strange ETag', 'HTTP/1.1 200 OK\r\nETag: W/x\r\nContent-Length: 4\r\n\r\nnull', /no ETag/],
]

for (const [name, answer, expected] of ANSWERS) {
  test(`${name} for an answer is told, and nothing breaks`, async (t) => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.end(answer))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.after(() => server.close())
    const { port } = server.address() as AddressInfo
    const place = { name: `http://127.0.0.1:${port}`, at: { host: '127.0.0.1', port, secure: false } }
    const names = new Names(t, place, { times: { lastWords: 200 } })
    names.add('a.example.com')
    names.keeper.start()
    assert.match(await names.failure(), expected)
  })
}

test('an answer without end is cut, and one that never comes has its time', { timeout: 20_000 }, async (t) => {
  let written = 0
  const server = createServer((_request, response) => {
    const chunk = Buffer.alloc(256 * 1024, ' ')
    const more = (): void => {
      if (response.destroyed) return
      written += chunk.length
      response.write(chunk, more)
    }
    more()
  })
  const mute = createTcpServer((socket) => socket.on('error', () => {}).resume())
  const ports: number[] = []
  for (const one of [server, mute]) {
    one.listen(0, '127.0.0.1')
    await once(one, 'listening')
    ports.push((one.address() as AddressInfo).port)
  }
  t.after(() => {
    server.closeAllConnections()
    server.close()
    mute.close()
  })
  const [endless, silent] = ports.map((port) => {
    const place = { name: `http://127.0.0.1:${port}`, at: { host: '127.0.0.1', port, secure: false } }
    const names = new Names(t, place, {
      timeouts: { read: port === ports[1] ? 50 : 5000 },
      times: { longestBackoff: 5000, firstBackoff: 5000, lastWords: 50 },
    })
    names.keeper.start()
    return names
  })
  assert.match((await endless?.failure()) ?? '', /the answer of .* is longer than 8 MiB$/)
  assert.ok(written < 32 * 1024 * 1024)
  assert.match((await silent?.failure()) ?? '', /^Caddy cannot be asked: no answer from .* in 0\.05 s$/)
})

test('it ends in time at a Caddy that does not answer any more', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const names = new Names(t, caddy.place, { times: { lastWords: 100 } })
  names.add('a.example.com')
  names.keeper.start()
  await names.next('names')
  caddy.trick = () => true
  const since = performance.now()
  await names.keeper[Symbol.asyncDispose]()
  assert.ok(performance.now() - since < 2000)
  assert.equal(names.of('failed').length, 1)
})

test('names that come and go all the time do not keep Caddy starting anew', async (t) => {
  const caddy = await FakeCaddy.start(t, OTHERS())
  const names = new Names(t, caddy.place, { times: { slowPace: 60_000, pace: 5 } })
  names.keeper.start()
  await names.next('ready')
  for (let round = 0; round < 200; round++) {
    names.add(`n${round}.example.com`)
    names.remove(`n${round - 1}.example.com`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  assert.ok(caddy.changes.length >= 5 && caddy.changes.length <= 25, `${caddy.changes.length} changes`)
})
