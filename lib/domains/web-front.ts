import {
  allowAll,
  type DomainPlugin,
  Domains,
  type Endpoint,
  type ListenContext,
  type ProxyError,
} from '../core/index.ts'
import { localPair } from '../core/local-pair.ts'
import { Lazy } from '../sockets/lazy.ts'
import type { HttpSettings } from './http-settings.ts'
import { openHere } from './open-here.ts'
import { createWeb } from './web.ts'
import type { FrontServer, FrontServerOptions } from './web-front-server.ts'
import type { Inspection } from './web-inspection.ts'

export interface FrontOptions extends FrontServerOptions {
  readonly settings: HttpSettings
  /** What the requests are for, of the plug-in's domain. */
  readonly forward: Endpoint
  /** The target could not be reached for a request. */
  readonly onFailed?: ((reason: ProxyError) => void) | undefined
}

export interface Front {
  /** In the place of the plug-in that was given. */
  readonly plugin: DomainPlugin
  /** See `Web.inspection`. */
  inspection(): Promise<Inspection>
  /** Lets idle connections go. */
  close(): void
}

/**
 * Puts in front of a target, at the side that dials it, what else stands at the server's web port: the same code, and
 * what it knows does not leave this side.
 */
export async function webFront(plugin: DomainPlugin, options: FrontOptions): Promise<Front> {
  const { settings, forward, onFailed } = options
  const over = new AbortController()
  const domains = new Domains([plugin], allowAll)
  const web = createWeb()
  const context: ListenContext = {
    signal: over.signal,
    settings: () => settings,
    forward: () => forward,
    open: async ({ from } = {}) => openHere(domains, forward, { signal: over.signal, from }, onFailed),
  }
  await web.domains.find(({ name }) => name === 'web')?.listen?.({ Domain: 'web', Addr: '/' }, context)
  const server = new Lazy<FrontServer>(async () => {
    const { FrontServer } = await import('./web-front-server.ts')
    return new FrontServer(web, options)
  })
  return {
    plugin: {
      ...plugin,
      async dial(_to, { from }) {
        const serving = await server.get()
        const [near, far] = localPair(from)
        far.accepted()
        serving.take(far, from)
        return near
      },
    },
    inspection: () => web.inspection(),
    close() {
      over.abort()
      web.close()
      server.ifMade((serving) => serving.close())
    },
  }
}
