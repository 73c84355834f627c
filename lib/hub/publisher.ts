import { randomInt } from 'node:crypto'
import {
  type DomainPlugin,
  type Endpoint,
  type ListenContext,
  type Listener,
  type Policy,
  ProxyError,
} from '../core/index.ts'
import { formatHostPort } from '../domains/address.ts'
import { isLabel, PUBLIC, type PublicAddress, parsePublic } from '../domains/public-address.ts'
import { formatWeb, parseWeb } from '../domains/web-address.ts'
import type { PortRange } from '../policy/patterns.ts'
import type { StateFolder } from '../store/state-folder.ts'
import { Claims, ownerOf, type Registrant } from './claims.ts'
import type { Identities } from './identities.ts'

/** Of one owner. */
const MAX_OF_ONE = 100
/** Without those that are taken for one another: 1 and l, 0 and o. */
const LETTERS = 'abcdefghjkmnpqrstuvwxyz'
const CHARACTERS = `${LETTERS}23456789`
const LENGTH = 8
/** Domains whose addresses begin with the name of a host. */
const WITH_HOST: readonly string[] = ['web', 'ws', 'tls']
/** Names and ports that are tried where any will do. */
const TRIES = 64
/** Below it are ports of services that a node should ask for by number. */
const FIRST_FREE_PORT = 1024
/**
 * Names that programs and people take for the domain's own: mail and its settings, proxies that are found by name
 * (RFC 8461, Autodiscover, WPAD, ISATAP), who runs the place.
 */
const RESERVED: ReadonlySet<string> = new Set([
  ...['www', 'mail', 'admin', 'localhost'],
  ...['mta-sts', 'autoconfig', 'autodiscover', 'wpad', 'isatap'],
])

/** Where visitors get to. */
export interface PublicPlace {
  readonly scheme: 'http' | 'https' | 'tls'
  readonly port: number
}

export interface PublisherOptions {
  /** Names are below it; without one, nodes have ports only. */
  readonly domain?: string | undefined
  /** What listens: `tcp` and `udp`, `web`, `ws` and `tls`. */
  readonly domains: readonly DomainPlugin[]
  /** Where ports are listened on: an address of this machine, or empty. */
  readonly bind: string
  /** Ports that any node may have. */
  readonly ports: () => readonly PortRange[]
  /** Where visitors find this host of the web port; with `tls`, of those whose TLS ends at the target. */
  readonly placeOf: (host: string, tls: boolean) => PublicPlace | Promise<PublicPlace>
  readonly identities?: Pick<Identities, 'has' | 'hostOwners' | 'portsOf' | 'onChanged'> | undefined
  readonly onProblem?: ((error: ProxyError) => void) | undefined
  /** A clock in ms since 1970. Default `Date.now`. */
  readonly now?: (() => number) | undefined
}

/** Whether a host is one below the domain that nobody gets who has not been granted that very name. */
export function isReservedHost(host: string, domain: string | undefined): boolean {
  const label = domain === undefined ? undefined : labelBelow(host, domain)
  return label !== undefined && RESERVED.has(label)
}

/**
 * Gives nodes addresses that visitors can write: names below the server's domain, each its owner's and all below it too,
 * or ports. What the policy does not allow nobody gets; whose a name is is asked on top of that, however it is listened on.
 */
export class Publisher implements AsyncDisposable {
  readonly #claims: Claims
  readonly #options: PublisherOptions
  /** Who listens for which hosts of the web port below the domain. */
  readonly #used = new Map<Listener, { readonly host: string; readonly main: Registrant }>()
  readonly #unsubscribe: (() => void) | undefined

  /** @throws ProxyError PROXY_ERR_STATE if the names that were kept cannot be read */
  static async open(folder: StateFolder, options: PublisherOptions): Promise<Publisher> {
    const { identities, onProblem, now } = options
    const claims = await Claims.open(folder, {
      ...{ file: 'names.json', mostOfOne: MAX_OF_ONE, onProblem, now },
      has: (id) => identities?.has(id) ?? false,
      ownersOf: (host) => identities?.hostOwners(host) ?? [],
      refusals: {
        granted: (host) => taken(`name taken: ${host} is granted to another node`),
        taken: (host) => taken(`name taken: ${host} belongs to another node: choose another name`),
        full: (most, of) =>
          denied(of === 'one' ? `this node has ${most} names already` : `there are ${most} names already`),
      },
    })
    return new Publisher(claims, options)
  }

  private constructor(claims: Claims, options: PublisherOptions) {
    this.#claims = claims
    this.#options = options
    this.#unsubscribe = options.identities?.onChanged((_id, why) => {
      // When all that were added together are there.
      if (why === 'added' || why === 'changed') queueMicrotask(() => this.#endOthers())
    })
  }

  /** `public` itself is open to all: what it comes to is asked of the whole policy of a node. */
  policyFor(base: Policy): Policy {
    return {
      dial: (to, address) => base.dial(to, address),
      resolve: (to) => base.resolve?.(to),
      listen: (at) => (at.Domain === PUBLIC ? undefined : base.listen(at)),
    }
  }

  /** What this node can have listened on here. `policy` is its own. Who publishes something is here for that alone. */
  domainsFor(main: Registrant, policy: Policy, setAside: () => void = () => {}): readonly DomainPlugin[] {
    const all = this.#options.domains.map((plugin) => this.#owned(plugin, main))
    const find = (name: string): DomainPlugin => {
      const plugin = all.find((one) => one.name === name)
      if (plugin) return plugin
      throw new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', `${name} cannot be listened on here`)
    }
    const may = async (at: Endpoint): Promise<void> => {
      await policy.listen(at)
      setAside()
    }
    const node: Node = { main, may, find }
    return [...all, { name: PUBLIC, listen: (at, context) => this.#listen(at, context, node) }]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe?.()
    await this.#claims[Symbol.asyncDispose]()
  }

  /** A name below the domain is claimed before it is listened on. */
  #owned(plugin: DomainPlugin, main: Registrant): DomainPlugin {
    const { listen } = plugin
    if (!listen || !WITH_HOST.includes(plugin.name)) return plugin
    return {
      ...plugin,
      listen: async (at, context) => {
        const { host } = parseWeb(at.Addr)
        await this.#claim(host, main)
        const listener = await listen.call(plugin, at, context)
        // It may have been granted to another one meanwhile.
        const denial = this.#denial(host, main)
        if (!denial) return this.#use(listener, host, main)
        await listener.close()
        throw denial
      },
    }
  }

  #use(listener: Listener, host: string, main: Registrant): Listener {
    if (!this.#isBelow(host)) return listener
    this.#used.set(listener, { host, main })
    const close = async (): Promise<void> => {
      this.#used.delete(listener)
      await listener.close()
    }
    return { bound: listener.bound, close, [Symbol.asyncDispose]: close }
  }

  /** A name that was granted is its nodes' at once, also where another one has it just now. */
  #endOthers(): void {
    for (const { host, main } of [...this.#used.values()]) {
      if (!this.#denial(host, main)) continue
      main.close(
        new ProxyError('PROXY_ERR_LISTEN_DENIED', `the name ${host} was granted to another node`, { retryable: true }),
      )
    }
  }

  #isBelow(host: string): boolean {
    const { domain } = this.#options
    return domain !== undefined && host.endsWith(`.${domain}`)
  }

  /** Why it is not this node's, if it, or else the name that it is below, was granted to others. */
  #denial(host: string, main: Registrant): ProxyError | undefined {
    const { domain } = this.#options
    const label = domain === undefined ? undefined : labelBelow(host, domain)
    for (const name of label === undefined ? [] : [host, `${label}.${domain}`]) {
      const granted = this.#grantedTo(name)
      if (granted.includes(main.peer.credential)) return undefined
      if (granted.length > 0) return taken(`name taken: ${name} is granted to another node`)
    }
    return undefined
  }

  #grantedTo(host: string): readonly string[] {
    return this.#options.identities?.hostOwners(host) ?? []
  }

  /** Whoever has a name has those below it: what they set for it (cookies) holds for the name too. */
  async #claim(host: string, main: Registrant, use?: string): Promise<void> {
    const { domain } = this.#options
    if (domain === undefined || !this.#isBelow(host)) return
    const label = labelBelow(host, domain)
    if (label === undefined) throw denied(`the names below ${domain} are given one by one, and ${host} is none`)
    const owned = `${label}.${domain}`
    const denial = this.#denial(host, main)
    if (denial) throw denial
    // One further below may have been granted by itself.
    if (host === owned || this.#grantedTo(host).length === 0) await this.#claims.claim(owned, main, use)
  }

  async #listen(at: Endpoint, context: ListenContext, node: Node): Promise<Listener> {
    const asked = parsePublic(at.Addr)
    const { domain } = this.#options
    const named = asked.kind === 'http' || asked.kind === 'tls'
    if (named && domain !== undefined) return await this.#listenByName(asked, context, node, domain)
    if (asked.name !== undefined || asked.kind === 'tls') {
      throw denied('this server has no domain, and so no names (--domain): leave --name out, and it is a port')
    }
    if (asked.base !== '/') throw denied('this server has no domain (--domain): what has a port has no path')
    return await this.#listenAtPort(asked, context, node)
  }

  // --- names ---

  async #listenByName(asked: PublicAddress, context: ListenContext, node: Node, domain: string): Promise<Listener> {
    const host = asked.name === undefined ? this.#anyName(asked, node, domain) : `${asked.name}.${domain}`
    const Domain = asked.kind === 'tls' ? 'tls' : 'web'
    try {
      await node.may({ Domain, Addr: host })
    } catch (error) {
      if (asked.name !== undefined) throw error
      throw denied(`this server gives no random names: ask for one with --name (${messageOf(error)})`)
    }
    await this.#claim(host, node.main, asked.name === undefined ? asked.use : undefined)
    const at = { Domain, Addr: formatWeb({ host, path: '/', base: asked.base }) }
    const listener = await this.#listenAtHost(at, host, context, node)
    try {
      const { scheme, port } = await this.#options.placeOf(host, Domain === 'tls')
      const usual = port === (scheme === 'http' ? 80 : 443)
      return boundAs(listener, { Domain: scheme, Addr: usual ? host : formatHostPort({ host, port }) })
    } catch (error) {
      await listener.close()
      throw error
    }
  }

  async #listenAtHost(at: Endpoint, host: string, context: ListenContext, { find }: Node): Promise<Listener> {
    try {
      return await listenOn(find(at.Domain), at, context)
    } catch (error) {
      if (!(error instanceof ProxyError) || error.code !== 'PROXY_ERR_LISTEN_FAILED') throw error
      throw new ProxyError('PROXY_ERR_NAME_TAKEN', `name taken: ${host} is in use already`, { cause: error })
    }
  }

  /** The one that this node had for it before, or a new one. */
  #anyName({ use }: PublicAddress, { main }: Node, domain: string): string {
    const before = use === undefined ? undefined : this.#claims.madeUp(main, use)
    if (before?.endsWith(`.${domain}`)) return before
    for (let tries = 0; tries < TRIES; tries++) {
      const host = `${madeUpLabel()}.${domain}`
      if (!this.#claims.isOwned(host)) return host
    }
    throw denied('there is no name left')
  }

  // --- ports ---

  async #listenAtPort(asked: PublicAddress, context: ListenContext, node: Node): Promise<Listener> {
    const protocol = asked.kind === 'udp' ? 'udp' : 'tcp'
    const plugin = node.find(protocol)
    const at = (port: number): Endpoint => ({
      Domain: protocol,
      Addr: formatHostPort({ host: this.#options.bind, port }),
    })
    // Where the node has found this machine visitors find it too.
    const bound = (port: number): Endpoint => ({ Domain: asked.kind, Addr: `:${port}` })
    const { port } = asked
    if (port !== undefined) {
      await node.may(at(port))
      const listener = await listenOn(plugin, at(port), context).catch((error) => {
        throw isInUse(error)
          ? new ProxyError('PROXY_ERR_LISTEN_FAILED', `port taken: ${port}`, { cause: error })
          : error
      })
      return boundAs(listener, bound(port))
    }
    let failure: unknown
    for (const candidate of this.#anyPorts(asked, node)) {
      try {
        await node.may(at(candidate))
        const listener = await listenOn(plugin, at(candidate), context)
        return boundAs(listener, bound(candidate))
      } catch (error) {
        failure ??= error
      }
    }
    if (failure === undefined) throw denied('this server gives nodes no ports of its own (see --allow-ports)')
    throw new ProxyError('PROXY_ERR_LISTEN_FAILED', `no port is free: ${messageOf(failure)}`, { cause: failure })
  }

  /** Some of those that it may have: the same ones in the same order for the same use, as long as they are the same. */
  #anyPorts({ use }: PublicAddress, { main }: Node): readonly number[] {
    const { identities } = this.#options
    const ranges = [...this.#options.ports(), ...(identities?.portsOf(main.peer.credential) ?? [])]
    const free = merged(ranges.map(({ from, to }) => ({ from: Math.max(from, FIRST_FREE_PORT), to })))
    const all = free.length > 0 ? free : merged(ranges)
    const count = all.reduce((sum, { from, to }) => sum + to - from + 1, 0)
    if (count === 0) return []
    const owner = ownerOf(main)
    const start = owner === undefined || use === undefined ? randomInt(count) : scatter(`${owner} ${use}`) % count
    return Array.from({ length: Math.min(count, TRIES) }, (_, i) => portAt(all, (start + i) % count))
  }
}

interface Node {
  readonly main: Registrant
  /** What is denied sets nobody aside. */
  may(at: Endpoint): Promise<void>
  /** @throws ProxyError PROXY_ERR_UNKNOWN_DOMAIN */
  find(name: string): DomainPlugin
}

/** The label right below the domain, of the name of a host there. */
function labelBelow(host: string, domain: string): string | undefined {
  if (!host.endsWith(`.${domain}`)) return undefined
  const label =
    host
      .slice(0, -domain.length - 1)
      .split('.')
      .at(-1) ?? ''
  return isLabel(label) ? label : undefined
}

function madeUpLabel(): string {
  const pick = (from: string): string => from[randomInt(from.length)] ?? ''
  return `${pick(LETTERS)}${Array.from({ length: LENGTH - 1 }, () => pick(CHARACTERS)).join('')}`
}

async function listenOn(plugin: DomainPlugin, at: Endpoint, context: ListenContext): Promise<Listener> {
  if (!plugin.listen) throw new ProxyError('PROXY_ERR_UNKNOWN_DOMAIN', `${at.Domain} cannot be listened on here`)
  if (context.signal.aborted) throw new ProxyError('PROXY_ERR_ABORTED', 'the listen was given up')
  return await plugin.listen(at, context)
}

/** The same listener, and where visitors find it. */
function boundAs(listener: Listener, bound: Endpoint): Listener {
  return { bound, close: () => listener.close(), [Symbol.asyncDispose]: () => listener.close() }
}

/** In order, each port once. */
function merged(ranges: readonly PortRange[]): PortRange[] {
  const all: PortRange[] = []
  for (const { from, to } of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = all.at(-1)
    const start = Math.max(from, last === undefined ? from : last.to + 1)
    if (start <= to) all.push({ from: start, to })
  }
  return all
}

function portAt(ranges: readonly PortRange[], index: number): number {
  let left = index
  for (const { from, to } of ranges) {
    if (left <= to - from) return from + left
    left -= to - from + 1
  }
  return 0
}

/** FNV-1a, 32 bits: where to begin, and no secret. */
function scatter(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0
  return hash
}

function isInUse(error: unknown): boolean {
  const cause = error instanceof ProxyError ? error.cause : undefined
  return cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE'
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function taken(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_NAME_TAKEN', message)
}

function denied(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_LISTEN_DENIED', message)
}
