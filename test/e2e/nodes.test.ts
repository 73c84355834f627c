import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { boundAt, coded, connectNode, logLine, logs, startNode, startServer } from '../helpers/e2e/cli.ts'
import { echo, open, startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, type LogLine, logged, spec } from '../helpers/system/symport.ts'

/** A node that may dial nothing: who is closed was sent to this one. */
const CLOSES = ['--allow', '192.0.2.1:1']

function joinAs(stage: Stage, at: Address, id: string, args: readonly string[] = []): Promise<Child> {
  return connectNode(stage, at, ['--id', id, ...args], { state: id })
}

describe('several nodes on one server', { concurrency: 3 }, () => {
  test('the first serves and the second stands by with a warning; when the first goes the second serves', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const { server, at } = await startServer(stage, ['--listener', spec('tcp://127.0.0.1:0', target)])
    const first = await joinAs(stage, at, 'first', CLOSES)
    const second = await joinAs(stage, at, 'second')
    const { level, node } = await logLine(server, 'the warning', (log) => log.msg.includes('stands by'))
    assert.deepEqual({ level, node }, { level: 'warn', node: 'second' })
    const listen = await boundAt(server)
    for (let i = 0; i < 3; i++) assert.equal(await visit(stage, listen), '', 'the first serves')
    assert.equal((await coded(server, 'PROXY_ERR_DIAL_DENIED')).node, 'first')
    await first.stop()
    await logLine(server, 'its end', (log) => log.msg === 'node disconnected' && log.node === 'first')
    for (let i = 0; i < 3; i++) assert.equal(await visit(stage, listen), 'hello', 'the second serves')
    assert.ok(second.running)
  })

  test('while the first lets its connections finish, the second serves new ones', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage, ['--listener', spec('tcp://127.0.0.1:0', await startEcho(stage))])
    const first = await joinAs(stage, at, 'first')
    const second = await joinAs(stage, at, 'second')
    const listen = await boundAt(server)
    const socket = await open(stage, listen)
    await echo(socket, 'before')
    first.signal('SIGTERM')
    await logged(first, 'stopping: open connections may finish')
    assert.equal(await visit(stage, listen), 'hello')
    await echo(socket, 'while it stops')
    socket.destroy()
    assert.deepEqual(await first.exited, { status: 0, signal: null })
    assert.ok(second.running)
  })

  test('--balance shares new connections out, without a warning', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const { server, at } = await startServer(stage, ['--balance', '--listener', spec('tcp://127.0.0.1:0', target)])
    await joinAs(stage, at, 'first', CLOSES)
    await joinAs(stage, at, 'second')
    const listen = await boundAt(server)
    const answers: string[] = []
    for (let i = 0; i < 6; i++) answers.push(await visit(stage, listen))
    assert.deepEqual(answers.sort(), ['', '', '', 'hello', 'hello', 'hello'])
    assert.ok(!logs(server).some((log) => log.msg.includes('stands by')))
  })

  test('"Node" in a SPEC pins it, and a --peer_listener without one binds on every node', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const pinned = (node: string, listen: string, forward: string): string =>
      JSON.stringify({ ...JSON.parse(spec(listen, forward)), Node: node })
    const { server, at } = await startServer(stage, [
      ...['--listener', pinned('second', 'tcp://127.0.0.1:0', target)],
      ...['--peer_listener', pinned('second', `unix://${stage.path('there.sock')}`, target)],
      ...['--peer_listener', spec('tcp://127.0.0.1:0', target)],
    ])
    await joinAs(stage, at, 'first', CLOSES)
    await joinAs(stage, at, 'second')
    const listen = await boundAt(server)
    for (let i = 0; i < 3; i++) assert.equal(await visit(stage, listen), 'hello')
    for (const id of ['first', 'second']) {
      const there = await logLine(server, `the listener at ${id}`, (log) => {
        return log.at === id && String(log.listen).startsWith('tcp:')
      })
      assert.equal(await visit(stage, String(there.listen)), 'hello')
    }
    const isSocket = (log: LogLine): boolean => log.listen === `unix://${stage.path('there.sock')}`
    await logLine(server, 'the socket', isSocket)
    const sockets = logs(server).filter(isSocket)
    assert.deepEqual(
      sockets.map((log) => log.at),
      ['second'],
    )
  })

  test('a visitor who comes while the node is away is served when it comes', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const { server, at } = await startServer(stage, ['--listener', spec('tcp://127.0.0.1:0', target)])
    const answer = visit(stage, await boundAt(server), 'anybody there?')
    const node = await startNode(stage, at)
    assert.equal(await answer, 'anybody there?')
    await logged(node, 'connected')
  })

  test('a visitor for whom no node comes is closed after 5 s, and the log says why', async (t) => {
    const stage = new Stage(t)
    const { server } = await startServer(stage, ['--listener', '0:127.0.0.1:1'])
    const listen = await boundAt(server)
    const began = performance.now()
    assert.equal(await visit(stage, listen), '')
    assert.ok(performance.now() - began > 4000, 'it was given time')
    const { level, msg, from } = await coded(server, 'PROXY_ERR_NO_PEER')
    assert.deepEqual({ level, msg }, { level: 'warn', msg: 'the other side is not connected' })
    assert.match(String(from), /^127\.0\.0\.1:\d+$/)
  })
})
