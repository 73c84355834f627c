import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { lstatSync } from 'node:fs'
import { describe, test } from 'node:test'
import { boundAt, coded, keptAtHome, logLine, run, start } from '../helpers/e2e/cli.ts'
import { bulk, closed, echo, hashed, open, refused, startEcho, startHasher, visit } from '../helpers/e2e/talk.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, spec } from '../helpers/system/symport.ts'

/** Leaves a socket file behind that nobody listens on, as a killed program does. */
function leaveStale(path: string): void {
  const code = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', code, path])
  assert.ok(lstatSync(path).isSocket())
}

describe('symport forward', { concurrency: 3 }, () => {
  test('takes several specs in one process, tcp and unix, also over a stale socket file', async (t) => {
    const stage = new Stage(t)
    const tcpEcho = await startEcho(stage)
    const hasher = await startHasher(stage)
    const stale = stage.path('stale.sock')
    leaveStale(stale)
    const forward = await start(stage, [
      'forward',
      `0:${tcpEcho.slice('tcp://'.length)}`,
      `unix://${stale},${hasher}`,
      spec('tcp://127.0.0.1:0', `unix://${stale}`),
    ])
    const { sent, received } = await bulk(stage, await boundAt(forward, 0), 3 * 1024 * 1024)
    assert.equal(received, sent)
    for (const listen of [`unix://${stale}`, await boundAt(forward, 2)]) {
      const { expected, answer } = await hashed(stage, listen, 1024 * 1024)
      assert.equal(answer, expected)
    }
    assert.deepEqual(keptAtHome(stage), [], 'it keeps no state')
  })

  test('a spec that cannot bind is an error line, and the others go on; none at all is 1', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const taken = await startEcho(stage)
    const forward = await start(stage, ['forward', spec(taken, target), spec('tcp://127.0.0.1:0', target)])
    assert.equal(await visit(stage, await boundAt(forward)), 'hello')
    const { level, msg } = await logLine(forward, 'the error', (log) => log.listen === taken)
    assert.equal(level, 'error')
    assert.match(msg, /^cannot listen on 127\.0\.0\.1:\d+: the address is in use already$/)

    const { status, stderr } = await run(stage, ['forward', spec(taken, target)])
    assert.deepEqual({ status, stderr }, { status: 1, stderr: '' })
  })

  test('nothing behind the target closes the visitor, with a line in the log', async (t) => {
    const stage = new Stage(t)
    const port = await freePort()
    const forward = await start(stage, ['forward', `0:127.0.0.1:${port}`])
    assert.equal(await visit(stage, await boundAt(forward)), '')
    const { msg } = await coded(forward, 'PROXY_ERR_DIAL_FAILED')
    assert.equal(msg, `nothing listens on 127.0.0.1:${port}`)
  })

  test('SIGTERM ends it with 0, removes its socket file, and a connection that is open ends with it', async (t) => {
    const stage = new Stage(t)
    const path = stage.path('x.sock')
    const forward = await start(stage, ['forward', `unix://${path},${await startEcho(stage)}`])
    await logged(forward, 'listener ready')
    const socket = await open(stage, `unix://${path}`)
    await echo(socket, 'before')
    const over = closed(socket)
    forward.signal('SIGTERM')
    assert.deepEqual(await forward.exited, { status: 0, signal: null })
    await over
    assert.ok(await refused(stage, `unix://${path}`))
    assert.throws(() => lstatSync(path))
  })
})
