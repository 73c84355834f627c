import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { describe, test } from 'node:test'
import {
  coded,
  connectNode,
  keptAtHome,
  logLine,
  logs,
  run,
  SECRET,
  start,
  startNode,
  startServer,
} from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startOnTerminal } from '../helpers/e2e/terminal.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged } from '../helpers/system/symport.ts'

const TOKEN = /symport_[\w-]{64}/

function modes(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, (statSync(`${folder}/${name}`).mode & 0o777).toString(8)]),
  )
}

describe('secrets', { concurrency: 3 }, () => {
  test('a first start prints the command line of the node, and that line connects; the next start keeps the secret', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage, [], { secret: undefined })
    const { command } = await logged(server, 'on the other machine')
    const [program, ...words] = String(command).split(' ')
    assert.equal(program, 'symport')
    assert.deepEqual(words.slice(0, 6), ['node', '--host', '127.0.0.1', '--port', String(at.port), '--pin'])
    const [pin, ...more] = words.slice(6)
    assert.match(String(pin), /^sha256:[0-9a-f]{64}$/)
    assert.deepEqual(more, [])
    const secret = readFileSync(stage.path('server/secret'), 'utf8').trim()
    assert.match(secret, new RegExp(`^${TOKEN.source}$`))
    const own = { secret: '600', 'server-key.pem': '600', 'ca.pem': '600', 'ca-key.pem': '600', 'admin.sock': '600' }
    assert.deepEqual(modes(stage.path('server')), own)
    assert.equal((statSync(stage.path('server')).mode & 0o777).toString(8), '700')

    const node = await start(stage, [...words, '--uuid', secret, '--state', stage.path('node')])
    await logged(node, 'connected')
    assert.deepEqual(modes(stage.path('node')), { 'node-key.pem': '600' })

    const host = ['--host', 'server.example.com', '--port', String(at.port)]
    const uuid = await runHere(stage, ['uuid', ...host, '--state', stage.path('server')])
    assert.deepEqual(uuid, {
      status: 0,
      stdout: `symport node ${host.join(' ')} --pin ${pin} --uuid ${secret}\n`,
      stderr: '',
    })

    await server.stop()
    const again = await startServer(stage, [], { secret: undefined, port: at.port })
    await logged(again.server, '"symport uuid" shows what to run on the other machine')
    for (const { lines } of [server, again.server]) {
      assert.ok(!lines.some((line) => TOKEN.test(line)), 'the log never holds the secret')
    }
    await logged(node, 'server disconnected')
    await logged(
      node,
      'connected',
      node.lines.findIndex((line) => line.includes('server disconnected')),
    )
    assert.deepEqual(keptAtHome(stage), [])
  })

  test('the printed address is one of this machine, never 0.0.0.0', async (t) => {
    const stage = new Stage(t)
    await runHere(stage, ['keygen', '--state', stage.path('server')])
    const { stdout } = await runHere(stage, ['uuid', '--state', stage.path('server')])
    const [, host, port] =
      /^symport node --host (\S+) --port (\d+) --pin sha256:\S+ --uuid symport_\S+\n$/.exec(stdout) ?? []
    const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address))
    assert.ok(own.includes(String(host)), `${host} is an address of this machine`)
    assert.equal(port, '925')
  })

  test('keygen makes a secret once, and says how to go on', async (t) => {
    const stage = new Stage(t)
    const state = ['--state', stage.path('server')]
    const none = await runHere(stage, ['uuid', ...state])
    assert.equal(none.status, 1)
    assert.match(none.stderr, /^symport: there is no secret in .*: start "symport server" once, or "symport keygen"$/)

    const first = await run(stage, ['keygen', ...state])
    assert.equal(first.status, 0, first.stderr)
    assert.match(first.stdout, new RegExp(`^${TOKEN.source}\n$`))
    assert.deepEqual(modes(stage.path('server')), { secret: '600', 'server-key.pem': '600' })

    const second = await runHere(stage, ['keygen', ...state])
    assert.equal(second.status, 1)
    assert.equal(second.stdout, '')
    assert.match(second.stderr, /^symport: .*secret is there already: --force replaces it$/)

    const forced = await runHere(stage, ['keygen', '--force', ...state])
    assert.equal(forced.status, 0, forced.stderr)
    assert.notEqual(forced.stdout, first.stdout)
    const { stdout } = await runHere(stage, ['uuid', ...state])
    assert.ok(stdout.endsWith(` --uuid ${forced.stdout}`))
  })

  test("a server refuses a token of another server's, a node a damaged one, and a secret file that is not there", async (t) => {
    const stage = new Stage(t)
    const { stdout } = await runHere(stage, ['keygen', '--state', stage.path('other')])
    const token = stdout.trim()
    const foreign = await runHere(stage, ['server', '--port', '0', '--uuid', token, '--state', stage.path('server')])
    assert.equal(foreign.status, 2)
    assert.match(foreign.stderr, /^symport: --uuid: this token belongs to another server: [^\n]*$/)
    assert.equal(foreign.stdout, '')

    for (const damaged of [token.slice(0, -1), token.replace(/^(.{20})./, '$1*'), `${token}A`]) {
      const { status, stderr } = await runHere(stage, ['node', '--uuid', damaged, '--state', stage.path('node')])
      assert.equal(status, 2)
      assert.match(stderr, /^symport: --uuid: the token is damaged: copy the whole line of "symport uuid"$/)
    }
    const missing = await runHere(stage, ['node', '--uuid-file', stage.path('none'), '--state', stage.path('node')])
    assert.equal(missing.status, 2)
    assert.match(missing.stderr, /^symport: --uuid-file: cannot read .*none: there is no such file$/)
    assert.throws(() => readdirSync(stage.path('node')), 'nothing was written')
  })

  test("a node with another server's token is refused, and says so", async (t) => {
    const stage = new Stage(t)
    const { stdout } = await runHere(stage, ['keygen', '--state', stage.path('other')])
    await runHere(stage, ['keygen', '--state', stage.path('server')])
    const { at } = await startServer(stage, [], { secret: undefined })
    const node = await startNode(stage, at, [], { secret: stdout.trim() })
    const { level, delay } = await coded(node, 'PROXY_ERR_REFUSED')
    assert.deepEqual({ level, delay }, { level: 'error', delay: 60_000 })
  })

  test('a node on the same machine finds the secret without a flag', async (t) => {
    const stage = new Stage(t)
    await runHere(stage, ['keygen', '--state', stage.path('shared')])
    const { at } = await startServer(stage, [], { secret: undefined, state: 'shared' })
    await connectNode(stage, at, [], { secret: undefined, state: 'shared' })
  })

  test('a node without a secret and without a terminal ends, and names symport uuid', async (t) => {
    const stage = new Stage(t)
    const { status, stdout, stderr } = await run(stage, ['node', '--state', stage.path('node')])
    assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
    assert.match(stderr, /^symport: the secret of 127\.0\.0\.1:925 is missing: "symport uuid" on the server shows.*$/)
    assert.throws(() => readdirSync(stage.path('node')), 'nothing was written')
  })

  test('--uuid-file holds the secret on both sides, also with an end of line', async (t) => {
    const stage = new Stage(t)
    writeFileSync(stage.path('a'), SECRET)
    writeFileSync(stage.path('b'), `${SECRET}\r\n`)
    const { at } = await startServer(stage, ['--uuid-file', stage.path('a')], { secret: undefined })
    await connectNode(stage, at, ['--uuid-file', stage.path('b')], { secret: undefined })
  })

  test('on a terminal a node asks for the secret without showing it, keeps it, and does not ask again', async (t) => {
    const stage = new Stage(t)
    const { server, at } = await startServer(stage)
    const args = ['node', '--host', at.host, '--port', String(at.port), '--state', stage.path('node')]
    const typed = { question: 'Secret of', answer: SECRET }
    const node = await startOnTerminal(t, stage, args, typed)
    if (node === undefined) return
    await logged(server, 'node connected')
    await node.line((line) => (/ connected/.test(line) ? line : undefined), '"connected"')
    const shown = node.lines.join('\n')
    assert.match(
      shown,
      new RegExp(`Secret of 127\\.0\\.0\\.1:${at.port} \\("symport uuid" on the server shows it\\): `),
    )
    assert.ok(!shown.includes(SECRET), 'what is typed is not shown')
    const kept = `secret-for-127.0.0.1_${at.port}`
    assert.deepEqual(modes(stage.path('node')), { [kept]: '600', 'node-key.pem': '600' })
    assert.equal(readFileSync(stage.path('node', kept), 'utf8'), `${SECRET}\n`)
    await node.stop()
    await connectNode(stage, at, [], { secret: undefined })
  })

  test('a secret that other users could read is made private, with one warning', async (t) => {
    const stage = new Stage(t)
    await runHere(stage, ['keygen', '--state', stage.path('server')])
    const before = readFileSync(stage.path('server', 'secret'), 'utf8')
    chmodSync(stage.path('server', 'secret'), 0o644)
    const { server } = await startServer(stage, [], { secret: undefined })
    const warned = logs(server).filter((log) => log.msg.includes('other users could read'))
    assert.deepEqual(
      warned.map(({ level }) => level),
      ['warn'],
    )
    assert.deepEqual(modes(stage.path('server')), { secret: '600', 'server-key.pem': '600', 'admin.sock': '600' })
    assert.equal(readFileSync(stage.path('server', 'secret'), 'utf8'), before)
  })

  test('a kept token that is damaged is an error on both sides, never a secret that somebody chose', async (t) => {
    const stage = new Stage(t)
    const state = stage.path('shared')
    await runHere(stage, ['keygen', '--state', state])
    const token = readFileSync(stage.path('shared', 'secret'), 'utf8').trim()
    writeFileSync(stage.path('shared', 'secret'), `${token.slice(0, -2)}\n`)
    for (const args of [['server', '--host', '127.0.0.1', '--port', '0'], ['node', '--port', '1'], ['uuid']]) {
      const { status, stdout, stderr } = await runHere(stage, [...args, '--state', state], { timeoutMs: 2_000 })
      assert.ok(status === 1 || status === 2, `${args[0]}: ${status}, ${stdout}`)
      assert.equal(stdout, '')
      assert.match(stderr, /^symport: .*shared\/secret.*$/)
    }
  })

  test('a guessable secret on an address that others reach earns one warning', async (t) => {
    const stage = new Stage(t)
    const env = { SYMPORT_UUID: 'testuuid' }
    const server = await start(stage, ['server', '--port', '0', '--state', stage.path('server')], { env })
    await logged(server, 'listening')
    const { level } = await logLine(server, 'the warning', (log) => log.msg.includes('can be guessed'))
    assert.equal(level, 'warn')
  })
})
