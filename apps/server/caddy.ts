import { createHash, randomBytes } from 'node:crypto'
import { ProxyError } from '../../lib/core/errors.ts'
import { formatHostPort, parseHostPort } from '../../lib/domains/address.ts'
import type { Web } from '../../lib/domains/web.ts'
import { type CaddyEvent, CaddyNames } from '../../lib/hub/caddy-names.ts'
import { caddyVisitors } from '../../lib/hub/caddy-visitors.ts'
import type { PublicPlace } from '../../lib/hub/publisher.ts'
import { CaddyApi } from '../../lib/sockets/caddy-api.ts'
import type { OnRequest, OnUpgrade } from '../../lib/sockets/requests.ts'
import type { CaddySettings } from '../common/caddy-flags.ts'
import { isLoopbackHost, reachableHost } from '../common/identity.ts'
import type { Logger } from '../common/log.ts'
import type { Place } from '../common/transports.ts'

/** Names in one line of the log. */
const MOST_SHOWN = 10

export interface CaddyOptions {
  readonly settings: CaddySettings
  readonly web: Web
  /** Where the server listens. */
  readonly place: Place
  /** The server's own, which tells its route from others. */
  readonly publicKey: Uint8Array
  readonly trustedProxies: readonly string[] | undefined
  readonly log: Logger
}

/** A Caddy in front. */
export interface Caddy extends AsyncDisposable {
  readonly onRequest: OnRequest
  readonly onUpgrade: OnUpgrade
  placeOf(host: string): Promise<PublicPlace>
  /** The port is open: names may lead to it. */
  listening(address: string): void
}

/** @throws ProxyError PROXY_ERR_USAGE if Caddy cannot be told where this server listens */
export function openCaddy({ settings, web, place, publicKey, trustedProxies, log }: CaddyOptions): Caddy {
  // What is wrong with it is said before anything is started.
  if (place.port === undefined) dialOf(place, '', settings)
  const api = new CaddyApi(settings.place)
  const token = randomBytes(24).toString('hex')
  let names: CaddyNames | undefined
  const unsubscribe = web.onHosts(() => names?.changed())
  return {
    ...caddyVisitors({ token, trustedProxies, onRequest: web.onRequest, onUpgrade: web.onUpgrade }),

    placeOf: async (host) => (await names?.placeOf(host)) ?? { scheme: 'https', port: 443 },

    listening(address) {
      names ??= new CaddyNames(api, {
        ...{ token, server: settings.server, dial: dialOf(place, address, settings) },
        id: `symport-${createHash('sha256').update(publicKey).digest('hex').slice(0, 16)}`,
        hosts: web.hosts,
        onEvent: (event) => tell(log, settings, event),
      })
      names.start()
    },

    async [Symbol.asyncDispose]() {
      unsubscribe()
      if (names) await names[Symbol.asyncDispose]()
      else api.close()
    },
  }
}

/**
 * Where Caddy finds this server, as Caddy writes it.
 *
 * @throws ProxyError PROXY_ERR_USAGE if Caddy would read something else
 */
export function dialOf(place: Place, address: string, { place: { at } }: CaddySettings): string {
  if (place.port === undefined) {
    const path = place.name.replace(/^unix:\/\//, '')
    if (!/[{}|]/.test(path)) return `unix/${path}`
    throw new ProxyError('PROXY_ERR_USAGE', '--caddy: Caddy takes a { or | in the path of a Unix socket for its own')
  }
  const { host, port } = parseHostPort(address)
  if (host !== '' && host !== '0.0.0.0' && host !== '::') return formatHostPort({ host, port })
  const isHere = !('host' in at) || isLoopbackHost(at.host)
  return formatHostPort({ host: isHere ? '127.0.0.1' : reachableHost(host), port })
}

function tell(log: Logger, { place: { name: caddy } }: CaddySettings, event: CaddyEvent): void {
  switch (event.type) {
    case 'ready':
      log.info({ caddy, server: event.server, at: `${event.scheme}://NAME:${event.port}` }, 'Caddy serves the names')
      break
    case 'names':
      log.info({ caddy, added: listed(event.added), removed: listed(event.removed) }, 'names in Caddy changed')
      break
    case 'failed':
      log.warn(
        { caddy, code: event.reason.code },
        event.atEnd
          ? `the names stay in Caddy's config: ${event.reason.message}`
          : `${event.reason.message}; tried again until it works`,
      )
      break
    case 'left':
      log.warn(
        { caddy, names: listed(event.hosts) },
        event.why === 'other'
          ? 'Caddy has routes of its own for these names: they do not lead here'
          : 'Caddy cannot have these names, or there are too many: they do not lead here',
      )
      break
  }
}

function listed(names: readonly string[]): string {
  const more = names.length > MOST_SHOWN ? ` and ${names.length - MOST_SHOWN} more` : ''
  return `${names.slice(0, MOST_SHOWN).join(', ')}${more}`
}
