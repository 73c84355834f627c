import type { DomainPlugin, Link, Listener } from '../core/index.ts'
import { resolve } from './resolve.ts'
import type { UdpFlows, UdpOptions } from './udp-flows.ts'

export type { UdpOptions } from './udp-flows.ts'

/**
 * Domain `udp`: `host:port`, IPv6 in brackets. An empty host is all interfaces for a listener, else 127.0.0.1. Each
 * visitor's address and port is a flow, and each flow a sub-connection in which datagrams keep their borders.
 */
export function udp(options: UdpOptions = {}): DomainPlugin {
  let flows: Promise<UdpFlows> | undefined
  // When there is something to do: a start should not wait for what it does not use.
  const load = (): Promise<UdpFlows> => {
    flows ??= import('./udp-flows.ts').then(({ UdpFlows }) => new UdpFlows(options))
    return flows
  }
  return {
    name: 'udp',
    carries: 'datagrams',

    async listen(at, context): Promise<Listener> {
      return await (await load()).listen(at, context)
    },

    resolve,

    async dial(to, context): Promise<Link> {
      return await (await load()).dial(to, context)
    },
  }
}
