import type { Socket } from 'node:net'
import type { SecureContext, TLSSocket } from 'node:tls'
import type { OnRequest } from '../sockets/requests.ts'
import type { ClientHello } from './client-hello.ts'

/** What a CA is shown that looks whether names are ours. */
export interface AcmeAnswers {
  /** What stands at a path, over plain HTTP (RFC 8555 section 8.3). */
  forPath(path: string): string | undefined
  /** What TLS is accepted with for a name (RFC 8737). */
  forName(name: string): SecureContext | undefined
}

const PROTOCOL = 'acme-tls/1'
/** A CA looks from a few places at once, at a few names. */
const MOST_AT_ONCE = 64
const MOST_OF_ONE = 16
const TIMEOUT = 10_000

/** Whether this is a CA that looks, or somebody who does as if. No visitor is. */
export function isAcmeHello({ alpn }: ClientHello): boolean {
  return alpn.length === 1 && alpn[0] === PROTOCOL
}

/**
 * For `route` of the one port: takes what comes from a CA that looks at a name just now, and nothing else. A CA is done in
 * a moment; so of too many it is the one that has taken longest that has to go, of the same address first.
 */
export function acmeRoute(answers: AcmeAnswers): (hello: ClientHello, socket: Socket) => boolean {
  /** With the addresses, the oldest first. */
  const open = new Map<Socket, string | undefined>()
  return (hello, socket) => {
    const context = isAcmeHello(hello) && hello.serverName !== undefined ? answers.forName(hello.serverName) : undefined
    if (!context) return false
    const address = socket.remoteAddress
    const ofOne = [...open].filter(([, other]) => other === address).map(([other]) => other)
    const oldest =
      ofOne.length >= MOST_OF_ONE ? ofOne[0] : open.size >= MOST_AT_ONCE ? open.keys().next().value : undefined
    if (oldest) {
      open.delete(oldest)
      oldest.destroy()
    }
    open.set(socket, address)
    socket.once('close', () => open.delete(socket))
    show(socket, context).catch(() => socket.destroy())
    return true
  }
}

/** For `onRequest` of the one port: answers a CA that looks, and leaves all else to `next`. */
export function acmeRequests(answers: AcmeAnswers, next: OnRequest): OnRequest {
  return (request, response, origin) => {
    const { method, url = '' } = request
    const answer = method === 'GET' || method === 'HEAD' ? answers.forPath(url) : undefined
    if (answer === undefined) return next(request, response, origin)
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': answer.length })
    response.end(answer)
  }
}

/** The certificate is all there is to see: nothing is said on such a connection. */
async function show(socket: Socket, secureContext: SecureContext): Promise<void> {
  const timer = setTimeout(() => socket.destroy(), TIMEOUT)
  socket.once('close', () => clearTimeout(timer))
  const { TLSSocket } = await import('node:tls')
  if (socket.destroyed) return
  const secure: TLSSocket = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: [PROTOCOL] })
  secure.on('error', () => socket.destroy())
  secure.on('_tlsError', () => socket.destroy())
  secure.disableRenegotiation()
  secure.once('secure', () => secure.end())
  secure.once('end', () => secure.end())
  secure.resume()
}
