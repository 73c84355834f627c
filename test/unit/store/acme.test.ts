import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { createSecureContext } from 'node:tls'
import { type Acme, type AcmeEvent, type AcmeOptions, type Clock, openAcme } from '../../../lib/store/acme.ts'
import { Challenges } from '../../../lib/store/acme-challenges.ts'
import { AcmeOrders } from '../../../lib/store/acme-orders.ts'
import { AcmeFailure, explain, readRetryAfter } from '../../../lib/store/acme-problems.ts'
import { AcmeStore } from '../../../lib/store/acme-state.ts'
import { StateFolder } from '../../../lib/store/state-folder.ts'
import { acmeRequests, acmeRoute, isAcmeHello } from '../../../lib/transports/acme-answers.ts'
import { Identity } from '../../helpers/transports/authority.ts'
import { serveWeb } from '../../helpers/transports/servers.ts'

/** What there is to say without a real CA; with one: test/system/acme.test.ts. */

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const authority = Identity.make('the directory')

/** A clock that stands still. */
class StillClock implements Clock {
  time = 1_000_000_000_000
  now = (): number => this.time
  after = (): (() => void) => () => {}
}

interface Bench {
  readonly directory: string
  readonly folder: StateFolder
  readonly clock: StillClock
  readonly events: AcmeEvent[]
  /** Opens what is kept in the folder, as at a start. */
  open(more?: Partial<AcmeOptions>): Promise<Acme>
  /** What the directory was asked for. */
  readonly asked: string[]
  /** Resolves with the next event. */
  next(): Promise<AcmeEvent>
}

type Answer = (path: string, response: ServerResponse, request: IncomingMessage) => void

/** A CA that answers as it is told, and up to then as one should. */
async function bench(t: TestContext, answer: Answer, onAccount?: Answer | undefined): Promise<Bench> {
  const { cert, key } = await authority
  const asked: string[] = []
  const port = await serveWeb(t, {
    tls: { cert, key },
    onRequest(request, response) {
      const path = request.url ?? ''
      asked.push(path)
      response.setHeader('replay-nonce', 'abc')
      if (path === '/dir') {
        const urls = ['newNonce', 'newAccount', 'newOrder'].map((name) => [name, `https://127.0.0.1:${port}/${name}`])
        response.end(JSON.stringify(Object.fromEntries(urls)))
      } else if (path === '/newNonce') {
        response.end()
      } else if (path === '/newAccount' && onAccount) {
        onAccount(path, response, request)
      } else if (path === '/newAccount') {
        response.writeHead(201, { location: `https://127.0.0.1:${port}/account` }).end('{}')
      } else {
        answer(path, response, request)
      }
    },
  })
  const path = mkdtempSync(join(tmpdir(), 'symport-acme-'))
  const folder = new StateFolder(path)
  const clock = new StillClock()
  const events: AcmeEvent[] = []
  let heard: ((event: AcmeEvent) => void) | undefined
  const open = async (more: Partial<AcmeOptions> = {}): Promise<Acme> => {
    const acme = await openAcme(folder, {
      ...{ directory: `https://127.0.0.1:${port}/dir`, email: 'a@example.com', verify: { by: 'ca', pem: cert } },
      ...{ isName: () => true, clock, patience: 5000 },
      onEvent(event) {
        if (event.type === 'terms') return
        events.push(event)
        heard?.(event)
      },
      ...more,
    })
    t.after(() => acme.close())
    return acme
  }
  t.after(() => rmSync(path, { recursive: true, force: true }))
  const next = (): Promise<AcmeEvent> =>
    new Promise((resolve) => {
      heard = resolve
    })
  return { directory: `https://127.0.0.1:${port}/dir`, folder, clock, events, open, asked, next }
}

function refuse(response: ServerResponse, type: string, detail: string, headers: Record<string, string> = {}): void {
  response.writeHead(403, { 'content-type': 'application/problem+json', ...headers })
  response.end(JSON.stringify({ type: `urn:ietf:params:acme:error:${type}`, detail }))
}

/** When it may be tried again, in ms from now. */
function pauseOf(event: AcmeEvent | undefined, clock: Clock): number {
  return event && 'again' in event ? event.again.getTime() - clock.now() : Number.NaN
}

test('nothing is asked for what no public CA signs, or is not served here', async (t) => {
  const { open, asked, events } = await bench(t, () => {})
  const acme = await open({ isName: (name) => name !== 'other.example.com' })
  const long = `${'a.'.repeat(126)}example.com`
  const names = [
    'localhost',
    '127.0.0.1',
    '1.2.3.4',
    '*.example.com',
    'a_b.example.com',
    '-a.example.com',
    'a..example.com',
  ]
  for (const name of [...names, 'a.example.com.', '../x.example.com', '', '__proto__', long, 'other.example.com']) {
    assert.equal(await acme.contextFor(name), undefined, name)
    acme.want(name)
  }
  assert.deepEqual([asked, events], [[], []])
})

test('a name that the CA refuses is tried again after a minute, then two, up to a day, also after a restart', async (t) => {
  const { open, asked, events, clock } = await bench(t, (_, response) =>
    refuse(response, 'rejectedIdentifier', 'bad\u001b[31m\nword'),
  )
  let acme = await open()
  for (const minutes of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]) {
    assert.equal(await acme.contextFor('a.example.com'), undefined)
    const event = events.at(-1)
    assert.equal(pauseOf(event, clock), minutes * MINUTE)
    const before = asked.length
    clock.time += minutes * MINUTE - 1
    await acme.close()
    acme = await open()
    assert.equal(await acme.contextFor('a.example.com'), undefined)
    assert.equal(asked.length, before, 'not before that')
    clock.time += 1
  }
  const [first] = events
  assert.ok(first?.type === 'failed')
  assert.equal(first.reason.code, 'PROXY_ERR_ACME')
  assert.equal(first.reason.message, 'the CA gives no certificate for a.example.com (the CA says: bad [31m word)')
  assert.equal(asked.filter((path) => path === '/newAccount').length, 1, 'the account is kept')
  assert.equal(acme.promises('a.example.com'), false)
  assert.equal(acme.promises('b.example.com'), true)
})

test('a CA that says how long to wait is believed, up to a day', async (t) => {
  const after = ['7200', '99999999']
  const { open, events, clock, asked } = await bench(t, (_, response) =>
    refuse(response, 'rateLimited', 'too many', { 'retry-after': after.shift() ?? '' }),
  )
  const acme = await open()
  await acme.contextFor('a.example.com')
  assert.equal(pauseOf(events[0], clock), 2 * HOUR)
  clock.time += 2 * HOUR - 1
  await acme.contextFor('b.example.com')
  assert.equal(asked.filter((path) => path === '/newOrder').length, 1, 'for no name: it does not say for which')
  clock.time += 1
  await acme.contextFor('a.example.com')
  assert.equal(events.length, 1, 'others go first')
  await acme.contextFor('b.example.com')
  assert.equal(pauseOf(events[1], clock), 24 * HOUR)
})

test('what is wrong with the account is told to all orders that wait for it, and is the fault of none', async (t) => {
  const problems: [string, RegExp, number][] = [
    ['invalidContact', /^the CA does not take the address of --acme-email/, MINUTE],
    ['unauthorized', /^the CA does not accept the account \(the CA says: no\)/, 2 * MINUTE],
    ['malformed', /^the CA does not accept the account/, 4 * MINUTE],
    ['rateLimited', /^the CA's limit is reached/, 2 * HOUR],
  ]
  let kind = ''
  const { open, events, clock } = await bench(
    t,
    () => {},
    (_, response) => refuse(response, kind, 'no', kind === 'rateLimited' ? { 'retry-after': '7200' } : {}),
  )
  const acme = await open()
  for (const [next, message, pause] of problems) {
    kind = next
    events.length = 0
    await Promise.all(['a.example.com', 'b.example.com'].map((name) => acme.contextFor(name)))
    const reasons = events.map((event) => (event.type === 'failed' ? event.reason.message : ''))
    assert.equal(reasons.length, 2)
    for (const reason of reasons) assert.match(reason, message)
    assert.equal(pauseOf(events[0], clock), pause)
    clock.time += pause
  }
})

test('an account whose key is lost is made anew, as is one that the CA does not accept', async (t) => {
  const kinds = ['caa', 'caa', 'unauthorized', 'caa']
  const { open, asked, clock, folder } = await bench(t, (_, response) => refuse(response, kinds.shift() ?? '', ''))
  const accounts = (): number => asked.filter((path) => path === '/newAccount').length
  await (await open()).contextFor('a.example.com')
  const [own = ''] = await readdir(folder.path)
  await rm(join(folder.path, own, 'account-key.pem'))
  const acme = await open()
  await acme.contextFor('b.example.com')
  assert.equal(accounts(), 2)
  await acme.contextFor('c.example.com')
  assert.equal(accounts(), 2, 'it is kept')
  clock.time += MINUTE
  await acme.contextFor('d.example.com')
  assert.equal(accounts(), 3)
})

test('a CA that cannot be asked is left alone for all names, and none of them is blamed', async (t) => {
  const { open, asked, events, clock } = await bench(t, (_, response) => response.destroy())
  const acme = await open()
  for (const minutes of [1, 2, 4, 8, 16, 32, 60, 60]) {
    await acme.contextFor('a.example.com')
    assert.equal(pauseOf(events.at(-1), clock), minutes * MINUTE)
    const before = asked.length
    assert.equal(await acme.contextFor('b.example.com'), undefined)
    assert.equal(asked.length, before)
    clock.time += minutes * MINUTE
  }
  const [first] = events
  assert.match(first?.type === 'failed' ? first.reason.message : '', /^the CA cannot be asked: 127\.0\.0\.1:\d+ closed/)
})

test('what is no directory is told as such: another page, a redirect, too much, somebody else', async (t) => {
  const answers: [Answer, RegExp][] = [
    [(_, response) => response.end('<html>'), /^what the CA answers is not understood: is --acme-directory/],
    [(_, response) => response.writeHead(302, { location: 'https://127.0.0.1:1/' }).end(), /is not understood/],
    [(_, response) => response.end('x'.repeat(300_000)), /the answer of 127\.0\.0\.1:\d+ is too long/],
    [(_, response) => response.writeHead(500).end('{"type":7}'), /the CA has a problem/],
  ]
  const { cert, key } = await authority
  let current: Answer = () => {}
  const port = await serveWeb(t, {
    tls: { cert, key },
    onRequest: (request, response) => current('', response, request),
  })
  const { open, events, clock } = await bench(t, () => {})
  const acme = await open({ directory: `https://127.0.0.1:${port}/dir` })
  for (const [answer, message] of answers) {
    current = answer
    await acme.contextFor('a.example.com')
    const event = events.at(-1)
    assert.match(event?.type === 'failed' ? event.reason.message : '', message)
    clock.time += HOUR
  }
  const stranger = await open({ directory: `https://127.0.0.1:${port}/dir2`, verify: { by: 'system' } })
  await stranger.contextFor('a.example.com')
  const event = events.at(-1)
  assert.match(event?.type === 'failed' ? event.reason.message : '', /^the CA cannot be asked: .*certificate/)
})

test('whoever waits does so for a while, few at a time, and the end gives up what is under way', async (t) => {
  const { open, asked, events } = await bench(t, () => {})
  const acme = await open({ patience: 300, mostWaiting: 1 })
  const started = performance.now()
  const first = acme.contextFor('a.example.com').then(() => performance.now() - started)
  await turn()
  assert.equal(await acme.contextFor('a.example.com'), undefined)
  assert.ok(performance.now() - started < 250, 'the second does not wait')
  assert.ok((await first) >= 290)
  await acme.close()
  assert.deepEqual([asked.filter((path) => path === '/newOrder').length, events.length], [1, 0])
})

test('a server that dies while it orders does not order at once when it starts again', async (t) => {
  const { open, asked, clock } = await bench(t, () => {})
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  const dying = await open({ patience: 300 })
  await dying.contextFor('a.example.com')
  assert.equal(orders(), 1)
  const next = await open({ patience: 300 })
  assert.equal(await next.contextFor('a.example.com'), undefined)
  assert.equal(orders(), 1)
  clock.time += MINUTE
  assert.equal(await next.contextFor('a.example.com'), undefined)
  assert.equal(orders(), 2)
})

test('orders are limited by the hour, and so many at once', async (t) => {
  const { open, asked, events, clock } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  const acme = await open({ perHour: 3, atOnce: 2 })
  const names = ['a', 'b', 'c', 'd'].map((label) => `${label}.example.com`)
  await Promise.all(names.map((name) => acme.contextFor(name)))
  assert.equal(asked.filter((path) => path === '/newOrder').length, 3)
  const limited = events.filter(({ type }) => type === 'limited')
  assert.equal(limited.length, 1, 'told once')
  assert.equal(pauseOf(limited[0], clock), HOUR)
  clock.time += HOUR
  await acme.contextFor('d.example.com')
  assert.equal(asked.filter((path) => path === '/newOrder').length, 4)
})

test('names without a certificate leave a quarter of the orders to renewals and the name of the server', async (t) => {
  const { open, folder, asked, clock, next } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  clock.time = Date.now()
  await (await open()).contextFor('none.example.com')
  const [own = ''] = await readdir(folder.path)
  const { cert, key } = await Identity.make('leaf', { names: ['old.example.com'], to: 60 })
  await writeFile(join(folder.path, own, 'cert-old.example.com.pem'), key + cert)
  clock.time += 45 * 24 * HOUR
  const acme = await open({ perHour: 8, own: 'example.com' })
  for (const label of ['a', 'b', 'c', 'd', 'e', 'f', 'g']) await acme.contextFor(`${label}.example.com`)
  assert.deepEqual([orders(), acme.promises('h.example.com')], [1 + 6, false])
  assert.deepEqual([acme.promises('example.com'), acme.promises('old.example.com')], [true, true])
  await acme.contextFor('example.com')
  assert.equal(orders(), 1 + 7)
  const renewed = next()
  acme.want('old.example.com')
  await renewed
  assert.equal(orders(), 1 + 8)
})

test('a name is promised while its first order is under way, and not when that has failed', async (t) => {
  let refuseNow = (): void => {}
  const { open, next } = await bench(t, (_, response) => {
    refuseNow = () => refuse(response, 'caa', '')
    reached()
  })
  let reached = (): void => {}
  const underWay = new Promise<void>((resolve) => {
    reached = resolve
  })
  const acme = await open({ perHour: 1 })
  acme.want('a.example.com')
  await underWay
  assert.deepEqual([acme.promises('a.example.com'), acme.promises('b.example.com')], [true, false])
  const failed = next()
  refuseNow()
  await failed
  await turn()
  assert.equal(acme.promises('a.example.com'), false)
})

test('those who wait for one name leave places to those who wait for others', async (t) => {
  const { open } = await bench(t, () => {})
  const acme = await open({ patience: 5000, mostWaiting: 4 })
  const first = acme.contextFor('a.example.com')
  await turn()
  assert.equal(await acme.contextFor('a.example.com'), undefined, 'at once')
  let isDone = false
  const other = acme.contextFor('b.example.com').then(() => {
    isDone = true
  })
  await turn()
  assert.equal(await acme.contextFor('b.example.com'), undefined)
  assert.equal(isDone, false, 'it waits')
  await acme.close()
  await Promise.all([first, other])
})

test('a certificate that is kept is used without asking; one that is damaged, or of another name, is not', async (t) => {
  const { open, folder, asked, clock } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  clock.time = Date.now()
  await (await open()).contextFor('none.example.com')
  const [own = ''] = await readdir(folder.path)
  const { cert, key } = await Identity.make('leaf', { names: ['a.example.com'], to: 60 })
  for (const name of ['a', 'b']) await writeFile(join(folder.path, own, `cert-${name}.example.com.pem`), key + cert)
  await writeFile(join(folder.path, own, 'cert-c.example.com.pem'), key.slice(0, 200))
  const acme = await open()
  assert.deepEqual(
    acme.list().flatMap(({ name, ends }) => (ends ? [name] : [])),
    ['a.example.com'],
  )
  const before = asked.length
  assert.ok(await acme.contextFor('a.example.com'))
  assert.equal(asked.length, before)
  assert.equal(acme.promises('a.example.com'), true)
  const left = (await readdir(join(folder.path, own))).filter((file) => file.startsWith('cert-'))
  assert.deepEqual(left, ['cert-a.example.com.pem'])
})

test('a certificate that cannot be read for a while is neither deleted nor forgotten', async (t) => {
  const { open, folder, asked, clock } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  clock.time = Date.now()
  await (await open()).contextFor('none.example.com')
  const [own = ''] = await readdir(folder.path)
  const file = join(folder.path, own, 'cert-a.example.com.pem')
  const { cert, key } = await Identity.make('leaf', { names: ['a.example.com'], to: 60 })
  await writeFile(file, key + cert)
  const names = (acme: Acme): string[] => acme.list().flatMap(({ name, ends }) => (ends ? [name] : []))
  /** A folder in its place is an error of reading that also root gets. */
  const hide = (): Promise<unknown> => rename(file, `${file}.kept`).then(() => mkdir(file))
  const show = (): Promise<unknown> => rm(file, { recursive: true }).then(() => rename(`${file}.kept`, file))
  await hide()
  assert.deepEqual(names(await open()), [], 'a start takes up what it can read')
  await show()
  const acme = await open()
  await hide()
  const before = asked.length
  assert.equal(await acme.contextFor('a.example.com'), undefined)
  await show()
  assert.ok(await acme.contextFor('a.example.com'))
  assert.deepEqual([names(acme), asked.length], [['a.example.com'], before])
})

test('what cannot be written is not held to be kept either', async (t) => {
  const { folder } = await bench(t, () => {})
  const store = await AcmeStore.open(folder, 'https://ca.example.com/dir')
  const trouble = { tries: 1, again: 5 }
  await store.change(1, { name: 'a.example.com', trouble })
  const aside = `${folder.path}-aside`
  t.after(() => rm(aside, { recursive: true, force: true }))
  await rename(folder.path, aside)
  await writeFile(folder.path, '')
  await assert.rejects(store.change(1, { name: 'b.example.com', trouble }), { code: 'PROXY_ERR_STATE' })
  await assert.rejects(store.forgive(1), { code: 'PROXY_ERR_STATE' })
  assert.deepEqual([...store.names], [{ name: 'a.example.com', trouble }])
  assert.deepEqual(store.nameOf('b.example.com'), { name: 'b.example.com' })
  await rm(folder.path)
  await rename(aside, folder.path)
  await store.change(1, { name: 'c.example.com', trouble })
  const again = await AcmeStore.open(folder, 'https://ca.example.com/dir')
  assert.deepEqual([...again.names], [...store.names])
})

test('each problem of RFC 8555 says what to do, in words', () => {
  const urn = (kind: string): { type: string } => ({ type: `urn:ietf:params:acme:error:${kind}` })
  assert.match(explain(urn('dns'), 'x.example.com').message, /add an A or AAAA record/)
  assert.match(explain(urn('connection'), 'x.example.com').message, /port 443 or 80/)
  assert.match(explain(urn('unauthorized'), 'x.example.com').message, /something else answers/)
  assert.equal(explain(urn('invalidContact'), '').scope, 'ca')
  assert.equal(explain(urn('toString'), '').scope, 'ca')
  assert.ok(explain({ detail: 'x'.repeat(10_000) }, '') instanceof AcmeFailure)
  assert.ok(explain({ detail: 'x'.repeat(10_000) }, '').message.length < 400)
  assert.equal(readRetryAfter('120', 0), 120_000)
  assert.equal(readRetryAfter(new Date(5000).toUTCString(), 1000), 4000)
  assert.equal(readRetryAfter('soon', 0), undefined)
  assert.equal(readRetryAfter('-5', 0), undefined)
})

test('a CA that does not come to look in time is asked to look in the other way', async (t) => {
  const taken: string[] = []
  const { folder, directory } = await bench(t, (path, response) => {
    const { port } = new URL(`http://${response.req.headers.host}`)
    const url = (name: string): string => `https://127.0.0.1:${port}/${name}`
    const challenges = ['tls-alpn-01', 'http-01'].map((type) => ({
      type,
      url: url(type),
      token: 'abc',
      status: 'pending',
    }))
    if (path === '/newOrder') {
      response.writeHead(201, { location: url('order') })
      response.end(JSON.stringify({ status: 'pending', authorizations: [url('authz')], finalize: url('finalize') }))
    } else if (path === '/authz') {
      const identifier = { type: 'dns', value: 'a.example.com' }
      response.end(JSON.stringify({ status: 'pending', identifier, challenges }))
    } else {
      taken.push(path)
      response.end(JSON.stringify({ type: path.slice(1), url: url(path.slice(1)), token: 'abc', status: 'pending' }))
    }
  })
  const { cert } = await authority
  const orders = new AcmeOrders({
    ...{ directory, email: 'a@example.com', verify: { by: 'ca', pem: cert }, folder },
    ...{ challenges: new Challenges(), account: () => undefined, keepAccount: async () => {}, onTerms() {} },
    ...{ signal: new AbortController().signal, patience: 1000 },
  })
  t.after(() => orders.close())
  const signal = AbortSignal.timeout(10_000)
  await assert.rejects(
    orders.order('a.example.com', ['tls-alpn-01', 'http-01'], { signal }),
    /has not looked at a.example/,
  )
  assert.deepEqual(taken, ['/tls-alpn-01', '/http-01'])
})

test('of too many that do as if they were a CA the oldest has to go, and never the newest', async (t) => {
  const route = acmeRoute({ forPath: () => undefined, forName: () => createSecureContext() })
  const sockets: Socket[] = []
  let more = (): void => {}
  const server = createServer((socket) => {
    t.after(() => socket.destroy())
    sockets.push(socket)
    assert.equal(route({ alpn: ['acme-tls/1'], serverName: 'a.example.com' }, socket), true)
    more()
  }).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const come = async (from: string): Promise<void> => {
    const here = new Promise<void>((resolve) => {
      more = resolve
    })
    const caller = connect({ port, host: '127.0.0.1', localAddress: from })
    caller.on('error', () => {})
    t.after(() => caller.destroy())
    await here
  }
  const gone = (): number[] => sockets.flatMap(({ destroyed }, i) => (destroyed ? [i] : []))
  for (const _ of Array(2)) await come('127.0.0.2')
  for (const _ of Array(16)) await come('127.0.0.1')
  assert.deepEqual(gone(), [])
  await come('127.0.0.1')
  assert.deepEqual(gone(), [2], 'of the same address first')
  for (let i = 0; i < 46; i++) await come(`127.0.1.${i + 1}`)
  assert.deepEqual(gone(), [2])
  await come('127.0.2.1')
  assert.deepEqual(gone(), [0, 2])
})

test('a CA that looks gets the answer at the very path and by GET; all else goes on', async (t) => {
  const passed: string[] = []
  const answers = {
    forPath: (path: string) => (path === '/known' ? 'the answer' : undefined),
    forName: () => undefined,
  }
  const port = await serveWeb(t, {
    onRequest: (request, response) =>
      acmeRequests(answers, ({ method, url }, response) => {
        passed.push(`${method} ${url}`)
        response.end('theirs')
      })(request, response, { remote: undefined, secure: false }),
  })
  const ask = async (path: string, method = 'GET'): Promise<string> =>
    (await fetch(`http://127.0.0.1:${port}${path}`, { method })).text()
  assert.equal(await ask('/known'), 'the answer')
  assert.equal(await ask('/known', 'HEAD'), '')
  assert.equal(await ask('/known', 'POST'), 'theirs')
  assert.equal(await ask('/known/x'), 'theirs')
  assert.deepEqual(passed, ['POST /known', 'GET /known/x'])
  assert.equal(isAcmeHello({ alpn: ['acme-tls/1'] }), true)
  assert.equal(isAcmeHello({ alpn: ['acme-tls/1', 'http/1.1'] }), false)
})

test('an operator who has put something right need not wait, but for the limits of the CA', async (t) => {
  const { open, asked, events } = await bench(t, (_, response) => refuse(response, 'dns', ''))
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  const acme = await open()
  await acme.contextFor('a.example.com')
  await acme.contextFor('a.example.com')
  assert.equal(orders(), 1)
  await acme.retry()
  await acme.contextFor('a.example.com')
  assert.equal(orders(), 2)
  assert.equal(events.length, 2)
})

test('what should be there and is not is told with the reason, also after a restart, until it is mended', async (t) => {
  const { open, clock } = await bench(t, (_, response) => refuse(response, 'caa', 'no'))
  clock.time = Date.now()
  const list = (acme: Acme): string => JSON.stringify(acme.list())
  let served = true
  const acme = await open({ isName: () => served })
  assert.equal(list(acme), '[]')
  await acme.contextFor('a.example.com')
  const told =
    '[{"name":"a.example.com","problem":"a CAA record in the DNS says that this CA may give no certificate for a.example.com (the CA says: no)"}]'
  assert.equal(list(acme), told)
  await acme.close()
  assert.equal(list(await open()), told)
  served = false
  assert.equal(list(acme), '[]', 'nobody has that name any more')
})

test('the name of the server is tried again by itself', async (t) => {
  const { open, asked, clock, next } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  let due: { readonly ms: number; readonly act: () => void } | undefined
  const own = 'example.com'
  const after = (ms: number, act: () => void) => {
    due = { ms, act }
    return () => {}
  }
  const acme = await open({ own, clock: { now: () => clock.time, after } })
  const [first, other] = [next(), 'a.example.com']
  acme.want(own)
  await first
  await acme.contextFor(other)
  await turn()
  assert.equal(orders(), 2)
  assert.equal(due?.ms, MINUTE)
  const second = next()
  clock.time += MINUTE
  due?.act()
  await second
  assert.equal(orders(), 3, 'the other one waits for somebody who asks for it')
})

test('names directly below a domain with a hook share one order, and a stranger costs nothing', async (t) => {
  const called: string[] = []
  const records = {
    present: async (name: string) => void called.push(`present ${name}`),
    cleanup: async (name: string) => void called.push(`cleanup ${name}`),
  }
  const { open, asked, events, folder } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  const acme = await open({
    dns: { domain: 'example.com', records, wait: 0 },
    isName: (name) => name === 'a.example.com' || name === 'x.a.example.com',
  })
  for (const name of ['a.example.com', 'example.com', 'nobody.example.com', '*.example.com']) {
    assert.equal(await acme.contextFor(name), undefined)
    assert.equal(acme.promises(name), false)
  }
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  assert.deepEqual([orders(), events.map((event) => 'name' in event && event.name)], [1, ['*.example.com']])
  for (const name of ['x.nobody.example.com', 'notexample.com', '.example.com', '*.x.com', 'a.example.com.']) {
    assert.equal(await acme.contextFor(name), undefined)
  }
  assert.equal(orders(), 1)
  await acme.contextFor('x.a.example.com')
  assert.equal(orders(), 2, 'deeper names have certificates of their own')
  assert.deepEqual(called, [], 'there was nothing to prove')

  const before = JSON.stringify(await readFile(join(folder.path, (await readdir(folder.path))[0] ?? '', 'state.json')))
  const started = performance.now()
  for (let i = 0; i < 10_000; i++) assert.equal(await acme.contextFor(`n${i}.nobody.example.com`), undefined)
  for (let i = 0; i < 10_000; i++) assert.equal(await acme.contextFor(`n${i}.example.com`), undefined)
  assert.ok(performance.now() - started < 5000, `${performance.now() - started} ms`)
  assert.equal(orders(), 2)
  assert.equal(acme.list().length, 2)
  const after = JSON.stringify(await readFile(join(folder.path, (await readdir(folder.path))[0] ?? '', 'state.json')))
  assert.equal(after, before, 'nothing of it is kept')
})

test('a name that goes and comes is not ordered again', async (t) => {
  const { open, asked, clock, folder } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  clock.time = Date.now()
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  let served = true
  const acme = await open({ isName: () => served })
  for (let i = 0; i < 20; i++) {
    served = !served
    await acme.contextFor('gone.example.com')
  }
  assert.equal(orders(), 1, 'one that has failed')
  await acme.close()
  const [own = ''] = await readdir(folder.path)
  const { cert, key } = await Identity.make('leaf', { names: ['kept.example.com'], to: 60 })
  await writeFile(join(folder.path, own, 'cert-kept.example.com.pem'), key + cert)
  const again = await open({ isName: () => served })
  for (let i = 0; i < 20; i++) {
    served = !served
    assert.ok(await again.contextFor('kept.example.com'), 'one that is kept, also while it is away')
  }
  assert.equal(orders(), 1)
})

test('a kept wildcard is for its domain and what is directly below; one from before does until there is one', async (t) => {
  const records = { async present() {}, async cleanup() {} }
  const { open, folder, clock, asked } = await bench(t, (_, response) => refuse(response, 'caa', ''))
  clock.time = Date.now()
  await (await open()).contextFor('none.example.com')
  const [own = ''] = await readdir(folder.path)
  const dns = { domain: 'example.com', records, wait: 0 }
  const keep = async (file: string, names: readonly string[]): Promise<void> => {
    const { cert, key } = await Identity.make('leaf', { names, to: 60 })
    await writeFile(join(folder.path, own, `cert-${file}.pem`), key + cert)
  }
  await keep('a.example.com', ['a.example.com'])
  const before = await open({ dns, patience: 0 })
  assert.ok(await before.contextFor('a.example.com'))
  assert.equal(await before.contextFor('b.example.com'), undefined)
  await before.close()

  // One that is not for the domain itself is no good.
  await keep('_.example.com', ['*.example.com'])
  await (await open({ dns })).close()
  assert.equal((await readdir(join(folder.path, own))).includes('cert-_.example.com.pem'), false)

  await keep('_.example.com', ['*.example.com', 'example.com'])
  const acme = await open({ dns })
  const { length } = asked
  for (const name of ['example.com', 'b.example.com']) {
    assert.ok(await acme.contextFor(name), name)
    assert.equal(acme.promises(name), true)
  }
  assert.equal(await acme.contextFor('b.c.example.com'), undefined)
  assert.deepEqual(
    acme.list().flatMap(({ name, ends }) => (ends ? [name] : [])),
    ['*.example.com', 'a.example.com'],
  )
  // Only that of the deeper name was ordered: nothing renews what another one is for.
  assert.equal(asked.slice(length).filter((path) => path === '/newOrder').length, 1)
  clock.time += 45 * 24 * HOUR
  acme.want('a.example.com')
  await acme.close()
  const kept = await open({ dns })
  assert.equal(JSON.stringify(kept.list()).includes('"name":"a.example.com","begins"'), true)
})

test('a pause from a clock that was wrong does not last', async (t) => {
  const { open, asked, clock } = await bench(t, (_, response) => refuse(response, 'dns', ''))
  const orders = (): number => asked.filter((path) => path === '/newOrder').length
  await (await open()).contextFor('a.example.com')
  clock.time -= 30 * 24 * HOUR
  await (await open()).contextFor('a.example.com')
  assert.equal(orders(), 2)
})

test('an account follows the address of --acme-email, and is made anew where the CA has lost it', async (t) => {
  const lost = ['accountDoesNotExist']
  const { open, asked, clock } = await bench(t, (path, response) => {
    if (path === '/account') response.end('{}')
    else refuse(response, lost.pop() ?? 'dns', '')
  })
  const count = (path: string): number => asked.filter((one) => one === path).length
  await (await open()).contextFor('a.example.com')
  assert.deepEqual([count('/newAccount'), count('/account'), count('/newOrder')], [1, 0, 1])
  clock.time += MINUTE
  const acme = await open({ email: 'b@example.com' })
  await acme.contextFor('a.example.com')
  assert.deepEqual([count('/newAccount'), count('/account')], [2, 0])
  await acme.close()
  clock.time += 2 * MINUTE
  await (await open({ email: 'c@example.com' })).contextFor('a.example.com')
  assert.deepEqual([count('/newAccount'), count('/account'), count('/newOrder')], [2, 1, 3])
})
