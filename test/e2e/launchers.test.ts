import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { describe, test } from 'node:test'
import { boundAt, run, SECRET } from '../helpers/e2e/cli.ts'
import { runHere } from '../helpers/e2e/here.ts'
import { startEcho, visit } from '../helpers/e2e/talk.ts'
import { Stage } from '../helpers/system/stage.ts'
import { logged, parseAddress, spec, symportEnvironment } from '../helpers/system/symport.ts'

describe('symport launchers', { concurrency: 2 }, () => {
  test("writes executables that run with the seed's flags, without Node.js on the PATH", async (t) => {
    const stage = new Stage(t)
    const folder = stage.path("it's a folder", 'bin')
    const written = await run(stage, ['launchers', folder])
    assert.deepEqual(written, { status: 0, stdout: `${folder}/server\n${folder}/node\n`, stderr: '' })
    for (const name of ['server', 'node']) assert.equal(statSync(`${folder}/${name}`).mode & 0o777, 0o755)

    const env = symportEnvironment(stage, { PATH: '/nowhere' })
    const mapping = spec('tcp://127.0.0.1:0', await startEcho(stage))
    const state = (name: string): string[] => ['-state', stage.path(name)]
    const server = await stage.start(
      `${folder}/server`,
      ['-host', '127.0.0.1', '-port', '0', '-uuid', SECRET, '-listener', mapping, ...state('server')],
      { env, graceMs: 500 },
    )
    const { port } = parseAddress((await logged(server, 'listening')).address)
    const node = await stage.start(`${folder}/node`, ['-port', String(port), '-uuid', SECRET, ...state('node')], {
      env,
      graceMs: 500,
    })
    await logged(node, 'connected')
    assert.equal(await visit(stage, await boundAt(server)), 'hello')
    // The launcher is replaced by what it starts: a supervisor's signal reaches the server itself.
    server.signal('SIGTERM')
    assert.deepEqual(await server.exited, { status: 0, signal: null })
  })

  test('refuses a folder on the PATH, however it is written, and more than one', async (t) => {
    const stage = new Stage(t)
    mkdirSync(stage.path('bin'))
    const env = symportEnvironment(stage, { PATH: `${stage.path('bin')}/:${process.env.PATH}` })
    for (const folder of [stage.path('bin'), `${stage.path('other')}/../bin/`]) {
      const { status, stdout, stderr } = await runHere(stage, ['launchers', folder], { env })
      assert.deepEqual({ status, stdout }, { status: 2, stdout: '' })
      assert.match(stderr, /^symport: .*bin is on the PATH: a "node" there would stand in for Node\.js$/)
    }
    const many = await runHere(stage, ['launchers', stage.path('a'), stage.path('b')])
    assert.deepEqual(many, { status: 2, stdout: '', stderr: 'symport: launchers takes one folder' })
    assert.deepEqual(readdirSync(stage.path('bin')), [])
  })
})
