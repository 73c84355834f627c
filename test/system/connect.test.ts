import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SECRET, startServer } from '../helpers/e2e/cli.ts'
import { freePort, sha256, writeRandomFile } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { startReadyNode } from '../helpers/system/publish.ts'
import { clientOptions, startSshd } from '../helpers/system/sshd.ts'
import { Stage } from '../helpers/system/stage.ts'
import { CLI, symportEnvironment } from '../helpers/system/symport.ts'

const MIB = 1024 * 1024

test('ssh and scp reach a real sshd with `symport connect` as their ProxyCommand', { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, ['sshd', 'ssh', 'scp', 'ssh-keygen'])
  if (programs === undefined) return
  const { ssh, scp } = programs
  const stage = new Stage(t)
  const { port, sshd } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
  const { at } = await startServer(stage, ['--allow', `127.0.0.1:${port}`])
  await startReadyNode(stage, at, [
    ['-R', `tcp://ssh:pass-w0rd@127.0.0.1:${port}`],
    ['-R', 'tunnel://work:pass-w0rd@'],
    ['--allow', `127.0.0.1:${port}`],
  ])
  const env = symportEnvironment(stage, { SYMPORT_UUID: SECRET })
  const options = (target: string): string[] => {
    const command = [process.execPath, CLI, 'connect', '--server', `tcp://127.0.0.1:${at.port}`]
    const state = ['--state', stage.path('connect-state')]
    const proxy = `ProxyCommand=${[...command, ...state, target].map((word) => `'${word}'`).join(' ')}`
    return [...clientOptions(stage, { host: '127.0.0.1', port }), '-o', proxy]
  }

  await t.test('a channel: a command runs, its exit status comes back', async () => {
    const target = 'tcp://ssh:pass-w0rd@'
    const { status, output } = await stage.run(ssh, [...options(target), '127.0.0.1', 'echo $((6 * 7)); exit 3'], {
      env,
    })
    assert.equal(output, '42', `sshd says:\n${sshd.tail()}`)
    assert.equal(status, 3)
  })

  await t.test('the end of standard input arrives, and the answer after it', async () => {
    const expected = writeRandomFile(stage.path('input'), 5 * MIB + 1)
    const output = await stage.must(ssh, [...options('tcp://ssh:pass-w0rd@'), '127.0.0.1', 'sha256sum'], {
      env,
      from: stage.path('input'),
    })
    assert.equal(output.split(' ')[0], expected)
  })

  await t.test('scp of 20 MiB up and down', async () => {
    const expected = writeRandomFile(stage.path('original'), 20 * MIB)
    const there = `127.0.0.1:${stage.path('uploaded')}`
    const to = options('tcp://ssh:pass-w0rd@')
    await stage.must(scp, ['-q', ...to, stage.path('original'), there], { env })
    assert.equal(await sha256(stage.path('uploaded')), expected)
    await stage.must(scp, ['-q', ...to, there, stage.path('downloaded')], { env })
    assert.equal(await sha256(stage.path('downloaded')), expected)
  })

  await t.test('a target that the server dials', async () => {
    const output = await stage.must(ssh, [...options(`tcp://127.0.0.1:${port}`), '127.0.0.1', 'echo there'], { env })
    assert.equal(output, 'there')
  })

  await t.test('ssh fails, and is told why, with a wrong password, and with a target that is not allowed', async () => {
    for (const [target, why] of [
      ['tcp://ssh:wr0ng-one@', /password/],
      ['tcp://nobody:pass-w0rd@', /nobody/],
      [`tcp://127.0.0.1:${await freePort()}`, /allow/],
    ] as const) {
      const { status, output } = await stage.run(ssh, [...options(target), '127.0.0.1', 'true'], { env })
      assert.equal(status, 255, output)
      assert.match(output, why)
      assert.ok(!/wr0ng|pass-w0rd/.test(output), output)
    }
  })
})
