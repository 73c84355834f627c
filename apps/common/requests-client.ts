import type * as v from 'valibot'
import { ProxyError } from '../../lib/core/index.ts'
import type {
  CurlCommand,
  Har,
  InspectedExchange,
  InspectedRequest,
  InspectQuery,
} from '../../lib/domains/web-inspection.ts'
import { type AdminPlace, localPlace, remotePlace, send, serverRuns, unexpected } from './admin-client.ts'
import { stateFolder } from './identity.ts'
import type { OperatorValues } from './operator.ts'

type Shapes = typeof import('../../lib/admin/inspect-schemas.ts')

/** One process that records requests. */
export class RequestsClient {
  readonly place: AdminPlace

  constructor(place: AdminPlace) {
    this.place = place
  }

  list(query: InspectQuery): Promise<InspectedRequest[]> {
    return this.#call('GET', `/requests${queryOf(query)}`, ({ requestList }) => requestList)
  }

  show(id: string): Promise<InspectedExchange> {
    return this.#call('GET', `/requests/${encodeURIComponent(id)}`, ({ inspectedExchange }) => inspectedExchange)
  }

  curl(id: string): Promise<CurlCommand> {
    return this.#call('GET', `/requests/${encodeURIComponent(id)}/curl`, ({ curlCommand }) => curlCommand)
  }

  replay(id: string): Promise<InspectedExchange> {
    const path = `/requests/${encodeURIComponent(id)}/replay`
    return this.#call('POST', path, ({ inspectedExchange }) => inspectedExchange)
  }

  har(query: InspectQuery & { readonly id?: string | undefined }): Promise<Har> {
    return this.#call('GET', `/requests.har${queryOf(query)}`, ({ har }) => har)
  }

  async clear(query: Pick<InspectQuery, 'mapping' | 'host'>): Promise<number> {
    return (await this.#call('DELETE', `/requests${queryOf(query)}`, ({ cleared }) => cleared)).cleared
  }

  async #call<T>(method: string, path: string, shape: (shapes: Shapes) => v.GenericSchema<unknown, T>): Promise<T> {
    const value = await send(this.place, method, path, undefined)
    const [{ safeParse }, shapes] = await Promise.all([import('valibot'), import('../../lib/admin/inspect-schemas.ts')])
    const result = safeParse(shape(shapes), value)
    if (result.success) return result.output
    throw unexpected(this.place)
  }
}

/**
 * Those that are meant: the one elsewhere, or whatever runs with the state folder, which may be a server and any number of
 * `symport http --inspect`.
 *
 * @throws ProxyError PROXY_ERR_NO_SERVER
 */
export async function openRequests(values: OperatorValues): Promise<readonly RequestsClient[]> {
  const folder = stateFolder(values.state)
  if (values.admin !== undefined) {
    const tokenFile = values['token-file'] ?? folder.file('admin-token')
    return [new RequestsClient(await remotePlace(values.admin, tokenFile))]
  }
  if (values['token-file'] !== undefined) {
    throw new ProxyError('PROXY_ERR_USAGE', '--token-file goes with --admin: the local socket needs no token')
  }
  const { publishSockets } = await import('../../lib/admin/socket-path.ts')
  const local = await localPlace(folder)
  const sockets = await publishSockets(folder)
  const places = [local, ...sockets.map((socketPath) => ({ ...local, target: { socketPath } }))]
  const running = await Promise.all(places.map(serverRuns))
  const found = places.filter((_, i) => running[i]).map((place) => new RequestsClient(place))
  if (found.length > 0) return found
  const what = `neither a server nor "symport http --inspect" runs with this state folder (${folder.path})`
  throw new ProxyError('PROXY_ERR_NO_SERVER', `${what}: --state names another, --admin a server elsewhere`)
}

/** What the one that has this request says. */
export async function atOwner<T>(
  clients: readonly RequestsClient[],
  ask: (client: RequestsClient) => Promise<T>,
): Promise<T> {
  let failure: unknown
  for (const client of clients) {
    try {
      return await ask(client)
    } catch (error) {
      if (!(error instanceof ProxyError) || error.code !== 'PROXY_ERR_NOT_FOUND') throw error
      failure ??= error
    }
  }
  throw failure
}

/** The one that has this request: what asks for more than a look is not to be tried at others, where it is written down. */
export async function ownerOf(clients: readonly RequestsClient[], id: string): Promise<RequestsClient> {
  return await atOwner(clients, async (client) => {
    await client.show(id)
    return client
  })
}

function queryOf(query: InspectQuery & { readonly id?: string | undefined }): string {
  const words = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) words.set(name, String(value))
  return words.size === 0 ? '' : `?${words}`
}
