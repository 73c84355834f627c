import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { diagnostics } from '../../lib/core/diagnostics.ts'
import { createWeb } from '../../lib/domains/web.ts'
import { hashPassword } from '../../lib/domains/web-auth.ts'
import { type Front, type FrontOptions, webFront } from '../../lib/domains/web-front.ts'
import { forward } from '../../lib/hub/forward.ts'
import { tcp } from '../../lib/index.ts'
import { onePortServer } from '../helpers/contract/one-port.ts'
import { pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { connectPair, MEMORY } from '../helpers/contract/proxies.ts'
import { soon, watchForStrays } from '../helpers/contract/strays.ts'
import { type StrictRequest, strictTarget } from '../helpers/contract/strict-target.ts'
import { ask, target } from '../helpers/contract/web-port.ts'
import { basic } from '../helpers/contract/web-ruled.ts'
import { projectPath } from '../helpers/core/project.ts'
import { cheapScrypt } from '../helpers/hub/cheap-scrypt.ts'

/** What a server has at its web port, at the side that dials the target. */

watchForStrays()

interface Fronted extends AsyncDisposable {
  readonly port: number
}

type Wanted = Partial<Omit<FrontOptions, 'isNamed' | 'forward'>>

async function frontOf(to: number, named: boolean, wanted: Wanted): Promise<Front> {
  const Forward = { Domain: 'tcp', Addr: `127.0.0.1:${to}` }
  return await webFront(tcp(), { settings: {}, ...wanted, forward: Forward, isNamed: () => named })
}

/** Behind a server's web port. */
async function named(to: number, wanted: Wanted = {}): Promise<Fronted> {
  const front = await frontOf(to, true, wanted)
  const web = createWeb()
  const pair = await connectPair(MEMORY, {
    dialling: { domains: web.domains },
    accepting: { domains: [front.plugin] },
  })
  const { onRequest, onUpgrade } = web
  const server = await onePortServer({ onRequest, onUpgrade, trustedProxies: ['127.0.0.1'] })
  const Forward = { Domain: 'tcp', Addr: `127.0.0.1:${to}` }
  await pair.dialling.newListener({ Listen: { Domain: 'web', Addr: '/' }, Forward })
  return {
    port: server.port,
    async [Symbol.asyncDispose]() {
      web.close()
      front.close()
      await server[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

/** Behind a port that takes the bytes of anybody. */
async function bare(to: number, wanted: Wanted = {}): Promise<Fronted> {
  const front = await frontOf(to, false, wanted)
  const over = new AbortController()
  const spec = { Listen: { Domain: 'tcp', Addr: '127.0.0.1:0' }, Forward: { Domain: 'tcp', Addr: `127.0.0.1:${to}` } }
  const [listener] = await forward([spec], { domains: [front.plugin], signal: over.signal })
  return {
    port: Number(listener?.bound.Addr.split(':').at(-1)),
    async [Symbol.asyncDispose]() {
      front.close()
      over.abort()
      await listener?.close()
    },
  }
}

const headersBack = () => target((request, response) => response.end(JSON.stringify(request.headers)))

for (const [name, open] of [
  ['behind a web port', named],
  ['behind a port of its own', bare],
] as const) {
  test(`${name} large bodies, WebSockets and connections that are kept go through`, async () => {
    await using there = await target((request, response) => void request.pipe(response))
    there.server.on('upgrade', (_request, socket) => {
      socket.on('error', () => {})
      socket.write('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi ')
      socket.pipe(socket)
    })
    await using front = await open(there.port)
    const body = pattern(2_000_000, 3)
    for (const headers of [{}, { 'content-length': String(body.length) }]) {
      const outgoing = request({ port: front.port, method: 'POST', headers: { host: 'x', ...headers } })
      outgoing.end(body)
      const [message] = await soon(once(outgoing, 'response'), 'the answer')
      assert.equal(sha256(await readAll(message)), sha256(body))
    }
    const socket = connect(front.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly')
    let got = ''
    socket.on('data', (chunk) => {
      got += chunk
    })
    while (!got.endsWith('early')) await soon(once(socket, 'data'), 'the first bytes')
    assert.match(got, /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nhi early$/)
    socket.destroy()
    const kept = connect(front.port, '127.0.0.1')
    kept.on('data', (chunk) => {
      got += chunk
    })
    for (let round = 0; round < 5; round++) {
      got = ''
      kept.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc')
      while (!got.endsWith('abc\r\n0\r\n\r\n')) await soon(once(kept, 'data'), 'an answer')
    }
    kept.destroy()
  })

  test(`${name} the password, the host and the rules are those of a web port`, async () => {
    await using there = await headersBack()
    const settings = {
      basicAuth: { ann: await hashPassword('secret') },
      hostHeader: 'rewrite',
      requestHeaders: { 'x-a': '1', cookie: null },
      responseHeaders: { 'x-b': '2' },
    }
    await using front = await open(there.port, { settings })
    assert.equal((await ask(front.port, '/')).status, 401)
    assert.equal(there.connections(), 0)
    const answer = await ask(front.port, '/', { headers: { ...basic('ann', 'secret'), cookie: 'a=b' } })
    const seen = JSON.parse(answer.body)
    assert.deepEqual(
      [seen.host, seen['x-forwarded-host'], seen['x-a'], seen.cookie, seen.authorization, answer.headers['x-b']],
      [`127.0.0.1:${there.port}`, 'example.test', '1', undefined, undefined, '2'],
    )
    const socket = connect(front.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
    assert.match(await soon(text(socket), 'the answer'), /^HTTP\/1\.1 401 /)
  })
}

test('who the visitor is, and how they came, is what the web port says, and a stranger says nothing', async () => {
  await using there = await headersBack()
  const said = {
    'x-forwarded-for': '192.0.2.7',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'evil',
    forwarded: 'x',
  }
  const seenBy = async (open: typeof named): Promise<unknown[]> => {
    await using front = await open(there.port)
    const seen = JSON.parse((await ask(front.port, '/', { headers: said })).body)
    return ['for', 'proto', 'host', 'port'].map((name) => seen[`x-forwarded-${name}`]).concat(seen.forwarded)
  }
  assert.deepEqual(await seenBy(named), ['192.0.2.7', 'https', 'example.test', '443', undefined])
  assert.deepEqual(await seenBy(bare), ['127.0.0.1', 'http', 'example.test', '80', undefined])
})

test('wrong passwords count for each visitor of the web port', async () => {
  using _scrypt = cheapScrypt()
  await using there = await headersBack()
  await using front = await named(there.port, { settings: { basicAuth: { ann: await hashPassword('secret') } } })
  const as = async (ip: string, i: number): Promise<number> =>
    (await ask(front.port, '/', { headers: { ...basic('ann', `x${i}`), 'x-forwarded-for': ip } })).status
  const tried = await Promise.all(Array.from({ length: 11 }, (_, i) => as('192.0.2.1', i)))
  assert.deepEqual(tried.sort(), [...Array.from({ length: 10 }, () => 401), 429])
  assert.equal(await as('192.0.2.2', 0), 401)
})

test('a target that is not there is 502, and told', async () => {
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  const told: string[] = []
  await using front = await bare(gone.port, { onFailed: ({ message }) => told.push(message) })
  assert.equal((await ask(front.port, '/')).status, 502)
  assert.deepEqual(told, [`nothing listens on 127.0.0.1:${gone.port}`])
})

interface Vector {
  readonly name: string
  readonly base64: string
}

for (const [name, open] of [
  ['a web port and it', named],
  ['it alone', bare],
] as const) {
  test(`no request is smuggled through ${name}`, async () => {
    const file = await readFile(projectPath('test/fixtures/http-smuggling.json'), 'utf8')
    const { requests: vectors }: { requests: readonly Vector[] } = JSON.parse(file)
    assert.ok(vectors.length > 50)
    const reached: StrictRequest[] = []
    const doubts: string[] = []
    await using there = await program(strictTarget(reached, doubts))
    await using front = await open(there.port, { settings: { requestHeaders: { 'x-a': '1' } } })
    const outcomes = await Promise.all(
      vectors.map(async ({ name, base64 }) => {
        const socket = connect(front.port, '127.0.0.1')
        socket.on('error', () => {})
        const answered = new Promise<string>((resolve) => {
          let got = ''
          socket.on('data', (chunk) => {
            got += chunk
            if (/\r\n\r\n./.test(got)) setTimeout(() => resolve(got), 50)
          })
          socket.on('close', () => resolve(got))
          // One of them says that more is to come, and it never does.
          if (name === 'chunk-overflow') setTimeout(() => resolve(got), 300)
        })
        socket.write(Buffer.from(base64, 'base64'))
        const got = await answered
        socket.destroy()
        return [name, got.slice(0, 12), got.split('HTTP/1.1 ').length - 1] as const
      }),
    )
    for (const [vector, start, answers] of outcomes) {
      const status = ['te-underscore', 'cl-leading-zero'].includes(vector) ? 'HTTP/1.1 200' : 'HTTP/1.1 400'
      assert.equal(start, vector === 'chunk-overflow' ? '' : status, vector)
      assert.ok(answers <= 1, vector)
    }
    assert.ok(reached.length > 0)
    assert.deepEqual(doubts, [])
    assert.deepEqual(
      reached.filter(({ line }) => line.includes('hidden')),
      [],
    )
  })
}

test('100 MiB of headers are not carried to who answers that they are too many', async (t) => {
  await using there = await headersBack()
  const front = await frontOf(there.port, false, { refusalTime: 200 })
  await using pair = await connectPair(MEMORY, {
    dialling: { domains: [tcp()] },
    accepting: { domains: [front.plugin] },
  })
  t.after(() => front.close())
  const Forward = { Domain: 'tcp', Addr: `127.0.0.1:${there.port}` }
  const { bound } = await pair.dialling.newListener({ Listen: { Domain: 'tcp', Addr: '127.0.0.1:0' }, Forward })
  let carried = 0
  const count = (seen: unknown): void => {
    if (typeof seen === 'object' && seen !== null && 'length' in seen) carried += Number(seen.length)
  }
  diagnostics.data.subscribe(count)
  t.after(() => diagnostics.data.unsubscribe(count))
  // Somebody who goes on whatever is said to them.
  const socket = connect({ port: Number(bound.Addr.split(':').at(-1)), host: '127.0.0.1', allowHalfOpen: true })
  let got = ''
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    got += chunk
  })
  const line = `X-A: ${'a'.repeat(8000)}\r\n`
  let sent = 0
  const more = (): void => {
    for (; sent < 100 * 1024 * 1024 && !socket.destroyed; sent += line.length) {
      if (socket.write(line)) continue
      socket.once('drain', more)
      return
    }
    socket.end()
  }
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n')
  more()
  await soon(new Promise((resolve) => socket.once('close', resolve)), 'the end')
  assert.match(got, /^HTTP\/1\.1 431 /)
  assert.ok(carried > 20_000 && carried < 4 * 1024 * 1024, `${carried} bytes were carried`)
  assert.equal(there.connections(), 0)
})

test('a head that never ends, a silence, and a connection that nobody uses are over in time', async () => {
  await using there = await headersBack()
  await using front = await bare(there.port, { headTimeout: 200, idleTime: 200 })
  const [slow, silent, idle] = await Promise.all(
    ['GET / HTTP/1.1\r\nHost: x\r\nX-', '', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'].map(async (bytes) => {
      const socket = connect({ port: front.port, host: '127.0.0.1', allowHalfOpen: true })
      if (bytes !== '') socket.write(bytes)
      const got = await soon(text(socket), 'the end')
      socket.end()
      return got
    }),
  )
  for (const got of [slow, silent]) assert.match(got ?? '', /^HTTP\/1\.1 408 /)
  assert.match(idle ?? '', /^HTTP\/1\.1 200 /)
  assert.equal(there.connections(), 1)
})

test('a body that never comes is not waited for by who has to be let in first', async () => {
  await using there = await headersBack()
  await using front = await bare(there.port, { settings: { basicAuth: { ann: await hashPassword('secret') } } })
  const socket = connect(front.port, '127.0.0.1')
  const { authorization } = basic('ann', 'wrong')
  socket.write(`POST / HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Length: 1000000\r\n\r\n`)
  assert.match(await soon(text(socket), 'the answer'), /^HTTP\/1\.1 401 /)
  assert.equal(there.connections(), 0)
})
