import type { Server } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import { createServer, type ServerOptions, type SymportServer } from './create-server.ts'
import { createWeb } from './domains/web.ts'
import { type InsideOptions, listenInside } from './transports/http-server.ts'

export interface AttachOptions extends Omit<ServerOptions, 'listen'>, Omit<InsideOptions, 'names'> {
  /**
   * Addresses and CIDRs of proxies that nodes come through: they stand for many, and their `X-Forwarded-For` is believed.
   * `unix` for what comes over a Unix socket. Default: none.
   */
  readonly trustedProxies?: readonly string[] | undefined
  /**
   * Whether nodes may have names in this web server, if the policy lets them listen on `web` or `ws`: what is registered,
   * and nothing else, is served before the program's own routes. Default false.
   */
  readonly names?: boolean | undefined
}

/**
 * A symport server inside a program's own web server (`node:http`, `node:https`, that of Express or Fastify): nodes come in
 * as WebSockets at `path`, `ws://host/symport` by default. The program's other routes, and WebSockets of its own, are as
 * they were, while it is attached and afterwards. `drain` and `close` detach it; the web server is its owner's to close.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED if something is attached at that path already, PROXY_ERR_PATTERN if a trusted
 *   proxy is no address, and what `createServer` throws
 */
export async function attach(server: Server | HttpsServer, options: AttachOptions): Promise<SymportServer> {
  const web = options.names ? createWeb() : undefined
  return await createServer({
    ...options,
    domains: [...options.domains, ...(web?.domains ?? [])],
    trustedProxies: options.trustedProxies?.filter((net) => net !== 'unix'),
    async listen(onLink) {
      const inside = listenInside(server, { ...options, names: web }, onLink)
      const close = async (): Promise<void> => {
        await inside.close()
        web?.close()
      }
      return { address: inside.address, close }
    },
  })
}
