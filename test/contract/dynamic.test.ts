import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SocksClient } from 'socks'
import { ProxyError } from '../../lib/core/index.ts'
import { mixed } from '../../lib/domains/mixed.ts'
import { socks5 } from '../../lib/domains/socks5.ts'
import { datagramEcho, datagramServer, visitor } from '../helpers/contract/datagrams.ts'
import {
  clientOf,
  dynamicStage,
  read,
  readToClose,
  socksAddress,
  socksAsk,
  socksRequest,
} from '../helpers/contract/dynamic.ts'
import { echo, pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { connectPair, MEMORY } from '../helpers/contract/proxies.ts'
import { eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'

const CONNECT = 1
const BIND = 2
const ASSOCIATE = 3
const SUCCEEDED = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]
const refusal = (reply: number): number[] => [5, reply, 0, 1, 0, 0, 0, 0, 0, 0]

watchForStrays()

async function passwordFile(text: string) {
  const folder = await mkdtemp(join(tmpdir(), 'symport-'))
  const path = join(folder, 'password')
  await writeFile(path, text, { mode: 0o600 })
  return {
    path,
    query: `?user=someone&password_file=${path}`,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}

for (const domain of ['socks5', 'mixed'] as const) {
  test(`${domain}: an independent client gets through, by address and by name, with half-close`, async () => {
    await using target = await echo()
    await using stage = await dynamicStage(domain)
    for (const host of ['127.0.0.1', 'localhost']) {
      const { socket } = await SocksClient.createConnection({
        proxy: { host: '127.0.0.1', port: stage.port, type: 5 },
        command: 'connect',
        destination: { host, port: target.port },
      })
      const data = pattern(3_000_000)
      const got = readAll(socket)
      socket.end(data)
      assert.equal(sha256(await got), sha256(data))
    }
    // A name travels as it is: the exit looks it up.
    assert.deepEqual(
      new Set(stage.asked),
      new Set([`tcp://127.0.0.1:${target.port}`, `tcp://localhost:${target.port}`]),
    )
    await nothingLeft(stage.near, stage.exit)
  })
}

test('IPv6 targets, and a proxy on all interfaces', async (t) => {
  const target = await echo('::1').catch(() => undefined)
  if (!target) return t.skip('no IPv6 here')
  await using _ = target
  await using stage = await dynamicStage('socks5', { bind: '' })
  const { socket } = await SocksClient.createConnection({
    proxy: { host: '127.0.0.1', port: stage.port, type: 5 },
    command: 'connect',
    destination: { host: '::1', port: target.port },
  })
  socket.end('six')
  assert.equal((await readAll(socket)).toString(), 'six')
  assert.deepEqual(stage.asked, [`tcp://[::1]:${target.port}`])
})

test('what is sent before there is an answer is not lost, however it is cut', async () => {
  await using target = await echo()
  await using stage = await dynamicStage('socks5')
  const data = pattern(200_000)
  const said = Buffer.concat([Buffer.from([5, 1, 0]), socksRequest(CONNECT, '127.0.0.1', target.port), data])
  for (const cut of [said.length, 100, 14]) {
    const socket = await stage.client()
    const got = readAll(socket)
    for (let at = 0; at < cut && cut <= 100; at++) socket.write(said.subarray(at, at + 1))
    socket.end(cut <= 100 ? said.subarray(cut) : said)
    const answer = await soon(got, 'the echo')
    assert.deepEqual([...answer.subarray(0, 12)], [5, 0, ...SUCCEEDED])
    assert.equal(sha256(answer.subarray(12)), sha256(data), `cut at ${cut}`)
  }
})

test('the other side hears who came in', async () => {
  await using target = await echo()
  await using stage = await dynamicStage('socks5')
  const opened = once(stage.exit, 'open')
  const socket = await stage.client()
  assert.deepEqual([...(await socksAsk(socket, socksRequest(CONNECT, '127.0.0.1', target.port)))], SUCCEEDED)
  const [sub] = await opened
  assert.equal(sub.remote, `127.0.0.1:${socket.localPort}`)
  socket.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('what cannot be done is told as a reply, and the connection is closed', async () => {
  await using target = await echo()
  await using closed = await program()
  await closed[Symbol.asyncDispose]()
  await using stage = await dynamicStage('socks5')
  stage.denied.add(`127.0.0.1:${target.port}`)
  const cases: [string, Buffer, number][] = [
    ['denied by the exit', socksRequest(CONNECT, '127.0.0.1', target.port), 2],
    ['nothing listens there', socksRequest(CONNECT, '127.0.0.1', closed.port), 5],
    ['BIND', socksRequest(BIND, '127.0.0.1', target.port), 7],
    ['a command of nobody', socksRequest(9, '127.0.0.1', target.port), 7],
    ['port 0', socksRequest(CONNECT, '127.0.0.1', 0), 1],
    ['an empty name', socksRequest(CONNECT, '', 80), 1],
    ['a name with a line break', socksRequest(CONNECT, 'a\r\nb', 80), 1],
    ['a name that is not ASCII', socksRequest(CONNECT, 'caf\xe9', 80), 1],
    ['a label that is too long', socksRequest(CONNECT, `${'a'.repeat(64)}.test`, 80), 1],
    ['a zone', socksRequest(CONNECT, 'fe80::1%eth0', 80), 1],
    ['an unknown type of address', Buffer.from([5, 1, 0, 2, 1, 1, 1, 1, 0, 80]), 8],
    ['another version', Buffer.from([4, 1, 0, 1, 127, 0, 0, 1, 0, 80]), 1],
  ]
  for (const [what, request, reply] of cases) {
    const socket = await stage.client()
    assert.deepEqual([...(await soon(socksAsk(socket, request), what))], refusal(reply), what)
    assert.equal((await soon(readToClose(socket), what)).length, 0, what)
  }
  await nothingLeft(stage.near, stage.exit)
})

test('a name that is an IPv6 address is one', async () => {
  await using closed = await program()
  await closed[Symbol.asyncDispose]()
  await using stage = await dynamicStage('socks5')
  stage.denied.add('[2001:db8::1]:80')
  const socket = await stage.client()
  assert.deepEqual([...(await socksAsk(socket, socksRequest(CONNECT, '2001:db8::1', 80)))], refusal(2))
  assert.deepEqual(stage.asked, ['tcp://[2001:db8::1]:80'])
})

test('without anybody at the other side the reply says so', async () => {
  for (const [code, reply] of [
    ['PROXY_ERR_NO_PEER', 3],
    ['PROXY_ERR_OPEN_TIMEOUT', 4],
    ['PROXY_ERR_RESET', 1],
  ] as const) {
    const open = async (): Promise<never> => {
      throw new ProxyError(code, 'nobody is there')
    }
    const at = { Domain: 'socks5', Addr: '127.0.0.1:0' }
    const listener = await socks5().listen?.(at, { signal: new AbortController().signal, open })
    assert.ok(listener)
    await using _ = listener
    const socket = await clientOf(Number(listener.bound.Addr.split(':')[1]))
    assert.deepEqual([...(await socksAsk(socket, socksRequest(CONNECT, '127.0.0.1', 80)))], refusal(reply))
    socket.destroy()
  }
})

test('who speaks another protocol is refused in its own words, as far as it has any', async () => {
  const socks4 = Buffer.from([4, 1, 0, 80, 127, 0, 0, 1, 0])
  const refused4 = /^005b0{12}$/
  const noMethod = /^05ff$/
  const notHttp = /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*\r\n\r\nThis is a SOCKS5 proxy, not an HTTP proxy\.\n$/
  const noise = [0, 6, 0x16, 0x20, 0x40, 0x5b, 0x7b, 0x80, 0xff].map((first) => Buffer.of(first, 1, 0))
  const cases = {
    socks5: [
      [socks4, refused4],
      [Buffer.of(4), refused4],
      [Buffer.from('GET / HTTP/1.1\r\n\r\n'), notHttp],
      [Buffer.from('CONNECT target.test:80 HTTP/1.1\r\n\r\n'), notHttp],
      ...noise.map((bytes) => [bytes, noMethod] as const),
    ],
    mixed: [[socks4, refused4], ...noise.map((bytes) => [bytes, /^$/] as const)],
    http: [
      [socks4, refused4],
      [Buffer.from([5, 1, 0]), noMethod],
      ...noise.map((bytes) => [bytes, /^HTTP\/1\.1 400 Bad Request\r\n/] as const),
    ],
  } as const
  for (const domain of ['socks5', 'mixed', 'http'] as const) {
    await using stage = await dynamicStage(domain)
    for (const [said, expected] of cases[domain]) {
      const socket = await stage.client()
      socket.write(said)
      const got = await soon(readToClose(socket), `${domain} ${said[0]}`)
      assert.match(got.toString(got[0] === 0x48 ? 'latin1' : 'hex'), expected, `${domain} ${said.toString('latin1')}`)
    }
    assert.deepEqual(stage.asked, [])
  }
})

test('with a password only its user gets in, and the file may change meanwhile', async () => {
  await using target = await echo()
  await using file = await passwordFile('open sesame\n')
  const warnings: string[] = []
  const onWarning = (text: string): void => void warnings.push(text)
  await using stage = await dynamicStage('socks5', { query: file.query, onWarning })
  const ask = (userId: string, password: string): Promise<unknown> =>
    SocksClient.createConnection({
      proxy: { host: '127.0.0.1', port: stage.port, type: 5, userId, password },
      command: 'connect',
      destination: { host: '127.0.0.1', port: target.port },
    }).then(({ socket }) => socket.destroy())
  await ask('someone', 'open sesame')
  await assert.rejects(ask('someone', 'open sesam'))
  await assert.rejects(ask('someone', 'open sesame\n'))
  await assert.rejects(ask('someonE', 'open sesame'))
  await writeFile(file.path, 'another\r\n')
  await assert.rejects(ask('someone', 'open sesame'))
  await ask('someone', 'another')
  assert.deepEqual(warnings, [])
  await writeFile(file.path, '')
  await assert.rejects(ask('someone', 'another'))
  await assert.rejects(ask('someone', ''))
  assert.equal(warnings.length, 1, 'not one for each try')
  assert.match(warnings[0] ?? '', /^password_file ".*": it is empty$/)

  // Who offers no password is told that there is no way.
  const socket = await stage.client()
  socket.write(Buffer.from([5, 1, 0]))
  assert.deepEqual([...(await soon(readToClose(socket), 'no method'))], [5, 0xff])
  const wrong = await stage.client()
  wrong.write(Buffer.from([5, 2, 0, 2, 9, 1, 65, 1, 65]))
  assert.deepEqual([...(await soon(readToClose(wrong), 'another version'))], [5, 2, 1, 1])
  assert.equal(stage.asked.filter((to) => to !== `tcp://127.0.0.1:${target.port}`).length, 0)
})

test('a password file that cannot be used is an error when listening', async () => {
  await using file = await passwordFile('x'.repeat(256))
  for (const [query, why] of [
    [file.query, /it is longer than 255 bytes/],
    ['?user=a&password_file=/nowhere/at/all', /password_file "\/nowhere\/at\/all": it does not exist/],
    [`?user=a&password_file=${tmpdir()}`, /it is no file|it is a folder/],
    ['?user=a&password_file=/dev/zero', /it is no file/],
  ] as const) {
    await assert.rejects(dynamicStage('socks5', { query }), { code: 'PROXY_ERR_LISTEN_FAILED', message: why })
  }
  if (process.platform === 'win32') return
  await writeFile(file.path, 'pw')
  await chmod(file.path, 0o644)
  const warnings: string[] = []
  await using _ = await dynamicStage('socks5', { query: file.query, onWarning: (text) => void warnings.push(text) })
  assert.equal(warnings.length, 1)
  assert.match(warnings[0] ?? '', /can be read by all users: chmod 600$/)
})

test('a client that stalls in its handshake meets a deadline, wherever it stops', async () => {
  await using file = await passwordFile('pw')
  await using stage = await dynamicStage('mixed', { query: file.query, handshakeTimeout: 150 })
  const said = Buffer.from([5, 1, 2, 1, 1, 65, 1, 65, 5, 1, 0, 3, 9])
  await Promise.all(
    [0, 1, 2, 3, 5, 7].map(async (length) => {
      const socket = await stage.client()
      const begin = performance.now()
      socket.write(said.subarray(0, length))
      const got = await soon(readToClose(socket), `after ${length} bytes`)
      assert.deepEqual([...got], length >= 3 ? [5, 2] : [])
      assert.ok(performance.now() - begin > 100)
    }),
  )
  const http = await stage.client()
  http.write('GET http://')
  assert.match((await soon(readToClose(http), 'http')).toString(), /^HTTP\/1.1 408 Request Timeout\r\n/)
})

test('connections that say nothing are bounded, and do not keep others out', { timeout: 10_000 }, async () => {
  await using target = await echo()
  await using stage = await dynamicStage('mixed', { handshakes: 100 })
  const silent = await Promise.all(Array.from({ length: 1000 }, () => stage.client()))
  let closed = 0
  for (const socket of silent) {
    socket.resume()
    socket.on('close', () => closed++)
    socket.on('end', () => socket.destroy())
  }
  await eventually(() => closed >= 900, 'the oldest have to go', 5000)
  const socket = await stage.client()
  assert.deepEqual([...(await socksAsk(socket, socksRequest(CONNECT, '127.0.0.1', target.port)))], SUCCEEDED)
  assert.ok(closed <= 901, `${closed} closed`)
  socket.destroy()
  for (const each of silent) each.destroy()
})

test('closing the listener leaves open what is open', async () => {
  await using target = await echo()
  await using stage = await dynamicStage('mixed')
  const socket = await stage.client()
  await socksAsk(socket, socksRequest(CONNECT, '127.0.0.1', target.port))
  const waiting = await stage.client()
  waiting.write(Buffer.of(5))
  await stage.listener.close()
  await assert.rejects(stage.client(), { code: 'ECONNREFUSED' })
  socket.end('still there')
  assert.equal((await readAll(socket)).toString(), 'still there')
  assert.equal((await soon(readToClose(waiting), 'who has not asked yet')).length, 0)
})

test('a client that goes while its target is being dialled takes the dial with it', async () => {
  const dials: AbortSignal[] = []
  const slow = {
    name: 'tcp',
    dial: (_to: unknown, { signal }: { signal: AbortSignal }): Promise<never> => {
      dials.push(signal)
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    },
  }
  await using pair = await connectPair(MEMORY, { dialling: { domains: [mixed()] }, accepting: { domains: [slow] } })
  const at = { Domain: 'mixed', Addr: '127.0.0.1:0' }
  await using listener = await pair.dialling.newListener({ Listen: at, Forward: { Domain: 'tunnel', Addr: '' } })
  const port = Number(listener.bound.Addr.split(':')[1])
  const socket = await clientOf(port)
  socket.write(Buffer.concat([Buffer.from([5, 1, 0]), socksRequest(CONNECT, 'target.test', 80)]))
  const http = await clientOf(port)
  http.write('CONNECT target.test:80 HTTP/1.1\r\nHost: target.test:80\r\n\r\n')
  await eventually(() => dials.length === 2, 'two dials')
  socket.resetAndDestroy()
  http.resetAndDestroy()
  await eventually(() => dials.every((signal) => signal.aborted), 'both given up')
  await nothingLeft(pair.dialling, pair.accepting)
})

// --- UDP ---

async function associate(stage: { client(): ReturnType<typeof clientOf> }, port = 0) {
  const control = await stage.client()
  const reply = await socksAsk(control, socksRequest(ASSOCIATE, '0.0.0.0', port))
  assert.deepEqual([...reply.subarray(0, 8)], [5, 0, 0, 1, 127, 0, 0, 1])
  const at = { Domain: 'udp', Addr: `127.0.0.1:${reply.readUInt16BE(8)}` }
  return { control, at }
}

const datagram = (host: string, port: number, payload: string, fragment = 0): Buffer =>
  Buffer.concat([Buffer.from([0, 0, fragment]), socksAddress(host, port), Buffer.from(payload)])

test('UDP: destinations are told apart, and answers carry them as the client wrote them', async () => {
  await using one = await datagramEcho()
  await using two = await datagramEcho()
  await using stage = await dynamicStage('socks5')
  const { control, at } = await associate(stage)
  await using user = await visitor(at)
  const ports = [one, two].map(({ socket }) => socket.address().port)
  for (const host of ['127.0.0.1', 'localhost']) {
    for (const port of ports) {
      const sent = datagram(host, port, `to ${host} ${port}`)
      user.send(sent)
      assert.deepEqual(await user.next(), sent)
    }
  }
  const large = datagram('127.0.0.1', ports[0] ?? 0, 'x'.repeat(60_000))
  user.send(large)
  assert.ok(large.equals(await user.next()))
  const empty = datagram('127.0.0.1', ports[0] ?? 0, '')
  user.send(empty)
  assert.ok(empty.equals(await user.next()))
  control.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('UDP: the association ends with the connection that asked for it', async () => {
  await using target = await datagramEcho()
  await using stage = await dynamicStage('socks5')
  for (const how of ['end', 'destroy', 'resetAndDestroy'] as const) {
    const { control, at } = await associate(stage)
    await using user = await visitor(at)
    user.send(datagram('127.0.0.1', target.socket.address().port, how))
    await user.next()
    const closed = how === 'end' ? readToClose(control) : Promise.resolve(Buffer.alloc(0))
    control[how]()
    await soon(closed, 'closed')
    await nothingLeft(stage.near, stage.exit)
    // The port is nobody's any more.
    const refused = once(user.socket, 'error')
    user.send(datagram('127.0.0.1', 9, 'x'))
    await soon(refused, 'refused')
  }
})

test('UDP: fragments, strangers and what is no datagram are dropped', async () => {
  await using target = await datagramEcho()
  const { port } = target.socket.address()
  await using stage = await dynamicStage('socks5')
  const { control, at } = await associate(stage)
  await using user = await visitor(at)
  await using stranger = await visitor(at)
  const bad = [
    Buffer.alloc(0),
    Buffer.alloc(1),
    Buffer.alloc(4),
    Buffer.from([0, 0, 0, 3, 200, 65]),
    Buffer.alloc(300, 255),
  ]
  for (const noise of bad) user.send(noise)
  user.send(datagram('127.0.0.1', port, 'fragment', 1))
  user.send(datagram('', port, 'no host'))
  user.send(datagram('127.0.0.1', 0, 'no port'))
  user.send(datagram('127.0.0.1', port, 'first'))
  assert.equal((await user.next()).toString('latin1', 10), 'first')
  stranger.send(datagram('127.0.0.1', port, 'from another port'))
  user.send(datagram('127.0.0.1', port, 'second'))
  assert.equal((await user.next()).toString('latin1', 10), 'second')
  assert.deepEqual(
    target.got.map(({ data }) => data.toString()),
    ['first', 'second'],
  )
  assert.equal(stranger.got.length, 0)
  control.destroy()
})

test('UDP: a port that the client declares is the only one', async () => {
  await using target = await datagramEcho()
  const { port } = target.socket.address()
  await using stage = await dynamicStage('socks5')
  await using declared = await datagramServer()
  const { port: own } = declared.socket.address()
  const { control, at } = await associate(stage, own)
  await using stranger = await visitor(at)
  stranger.send(datagram('127.0.0.1', port, 'stranger'))
  declared.socket.send(datagram('127.0.0.1', port, 'declared'), Number(at.Addr.split(':')[1]), '127.0.0.1')
  assert.equal((await declared.next()).toString('latin1', 10), 'declared')
  assert.equal(target.got.length, 1)
  control.destroy()
})

test('UDP: a destination that is denied does not disturb the others, and is not asked for with each datagram', async () => {
  await using target = await datagramEcho()
  const { port } = target.socket.address()
  await using closed = await program()
  await closed[Symbol.asyncDispose]()
  await using stage = await dynamicStage('socks5')
  stage.denied.add('127.0.0.1:9')
  const { control, at } = await associate(stage)
  await using user = await visitor(at)
  for (let n = 0; n < 20; n++) {
    user.send(datagram('127.0.0.1', 9, 'denied'))
    user.send(datagram('127.0.0.1', port, `${n}`))
    assert.equal((await user.next()).toString('latin1', 10), `${n}`)
  }
  assert.equal(stage.asked.filter((to) => to === 'udp://127.0.0.1:9').length, 1)
  control.destroy()
})

test('UDP: destinations and associations are bounded, and forgotten when nothing moves', async () => {
  await using target = await datagramEcho()
  const { port } = target.socket.address()
  await using stage = await dynamicStage('socks5', { flows: 8, associations: 1, idleTimeout: 200 })
  const { control, at } = await associate(stage)
  const another = await stage.client()
  assert.deepEqual([...(await socksAsk(another, socksRequest(ASSOCIATE, '0.0.0.0', 0)))], refusal(1))
  await using user = await visitor(at)
  for (let n = 0; n < 30; n++) {
    user.send(datagram(`127.0.0.${n + 1}`, port, `${n}`))
    user.send(datagram('127.0.0.1', port, 'again'))
    await eventually(() => target.got.some(({ data }) => data.toString() === 'again'), 'the first')
  }
  await eventually(() => [...stage.near.subConnections].length <= 8, 'no more than eight')
  await eventually(() => [...stage.near.subConnections].length === 0, 'none', 2000)
  user.send(datagram('127.0.0.1', port, 'later'))
  await eventually(() => target.got.at(-1)?.data.toString() === 'later', 'it goes on')
  await stage.listener.close()
  await soon(readToClose(control), 'the association ends with its listener')
  await nothingLeft(stage.near, stage.exit)
})

test('UDP: an independent client gets its datagrams through', async () => {
  await using target = await datagramEcho()
  const { port } = target.socket.address()
  await using stage = await dynamicStage('mixed')
  const client = new SocksClient({
    proxy: { host: '127.0.0.1', port: stage.port, type: 5 },
    command: 'associate',
    destination: { host: '0.0.0.0', port: 0 },
  })
  const established = once(client, 'established')
  await client.connect()
  const [{ socket, remoteHost }] = await established
  await using user = await visitor({ Domain: 'udp', Addr: `127.0.0.1:${remoteHost.port}` })
  user.send(SocksClient.createUDPFrame({ remoteHost: { host: '127.0.0.1', port }, data: Buffer.from('a name') }))
  const { remoteHost: from, data } = SocksClient.parseUDPFrame(await user.next())
  assert.deepEqual([from, data.toString()], [{ host: '127.0.0.1', port }, 'a name'])
  socket.destroy()
  await nothingLeft(stage.near, stage.exit)
})

test('two reads of a client are told apart from one: a reply comes when it is due', async () => {
  await using target = await program((socket) => socket.end('hello'))
  await using stage = await dynamicStage('socks5')
  const socket = await stage.client()
  await socksAsk(socket, socksRequest(CONNECT, '127.0.0.1', target.port))
  // The server speaks first.
  assert.equal((await read(socket, 5)).toString(), 'hello')
  socket.end()
  await nothingLeft(stage.near, stage.exit)
})
