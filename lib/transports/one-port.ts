import type { IncomingMessage } from 'node:http'
import type { ListenOptions, Socket } from 'node:net'
import type { SecureContext, TLSSocket } from 'node:tls'
import { type Link, linkFrom, ProxyError } from '../core/index.ts'
import { customerOf, type Ip, isLoopback, NetSet, parseIp } from '../sockets/ip.ts'
import { listenSockets, unlisten } from '../sockets/listen.ts'
import { formatRemote } from '../sockets/remote.ts'
import type { OnRequest, OnUpgrade } from '../sockets/requests.ts'
import { adoptSocket } from '../sockets/socket-link.ts'
import { removeStale } from '../sockets/stale.ts'
import { type Arrival, Arrivals } from './arrivals.ts'
import { type ClientHello, readClientHello } from './client-hello.ts'
import { forwardedFor, forwardedSecurely } from './forwarded.ts'
import { readProxyHeader } from './proxy-header.ts'
import { readSpeech, Sniffer } from './sniff.ts'
import type { TcpAddress } from './tcp.ts'
import type { LinkListener } from './transport.ts'
import { Web, type WebVisit } from './web.ts'

export type { OnRequest, OnUpgrade, Origin } from '../sockets/requests.ts'
export type { ClientHello } from './client-hello.ts'

/** Who a connection is from, and how it travels: as in `Link`. */
export interface RoutedFrom {
  readonly remote: string | undefined
  readonly transport: string
}

export interface OnePortOptions {
  /**
   * The certificate for a client of TLS; undefined turns it away. Without this there is no TLS. A client waits as long as
   * it takes, which has to end.
   */
  readonly tls?: ((hello: ClientHello) => Promise<SecureContext | undefined>) | undefined
  /**
   * Takes a connection of TLS away by what its ClientHello says, and answers `true`. The socket has all of it to read,
   * and is the caller's from then on. `caller`: as in `Link`.
   */
  readonly route?: ((hello: ClientHello, socket: Socket, caller: RoutedFrom) => boolean) | undefined
  /** Whether `route` would take connections for this host away: requests for it on another one's are turned away. */
  readonly routes?: ((host: string) => boolean) | undefined
  /** Where the WebSocket is; `/` has it as well for those who offer the subprotocol `symport`. Default `/symport`. */
  readonly path?: string | readonly string[] | undefined
  /** Gets all other requests, over TLS those of HTTP/2, too. Default: 404. */
  readonly onRequest?: OnRequest | undefined
  readonly onUpgrade?: OnUpgrade | undefined
  /**
   * Whether a WebSocket at our own path that does not offer the subprotocol `symport` belongs to `onUpgrade` all the same:
   * a name that somebody else has on this port. Default: no.
   */
  readonly claims?: ((request: IncomingMessage) => boolean) | undefined
  /** Addresses and CIDRs whose word about who is behind them is believed; `unix` for what comes over a Unix socket. */
  readonly trustedProxies?: readonly string[] | undefined
  /**
   * Whether trusted proxies send PROXY headers. If `true` they must, if `false` they must not; by default they may, which
   * is right unless one of them passes on the bytes of strangers as they are, PROXY headers of their own making included.
   */
  readonly proxyProtocol?: boolean | undefined
  /** The header in which trusted proxies say whom a request comes from, before `X-Forwarded-For` and `Forwarded`. */
  readonly realIpHeader?: string | undefined
  /** Connections that have not said what they are, in all and from one address. Default 1,024 and 64. */
  readonly maxSilent?: number | undefined
  readonly silentPerAddress?: number | undefined
  /**
   * How long they may take for it, TLS handshake and headers of the first request included, in ms; a session of HTTP/2 may
   * later be without a request for six times as long. Default 10,000.
   */
  readonly timeout?: number | undefined
  /** A connection was closed before it became anything. `remote` as in `Link.remote`. */
  readonly onRejected?: ((remote: string | undefined, reason: ProxyError) => void) | undefined
}

/** Alert records of TLS 1.2, which older and newer clients read as well: fatal, and why. */
const HANDSHAKE_FAILURE = 40
const UNRECOGNIZED_NAME = 112
const alert = (why: number): Buffer => Buffer.from([0x15, 3, 3, 0, 2, 2, why])

const ALPN_PROTOCOLS = ['symport', 'http/1.1']
/** Browsers keep a session for all that they may want next. */
const IDLE_FACTOR = 6
const ALPN_FOR_VISITORS = ['symport', 'h2', 'http/1.1']
/** What a dialler says before it is answered is far less, and more would be kept for somebody who has proven nothing. */
const LONGEST_HEAD = 4096

/**
 * Listens, and tells by their first bytes what connections are: links as they are, in TLS, in a WebSocket, or in a
 * WebSocket in TLS; or other requests of HTTP. `host` empty: all interfaces. Port 0: any free one.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED; PROXY_ERR_PATTERN if a trusted proxy is no address
 */
export async function listenOnePort(
  at: TcpAddress | { readonly path: string },
  options: OnePortOptions,
  onLink: (link: Link) => void,
): Promise<LinkListener> {
  const unix = 'path' in at
  const onePort = new OnePort(options, unix, onLink)
  if (unix) await removeStale(at.path)
  const where: ListenOptions = unix ? { path: at.path } : at.host === '' ? { port: at.port } : { ...at }
  const name = unix ? at.path : formatRemote(at.host, at.port)
  const server = await listenSockets(where, name, (socket) => onePort.accept(socket))
  const bound = server.address()
  const address = typeof bound === 'object' && bound ? formatRemote(bound.address, bound.port) : name
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    onePort.close()
    closed ??= unlisten(server)
    return closed
  }
  return { address, close }
}

/** Who is at the other end, as far as that can be believed. */
interface Caller {
  readonly ip: Ip | undefined
  /** As in `Link.remote`. */
  readonly remote: string | undefined
  readonly trusted: boolean
}

class OnePort {
  readonly #options: OnePortOptions
  readonly #unix: boolean
  readonly #onLink: (link: Link) => void
  readonly #trusted: NetSet
  readonly #trustsUnix: boolean
  readonly #arrivals: Arrivals
  readonly #web: Web
  readonly #timeout: number
  /** Everything accepted that is nobody else's yet. */
  readonly #open = new Set<Socket>()
  #closed = false

  constructor(options: OnePortOptions, unix: boolean, onLink: (link: Link) => void) {
    const { trustedProxies = [], timeout = 10_000, path = '/symport' } = options
    this.#options = options
    this.#unix = unix
    this.#onLink = onLink
    this.#timeout = timeout
    this.#trusted = new NetSet(trustedProxies.filter((text) => text !== 'unix'))
    this.#trustsUnix = trustedProxies.includes('unix')
    this.#arrivals = new Arrivals({
      most: options.maxSilent ?? 1024,
      perAddress: options.silentPerAddress ?? 64,
      timeout,
    })
    const paths = [path].flat().map((one) => `/${one}`.replace(/^\/+/, '/').replace(/\/$/, ''))
    this.#web = new Web({ ...options, paths, timeout })
  }

  get #transport(): string {
    return this.#unix ? 'unix' : 'tcp'
  }

  accept(socket: Socket): void {
    const { remoteAddress, remotePort } = socket
    socket.on('error', () => {})
    // It has been reset already, or came in while all is closed.
    if (this.#closed || (remoteAddress === undefined && !this.#unix)) {
      socket.destroy()
      return
    }
    const caller = this.#callerAt(remoteAddress, remotePort)
    const arrival = this.#arrivals.add(socket, caller.remote, limitedBy(caller))
    this.#open.add(socket)
    socket.once('close', () => {
      this.#handOver(arrival)
      this.#tellWhy(arrival)
    })
    this.#serve(arrival, caller).catch((error) => {
      const problem = ProxyError.from(error, 'PROXY_ERR_TLS')
      // Probes come and go: that is no news.
      if (problem.code !== 'PROXY_ERR_LINK_LOST') arrival.reason ??= problem
      // What it still has to be told, as why there is no TLS, goes first.
      if (!socket.closed) socket.destroySoon()
      else this.#tellWhy(arrival)
    })
  }

  /** Once it is closed; the reason may come before or after that. */
  #tellWhy(arrival: Arrival): void {
    const { reason, remote, told } = arrival
    if (!reason || told || this.#closed) return
    arrival.told = true
    this.#options.onRejected?.(remote, reason)
  }

  close(): void {
    this.#closed = true
    for (const socket of this.#open) socket.destroy()
    this.#web.close()
  }

  #callerAt(address: string | undefined, port: number | undefined): Caller {
    if (address === undefined) return { ip: undefined, remote: undefined, trusted: this.#trustsUnix }
    // A zone says which network of this machine it is, and not who.
    const ip = parseIp(address.replace(/%.*$/s, ''))
    return { ip, remote: formatRemote(address, port), trusted: ip !== undefined && this.#trusted.has(ip) }
  }

  async #serve(arrival: Arrival, direct: Caller): Promise<void> {
    const { socket } = arrival
    const sniffer = new Sniffer(socket)
    const caller = await this.#readProxyHeader(arrival, sniffer, direct)
    const speech = await sniffer.until(readSpeech)
    if (speech === 'symport') {
      const head = firstWords(sniffer)
      this.#handOver(arrival)
      this.#onLink(adoptSocket(socket, { remote: caller.remote, transport: this.#transport, head }))
    } else if (speech === 'http') {
      sniffer.putBack()
      await this.#web.serve(socket, this.#webVisit(arrival, caller))
    } else {
      await this.#serveTls(arrival, sniffer, caller)
    }
  }

  async #readProxyHeader(arrival: Arrival, sniffer: Sniffer, caller: Caller): Promise<Caller> {
    const { proxyProtocol } = this.#options
    const header = await sniffer.until(readProxyHeader)
    if (!header) {
      if (caller.trusted && proxyProtocol) throw proxyHeaderError('there is none, and this proxy has to send one')
      return caller
    }
    if (!caller.trusted || proxyProtocol === false) throw proxyHeaderError('nobody is trusted to send one from there')
    sniffer.drop(header.length)
    if (!header.source) return caller
    const behind = this.#callerAt(header.source.address, header.source.port)
    arrival.remote = behind.remote
    this.#arrivals.moveTo(arrival, limitedBy(behind))
    return behind
  }

  async #serveTls(arrival: Arrival, sniffer: Sniffer, caller: Caller): Promise<void> {
    const { socket } = arrival
    const { route, tls } = this.#options
    const hello = await sniffer.until(readClientHello)
    sniffer.putBack()
    if (route?.(hello, socket, { remote: caller.remote, transport: this.#transport })) {
      this.#handOver(arrival)
      return
    }
    this.#arrivals.hold(arrival)
    const secureContext = await tls?.(hello)
    this.#arrivals.goOn(arrival)
    if (!secureContext) {
      socket.end(alert(tls && hello.serverName !== undefined ? UNRECOGNIZED_NAME : HANDSHAKE_FAILURE))
      const wanted = hello.serverName === undefined ? '' : ` for ${hello.serverName}`
      throw new ProxyError('PROXY_ERR_TLS', tls ? `there is no certificate${wanted}` : 'there is no TLS on this port')
    }
    const { TLSSocket } = await import('node:tls')
    // The end of a socket that nobody reads from is seen later, but not one of our own making.
    if (socket.destroyed) throw new ProxyError('PROXY_ERR_LINK_LOST', 'it was closed meanwhile')
    const ALPNProtocols = this.#options.onRequest ? ALPN_FOR_VISITORS : ALPN_PROTOCOLS
    const secure = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols })
    await handshaken(secure)
    endWhenBroken(secure)
    const visit = this.#webVisit(arrival, caller, { secure, serverName: hello.serverName })
    if (secure.alpnProtocol === 'h2') {
      const { serveHttp2 } = await import('./http2.ts')
      if (!secure.destroyed) serveHttp2(secure, visit, this.#web, IDLE_FACTOR * this.#timeout)
      return
    }
    const inner = new Sniffer(secure)
    const speech = await inner.until(readSpeech)
    if (speech === 'tls') throw new ProxyError('PROXY_ERR_UNKNOWN_PROTOCOL', 'TLS inside TLS')
    if (speech === 'http') {
      inner.putBack()
      await this.#web.serve(secure, visit)
      return
    }
    const head = firstWords(inner)
    this.#handOver(arrival)
    secure.unshift(head)
    this.#onLink(linkFrom(secure, caller.remote, 'tls'))
  }

  #webVisit(arrival: Arrival, caller: Caller, tls?: Secured): WebVisit {
    const { realIpHeader, routes } = this.#options
    const secure = tls !== undefined
    let judged: { readonly host: string; readonly foreign: boolean } | undefined
    return {
      onRequest: () => this.#arrivals.remove(arrival),
      onHandedOver: () => this.#handOver(arrival),
      onLink: this.#onLink,
      isMisdirected(request) {
        const host = hostOf(request)
        if (!tls || host === undefined) return false
        // A proxy in front has names of its own for what is behind it.
        if (routes?.(host)) return true
        if (caller.trusted) return false
        // Looking into a certificate takes longer than all the rest of a request.
        if (judged?.host !== host) judged = { host, foreign: isForeign(host, tls) }
        return judged.foreign
      },
      originOf: ({ headers }) => {
        const http2 = tls?.secure.alpnProtocol === 'h2'
        if (!caller.trusted) return { remote: caller.remote, secure, http2 }
        const hop = forwardedFor(headers, (ip) => this.#trusted.has(ip), realIpHeader)
        const remote = hop ? formatRemote(hop.address, hop.port) : caller.remote
        return { remote, secure: secure || forwardedSecurely(headers), http2 }
      },
    }
  }

  /** It is somebody else's from now on. */
  #handOver(arrival: Arrival): void {
    this.#arrivals.remove(arrival)
    this.#open.delete(arrival.socket)
  }
}

interface Secured {
  readonly secure: TLSSocket
  /** SNI. */
  readonly serverName: string | undefined
}

/**
 * Whether it is neither the host that this connection of TLS was made for, nor another one of its certificate: those a
 * visitor may ask for on it, too (RFC 9113 section 9.1.1).
 */
function isForeign(host: string, { secure, serverName }: Secured): boolean {
  if (serverName === undefined || host === serverName) return false
  const certificate = secure.getX509Certificate()
  // It throws at what is no address.
  const covers = parseIp(host) ? certificate?.checkIP(host) : certificate?.checkHost(host)
  return covers === undefined
}

/** Whom a request is for, in lower case, without a port. */
function hostOf({ url = '', headers }: IncomingMessage): string | undefined {
  const authority = /^https?:\/\/([^/?#]*)/i.exec(url)?.[1] ?? headers.host
  return authority?.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '')
}

/** What limits before authentication count by; undefined where there are none. */
function limitedBy({ ip, trusted }: Caller): string | undefined {
  return ip === undefined || trusted || isLoopback(ip) ? undefined : customerOf(ip)
}

function firstWords(sniffer: Sniffer): Buffer {
  const head = sniffer.take()
  if (head.length <= LONGEST_HEAD) return head
  throw new ProxyError('PROXY_ERR_HANDSHAKE', `${head.length} bytes before there was an answer`)
}

function handshaken(secure: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    let cause: Error | undefined
    secure.on('error', (error) => {
      cause ??= error
    })
    const failed = (): void => {
      const why = cause ? `: ${cause.message}` : ''
      reject(new ProxyError('PROXY_ERR_TLS', `the TLS handshake failed${why}`, { cause }))
    }
    secure.once('close', failed)
    // It may still write: nothing else tells that it has gone before the handshake was over.
    secure.once('end', failed)
    secure.once('secure', () => {
      secure.off('close', failed)
      secure.off('end', failed)
      resolve()
    })
  })
}

/**
 * After the handshake Node.js tells what goes wrong in TLS to servers of its own only: a broken record, for one, would
 * leave a connection that stays open and never says a word again. Renegotiation (RFC 5246 section 7.4.1.1), of which the
 * limit is told in that way too, is work that a client has for nothing, and no client of ours wants it.
 */
function endWhenBroken(secure: TLSSocket): void {
  secure.disableRenegotiation()
  secure.on('_tlsError', (error: Error) => secure.destroy(error))
}

function proxyHeaderError(why: string): ProxyError {
  return new ProxyError('PROXY_ERR_PROXY_HEADER', `PROXY header: ${why}`)
}
