import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, type TestContext, test } from 'node:test'
import { boundAt, connectNode, logLine, run, SECRET, startServer } from '../helpers/e2e/cli.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, logged, spec, symportEnvironment } from '../helpers/system/symport.ts'

const NOBODY = { uid: 65_534, gid: 65_534 }

/** Whether this kernel and this user let a test be somebody who may not have port 925. */
function canBeDenied(t: TestContext): boolean {
  if (process.platform !== 'linux') {
    t.skip('ports below 1024 are for root on Linux')
    return false
  }
  if (Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8')) <= 925) {
    t.skip('net.ipv4.ip_unprivileged_port_start lets everybody have port 925 here')
    return false
  }
  return true
}

describe('what cannot be bound', { concurrency: 3 }, () => {
  test('is one clear error line, and the other listeners go on', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const taken = await startEcho(stage)
    const live = await startEcho(stage, `unix://${stage.path('live.sock')}`)
    writeFileSync(stage.path('file'), 'not a socket')
    const { server, at } = await startServer(stage, [
      ...['--listener', spec(taken, target)],
      ...['--listener', spec(live, target)],
      ...['--listener', spec(`unix://${stage.path('file')}`, target)],
      ...['--listener', spec(`unix://${stage.path('none', 'x.sock')}`, target)],
      ...['--listener', spec('tcp://192.0.2.1:0', target)],
      ...['--listener', spec('tcp://127.0.0.1:0', target)],
    ])
    const address = taken.slice('tcp://'.length)
    const reasons: Record<string, string> = {
      [taken]: `cannot listen on ${address}: the address is in use already`,
      [live]: `cannot listen on ${stage.path('live.sock')}: another program listens there`,
      [`unix://${stage.path('file')}`]: `cannot listen on ${stage.path('file')}: there is a file already, and it is not a socket`,
      [`unix://${stage.path('none', 'x.sock')}`]: `cannot listen on ${stage.path('none', 'x.sock')}: the folder does not exist`,
      'tcp://192.0.2.1:0': 'cannot listen on 192.0.2.1:0: this machine does not have that address',
    }
    for (const [listen, msg] of Object.entries(reasons)) {
      const line = await logLine(server, listen, (log) => log.listen === listen)
      assert.deepEqual(
        { level: line.level, msg: line.msg, code: line.code },
        { level: 'error', msg, code: 'PROXY_ERR_LISTEN_FAILED' },
      )
    }
    await connectNode(stage, at)
    assert.equal(await visit(stage, await boundAt(server)), 'hello')
    assert.equal(readFileSync(stage.path('file'), 'utf8'), 'not a socket')
    assert.equal(await visit(stage, live), 'hello', "the other program's socket is still there")
  })

  test('at a node is one error line on the server, and is asked for again', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const taken = await startEcho(stage)
    const { server, at } = await startServer(stage, [
      ...['--peer_listener', spec(taken, target)],
      ...['--peer_listener', spec('tcp://127.0.0.1:0', target)],
    ])
    const node = await connectNode(stage, at)
    const { level, msg } = await logLine(server, 'the failure', (log) => log.listen === taken && log.level === 'error')
    assert.equal(level, 'error')
    assert.match(msg, /the address is in use already$/)
    await logLine(node, 'the refusal', (log) => log.code === 'PROXY_ERR_LISTEN_FAILED' && log.by === 'node')
    assert.equal(await visit(stage, await boundAt(server)), 'hello')
  })

  test("the server's own port: it ends with 1 and says what is wrong on one line", async (t) => {
    const stage = new Stage(t)
    const { at } = await startServer(stage)
    const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    const args = ['server', '--host', '127.0.0.1', '--port', String(at.port), '--state', stage.path('other')]
    const { status, stdout, stderr } = await run(stage, args, { env })
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' })
    assert.equal(
      stderr.replace(/ \(.*\)$/, ''),
      `symport: cannot listen on 127.0.0.1:${at.port}: the address is in use already`,
    )
  })

  test('port 925 without root: the line says which port to try', async (t) => {
    if (!canBeDenied(t)) return
    const stage = new Stage(t)
    const root = process.getuid?.() === 0
    chmodSync(stage.folder, 0o755)
    const home = stage.path('home')
    mkdirSync(home)
    chmodSync(home, 0o777)
    const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    const user = root ? { user: NOBODY } : {}
    const readable = await stage.run(process.execPath, [CLI, '--version'], { env, ...user }).catch(() => undefined)
    if (readable?.status !== 0) {
      t.skip('the user nobody cannot read this folder')
      return
    }
    const { status, stdout, stderr } = await run(stage, ['server', '--host', '127.0.0.1'], { env, ...user })
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' })
    assert.match(stderr, /^symport: cannot listen on 127\.0\.0\.1:925: ports below 1024 need root: try --port 8925$/)
  })

  test('a state folder that cannot be written: one line that names it, and 1', async (t) => {
    const stage = new Stage(t)
    writeFileSync(stage.path('file'), '')
    const { status, stdout, stderr } = await run(stage, [
      'server',
      '--port',
      '0',
      '--state',
      stage.path('file', 'state'),
    ])
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' })
    assert.match(stderr, /^symport: cannot (read|write) .*file\/state\b.*: .*--state takes another folder\)?$/)
  })

  test('a listener on every interface is said as such', async (t) => {
    const stage = new Stage(t)
    const { server } = await startServer(stage, ['--listener', 'tcp://:0,tcp://:80'])
    const { listen, forward } = await logged(server, 'listener ready')
    assert.match(String(listen), /^tcp:\/\/(\[::\]|0\.0\.0\.0):\d+$/)
    assert.equal(forward, 'tcp://127.0.0.1:80')
  })
})
