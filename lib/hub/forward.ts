import {
  allowAll,
  type DomainPlugin,
  Domains,
  isLink,
  join,
  type Listener,
  linkFrom,
  ProxyError,
} from '../core/index.ts'
import { localPair } from '../core/local-pair.ts'
import type { Spec } from '../domains/spec.ts'
import type { OnEvent } from './events.ts'

export interface ForwardOptions {
  domains: readonly DomainPlugin[]
  onEvent?: OnEvent | undefined
  /** Gives up what is being dialled. */
  signal: AbortSignal
}

/** Listens and forwards inside one process, without a main connection. What cannot listen is told as an event. */
export async function forward(specs: readonly Spec[], options: ForwardOptions): Promise<Listener[]> {
  const { onEvent = () => {}, signal } = options
  const domains = new Domains(options.domains, allowAll)
  const listeners: Listener[] = []
  for (const spec of specs) {
    try {
      const listener = await domains.listen(spec.Listen, false, {
        signal,
        async open({ to = spec.Forward, from } = {}) {
          const [near, far] = localPair(from)
          const gone = new AbortController()
          const giveUp = (): void => gone.abort()
          far.once('close', giveUp)
          domains.dial(to, false, AbortSignal.any([signal, gone.signal])).then(
            (dialled) => {
              far.off('close', giveUp)
              far.accepted()
              join(far, isLink(dialled) ? dialled : linkFrom(dialled))
            },
            (error) => {
              if (far.destroyed) return
              const reason = ProxyError.from(error, 'PROXY_ERR_DIAL_FAILED')
              onEvent({ type: 'unserved', spec, from, reason })
              far.destroy(reason)
            },
          )
          return near
        },
      })
      onEvent({ type: 'listener-ready', spec, bound: listener.bound, at: 'here' })
      listeners.push(listener)
    } catch (error) {
      onEvent({ type: 'listener-failed', spec, reason: ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED'), at: 'here' })
    }
  }
  return listeners
}
