import { isIP } from 'node:net'
import { ProxyError } from '../../lib/core/errors.ts'
import { parsePort } from '../../lib/domains/address.ts'
import { shown } from '../../lib/domains/text.ts'
import { hostName } from '../../lib/domains/web-address.ts'

/** Below which name nodes get names of the web port, and what visitors write to get there. */
export interface PublicDomain {
  /** In lower case: `example.com`. */
  readonly host: string
  /** There if the operator says so, as for a proxy in front; otherwise it is what the server itself has. */
  readonly scheme?: 'http' | 'https' | undefined
  readonly port?: number | undefined
}

/** `checkout` and a dot are to have room in front, in the 253 of RFC 1035. */
const LONGEST = 253 - 64

/**
 * What `--domain` takes: `example.com`, or `https://example.com[:port]`.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseDomain(text: string): PublicDomain {
  const [, scheme, name = '', port] = /^(?:(https?):\/\/)?([^:/]*)(?::(\d*))?\/?$/is.exec(text.trim()) ?? []
  const host = hostName(name)
  if (host === undefined || isIP(host) !== 0 || host.length > LONGEST) {
    throw usage(`--domain: ${shown(text)} is no domain: write example.com, or https://example.com`)
  }
  if (port !== undefined && scheme === undefined) {
    throw usage(`--domain: a port needs a scheme: write https://${host}:${port === '' ? '443' : port}`)
  }
  const url = scheme?.toLowerCase() === 'https' ? 'https' : 'http'
  if (scheme === undefined) return { host }
  return { host, scheme: url, port: port === undefined ? (url === 'https' ? 443 : 80) : readPort(port) }
}

function readPort(text: string): number {
  try {
    return parsePort(text)
  } catch (cause) {
    throw new ProxyError('PROXY_ERR_USAGE', `--domain: ${cause instanceof Error ? cause.message : cause}`, { cause })
  }
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
