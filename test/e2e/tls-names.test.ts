import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { describe, type TestContext, test } from 'node:test'
import { connect as tlsConnect, createServer as tlsServer } from 'node:tls'
import { coded, logLine, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startReadyNode } from '../helpers/system/publish.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, symportEnvironment } from '../helpers/system/symport.ts'
import { Identity } from '../helpers/transports/authority.ts'

const authority = Identity.create('the CA', { ca: true, names: [] })

/** A service that ends TLS with a certificate for `name`, and says that name. */
async function startService(t: TestContext, name: string): Promise<number> {
  const server = tlsServer(await authority.issue(name, { names: [name] }), (socket) => {
    socket.on('error', () => {})
    socket.end(`this is ${name}`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const address = server.address()
  return typeof address === 'object' && address ? address.port : 0
}

/** What a client gets that believes nobody but the service's own CA. */
async function ask({ port }: Address, servername: string): Promise<string> {
  const socket = tlsConnect({ port, host: '127.0.0.1', servername, ca: authority.cert })
  let said = ''
  socket.setEncoding('utf8').on('data', (text) => {
    said += text
  })
  await once(socket, 'close')
  return said
}

describe('TLS that ends at its target', { concurrency: 3 }, () => {
  test("symport tcp --name publishes it below the server's domain, and gives it back at the end", async (t) => {
    const stage = new Stage(t)
    const port = await startService(t, 'db.example.localhost')
    const { at } = await startServer(stage, ['--domain', 'example.localhost'])
    const where = ['--server', `tcp://${at.host}:${at.port}`]
    const args = ['tcp', String(port), '--name', 'DB', ...where, '--state', stage.path('node')]
    const child = await start(stage, args, { env: { SYMPORT_UUID: SECRET } })
    const line = await child.line((text) => (text.includes(' -> ') ? text : undefined), 'the URL')
    assert.equal(line, `tls://db.example.localhost:${at.port} -> 127.0.0.1:${port}`)
    assert.equal(await ask(at, 'db.example.localhost'), 'this is db.example.localhost')
    const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    for (const other of [
      ['tcp', '443', '--name', 'db'],
      ['http', '443', '--name', 'db'],
    ]) {
      const { status, stderr } = await runHere(stage, [...other, ...where, '--state', stage.path('other')], { env })
      assert.equal(status, 1)
      assert.match(stderr, /^symport: name taken: db\.example\.localhost belongs to another node/)
    }
    child.signal('SIGINT')
    assert.equal((await child.exited).status, 0)
    await assert.rejects(ask(at, 'db.example.localhost'))
  })

  test('a node has the names that it may have, and the server its own, by both forms of a file', async (t) => {
    const stage = new Stage(t)
    const [own, filed, nodes] = await Promise.all(
      ['own.example.com', 'filed.example.com', 'node.example.com'].map((name) => startService(t, name)),
    )
    const file = stage.path('server.toml')
    const spec = `listener = ["tls://own.example.com,tcp://127.0.0.1:${own}"]\n`
    const mapping = `[[mapping]]\nlisten = "tls://filed.example.com"\nforward = "tcp://127.0.0.1:${filed}"\n`
    await writeFile(file, `allow-names = ["node.example.com"]\n${spec}${mapping}`)
    const { server, at } = await startServer(stage, ['-c', file])
    const remote = (name: string): readonly ['-R', string] => ['-R', `tls://${name},tcp://127.0.0.1:${nodes}`]
    const allow = [String(own), String(filed)].map((port): readonly [string, string] => [
      '--allow',
      `127.0.0.1:${port}`,
    ])
    const node = await startReadyNode(stage, at, [remote('node.example.com'), ...allow])
    assert.equal(await ask(at, 'node.example.com'), 'this is node.example.com')
    assert.equal(await ask(at, 'own.example.com'), 'this is own.example.com')
    assert.equal(await ask(at, 'filed.example.com'), 'this is filed.example.com')
    await node.stop()
    const other = await start(
      stage,
      [
        'node',
        '--host',
        at.host,
        '--port',
        String(at.port),
        '--state',
        stage.path('other'),
        ...remote('own.example.com'),
      ],
      { env: { SYMPORT_UUID: SECRET } },
    )
    await logLine(other, 'the refusal', ({ msg }) => /the web name own\.example\.com is not given/.test(msg))
    await coded(server, 'PROXY_ERR_LISTEN_DENIED')
  })
})
