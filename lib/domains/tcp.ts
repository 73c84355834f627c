import { isIP } from 'node:net'
import type { DomainPlugin, Link, Listener } from '../core/index.ts'
import { ProxyError } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { serve } from '../sockets/serve.ts'
import { ReadBuffer } from '../sockets/socket-link.ts'
import { formatHostPort, parseHostPort } from './address.ts'
import { resolve } from './resolve.ts'

export interface TcpOptions {
  /** How long one address may take to answer, in ms. Default 10,000. */
  dialTimeout?: number
}

/** A probe of the system finds dead peers of programs that keep a connection open in silence. */
const KEEPALIVE = { keepAlive: true, keepAliveInitialDelay: 60_000 }

/** Domain `tcp`: `host:port`, IPv6 in brackets. An empty host is all interfaces for a listener, else 127.0.0.1. */
export function tcp(options: TcpOptions = {}): DomainPlugin {
  const readBuffer = new ReadBuffer()
  const timeout = options.dialTimeout ?? 10_000
  return {
    name: 'tcp',

    async listen(at, context): Promise<Listener> {
      const { host, port } = parseHostPort(at.Addr, { allowZero: true })
      // Without a host Node.js takes [::], which is IPv4 too, where there is IPv6.
      const where = host === '' ? { port } : { host, port }
      const server = await serve(where, at.Addr, readBuffer, context)
      const address = server.address
      const bound =
        typeof address === 'object' && address ? { host: address.address, port: address.port } : { host, port }
      return server.listener({ Domain: 'tcp', Addr: formatHostPort(bound) })
    },

    resolve,

    async dial(to, { addresses, signal }): Promise<Link> {
      const { host, port } = parseHostPort(to.Addr)
      let failure: unknown
      for (const address of addresses) {
        const name = isIP(host) || host === '' ? formatHostPort({ host: address, port }) : to.Addr
        const dial = { signal, timeout, name, readBuffer }
        try {
          return await dialSocket({ host: address, port, noDelay: true, ...KEEPALIVE }, dial)
        } catch (error) {
          if (signal.aborted) throw error
          failure ??= error
        }
      }
      throw failure ?? new ProxyError('PROXY_ERR_DIAL_FAILED', `${to.Addr} has no address`)
    },
  }
}
