import type { Link, Listener } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { serve } from '../sockets/serve.ts'
import { ReadBuffer } from '../sockets/socket-link.ts'
import { removeStale } from '../sockets/stale.ts'
import type { Domain } from './domain.ts'
import { readUnix } from './endpoint-url.ts'

export interface UnixOptions {
  /** How long a server may take to accept, in ms. Default 10,000. */
  dialTimeout?: number
}

/** Domain `unix`: the path of a Unix socket. What an ended program left behind at the path is removed before listening. */
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

    async dial(to, { signal }): Promise<Link> {
      return await dialSocket({ path: to.Addr }, { signal, timeout, name: to.Addr, readBuffer })
    },
  }
}
