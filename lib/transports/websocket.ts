import type { IncomingMessage } from 'node:http'
import { type Link, ProxyError } from '../core/index.ts'
import { dialError } from '../sockets/dial.ts'
import { openSecure, type TlsDialOptions } from './tls.ts'
import { Attempt, openSocket, shown } from './via-proxy.ts'
import { SUBPROTOCOL, WEBSOCKET_SETTINGS, WebSocketLink } from './websocket-link.ts'

/** What `ws` says of an answer that agrees to a WebSocket, but not to ours. */
const NOT_OURS = /subprotocol|Sec-WebSocket|Upgrade header/i

/**
 * Links over WebSocket (RFC 6455): `ws://host:3699/symport`, `wss://host/symport`. Redirects are not followed. A name and
 * password in the URL are for a web server in front (RFC 7617); no error shows them.
 */
export async function dialWebSocket(url: string | URL, options: TlsDialOptions): Promise<Link> {
  const to = new URL(url)
  const secure = to.protocol === 'wss:'
  if (!secure && to.protocol !== 'ws:') throw new TypeError('the URL begins with ws:// or wss://')
  const at = { host: to.hostname.replace(/^\[|\]$/g, ''), port: Number(to.port || (secure ? 443 : 80)) }
  const loading = import('ws')
  loading.catch(() => {})
  return await Attempt.run(options, async (attempt) => {
    const socket = secure
      ? await openSecure(at, 'http/1.1', options, attempt)
      : await openSocket(at, options.via, attempt)
    const { WebSocket } = await loading
    attempt.waitFor(shown(at))
    return await attempt.guard<Link>(socket, (resolve, reject) => {
      const ws = new WebSocket(to, SUBPROTOCOL, { ...WEBSOCKET_SETTINGS, createConnection: () => socket })
      const transport = secure ? 'wss' : 'ws'
      ws.on('error', (error) => reject(handshakeError(error, shown(at))))
      ws.once('unexpected-response', (_request, response) => {
        reject(unexpected(response, shown(at), to))
        socket.destroy()
      })
      // In this turn: messages may come right behind the answer.
      ws.once('open', () => resolve(new WebSocketLink(ws, { remote: shown(at), transport, socket })))
    })
  })
}

function handshakeError(error: NodeJS.ErrnoException, name: string): ProxyError {
  if (error.code?.startsWith('HPE_')) {
    return new ProxyError('PROXY_ERR_DIAL_FAILED', `${name} does not answer in HTTP: is it a web port?`, {
      cause: error,
    })
  }
  if (NOT_OURS.test(error.message)) {
    return new ProxyError('PROXY_ERR_DIAL_FAILED', `${name} speaks WebSocket, but not symport: is the path right?`, {
      cause: error,
    })
  }
  return dialError(error, name)
}

/** The answer of a web server that does not agree to a WebSocket. */
function unexpected(response: IncomingMessage, name: string, { pathname }: URL): ProxyError {
  const status = response.statusCode ?? 0
  const { location } = response.headers
  const said = `(HTTP ${status})`
  let message = `${name} is a web server, and ${pathname} there is no symport ${said}: is the path right?`
  if (status >= 300 && status < 400 && location !== undefined) {
    const there = location.replace(/[^\x21-\x7e]/g, '?').slice(0, 200)
    message = `${name} sends us on to ${there} ${said}: if that is right, give it as the server's address`
  } else if (status === 401 || status === 403) {
    message = `the web server on ${name} does not let us in ${said}`
  } else if (status === 426) {
    message = `a proxy on the way to ${name} does not pass on the Upgrade header, which a WebSocket needs ${said}`
  } else if (status >= 500) {
    message = `the web server on ${name} cannot reach symport behind it now ${said}`
  } else if (status === 429) {
    message = `the web server on ${name} wants us to slow down ${said}`
  }
  const retryable = status >= 500 || status === 429
  return new ProxyError('PROXY_ERR_DIAL_FAILED', message, { retryable })
}
