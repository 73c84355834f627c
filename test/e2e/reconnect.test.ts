import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { boundAt, coded, connectNode, logLine, logs, startNode, startServer } from '../helpers/e2e/cli.ts'
import { closed, echo, open, startEcho, visit } from '../helpers/e2e/talk.ts'
import type { Child } from '../helpers/system/child.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type LogLine, logged, spec } from '../helpers/system/symport.ts'

const BACK_WITHIN_MS = 2000

function timeOf(log: LogLine): number {
  return Date.parse(String(log.time))
}

async function killed(child: Child): Promise<void> {
  child.signal('SIGKILL')
  await child.exited
}

describe('reconnecting', { concurrency: 3 }, () => {
  test('a wrong secret is said plainly on the node, which does not hammer; the server logs the refusal', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage)
    const node = await startNode(stage, at, [], { secret: 'another secret, as long as the first' })
    const { level, delay, msg } = await coded(node, 'PROXY_ERR_REFUSED')
    assert.deepEqual({ level, delay }, { level: 'error', delay: 60_000 })
    assert.match(msg, /secret/)
    assert.match(msg, /trying again in 60 s$/)
    const refused = await logged(server, 'refused a connection')
    assert.equal(refused.level, 'warn')
    assert.match(String(refused.address), /^127\.0\.0\.1:\d+$/)
    // It is not connected, and can be stopped while it waits.
    assert.deepEqual(await node.stop(), { status: 0, signal: null })
    assert.equal(logs(server).filter((log) => log.msg === 'refused a connection').length, 1)
    assert.ok(!logs(server).some((log) => log.msg === 'node connected'))
  })

  test('a node that starts before its server connects when the server comes', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const port = await freePort()
    // The same failure again is told once a minute, and at this level each time.
    const node = await startNode(stage, { host: '127.0.0.1', port }, ['--log-level', 'debug'])
    const isRetry = (log: LogLine): boolean => log.msg === `nothing listens on 127.0.0.1:${port}; trying again`
    await logLine(node, 'a first failure', isRetry)
    const failures = logs(node).length
    const retry = await logLine(node, 'another failure', isRetry, failures)
    assert.ok(Number(retry.delay) <= 1500, `the delay is ${retry.delay}`)
    const { server } = await startServer(stage, ['--listener', spec('tcp://127.0.0.1:0', target)], { port })
    await logged(node, 'connected')
    assert.equal(await visit(stage, await boundAt(server)), 'hello')
  })

  for (const how of ['SIGTERM', 'SIGKILL'] as const) {
    test(`a server that ended with ${how} and starts again has its node back within 2 s, and the mappings work`, async (t) => {
      const stage = new Stage(t)
      const target = await startEcho(stage)
      const forth = `unix://${stage.path('forth.sock')}`
      const args = [
        ...['--listener', `${forth},${target}`],
        ...['--peer_listener', `tcp://127.0.0.1:0,${target}`],
        ...['--drain-timeout', '1ms'],
      ]
      const first = await startServer(stage, args, { secret: undefined })
      await logged(first.server, 'on the other machine')
      const secret = readFileSync(stage.path('server/secret'), 'utf8').trim()
      const node = await connectNode(stage, first.at, [], { secret })
      const socket = await open(stage, forth)
      await echo(socket, 'before')

      const seen = node.lines.length
      first.server.signal(how)
      await first.server.exited
      // One that was killed has said nothing: only the next one can tell that it knows nothing any more.
      if (how === 'SIGTERM') await logged(node, 'server disconnected', seen)
      else await logLine(node, 'the lost link', (log) => log.code === 'PROXY_ERR_LINK_LOST', seen)
      const { server } = await startServer(stage, args, { secret: undefined, port: first.at.port })
      const back = await logged(node, 'connected', seen)
      await closed(socket)
      const { code } = await logged(node, 'server disconnected', seen)
      assert.equal(code, how === 'SIGTERM' ? 'PROXY_ERR_CLOSED' : 'PROXY_ERR_SESSION_LOST')
      const since = timeOf(back) - timeOf(await logged(server, 'listening'))
      assert.ok(since <= BACK_WITHIN_MS, `it took ${since} ms`)
      await logLine(server, 'the listener at the server', ({ listen }) => listen === forth)
      assert.equal(await visit(stage, forth), 'hello')
      const there = await logLine(server, 'the listener at the node', (log) => 'at' in log && 'listen' in log)
      assert.equal(await visit(stage, String(there.listen)), 'hello')
    })
  }

  test('a node that was killed and starts again serves the mappings again', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const port = await freePort()
    const { server, at } = await startServer(stage, [
      ...['--listener', spec('tcp://127.0.0.1:0', target)],
      ...['--peer_listener', spec(`tcp://127.0.0.1:${port}`, target)],
    ])
    const node = await connectNode(stage, at)
    const listen = await boundAt(server)
    const socket = await open(stage, listen)
    await echo(socket, 'before')

    await killed(node)
    const seen = server.lines.length
    await connectNode(stage, at)
    await closed(socket)
    const { code } = await logged(server, 'node disconnected', seen)
    assert.equal(code, 'PROXY_ERR_REPLACED')
    assert.equal(await visit(stage, listen), 'hello')
    await logLine(server, 'the listener at the node', (log) => log.listen === `tcp://127.0.0.1:${port}`, seen)
    assert.equal(await visit(stage, `tcp://127.0.0.1:${port}`), 'hello')
  })

  test("a node's own mappings work again when the server is back", async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const port = await freePort()
    const grants = ['--allow', target.slice('tcp://'.length), '--allow-ports', String(port)]
    const first = await startServer(stage, grants)
    const node = await connectNode(stage, first.at, [
      ...['-L', spec('tcp://127.0.0.1:0', target)],
      ...['-R', spec(`tcp://127.0.0.1:${port}`, target)],
    ])
    const listen = await boundAt(node)
    assert.equal(await visit(stage, listen), 'hello')
    await killed(first.server)
    const seen = node.lines.length
    await startServer(stage, grants, { port: first.at.port })
    assert.equal(await visit(stage, listen), 'hello', 'a visitor waits until the server is back')
    await logLine(node, 'the listener at the server', (log) => log.listen === `tcp://127.0.0.1:${port}`, seen)
    assert.equal(await visit(stage, `tcp://127.0.0.1:${port}`), 'hello')
  })
})
