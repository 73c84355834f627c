import type { Socket } from 'node:net'
import { join, type ListenContext, type Listener, ProxyError } from '../core/index.ts'
import { adoptSocket } from '../sockets/socket-link.ts'
import type { Domain } from './domain.ts'
import { type TlsOptions, tls } from './tls.ts'
import { readTls } from './tls-address.ts'
import { hostsFor } from './web-routes.ts'

export interface TlsNamesOptions extends TlsOptions {
  /** Whether a listener of the web port has this very host, or `*.suffix`: it is served there, and its TLS ends there. */
  readonly isWeb?: ((host: string) => boolean) | undefined
}

/** Whose connections they are that come in at a port of TLS, by the name that the client asks for. */
export interface TlsNames {
  /** `tls`, which can be listened on, too. */
  readonly domain: Domain
  /**
   * For `route` of the one port: takes a connection whose name a listener has, and passes on all of it as it is.
   * `caller`: as in `Link`.
   */
  route(
    hello: { readonly serverName?: string | undefined },
    socket: Socket,
    caller: { readonly remote: string | undefined; readonly transport: string },
  ): boolean
  /** Whether a listener has this very host, or `*.suffix`: in lower case. */
  has(host: string): boolean
  /** Whether connections for this host are passed on. */
  takes(host: string): boolean
}

/**
 * TLS that ends at the target: names at a port that tells by the ClientHello who is asked for. What goes through is not
 * looked at, and could not be.
 */
export function createTlsNames(options: TlsNamesOptions = {}): TlsNames {
  const { isWeb = () => false } = options
  const sites = new Map<string, ListenContext>()

  /** The name itself first, then `*.suffix`, the longest first, web names among them. */
  const find = (host: string): ListenContext | undefined => {
    const key = hostsFor(host).find((one) => sites.has(one) || isWeb(one))
    return key === undefined ? undefined : sites.get(key)
  }
  return {
    domain: {
      ...tls(options),
      async listen(at, context): Promise<Listener> {
        const bound = readTls(at, 'listen')
        const host = bound.Addr
        if (sites.has(host) || isWeb(host)) {
          throw new ProxyError('PROXY_ERR_LISTEN_FAILED', `somebody else has ${host} on the web port already`)
        }
        sites.set(host, context)
        const close = async (): Promise<void> => {
          if (sites.get(host) === context) sites.delete(host)
        }
        return { bound, close, [Symbol.asyncDispose]: close }
      },
    },

    route({ serverName }, socket, caller) {
      const context = serverName === undefined ? undefined : find(serverName)
      if (!context) return false
      const link = adoptSocket(socket, { ...caller, head: NOTHING })
      context.open({ from: caller.remote }).then(
        (sub) => join(sub, link),
        () => link.destroy(),
      )
      return true
    },

    has: (host) => sites.has(host),
    takes: (host) => find(host) !== undefined,
  }
}

const NOTHING = new Uint8Array(0)
