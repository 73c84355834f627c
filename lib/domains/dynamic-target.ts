import { isIPv6 } from 'node:net'
import { ProxyError } from '../core/errors.ts'
import { formatHostPort, type HostPort, parseHostPort } from './address.ts'

/**
 * What a client has named, as endpoints have it. Names are not looked up here, only looked at.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function formatTarget({ host, port }: HostPort): string {
  // An empty host would be the machine at the other side; a zone, one of its networks.
  if (!/^[\x21-\x7e]+$/.test(host) || host.includes('%')) {
    throw new ProxyError('PROXY_ERR_ADDRESS', 'the target has no name or address that can be looked up')
  }
  return formatHostPort(parseHostPort(isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`))
}
