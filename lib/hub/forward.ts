import { allowAll, type DomainPlugin, Domains, type Listener, ProxyError } from '../core/index.ts'
import { openHere } from '../domains/open-here.ts'
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
          return openHere(domains, to, { signal, from }, (reason) => {
            onEvent({ type: 'unserved', spec, from, reason })
          })
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
