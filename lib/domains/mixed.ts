import type { Listener } from '../core/index.ts'
import type { Domain } from './domain.ts'
import { readDynamic } from './dynamic-address.ts'
import type { DynamicOptions } from './dynamic-server.ts'

/**
 * Domain `mixed`: `socks5` and `http` on one port; the first byte of a connection tells which. The address is as theirs.
 */
export function mixed(options: DynamicOptions = {}): Domain {
  return {
    name: 'mixed',
    carries: 'requests',
    read: readDynamic,

    async listen(at, context): Promise<Listener> {
      const { listenDynamic } = await import('./dynamic-server.ts')
      return await listenDynamic(at, context, options)
    },
  }
}
