import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { describe, test } from 'node:test'
import { connectNode, logLine, logs, run, SECRET, start, startServer } from '../helpers/e2e/cli.ts'
import { refused, startEcho, visit } from '../helpers/e2e/talk.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import { eventually } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, type LogLine, logged, parseAddress, parseLog, symportEnvironment } from '../helpers/system/symport.ts'

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

  test('that was moved away goes on at its old place after SIGHUP, on both sides, as private as it was', async (t) => {
    const stage = new Stage(t)
    const [one, two] = [stage.path('server.log'), stage.path('node.log')]
    const forServer = ['server', '--host', '127.0.0.1', '--port', '0', '--state', stage.path('server')]
    const server = await start(stage, [...forServer, '--log-file', one], { env: { SYMPORT_UUID: SECRET } })
    const { address } = await eventually(async () => lineIn(one, 'listening'))
    const place = ['--server', `tcp://${address}`, '--state', stage.path('node')]
    const node = await start(stage, ['node', ...place, '--log-file', two], { env: { SYMPORT_UUID: SECRET } })
    await eventually(async () => lineIn(two, 'connected'))
    for (const [child, file] of [
      [server, one],
      [node, two],
    ] as const) {
      assert.equal(statSync(file).mode & 0o137, 0, 'nobody else reads it')
      chmodSync(file, 0o600)
      renameSync(file, `${file}.1`)
      child.signal('SIGHUP')
      await eventually(async () => assert.ok(existsSync(file)))
      assert.equal(statSync(file).mode & 0o777, 0o600)
    }
    node.signal('SIGTERM')
    await node.exited
    await eventually(async () => lineIn(one, 'node disconnected'))
    lineIn(two, 'stopped')
    assert.ok(!readFileSync(`${one}.1`, 'utf8').includes('node disconnected'))
  })

  test('is written again after SIGHUP when the disk was full meanwhile', async (t) => {
    if (!existsSync('/dev/full')) {
      t.skip('there is no /dev/full')
      return
    }
    const stage = new Stage(t)
    const [file, listen] = [stage.path('x.log'), `unix://${stage.path('in.sock')}`]
    symlinkSync('/dev/full', file)
    const forward = await start(stage, ['forward', '--log-file', file, `${listen},${await startEcho(stage)}`])
    await up(stage, listen)
    unlinkSync(file)
    forward.signal('SIGHUP')
    await eventually(async () => assert.ok(existsSync(file)))
    forward.signal('SIGTERM')
    assert.deepEqual(await forward.exited, { status: 0, signal: null })
    lineIn(file, 'stopped')
  })

  test('is JSON where nobody looks, and SIGHUP then ends neither a forward nor a node', async (t) => {
    const stage = new Stage(t)
    const listen = `unix://${stage.path('in.sock')}`
    const forward = await start(stage, ['forward', `${listen},${await startEcho(stage)}`])
    const args = ['node', '127.0.0.1:1', '--uuid', SECRET, '--state', stage.path('node')]
    const node = await start(stage, args)
    await logged(forward, 'listener ready')
    await logLine(node, 'that there is no server', ({ level }) => level === 'warn')
    for (const child of [forward, node]) {
      for (let times = 0; times < 2; times++) {
        const from = child.lines.length
        child.signal('SIGHUP')
        await logLine(child, 'that it goes on', ({ msg }) => msg === 'SIGHUP: goes on as before', from)
      }
    }
    assert.equal(await visit(stage, listen), 'hello')
    for (const child of [forward, node]) {
      assert.deepEqual(await child.stop(), { status: 0, signal: null })
      const log = child.lines.map((line): unknown => JSON.parse(line))
      assert.ok(log.every((line) => typeof line === 'object' && line !== null && 'level' in line && 'time' in line))
    }
  })

  test('is there to look at on a terminal, and a forward ends with its terminal', async (t) => {
    const stage = new Stage(t)
    const listen = `unix://${stage.path('in.sock')}`
    const args = ['forward', `${listen},${await startEcho(stage)}`]
    const terminal = await startOnTerminal(t, stage, args, { question: 'nothing is asked', answer: '' })
    if (terminal === undefined) return
    const ready = await terminal.line((line) => (line.includes('listener ready') ? line : undefined), 'the listener')
    assert.match(ready, /^\[\d\d:\d\d:\d\d\] INFO: listener ready/)
    assert.deepEqual(terminal.lines.map(parseLog).filter(Boolean), [], terminal.tail())
    assert.equal(await visit(stage, listen), 'hello')
    // Whoever holds the other end of the terminal.
    terminal.signal('SIGKILL')
    await eventually(async () => assert.ok(await refused(stage, listen)))
  })

  test('has control frames at debug and everything at trace; a reload changes that while it runs', async (t) => {
    const stage = new Stage(t)
    const listen = `unix://${stage.path('in.sock')}`
    const config = stage.path('server.toml')
    const level = (name: string): void =>
      writeFileSync(config, `listener = ["${listen},${target}"]\n[log]\nlevel = "${name}"\n`)
    const target = await startEcho(stage)
    level('info')
    const { server, at } = await startServer(stage, ['--config', config])
    await connectNode(stage, at)
    const during = async (name: string): Promise<LogLine[]> => {
      const from = server.lines.length
      level(name)
      server.signal('SIGHUP')
      await logLine(server, 'the reload', ({ msg }) => msg.startsWith('reload: '), from)
      assert.equal(await visit(stage, listen, 'what is carried'), 'what is carried')
      await eventually(async () => void (await up(stage, listen)))
      return logs(server).slice(from)
    }
    const texts = (lines: LogLine[]): Set<string> => new Set(lines.map(({ msg }) => msg))
    const wire = /^(sent|received) /
    const debug = await during('debug')
    assert.ok(debug.some((line) => line.msg === 'sent open' && line.id === 2 && line.at === target))
    assert.ok(texts(debug).has('received opened') && texts(debug).has('received fin'))
    assert.ok(!texts(debug).has('sent data') && !texts(debug).has('sent a record'))
    const trace = await during('trace')
    assert.ok(trace.some((line) => line.msg === 'received data' && line.length === 'what is carried'.length))
    const numbers = trace.filter(({ msg }) => msg === 'sent a record').map(({ record }) => Number(record))
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => Number(numbers[0]) + index),
    )
    const info = await during('info')
    const after = info.findIndex(({ msg }) => msg.startsWith('reload: '))
    assert.ok(after >= 0 && !info.slice(after).some(({ msg }) => wire.test(msg)))
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

/** The line of a log with this text. */
function lineIn(file: string, msg: string): LogLine {
  const lines = readFileSync(file, 'utf8').split('\n').map(parseLog)
  const found = lines.find((line) => line?.msg === msg)
  assert.ok(found, `"${msg}" stands in ${file}`)
  return found
}
