import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { test } from 'node:test'
import type { Child } from '../helpers/system/child.ts'
import { freePort, sha256, writeRandomFile } from '../helpers/system/net.ts'
import { isRoot, requirePrograms } from '../helpers/system/programs.ts'
import { Stage } from '../helpers/system/stage.ts'
import { type Address, startTunnel } from '../helpers/system/symport.ts'

const MIB = 1024 * 1024

/** An sshd of our own with our own keys. */
async function startSshd(stage: Stage, sshd: string, keygen: string): Promise<{ port: number; sshd: Child }> {
  for (const key of ['host', 'user']) {
    await stage.must(keygen, ['-q', '-t', 'ed25519', '-N', '', '-C', key, '-f', stage.path(key)])
  }
  // Debian's sshd, run by root, wants this folder at every connection; systemd makes it for the service. It stays: another
  // sshd may have come to need it.
  if (isRoot()) mkdirSync('/run/sshd', { mode: 0o755, recursive: true })
  const port = await freePort()
  const config = [
    'ListenAddress 127.0.0.1',
    `Port ${port}`,
    `HostKey ${stage.path('host')}`,
    `AuthorizedKeysFile ${stage.path('user.pub')}`,
    'AuthenticationMethods publickey',
    'PermitRootLogin prohibit-password',
    'StrictModes no',
    // With PAM, an account without a password is not a locked one. Only root can use it.
    `UsePAM ${isRoot() ? 'yes' : 'no'}`,
    'PidFile none',
    'Subsystem sftp internal-sftp',
  ]
  writeFileSync(stage.path('sshd_config'), `${config.join('\n')}\n`)
  const child = await stage.start(sshd, ['-D', '-e', '-f', stage.path('sshd_config')])
  await child.line((line) => (line.includes('Server listening') ? line : undefined), '"Server listening"')
  return { port, sshd: child }
}

/** Options of ssh and scp: nothing from the user's own files, and only our sshd's host key is good. */
function clientOptions(stage: Stage, at: Address): string[] {
  const [type, key] = readFileSync(stage.path('host.pub'), 'utf8').split(' ')
  writeFileSync(stage.path('known_hosts'), `[${at.host}]:${at.port} ${type} ${key}\n`)
  const options = [
    'BatchMode=yes',
    `Port=${at.port}`,
    `User=${userInfo().username}`,
    `IdentityFile=${stage.path('user')}`,
    'IdentitiesOnly=yes',
    'StrictHostKeyChecking=yes',
    `UserKnownHostsFile=${stage.path('known_hosts')}`,
    'ConnectTimeout=15',
  ]
  return ['-F', 'none', ...options.flatMap((option) => ['-o', option])]
}

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
