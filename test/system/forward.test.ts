import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { startWebPage } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, startSymport } from '../helpers/system/symport.ts'

test('forward joins a Unix socket to a TCP port for curl and socat', { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'socat'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const page = await startWebPage(stage, 'behind the socket')
  const socket = stage.path('x.sock')
  const forward = await startSymport(stage, ['forward', `unix://${socket},tcp://127.0.0.1:${page}`])
  const { listen } = await logged(forward, 'listener ready')
  assert.equal(listen, `unix://${socket}`)

  const curl = ['-q', '--silent', '--show-error', '--fail', '--max-time', '20', '--unix-socket', socket]
  assert.equal(await stage.must(programs.curl, [...curl, 'http://localhost/']), 'behind the socket')

  writeFileSync(stage.path('request'), 'GET / HTTP/1.0\r\n\r\n')
  // socat ends its sending half after the request: what comes back must still arrive.
  const answer = await stage.must(programs.socat, ['-t', '10', '-', `UNIX-CONNECT:${socket}`], {
    from: stage.path('request'),
  })
  assert.match(answer, /behind the socket$/)

  assert.deepEqual(await forward.stop(), { status: 0, signal: null })
  assert.equal(existsSync(socket), false, 'the socket file is gone afterwards')
})

test('forward joins a TCP port to a Unix socket', { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'socat'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const page = await startWebPage(stage, 'from socat')
  const socket = stage.path('back.sock')
  const socat = await stage.start(programs.socat, ['-d', '-d', `UNIX-LISTEN:${socket},fork`, `TCP:127.0.0.1:${page}`])
  await socat.line((line) => (line.includes('listening on') ? line : undefined), '"listening on"')
  const forward = await startSymport(stage, ['forward', `tcp://127.0.0.1:0,unix://${socket}`])
  const { listen } = await logged(forward, 'listener ready')
  const url = String(listen).replace('tcp://', 'http://')
  assert.equal(await stage.must(programs.curl, ['-q', '-sSf', '--noproxy', '*', '--max-time', '20', url]), 'from socat')
})

test('forward takes the place of a stale socket file, but of nothing else', { timeout: 60_000 }, async (t) => {
  const programs = requirePrograms(t, ['curl', 'socat'])
  if (programs === undefined) return
  const stage = new Stage(t)
  const page = await startWebPage(stage, 'fresh')
  const target = `tcp://127.0.0.1:${page}`
  const fetch = (socket: string): Promise<string> =>
    stage.must(programs.curl, ['-q', '-sSf', '--max-time', '20', '--unix-socket', socket, 'http://localhost/'])

  await t.test('a file that a killed program left behind', async () => {
    const socket = stage.path('stale.sock')
    const left = await stage.start(programs.socat, ['-d', '-d', `UNIX-LISTEN:${socket}`, 'STDIO'])
    await left.line((line) => (line.includes('listening on') ? line : undefined), '"listening on"')
    await left.stop('SIGKILL')
    assert.ok(statSync(socket).isSocket())
    await logged(await startSymport(stage, ['forward', `unix://${socket},${target}`]), 'listener ready')
    assert.equal(await fetch(socket), 'fresh')
  })

  await t.test('its own file after it was killed', async () => {
    const socket = stage.path('own.sock')
    const first = await startSymport(stage, ['forward', `unix://${socket},${target}`])
    await logged(first, 'listener ready')
    await first.stop('SIGKILL')
    assert.ok(statSync(socket).isSocket())
    await logged(await startSymport(stage, ['forward', `unix://${socket},${target}`]), 'listener ready')
    assert.equal(await fetch(socket), 'fresh')
  })

  await t.test('a socket that is in use stays with its owner', async () => {
    const socket = stage.path('used.sock')
    await logged(await startSymport(stage, ['forward', `unix://${socket},${target}`]), 'listener ready')
    const second = await startSymport(stage, ['forward', `unix://${socket},tcp://127.0.0.1:1`])
    assert.equal((await second.exited).status, 1, second.tail())
    assert.equal(await fetch(socket), 'fresh')
  })

  await t.test('an ordinary file is left alone', async () => {
    const file = stage.path('notes.txt')
    writeFileSync(file, 'mine')
    const child = await startSymport(stage, ['forward', `unix://${file},${target}`])
    assert.equal((await child.exited).status, 1, child.tail())
    assert.equal(readFileSync(file, 'utf8'), 'mine')
  })
})
