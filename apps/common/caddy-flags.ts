import { ProxyError } from '../../lib/core/errors.ts'
import { formatHostPort, parseHostPort } from '../../lib/domains/address.ts'
import { shown } from '../../lib/domains/text.ts'
import type { CaddyPlace } from '../../lib/sockets/caddy-api.ts'
import { NetSet, parseIp } from '../../lib/sockets/ip.ts'
import { notEmpty, type StringFlag } from './flags.ts'
import { isLoopbackHost } from './identity.ts'
import type { ListenSettings } from './transport-flags.ts'

/** Where Caddy has it by itself. */
const ADMIN_PORT = 2019

/** Caddy in front, for HTTPS. */
export const CADDY_FLAGS: readonly [StringFlag<'caddy'>, StringFlag<'caddy-server'>] = [
  {
    name: 'caddy',
    kind: 'string',
    value: 'URL',
    help: "The admin API of a Caddy in front: http://127.0.0.1:2019 or unix:///run/caddy/admin.sock. Each name gets a route there while it is here, and Caddy's HTTPS.",
  },
  {
    name: 'caddy-server',
    kind: 'string',
    value: 'NAME',
    help: "Which HTTP server of Caddy's config gets the route. Default: the only one; without any, srv0 is made for it.",
  },
]

export interface CaddySettings {
  readonly place: CaddyPlace
  readonly server: string | undefined
}

/**
 * Undefined if there is no Caddy.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseCaddyFlags(
  values: {
    readonly caddy: string | undefined
    readonly 'caddy-server': string | undefined
    readonly 'acme-email': string | undefined
  },
  { proxyProtocol, trustedProxies }: Pick<ListenSettings['onePort'], 'proxyProtocol' | 'trustedProxies'>,
): CaddySettings | undefined {
  const url = notEmpty(values.caddy, 'caddy')
  const server = notEmpty(values['caddy-server'], 'caddy-server')
  if (url === undefined) {
    if (server !== undefined) throw usage('--caddy-server says nothing without --caddy')
    return undefined
  }
  if (values['acme-email'] !== undefined) {
    throw usage('--caddy and --acme-email are both given: either Caddy gets the certificates, or this server does')
  }
  const place = parseCaddyUrl(url)
  const here = 'host' in place.at && !isLoopbackHost(place.at.host) ? undefined : parseIp('127.0.0.1')
  const trusted = new NetSet((trustedProxies ?? []).filter((net) => net !== 'unix'))
  if (proxyProtocol && here && trusted.has(here)) {
    throw usage('--caddy and --proxy-protocol: Caddy sends no PROXY header, and 127.0.0.1 is one of --trusted-proxies')
  }
  return { place, server }
}

/**
 * `http://127.0.0.1:2019`, `https://host:port`, `unix:///path`.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseCaddyUrl(text: string): CaddyPlace {
  const [, path] = /^unix:\/\/(\/[^\p{C}?#]*[^\p{C}?#/])$/iu.exec(text) ?? []
  if (path !== undefined) return { name: `unix://${path}`, at: { path } }
  const [, scheme = '', authority = ''] = /^(https?):\/\/([^/?#\\@]+)\/?$/i.exec(text) ?? []
  if (authority === '') {
    throw usage(
      `--caddy: ${shown(text)} is no URL of an admin API: write http://127.0.0.1:${ADMIN_PORT} or unix:///path`,
    )
  }
  const secure = scheme.toLowerCase() === 'https'
  const hasPort = /:[^\]]*$/.test(authority)
  const at = readAuthority(hasPort ? authority : `${authority}:${secure ? 443 : ADMIN_PORT}`)
  const name = `${secure ? 'https' : 'http'}://${formatHostPort(at)}`
  if (secure || isLoopbackHost(at.host)) return { name, at: { ...at, secure } }
  throw usage(
    `--caddy: ${name} is another machine, and whoever is on the way there could have Caddy do anything: write https://, or have Caddy on this one`,
  )
}

function readAuthority(text: string): { host: string; port: number } {
  try {
    const at = parseHostPort(text)
    if (at.host !== '') return at
  } catch (cause) {
    throw new ProxyError('PROXY_ERR_USAGE', `--caddy: ${cause instanceof Error ? cause.message : cause}`, { cause })
  }
  throw usage('--caddy: the host is missing')
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
