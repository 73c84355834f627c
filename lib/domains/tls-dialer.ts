import { readFile, stat } from 'node:fs/promises'
import { isIP } from 'node:net'
import {
  checkServerIdentity,
  connect,
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from 'node:tls'
import { type DialContext, type Endpoint, type Link, linkFrom, ProxyError } from '../core/index.ts'
import { dialError } from '../sockets/dial.ts'
import { type Advice, checkPin, parseCa, tlsError, type Verify, verifySettings } from '../sockets/verify.ts'
import { formatHostPort } from './address.ts'
import { parseTls, type TlsVerify } from './tls-address.ts'

export interface TlsOptions {
  /** How long one address may take to answer, the handshake of TLS included, in ms. Default 10,000. */
  readonly dialTimeout?: number | undefined
  /** An endpoint is dialled whose certificate is not checked. Once for each. */
  readonly onWarning?: ((text: string) => void) | undefined
}

/** A probe of the system finds dead peers of programs that keep a connection open in silence; in ms. */
const KEEPALIVE_DELAY = 60_000
/** Node.js takes it, and its types do not know. */
const HALF_CLOSE: object = { allowHalfOpen: true }
/** Bytes of a file with CAs: all that a system trusts are a quarter of it. */
const LARGEST_CA = 1_048_576
/** Endpoints that are remembered as warned of. */
const MOST_WARNED = 1000
/** A server of symport shows its fingerprint; others do not. */
const ADVICE: Advice = {
  pin: '',
  ca: 'in the file given as ca',
  untrusted: 'add ?pin=sha256:… with its fingerprint, or ?ca=FILE with who has signed it',
}

/** Dials addresses of the domain `tls`. What it needs is loaded when the first one is dialled. */
export class TlsDialer {
  readonly #timeout: number
  readonly #onWarning: ((text: string) => void) | undefined
  readonly #warned = new Set<string>()
  /** The system's CAs are many, and reading them for each connection takes longer than the connection. */
  #system: Promise<SecureContext> | undefined

  constructor(options: TlsOptions) {
    this.#timeout = options.dialTimeout ?? 10_000
    this.#onWarning = options.onWarning
  }

  async dial(to: Endpoint, { addresses, signal }: DialContext): Promise<Link> {
    const { host, port, verify, name } = parseTls(to.Addr)
    const shown = formatHostPort({ host, port })
    if (verify.by === 'off') this.#warn(shown)
    const known = await readVerify(verify)
    const secureContext = await this.#contextOf(known)
    const target = { port, serverName: (name ?? host).replace(/\.$/, ''), known, secureContext, shown }
    let failure: unknown
    for (const address of addresses) {
      if (signal.aborted) break
      try {
        return linkFrom(await this.#connect(address, target, signal), shown, 'tls')
      } catch (error) {
        if (signal.aborted) throw error
        failure ??= error
      }
    }
    throw failure ?? new ProxyError('PROXY_ERR_DIAL_FAILED', `${shown} has no address`)
  }

  #warn(shown: string): void {
    if (this.#warned.has(shown) || this.#warned.size >= MOST_WARNED) return
    this.#warned.add(shown)
    this.#onWarning?.(`the certificate of ${shown} is not checked (verify=off): whoever answers there is believed`)
  }

  async #contextOf(known: Verify | 'anybody'): Promise<SecureContext> {
    if (known === 'anybody' || known.by === 'pin') return contextWith(undefined)
    if (known.by === 'ca') return contextWith(known.pem)
    this.#system ??= verifySettings(known).then(({ ca }) => contextWith(ca))
    return await this.#system
  }

  #connect(address: string, target: Target, signal: AbortSignal): Promise<TLSSocket> {
    const { port, serverName, known, secureContext, shown } = target
    return new Promise((resolve, reject) => {
      const socket = connect({
        host: address,
        port,
        ...HALF_CLOSE,
        secureContext,
        // The environment (NODE_TLS_REJECT_UNAUTHORIZED) has no say in it.
        rejectUnauthorized: known !== 'anybody' && known.by !== 'pin',
        // RFC 6066 section 3: no addresses.
        ...(isIP(serverName) === 0 ? { servername: serverName } : {}),
        checkServerIdentity: (_host, certificate) => checkServerIdentity(serverName, certificate),
      })
      socket.setNoDelay(true)
      socket.setKeepAlive(true, KEEPALIVE_DELAY)
      const fail = (error: unknown): void => {
        settle()
        reject(plain(error, known, shown))
        socket.destroy()
      }
      const giveUp = (): void => fail(new ProxyError('PROXY_ERR_ABORTED', 'the dial was given up'))
      const timer = setTimeout(() => {
        fail(Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' }))
      }, this.#timeout)
      const onClose = (): void => fail(Object.assign(new Error('closed'), { code: 'ECONNRESET' }))
      const settle = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', giveUp)
        socket.off('close', onClose)
        socket.off('end', onClose)
      }
      signal.addEventListener('abort', giveUp)
      // The first one stays: an error that nobody waits for any more must not end the process.
      socket.on('error', fail)
      socket.once('close', onClose)
      // With half-close allowed the end during the handshake closes nothing.
      socket.once('end', onClose)
      socket.once('secureConnect', () => {
        try {
          if (known !== 'anybody' && known.by === 'pin') checkPin(socket, known.sha256, shown, ADVICE)
          settle()
          resolve(socket)
        } catch (error) {
          fail(error)
        }
      })
    })
  }
}

/** With these CAs, or Node's own. */
function contextWith(ca: SecureContextOptions['ca']): SecureContext {
  return createSecureContext({ minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca }) })
}

interface Target {
  readonly port: number
  readonly serverName: string
  readonly known: Verify | 'anybody'
  readonly secureContext: SecureContext
  readonly shown: string
}

async function readVerify(verify: TlsVerify): Promise<Verify | 'anybody'> {
  if (verify.by === 'off') return 'anybody'
  if (verify.by === 'pin') return verify
  if (verify.by === 'system') return { by: 'system' }
  try {
    const found = await stat(verify.file)
    // A device or pipe could be read for ever.
    if (!found.isFile() || found.size > LARGEST_CA) throw new Error('it is no file of a size that certificates have')
    return parseCa(await readFile(verify.file, 'utf8'))
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : ''
    const why = code === 'ENOENT' ? 'there is no such file' : cause instanceof Error ? cause.message : String(cause)
    throw new ProxyError('PROXY_ERR_TLS', `the file given as ca cannot be used: ${why}`, { cause })
  }
}

/** An error for people. */
function plain(error: unknown, known: Verify | 'anybody', shown: string): ProxyError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
  if (code === 'PROXY_ERR_ABORTED') return dialError(error, shown)
  const problem = tlsError(error, known === 'anybody' ? { by: 'system' } : known, shown, ADVICE)
  if (!problem) return dialError(error, shown)
  return problem.retryable ? problem : new ProxyError('PROXY_ERR_TLS', problem.message, { cause: problem })
}
