import { ProxyError } from '../core/errors.ts'
import type { ConnectionStatus, MappingStatus, NodeRequest, NodeStatus, Operations } from '../hub/operations.ts'
import { type AuditLog, subjectOf } from './audit.ts'
import { check, checkQuery } from './check.ts'
import { publicFailure } from './failures.ts'
import { createInspectRoutes } from './inspect-routes.ts'
import type { Route } from './route.ts'
import * as shape from './schemas.ts'

export type { Route, RouteRequest } from './route.ts'

interface Sources {
  readonly operations: Operations
  readonly audit: AuditLog
  readonly onError: (error: ProxyError) => void
}

/** Connections that are looked through when only some are asked for. */
const MOST_CONNECTIONS = 100_000
/** Nodes of one request that are added at once: deriving a key takes a while, and there are only so many threads. */
const AT_ONCE = 16

/** Everything below /api/v1 but the event stream and the description of it all. */
export function createRoutes({ operations, audit, onError }: Sources): Route[] {
  const change = <T>(by: string, action: string, subject: string, act: () => Promise<T>): Promise<T> =>
    audit.record({ by, action, subject }, act, onError)

  const nodeOf = (id: string): NodeStatus => found(operations.nodes(), id, 'node')
  const mappingOf = (id: string): MappingStatus => found(operations.mappings(), id, 'mapping')
  const nodeId = (params: unknown): string => check(shape.nodeParams, params).id
  const mappingId = (params: unknown): string => check(shape.mappingParams, params).id

  const node = (verb: Route['method'], url: string, rest: Omit<Route, 'method' | 'url' | 'tag' | 'params'>): Route => ({
    method: verb,
    url: `/nodes/:id${url}`,
    tag: 'nodes',
    params: shape.nodeParams,
    ...rest,
  })
  const mapping = (
    verb: Route['method'],
    url: string,
    rest: Omit<Route, 'method' | 'url' | 'tag' | 'params'>,
  ): Route => ({
    ...node(verb, url, rest),
    url: `/mappings/:id${url}`,
    tag: 'mappings',
    params: shape.mappingParams,
  })

  const setNode = (enabled: boolean): Route =>
    node('POST', enabled ? '/enable' : '/disable', {
      summary: enabled ? 'Let a node connect again' : 'End the main connections of a node, and let it not connect',
      body: shape.nothing,
      answer: shape.nodeStatus,
      run: async ({ params, body, by }) => {
        const id = nodeId(params)
        check(shape.nothing, body)
        await change(by, enabled ? 'node.enable' : 'node.disable', id, () => operations.setNodeEnabled(id, enabled))
        return nodeOf(id)
      },
    })
  const setMapping = (enabled: boolean): Route =>
    mapping('POST', enabled ? '/enable' : '/disable', {
      summary: enabled ? 'Listen again' : 'Stop listening, and keep the mapping',
      body: shape.nothing,
      answer: shape.mappingStatus,
      run: async ({ params, body, by }) => {
        const id = mappingId(params)
        check(shape.nothing, body)
        const action = enabled ? 'mapping.enable' : 'mapping.disable'
        await change(by, action, id, () => operations.setMappingEnabled(id, enabled))
        return mappingOf(id)
      },
    })

  return [
    {
      method: 'GET',
      url: '/status',
      summary: 'The server as a whole',
      tag: 'server',
      answer: shape.serverStatus,
      run: async () => operations.status(),
    },
    {
      method: 'GET',
      url: '/nodes',
      summary: 'Enrolled nodes, and those that are connected',
      tag: 'nodes',
      answer: shape.listOf(shape.nodeStatus),
      run: async () => operations.nodes(),
    },
    {
      method: 'POST',
      url: '/nodes',
      summary: 'Add a node; a secret that is made is told this once',
      tag: 'nodes',
      body: shape.nodeRequest,
      answer: shape.addedNode,
      status: 201,
      run: async ({ body, by }) => {
        const request = readNode(check(shape.nodeRequest, body))
        return await change(by, 'node.add', request.id, () => operations.addNode(request))
      },
    },
    {
      method: 'POST',
      url: '/nodes:batch',
      summary: 'Add many nodes; each is added or not for itself',
      tag: 'nodes',
      body: shape.batchRequest,
      answer: shape.batchAnswer,
      run: async ({ body, by }) => {
        const requests = check(shape.batchRequest, body).nodes.map(readNode)
        const nodes = await eachOf(requests, async (request) => {
          try {
            return await change(by, 'node.add', request.id, () => operations.addNode(request))
          } catch (error) {
            if (!(error instanceof ProxyError)) onError(ProxyError.from(error, 'PROXY_ERR_INTERNAL'))
            return { id: request.id, error: publicFailure(error) }
          }
        })
        return { nodes }
      },
    },
    node('GET', '', {
      summary: 'One node',
      answer: shape.nodeStatus,
      run: async ({ params }) => nodeOf(nodeId(params)),
    }),
    node('PATCH', '', {
      summary: 'Change the expiry, grants or limits of a node: a JSON merge patch (RFC 7396)',
      body: shape.nodeChange,
      answer: shape.nodeStatus,
      run: async ({ params, body, by }) => {
        const id = nodeId(params)
        const changes = check(shape.nodeChange, body)
        const { expires } = check(shape.expiryChange, changes)
        const wanted = typeof expires === 'string' ? { ...changes, expires: readExpiry(expires, id) } : changes
        await change(by, 'node.change', id, () => operations.changeNode(id, wanted))
        return nodeOf(id)
      },
    }),
    node('DELETE', '', {
      summary: 'Remove a node, and end its main connections',
      run: async ({ params, by }) => {
        const id = nodeId(params)
        await change(by, 'node.remove', id, () => operations.removeNode(id))
      },
    }),
    setNode(true),
    setNode(false),
    node('POST', '/rotate', {
      summary: 'Give a node a new secret; one that is made is told this once',
      body: shape.rotateRequest,
      answer: shape.addedNode,
      run: async ({ params, body, by }) => {
        const id = nodeId(params)
        const secret = check(shape.rotateRequest, body)?.secret
        return await change(by, 'node.rotate', id, () => operations.rotateNode(id, secret))
      },
    }),
    node('POST', '/kick', {
      summary: 'End the main connections of a node, which may connect again',
      body: shape.nothing,
      answer: shape.kicked,
      run: async ({ params, body, by }) => {
        const id = nodeId(params)
        check(shape.nothing, body)
        return { kicked: await change(by, 'node.kick', id, () => operations.kickNode(id)) }
      },
    }),
    {
      method: 'GET',
      url: '/mappings',
      summary: 'All mappings, those of the command line and the configuration too',
      tag: 'mappings',
      answer: shape.listOf(shape.mappingStatus),
      run: async () => operations.mappings(),
    },
    {
      method: 'POST',
      url: '/mappings',
      summary: 'Add a mapping',
      tag: 'mappings',
      body: shape.mappingRequest,
      answer: shape.mappingStatus,
      status: 201,
      run: async ({ body, by }) => {
        const request = check(shape.mappingRequest, body)
        return await change(by, 'mapping.add', subjectOf(request), () => operations.addMapping(request))
      },
    },
    mapping('GET', '', {
      summary: 'One mapping',
      answer: shape.mappingStatus,
      run: async ({ params }) => mappingOf(mappingId(params)),
    }),
    mapping('PATCH', '', {
      summary: 'Change what does not concern where it listens and leads to: a JSON merge patch (RFC 7396)',
      body: shape.mappingChange,
      answer: shape.mappingStatus,
      run: async ({ params, body, by }) => {
        const id = mappingId(params)
        const changes = check(shape.mappingChange, body)
        return await change(by, 'mapping.change', id, () => operations.changeMapping(id, changes))
      },
    }),
    mapping('DELETE', '', {
      summary: 'Remove a mapping',
      run: async ({ params, by }) => {
        const id = mappingId(params)
        await change(by, 'mapping.remove', id, () => operations.removeMapping(id))
      },
    }),
    setMapping(true),
    setMapping(false),
    {
      method: 'GET',
      url: '/connections',
      summary: 'The sub-connections that are open, the newest first',
      tag: 'server',
      query: shape.connectionsQuery,
      answer: shape.listOf(shape.connectionStatus),
      run: async ({ query }) => connections(operations, checkQuery(shape.connectionsQuery, query)),
    },
    ...createInspectRoutes({ operations, audit, onError }),
    {
      method: 'POST',
      url: '/reload',
      summary: 'Apply the changed configuration file',
      tag: 'server',
      body: shape.nothing,
      answer: shape.reloadReport,
      run: async ({ body, by }) => {
        check(shape.nothing, body)
        return await change(by, 'config.reload', '', () => operations.reload())
      },
    },
    {
      method: 'GET',
      url: '/audit',
      summary: 'What operators changed, the newest first',
      tag: 'server',
      query: shape.auditQuery,
      answer: shape.listOf(shape.auditEntry),
      run: async ({ query }) => await audit.read(checkQuery(shape.auditQuery, query).limit),
    },
  ]
}

/** Whether the server does what its configuration says; `trusted` may read where that maps to. */
export function readiness(operations: Operations, trusted: boolean): shape.Readiness {
  const { role, address, nodes } = operations.status()
  if (address === '') return { ready: false, reason: 'the server does not listen' }
  if (role === 'node' && nodes.connected === 0) return { ready: false, reason: 'the server is not connected' }
  const failed = operations.mappings().filter(({ source, state }) => source === 'config' && state === 'failed')
  const [first] = failed
  if (!first) return { ready: true }
  if (!trusted) {
    return {
      ready: false,
      reason: `${failed.length} mapping${failed.length > 1 ? 's' : ''} of the configuration failed`,
    }
  }
  const more = failed.length > 1 ? ` (and ${failed.length - 1} more)` : ''
  return { ready: false, reason: `mapping ${first.id} failed: ${first.problem ?? 'for no known reason'}${more}` }
}

function connections(
  operations: Operations,
  { limit = 1000, node, mapping }: shape.ConnectionsQuery,
): ConnectionStatus[] {
  if (node === undefined && mapping === undefined) return operations.connections(limit)
  return operations
    .connections(MOST_CONNECTIONS)
    .filter((one) => (node === undefined || one.node === node) && (mapping === undefined || one.mapping === mapping))
    .slice(0, limit)
}

function found<T extends { readonly id: string }>(list: readonly T[], id: string, what: string): T {
  const one = list.find((entry) => entry.id === id)
  if (one) return one
  throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no ${what} ${id}`)
}

function readNode(request: NodeRequest): NodeRequest {
  const { id, expires } = request
  return expires === undefined ? request : { ...request, expires: readExpiry(expires, id) }
}

/** A day stands for its end, as a person means it. */
function readExpiry(expires: string, id: string): string {
  const isDay = /^\d{4}-\d\d-\d\d$/.test(expires)
  const time = new Date(isDay ? `${expires}T23:59:59.999Z` : expires)
  const exists = !Number.isNaN(time.getTime()) && (!isDay || time.toISOString().startsWith(expires))
  if (exists) return time.toISOString()
  throw new ProxyError('PROXY_ERR_REQUEST', `"expires" of ${id}: there is no such day or time`)
}

/** All of them, some at a time, the results in their order. */
async function eachOf<T, R>(items: readonly T[], act: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const work = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++
      const item = items[index]
      if (item !== undefined) results[index] = await act(item)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return results
}
