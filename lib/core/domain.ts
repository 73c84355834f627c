import type { Duplex } from 'node:stream'
import type { Endpoint } from './endpoint.ts'
import { ProxyError } from './errors.ts'
import type { AbortSignalLike } from './lazy-abort.ts'
import type { Link } from './link.ts'
import type { Policy } from './policy.ts'
import type { SubConnection } from './sub-connection.ts'

export interface Abortable {
  signal?: AbortSignal | undefined
}

export interface Listener extends AsyncDisposable {
  /** Where it really listens: port 0 has become a port. */
  readonly bound: Endpoint
  close(): Promise<void>
}

export interface OpenOptions {
  readonly to?: Endpoint | undefined
  /** Who came in. */
  readonly from?: string | undefined
  /** It has been let in before, and nobody is asked again. */
  readonly admitted?: Admitted | undefined
  /** It is only for the one who came in, whoever else may share. */
  readonly alone?: boolean | undefined
}

/** Somebody who came in and was let in. */
export interface Admitted {
  /** Those of whom it is the same may use one another's sub-connections. */
  readonly sharing: string
  /** It is gone. */
  leave(): void
}

export interface ListenContext {
  readonly signal: AbortSignal
  /** Opens a sub-connection for one that came in. It may be written to before the far side has connected. */
  open(options?: OpenOptions): Promise<SubConnection>
  /**
   * Asks whether somebody may come in: for whoever serves many with one sub-connection, or has to know at once. Without
   * it all may. `open` asks by itself.
   *
   * @throws ProxyError
   */
  admit?(from: string | undefined): Admitted
  /** What the operator calls this listener: the id of a mapping. */
  readonly name?: string | undefined
  /** What the operator says about this listener, for its domain to read whenever it needs it: it may change. */
  readonly settings?: (() => unknown) | undefined
  /** Where what comes in goes unless `open` says, as far as this side knows; it may change as well. */
  readonly forward?: (() => Endpoint) | undefined
}

export interface DialContext {
  /** Fires when whoever asked has gone. */
  readonly signal: AbortSignal
  /** The same, for whoever only wants to hear of it: `signal` is made when it is read, and takes its time. */
  readonly abort?: AbortSignalLike | undefined
  /** The addresses that may be dialled, in order; empty where the plug-in does not resolve. */
  readonly addresses: readonly string[]
  /** Who came in where it was listened, if the other side told: `192.0.2.1:49152`. */
  readonly from?: string | undefined
}

/**
 * What goes through a connection: bytes, datagrams, or connections that name their own targets (`requests`), as of a SOCKS
 * client. `any`: whatever the other half of the mapping has.
 */
export type Carries = 'stream' | 'datagrams' | 'requests' | 'any'

export type DialRequest = Omit<DialContext, 'addresses'>

/** A kind of endpoint: what can be listened on, forwarded to, or both. Plug-ins are values; see lib/domains. */
export interface DomainPlugin {
  readonly name: string
  /** What its sub-connections carry. A mapping has the same at both ends. Default `stream`. */
  readonly carries?: Carries | undefined
  listen?(at: Endpoint, context: ListenContext): Promise<Listener>
  /** The IP addresses behind an endpoint. A plug-in with names must have it: policy is asked about each address. */
  resolve?(to: Endpoint, options: Abortable): Promise<readonly string[]>
  /** Connects. A link is the fast path; any Duplex will do. */
  dial?(to: Endpoint, context: DialContext): Promise<Duplex | Link>
}

/** The domains of one side, and the one place that dials and asks. */
export class Domains {
  readonly #plugins: ReadonlyMap<string, DomainPlugin>
  readonly #policy: Policy

  constructor(plugins: readonly DomainPlugin[], policy: Policy) {
    this.#plugins = new Map(plugins.map((plugin) => [plugin.name, plugin]))
    this.#policy = policy
  }

  /** What goes through a sub-connection to this endpoint. */
  carries(to: Endpoint): Carries {
    return this.#plugins.get(to.Domain)?.carries ?? 'stream'
  }

  /** `asked`: by the peer, so that the policy decides. */
  async listen(at: Endpoint, asked: boolean, context: ListenContext): Promise<Listener> {
    const plugin = this.#plugins.get(at.Domain)
    if (!plugin?.listen) throw unknownDomain(at, 'listened on')
    if (asked) await this.#policy.listen(at)
    if (context.signal.aborted) throw new ProxyError('PROXY_ERR_ABORTED', 'the listen was given up')
    return await plugin.listen(at, context)
  }

  /** `asked`: by the peer, so that the policy decides, about each address that the endpoint resolves to. */
  async dial(to: Endpoint, asked: boolean, request: DialRequest): Promise<Duplex | Link> {
    const plugin = this.#plugins.get(to.Domain)
    if (!plugin?.dial) throw unknownDomain(to, 'forwarded to')
    if (asked && plugin.resolve) this.#policy.resolve?.(to)
    const addresses: string[] = []
    const context = new Dial(request, addresses)
    const resolved = plugin.resolve ? await plugin.resolve(to, context) : [undefined]
    let refusal: unknown
    for (const address of resolved) {
      try {
        if (asked) this.#policy.dial(to, address)
        if (address !== undefined) addresses.push(address)
        else return await plugin.dial(to, context)
      } catch (error) {
        if (address === undefined) throw error
        refusal = error
      }
    }
    if (addresses.length === 0) throw refusal ?? new ProxyError('PROXY_ERR_DIAL_FAILED', `${to.Addr} has no address`)
    return await plugin.dial(to, context)
  }
}

/** A class for its getter: with one of its own, each object would have a hidden class that keeps it until a full collection. */
class Dial implements DialContext {
  readonly addresses: readonly string[]
  readonly #request: DialRequest

  constructor(request: DialRequest, addresses: readonly string[]) {
    this.#request = request
    this.addresses = addresses
  }

  get signal(): AbortSignal {
    return this.#request.signal
  }

  get abort(): AbortSignalLike | undefined {
    return this.#request.abort
  }

  get from(): string | undefined {
    return this.#request.from
  }
}

function unknownDomain(at: Endpoint, use: string): ProxyError {
  return new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', `${at.Domain} cannot be ${use} here`)
}
