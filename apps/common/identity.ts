import { networkInterfaces } from 'node:os'
import { formatHostPort } from '../../lib/domains/address.ts'
import { defaultStateFolder, StateFolder } from '../../lib/store/state-folder.ts'
import { notEmpty } from './flags.ts'
import type { Logger } from './log.ts'

export function stateFolder(path: string | undefined): StateFolder {
  return new StateFolder(notEmpty(path, 'state') ?? defaultStateFolder())
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/i

export function isLoopbackHost(host: string): boolean {
  return LOOPBACK.test(host)
}

/** An address that others can reach this machine at, for a command line to paste: never 0.0.0.0. */
export function reachableHost(host: string): string {
  if (host !== '' && host !== '0.0.0.0' && host !== '::') return host
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  const outside = addresses.filter((address) => !address.internal && !address.address.startsWith('fe80'))
  return (outside.find((address) => address.family === 'IPv4') ?? outside[0])?.address ?? '127.0.0.1'
}

/**
 * What to run on the other machine; without the secret it asks for that. The pin is not used over plain TCP, and there for
 * who changes that to TLS.
 */
export function nodeCommand(host: string, port: number, secret?: string | undefined, pin?: string | undefined): string {
  const pinned = pin === undefined ? '' : ` --pin ${pin}`
  const known = secret === undefined ? '' : ` --uuid ${secret}`
  return `symport node --host ${reachableHost(host)} --port ${port}${pinned}${known}`
}

/** What stands in place of `--host` and `--port` where nothing but a web port gets through. */
export function webPortAdvice(host: string, port: number, path: string): string {
  return `through a web port only: --server wss://${formatHostPort({ host: reachableHost(host), port })}${path}`
}

/** What others could read is private from now on; whoever read it before still knows it. */
export function warnExposed(log: Logger, path: string, exposed: boolean): void {
  if (exposed)
    log.warn(
      { path },
      'other users could read secrets in this folder until now: doc/security.md tells how to replace them',
    )
}
