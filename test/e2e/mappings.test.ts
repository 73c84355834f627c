import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { boundAt, connectNode, logLine, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { bulk, echo, hashed, open, startEcho, startHasher, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress, spec } from '../helpers/system/symport.ts'

const MIB = 1024 * 1024

/** Echo, a few MiB, and an answer that only comes after our end. */
async function carries(stage: Stage, listen: string, echoAt: 'echo' | 'hasher'): Promise<void> {
  if (echoAt === 'echo') {
    const socket = await open(stage, listen)
    await echo(socket, 'first words')
    await echo(socket, 'and second ones')
    socket.destroy()
    const { sent, received } = await bulk(stage, listen, 3 * MIB)
    assert.equal(received, sent)
  } else {
    const { expected, answer } = await hashed(stage, listen, 2 * MIB)
    assert.equal(answer, expected)
  }
}

describe('mappings', { concurrency: 3 }, () => {
  for (const flag of ['listener', 'peer_listener'] as const) {
    test(`a server's --${flag} carries tcp and unix in any mix, both ways, with half-close`, async (t) => {
      const stage = new Stage(t)
      const tcpEcho = await startEcho(stage)
      const tcpHasher = await startHasher(stage)
      const unixEcho = await startEcho(stage, `unix://${stage.path('echo.sock')}`)
      const unixHasher = await startHasher(stage, `unix://${stage.path('hasher.sock')}`)
      const specs = [
        spec('tcp://127.0.0.1:0', tcpEcho),
        spec('tcp://127.0.0.1:0', unixHasher),
        `unix://${stage.path('a.sock')},${tcpHasher}`,
        `${stage.path('b.sock')}:${unixEcho.slice('unix://'.length)}`,
      ]
      const { server, at } = await startServer(
        stage,
        specs.flatMap((text) => [`--${flag}`, text]),
      )
      await connectNode(stage, at)
      // Those of a node come in any order.
      const ready = async (forward: string): Promise<string> => {
        const line = await logLine(server, `the listener for ${forward}`, (log) => {
          return log.msg === 'listener ready' && log.forward === forward
        })
        return String(line.listen)
      }
      await carries(stage, await ready(tcpEcho), 'echo')
      await carries(stage, await ready(unixHasher), 'hasher')
      assert.equal(await ready(tcpHasher), `unix://${stage.path('a.sock')}`)
      await carries(stage, await ready(tcpHasher), 'hasher')
      await carries(stage, await ready(unixEcho), 'echo')
    })
  }

  test("a node's -L reaches what the server allows", async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const { at } = await startServer(stage, ['--allow', target.slice('tcp://'.length)])
    const node = await connectNode(stage, at, ['-L', `0:${target.slice('tcp://'.length)}`])
    const listen = await boundAt(node)
    assert.match(listen, /^tcp:\/\/127\.0\.0\.1:\d+$/, "ssh's form without a bind is loopback")
    await carries(stage, listen, 'echo')
  })

  test("a node's -R listens at the server where it allows the ports", async (t) => {
    const stage = new Stage(t)
    const target = await startHasher(stage)
    const port = await freePort()
    const { at } = await startServer(stage, ['--allow-ports', `1-2,${port}`])
    const node = await connectNode(stage, at, ['-R', spec(`tcp://127.0.0.1:${port}`, target)])
    const { listen, forward } = await logged(node, 'listener ready')
    assert.deepEqual({ listen, forward }, { listen: `tcp://127.0.0.1:${port}`, forward: target })
    await carries(stage, `tcp://127.0.0.1:${port}`, 'hasher')
  })

  test("goproxy's flags work with one dash, as -listener and -peer_listener with JSON", async (t) => {
    const stage = new Stage(t)
    const target = (await startEcho(stage)).slice('tcp://'.length)
    const json = `{"Listen":{"Domain":"tcp","Addr":"127.0.0.1:0"},"Forward":{"Domain":"tcp", "Addr":"${target}"}}`
    const server = await start(stage, [
      ...['server', '-host', '127.0.0.1', '-port', '0', '-uuid', SECRET, '-state', stage.path('server')],
      ...['-listener', json, '-peer_listener', json, '--peer-listener', json, `-listener=${json}`],
    ])
    const { port } = parseAddress((await logged(server, 'listening')).address)
    const node = await start(stage, [
      ...['node', '-host', '127.0.0.1', '-port', String(port), '-uuid', SECRET, '-state', stage.path('node')],
    ])
    await logged(node, 'connected')
    for (const number of [0, 1, 2, 3]) assert.equal(await visit(stage, await boundAt(server, number)), 'hello')
    const there = server.lines.filter((line) => line.includes('listener ready') && line.includes('"at"'))
    assert.equal(there.length, 2, 'two listeners are at the node')
  })

  test('the main connection may be a Unix socket, and the server may be named in any form', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const place = `unix://${stage.path('main.sock')}`
    const env = { SYMPORT_UUID: SECRET }
    const server = await start(
      stage,
      ['server', '--host', place, '--listener', spec('tcp://127.0.0.1:0', target), '--state', stage.path('server')],
      { env },
    )
    await logged(server, 'listening')
    const node = await start(stage, ['node', place, '--state', stage.path('node')], { env })
    await logged(node, 'connected')
    assert.equal(await visit(stage, await boundAt(server)), 'hello')

    const { at } = await startServer(stage, [], { state: 'another' })
    for (const args of [[`${at.host}:${at.port}`], ['--server', `tcp://localhost:${at.port}`]]) {
      const other: Child = await start(stage, ['node', ...args, '--state', stage.path('node')], { env })
      await logged(other, 'connected')
      await other.stop()
    }
  })
})
