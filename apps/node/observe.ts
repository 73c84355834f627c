import type { HostPort } from '../../lib/domains/address.ts'
import {
  Feed,
  type NodeOptions,
  type OnEvent,
  type StateFolder,
  Statistics,
  type SymportNode,
} from '../../lib/index.ts'
import { version } from '../cli/version.ts'
import type { Logger } from '../common/log.ts'

export interface Observer extends AsyncDisposable {
  /** For the node that is to be looked at. */
  readonly hooks: Pick<NodeOptions, 'onOpened' | 'figures'> & { readonly onEvent: OnEvent }
  serve(node: SymportNode): void
}

export interface ObserverOptions {
  readonly tcp: HostPort
  readonly folder: StateFolder
  /** What the server is called here. */
  readonly server: string
  readonly log: Logger
}

/** Serves what the operator of a node can see, over TCP and at a socket in the state folder. */
export async function observe({ tcp, folder, server, log }: ObserverOptions): Promise<Observer> {
  const [{ startAdmin }, { NodeOperator }, number] = await Promise.all([
    import('../../lib/admin/admin.ts'),
    import('../../lib/node-operator.ts'),
    version(),
  ])
  const admin = await startAdmin({
    ...{ folder, tcp, onError: (error) => log.warn({ code: error.code }, error.message) },
    onWarning: (message) => log.warn(message),
  })
  // Of this process only: several nodes may share a state folder, and a server.
  const statistics = await Statistics.open(undefined)
  const feed = new Feed()
  feed.subscribe((event) => {
    if (event.type === 'connected') statistics.connected(event.peer)
    if (event.type === 'disconnected') statistics.disconnected(event.peer)
  })
  return {
    hooks: {
      onEvent: feed.tell,
      onOpened: (sub, opened) => statistics.opened(sub, opened),
      figures: (mapping) => statistics.mapping(mapping),
    },
    serve(node) {
      admin.serve(new NodeOperator({ node, server, statistics, feed, version: number }))
      log.info({ address: admin.address }, 'admin API ready')
    },
    async [Symbol.asyncDispose]() {
      await admin.close()
      await statistics.close()
    },
  }
}
