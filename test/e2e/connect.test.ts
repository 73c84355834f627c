import assert from 'node:assert/strict'
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { connect as connectSocket, createServer, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { connectNode, run, SECRET, startServer } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startRelayed } from '../helpers/e2e/relayed.ts'
import { startEcho, startHasher } from '../helpers/e2e/talk.ts'
import { startTarget } from '../helpers/e2e/target.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import { freePort } from '../helpers/system/net.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, CLI, logged, symportEnvironment } from '../helpers/system/symport.ts'

const MIB = 1024 * 1024

function at({ host, port }: Address): string[] {
  return ['--host', host, '--port', String(port)]
}

/** Starts `symport connect ARGS` with three pipes. */
function connect(stage: Stage, args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [CLI, 'connect', ...args, '--state', stage.path('connect')], {
    env: symportEnvironment(stage, { SYMPORT_UUID: SECRET, ...env }),
  })
  child.stdin.on('error', () => {})
  stage.defer(() => child.kill('SIGKILL'))
  return child
}

interface End {
  readonly status: number | null
  readonly stderr: string
}

async function endOf(child: ChildProcessWithoutNullStreams): Promise<End> {
  const [stderr, [status]] = await Promise.all([text(child.stderr), once(child, 'close')])
  return { status: typeof status === 'number' ? status : null, stderr }
}

/** Runs it to its end with this input. */
async function ask(
  stage: Stage,
  args: readonly string[],
  input: string | Buffer = 'hello',
  env: NodeJS.ProcessEnv = {},
): Promise<End & { readonly stdout: Buffer }> {
  const child = connect(stage, args, env)
  child.stdin.end(input)
  const [stdout, end] = await Promise.all([buffer(child.stdout), endOf(child)])
  return { ...end, stdout }
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** A service that sends a number of bytes and ends, and hands over what it gets then. */
async function startSender(
  stage: Stage,
  bytes: Buffer,
  ends = true,
): Promise<{ target: string; socket: Promise<Socket> }> {
  const server = createServer({ allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = once(server, 'connection').then(([one]: Socket[]) => {
    assert.ok(one)
    one.on('error', () => {})
    stage.defer(() => one.destroy())
    if (ends) one.end(bytes)
    return one
  })
  stage.defer(() => server.close())
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  return { target: `tcp://127.0.0.1:${address.port}`, socket }
}

test('symport connect', { concurrency: 4 }, async (t) => {
  const stage = new Stage(t)
  const { at: where } = await startServer(stage, ['--allow', '127.0.0.1:*'], { state: 'shared' })
  const tests: Promise<void>[] = []
  const one = (name: string, run: (t: TestContext) => Promise<void>): void => {
    tests.push(t.test(name, run))
  }

  one('joins what the server reaches to standard input and output, byte for byte, with half-close', async () => {
    const [echo, hasher] = [await startEcho(stage), await startHasher(stage)]
    const bytes = randomBytes(3 * MIB + 1)
    const [echoed, hashed] = await Promise.all([
      ask(stage, [echo, ...at(where)], bytes),
      ask(stage, [...at(where), hasher], bytes),
    ])
    assert.deepEqual([echoed.status, echoed.stderr, digest(echoed.stdout)], [0, '', digest(bytes)])
    assert.deepEqual([hashed.status, String(hashed.stdout)], [0, `${bytes.length} ${digest(bytes)}`])
  })

  one('the end of what comes ends standard output while input goes on', async () => {
    const bytes = randomBytes(MIB)
    const { target, socket } = await startSender(stage, bytes)
    const child = connect(stage, [target, ...at(where)])
    assert.equal(digest(await buffer(child.stdout)), digest(bytes))
    const far = text(await socket)
    child.stdin.end('and on it goes')
    assert.equal(await far, 'and on it goes')
    assert.deepEqual(await endOf(child), { status: 0, stderr: '' })
  })

  one('joins a channel, whose password may be in the URL, the environment or a file', async () => {
    const echo = await startEcho(stage)
    const node = await connectNode(stage, where, ['-R', echo.replace('tcp://', 'tcp://echo:p%40ss@')])
    await logged(node, 'listener ready')
    const file = stage.path('password')
    writeFileSync(file, 'p@ss\n')
    const [url, environment, fromFile, wrong, nobody] = await Promise.all([
      ask(stage, ['tcp://echo:p%40ss@', ...at(where)]),
      ask(stage, at(where), 'hello', { SYMPORT_CONNECT: 'tcp://echo:p%40ss@' }),
      ask(stage, ['tcp://echo@', '--password-file', file, ...at(where)]),
      ask(stage, ['tcp://echo:wr0ng@', ...at(where)]),
      ask(stage, ['tcp://nobody:p%40ss@', ...at(where)]),
    ])
    for (const { status, stdout, stderr } of [url, environment, fromFile]) {
      assert.deepEqual([status, String(stdout), stderr], [0, 'hello', ''])
    }
    for (const [{ status, stdout, stderr }, why] of [
      [wrong, /^symport: no connection to channel echo by way of [^\n]*: [^\n]*password[^\n]*\n$/],
      [nobody, /^symport: no connection to channel nobody by way of [^\n]*: no node offers channel nobody\n$/],
    ] as const) {
      assert.deepEqual([status, stdout.length], [1, 0])
      assert.match(stderr, why)
      assert.doesNotMatch(stderr, /wr0ng|p@ss|p%40ss/)
    }
  })

  one('what it cannot connect to is one line and status 1, with nothing on standard output', async () => {
    const port = await freePort()
    const name = `${where.host}:${where.port}`
    const nobody = `127.0.0.1:${port}`
    for (const [args, env, why] of [
      [[`tcp://${nobody}`, ...at(where)], {}, `tcp://${nobody} by way of ${name}: nothing listens on ${nobody}`],
      [
        ['tcp://10.1.1.1:1', ...at(where)],
        {},
        `tcp://10.1.1.1:1 by way of ${name}: the server refused: 10.1.1.1:1 is not allowed here (see --allow)`,
      ],
      [[`tcp://${nobody}`, '--host', nobody], {}, `the server ${nobody}: nothing listens on ${nobody}`],
      [
        [`tcp://${nobody}`, ...at(where)],
        { SYMPORT_UUID: 'another' },
        `the server ${name}: the server refused: a wrong secret, or an id it does not know`,
      ],
    ] as const) {
      const { status, stdout, stderr } = await ask(stage, args, 'x', env)
      assert.deepEqual([status, stderr, stdout.length], [1, `symport: no connection to ${why}\n`, 0])
    }
  })

  one('a link that is lost is found again, and no byte with it', async () => {
    const target = await startTarget(stage)
    const { relay, via } = await startRelayed(stage, { server: ['--allow', '127.0.0.1:*'] })
    const child = connect(stage, [target.at, ...at(via)])
    const end = endOf(child)
    const bytes = randomBytes(2 * MIB)
    const received = buffer(child.stdout)
    child.stdin.write(bytes.subarray(0, MIB))
    while (target.sockets.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
    assert.ok(relay.cut('rst') > 0)
    child.stdin.end(bytes.subarray(MIB))
    assert.equal(digest(await received), digest(bytes))
    assert.deepEqual(await end, { status: 0, stderr: '' })
  })

  one('whoever reads slowly slows the sender down, and memory stays as it is', async () => {
    const { target, socket } = await startSender(stage, Buffer.alloc(0), false)
    const child = connect(stage, [target, ...at(where)])
    child.stdin.end()
    let sent = 0
    const pieces = function* (): Generator<Buffer> {
      for (; sent < 48 * MIB; sent += 65_536) yield Buffer.alloc(65_536)
    }
    Readable.from(pieces()).pipe(await socket)
    // Until nothing more is taken.
    for (let before = -1; before !== sent || sent === 0; ) {
      before = sent
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
    assert.ok(sent < 32 * MIB, `${sent} bytes are under way`)
    const rss = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]
    assert.ok(Number(rss) < 250_000, `${rss} kB`)
    assert.equal((await buffer(child.stdout)).length, 48 * MIB)
    assert.equal((await endOf(child)).status, 0)
  })

  one('whoever reads no more ends it, without a word', async () => {
    const target = await startTarget(stage)
    const child = connect(stage, [target.at, ...at(where)])
    const end = endOf(child)
    child.stdin.write('once')
    await once(child.stdout, 'data')
    child.stdout.destroy()
    child.stdin.write('more')
    assert.deepEqual(await end, { status: 0, stderr: '' })
  })

  one('a reset of the target is one line and status 1', async () => {
    const target = await startTarget(stage)
    const child = connect(stage, [target.at, ...at(where)])
    const end = endOf(child)
    child.stdin.write('once')
    await once(child.stdout, 'data')
    target.sockets[0]?.resetAndDestroy()
    const { status, stderr } = await end
    assert.equal(status, 1)
    assert.match(stderr, /^symport: the connection is broken: [^\n]+\n$/)
  })

  one('SIGTERM ends it and what it has joined', async () => {
    const target = await startTarget(stage)
    const child = connect(stage, [target.at, ...at(where)])
    const end = endOf(child)
    child.stdin.write('once')
    await once(child.stdout, 'data')
    const [socket] = target.sockets
    assert.ok(socket)
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    child.kill('SIGTERM')
    assert.deepEqual(await end, { status: 1, stderr: '' })
    await closed
  })

  one('a file can be its input and its output', async () => {
    const echo = await startEcho(stage)
    const bytes = randomBytes(2 * MIB)
    writeFileSync(stage.path('in'), bytes)
    const args = ['connect', echo, ...at(where), '--state', stage.path('connect')]
    const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
    const options = { env, from: stage.path('in'), to: stage.path('out') }
    assert.deepEqual(await stage.run(process.execPath, [CLI, ...args], options), { status: 0, output: '' })
    assert.equal(digest(readFileSync(stage.path('out'))), digest(bytes))
  })

  one('it can be both ends of one socket, as programs have it that start it for their input and output', async () => {
    const hasher = await startHasher(stage)
    const path = stage.path('stdio.sock')
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(path)
    await once(server, 'listening')
    stage.defer(() => server.close())
    const near = connectSocket({ path, allowHalfOpen: true })
    const [far]: Socket[] = await once(server, 'connection')
    assert.ok(far)
    const args = [CLI, 'connect', hasher, ...at(where), '--state', stage.path('connect')]
    const child = spawn(process.execPath, args, {
      env: symportEnvironment(stage, { SYMPORT_UUID: SECRET }),
      stdio: [far, far, 'inherit'],
    })
    stage.defer(() => child.kill('SIGKILL'))
    far.destroy()
    const bytes = randomBytes(MIB)
    near.end(bytes)
    assert.equal(await text(near), `${MIB} ${digest(bytes)}`)
    assert.deepEqual(await once(child, 'close'), [0, null])
  })

  one('the server sends nobody else there, however long it lasts', async () => {
    const target = await startTarget(stage)
    const echo = await startEcho(stage)
    const mapping = ['--listener', `tcp://127.0.0.1:0,${echo}`, '--balance']
    const { server, at: own } = await startServer(stage, ['--allow', '127.0.0.1:*', ...mapping], { state: 'own' })
    const { listen } = await logged(server, 'listener ready')
    await connectNode(stage, own)
    const child = connect(stage, [target.at, ...at(own)])
    child.stdin.write('once')
    await once(child.stdout, 'data')
    for (let i = 0; i < 4; i++) {
      const visitor = connectSocket(Number(String(listen).split(':').at(-1)), '127.0.0.1')
      stage.defer(() => visitor.destroy())
      visitor.end('visit')
      assert.equal(await text(visitor), 'visit')
    }
    child.stdin.end()
    assert.deepEqual(await endOf(child), { status: 0, stderr: '' })
  })

  one('a secret is asked for on the terminal, never on standard input', async (its) => {
    const { status, stderr } = await run(stage, ['connect', 'tcp://a:b@', '--state', stage.path('terminal')])
    assert.deepEqual(
      [status, stderr],
      [2, 'symport: the secret of 127.0.0.1:925 is missing: "symport uuid" on the server shows the command line'],
    )
    const { target } = await startSender(stage, Buffer.from('hello from there\n'))
    const args = ['connect', target, ...at(where), '--state', stage.path('terminal')]
    const terminal = await startOnTerminal(its, stage, args, { question: 'Secret of', answer: SECRET })
    if (terminal === undefined) return
    await terminal.line((line) => (line.includes('hello from there') ? line : undefined), 'what comes')
    assert.ok(!terminal.lines.join('\n').includes(SECRET), 'what is typed is not shown')
    assert.equal(readFileSync(stage.path('terminal', `secret-for-127.0.0.1_${where.port}`), 'utf8'), `${SECRET}\n`)
  })

  one('a wrong command line is one line and status 2, which never shows a password', async () => {
    for (const [args, why] of [
      [[], 'connect where to? For example: symport connect tcp://CHANNEL:PASSWORD@ --host server.example.com'],
      [['tcp://a:pa55@', 'tcp://b@'], 'connect takes one URL: the server is named with --host or --server'],
    ] as const) {
      const { status, stdout, stderr } = await runHere(stage, ['connect', ...args])
      assert.deepEqual([status, stdout], [2, ''], args.join(' '))
      const said = stderr.replace(/^symport: /, '')
      assert.doesNotMatch(said, /pa55|\n/)
      assert.equal(said, why)
    }
  })

  one('a descriptor of standard output that is closed from the start is no error', async () => {
    const echo = await startEcho(stage)
    const input = openSync('/dev/null', 'r')
    const child = spawn('/bin/sh', ['-c', 'exec "$0" "$@" >&-', process.execPath, CLI, 'connect', echo, ...at(where)], {
      env: symportEnvironment(stage, { SYMPORT_UUID: SECRET }),
      stdio: [input, 'pipe', 'inherit'],
    })
    stage.defer(() => child.kill('SIGKILL'))
    closeSync(input)
    assert.deepEqual(await once(child, 'close'), [0, null])
  })

  await Promise.all(tests)
})
