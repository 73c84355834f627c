import type { Link, Listener } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { serve } from '../sockets/serve.ts'
import { ReadBuffer } from '../sockets/socket-link.ts'
import { removeStale } from '../sockets/stale.ts'
import type { Domain } from './domain.ts'
import { readUnix, splitUnix } from './endpoint-url.ts'
import { proxyHeader } from './proxy-header.ts'

export interface UnixOptions {
  /** How long a server may take to accept, in ms. Default 10,000. */
  dialTimeout?: number
}

/**
 * Domain `unix`: the path of a Unix socket. What an ended program left behind at the path is removed before listening. To
 * forward to, `?proxy=v2` may stand behind it, as for `tcp`.
 */
export function unix(options: UnixOptions = {}): Domain {
  const readBuffer = new ReadBuffer()
  const timeout = options.dialTimeout ?? 10_000
  return {
    name: 'unix',
    read: readUnix,

    async listen(at, context): Promise<Listener> {
      await removeStale(at.Addr)
      const server = await serve({ path: at.Addr }, at.Addr, readBuffer, context)
      return server.listener(at)
    },

    async dial(to, context): Promise<Link> {
      const { from, abort = context.signal } = context
      const { path, proxy } = splitUnix(to.Addr)
      const link = await dialSocket({ path }, { signal: abort, timeout, name: path, readBuffer })
      if (proxy !== undefined) link.write([proxyHeader(proxy, from, undefined)])
      return link
    },
  }
}
