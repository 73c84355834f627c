import type { ListenOptions, Socket } from 'node:net'
import type { Endpoint, ListenContext, Listener } from '../core/index.ts'
import { listenSockets, unlisten } from '../sockets/listen.ts'
import { formatRemote } from '../sockets/remote.ts'
import { formatHostPort } from './address.ts'
import { Gate } from './dynamic-access.ts'
import { parseDynamic } from './dynamic-address.ts'
import { sayFarewell } from './dynamic-open.ts'
import { type Greeting, Greetings } from './greetings.ts'
import { HttpProxyServer, notHere, tooSlow } from './http-proxy-server.ts'
import { SocketReader } from './socket-reader.ts'
import { SocksUdp, type SocksUdpOptions } from './socks-udp.ts'
import { Socks5Server } from './socks5-server.ts'
import { NO_METHOD, SOCKS_VERSION, SOCKS4_REFUSED, SOCKS4_VERSION } from './socks5-wire.ts'

export interface DynamicOptions extends SocksUdpOptions {
  /** How long a client may take to say what it wants, in ms. Default 10,000. */
  readonly handshakeTimeout?: number | undefined
  /** Clients that have not said it yet, at once; one more takes the place of the oldest, silent ones first. Default 512. */
  readonly handshakes?: number | undefined
  /** HTTP: how long a client may leave off in the middle of a body, in ms. Default 60,000. */
  readonly bodyTimeout?: number | undefined
  /** HTTP: how long a target may leave an upgrade without any answer, in ms. Default 60,000. */
  readonly upgradeTimeout?: number | undefined
  /** HTTP: how long a client may leave its answer unread, in ms; noticed within twice that. Default 300,000. */
  readonly unreadTimeout?: number | undefined
  /** Hears what an operator should know, as that others can read the password file. */
  readonly onWarning?: ((text: string) => void) | undefined
}

/**
 * Listens as a proxy server, of the kind that the domain of `at` says.
 *
 * @throws ProxyError PROXY_ERR_LISTEN_FAILED, also where the password file cannot be read
 */
export async function listenDynamic(at: Endpoint, context: ListenContext, options: DynamicOptions): Promise<Listener> {
  const { host, port, access } = parseDynamic(at.Addr)
  const gate = access && (await Gate.open(access, options.onWarning))
  const server = new DynamicServer(at.Domain, context, gate, options)
  // Without a host Node.js takes [::], which is IPv4 too, where there is IPv6.
  const where: ListenOptions = host === '' ? { port } : { host, port }
  const listening = await listenSockets(where, formatHostPort({ host, port }), (socket) => server.accept(socket))
  const address = listening.address()
  const bound = typeof address === 'object' && address ? { host: address.address, port: address.port } : { host, port }
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    closed ??= unlisten(listening)
    server.close()
    return closed
  }
  return { bound: { Domain: at.Domain, Addr: formatHostPort(bound) }, close, [Symbol.asyncDispose]: close }
}

class DynamicServer {
  readonly #domain: string
  readonly #greetings: Greetings
  readonly #http: HttpProxyServer
  readonly #socks: Socks5Server
  readonly #udp: SocksUdp
  #closed = false

  constructor(domain: string, context: ListenContext, gate: Gate | undefined, options: DynamicOptions) {
    const { handshakeTimeout = 10_000, handshakes = 512 } = options
    const { bodyTimeout = 60_000, upgradeTimeout = 60_000, unreadTimeout = 300_000 } = options
    const timeouts = { head: handshakeTimeout, body: bodyTimeout, upgrade: upgradeTimeout, unread: unreadTimeout }
    this.#domain = domain
    this.#greetings = new Greetings(handshakes, handshakeTimeout)
    this.#udp = new SocksUdp(context, options)
    this.#socks = new Socks5Server(context, gate, this.#udp)
    this.#http = new HttpProxyServer(context, gate, timeouts)
  }

  accept(socket: Socket): void {
    socket.on('error', () => {})
    const { remoteAddress, remotePort } = socket
    // It has been reset already, or came in while all is closed.
    if (this.#closed || remoteAddress === undefined) {
      socket.destroy()
      return
    }
    const greeting = this.#greetings.add(socket)
    this.#serve(socket, greeting, formatRemote(remoteAddress, remotePort)).catch(() => socket.destroy())
  }

  /** What is open goes on; who has not said what it wants is turned away. */
  close(): void {
    this.#closed = true
    this.#greetings.close()
    this.#http.close()
    this.#udp.close()
  }

  async #serve(socket: Socket, greeting: Greeting, remote: string): Promise<void> {
    const reader = new SocketReader(socket)
    const [first = 0] = await reader.peek(1)
    const onRequest = (): void => this.#greetings.remove(greeting)
    const speaksHttp = isLetter(first)
    if (this.#domain !== 'http' && first === SOCKS_VERSION) {
      await this.#socks.serve({ socket, remote, reader, onRequest })
    } else if (first === SOCKS4_VERSION) {
      sayFarewell(socket, SOCKS4_REFUSED)
    } else if (first === SOCKS_VERSION || (this.#domain === 'socks5' && !speaksHttp)) {
      sayFarewell(socket, NO_METHOD)
    } else if (this.#domain === 'socks5') {
      notHere(socket)
    } else if (this.#domain === 'http' || speaksHttp) {
      greeting.onLate = tooSlow
      reader.putBack()
      await this.#http.serve({ socket, remote, onRequest })
    } else {
      // Nothing that could be said would be understood.
      socket.destroy()
    }
  }
}

function isLetter(byte: number): boolean {
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x7a
}
