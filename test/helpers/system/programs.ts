import { accessSync, constants, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { TestContext } from 'node:test'

/** The Debian package that each program comes in, for the message about a missing one; `.ci/run` installs them all. */
const PACKAGES: Readonly<Record<string, string>> = {
  Xvfb: 'xvfb',
  'Xorg (xorgxrdp)': 'xorgxrdp',
  Xtigervnc: 'tigervnc-standalone-server',
  caddy: 'caddy',
  certutil: 'libnss3-tools',
  chromium: 'chromium',
  curl: 'curl',
  dig: 'bind9-dnsutils',
  dnsmasq: 'dnsmasq-base',
  git: 'git',
  haproxy: 'haproxy',
  initdb: 'postgresql',
  ip: 'iproute2',
  iperf3: 'iperf3',
  microsocks: 'microsocks',
  nginx: 'nginx-light',
  nft: 'nftables',
  noVNC: 'novnc',
  nsenter: 'util-linux',
  openssl: 'openssl',
  pebble: 'pebble',
  'pebble-challtestsrv': 'pebble',
  postgres: 'postgresql',
  prometheus: 'prometheus',
  promtool: 'prometheus',
  ps: 'procps',
  psql: 'postgresql',
  scp: 'openssh-client',
  socat: 'socat',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  sshd: 'openssh-server',
  supervisorctl: 'supervisor',
  supervisord: 'supervisor',
  'systemd-analyze': 'systemd',
  tinyproxy: 'tinyproxy-bin',
  unshare: 'util-linux',
  useradd: 'passwd',
  xev: 'x11-utils',
  xfreerdp: 'freerdp2-x11',
  xrdp: 'xrdp',
  'xrdp-sesman': 'xrdp',
}

/** Programs that are not found by a name in a folder of programs. */
const FILES: Readonly<Record<string, string>> = {
  'Xorg (xorgxrdp)': '/etc/X11/xrdp/xorg.conf',
  noVNC: '/usr/share/novnc/vnc.html',
}
/** The names that other releases of Debian use. */
const ALSO: Readonly<Record<string, readonly string[]>> = { xfreerdp: ['xfreerdp3'] }

/** Where Debian keeps programs: daemons are not on the PATH of a plain user, PostgreSQL's not on anybody's. */
function folders(): string[] {
  const listed = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  return [...listed, '/usr/local/sbin', '/usr/sbin', '/sbin', ...postgresFolders()]
}

function postgresFolders(): string[] {
  try {
    const versions = readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a))
    return versions.map((version) => join('/usr/lib/postgresql', version, 'bin'))
  } catch {
    return []
  }
}

function usable(file: string, mode: number): boolean {
  try {
    accessSync(file, mode)
    return true
  } catch {
    return false
  }
}

/** The path of a program, or undefined where it is not installed. */
export function findProgram(name: string): string | undefined {
  const file = FILES[name]
  if (file !== undefined) return usable(file, constants.F_OK) ? file : undefined
  const names = [name, ...(ALSO[name] ?? [])]
  const paths = folders().flatMap((folder) => names.map((each) => join(folder, each)))
  return paths.find((path) => usable(path, constants.X_OK))
}

/**
 * Ends a test that cannot run here: on CI (`CI=true`) it fails, elsewhere it is skipped, and the reason is printed.
 * The caller returns when this returns true.
 */
export function cannotRun(t: TestContext, reason: string): true {
  if (process.env.CI === 'true') throw new Error(reason)
  t.skip(reason)
  return true
}

/** The paths of all the programs, or undefined when one is missing: the test has been skipped then, or failed on CI. */
export function requirePrograms<const Name extends string>(
  t: TestContext,
  names: readonly Name[],
): Record<Name, string> | undefined {
  const found: Partial<Record<Name, string>> = {}
  const missing: string[] = []
  for (const name of names) {
    const path = findProgram(name)
    if (path === undefined) missing.push(`${name} (Debian package ${PACKAGES[name] ?? name})`)
    else found[name] = path
  }
  if (missing.length === 0) return found as Record<Name, string>
  cannotRun(t, `missing: ${missing.join(', ')}`)
  return undefined
}

/** Whether the tests run as root: some servers and users can only be made by root. */
export function isRoot(): boolean {
  return process.getuid?.() === 0
}
