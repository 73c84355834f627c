import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/** Who has sent a request, and whether it came encrypted: to here, or to the first of the trusted proxies in front. */
export interface Origin {
  /** As in `Link.remote`. */
  readonly remote: string | undefined
  readonly secure: boolean
  /** Whether it came by HTTP/2, whatever it looks like here. */
  readonly http2?: boolean | undefined
}

export type OnRequest = (request: IncomingMessage, response: ServerResponse, origin: Origin) => void
export type OnUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, origin: Origin) => void

/** A request that would rather go on in another protocol (RFC 9110 section 7.8), once more and without that offer. */
export function serveAgain(server: Server, request: IncomingMessage, head: Buffer): void {
  const { method, url, httpVersion, rawHeaders, socket } = request
  let text = `${method} ${url} HTTP/${httpVersion}\r\n`
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() !== 'upgrade') text += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`
  }
  socket.unshift(Buffer.concat([Buffer.from(`${text}\r\n`, 'latin1'), head]))
  server.emit('connection', socket)
}
