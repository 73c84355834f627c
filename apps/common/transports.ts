import { formatHostPort, parseHostPort } from '../../lib/domains/address.ts'
import { nearest } from '../../lib/domains/nearest.ts'
import { shown } from '../../lib/domains/text.ts'
import {
  type Abortable,
  dialTcp,
  dialUnix,
  type Link,
  type LinkListener,
  listenTcp,
  listenUnix,
  ProxyError,
} from '../../lib/index.ts'

export const DEFAULT_PORT = 925

/** Where a main connection travels: what a node dials, or a server listens on. */
export interface Place {
  /** For people: `server.example.com:925`. */
  readonly name: string
  readonly host: string
  readonly port: number | undefined
  dial(options: Abortable): Promise<Link>
  listen(onLink: (link: Link) => void): Promise<LinkListener>
}

export interface PlaceOptions {
  /** The port that was asked for apart, as by `--port`; the text may name one instead, not as well. */
  port: number | undefined
  /** Whether port 0 and an empty host are allowed, as for listening. */
  listening?: boolean
}

/** A new transport is one more line. */
const SCHEMES: Record<string, (rest: string, options: PlaceOptions) => Place> = {
  tcp: tcpPlace,
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

function tcpPlace(rest: string, { port, listening = false }: PlaceOptions): Place {
  const trimmed = rest.endsWith('/') ? rest.slice(0, -1) : rest
  // A bare IPv6 address has colons and no port.
  const bare = /:.*:/.test(trimmed) && !trimmed.startsWith('[')
  const hasPort = !bare && /:[^\]]*$/.test(trimmed)
  const whole = bare ? `[${trimmed}]` : trimmed
  if (hasPort && port !== undefined)
    throw new ProxyError('PROXY_ERR_USAGE', `${rest} has a port, and --port is given: keep one`)
  const at = parseHostPort(hasPort ? whole : `${whole}:${port ?? DEFAULT_PORT}`, { allowZero: listening })
  if (at.host === '' && !listening) throw new ProxyError('PROXY_ERR_USAGE', 'the host is missing')
  return {
    ...at,
    name: formatHostPort(at),
    dial: (options) => dialTcp(at, options),
    listen: (onLink) => listenTcp(at, onLink),
  }
}

function unixPlace(path: string): Place {
  if (!path.startsWith('/')) throw new ProxyError('PROXY_ERR_USAGE', 'a Unix socket is unix:///absolute/path')
  return {
    name: `unix://${path}`,
    host: '',
    port: undefined,
    dial: (options) => dialUnix(path, options),
    listen: (onLink) => listenUnix(path, onLink),
  }
}
