import { BlockList, connect, isIP, type Socket } from 'node:net'
import { type Abortable, type Link, linkFrom, ProxyError } from '../core/index.ts'
import { dialError } from '../sockets/dial.ts'
import type { TcpAddress } from './tcp.ts'

/** Bytes that the head of a proxy's answer may have. */
const LONGEST_HEAD = 16_384
/** A little less than `connect` waits for a dial, or nobody would hear what it was that did not answer. */
const TIMEOUT = 9500
/** RFC 1929: a length of one byte. */
const LONGEST_SOCKS_FIELD = 255

/** A proxy through which links are dialled. */
export interface Via {
  readonly kind: 'http' | 'socks5'
  readonly host: string
  readonly port: number
  readonly credentials?: { readonly user: string; readonly password: string } | undefined
}

export interface DialOptions extends Abortable {
  /** For all steps together, in ms. Default 9,500. */
  timeout?: number | undefined
  via?: Via | undefined
}

const DEFAULT_PORTS: Readonly<Record<Via['kind'], number>> = { http: 3128, socks5: 1080 }

/**
 * Reads `http://user:password@host:3128` or `socks5://host:1080`. No error shows the text: it may hold a password.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function parseVia(text: string): Via {
  const [, scheme = 'http', rest = ''] = /^(?:([a-z0-9+.-]+):\/\/)?(.*)$/is.exec(text.trim()) ?? []
  const kind = { http: 'http', socks5: 'socks5', socks5h: 'socks5' }[scheme.toLowerCase()]
  if (kind !== 'http' && kind !== 'socks5') {
    throw usage(`a proxy is http://HOST:PORT or socks5://HOST:PORT, not ${scheme.slice(0, 20)}://`)
  }
  const at = rest.lastIndexOf('@')
  const place = rest.slice(at + 1).replace(/\/$/, '')
  const [, bracketed, plain, port] = /^(?:\[([0-9a-f:.]+)\]|([^\s:/?#[\]@\\]+))(?::([0-9]{1,5}))?$/i.exec(place) ?? []
  const host = bracketed ?? plain
  const number = port === undefined ? DEFAULT_PORTS[kind] : Number(port)
  if (host === undefined || number < 1 || number > 65535 || (bracketed !== undefined && isIP(bracketed) !== 6)) {
    throw usage(
      'a proxy is http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ before the host if it wants that',
    )
  }
  return { kind, host, port: number, credentials: at < 0 ? undefined : parseCredentials(rest.slice(0, at), kind) }
}

function parseCredentials(text: string, kind: Via['kind']): Via['credentials'] {
  const colon = text.indexOf(':')
  try {
    const user = decodeURIComponent(colon < 0 ? text : text.slice(0, colon))
    const password = colon < 0 ? '' : decodeURIComponent(text.slice(colon + 1))
    const longest = Math.max(Buffer.byteLength(user), Buffer.byteLength(password))
    if (kind === 'socks5' && longest > LONGEST_SOCKS_FIELD) throw usage('SOCKS5 knows names and passwords of 255 bytes')
    return { user, password }
  } catch (error) {
    if (error instanceof ProxyError) throw error
    // The cause would show what could not be decoded.
    throw usage('the name or password of the proxy has a % that is not written as %25')
  }
}

/** For people, without the password. */
export function viaName(via: Via): string {
  return `${via.kind}://${via.host.includes(':') ? `[${via.host}]` : via.host}:${via.port}`
}

export interface ProxyTarget extends TcpAddress {
  readonly scheme: 'tls' | 'ws' | 'wss'
}

/**
 * The proxy that the environment names for a target, as other programs read it: `https_proxy` and `all_proxy` (for ws://
 * `http_proxy` instead of the first), also in upper case, but for what stands in `no_proxy`, and this machine: no proxy
 * leads back to it.
 *
 * @throws ProxyError PROXY_ERR_USAGE if what stands there is no proxy
 */
export function viaFromEnvironment(
  target: ProxyTarget,
  environment: Readonly<Record<string, string | undefined>>,
): Via | undefined {
  const read = (name: string): string | undefined => environment[name] || environment[name.toUpperCase()]
  const first = target.scheme === 'ws' ? 'http_proxy' : 'https_proxy'
  const name = read(first) ? first : 'all_proxy'
  const text = read(name)
  if (!text || isExempt(target, read('no_proxy') ?? '')) return undefined
  try {
    return parseVia(text)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw usage(`${name.toUpperCase()} in the environment: ${why} (--proxy none does without)`)
  }
}

/** Entries of `no_proxy`: `*`, a name and all below it, `.suffix`, `*.suffix`, an address, a CIDR; each with `:port`. */
function isExempt({ host, port }: TcpAddress, list: string): boolean {
  const name = host.toLowerCase().replace(/\.$/, '')
  if (name === 'localhost' || isInNet(name, '127.0.0.0/8') || isInNet(name, '::1')) return true
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '' || entry === '*') return entry === '*'
      const [, bracketed, plain, at] = /^(?:\[([^\]]*)\]|([^:]*))(?::([0-9]+))?$/.exec(entry) ?? []
      if (at !== undefined && Number(at) !== port) return false
      // A bare IPv6 address is neither.
      const pattern = bracketed ?? plain ?? entry
      if (isIP(name) !== 0) return isInNet(name, pattern)
      const suffix = pattern.replace(/^\*?\./, '')
      return suffix !== '' && (name === suffix || name.endsWith(`.${suffix}`))
    })
}

function isInNet(address: string, net: string): boolean {
  const [base = '', prefix] = net.split('/')
  const version = isIP(base)
  const bits = version === 6 ? 128 : 32
  const length = prefix === undefined ? bits : Number(prefix)
  if (version === 0 || prefix === '' || !Number.isInteger(length) || length < 0 || length > bits) return false
  const nets = new BlockList()
  nets.addSubnet(base, length, version === 6 ? 'ipv6' : 'ipv4')
  const own = isIP(address)
  return own !== 0 && nets.check(address, own === 6 ? 'ipv6' : 'ipv4')
}

/** One deadline for all the steps of a dial, each of which says what it waits for. */
export class Attempt {
  readonly #abort = new AbortController()
  #waitingFor = 'an answer'

  /** Runs `dial`. What it has opened by then is destroyed if it takes too long or is given up. */
  static async run<T>(options: DialOptions, dial: (attempt: Attempt) => Promise<T>): Promise<T> {
    const { signal, timeout = TIMEOUT } = options
    const attempt = new Attempt()
    const giveUp = (): void => attempt.#abort.abort(new ProxyError('PROXY_ERR_ABORTED', 'the dial was given up'))
    const timer = setTimeout(() => {
      const message = `no answer from ${attempt.#waitingFor} in time`
      attempt.#abort.abort(new ProxyError('PROXY_ERR_DIAL_FAILED', message, { retryable: true }))
    }, timeout)
    signal?.addEventListener('abort', giveUp)
    if (signal?.aborted) giveUp()
    try {
      attempt.#abort.signal.throwIfAborted()
      return await dial(attempt)
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', giveUp)
    }
  }

  waitFor(what: string): void {
    this.#waitingFor = what
  }

  /** Settles as `steps` has it, or rejects when there is no time left; `socket` is destroyed unless all went well. */
  async guard<T>(
    socket: { destroy(error?: Error): unknown },
    steps: (resolve: (value: T) => void, reject: (error: unknown) => void) => void,
  ): Promise<T> {
    const { signal } = this.#abort
    let late = (): void => {}
    try {
      return await new Promise<T>((resolve, reject) => {
        late = () => reject(signal.reason)
        signal.addEventListener('abort', late)
        if (signal.aborted) late()
        else steps(resolve, reject)
      })
    } catch (error) {
      socket.destroy()
      throw error
    } finally {
      signal.removeEventListener('abort', late)
    }
  }
}

/** A TCP connection to `to`, through a proxy if one is given. Nothing is read from it yet. */
export async function openSocket(to: TcpAddress, via: Via | undefined, attempt: Attempt): Promise<Socket> {
  const name = shown(to)
  if (!via) return await openDirect(to, attempt, name, `: is TCP ${to.port} open in the firewall?`)
  const proxy = `the proxy ${viaName(via)}`
  const socket = await openDirect(via, attempt, proxy, '')
  attempt.waitFor(proxy)
  return await (via.kind === 'http' ? openByConnect : openBySocks)(socket, to, via, attempt)
}

async function openDirect(to: TcpAddress, attempt: Attempt, name: string, advice: string): Promise<Socket> {
  attempt.waitFor(name)
  const socket = connect({
    host: to.host,
    port: to.port,
    noDelay: true,
    autoSelectFamily: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    allowHalfOpen: true,
  })
  // Whoever takes it over hears of its end by other ways.
  socket.on('error', () => {})
  try {
    return await attempt.guard<Socket>(socket, (resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(socket)
      })
    })
  } catch (error) {
    const problem = dialError(error, name)
    if (!/ in time$/.test(problem.message) || advice === '') throw problem
    throw new ProxyError(problem.code, `${problem.message}${advice}`, { cause: problem.cause, retryable: true })
  }
}

/** RFC 9110 section 9.3.6. */
async function openByConnect(socket: Socket, to: TcpAddress, via: Via, attempt: Attempt): Promise<Socket> {
  const { request } = await import('node:http')
  const target = shown(to)
  const { credentials } = via
  const basic = credentials && Buffer.from(`${credentials.user}:${credentials.password}`).toString('base64')
  return await attempt.guard<Socket>(socket, (resolve, reject) => {
    const connecting = request({
      method: 'CONNECT',
      path: target,
      headers: { host: target, ...(basic === undefined ? {} : { 'proxy-authorization': `Basic ${basic}` }) },
      createConnection: () => socket,
      maxHeaderSize: LONGEST_HEAD,
    })
    // Errors may follow the first one.
    connecting.on('error', (error) => reject(unclear(via, error)))
    connecting.once('connect', (answer, _socket, head) => {
      const status = answer.statusCode ?? 0
      if (status < 200 || status > 299) {
        reject(denied(via, target, status))
        return
      }
      // What came behind the head belongs to whoever reads next.
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    connecting.end()
  })
}

function denied(via: Via, target: string, status: number): ProxyError {
  const proxy = `the proxy ${viaName(via)}`
  // tinyproxy says 401 to a wrong password.
  if (status === 407 || status === 401) {
    const advice = via.credentials ? 'does not take this name and password' : 'wants a name and password'
    return failed(`${proxy} ${advice} (HTTP ${status}): http://USER:PASSWORD@HOST:PORT`)
  }
  if (status === 403 || status === 405)
    return failed(`${proxy} does not allow connections to ${target} (HTTP ${status})`)
  const retryable = status >= 500
  return failed(`${proxy} cannot connect to ${target} (HTTP ${status})`, retryable)
}

/** Its own errors may show what was sent, so that they are no cause to be kept. */
function unclear(via: Via, error: NodeJS.ErrnoException): ProxyError {
  const proxy = `the proxy ${viaName(via)}`
  if (error.code === 'HPE_HEADER_OVERFLOW') return failed(`${proxy} answers with a head that is too long`)
  if (error.code?.startsWith('HPE_')) return failed(`${proxy} does not answer in HTTP: is it a proxy?`)
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return failed(`${proxy} closed the connection`, true)
  return failed(`${proxy}: ${error.code ?? 'the connection failed'}`, true)
}

const SOCKS_ERRORS: readonly (readonly [RegExp, (target: string) => string, boolean])[] = [
  [/Authentication failed/i, () => 'does not take this name and password', false],
  [/no accepted|no acceptable/i, () => 'wants a name and password, or other ones', false],
  [/NotAllowed/i, (target) => `does not allow connections to ${target}`, false],
  [/HostUnreachable|NetworkUnreachable/i, (target) => `finds no way to ${target}`, true],
  [/ConnectionRefused/i, (target) => `was refused by ${target}: nothing listens there`, true],
  [/TTLExpired|timed out/i, (target) => `got no answer from ${target} in time`, true],
  [/rejected connection/i, (target) => `cannot connect to ${target}`, true],
  [/socket closed|ECONNRESET|EPIPE/i, () => 'closed the connection', true],
]

/** RFC 1928 and 1929. Names are resolved by the proxy. */
async function openBySocks(socket: Socket, to: TcpAddress, via: Via, attempt: Attempt): Promise<Socket> {
  const { SocksClient } = await import('socks')
  const { credentials } = via
  const target = shown(to)
  const early: Buffer[] = []
  const keep = (bytes: Buffer): void => {
    socket.pause()
    early.push(bytes)
  }
  return await attempt.guard<Socket>(socket, (resolve, reject) => {
    const client = new SocksClient({
      command: 'connect',
      proxy: {
        ...{ host: via.host, port: via.port, type: 5 },
        ...(credentials ? { userId: credentials.user, password: credentials.password } : {}),
      },
      destination: { host: to.host, port: to.port },
      // The attempt has a deadline of its own.
      timeout: 600_000,
    })
    client.once('error', (error) => {
      const found = SOCKS_ERRORS.find(([text]) => text.test(error.message))
      const why = found?.[1](target) ?? 'does not answer in SOCKS5: is it a proxy?'
      // Its own error holds the password.
      reject(failed(`the proxy ${viaName(via)} ${why}`, found?.[2] ?? false))
    })
    const ended = (): void => reject(failed(`the proxy ${viaName(via)} closed the connection`, true))
    socket.once('end', ended)
    client.once('established', () => {
      socket.off('end', ended)
      socket.on('data', keep)
      // What came behind its answer is told in the next turn of the event loop, as an event.
      setImmediate(() =>
        setImmediate(() => {
          socket.off('data', keep)
          if (early.length > 0) socket.unshift(Buffer.concat(early))
          // As if nobody had read from it yet: it begins when somebody listens.
          Object.assign(socket, { readableFlowing: null })
          resolve(socket)
        }),
      )
    })
    client.connect(socket)
  })
}

/** A link over TCP through a proxy. */
export async function dialTcpVia(to: TcpAddress, options: DialOptions & { via: Via }): Promise<Link> {
  return await Attempt.run(options, async (attempt) =>
    linkFrom(await openSocket(to, options.via, attempt), shown(to), 'tcp'),
  )
}

/** `host:port`, with brackets where the colons need them. */
export function shown({ host, port }: TcpAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function failed(message: string, retryable = false): ProxyError {
  return new ProxyError('PROXY_ERR_DIAL_FAILED', message, { retryable })
}

function usage(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', message)
}
