import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sha256, writeRandomFile } from '../helpers/system/net.ts'
import { requirePrograms } from '../helpers/system/programs.ts'
import { clientOptions, startSshd } from '../helpers/system/sshd.ts'
import { Stage } from '../helpers/system/stage.ts'
import { startTunnel } from '../helpers/system/symport.ts'

const MIB = 1024 * 1024

test('ssh and scp work through the tunnel to a real sshd', { timeout: 180_000 }, async (t) => {
  const programs = requirePrograms(t, ['sshd', 'ssh', 'scp', 'ssh-keygen'])
  if (programs === undefined) return
  const { ssh, scp } = programs
  const stage = new Stage(t)
  const { port, sshd } = await startSshd(stage, programs.sshd, programs['ssh-keygen'])
  const { address } = await startTunnel(stage, 'listener', `tcp://127.0.0.1:${port}`)
  const options = clientOptions(stage, address)

  await t.test('a login runs a command and passes on its exit status', async () => {
    const { status, output } = await stage.run(ssh, [...options, address.host, 'echo $((6 * 7)); exit 3'])
    assert.equal(output, '42', `sshd says:\n${sshd.tail()}`)
    assert.equal(status, 3)
  })

  await t.test('the end of standard input arrives, and the answer after it', async () => {
    const expected = writeRandomFile(stage.path('input'), 5 * MIB + 1)
    const output = await stage.must(ssh, [...options, address.host, 'sha256sum'], { from: stage.path('input') })
    assert.equal(output.split(' ')[0], expected)
  })

  await t.test('scp of 200 MiB up and down keeps every byte', async () => {
    const expected = writeRandomFile(stage.path('original'), 200 * MIB)
    const there = `${address.host}:${stage.path('uploaded')}`
    await stage.must(scp, ['-q', ...options, stage.path('original'), there])
    assert.equal(await sha256(stage.path('uploaded')), expected)
    await stage.must(scp, ['-q', ...options, there, stage.path('downloaded')])
    assert.equal(await sha256(stage.path('downloaded')), expected)
  })
})
