import type { DialRequest, Domains } from './domain.ts'
import type { Endpoint } from './endpoint.ts'
import { ProxyError } from './errors.ts'
import { join } from './join.ts'
import { isLink } from './link.ts'
import { localPair } from './local-pair.ts'
import { linkFrom } from './stream-link.ts'
import type { SubConnection } from './sub-connection.ts'

/** Opens a sub-connection to what is dialled on this very side. It may be written to before that has connected. */
export function openHere(
  domains: Domains,
  to: Endpoint,
  { signal, from }: DialRequest,
  onFailed: (reason: ProxyError) => void = () => {},
): SubConnection {
  const [near, far] = localPair(from)
  const gone = new AbortController()
  const giveUp = (): void => gone.abort()
  far.once('close', giveUp)
  domains.dial(to, false, { signal: AbortSignal.any([signal, gone.signal]), from }).then(
    (dialled) => {
      far.off('close', giveUp)
      far.accepted()
      join(far, isLink(dialled) ? dialled : linkFrom(dialled))
    },
    (error) => {
      if (far.destroyed) return
      const reason = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
      onFailed(reason)
      far.destroy(reason)
    },
  )
  return near
}
