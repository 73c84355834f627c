import { ProxyError } from './errors.ts'

/** One half of a listener: a domain (a kind of endpoint) and an address that only the domain understands. */
export interface Endpoint {
  readonly Domain: 'tcp' | 'udp' | 'unix' | (string & {})
  readonly Addr: string
}

/** A listener: where connections come in, and where the other end takes them. */
export interface Mapping {
  readonly Listen: Endpoint
  readonly Forward: Endpoint
}

const DOMAIN_LENGTH = 32
const ADDR_LENGTH = 1024

/** Takes an endpoint from outside: checks the shape, the lengths, and drops what it does not know. */
export function checkEndpoint(value: unknown): Endpoint {
  if (typeof value === 'object' && value !== null && 'Domain' in value && 'Addr' in value) {
    const { Domain, Addr } = value
    if (typeof Domain === 'string' && Domain.length > 0 && Domain.length <= DOMAIN_LENGTH) {
      if (typeof Addr === 'string' && Addr.length <= ADDR_LENGTH) return { Domain, Addr }
    }
  }
  throw new ProxyError('PROXY_ERR_ENDPOINT', 'an endpoint is {"Domain": string, "Addr": string}')
}

/** `tcp://127.0.0.1:80`, for people. */
export function formatEndpoint(at: Endpoint): string {
  return `${at.Domain}://${at.Addr}`
}
