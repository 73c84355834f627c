import { ProxyError } from '../core/errors.ts'
import { shown } from '../domains/text.ts'
import type { Inspection } from '../domains/web-inspection.ts'
import type { Operations } from '../hub/operations.ts'
import type { AuditLog } from './audit.ts'
import { check, checkQuery } from './check.ts'
import * as shape from './inspect-schemas.ts'
import type { Route } from './route.ts'
import { nothing } from './schemas.ts'

interface Sources {
  readonly operations: Operations
  readonly audit: AuditLog
  readonly onError: (error: ProxyError) => void
}

/** The requests that were recorded, for mappings that ask for it. */
export function createInspectRoutes({ operations, audit, onError }: Sources): Route[] {
  const tag = 'requests'
  const inspection = async (): Promise<Inspection | undefined> => await operations.inspection?.()
  const idOf = (params: unknown): string => check(shape.requestParams, params).id
  const find = async (id: string): Promise<Inspection> => {
    const all = await inspection()
    if (all) return all
    throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no request ${shown(id)}: none are recorded here`)
  }
  return [
    {
      method: 'GET',
      url: '/requests',
      summary: 'The last requests of mappings with "inspect", the newest first; secrets are masked',
      tag,
      query: shape.requestsQuery,
      answer: shape.requestList,
      run: async ({ query }) => (await inspection())?.list(checkQuery(shape.requestsQuery, query)) ?? [],
    },
    {
      method: 'DELETE',
      url: '/requests',
      summary: 'Forget them, or those of a mapping or host',
      tag,
      query: shape.clearQuery,
      answer: shape.cleared,
      run: async ({ query, by }) => {
        const which = checkQuery(shape.clearQuery, query)
        const forget = async (): Promise<number> => (await inspection())?.clear(which) ?? 0
        const subject = Object.values(which).join(' ')
        return { cleared: await audit.record({ by, action: 'requests.clear', subject }, forget, onError) }
      },
    },
    {
      method: 'GET',
      url: '/requests.har',
      summary: 'The same requests with heads and bodies, the oldest first, as an HTTP Archive 1.2; or one of them',
      tag,
      query: shape.harQuery,
      answer: shape.har,
      run: async ({ query }) => {
        const { version } = operations.status()
        const wanted = checkQuery(shape.harQuery, query)
        const all = wanted.id === undefined ? await inspection() : await find(wanted.id)
        const none = { log: { version: '1.2', creator: { name: 'symport', version }, entries: [] } }
        return (await all?.har(wanted, version)) ?? none
      },
    },
    {
      method: 'GET',
      url: '/requests/:id',
      summary: 'One request and its answer: heads, and bodies up to a limit',
      tag,
      params: shape.requestParams,
      answer: shape.inspectedExchange,
      run: async ({ params }) => {
        const id = idOf(params)
        return await (await find(id)).show(id)
      },
    },
    {
      method: 'GET',
      url: '/requests/:id/curl',
      summary: 'A command for a POSIX shell that asks the same, with variables in the place of secrets',
      tag,
      params: shape.requestParams,
      answer: shape.curlCommand,
      run: async ({ params }) => {
        const id = idOf(params)
        return await (await find(id)).curl(id)
      },
    },
    {
      method: 'POST',
      url: '/requests/:id/replay',
      summary: 'Ask the target the same again, secrets included; answers the new entry',
      tag,
      params: shape.requestParams,
      body: nothing,
      answer: shape.inspectedExchange,
      run: async ({ params, body, by }) => {
        const id = idOf(params)
        check(nothing, body)
        const again = async () => await (await find(id)).replay(id)
        return await audit.record({ by, action: 'request.replay', subject: id }, again, onError)
      },
    },
  ]
}
