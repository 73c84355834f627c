import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../load/sockets.ts'
import type { Processes } from '../processes.ts'
import { describeMissing, findProgram, type Program, requireProgram } from '../programs.ts'
import type { Path, Tunnel } from '../tunnels.ts'

const CIPHER = 'aes128-gcm@openssh.com'
const PRIVILEGE_SEPARATION_FOLDER = '/run/sshd'
const NEEDED: readonly Program[] = ['ssh', 'sshd', 'ssh-keygen']

export function sshMissing(): string | undefined {
  const missing = NEEDED.filter((program) => findProgram(program) === undefined)
  return missing.length === 0 ? undefined : missing.map(describeMissing).join(', ')
}

/** As "OpenSSH_9.2p1", without what the distribution adds. */
export async function sshVersion(processes: Processes): Promise<string | undefined> {
  const ssh = findProgram('ssh')
  if (ssh === undefined) return undefined
  return /OpenSSH_[\w.]+/.exec(await processes.run(ssh, ['-V'], 'ssh -V'))?.[0]
}

/** A private sshd on loopback and `ssh -N -R` to it: the mapped ports are sshd's, the client dials the targets. */
export async function openSsh(processes: Processes, targets: readonly number[], path: Path): Promise<Tunnel> {
  const folder = processes.folder()
  const user = userInfo().username
  const hostKey = join(folder, 'host-key')
  const userKey = join(folder, 'user-key')
  for (const key of [hostKey, userKey]) {
    await processes.run(requireProgram('ssh-keygen'), ['-q', '-t', 'ed25519', '-N', '', '-f', key], 'ssh-keygen')
  }
  const port = await freePort()
  writeFileSync(join(folder, 'authorized_keys'), readFileSync(`${userKey}.pub`), { mode: 0o600 })
  writeFileSync(join(folder, 'sshd_config'), sshdConfig(folder, hostKey, port))
  if (process.getuid?.() === 0 && !existsSync(PRIVILEGE_SEPARATION_FOLDER)) {
    mkdirSync(PRIVILEGE_SEPARATION_FOLDER, { mode: 0o755 })
    // It stays: another sshd on the machine may need it by now.
  }

  const sshd = processes.start(requireProgram('sshd'), ['-D', '-e', '-f', join(folder, 'sshd_config')], 'sshd')
  await sshd.waitFor('Server listening', (line) => (line.startsWith('Server listening') ? true : undefined))
  const entry = await path(port)
  writeFileSync(join(folder, 'known_hosts'), `[127.0.0.1]:${entry} ${readFileSync(`${hostKey}.pub`, 'utf8')}`)
  const ssh = processes.start(requireProgram('ssh'), clientArgs(folder, user, userKey, entry, targets), 'ssh')
  const bound = new Map<number, number>()
  await ssh.waitFor('Allocated port', (line) => {
    const match = /Allocated port (\d+) for remote forward to 127\.0\.0\.1:(\d+)/.exec(line)
    if (match) bound.set(Number(match[2]), Number(match[1]))
    return bound.size === targets.length ? true : undefined
  })
  return {
    name: 'ssh',
    ports: targets.map((target) => bound.get(target) ?? 0),
    pids: { server: sshd.pid, node: ssh.pid },
    // The client first: the process sshd forked for it leads a session of its own, and ends when the client has gone.
    close: async () => {
      await ssh.stop()
      await sshd.stop()
    },
  }
}

function sshdConfig(folder: string, hostKey: string, port: number): string {
  return `${[
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${hostKey}`,
    `PidFile ${join(folder, 'sshd.pid')}`,
    `AuthorizedKeysFile ${join(folder, 'authorized_keys')}`,
    `Ciphers ${CIPHER}`,
    'StrictModes no',
    'UsePAM no',
    'PermitRootLogin yes',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'AllowTcpForwarding yes',
    'LogLevel INFO',
  ].join('\n')}\n`
}

function clientArgs(
  folder: string,
  user: string,
  userKey: string,
  port: number,
  targets: readonly number[],
): readonly string[] {
  const options = [
    'BatchMode=yes',
    'ExitOnForwardFailure=yes',
    'IdentitiesOnly=yes',
    'IdentityAgent=none',
    'StrictHostKeyChecking=yes',
    `UserKnownHostsFile=${join(folder, 'known_hosts')}`,
    'GlobalKnownHostsFile=none',
  ]
  return [
    '-N',
    '-F',
    'none',
    '-c',
    CIPHER,
    '-i',
    userKey,
    '-p',
    String(port),
    ...options.flatMap((option) => ['-o', option]),
    // Port 0: sshd picks, and the client prints which.
    ...targets.flatMap((target) => ['-R', `127.0.0.1:0:127.0.0.1:${target}`]),
    `${user}@127.0.0.1`,
  ]
}
