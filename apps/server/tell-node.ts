import { readToken } from '../../lib/core/index.ts'
import { formatHostPort } from '../../lib/domains/address.ts'
import type { Certificates } from '../../lib/store/certificates.ts'
import type { PublicDomain } from '../common/domain.ts'
import { nodeCommand, reachableHost, webPortAdvice } from '../common/identity.ts'
import type { Logger } from '../common/log.ts'
import { DEFAULT_PATH } from '../common/transport-flags.ts'
import type { Place } from '../common/transports.ts'
import type { ServerSecret } from './secret.ts'

export interface Reached {
  readonly address: string
  readonly path?: string | undefined
  readonly certificates: Certificates
}

/** Where visitors find what nodes have at the web port. */
export function tellNames(log: Logger, place: Place, address: string): void {
  const port = Number(/\d+$/.exec(address)?.[0])
  if (place.port === undefined) return
  const at = formatHostPort({ host: reachableHost(place.host), port })
  log.info({ web: `http://${at}/`, secure: `https://${at}/` }, 'nodes may have names of the web port')
}

/** Which names nodes get below the server's domain. */
export function tellDomain(log: Logger, { host }: PublicDomain, allowed: readonly string[]): void {
  log.info(
    { domain: host, names: allowed.join(', ') },
    `nodes get names below ${host}, as far as --allow-names lets them`,
  )
}

/** What to run on the other machine. The secret is shown on a terminal, and never to a log. */
export async function tellNode(log: Logger, place: Place, at: Reached, { secret, made }: ServerSecret): Promise<void> {
  const port = Number(/\d+$/.exec(at.address)?.[0])
  if (place.port === undefined || !readToken(secret)) return
  if (!process.stdout.isTTY && !made) {
    log.info('"symport uuid" shows what to run on the other machine')
    return
  }
  // The first time it has to be made. Without it the command line is as good, but for TLS.
  const pin = await at.certificates.fingerprint().catch((error: Error) => {
    log.warn(`there will be no TLS: ${error.message}`)
    return undefined
  })
  if (process.stdout.isTTY) {
    const line = nodeCommand(place.host, port, secret, pin)
    const web = webPortAdvice(place.host, port, at.path ?? DEFAULT_PATH)
    process.stdout.write(`\n  On the other machine:\n\n    ${line}\n\n  (${web})\n\n`)
  } else {
    const command = nodeCommand(place.host, port, undefined, pin)
    log.info({ command, secret: '"symport uuid" shows it here' }, 'on the other machine')
  }
}
