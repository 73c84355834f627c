import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { type AddressInfo, createServer as createNet, type Server, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { createServer as createTls, type TLSSocket, type TlsOptions } from 'node:tls'
import { type WebSocket, WebSocketServer } from 'ws'

/** Closes a server and what it has accepted when the test ends. */
async function serve(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A TCP server on 127.0.0.1; answers its port. */
export async function serveTcp(t: TestContext, onSocket: (socket: Socket) => void): Promise<number> {
  const server = createNet({ allowHalfOpen: true }, (socket) => onSocket(socket))
  return await serve(t, server)
}

/** A TLS server; without a handler it sends back what comes. */
export async function serveTls(
  t: TestContext,
  options: TlsOptions,
  onSocket: (socket: TLSSocket) => void = (socket) => socket.pipe(socket),
): Promise<number> {
  const server = createTls({ ALPNProtocols: ['symport'], ...options }, (socket) => {
    socket.on('error', () => {})
    onSocket(socket)
  })
  return await serve(t, server)
}

export interface WebOptions {
  /** Makes it https. */
  tls?: TlsOptions
  onWebSocket?: (ws: WebSocket) => void
  onRequest?: RequestListener
  /** Default: symport. */
  subprotocol?: string
}

/** A web server with WebSockets at /symport, which send back what comes unless there is a handler. */
export async function serveWeb(t: TestContext, options: WebOptions = {}): Promise<number> {
  const { subprotocol = 'symport', onRequest = (_, response) => response.writeHead(404).end() } = options
  const echo = (ws: WebSocket): void => {
    ws.on('message', (data) => ws.send(data))
  }
  const server = options.tls ? createHttps(options.tls, onRequest) : createServer(onRequest)
  const web = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
  })
  server.on('upgrade', (request, socket, head) => {
    if (request.url !== '/symport') {
      server.emit('request', request, answerOn(socket))
      return
    }
    web.handleUpgrade(request, socket, head, (ws) => {
      ws.on('error', () => {})
      ;(options.onWebSocket ?? echo)(ws)
    })
  })
  t.after(() => {
    for (const ws of web.clients) ws.terminate()
  })
  return await serve(t, server)
}

/** Enough of a response for an upgrade that is turned down. */
function answerOn(socket: NodeJS.WritableStream): unknown {
  return {
    writeHead(status: number, headers: Record<string, string> = {}) {
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
      socket.write(`HTTP/1.1 ${status} x\r\nconnection: close\r\n${lines.join('')}\r\n`)
      return this
    },
    end: () => socket.end(),
  }
}
