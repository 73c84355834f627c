import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { boundAt, coded, connectNode, startNode, startServer } from '../helpers/e2e/cli.ts'
import { closed, echo, open, refused, startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { eventually } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, spec } from '../helpers/system/symport.ts'

const STOPPED = { status: 0, signal: null }

interface Scene {
  server: Child
  node: Child
  listen: string
}

async function scene(stage: Stage, args: readonly string[] = []): Promise<Scene> {
  const target = await startEcho(stage)
  const { server, at } = await startServer(stage, [...args, '--listener', spec('tcp://127.0.0.1:0', target)])
  const node = await connectNode(stage, at, args)
  return { server, node, listen: await boundAt(server) }
}

describe('stopping', { concurrency: 3 }, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`${signal} lets an open connection of the server's finish, and refuses new ones`, async (t) => {
      const stage = new Stage(t)
      const { server, listen } = await scene(stage)
      const socket = await open(stage, listen)
      await echo(socket, 'before')
      server.signal(signal)
      const line = await logged(server, 'stopping: open connections may finish')
      assert.equal(line.signal, signal)
      // The line is written first, and the port is free a moment later.
      await eventually(async () => assert.ok(await refused(stage, listen), 'new ones are refused'))
      await echo(socket, 'while it stops')
      socket.end()
      await closed(socket)
      assert.deepEqual(await server.exited, STOPPED)
      assert.match(server.lines.at(-1) ?? '', /"msg":"stopped"/)
    })
  }

  test("SIGTERM lets an open connection of the node's finish, and new ones are closed", async (t) => {
    const stage = new Stage(t)
    const { server, node, listen } = await scene(stage)
    const socket = await open(stage, listen)
    await echo(socket, 'before')
    node.signal('SIGTERM')
    await logged(server, 'node is about to stop')
    assert.equal(await visit(stage, listen), '')
    await echo(socket, 'while it stops')
    socket.end()
    await closed(socket)
    assert.deepEqual(await node.exited, STOPPED)
    await logged(server, 'node disconnected')
  })

  test('--drain-timeout cuts what does not finish, and the status is 0', async (t) => {
    const stage = new Stage(t)
    const { server, listen } = await scene(stage, ['--drain-timeout', '300ms'])
    const socket = await open(stage, listen)
    await echo(socket, 'before')
    const over = closed(socket)
    server.signal('SIGTERM')
    await over
    assert.deepEqual(await server.exited, STOPPED)
  })

  for (const side of ['server', 'node'] as const) {
    test(`a second signal stops the ${side} at once`, async (t) => {
      const stage = new Stage(t)
      const { listen, ...children } = await scene(stage)
      const socket = await open(stage, listen)
      await echo(socket, 'before')
      const over = closed(socket)
      const child = children[side]
      child.signal('SIGTERM')
      await logged(child, 'stopping: open connections may finish')
      child.signal('SIGINT')
      assert.deepEqual(await child.exited, { status: 1, signal: null })
      await over
    })
  }

  test('a node that is not connected stops at once, and closes who waits for it', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage)
    await server.stop()
    const node = await startNode(stage, at, ['-L', '0:127.0.0.1:1'])
    await coded(node, 'PROXY_ERR_DIAL_FAILED')
    const visitor = await open(stage, await boundAt(node))
    node.signal('SIGINT')
    await closed(visitor)
    assert.deepEqual(await node.exited, STOPPED)
  })

  test('a signal that comes while it starts is an orderly end too', async (t) => {
    const stage = new Stage(t)
    const node = await startNode(stage, { host: '127.0.0.1', port: 1 }, ['-L', '0:127.0.0.1:1'])
    // The first thing that it tells; it has not dialled yet.
    await boundAt(node)
    node.signal('SIGTERM')
    assert.deepEqual(await node.exited, STOPPED)
  })
})
