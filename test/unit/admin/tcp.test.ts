import assert from 'node:assert/strict'
import { setMaxListeners } from 'node:events'
import { chmodSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, test } from 'node:test'
import { isOwnHost } from '../../../lib/admin/hosts.ts'
import { Tries } from '../../../lib/admin/tries.ts'
import { codeOf, serveAdmin, temporaryFolder } from '../../helpers/admin/client.ts'
import { someMapping } from '../../helpers/admin/fake-operations.ts'

const TCP = { host: '127.0.0.1', port: 0 }
const STATUS = '/api/v1/status'

describe('the API over TCP', { concurrency: 4 }, () => {
  test('makes a token of 256 bits at the first start that only its owner reads, and keeps it', async (t) => {
    const folder = temporaryFolder(t)
    const first = await serveAdmin(t, { folder, tcp: TCP })
    const token = (await folder.read('admin-token'))?.text ?? ''
    assert.match(token, /^[\w-]{43}\n$/)
    assert.equal(statSync(folder.file('admin-token')).mode & 0o777, 0o600)
    await first.admin.close()
    const second = await serveAdmin(t, { folder, tcp: TCP })
    assert.equal((await folder.read('admin-token'))?.text, token)
    assert.equal((await second.askTcp('GET', STATUS)).status, 200)
  })

  test('a token file without a token is an error, and nothing listens', async (t) => {
    const folder = temporaryFolder(t)
    await folder.write('admin-token', 'short\n')
    await assert.rejects(serveAdmin(t, { folder, tcp: TCP }), { code: 'PROXY_ERR_STATE', message: /admin-token/ })
    await assert.doesNotReject(serveAdmin(t, { folder }), 'the socket of the one that failed is gone')
  })

  test('everything but healthz and readyz needs the token, also what is not there', async (t) => {
    const { askTcp, admin } = await serveAdmin(t, { tcp: TCP })
    const without = { headers: {} }
    for (const path of [STATUS, '/metrics', '/api/v1/openapi.json', '/api/v1/events', '/nowhere', '/', '//healthz']) {
      const answer = await askTcp('GET', path, without)
      assert.deepEqual([answer.status, codeOf(answer)], [401, 'PROXY_ERR_UNAUTHORIZED'], path)
      assert.match(String(answer.headers['www-authenticate']), /^Bearer/)
    }
    assert.equal((await askTcp('POST', '/healthz', without)).status, 401)
    assert.equal((await askTcp('GET', '/healthz', without)).status, 200)
    assert.equal((await askTcp('GET', '/readyz', without)).status, 200)
    assert.equal((await askTcp('GET', '/metrics')).status, 200)
    assert.match(String(admin.address), /^127\.0\.0\.1:\d+$/)
  })

  test('whoever has no token reads that something failed, and not what', async (t) => {
    const { askTcp, operations } = await serveAdmin(t, { tcp: TCP })
    operations.mappingList.push(someMapping('2', { state: 'failed', problem: '10.1.2.3 in use', source: 'config' }))
    const answer = await askTcp('GET', '/readyz', { headers: {} })
    assert.deepEqual(
      [answer.status, answer.json],
      [503, { ready: false, reason: '1 mapping of the configuration failed' }],
    )
    assert.match((await askTcp('GET', '/readyz')).text, /10\.1\.2\.3/)
  })

  test('a wrong token is refused later and later, and the right one is not kept waiting', async (t) => {
    const { askTcp } = await serveAdmin(t, { tcp: TCP })
    await askTcp('GET', STATUS)
    for (const authorization of ['Bearer', 'Bearer ', 'Basic eDp5', 'Bearer a b', 'nonsense']) {
      assert.equal((await askTcp('GET', STATUS, { headers: { authorization } })).status, 401, authorization)
    }
    const wrong = { headers: { authorization: `Bearer ${'A'.repeat(43)}` } }
    const started = performance.now()
    assert.equal((await askTcp('GET', STATUS, wrong)).status, 401)
    assert.ok(performance.now() - started > 200, 'the first one waits')
    const tries = Array.from({ length: 12 }, () => askTcp('GET', STATUS, wrong))
    const right = performance.now()
    assert.equal((await askTcp('GET', STATUS)).status, 200)
    assert.ok(performance.now() - right < 400, 'others at this address do not lock the operator out')
    const limited = (await Promise.all(tries.slice(8))).filter(({ status }) => status === 429)
    assert.ok(limited.length > 0)
    assert.equal(codeOf(limited[0] ?? (await askTcp('GET', STATUS))), 'PROXY_ERR_TOO_MANY_FAILURES')
  })

  test('a request for another host is refused, whatever token it has', async (t) => {
    const { askTcp, folder, admin } = await serveAdmin(t, { tcp: TCP })
    const authorization = `Bearer ${(await folder.read('admin-token'))?.text.trim()}`
    const port = String(admin.address).split(':')[1]
    for (const host of [
      'evil.example.com',
      `evil.example.com:${port}`,
      '192.0.2.1',
      'localhost.evil.com',
      'a@localhost',
    ]) {
      const answer = await askTcp('GET', STATUS, { headers: { authorization, host } })
      assert.deepEqual([answer.status, codeOf(answer)], [403, 'PROXY_ERR_HOST'], host)
      assert.equal((await askTcp('GET', '/healthz', { headers: { host } })).status, 403)
    }
    for (const host of ['localhost', `LOCALHOST:${port}`, '127.0.0.1', `[::1]:${port}`]) {
      assert.equal((await askTcp('GET', STATUS, { headers: { authorization, host } })).status, 200, host)
    }
    const socket = connect(Number(port), '127.0.0.1')
    socket.end(`GET ${STATUS} HTTP/1.0\r\nAuthorization: ${authorization}\r\n\r\n`)
    assert.match(await text(socket), /^HTTP\/1\.1 403 /)
  })

  test('no other site may ask, or read an answer', async (t) => {
    const { askTcp } = await serveAdmin(t, { tcp: TCP })
    const headers = { origin: 'https://evil.example.com', 'access-control-request-method': 'GET' }
    for (const method of ['OPTIONS', 'GET']) {
      const answer = await askTcp(method, '/healthz', { headers })
      const cors = Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))
      assert.deepEqual(cors, [])
    }
    assert.equal((await askTcp('OPTIONS', STATUS, { headers })).status, 401)
  })

  test('beyond loopback it warns that there is no TLS; on loopback it does not', async (t) => {
    const loopback = await serveAdmin(t, { tcp: TCP })
    assert.deepEqual(loopback.warnings, [])
    const all = await serveAdmin(t, { tcp: { host: '0.0.0.0', port: 0 } })
    assert.equal(all.warnings.length, 1)
    assert.match(all.warnings[0] ?? '', /without TLS/)
  })

  test('a port that is taken is an error in plain words', async (t) => {
    const { admin } = await serveAdmin(t, { tcp: TCP })
    const port = Number(String(admin.address).split(':')[1])
    await assert.rejects(serveAdmin(t, { tcp: { host: '127.0.0.1', port } }), {
      code: 'PROXY_ERR_LISTEN_FAILED',
      message: `cannot listen on 127.0.0.1:${port} for --admin: the address is in use already`,
    })
  })

  test('a token that others could read is private from now on, with a warning', async (t) => {
    const folder = temporaryFolder(t)
    await folder.write('admin-token', `${'t'.repeat(43)}\n`)
    chmodSync(folder.file('admin-token'), 0o644)
    const { warnings } = await serveAdmin(t, { folder, tcp: TCP })
    assert.match(warnings.join(), /could read the token/)
    assert.equal(statSync(folder.file('admin-token')).mode & 0o777, 0o600)
  })
})

describe('wrong tokens', () => {
  test('10,000 at once cost a bounded number of waits, and as many addresses a bounded table', async () => {
    const stop = new AbortController()
    setMaxListeners(0, stop.signal)
    const tries = new Tries()
    const answers = Array.from({ length: 10_000 }, () => tries.failed('127.0.0.1', stop.signal))
    // Those beyond the first eight are answered at once.
    assert.equal((await Promise.all(answers.slice(8))).filter((waited) => waited).length, 0)
    assert.equal(tries.size, 1)
    for (let i = 0; i < 12_000; i++) void tries.failed(`10.0.${i >> 8}.${i & 255}`, stop.signal)
    assert.equal(tries.size, 10_000)
    for (let i = 0; i < 1000; i++) void tries.failed(`2001:db8::${i.toString(16)}`, stop.signal)
    assert.equal(tries.size, 10_000)
    stop.abort()
    assert.deepEqual(
      await Promise.all(answers.slice(0, 8)),
      Array.from({ length: 8 }, () => true),
    )
  })

  test('wait twice as long each time, up to 4 s, and are forgotten after ten minutes', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let now = 0
    const tries = new Tries({ now: () => now })
    const { signal } = new AbortController()
    const delays: number[] = []
    const once = async (): Promise<void> => {
      let done = false
      const answer = tries.failed('192.0.2.1', signal).then(() => {
        done = true
      })
      let waited = 0
      for (; !done && waited < 10_000; waited += 250) {
        t.mock.timers.tick(250)
        await Promise.resolve()
        await Promise.resolve()
      }
      await answer
      delays.push(waited)
    }
    for (let i = 0; i < 6; i++) await once()
    now = 600_001
    await once()
    assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 4000, 250])
  })
})

test('a Host header is one of this server or not', () => {
  for (const [header, bound] of [
    ['localhost:1', '127.0.0.1'],
    ['127.8.8.8', '192.0.2.1'],
    ['192.0.2.1:80', '192.0.2.1'],
    ['[2001:DB8::1]:80', '2001:db8:0::1'],
    ['admin.example.com:80', 'admin.example.com'],
    ['203.0.113.9:80', '0.0.0.0'],
  ] as const) {
    assert.ok(isOwnHost(header, bound), `${header} at ${bound}`)
  }
  for (const [header, bound] of [
    [undefined, '127.0.0.1'],
    ['', '127.0.0.1'],
    ['example.com', '0.0.0.0'],
    ['192.0.2.2', '192.0.2.1'],
    ['192.0.2.1.example.com', '192.0.2.1'],
    ['localhost:port', '127.0.0.1'],
    ['[::1', '127.0.0.1'],
    ['0x7f000001', '127.0.0.1'],
    ['127.1', '127.0.0.1'],
  ] as const) {
    assert.ok(!isOwnHost(header, bound), `${header} at ${bound}`)
  }
})
