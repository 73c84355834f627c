import type { DialRequest } from '../core/domain.ts'
import { type Domains, type Endpoint, isLink, join, linkFrom, ProxyError, type SubConnection } from '../core/index.ts'
import { localPair } from '../core/local-pair.ts'

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
