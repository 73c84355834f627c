import { type Link, type Listener, ProxyError } from '../core/index.ts'
import type { Domain } from './domain.ts'
import { readHttp } from './dynamic-address.ts'
import type { DynamicOptions } from './dynamic-server.ts'

/**
 * Domain `http`: an HTTP proxy to listen on (CONNECT, and requests in absolute form), whose clients name their targets.
 * `[bind]:port`, then perhaps `?user=NAME&password_file=PATH`. Written as what is forwarded to, it reads as `tcp`.
 */
export function httpProxy(options: DynamicOptions = {}): Domain {
  return {
    name: 'http',
    carries: 'requests',
    read: readHttp,

    async listen(at, context): Promise<Listener> {
      const { listenDynamic } = await import('./dynamic-server.ts')
      return await listenDynamic(at, context, options)
    },

    /** It can be written, and has become another domain by then. */
    async dial(to): Promise<Link> {
      throw new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', `${to.Domain} cannot be forwarded to here: it reads as tcp`)
    },
  }
}
