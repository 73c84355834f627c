import { ProxyError } from '../../lib/core/index.ts'
import { type HostPort, parseHostPort } from '../../lib/domains/address.ts'
import { notEmpty } from './flags.ts'

/**
 * Where `--admin` has the API served. What administers is on loopback, unless an address is named.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseAdminAddress(value: string | undefined): HostPort | undefined {
  const text = notEmpty(value, 'admin')
  if (text === undefined) return undefined
  try {
    const at = parseHostPort(/^[0-9]+$/.test(text) ? `:${text}` : text, { allowZero: true })
    return at.host === '' ? { ...at, host: '127.0.0.1' } : at
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new ProxyError('PROXY_ERR_USAGE', `--admin: ${why}`, { cause })
  }
}
