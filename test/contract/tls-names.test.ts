import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { createSecureContext, connect as tlsConnect, createServer as tlsServer } from 'node:tls'
import type { Listener } from '../../lib/core/index.ts'
import { createTlsNames, type TlsNames } from '../../lib/domains/tls-names.ts'
import { createWeb, type Web } from '../../lib/domains/web.ts'
import { tcp } from '../../lib/index.ts'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import { clientHello, dripper, onePortServer, proxyV2, selfSigned, stranger } from '../helpers/contract/one-port.ts'
import { begin, ending, type Program, pattern, program, readAll, sha256 } from '../helpers/contract/programs.ts'
import { connectPair, MEMORY } from '../helpers/contract/proxies.ts'
import { eventually, nothingLeft, soon, watchForStrays } from '../helpers/contract/strays.ts'
import { hex } from '../helpers/core/bytes.ts'
import { Identity } from '../helpers/transports/authority.ts'

/** TLS that is passed on whole at the server's one port, to targets behind a node that end it themselves. */

watchForStrays()

const authority = Identity.create('the CA', { ca: true, names: [] })
const FAILED = { code: 'PROXY_ERR_LISTEN_FAILED' }

interface Street extends AsyncDisposable {
  readonly port: number
  readonly names: TlsNames
  readonly web: Web
  /** Who came in, as the node that dials is told. */
  readonly from: (string | undefined)[]
  readonly left: () => Promise<void>
  listen(host: string, to: number, domain?: 'tls' | 'web'): Promise<Listener>
}

async function street(options: OnePortOptions = {}): Promise<Street> {
  const names: TlsNames = createTlsNames({ isWeb: (host) => web.hasHost(host) })
  const web: Web = createWeb({ isTls: names.has })
  const from: (string | undefined)[] = []
  const plain = tcp()
  const told = {
    ...plain,
    dial: (...[to, context]: Parameters<NonNullable<typeof plain.dial>>) => {
      from.push(context.from)
      if (!plain.dial) throw new TypeError('it dials')
      return plain.dial(to, context)
    },
  }
  const pair = await connectPair(MEMORY, {
    dialling: { domains: [...web.domains, names.domain] },
    accepting: { domains: [told] },
  })
  const { onRequest, onUpgrade, claims } = web
  const own = selfSigned()
  const server = await onePortServer({
    ...{ onRequest, onUpgrade, claims, route: names.route, tls: async () => own.context },
    ...options,
  })
  return {
    port: server.port,
    ...{ names, web, from, left: () => nothingLeft(pair.dialling, pair.accepting) },
    listen: (host, to, domain = 'tls') =>
      pair.dialling.newListener({
        Listen: { Domain: domain, Addr: host },
        Forward: { Domain: 'tcp', Addr: `127.0.0.1:${to}` },
      }),
    async [Symbol.asyncDispose]() {
      web.close()
      await server[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

/** A program that ends TLS with a certificate of its own for `name`, says its name, and echoes. */
async function secureEcho(name: string): Promise<AsyncDisposable & { readonly port: number }> {
  const { cert, key } = await authority.issue(name, { names: [name.replace('*', 'any')] })
  const server = tlsServer({ cert, key }, (socket) => {
    socket.on('error', () => {})
    socket.write(`${name}\n`)
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    async [Symbol.asyncDispose]() {
      server.close()
    },
  }
}

/** Which certificate somebody is shown who asks for a name: its common name. */
async function shown(port: number, servername: string | undefined): Promise<string> {
  const socket = tlsConnect({
    ...{ port, host: '127.0.0.1', rejectUnauthorized: false },
    ...(servername === undefined ? {} : { servername }),
  })
  await once(socket, 'secureConnect')
  const { CN } = socket.getPeerCertificate().subject
  socket.destroy()
  return String(CN)
}

/** What a plain program gets that a name leads to. */
async function arrives(there: Program, length: number): Promise<{ socket: Socket; bytes: Buffer }> {
  const socket = await soon(there.accepted(), 'a connection')
  const chunks: Buffer[] = []
  let have = 0
  while (have < length) {
    const [chunk] = await soon(once(socket, 'data') as Promise<[Buffer]>, `${length} bytes`)
    chunks.push(chunk)
    have += chunk.length
  }
  return { socket, bytes: Buffer.concat(chunks) }
}

test('TLS for a name ends at its target, with the certificate of that; other names are ended here', async () => {
  await using db = await secureEcho('db.example.com')
  await using all = await secureEcho('*.example.com')
  await using port = await street()
  await port.listen('db.example.com', db.port)
  await port.listen('*.Example.COM', all.port)
  const socket = tlsConnect({ port: port.port, host: '127.0.0.1', servername: 'DB.example.com', ca: authority.cert })
  await once(socket, 'secureConnect')
  const body = pattern(3_000_000)
  socket.end(body)
  const got = await soon(readAll(socket), 'the echo', 10_000)
  assert.equal(String(got.subarray(0, 15)), 'db.example.com\n')
  assert.equal(sha256(got.subarray(15)), sha256(body))
  for (const [name, who] of [
    ['db.example.com', 'db.example.com'],
    ['x.example.com', '*.example.com'],
    ['a.db.example.com', '*.example.com'],
    ['example.com', 'localhost'],
    ['xexample.com', 'localhost'],
    ['db.example.com.evil.org', 'localhost'],
    [undefined, 'localhost'],
  ] as const) {
    assert.equal(await shown(port.port, name), who, name)
  }
  await port.left()
})

test('a name leads to its target while there is a listener, and then nowhere', async () => {
  await using db = await secureEcho('db.example.com')
  await using port = await street()
  for (let round = 0; round < 3; round++) {
    const listener = await port.listen('db.example.com', db.port)
    assert.deepEqual(listener.bound, { Domain: 'tls', Addr: 'db.example.com' })
    assert.equal(await shown(port.port, 'db.example.com'), 'db.example.com')
    await listener.close()
    assert.equal(await shown(port.port, 'db.example.com'), 'localhost')
  }
})

test('a name is of the web or of TLS, and the second is refused; below a *.suffix the longer one has it', async () => {
  await using db = await secureEcho('db.example.com')
  await using port = await street()
  const web = await port.listen('shop.example.com/x', db.port, 'web')
  await assert.rejects(port.listen('shop.example.com', db.port), FAILED)
  await port.listen('db.example.com', db.port)
  await assert.rejects(port.listen('db.example.com/path', db.port, 'web'), FAILED)
  await assert.rejects(port.listen('DB.example.com', db.port), FAILED)
  await port.listen('*.example.com', db.port)
  await assert.rejects(port.listen('*.example.com', db.port, 'web'), FAILED)
  await port.listen('*.web.example.com', db.port, 'web')
  assert.equal(await shown(port.port, 'shop.example.com'), 'localhost', 'a name of the web')
  assert.equal(await shown(port.port, 'x.web.example.com'), 'localhost', 'below one of the web')
  assert.equal(await shown(port.port, 'other.example.com'), 'db.example.com')
  assert.deepEqual(
    ['db.example.com', 'x.example.com', 'shop.example.com', 'x.web.example.com', 'example.com'].map(port.names.takes),
    [true, true, false, false, false],
  )
  await web.close()
  await port.listen('shop.example.com', db.port)
  assert.equal(await shown(port.port, 'shop.example.com'), 'db.example.com')
})

test('only what a client of TLS can ask for is listened on', async () => {
  await using port = await street()
  for (const [name, why] of [
    ['', /names no host/],
    ['*', /not a host/],
    ['db.example.com:443', /has a port/],
    ['db.example.com/x', /no path/],
    ['db.example.com?verify=off', /no path/],
    ['127.0.0.1', /is an address/],
    ['[::1]', /is an address/],
    ['::1', /needs brackets/],
    ['*.*.example.com', /not a host/],
    ['a..example.com', /not a host/],
    ['..', /not a host/],
    [`${'a'.repeat(64)}.com`, /not a host/],
    ['a\0b.example.com', /not a host/],
    ['user@example.com', /user information/],
  ] as const) {
    const listened = port.names.domain.listen?.(
      { Domain: 'tls', Addr: name },
      {
        signal: new AbortController().signal,
        open: () => Promise.reject(new Error('nobody comes')),
      },
    )
    await assert.rejects(async () => await listened, { code: 'PROXY_ERR_ADDRESS', message: why }, name)
  }
  const idn = await port.listen('B\u00fccher.example.com.', 1)
  assert.equal(idn.bound.Addr, 'xn--bcher-kva.example.com')
})

test('a ClientHello arrives whole, however it comes in, and the first bytes behind it', async () => {
  await using there = await program()
  await using port = await street()
  await port.listen('db.example.com', there.port)
  const more = pattern(50_000)
  for (const hello of [
    clientHello({ serverName: 'db.example.com' }),
    clientHello({ serverName: 'DB.EXAMPLE.com', record: 3 }),
    clientHello({ serverName: 'db.example.com', padding: 16_000 }),
  ]) {
    await using relay = await dripper(port.port, 1200)
    for (const to of [port.port, relay.port]) {
      const visitor = await stranger(to)
      visitor.socket.write(Buffer.concat([hello, more]))
      const { socket, bytes } = await arrives(there, hello.length + more.length)
      assert.equal(sha256(bytes), sha256(Buffer.concat([hello, more])))
      socket.write('and back')
      await soon(once(visitor.socket, 'data'), 'an answer')
      visitor.socket.destroy()
    }
  }
})

test('the target is told who came in, also by a PROXY header of a trusted proxy', async () => {
  await using there = await program()
  await using port = await street({ trustedProxies: ['127.0.0.1'] })
  await port.listen('db.example.com', there.port)
  const visitor = await stranger(port.port)
  const header = proxyV2(0x21, 0x11, hex('cb007109 c0000201 d431 01bb'))
  visitor.socket.write(Buffer.concat([header, clientHello({ serverName: 'db.example.com' })]))
  await soon(there.accepted(), 'a connection')
  assert.deepEqual(port.from, ['203.0.113.9:54321'])
  visitor.socket.destroy()
  const direct = await stranger(port.port)
  direct.socket.write(clientHello({ serverName: 'db.example.com' }))
  await soon(there.accepted(), 'a connection')
  assert.equal(port.from[1], `127.0.0.1:${direct.socket.localPort}`)
  direct.socket.destroy()
})

test('an end of one direction is passed on, and so is a reset', async () => {
  const hello = clientHello({ serverName: 'db.example.com' })
  await using there = await program()
  await using port = await street()
  await port.listen('db.example.com', there.port)
  const visit = async (): Promise<[Socket, Socket]> => {
    const visitor = begin({ Domain: 'tcp', Addr: `127.0.0.1:${port.port}` })
    visitor.write(hello)
    const { socket } = await arrives(there, hello.length)
    return [visitor, socket]
  }
  const [visitor, socket] = await visit()
  visitor.end()
  assert.equal(await soon(ending(socket), 'the end'), 'end')
  const late = pattern(300_000)
  socket.end(late)
  assert.equal(sha256(await soon(readAll(visitor), 'the rest')), sha256(late))
  const [other, far] = await visit()
  other.resetAndDestroy()
  assert.equal(await soon(ending(far), 'the reset'), 'reset')
  const [third, away] = await visit()
  away.resetAndDestroy()
  assert.equal(await soon(ending(third), 'the reset'), 'reset')
  await port.left()
})

test('a target that does not read holds its visitor back', async () => {
  await using there = await program((socket) => void socket.pause())
  await using port = await street()
  await port.listen('db.example.com', there.port)
  const visitor = begin({ Domain: 'tcp', Addr: `127.0.0.1:${port.port}` })
  visitor.write(clientHello({ serverName: 'db.example.com' }))
  await soon(there.accepted(), 'a connection')
  const block = Buffer.alloc(1 << 20)
  let sent = 0
  while (sent < 64 && visitor.write(block)) sent++
  for (; sent < 64; sent++) {
    const drained = await Promise.race([once(visitor, 'drain'), new Promise((resolve) => setTimeout(resolve, 300))])
    if (drained === undefined) break
    visitor.write(block)
  }
  assert.ok(sent < 48, `${sent} MiB went nowhere`)
  visitor.destroy()
})

test('nobody behind the name: the visitor is let go, and nothing is left', async () => {
  const gone = await program()
  await gone[Symbol.asyncDispose]()
  await using port = await street()
  await port.listen('db.example.com', gone.port)
  const visitor = await stranger(port.port)
  visitor.socket.write(clientHello({ serverName: 'db.example.com' }))
  await soon(visitor.closed, 'the end')
  await port.left()
})

test('one who does not finish the hello is let go in time, and reaches nobody', async () => {
  await using there = await program()
  await using port = await street({ timeout: 100 })
  await port.listen('db.example.com', there.port)
  const hello = clientHello({ serverName: 'db.example.com' })
  const visitor = await stranger(port.port)
  visitor.socket.write(hello.subarray(0, hello.length - 1))
  await soon(visitor.closed, 'the end')
  assert.deepEqual(port.from, [])
  // One that has is not held to that.
  const other = await stranger(port.port)
  other.socket.write(hello)
  const { socket } = await arrives(there, hello.length)
  await new Promise((resolve) => setTimeout(resolve, 150))
  socket.write('late')
  await soon(once(other.socket, 'data'), 'an answer')
  other.socket.destroy()
})

test('names that are none, and thousands that nobody has, reach no target and leave nothing', async () => {
  await using there = await program()
  const refused = createSecureContext()
  await using port = await street({ tls: async ({ serverName }) => (serverName === 'own' ? refused : undefined) })
  await port.listen('db.example.com', there.port)
  await port.listen('*.all.example.com', there.port)
  const strange = [
    ...['db.example.com.', 'db.example.com\0', 'db.example.com\0.evil.org', '.db.example.com', 'db..example.com'],
    ...['127.0.0.1', '::1', '[::1]', 'b\u00fccher.example.com', '*.all.example.com', '', 'db.example.com:443'],
    ...['db.example.com/', ' db.example.com', 'all.example.com', `${'a.'.repeat(125)}all.example.com`],
  ]
  for (const serverName of strange) {
    const visitor = await stranger(port.port)
    visitor.socket.write(clientHello({ serverName }))
    await soon(visitor.closed, JSON.stringify(serverName))
  }
  let open = 0
  const ask = (i: number): Promise<void> =>
    new Promise((resolve) => {
      open++
      const socket = connect(port.port, '127.0.0.1', () => {
        socket.write(clientHello({ serverName: `n${i}.example.com` }))
      })
      socket.on('error', () => {}).resume()
      socket.once('close', () => {
        open--
        resolve()
      })
    })
  for (let at = 0; at < 2000; at += 50) await Promise.all(Array.from({ length: 50 }, (_, i) => ask(at + i)))
  await eventually(() => open === 0, 'all are gone')
  assert.deepEqual(port.from, [])
  await port.left()
})
