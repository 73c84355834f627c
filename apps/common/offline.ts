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
  | 'changeNode'
  | 'mappings'
  | 'addMapping'
  | 'removeMapping'
  | 'setMappingEnabled'
  | 'changeMapping'
> &
  AsyncDisposable

/** @throws ProxyError PROXY_ERR_STATE if the files are damaged, or cannot be written */
export async function openOffline(folder: StateFolder): Promise<OfflineOperations> {
  const [
    { AuditLog, subjectOf },
    { createTlsNames },
    { createWeb },
    { Identities },
    { MappingTable },
    { Pool },
    { Statistics },
    { loadServerIdentity },
  ] = await Promise.all([
    import('../../lib/admin/audit.ts'),
    import('../../lib/domains/tls-names.ts'),
    import('../../lib/domains/web.ts'),
    import('../../lib/hub/identities.ts'),
    import('../../lib/hub/mapping-table.ts'),
    import('../../lib/hub/pool.ts'),
    import('../../lib/hub/statistics.ts'),
    import('../../lib/store/secrets.ts'),
  ])
  const audit = new AuditLog(folder)
  const change = <T>(action: string, subject: string, act: () => Promise<T>): Promise<T> =>
    // A log that cannot be written is told where there is one to tell it in.
    audit.record({ by: 'cli', action, subject }, act, () => {})
  const over = new AbortController()
  const statistics = await Statistics.open(folder)
  const identities = await Identities.open(folder, {
    serverKey: async () => (await loadServerIdentity(folder)).publicKey,
  })
  const tls = createTlsNames().domain
  const domains = [...createDomains().filter(({ name }) => name !== tls.name), tls, ...createWeb().domains]
  // It is not started: nothing listens.
  const table = await MappingTable.open({
    ...{ folder, domains, pool: new Pool(), signal: over.signal },
    figures: (mapping) => statistics.mapping(mapping),
  })
  return {
    nodes: () =>
      identities.list().map(({ suite: _, ...identity }) => {
        return { ...identity, enrolled: true, ...statistics.node(identity.id, true) }
      }),
    addNode: (request) => change('node.add', request.id, () => identities.add(request)),
    removeNode: (id) => change('node.remove', id, () => identities.remove(id)),
    setNodeEnabled: (id, enabled) =>
      change(enabled ? 'node.enable' : 'node.disable', id, () => identities.setEnabled(id, enabled)),
    rotateNode: (id, secret) => change('node.rotate', id, () => identities.rotate(id, secret)),
    changeNode: (id, what) => change('node.change', id, () => identities.change(id, what)),
    mappings: () => table.status(),
    addMapping: (request) => change('mapping.add', subjectOf(request), () => table.add(request)),
    removeMapping: (id) => change('mapping.remove', id, () => table.remove(id)),
    setMappingEnabled: (id, enabled) =>
      change(enabled ? 'mapping.enable' : 'mapping.disable', id, () => table.setEnabled(id, enabled)),
    changeMapping: (id, what) => change('mapping.change', id, () => table.change(id, what)),
    async [Symbol.asyncDispose]() {
      over.abort()
      await Promise.all([table.close(), statistics.close()])
    },
  }
}
