import type { IncomingMessage } from 'node:http'
import { type Endpoint, type ListenContext, type Listener, ProxyError } from '../core/index.ts'
import { Lazy } from '../sockets/lazy.ts'
import type { OnRequest, OnUpgrade } from '../sockets/requests.ts'
import type { Domain } from './domain.ts'
import { parseWeb, readWeb } from './web-address.ts'
import { WebCounter, type WebFigures } from './web-figures.ts'
import type { Inspection } from './web-inspection.ts'
import { WebRoutes, type WebSite } from './web-routes.ts'
import type { WebOptions, WebServing } from './web-serving.ts'

export type { WebOptions } from './web-serving.ts'

/** What is listened on at a web port that somebody else serves: give it what comes in there. */
export interface Web {
  /** `web` and `ws`, which can be listened on. */
  readonly domains: readonly Domain[]
  readonly onRequest: OnRequest
  readonly onUpgrade: OnUpgrade
  /** Whether a listener has the very host that a request names, and not only a path on all of them. */
  claims(request: IncomingMessage): boolean
  /** Whether a listener has what a request asks for: for a web port that has more than this. */
  serves(request: IncomingMessage): boolean
  /** The names of hosts that listeners have at this moment: those that they say, without `*.suffix`. */
  hosts(): readonly string[]
  /** Is called when one of these may have come or gone, until what it answers is called. */
  onHosts(tell: () => void): () => void
  /** Whether a listener has this very host: in lower case, without a port. */
  hasHost(host: string): boolean
  /** The last requests and answers of listeners with `inspect`. */
  inspection(): Promise<Inspection>
  /** What has been asked for since the start, of what somebody listens on. */
  figures(): WebFigures
  /** Lets idle connections to targets go, and takes nothing more. What is under way ends with its sub-connections. */
  close(): void
}

/** The web port's names: `[host][/path]`, each of one listener. Nothing that serves requests is loaded before the first. */
export function createWeb(options: WebOptions = {}): Web {
  const routes = new WebRoutes()
  const counter = new WebCounter()
  const serving = new Lazy<WebServing>(async () => {
    const { WebServing } = await import('./web-serving.ts')
    return new WebServing(routes, options, counter)
  })
  const inspection = new Lazy<Inspection>(async () => {
    const [{ Inspection }, web] = await Promise.all([import('./web-inspection.ts'), serving.get()])
    return new Inspection(web)
  })
  const listeners = new Set<() => void>()
  routes.onHosts = () => {
    for (const tell of listeners) tell()
  }
  let closed = false
  return {
    domains: [domain('web', routes, { isTls: options.isTls }), domain('ws', routes, options)],

    onRequest(request, response, origin) {
      serving
        .get()
        .then((serving) => {
          if (closed || request.socket.destroyed) response.destroy()
          else serving.onRequest(request, response, origin)
        })
        .catch(() => response.destroy())
    },

    onUpgrade(request, socket, head, origin) {
      // It is nobody's but ours now, and may break before there is anybody to look.
      socket.on('error', () => {})
      serving
        .get()
        .then((serving) => {
          if (closed || socket.destroyed) socket.destroy()
          else serving.onUpgrade(request, socket, head, origin)
        })
        .catch(() => socket.destroy())
    },

    claims: (request) => routes.hasHost(request),
    serves: (request) => routes.serves(request),
    hosts: () => routes.hosts(),
    onHosts(tell) {
      listeners.add(tell)
      return () => void listeners.delete(tell)
    },
    hasHost: (host) => routes.names(host),

    inspection: () => inspection.get(),
    figures: () => counter.read(),

    close() {
      closed = true
      serving.ifMade((serving) => serving.close())
    },
  }
}

function domain(
  name: 'web' | 'ws',
  routes: WebRoutes,
  { reserved = [], isTls = () => false }: Pick<WebOptions, 'reserved' | 'isTls'>,
): Domain {
  return {
    name,
    read: readWeb,
    async listen(at, context): Promise<Listener> {
      const bound = readWeb({ Domain: name, Addr: at.Addr })
      if (reserved.some((path) => readWeb({ Domain: name, Addr: path }).Addr === bound.Addr)) {
        throw new ProxyError(
          'PROXY_ERR_LISTEN_FAILED',
          `the server's own WebSocket is at ${bound.Addr}: take another path`,
        )
      }
      const { host } = parseWeb(bound.Addr)
      if (isTls(host)) {
        throw new ProxyError('PROXY_ERR_LISTEN_FAILED', `somebody else has the TLS of ${host}, which ends at a target`)
      }
      return listenAt(bound, name, routes, context)
    },
  }
}

function listenAt(bound: Endpoint, domain: 'web' | 'ws', routes: WebRoutes, context: ListenContext): Listener {
  const site: WebSite = { domain, address: parseWeb(bound.Addr), context }
  if (!routes.add(site)) {
    const place = bound.Addr.replace(/\?.*$/s, '')
    throw new ProxyError('PROXY_ERR_LISTEN_FAILED', `somebody else has ${place} on the web port already`)
  }
  const close = async (): Promise<void> => routes.remove(site)
  return { bound, close, [Symbol.asyncDispose]: close }
}
