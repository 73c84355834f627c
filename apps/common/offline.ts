import type { Operations } from '../../lib/hub/operations.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'
import { createDomains } from './options.ts'

/** What can be done to the files of a state folder while no server runs with it. */
export type OfflineOperations = Pick<
  Operations,
  | 'nodes'
  | 'addNode'
  | 'removeNode'
  | 'setNodeEnabled'
  | 'rotateNode'
  | 'mappings'
  | 'addMapping'
  | 'removeMapping'
  | 'setMappingEnabled'
> &
  AsyncDisposable

/** @throws ProxyError PROXY_ERR_STATE if the files are damaged, or cannot be written */
export async function openOffline(folder: StateFolder): Promise<OfflineOperations> {
  const [{ Identities }, { MappingTable }, { Pool }, { Statistics }, { loadServerIdentity }] = await Promise.all([
    import('../../lib/hub/identities.ts'),
    import('../../lib/hub/mapping-table.ts'),
    import('../../lib/hub/pool.ts'),
    import('../../lib/hub/statistics.ts'),
    import('../../lib/store/secrets.ts'),
  ])
  const over = new AbortController()
  const statistics = await Statistics.open(folder)
  const identities = await Identities.open(folder, {
    serverKey: async () => (await loadServerIdentity(folder)).publicKey,
  })
  // It is not started: nothing listens.
  const table = await MappingTable.open({
    ...{ folder, domains: createDomains(), pool: new Pool(), signal: over.signal },
    figures: (mapping) => statistics.mapping(mapping),
  })
  return {
    nodes: () =>
      identities.list().map(({ id, enabled, created, expires, grants }) => {
        return { id, enrolled: true, enabled, created, expires, grants, ...statistics.node(id, true) }
      }),
    addNode: (request) => identities.add(request),
    removeNode: (id) => identities.remove(id),
    setNodeEnabled: (id, enabled) => identities.setEnabled(id, enabled),
    rotateNode: (id, secret) => identities.rotate(id, secret),
    mappings: () => table.status(),
    addMapping: (request) => table.add(request),
    removeMapping: (id) => table.remove(id),
    setMappingEnabled: (id, enabled) => table.setEnabled(id, enabled),
    async [Symbol.asyncDispose]() {
      over.abort()
      await Promise.all([table.close(), statistics.close()])
    },
  }
}
