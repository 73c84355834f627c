import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Programs the bench compares with or measures by, and the Debian package each comes from. */
const PACKAGES = {
  iperf3: 'iperf3',
  wrk: 'wrk',
  nginx: 'nginx-light',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  sshd: 'openssh-server',
} as const

export type Program = keyof typeof PACKAGES

/** The absolute path of a program (sshd insists on being called by one), or undefined. */
export function findProgram(program: Program): string | undefined {
  // sshd and nginx live where an ordinary user's PATH does not look.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin']
  const suffix = process.platform === 'win32' ? '.exe' : ''
  for (const folder of folders) {
    if (folder === '') continue
    const path = join(folder, program + suffix)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this folder.
    }
  }
  return undefined
}

export function requireProgram(program: Program): string {
  const path = findProgram(program)
  if (path === undefined) throw new Error(`${describeMissing(program)} is missing`)
  return path
}

export function describeMissing(program: Program): string {
  return process.platform === 'linux' ? `${program} (Debian package ${PACKAGES[program]})` : program
}
