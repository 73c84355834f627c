import { once } from 'node:events'
import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Endpoint, Listener } from '../../../lib/core/index.ts'
import { createWeb, type Web, type WebOptions } from '../../../lib/domains/web.ts'
import { tcp } from '../../../lib/index.ts'
import type { OnePortOptions } from '../../../lib/transports/one-port.ts'
import { type OnePortServer, onePortServer } from './one-port.ts'
import { connectPair, MEMORY, type Pair } from './proxies.ts'

export interface WebPort extends AsyncDisposable {
  readonly port: number
  readonly web: Web
  readonly pair: Pair
  /** Listens at the web port, and forwards to a port of this machine. */
  listen(at: string, to: number, domain?: 'web' | 'ws'): Promise<Listener>
}

/** A server's one port, and a node behind it that forwards. */
export async function webPort(options: WebOptions = {}, port: OnePortOptions = {}): Promise<WebPort> {
  const web = createWeb(options)
  const pair = await connectPair(MEMORY, { dialling: { domains: web.domains }, accepting: { domains: [tcp()] } })
  const { onRequest, onUpgrade } = web
  const server: OnePortServer = await onePortServer({ onRequest, onUpgrade, claims: web.claims, ...port })
  return {
    port: server.port,
    web,
    pair,
    listen: (at, to, domain = 'web') => {
      const Forward: Endpoint = { Domain: 'tcp', Addr: `127.0.0.1:${to}` }
      return pair.dialling.newListener({ Listen: { Domain: domain, Addr: at }, Forward })
    },
    async [Symbol.asyncDispose]() {
      web.close()
      await server[Symbol.asyncDispose]()
      await pair[Symbol.asyncDispose]()
    },
  }
}

export interface Target extends AsyncDisposable {
  readonly port: number
  readonly server: Server
  /** Connections that it has accepted so far. */
  readonly connections: () => number
}

/** A web server of its own. */
export async function target(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  options: { readonly keepAliveTimeout?: number } = {},
): Promise<Target> {
  const server = createServer(options, answer)
  let connections = 0
  server.on('connection', () => connections++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    server,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

export interface Asked {
  readonly host?: string
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
  readonly message: IncomingMessage
}

/** One request on a connection of its own; `url` goes out as it stands here. */
export async function ask(port: number, url: string, asked: Asked = {}): Promise<Answer> {
  const { host = 'example.test', method = 'GET', headers = {}, body } = asked
  const agent = new Agent({ keepAlive: false })
  const outgoing = request({ port, host: '127.0.0.1', path: url, method, agent, headers: { host, ...headers } })
  outgoing.end(body)
  const [message] = (await once(outgoing, 'response')) as [IncomingMessage]
  return { status: message.statusCode ?? 0, headers: message.headers, body: await text(message), message }
}
