import { type Abortable, type Link, ProxyError } from '../../lib/core/index.ts'
import { formatHostPort, type HostPort, parseHostPort } from '../../lib/domains/address.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import type { LinkListener, ProxyTarget, Verify, Via } from '../../lib/index.ts'
import type { OnePortOptions } from '../../lib/transports/one-port.ts'
import { dialTcp, listenTcp, type TcpAddress } from '../../lib/transports/tcp.ts'
import { dialUnix, listenUnix } from '../../lib/transports/unix.ts'
import { dialTcpVia, viaFromEnvironment } from '../../lib/transports/via-proxy.ts'
import { DEFAULT_PATH, type DialSettings } from './transport-flags.ts'

export const DEFAULT_PORT = 925

/** Where a main connection travels: what a node dials, or a server listens on. */
export interface Place {
  /** For people: `server.example.com:925`, `wss://server.example.com:443/symport`. */
  readonly name: string
  readonly host: string
  readonly port: number | undefined
  dial(options: Abortable): Promise<Link>
  /** With `onePort`, TLS and HTTP come in at the same port. */
  listen(onLink: (link: Link) => void, onePort?: OnePortOptions): Promise<LinkListener>
}

export interface PlaceOptions {
  /** The port that was asked for apart, as by `--port`; the text may name one instead, not as well. */
  port: number | undefined
  /** Whether port 0 and an empty host are allowed, as for listening. */
  listening?: boolean
  /** What the flags of a node say about dialling. Default: CAs that this machine trusts, and the environment's proxy. */
  dialling?: DialSettings | undefined
}

/** A new transport is one more line. */
const SCHEMES: Record<string, (rest: string, options: PlaceOptions) => Place> = {
  tcp: tcpPlace,
  tls: tlsPlace,
  ws: (rest, options) => webPlace('ws', rest, options),
  wss: (rest, options) => webPlace('wss', rest, options),
  unix: unixPlace,
}

/** Reads `host`, `host:port` or a URL. */
export function parsePlace(text: string, flag: string, options: PlaceOptions): Place {
  const match = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/(.*)$/s.exec(text)
  const scheme = match?.[1]?.toLowerCase() ?? 'tcp'
  const make = Object.hasOwn(SCHEMES, scheme) ? SCHEMES[scheme] : undefined
  if (!make) {
    const close = nearest(scheme, Object.keys(SCHEMES))
    const advice = close ? `did you mean ${close}://?` : `known are ${Object.keys(SCHEMES).join(', ')}`
    throw new ProxyError('PROXY_ERR_USAGE', `${flag}: unknown transport ${shown(scheme)}: ${advice}`)
  }
  try {
    return make(match?.[2] ?? text, options)
  } catch (error) {
    const problem = ProxyError.from(error, 'PROXY_ERR_USAGE')
    throw new ProxyError('PROXY_ERR_USAGE', `${flag}: ${problem.message}`, { cause: error })
  }
}

function tcpPlace(rest: string, options: PlaceOptions): Place {
  const at = address(rest, DEFAULT_PORT, options)
  // The environment's proxies are for the web: they seldom let anything else through.
  const via = options.dialling?.via === 'none' ? undefined : options.dialling?.via
  return {
    ...at,
    name: formatHostPort(at),
    dial: (dial) => (via ? dialTcpVia(at, { ...dial, via }) : dialTcp(at, dial)),
    listen: (onLink, onePort) => (onePort ? listenOnePort(at, onePort, onLink) : listenTcp(at, onLink)),
  }
}

function tlsPlace(rest: string, options: PlaceOptions): Place {
  if (options.listening) throw onOnePort()
  const at = address(rest, DEFAULT_PORT, options)
  const settings = { verify: verifyOf(options), via: viaFor({ ...at, scheme: 'tls' }, options) }
  return dialOnly(`tls://${formatHostPort(at)}`, at, async (dial) => {
    const { dialTls } = await import('../../lib/transports/tls.ts')
    return await dialTls(at, { ...dial, ...settings })
  })
}

function webPlace(scheme: 'ws' | 'wss', rest: string, options: PlaceOptions): Place {
  if (options.listening) throw onOnePort()
  const verify = verifyOf(options)
  if (scheme === 'ws' && verify.by !== 'system') {
    const flag = verify.by === 'pin' ? '--pin' : '--ca'
    throw new ProxyError('PROXY_ERR_USAGE', `${flag} is about a certificate, and ws:// has none: is it wss://?`)
  }
  const [, authority = '', path = ''] = /^([^/?#]*)(.*)$/s.exec(rest) ?? []
  if (!/^(\/[^\s\p{C}#]*)?$/u.test(path)) {
    throw new ProxyError(
      'PROXY_ERR_USAGE',
      `the path begins with /, as ${DEFAULT_PATH} does, and has no spaces and no #`,
    )
  }
  const user = authority.slice(0, authority.lastIndexOf('@') + 1)
  const at = address(authority.slice(user.length), scheme === 'ws' ? 80 : 443, options)
  const where = `${formatHostPort(at)}${path === '' ? DEFAULT_PATH : path}`
  if (!URL.canParse(`${scheme}://${user}${where}`)) throw new ProxyError('PROXY_ERR_USAGE', 'that is no URL')
  const settings = { verify, via: viaFor({ ...at, scheme }, options) }
  // Its name is without the name and password that may stand in the URL.
  return dialOnly(`${scheme}://${where}`, at, async (dial) => {
    const { dialWebSocket } = await import('../../lib/transports/websocket.ts')
    return await dialWebSocket(`${scheme}://${user}${where}`, { ...dial, ...settings })
  })
}

function dialOnly(name: string, at: HostPort, dial: Place['dial']): Place {
  return { ...at, name, dial, listen: () => Promise.reject(onOnePort()) }
}

function onOnePort(): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', 'a server takes TLS and WebSockets on its one port: write tcp://HOST:PORT')
}

function unixPlace(path: string): Place {
  if (!path.startsWith('/')) throw new ProxyError('PROXY_ERR_USAGE', 'a Unix socket is unix:///absolute/path')
  return {
    name: `unix://${path}`,
    host: '',
    port: undefined,
    dial: (dial) => dialUnix(path, dial),
    listen: (onLink, onePort) => (onePort ? listenOnePort({ path }, onePort, onLink) : listenUnix(path, onLink)),
  }
}

function address(rest: string, defaultPort: number, { port, listening = false }: PlaceOptions): HostPort {
  const trimmed = rest.endsWith('/') ? rest.slice(0, -1) : rest
  // A bare IPv6 address has colons and no port.
  const bare = /:.*:/.test(trimmed) && !trimmed.startsWith('[')
  const hasPort = !bare && /:[^\]]*$/.test(trimmed)
  const whole = bare ? `[${trimmed}]` : trimmed
  if (hasPort && port !== undefined)
    throw new ProxyError('PROXY_ERR_USAGE', `${rest} has a port, and --port is given: keep one`)
  const at = parseHostPort(hasPort ? whole : `${whole}:${port ?? defaultPort}`, { allowZero: listening })
  if (at.host === '' && !listening) throw new ProxyError('PROXY_ERR_USAGE', 'the host is missing')
  return at
}

function verifyOf({ dialling }: PlaceOptions): Verify {
  return dialling?.verify ?? { by: 'system' }
}

/** The proxy on the way to a web port. */
function viaFor(target: ProxyTarget, { dialling }: PlaceOptions): Via | undefined {
  if (dialling?.via === 'none') return undefined
  return dialling?.via ?? viaFromEnvironment(target, process.env)
}

/** Loaded when called for: a node starts without it. */
async function listenOnePort(
  at: TcpAddress | { path: string },
  options: OnePortOptions,
  onLink: (link: Link) => void,
): Promise<LinkListener> {
  const onePort = await import('../../lib/transports/one-port.ts')
  return await onePort.listenOnePort(at, options, onLink)
}
