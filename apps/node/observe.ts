import type { HostPort } from '../../lib/domains/address.ts'
import type { Inspection } from '../../lib/domains/web-inspection.ts'
import type { StateFolder } from '../../lib/index.ts'
import type { ObservedNode } from '../../lib/node-operator.ts'
import { version } from '../cli/version.ts'
import type { Logger } from '../common/log.ts'

export interface Observer extends AsyncDisposable {
  /** In the order of the servers. */
  readonly observed: readonly ObservedNode[]
  /** When the nodes are there. */
  serve(): void
}

export interface ObserverOptions {
  /** Listen on TCP too. */
  readonly tcp?: HostPort | undefined
  /** Where else than at the one place of the folder. */
  readonly socket?: string | undefined
  readonly folder: StateFolder
  /** What the servers are called here, one for each main connection. */
  readonly servers: readonly string[]
  readonly log: Logger
  readonly inspection?: (() => Promise<Inspection>) | undefined
}

/** Serves what the operator of a node can see, over TCP and at a socket in the state folder. */
export async function observe({ tcp, socket, folder, servers, log, inspection }: ObserverOptions): Promise<Observer> {
  const [{ startAdmin }, { Statistics }, { NodeOperator }, number] = await Promise.all([
    import('../../lib/admin/admin.ts'),
    import('../../lib/hub/statistics.ts'),
    import('../../lib/node-operator.ts'),
    version(),
  ])
  const admin = await startAdmin({
    ...{ folder, tcp, socket, onError: (error) => log.warn({ code: error.code }, error.message) },
    onWarning: (message) => log.warn(message),
  })
  // Of this process only: several nodes may share a state folder, and a server.
  const statistics = await Statistics.open(undefined)
  const operator = new NodeOperator({ servers, statistics, version: number, inspection })
  return {
    observed: operator.observed,
    serve() {
      admin.serve(operator)
      if (admin.address !== undefined) log.info({ address: admin.address }, 'admin API ready')
    },
    async [Symbol.asyncDispose]() {
      await admin.close()
      await statistics.close()
    },
  }
}
