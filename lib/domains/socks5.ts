import type { Listener } from '../core/index.ts'
import type { Domain } from './domain.ts'
import { readDynamic } from './dynamic-address.ts'
import type { DynamicOptions } from './dynamic-server.ts'

export type { DynamicOptions } from './dynamic-server.ts'

/**
 * Domain `socks5`: a SOCKS5 server (RFC 1928) to listen on, whose clients name their targets. `[bind]:port`, then perhaps
 * `?user=NAME&password_file=PATH`. Names are looked up at the other side.
 */
export function socks5(options: DynamicOptions = {}): Domain {
  return {
    name: 'socks5',
    carries: 'requests',
    read: readDynamic,

    async listen(at, context): Promise<Listener> {
      const { listenDynamic } = await import('./dynamic-server.ts')
      return await listenDynamic(at, context, options)
    },
  }
}
