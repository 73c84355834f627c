import { type DomainPlugin, type Endpoint, ProxyError } from '../../lib/core/index.ts'
import { formatHostPort, parseHostPort, parsePort } from '../../lib/domains/address.ts'
import { shown } from '../../lib/domains/text.ts'
import { parseTls, readHttps } from '../../lib/domains/tls-address.ts'
import { parseWeb } from '../../lib/domains/web-address.ts'

export type PublishKind = 'http' | 'tcp' | 'udp'

/** What is published. */
export interface PublishTarget {
  readonly forward: Endpoint
  /** Where a web service has what visitors find at `/`. */
  readonly base: string
  /** For people. */
  readonly name: string
}

const EXAMPLES: Readonly<Record<PublishKind, string>> = {
  http: '3000, 192.168.1.5:8080 or https://127.0.0.1:8443',
  tcp: '22 or 192.168.1.5:5432',
  udp: '51820 or 192.168.1.5:53',
}
const PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 }

/**
 * A port of this machine, `host:port`, or a URL.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function readPublishTarget(kind: PublishKind, text: string): PublishTarget {
  try {
    return read(kind, text.trim())
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new ProxyError('PROXY_ERR_USAGE', `${kind}: ${why}`, { cause: error })
  }
}

function read(kind: PublishKind, text: string): PublishTarget {
  const protocol = kind === 'udp' ? 'udp' : 'tcp'
  if (/^\d+$/.test(text)) return plain(protocol, { host: '127.0.0.1', port: parsePort(text) })
  const [, scheme, rest = ''] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text) ?? []
  if (scheme === undefined) return plain(protocol, parseHostPort(text))
  const name = scheme.toLowerCase()
  if (kind === 'http' && (name === 'http' || name === 'https')) return readUrl(name, rest)
  if (kind !== 'http' && name === kind) return plain(protocol, parseHostPort(rest.replace(/\/$/, '')))
  const other = name === 'http' || name === 'https' ? 'http' : name === 'tcp' || name === 'udp' ? name : undefined
  const advice = other === undefined ? `write ${EXAMPLES[kind]}` : `"symport ${other}" publishes that`
  throw new Error(`${shown(`${scheme}://`)} is not for "symport ${kind}": ${advice}`)
}

function plain(Domain: string, { host, port }: { host: string; port: number }): PublishTarget {
  const name = formatHostPort({ host: host === '' ? '127.0.0.1' : host, port })
  return { forward: { Domain, Addr: name }, base: '/', name }
}

function readUrl(scheme: 'http' | 'https', rest: string): PublishTarget {
  if (rest.includes('@')) throw new Error('user information ("…@") is not known here: leave it out')
  const [, place = '', path = '', query = ''] = /^([^/?#]*)([^?#]*)(.*)$/s.exec(rest) ?? []
  const { base } = parseWeb(path === '' || path === '/' ? '' : `?base=${path.replaceAll('&', '%26')}`)
  const shownBase = base === '/' ? '' : base
  if (scheme === 'https') {
    const forward = readHttps({ Domain: 'https', Addr: `${place}${query}` }, 'forward')
    return { forward, base, name: `https://${formatHostPort(parseTls(forward.Addr))}${shownBase}` }
  }
  if (query !== '') throw new Error('there is nothing behind a ? or # here: visitors write that')
  const at = parseHostPort(/:\d*$/.test(place) ? place : `${place}:${PORTS[scheme]}`)
  const { forward, name } = plain('tcp', at)
  return { forward, base, name: shownBase === '' ? name : `http://${name}${shownBase}` }
}

/** Says whether something answers there, and if not, why. Nothing can be said of UDP. */
export async function targetProblem(
  { forward }: PublishTarget,
  domains: readonly DomainPlugin[],
  signal: AbortSignal,
): Promise<string | undefined> {
  const plugin = domains.find(({ name }) => name === forward.Domain)
  if (!plugin?.dial || forward.Domain === 'udp') return undefined
  try {
    const addresses = (await plugin.resolve?.(forward, { signal })) ?? []
    const target = await plugin.dial(forward, { signal, addresses })
    target.destroy()
    return undefined
  } catch (error) {
    return signal.aborted ? undefined : error instanceof Error ? error.message : String(error)
  }
}
