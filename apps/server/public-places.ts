import type { PublicPlace } from '../../lib/hub/publisher.ts'
import type { PublicDomain } from '../common/domain.ts'
import type { Place } from '../common/transports.ts'

export interface PublicPlacesOptions {
  readonly domain: PublicDomain | undefined
  /** Whether visitors are likely to believe the certificate that this host has. */
  readonly isTrusted: (host: string) => boolean
  /** Whoever is in front, and knows better. */
  readonly front?: { placeOf(host: string): Promise<PublicPlace> } | undefined
}

/** What visitors have to write to get to a name of the web port. */
export class PublicPlaces {
  readonly #place: Place
  readonly #options: PublicPlacesOptions
  #port: number

  constructor(place: Place, options: PublicPlacesOptions) {
    this.#place = place
    this.#options = options
    this.#port = place.port ?? 80
  }

  /** The server listens: port 0 has become a port. */
  listening(address: string): void {
    const port = /:(\d+)$/.exec(address)?.[1]
    if (this.#place.port !== undefined && port !== undefined) this.#port = Number(port)
  }

  /**
   * As the operator says, or whoever is in front, or else this port: with TLS, if visitors believe the certificate for this
   * host. TLS that ends at the target comes in where HTTPS does, but never where somebody in front ends it.
   */
  of(host: string, tls: boolean): PublicPlace | Promise<PublicPlace> {
    const { domain, isTrusted, front } = this.#options
    const { scheme, port } = domain ?? {}
    if (tls) return { scheme: 'tls', port: scheme === 'https' && !front ? (port ?? 443) : this.#port }
    const said = scheme && { scheme, port: port ?? (scheme === 'https' ? 443 : 80) }
    if (front) return front.placeOf(host).then((place) => said ?? place)
    if (said) return said
    return { scheme: isTrusted(host) ? 'https' : 'http', port: this.#port }
  }
}
