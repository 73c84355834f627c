import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { connectNode, run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import { eventually } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, logged, parseAddress, symportEnvironment } from '../helpers/system/symport.ts'

describe('the log', { concurrency: 3 }, () => {
  test('of which the reader goes away costs the log, not the tunnel', async (t) => {
    const stage = new Stage(t)
    const socket = stage.path('in.sock')
    const args = [
      ...['--host', '127.0.0.1', '--port', '0', '--state', stage.path('server')],
      ...['--listener', `unix://${socket},${await startEcho(stage)}`],
    ]
    // head ends after two lines, and the pipe with it; the server's end is its last word, on standard error.
    const line = '{ "$0" "$@"; echo "status $?" >&2; } | { head -n 2; echo gone; }'
    const shell = await stage.start('/bin/sh', ['-c', line, process.execPath, CLI, 'server', ...args], {
      env: symportEnvironment(stage, { SYMPORT_UUID: SECRET }),
      graceMs: 200,
    })
    const { address } = await logged(shell, 'listening')
    await shell.line((text) => (text === 'gone' ? text : undefined), '"gone"')
    const at = parseAddress(address)
    const node = await connectNode(stage, at)
    assert.equal(await visit(stage, `unix://${socket}`), 'hello')
    await node.stop()
    await connectNode(stage, at)
    assert.equal(await visit(stage, `unix://${socket}`), 'hello')
    assert.ok(!shell.lines.some((text) => text.startsWith('status')), shell.tail())
  })

  test('goes to --log-file as JSON lines, appended; standard output then has none', async (t) => {
    const stage = new Stage(t)
    const file = stage.path('logs', 'symport.log')
    const args = [
      'forward',
      '--log-file',
      file,
      'tcp://127.0.0.1:0,tcp://127.0.0.1:1',
      `unix://${stage.path('x')},tcp://:1`,
    ]
    const read = (): { msg: string; level: string }[] =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line))
    for (const times of [1, 2]) {
      const forward = await start(stage, args)
      await up(stage, `unix://${stage.path('x')}`)
      forward.signal('SIGTERM')
      assert.deepEqual(await forward.exited, { status: 0, signal: null })
      assert.deepEqual(forward.lines, [])
      assert.equal(read().filter(({ msg }) => msg === 'listener ready').length, 2 * times)
    }
    assert.ok(read().every(({ level }) => typeof level === 'string'))
  })

  test('that cannot be written is one line and the status 1', async (t) => {
    const stage = new Stage(t)
    mkdirSync(stage.path('folder'))
    for (const file of [stage.path('folder'), '/dev/null/x.log']) {
      const { status, stdout, stderr } = await run(stage, ['forward', '--log-file', file, '0:127.0.0.1:1'])
      assert.deepEqual({ status, stdout }, { status: 1, stdout: '' })
      assert.match(stderr, /^symport: cannot write the log to [^\n]+$/)
    }
  })

  test('on a full disk does not end the process', async (t) => {
    if (!existsSync('/dev/full')) {
      t.skip('there is no /dev/full')
      return
    }
    const stage = new Stage(t)
    const listen = `unix://${stage.path('in.sock')}`
    const forward = await start(stage, ['forward', '--log-file', '/dev/full', `${listen},${await startEcho(stage)}`])
    await up(stage, listen)
    assert.equal(await visit(stage, listen), 'hello')
    forward.signal('SIGTERM')
    assert.deepEqual(await forward.exited, { status: 0, signal: null })
    assert.deepEqual(forward.lines, [])
  })

  test('a reader of the help that goes away is no error', async (t) => {
    const stage = new Stage(t)
    for (const args of [['--help'], ['server', '--help']]) {
      const shell = await stage.run(
        '/bin/sh',
        ['-c', '{ "$0" "$@"; echo "status $?" >&2; } | :', process.execPath, CLI, ...args],
        {
          env: symportEnvironment(stage),
        },
      )
      assert.equal(shell.output, 'status 0')
    }
  })

  test('--log-level says how much of it there is', async (t) => {
    const stage = new Stage(t)
    const target = await startEcho(stage)
    const listen = `unix://${stage.path('in.sock')}`
    const forward = await start(stage, [
      'forward',
      '--log-level',
      'error',
      `${listen},${target}`,
      `${target},${target}`,
    ])
    // The second one cannot listen, and says so after the first one is ready.
    await forward.line((line) => (line.includes('in use already') ? line : undefined), 'the error')
    assert.equal(forward.lines.length, 1)
    const { server } = await startServer(stage, ['--log-level', 'debug'])
    assert.ok(server.running)
  })
})

/** Resolves when somebody listens. There is no line to wait for where the log is elsewhere. */
async function up(stage: Stage, listen: string): Promise<void> {
  await eventually(async () => void (await visit(stage, listen, '')))
}
