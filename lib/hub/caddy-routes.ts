import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import type { ProxyError } from '../core/index.ts'
import { shown } from '../domains/text.ts'
import { caddyError } from '../sockets/caddy-api.ts'

/** A server without a name of its own gets this one, as from Caddy's own adapter. */
const FIRST_SERVER = 'srv0'
const OURS = 'symport-'
/** Of one route. */
const MOST_HOSTS = 5000
/** Node.js closes a connection that nobody uses after 5 s: Caddy has to have left it before that. */
const IDLE = '4s'
/** How long open WebSockets may outlive a change of Caddy's config, where Caddy knows of that (2.7). */
const STREAMS = '24h'

/** The header by which a request of our route is known. What begins like that no target is ever told. */
export const CADDY_HEADER = 'X-Forwarded-Symport'

/** What Caddy is to have. */
export interface WantedRoute {
  /** Tells our route from all others, also those of an older run: `symport-...`. */
  readonly id: string
  /** The HTTP server that has it; undefined: the one that there is. */
  readonly server: string | undefined
  readonly hosts: readonly string[]
  /** Where our own port is, as Caddy writes it: `127.0.0.1:925`, `unix//run/symport.sock`. */
  readonly dial: string
  /** By which we know that a request comes from there. */
  readonly token: string
  /** Whether this Caddy can be told to leave WebSockets alone. */
  readonly streams: boolean
}

/** One change of Caddy's config: below `/config/apps/http`. */
export interface CaddyChange {
  readonly method: 'PUT' | 'POST' | 'PATCH' | 'DELETE'
  /** Escaped. */
  readonly path: string
  readonly body?: unknown
}

export interface CaddyPlan {
  /** The server that has the route, or would have it. */
  readonly server: string
  /** Where visitors find what it serves. */
  readonly scheme: 'http' | 'https'
  readonly port: number
  /** The hosts of our route. */
  readonly hosts: readonly string[]
  /** Hosts for which others have routes there: those are left alone. */
  readonly others: readonly string[]
  /** Hosts that are none to Caddy, or one too many. */
  readonly impossible: readonly string[]
  /** The next one that is needed; when it is made, there may be another one. */
  readonly change: CaddyChange | undefined
}

interface Server {
  readonly name: string
  readonly own: boolean
  readonly listen: readonly string[]
  /** Undefined: there is no list. */
  readonly routes: readonly unknown[] | undefined
  readonly hasTls: boolean
}

interface Http {
  readonly httpPort: number
  readonly httpsPort: number
  readonly servers: readonly Server[]
}

/**
 * What has to be done to `apps.http` of Caddy's config. Nothing in there is trusted to be what it should be, and nothing
 * that is not ours is changed.
 *
 * Ours is one route with the hosts as its matcher: Caddy makes each a subject of its automatic HTTPS by itself. It goes to
 * the front, before what takes any host or `*.suffix`; a host that somebody else's route names is not in it.
 *
 * @throws ProxyError PROXY_ERR_CADDY if there is no server to put it into
 */
export function planRoute(config: unknown, wanted: WantedRoute): CaddyPlan {
  const http = readHttp(config)
  const found = http.servers.flatMap((server) =>
    (server.routes ?? []).flatMap((route, index) => (isOurs(route, wanted) ? [{ server, index, route }] : [])),
  )
  const isEnd = wanted.hosts.length === 0
  const server = (isEnd ? found[0]?.server : undefined) ?? chooseServer(http, wanted)
  const own = found.find((one) => one.server === server && idOf(one.route) === wanted.id)
  const taken = hostsNamed((server?.routes ?? []).filter((route) => !isOurs(route, wanted)))
  const possible = wanted.hosts.filter(isName)
  const free = possible.filter((host) => !taken.has(host))
  const hosts = free.slice(0, MOST_HOSTS).sort()
  const plan = {
    ...{ server: server?.name ?? FIRST_SERVER, hosts },
    others: possible.filter((host) => taken.has(host)),
    impossible: [...wanted.hosts.filter((host) => !isName(host)), ...free.slice(MOST_HOSTS)],
    ...(server ? placeOf(server, http) : ({ scheme: 'https', port: http.httpsPort } as const)),
  }
  const stale = found.find((one) => one !== own) ?? (hosts.length === 0 ? own : undefined)
  if (stale) return { ...plan, change: { method: 'DELETE', path: `${routesOf(stale.server)}/${stale.index}` } }
  if (hosts.length === 0) return { ...plan, change: removalOf(http.servers.find(isEmptyOwn)) }
  const route = routeFor(wanted, hosts)
  if (own) {
    const same = isDeepStrictEqual(own.route, route)
    return {
      ...plan,
      change: same ? undefined : { method: 'PATCH', path: `${routesOf(own.server)}/${own.index}`, body: route },
    }
  }
  return { ...plan, change: server ? insertion(server, route) : creation(http, wanted.id, route) }
}

/** As Caddy has it. Names are checked, and the rest is the server's own; so nothing in there is a placeholder (`{...}`). */
function routeFor({ id, dial, token, streams }: WantedRoute, hosts: readonly string[]): unknown {
  return {
    '@id': id,
    match: [{ host: hosts }],
    handle: [
      {
        handler: 'reverse_proxy',
        upstreams: [{ dial }],
        headers: { request: { set: { [CADDY_HEADER]: [token] } } },
        transport: {
          protocol: 'http',
          keep_alive: { idle_timeout: IDLE, max_idle_conns_per_host: 32, probe_interval: '30s' },
        },
        ...(streams ? { stream_close_delay: STREAMS } : {}),
      },
    ],
    terminal: true,
  }
}

function insertion(server: Server, route: unknown): CaddyChange {
  const path = routesOf(server)
  if (server.routes === undefined) return { method: 'PUT', path, body: [route] }
  // Caddy inserts before what there is only.
  return server.routes.length === 0
    ? { method: 'POST', path, body: route }
    : { method: 'PUT', path: `${path}/0`, body: route }
}

function creation({ httpsPort }: Http, id: string, route: unknown): CaddyChange {
  const body = { '@id': `${id}-server`, listen: [`:${httpsPort}`], routes: [route] }
  return { method: 'PUT', path: `/servers/${FIRST_SERVER}`, body }
}

function removalOf(server: Server | undefined): CaddyChange | undefined {
  return server && { method: 'DELETE', path: pathOf(server) }
}

function isEmptyOwn({ own, routes = [] }: Server): boolean {
  return own && routes.length === 0
}

function pathOf({ name }: Server): string {
  return `/servers/${encodeURIComponent(name)}`
}

function routesOf(server: Server): string {
  return `${pathOf(server)}/routes`
}

/** Of this server; or of one that was in the same place, and has left it there. */
function isOurs(route: unknown, { id, dial }: WantedRoute): boolean {
  const found = idOf(route)
  if (found === id) return true
  if (!found?.startsWith(OURS) || !isObject(route) || !Array.isArray(route.handle)) return false
  const [handler] = route.handle
  const [upstream] = isObject(handler) && Array.isArray(handler.upstreams) ? handler.upstreams : []
  return isObject(upstream) && upstream.dial === dial
}

function idOf(value: unknown): string | undefined {
  return isObject(value) && typeof value['@id'] === 'string' ? value['@id'] : undefined
}

/** Whether it is a name that a matcher takes for itself: no pattern, no placeholder, no address. */
function isName(host: string): boolean {
  return (
    host.length <= 253 &&
    /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/.test(host) &&
    isIP(host) === 0
  )
}

/** The hosts that matchers of these routes name, in routes inside of routes as well. */
function hostsNamed(routes: readonly unknown[]): ReadonlySet<string> {
  const hosts = new Set<string>()
  const rest: unknown[] = [...routes]
  while (rest.length > 0) {
    const value = rest.pop()
    if (isObject(value) && Array.isArray(value.match)) {
      for (const set of value.match) {
        if (!isObject(set) || !Array.isArray(set.host)) continue
        for (const host of set.host) if (typeof host === 'string') hosts.add(host.toLowerCase())
      }
    }
    if (typeof value === 'object' && value !== null) for (const inner of Object.values(value)) rest.push(inner)
  }
  return hosts
}

// --- reading ---

function readHttp(config: unknown): Http {
  if (config === undefined || config === null) return { httpPort: 80, httpsPort: 443, servers: [] }
  if (!isObject(config)) throw unreadable('apps.http')
  const { http_port: http, https_port: https } = config
  const servers = config.servers ?? {}
  if (!isObject(servers)) throw unreadable('apps.http.servers')
  return {
    httpPort: isPort(http) ? http : 80,
    httpsPort: isPort(https) ? https : 443,
    servers: Object.entries(servers).map(([name, server]) => readServer(name, server)),
  }
}

function readServer(name: string, server: unknown): Server {
  if (!isObject(server)) throw unreadable(`the HTTP server ${shown(name)}`)
  const { listen, routes, automatic_https: automatic, tls_connection_policies: policies } = server
  if (routes !== undefined && routes !== null && !Array.isArray(routes)) throw unreadable(`routes of ${shown(name)}`)
  const isOff = isObject(automatic) && automatic.disable === true
  return {
    name,
    own: /^symport-[0-9a-z-]+-server$/.test(idOf(server) ?? ''),
    listen: Array.isArray(listen) ? listen.filter((one) => typeof one === 'string') : [],
    routes: routes ?? undefined,
    hasTls: !isOff || (Array.isArray(policies) && policies.length > 0),
  }
}

/**
 * The one that was named, or else the only one; of several the only one that speaks TLS, or has our route.
 * Undefined: there is none at all.
 */
function chooseServer(http: Http, { id, server: name }: WantedRoute): Server | undefined {
  const { servers } = http
  const server = name === undefined ? onlyOf(http, id) : servers.find((one) => one.name === name)
  if (server && !isAddressable(server.name)) {
    throw caddyError(`Caddy's HTTP server ${shown(server.name)} has a name that its API cannot have in a path`)
  }
  if (server || (name === undefined && servers.length === 0)) return server
  const all = servers
    .slice(0, 10)
    .map((one) => `${shown(one.name).slice(1, -1)} (${one.listen.slice(0, 3).join(', ')})`)
  const list = `${all.join(', ')}${servers.length > 10 ? ' and others' : ''}`
  if (name === undefined) throw caddyError(`Caddy has several HTTP servers: choose one with --caddy-server: ${list}`)
  const there = servers.length === 0 ? 'it has none' : `there ${servers.length === 1 ? 'is' : 'are'} ${list}`
  throw caddyError(`Caddy has no HTTP server ${shown(name)}: ${there}`)
}

function onlyOf(http: Http, id: string): Server | undefined {
  const { servers } = http
  if (servers.length <= 1) return servers[0]
  const secure = servers.filter((server) => placeOf(server, http).scheme === 'https')
  const chosen = servers.filter(({ routes = [] }) => routes.some((route) => idOf(route) === id))
  return secure.length === 1 ? secure[0] : chosen.length === 1 ? chosen[0] : undefined
}

/** It stands in a path between slashes, which Caddy splits after it has taken the escapes out. */
function isAddressable(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\p{C}]/u.test(name)
}

/** Where visitors find it. Caddy speaks plain HTTP at its HTTP port, and TLS at all others. */
function placeOf({ listen, hasTls }: Server, { httpPort, httpsPort }: Http): Pick<CaddyPlan, 'scheme' | 'port'> {
  const ports = listen.flatMap((address) => {
    // A range stands for all its ports.
    const digits = /:(\d{1,5})(?:-\d{1,5})?$/.exec(address)?.[1]
    return digits !== undefined && isPort(Number(digits)) ? [Number(digits)] : []
  })
  const secure = ports.filter((port) => port !== httpPort)
  if (hasTls && (secure.length > 0 || ports.length === 0)) {
    return { scheme: 'https', port: secure.find((port) => port === httpsPort) ?? secure[0] ?? httpsPort }
  }
  return { scheme: 'http', port: ports[0] ?? httpPort }
}

function isPort(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) <= 65_535
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function unreadable(what: string): ProxyError {
  return caddyError(`Caddy's config cannot be read: ${what} is not what it should be`)
}
