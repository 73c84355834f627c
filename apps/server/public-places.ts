import type { PublicPlace } from '../../lib/hub/publisher.ts'
import type { PublicDomain } from '../common/domain.ts'
import type { Place } from '../common/transports.ts'

export interface PublicPlacesOptions {
  readonly domain: PublicDomain | undefined
  /** Whether visitors are likely to believe the certificate that this host has. */
  readonly isTrusted: (host: string) => boolean
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

  /** As the operator says, or else this port: with TLS, if visitors believe the certificate for this host. */
  of(host: string): PublicPlace {
    const { domain, isTrusted } = this.#options
    const { scheme, port } = domain ?? {}
    if (scheme !== undefined) return { scheme, port: port ?? (scheme === 'https' ? 443 : 80) }
    return { scheme: isTrusted(host) ? 'https' : 'http', port: this.#port }
  }
}
