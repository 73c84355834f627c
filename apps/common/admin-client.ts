import { readFile } from 'node:fs/promises'
import type { IncomingMessage, RequestOptions } from 'node:http'
import type * as v from 'valibot'
import { ProxyError } from '../../lib/core/index.ts'
import type {
  AddedNode,
  ConnectionStatus,
  MappingChange,
  MappingRequest,
  MappingStatus,
  NodeChange,
  NodeRequest,
  NodeStatus,
  ReloadReport,
  ServerStatus,
} from '../../lib/hub/operations.ts'
import type { StateFolder } from '../../lib/store/state-folder.ts'

/** The operations as they are seen from another process. */
export interface AdminClient {
  status(): Promise<ServerStatus>
  nodes(): Promise<NodeStatus[]>
  addNode(request: NodeRequest): Promise<AddedNode>
  /** For each its outcome, in the same order. */
  addNodes(requests: readonly NodeRequest[]): Promise<BatchResult[]>
  removeNode(id: string): Promise<void>
  setNodeEnabled(id: string, enabled: boolean): Promise<NodeStatus>
  rotateNode(id: string, secret?: string | undefined): Promise<AddedNode>
  changeNode(id: string, change: NodeChange): Promise<NodeStatus>
  kickNode(id: string): Promise<number>
  mappings(): Promise<MappingStatus[]>
  addMapping(request: MappingRequest): Promise<MappingStatus>
  removeMapping(id: string): Promise<void>
  setMappingEnabled(id: string, enabled: boolean): Promise<MappingStatus>
  changeMapping(id: string, change: MappingChange): Promise<MappingStatus>
  connections(query?: { node?: string | undefined; mapping?: string | undefined }): Promise<ConnectionStatus[]>
  reload(): Promise<ReloadReport>
}

export interface BatchResult extends AddedNode {
  readonly error?: { readonly code: string; readonly message: string } | undefined
}

/** Where a server is asked, and how one proves oneself there. */
export interface AdminPlace {
  /** For messages. */
  readonly name: string
  readonly secure: boolean
  readonly target: { readonly socketPath: string } | { readonly host: string; readonly port: number }
  /** The path in front of /api/v1, as a proxy may have it. */
  readonly prefix: string
  readonly token?: string | undefined
}

/** Nodes in one request: their keys are derived one after another. */
const BATCH = 50
const CONNECT_TIMEOUT = 10_000
/** Longer than a batch takes on a small machine. */
const ANSWER_TIMEOUT = 120_000
/** Some ten thousand nodes or mappings. */
const LARGEST_ANSWER = 64 * 1024 * 1024

/** The server that runs with a state folder. */
export async function localPlace(folder: StateFolder): Promise<AdminPlace> {
  const { adminSocket } = await import('../../lib/admin/socket-path.ts')
  return { name: folder.path, secure: false, target: { socketPath: adminSocket(folder) }, prefix: '' }
}

/**
 * A server elsewhere: `http://127.0.0.1:9250`, `https://admin.example.com/symport`, `127.0.0.1:9250`.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function remotePlace(text: string, tokenFile: string): Promise<AdminPlace> {
  const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`
  const bad = (why: string): ProxyError => new ProxyError('PROXY_ERR_USAGE', `--admin: ${why}`)
  if (!URL.canParse(whole)) throw bad('that is not a URL: write http://host:port')
  const url = new URL(whole)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw bad('the URL begins with http:// or https://')
  if (url.username !== '' || url.password !== '') throw bad('the token comes from --token-file, not from the URL')
  const secure = url.protocol === 'https:'
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = url.port === '' ? (secure ? 443 : 80) : Number(url.port)
  const prefix = url.pathname.replace(/\/+$/, '')
  return { name: url.origin, secure, target: { host, port }, prefix, token: await readToken(tokenFile) }
}

async function readToken(path: string): Promise<string> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : code
    throw new ProxyError('PROXY_ERR_USAGE', `--token-file: cannot read ${path}: ${why}`, { cause: error })
  }
  const token = text.trim()
  if (/^[\x21-\x7e]+$/.test(token)) return token
  throw new ProxyError('PROXY_ERR_USAGE', `--token-file: ${path} does not hold a token`)
}

export function createClient(place: AdminPlace): AdminClient {
  type Shapes = typeof import('../../lib/admin/schemas.ts')

  /** Asks, and answers what came, which is checked: another version may run there, or another program. */
  const call = async <T>(
    method: string,
    path: string,
    shape: (shapes: Shapes) => v.GenericSchema<unknown, T>,
    body?: unknown,
  ): Promise<T> => {
    const value = await send(place, method, path, body)
    const [{ safeParse }, shapes] = await Promise.all([import('valibot'), import('../../lib/admin/schemas.ts')])
    const result = safeParse(shape(shapes), value)
    if (result.success) return result.output
    throw unexpected(place)
  }
  const tell = async (method: string, path: string): Promise<void> => void (await send(place, method, path, undefined))
  const node = (id: string, verb = ''): string => `/nodes/${encodeURIComponent(id)}${verb}`
  const mapping = (id: string, verb = ''): string => `/mappings/${encodeURIComponent(id)}${verb}`

  return {
    status: () => call('GET', '/status', ({ serverStatus }) => serverStatus),
    nodes: () => call('GET', '/nodes', ({ listOf, nodeStatus }) => listOf(nodeStatus)),
    addNode: (request) => call('POST', '/nodes', ({ addedNode }) => addedNode, request),
    async addNodes(requests) {
      const results: BatchResult[] = []
      for (let from = 0; from < requests.length; from += BATCH) {
        const nodes = requests.slice(from, from + BATCH)
        const answer = await call('POST', '/nodes:batch', ({ batchAnswer }) => batchAnswer, { nodes })
        results.push(...answer.nodes)
      }
      return results
    },
    removeNode: (id) => tell('DELETE', node(id)),
    setNodeEnabled: (id, enabled) =>
      call('POST', node(id, enabled ? '/enable' : '/disable'), ({ nodeStatus }) => nodeStatus),
    rotateNode: (id, secret) =>
      call('POST', node(id, '/rotate'), ({ addedNode }) => addedNode, secret === undefined ? {} : { secret }),
    changeNode: (id, change) => call('PATCH', node(id), ({ nodeStatus }) => nodeStatus, change),
    async kickNode(id) {
      return (await call('POST', node(id, '/kick'), ({ kicked }) => kicked)).kicked
    },
    mappings: () => call('GET', '/mappings', ({ listOf, mappingStatus }) => listOf(mappingStatus)),
    addMapping: (request) => call('POST', '/mappings', ({ mappingStatus }) => mappingStatus, request),
    removeMapping: (id) => tell('DELETE', mapping(id)),
    setMappingEnabled: (id, enabled) =>
      call('POST', mapping(id, enabled ? '/enable' : '/disable'), ({ mappingStatus }) => mappingStatus),
    changeMapping: (id, change) => call('PATCH', mapping(id), ({ mappingStatus }) => mappingStatus, change),
    connections: (query = {}) => {
      const words = Object.entries(query).flatMap(([key, value]): [string, string][] =>
        value === undefined ? [] : [[key, value]],
      )
      const filter = words.length === 0 ? '' : `?${new URLSearchParams(words)}`
      return call('GET', `/connections${filter}`, ({ connectionStatus, listOf }) => listOf(connectionStatus))
    },
    reload: () => call('POST', '/reload', ({ reloadReport }) => reloadReport),
  }
}

/** Asks, and answers what came, as JSON. */
export async function send(place: AdminPlace, method: string, path: string, body: unknown): Promise<unknown> {
  const { request } = place.secure ? await import('node:https') : await import('node:http')
  const text = body === undefined ? undefined : JSON.stringify(body)
  const options: RequestOptions = {
    ...place.target,
    method,
    path: `${place.prefix}/api/v1${path}`,
    agent: false,
    headers: {
      accept: 'application/json',
      ...(place.token === undefined ? {} : { authorization: `Bearer ${place.token}` }),
      ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    },
  }
  const { status, answer } = await new Promise<{ status: number; answer: string }>((resolve, reject) => {
    const fail = (error: unknown): void => {
      clearTimeout(timer)
      outgoing.destroy()
      reject(unreachable(place, error))
    }
    const outgoing = request(options, (incoming) => {
      readAll(incoming).then((answer) => {
        clearTimeout(timer)
        resolve({ status: incoming.statusCode ?? 0, answer })
      }, fail)
    })
    let timer = setTimeout(() => fail(new Error('no answer')), CONNECT_TIMEOUT)
    outgoing.on('error', fail)
    outgoing.on('socket', (socket) => {
      socket.once('connect', () => {
        clearTimeout(timer)
        timer = setTimeout(() => fail(new Error(`no answer in ${ANSWER_TIMEOUT / 1000} s`)), ANSWER_TIMEOUT)
      })
    })
    outgoing.end(text)
  })
  const value = parse(place, answer, status)
  if (status >= 200 && status < 300) return value
  const { safeParse } = await import('valibot')
  const { errorAnswer } = await import('../../lib/admin/schemas.ts')
  const failure = safeParse(errorAnswer, value)
  if (!failure.success) throw unexpected(place)
  throw toError(failure.output.error)
}

async function readAll(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of incoming) {
    size += chunk.length
    if (size > LARGEST_ANSWER) throw new Error('the answer is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function parse(place: AdminPlace, answer: string, status: number): unknown {
  if (answer === '' && status === 204) return undefined
  try {
    return JSON.parse(answer)
  } catch {
    throw unexpected(place)
  }
}

/** A request that makes no sense was a command line that makes none. */
function toError({ code, message }: { code: string; message: string }): ProxyError {
  if (code === 'PROXY_ERR_REQUEST') return new ProxyError('PROXY_ERR_USAGE', message)
  const isCode = (text: string): text is ProxyError['code'] => /^PROXY_ERR_[A-Z_]+$/.test(text)
  return new ProxyError(isCode(code) ? code : 'PROXY_ERR_ADMIN', message)
}

export function unexpected(place: AdminPlace): ProxyError {
  return new ProxyError(
    'PROXY_ERR_ADMIN',
    `what answers for ${place.name} is no symport server of a version known here`,
  )
}

function unreachable(place: AdminPlace, error: unknown): ProxyError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  const isLocal = 'socketPath' in place.target
  if (isLocal && (code === 'ENOENT' || code === 'ECONNREFUSED')) return noServer(place.name, error)
  const reasons: Record<string, string> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: 'the name is not known',
    ECONNRESET: 'the connection was cut',
    ENOTDIR: 'it is a file, and not a folder',
    EACCES: isLocal ? 'permission denied: be the user that the server runs as' : 'permission denied',
  }
  const why = reasons[String(code)] ?? (error instanceof Error ? error.message : String(error))
  const what = isLocal ? `the server with the state folder ${place.name}` : place.name
  return new ProxyError('PROXY_ERR_ADMIN', `cannot reach ${what}: ${why}`, { cause: error })
}

/** Nobody listens on the socket of that state folder. */
export function noServer(folder: string, cause?: unknown): ProxyError {
  const message = `no server runs with this state folder (${folder}): --state names another, --admin a server elsewhere`
  return new ProxyError('PROXY_ERR_NO_SERVER', message, { cause })
}

/** Whether a server listens on the socket; an error is for the first request to tell. */
export async function serverRuns({ target }: AdminPlace): Promise<boolean> {
  if (!('socketPath' in target)) return true
  const { connect } = await import('node:net')
  return await new Promise((resolve) => {
    const socket = connect({ path: target.socketPath })
    const settle = (runs: boolean): void => {
      socket.destroy()
      resolve(runs)
    }
    socket.once('connect', () => settle(true))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      settle(error.code !== 'ENOENT' && error.code !== 'ECONNREFUSED')
    })
  })
}
