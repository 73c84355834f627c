import { isIP } from 'node:net'
import type { Link, Listener } from '../core/index.ts'
import { ProxyError } from '../core/index.ts'
import { dialSocket } from '../sockets/dial.ts'
import { serve } from '../sockets/serve.ts'
import { ReadBuffer } from '../sockets/socket-link.ts'
import { formatHostPort, parseHostPort } from './address.ts'
import type { Domain } from './domain.ts'
import { proxyHeader } from './proxy-header.ts'
import { resolve } from './resolve.ts'
import { parseTcp, readTcp } from './tcp-address.ts'

export interface TcpOptions {
  /** How long one address may take to answer, in ms. Default 10,000. */
  dialTimeout?: number
}

/** A probe of the system finds dead peers of programs that keep a connection open in silence. */
const KEEPALIVE = { keepAlive: true, keepAliveInitialDelay: 60_000 }

/**
 * Domain `tcp`: `host:port`, IPv6 in brackets. An empty host is all interfaces for a listener, else 127.0.0.1. To forward to
 * also `host:port?proxy=v2`: who is dialled is told first who has come in.
 */
export function tcp(options: TcpOptions = {}): Domain {
  const readBuffer = new ReadBuffer()
  const timeout = options.dialTimeout ?? 10_000
  const read = rememberLast(parseTcp)
  return {
    name: 'tcp',
    read: readTcp,

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

    async resolve({ Domain, Addr }): Promise<readonly string[]> {
      const { host, port } = read(Addr)
      return isIP(host) ? [host] : await resolve({ Domain, Addr: formatHostPort({ host, port }) })
    },

    async dial(to, context): Promise<Link> {
      const { addresses, from, abort = context.signal } = context
      const { host, port, proxy } = read(to.Addr)
      const asked = formatHostPort({ host, port })
      let failure: unknown
      for (const address of addresses) {
        const name = isIP(host) || host === '' ? formatHostPort({ host: address, port }) : asked
        const dial = { signal: abort, timeout, name, readBuffer }
        try {
          const link = await dialSocket({ host: address, port, noDelay: true, ...KEEPALIVE }, dial)
          if (proxy !== undefined) link.write([proxyHeader(proxy, from, { address, port })])
          return link
        } catch (error) {
          if (abort.aborted) throw error
          failure ??= error
        }
      }
      throw failure ?? new ProxyError('PROXY_ERR_DIAL_FAILED', `${asked} has no address`)
    },
  }
}

/** Most connections go where the one before them went. */
function rememberLast<T>(read: (text: string) => T): (text: string) => T {
  let last: { readonly text: string; readonly value: T } | undefined
  return (text) => {
    if (last?.text !== text) last = { text, value: read(text) }
    return last.value
  }
}
