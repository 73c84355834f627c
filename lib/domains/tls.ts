import type { Link } from '../core/index.ts'
import { formatHostPort } from './address.ts'
import type { Domain } from './domain.ts'
import { resolve } from './resolve.ts'
import { parseTls, readTls } from './tls-address.ts'
import type { TlsDialer, TlsOptions } from './tls-dialer.ts'

export type { TlsOptions } from './tls-dialer.ts'

/**
 * Domain `tls`, which can be forwarded to: TLS 1.2 or later to `host:port`, to whoever the system's CAs vouch for, or as
 * the address says (`TlsAddress`).
 */
export function tls(options: TlsOptions = {}): Domain {
  let dialer: Promise<TlsDialer> | undefined
  return {
    name: 'tls',
    read: readTls,

    async resolve({ Domain, Addr }): Promise<readonly string[]> {
      return await resolve({ Domain, Addr: formatHostPort(parseTls(Addr)) })
    },

    async dial(to, context): Promise<Link> {
      dialer ??= import('./tls-dialer.ts').then(({ TlsDialer }) => new TlsDialer(options))
      return await (await dialer).dial(to, context)
    },
  }
}
