import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { GenericSchema } from 'valibot'
import { ProxyError } from '../core/errors.ts'
import type { Operations } from '../hub/operations.ts'
import { Lazy } from '../sockets/lazy.ts'
import type { AuditLog } from './audit.ts'
import type { EventStreams } from './event-streams.ts'
import { publicFailure, statusOf } from './failures.ts'
import { isOwnHost } from './hosts.ts'
import { createMetrics } from './metrics.ts'
import { createRoutes, type Route, readiness } from './routes.ts'
import { errorAnswer, ready } from './schemas.ts'
import type { Tally } from './tally.ts'
import type { Tries } from './tries.ts'

export interface AppOptions {
  readonly operations: Operations
  readonly audit: AuditLog
  readonly events: EventStreams
  readonly tally: Tally
  /** How a connection has to prove itself that came over TCP; undefined for one of the Unix socket. */
  guardOf(socket: Socket): Guard | undefined
  readonly onError: (error: ProxyError) => void
}

export interface Guard {
  /** The host that it listens on, as it was asked for. */
  readonly bound: string
  readonly tries: Tries
  /** Fires when the server stops. */
  readonly signal: AbortSignal
  isToken(tried: string): boolean
}

export interface App {
  /** Serves a connection, from its first byte on. */
  serve(socket: Socket): void
  /** Ends connections when they have nothing under way. */
  close(): Promise<void>
}

const PREFIX = '/api/v1'
const BODY_LIMIT = 1024 * 1024
/** For a request's headers, and for all of it, in ms. */
const HEADERS_TIMEOUT = 10_000
const REQUEST_TIMEOUT = 30_000
const KEEP_ALIVE = 10_000
const CHECKING_INTERVAL = 5000
/** What anybody may know who can reach the port. */
const PUBLIC = new Set(['/healthz', '/readyz'])

/** The HTTP server. It does not listen: connections are handed to it. */
export async function createApp(options: AppOptions): Promise<App> {
  const [{ default: fastify }, { default: swagger }, { createServer }, { toJsonSchema }] = await Promise.all([
    import('fastify'),
    import('@fastify/swagger'),
    import('node:http'),
    import('@valibot/to-json-schema'),
  ])
  const jsonSchema = (schema: GenericSchema): object => {
    const { $schema, ...json } = toJsonSchema(schema, { target: 'draft-2020-12', errorMode: 'ignore' })
    return json
  }

  let http: Server | undefined
  const app: FastifyInstance = fastify({
    serverFactory: (handler) => {
      http = createServer(
        {
          keepAliveTimeout: KEEP_ALIVE,
          headersTimeout: HEADERS_TIMEOUT,
          requestTimeout: REQUEST_TIMEOUT,
          connectionsCheckingInterval: CHECKING_INTERVAL,
          maxHeaderSize: 16 * 1024,
        },
        handler,
      )
      return http
    },
    bodyLimit: BODY_LIMIT,
    routerOptions: { maxParamLength: 1000 },
    exposeHeadRoutes: false,
    logger: false,
    frameworkErrors: (error, _request, reply: FastifyReply) => void answerError(error, reply, options.onError),
  })
  // What is asked is checked by the schemas themselves, and what is answered is answered whole.
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  // Forms of other sites can send these without asking.
  app.removeContentTypeParser('text/plain')
  // RFC 7396 section 4.
  app.addContentTypeParser(
    'application/merge-patch+json',
    { parseAs: 'string' },
    app.getDefaultJsonParser('error', 'error'),
  )
  app.setErrorHandler((error, _request, reply) => void answerError(error, reply, options.onError))
  app.setNotFoundHandler((request, reply) => {
    const message = `there is no ${request.method} ${request.url.split('?')[0]?.slice(0, 200)}: see ${PREFIX}/openapi.json`
    void answerError(new ProxyError('PROXY_ERR_NOT_FOUND', message), reply, options.onError)
  })
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff')
    const guard = options.guardOf(request.raw.socket)
    if (guard) await admit(request, reply, guard)
  })

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'symport',
        description: 'What the operator of a symport server can do and see while it runs.',
        version: options.operations.status().version,
      },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    convertConstToEnum: false,
  })
  const failure = { description: 'What went wrong', ...jsonSchema(errorAnswer) }
  for (const route of createRoutes(options)) addRoute(app, route, failure, jsonSchema, options)
  addEventRoute(app, options, failure)
  addPlainRoutes(app, options, jsonSchema)
  app.get(
    `${PREFIX}/openapi.json`,
    { schema: { summary: 'This description, OpenAPI 3.1', tags: ['server'], response: { 200: anyObject('OpenAPI') } } },
    async () => app.swagger(),
  )
  await app.ready()
  return serverOf(http)
}

function serverOf(http: Server | undefined): App {
  if (!http) throw new Error('fastify asked for no server')
  const server = http
  // Node starts to watch over slow requests when its server listens, which this one never does.
  server.emit('listening')
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n')
    else socket.destroy()
  })
  let closing = false
  server.on('request', (_request, response: ServerResponse) => {
    response.once('finish', () => {
      if (closing) response.socket?.end()
    })
  })
  return {
    serve(socket) {
      server.emit('connection', socket)
      socket.resume()
    },
    async close() {
      closing = true
      server.close(() => {})
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}

/**
 * Lets a request in that came over TCP.
 *
 * @throws ProxyError PROXY_ERR_HOST, PROXY_ERR_UNAUTHORIZED, PROXY_ERR_TOO_MANY_FAILURES
 */
async function admit(request: FastifyRequest, reply: FastifyReply, guard: Guard): Promise<void> {
  if (!isOwnHost(request.headers.host, guard.bound)) {
    throw new ProxyError('PROXY_ERR_HOST', 'the Host header names another server: use its address, or localhost')
  }
  const token = tokenOf(request)
  const isPublic = request.method === 'GET' && PUBLIC.has(request.routeOptions.url ?? '')
  if (isPublic && token === undefined) return
  if (token !== undefined && guard.isToken(token)) return
  reply.header('www-authenticate', 'Bearer realm="symport"')
  if (token === undefined) {
    throw new ProxyError('PROXY_ERR_UNAUTHORIZED', 'a token is needed: Authorization: Bearer TOKEN')
  }
  if (await guard.tries.failed(request.raw.socket.remoteAddress ?? '', guard.signal)) {
    throw new ProxyError('PROXY_ERR_UNAUTHORIZED', 'the token is wrong')
  }
  reply.header('retry-after', '5')
  throw new ProxyError('PROXY_ERR_TOO_MANY_FAILURES', 'too many wrong tokens came from this address', {
    retryable: true,
  })
}

function tokenOf(request: FastifyRequest): string | undefined {
  return /^Bearer +([^\s]+) *$/i.exec(request.headers.authorization ?? '')?.[1]
}

function addRoute(
  app: FastifyInstance,
  route: Route,
  failure: object,
  jsonSchema: (schema: GenericSchema) => object,
  options: AppOptions,
): void {
  const { params, query, body, answer, status = answer ? 200 : 204 } = route
  const done = answer ? { description: 'Done', ...jsonSchema(answer) } : { description: 'Done', type: 'null' }
  app.route({
    method: route.method,
    // A colon that is no parameter.
    url: `${PREFIX}${route.url.replace(':batch', '::batch')}`,
    schema: {
      summary: route.summary,
      tags: [route.tag],
      ...(params ? { params: jsonSchema(params) } : {}),
      ...(query ? { querystring: jsonSchema(query) } : {}),
      ...(body ? { body: jsonSchema(body) } : {}),
      response: { [status]: done, default: failure },
    },
    handler: async (request, reply) => {
      const { socket } = request.raw
      const by = options.guardOf(socket) ? `api ${socket.remoteAddress?.replace(/^::ffff:/, '') ?? ''}` : 'cli'
      const result = await route.run({ params: request.params, query: request.query, body: request.body, by })
      reply.code(status)
      return answer ? result : null
    },
  })
}

function addEventRoute(app: FastifyInstance, { events }: AppOptions, failure: object): void {
  const stream = { 'text/event-stream': { schema: { type: 'string' } } }
  const schema = {
    summary: 'What happens, as it happens: Server-Sent Events, each with "type" and "time"',
    tags: ['server'],
    response: { 200: { description: 'A stream without end', content: stream }, default: failure },
  }
  app.get(`${PREFIX}/events`, { schema }, async (_request, reply) => {
    events.add(reply.raw)
    reply.hijack()
  })
}

function addPlainRoutes(
  app: FastifyInstance,
  { operations, tally, guardOf }: AppOptions,
  jsonSchema: (schema: GenericSchema) => object,
): void {
  const tags = ['health']
  const readyAnswer = { description: 'Ready or not, and why', ...jsonSchema(ready) }
  app.get(
    '/healthz',
    {
      schema: { summary: 'Answers while the process does', tags, security: [], response: { 200: anyObject('Alive') } },
    },
    async () => ({ ok: true }),
  )
  app.get(
    '/readyz',
    {
      schema: {
        summary: 'Whether the server listens, and all that its configuration maps',
        tags,
        security: [],
        response: { 200: readyAnswer, 503: readyAnswer },
      },
    },
    async (request, reply) => {
      const trusted = !guardOf(request.raw.socket) || tokenOf(request) !== undefined
      const state = readiness(operations, trusted)
      reply.code(state.ready ? 200 : 503)
      return state
    },
  )
  const text = { 'text/plain': { schema: { type: 'string' } } }
  const metrics = new Lazy(() => createMetrics({ operations, tally }))
  app.get(
    '/metrics',
    { schema: { summary: 'Figures for Prometheus', tags, response: { 200: { description: 'Text', content: text } } } },
    async (_request, reply) => {
      const { contentType, text } = await metrics.get()
      reply.type(contentType)
      return await text()
    },
  )
}

function anyObject(description: string): object {
  return { description, type: 'object', additionalProperties: true }
}

async function answerError(error: unknown, reply: FastifyReply, onError: (error: ProxyError) => void): Promise<void> {
  const known = asProxyError(error)
  if (!known) {
    const why = error instanceof Error ? error.message : String(error)
    onError(new ProxyError('PROXY_ERR_INTERNAL', `the admin API failed: ${why}`, { cause: error }))
  }
  await reply.code(known ? statusOf(known) : 500).send({ error: publicFailure(known ?? error) })
}

/** The errors of fastify that a request is to blame for, in our words. */
function asProxyError(error: unknown): ProxyError | undefined {
  if (error instanceof ProxyError || !(error instanceof Error)) return error instanceof ProxyError ? error : undefined
  const code = 'code' in error ? error.code : undefined
  const status = 'statusCode' in error ? error.statusCode : undefined
  if (status === 413) {
    return new ProxyError('PROXY_ERR_REQUEST_TOO_LARGE', `the body is larger than ${BODY_LIMIT} bytes`, {
      cause: error,
    })
  }
  if (status === 415) {
    const message = 'the body must be JSON, with the header content-type: application/json'
    return new ProxyError('PROXY_ERR_REQUEST', message, { cause: error })
  }
  const isRequest = typeof status === 'number' && status >= 400 && status < 500
  if (!isRequest) return undefined
  const message = code === 'FST_ERR_BAD_URL' ? 'the URL is malformed' : `the request is malformed: ${error.message}`
  return new ProxyError('PROXY_ERR_REQUEST', message.replace(/\s+/g, ' ').slice(0, 200), { cause: error })
}
