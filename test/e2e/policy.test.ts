import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { boundAt, coded, connectNode, logLine, startServer } from '../helpers/e2e/cli.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { spec } from '../helpers/system/symport.ts'

function addr(url: string): string {
  return url.slice('tcp://'.length)
}

describe('policy', { concurrency: 3 }, () => {
  test("a node's --allow narrows what the server may have dialled, and both logs say why", async (t) => {
    const stage = new Stage(t)
    const allowed = await startEcho(stage)
    const denied = await startEcho(stage)
    const { server, at } = await startServer(stage, [
      ...['--listener', spec('tcp://127.0.0.1:0', allowed)],
      ...['--listener', spec('tcp://127.0.0.1:0', denied)],
    ])
    const node = await connectNode(stage, at, ['--allow', addr(allowed)])
    assert.equal(await visit(stage, await boundAt(server, 0)), 'hello')
    assert.equal(await visit(stage, await boundAt(server, 1)), '', 'the visitor is closed')
    for (const [side, other, what] of [
      [node, 'the node', 'refused'],
      [server, 'the server', 'the node refused'],
    ] as const) {
      const { level, by, request, msg } = await coded(side, 'PROXY_ERR_DIAL_DENIED')
      assert.deepEqual({ level, by, request }, { level: 'warn', by: 'node', request: denied }, other)
      assert.equal(msg, `${what}: ${addr(denied)} is not allowed here (see --allow)`)
    }
    assert.equal(await visit(stage, await boundAt(server, 0)), 'hello', 'the others go on')
  })

  test('a server denies what a node asks for unless it is granted, and both logs say why', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const port = await freePort()
    const { server, at } = await startServer(stage)
    const node = await connectNode(stage, at, [
      ...['-L', `0:${addr(target)}`],
      ...['-R', spec(`tcp://127.0.0.1:${port}`, target)],
    ])
    assert.equal(await visit(stage, await boundAt(node)), '')
    for (const [side, what] of [
      [node, 'the server refused'],
      [server, 'refused'],
    ] as const) {
      const { by, msg } = await coded(side, 'PROXY_ERR_DIAL_DENIED')
      assert.deepEqual({ by, msg }, { by: 'server', msg: `${what}: ${addr(target)} is not allowed here (see --allow)` })
      const listen = await coded(side, 'PROXY_ERR_LISTEN_DENIED')
      assert.match(listen.msg, /listening on 127\.0\.0\.1:\d+ is not allowed here \(see --allow-ports\)$/)
    }
    const failed = await logLine(node, 'the listener that failed', (log) => log.listen === `tcp://127.0.0.1:${port}`)
    assert.equal(failed.level, 'error')
  })

  test('a port beyond --allow-ports, and a Unix socket, are denied', async (t) => {
    const stage = new Stage(t)
    const [granted, other] = [await freePort(), await freePort()]
    const target = await startEcho(stage)
    const { server, at } = await startServer(stage, ['--allow-ports', String(granted)])
    const node = await connectNode(stage, at, [
      ...['-R', `${other}:${addr(target)}`],
      ...['-R', `unix://${stage.path('x.sock')},${target}`],
      ...['-R', `${granted}:${addr(target)}`],
    ])
    const denied = await coded(server, 'PROXY_ERR_LISTEN_DENIED')
    assert.equal(denied.request, `tcp://127.0.0.1:${other}`)
    const unix = await logLine(node, 'the Unix socket', (log) => log.listen === `unix://${stage.path('x.sock')}`)
    assert.equal(unix.code, 'PROXY_ERR_LISTEN_DENIED')
    assert.match(unix.msg, /--allow-ports is about tcp and udp ports only/)
    assert.equal(await visit(stage, await boundAt(node)), 'hello')
  })

  test('nothing behind the target is said plainly on both sides, and the visitor is closed', async (t) => {
    const stage = new Stage(t)
    const port = await freePort()
    const path = stage.path('nobody.sock')
    const { server, at } = await startServer(stage, [
      ...['--listener', `0:127.0.0.1:${port}`],
      ...['--listener', `tcp://127.0.0.1:0,unix://${path}`],
      ...['--listener', '0:no-such-host.invalid:80'],
    ])
    const node = await connectNode(stage, at)
    const expected = [
      new RegExp(`^(the node )?refused: nothing listens on 127\\.0\\.0\\.1:${port}$`),
      new RegExp(`^(the node )?refused: nothing listens on ${path}$`),
      /^(the node )?refused: the name in no-such-host\.invalid:80 (is not known|cannot be looked up now)$/,
    ]
    for (const [number, pattern] of expected.entries()) {
      assert.equal(await visit(stage, await boundAt(server, number)), '')
      for (const side of [node, server]) {
        const { code } = await logLine(side, String(pattern), ({ msg }) => pattern.test(msg))
        assert.equal(code, 'PROXY_ERR_DIAL_FAILED')
      }
    }
  })
})
