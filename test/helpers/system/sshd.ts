import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import type { Child } from './child.ts'
import { freePort } from './net.ts'
import { isRoot } from './programs.ts'
import type { Stage } from './stage.ts'
import type { Address } from './symport.ts'

/** An sshd of our own with our own keys. */
export async function startSshd(stage: Stage, sshd: string, keygen: string): Promise<{ port: number; sshd: Child }> {
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
export function clientOptions(stage: Stage, at: Address): string[] {
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
