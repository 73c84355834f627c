import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { formatHostPort, type HostPort, parseHostPort } from './address.ts'
import type { Role } from './domain.ts'
import { shown } from './text.ts'

/** Versions of the PROXY protocol. */
export type ProxyVersion = 'v1' | 'v2'

/** Who is dialled, and whether they are told for whom. */
export interface TcpTarget extends HostPort {
  /** A PROXY header comes first, with the address of the visitor. Default: none. */
  readonly proxy?: ProxyVersion | undefined
}

/**
 * An address of the domain `tcp`: `host:port`, and for one to forward to perhaps `?proxy=v2` (or `v1`).
 *
 * @throws ProxyError PROXY_ERR_SPEC, PROXY_ERR_ADDRESS
 */
export function readTcp({ Domain, Addr }: Endpoint, role: Role): Endpoint {
  const { place, option } = splitProxy(Addr, role)
  return { Domain, Addr: `${readHostPort(place, Domain, role)}${option}` }
}

/** `host:port`, normalised. */
export function readHostPort(addr: string, domain: string, role: Role): string {
  if (addr.includes('@')) {
    throw new ProxyError(
      'PROXY_ERR_SPEC',
      `user information ("…@") is not known here: write ${domain}://host:port without it`,
    )
  }
  const { host, port } = parseHostPort(addr, { allowZero: role === 'listen' })
  return formatHostPort({ host: host === '' && role === 'forward' ? '127.0.0.1' : host, port })
}

/** @throws ProxyError PROXY_ERR_ADDRESS */
export function parseTcp(addr: string): TcpTarget {
  const { place, proxy } = splitProxy(addr, 'forward')
  return { ...parseHostPort(place), ...(proxy === undefined ? {} : { proxy }) }
}

/**
 * Takes `?proxy=v2` off, for whoever can send a PROXY header. `option` is it as it is written.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
function splitProxy(
  addr: string,
  role: Role,
): { readonly place: string; readonly option: string; readonly proxy?: ProxyVersion | undefined } {
  const [, place, name = '', value = ''] = /^([^?]*)\?([^=]*)=?(.*)$/s.exec(addr) ?? []
  if (place === undefined) return { place: addr, option: '' }
  if (name !== 'proxy') throw bad(`unknown option ${shown(name)}: only proxy is known here, as in host:port?proxy=v2`)
  if (role === 'listen') throw bad('proxy is for where connections go, and not for where they come in')
  if (value !== 'v1' && value !== 'v2') throw bad(`proxy=${shown(value)} is not known: write proxy=v2, or proxy=v1`)
  return { place, option: `?proxy=${value}`, proxy: value }
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
