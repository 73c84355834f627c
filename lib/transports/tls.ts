import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { type Link, linkFrom } from '../core/index.ts'
import { dialError } from '../sockets/dial.ts'
import { checkPin, tlsError, type Verify, verifySettings } from '../sockets/verify.ts'
import type { TcpAddress } from './tcp.ts'
import { Attempt, type DialOptions, openSocket, shown } from './via-proxy.ts'

export interface TlsTarget extends TcpAddress {
  /** The name to ask for and to find in the certificate. Default: the host. */
  readonly serverName?: string | undefined
}

export interface TlsDialOptions extends DialOptions {
  verify: Verify
}

/** Links over TLS 1.2 or later, with the protocol `symport` (ALPN, RFC 7301). */
export async function dialTls(to: TlsTarget, options: TlsDialOptions): Promise<Link> {
  return await Attempt.run(options, async (attempt) =>
    linkFrom(await openSecure(to, 'symport', options, attempt), shown(to), 'tls'),
  )
}

/** A TLS connection to `to`. Nothing was sent on it, and whoever is there is who was meant. */
export async function openSecure(
  to: TlsTarget,
  protocol: 'symport' | 'http/1.1',
  { via, verify }: TlsDialOptions,
  attempt: Attempt,
): Promise<TLSSocket> {
  // Loaded and read while the connection is made.
  const loading = import('node:tls')
  const checking = verifySettings(verify)
  checking.catch(() => {})
  const socket = await openSocket(to, via, attempt)
  const [tls, settings] = await Promise.all([loading, checking])
  attempt.waitFor(shown(to))
  const { isIP } = await import('node:net')
  const host = (to.serverName ?? to.host).replace(/\.$/, '')
  const secure = tls.connect({
    ...settings,
    socket,
    host,
    // RFC 6066 section 3: no addresses.
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ALPNProtocols: [protocol],
    minVersion: 'TLSv1.2',
  })
  return await attempt.guard(secure, (resolve, reject) => {
    secureConnected(secure, socket, { verify, name: shown(to) }, resolve, reject)
  })
}

function secureConnected(
  secure: TLSSocket,
  socket: Socket,
  { verify, name }: { verify: Verify; name: string },
  resolve: (secure: TLSSocket) => void,
  reject: (error: unknown) => void,
): void {
  // The first listener stays: an error that nobody waits for any more must not end the process.
  secure.on('error', (error) => {
    reject(tlsError(error, verify, name) ?? dialError(error, name))
    socket.destroy()
  })
  secure.once('close', () => reject(tlsError(closedEarly(), verify, name)))
  secure.once('secureConnect', () => {
    try {
      if (verify.by === 'pin') checkPin(secure, verify.sha256, name)
      resolve(secure)
    } catch (error) {
      reject(error)
    }
  })
}

function closedEarly(): Error {
  return Object.assign(new Error('closed'), { code: 'ECONNRESET' })
}
