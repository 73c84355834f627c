import { derivePsk, type Policy, ProxyError, type Suite, suiteOf } from '../core/index.ts'
import { parseWeb } from '../domains/web-address.ts'
import { type OwnNames, parseNamePattern } from '../policy/names.ts'
import { type PortRange, parsePattern, parsePortRanges } from '../policy/patterns.ts'
import { createPolicy } from '../policy/policy.ts'
import type { TrafficLimits } from '../policy/traffic-limits.ts'
import { Turns } from '../sockets/turns.ts'
import { JsonFile } from '../store/json-file.ts'
import { isGuessable, makeToken } from '../store/secrets.ts'
import type { StateFolder } from '../store/state-folder.ts'
import {
  type AskedNode,
  assertUsable,
  badRequest,
  changedNode,
  KEPT_NODES,
  type KeptNode,
  readNodeChange,
  readNodeRequest,
  shownId,
  succeeds,
} from './node-request.ts'
import type { AddedNode, NodeChange, NodeRequest } from './operations.ts'

const FILE = 'nodes.json'
const MAX_IDENTITIES = 10_000
/** 32 MiB each for some tens of ms; the other threads of the pool are for names to look up and files to write. */
const DERIVED_AT_ONCE = 2
/** An expiry is looked at again after this long, in ms: timers know nothing of clocks that are set, and stand still in sleep. */
const LONGEST_TIMER = 60_000

/** An enrolled node, without what it proves itself with. */
export type Identity = Omit<KeptNode, 'psk'>

/** Why what was known about an id holds no longer. */
export type IdentityChange = 'added' | 'removed' | 'enabled' | 'disabled' | 'rotated' | 'expired' | 'changed'

export interface IdentitiesOptions {
  /** The server's X25519 public key, 32 bytes, which goes into the tokens. */
  serverKey: () => Promise<Uint8Array>
  /** What of the web port is the server's own, whatever is granted. Default: nothing. */
  ownNames?: OwnNames | undefined
}

interface Entry {
  readonly stored: KeptNode
  readonly psk: Uint8Array
  /** In ms since 1970. */
  readonly expires: number
  /** Undefined where nothing is granted. */
  readonly granted: Policy | undefined
}

/**
 * The nodes that have a credential of their own, kept in the state folder. Of a secret only the derived psk is kept: it
 * cannot be shown again. A change is on disk first, and then holds for everybody at once.
 */
export class Identities {
  readonly #file: JsonFile<KeptNode[]>
  readonly #serverKey: () => Promise<Uint8Array>
  readonly #ownNames: OwnNames | undefined
  #entries: ReadonlyMap<string, Entry>
  /** Ids by the patterns of channels that they were granted. */
  #channels: ReadonlyMap<string, readonly string[]>
  /** Ids by the hosts that they were granted, without those below or a path. */
  #hosts: ReadonlyMap<string, readonly string[]>
  readonly #listeners = new Set<(id: string, why: IdentityChange) => void>()
  readonly #limitListeners = new Set<(id: string | undefined) => void>()
  #defaultLimits: TrafficLimits = {}
  /** The change under way, and with it all before. */
  #changing: Promise<unknown> = Promise.resolve()
  readonly #turns = new Turns(DERIVED_AT_ONCE)
  /** Ids whose expiry has been told. */
  readonly #expired = new Set<string>()
  #timer: NodeJS.Timeout | undefined

  /** @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten */
  static async open(folder: StateFolder, options: IdentitiesOptions): Promise<Identities> {
    return new Identities(await JsonFile.open(folder, FILE, KEPT_NODES, []), options)
  }

  private constructor(file: JsonFile<KeptNode[]>, options: IdentitiesOptions) {
    this.#file = file
    this.#serverKey = options.serverKey
    this.#ownNames = options.ownNames
    this.#entries = new Map(file.value.map((stored) => [stored.id, entryOf(stored, this.#ownNames)]))
    this.#channels = channelsOf(file.value)
    this.#hosts = hostsOf(file.value)
  }

  get size(): number {
    return this.#entries.size
  }

  /** In the order in which they were added. */
  list(): Identity[] {
    return [...this.#entries.values()].map(identityOf)
  }

  get(id: string): Identity | undefined {
    const entry = this.#entries.get(id)
    return entry && identityOf(entry)
  }

  /** Whether a node of this id is known here, one that may not connect included. */
  has(id: string): boolean {
    return this.#entries.has(id)
  }

  /**
   * What a node of this name proves itself with; undefined for an unknown one, and for one that may not connect. Costs
   * the same for all of them. It is the same object until the secret is another one.
   */
  pskFor(name: string, suite: Suite): Uint8Array | undefined {
    const entry = this.#entries.get(name)
    const may = entry?.stored.enabled && entry.stored.suite === suite && Date.now() < entry.expires
    return may ? entry.psk : undefined
  }

  /** What a node may ask for: what `base` allows, and what it was granted. What neither does is denied as by `base`. */
  policyFor(id: string, base: Policy): Policy {
    const granted = this.#entries.get(id)?.granted
    if (!granted) return base
    return {
      dial(to, address) {
        if (!succeeds(() => granted.dial(to, address))()) base.dial(to, address)
      },
      resolve(to) {
        if (!succeeds(() => granted.resolve?.(to))()) base.resolve?.(to)
      },
      listen(at) {
        return succeeds(() => granted.listen(at))() ? undefined : base.listen(at)
      },
    }
  }

  /**
   * The nodes that a channel is granted to: those of its own name, or else of the longest pattern that fits. Nobody else may
   * register it. Empty: nobody in particular.
   */
  channelOwners(name: string): readonly string[] {
    const exact = this.#channels.get(name)
    if (exact) return exact
    for (let length = name.length; length >= 0; length--) {
      const ids = this.#channels.get(`${name.slice(0, length)}*`)
      if (ids) return ids
    }
    return []
  }

  /** The nodes that this host of the web port is granted to by its own name. Empty: nobody in particular. */
  hostOwners(host: string): readonly string[] {
    return this.#hosts.get(host) ?? []
  }

  /** The ports that a node was granted. */
  portsOf(id: string): readonly PortRange[] {
    const listen = this.#entries.get(id)?.stored.grants?.listen
    return listen === undefined ? [] : parsePortRanges(listen)
  }

  /** What of a node's limits it does not say itself, also for those under the shared secret. */
  get defaultLimits(): TrafficLimits {
    return this.#defaultLimits
  }

  set defaultLimits(limits: TrafficLimits) {
    if (JSON.stringify(limits) === JSON.stringify(this.#defaultLimits)) return
    this.#defaultLimits = limits
    this.#tellLimits(undefined)
  }

  /** What holds for a node that is called so, enrolled or not; undefined if nothing does. */
  limitsOf(id: string): TrafficLimits | undefined {
    const own = this.#entries.get(id)?.stored.limits
    const limits = { ...this.#defaultLimits, ...own }
    return Object.keys(limits).length === 0 ? undefined : limits
  }

  /** Calls `listener` when the limits of a node change, without an id if those of many do, until the returned function is called. */
  onLimits(listener: (id: string | undefined) => void): () => void {
    const own = (id: string | undefined): void => listener(id)
    this.#limitListeners.add(own)
    return () => void this.#limitListeners.delete(own)
  }

  /**
   * Enrols a node.
   *
   * @throws ProxyError PROXY_ERR_EXISTS, PROXY_ERR_REQUEST, PROXY_ERR_SECRET, PROXY_ERR_STATE
   */
  async add(request: NodeRequest): Promise<AddedNode> {
    const [added] = await this.addMany([request])
    if (!added) throw new TypeError('one was asked for')
    return added
  }

  /** Enrols all of them, or none; answers in the order of the requests. Throws as `add`. */
  async addMany(requests: readonly NodeRequest[]): Promise<AddedNode[]> {
    const asked = requests.map(readNodeRequest)
    const ids = new Set<string>()
    for (const { id } of asked) {
      if (ids.has(id)) throw new ProxyError('PROXY_ERR_EXISTS', `node ${shownId(id)} is named twice`)
      ids.add(id)
    }
    this.#assertFree(ids)
    const serverKey = await this.#serverKey()
    for (const { id, secret } of asked) if (secret !== undefined) assertUsable(secret, serverKey, id)
    const made = await this.#deriveAll(asked, serverKey)
    await this.#change(async () => {
      this.#assertFree(ids)
      const created = new Date().toISOString()
      const stored = asked.map(({ id, expires, grants, limits }, index): KeptNode => {
        const { suite, psk } = made[index] ?? nothingMade()
        const more = { ...(grants && { grants }), ...(limits && { limits }) }
        return { id, suite, psk, created, ...(expires && { expires }), enabled: true, ...more }
      })
      await this.#keep([...this.#file.value, ...stored])
      for (const id of ids) this.#tell(id, 'added')
    })
    return asked.map(({ id, secret }, index) => answer(id, secret, made[index]?.secret))
  }

  /** @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_STATE */
  async remove(id: string): Promise<void> {
    await this.#change(async () => {
      this.#find(id)
      await this.#keep(this.#file.value.filter((stored) => stored.id !== id))
      this.#tell(id, 'removed')
    })
  }

  /** @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_STATE */
  async setEnabled(id: string, enabled: boolean): Promise<void> {
    await this.#change(async () => {
      const { stored } = this.#find(id)
      if (stored.enabled === enabled) return
      await this.#replace({ ...stored, enabled })
      this.#tell(id, enabled ? 'enabled' : 'disabled')
    })
  }

  /**
   * Changes when it expires, what it may do, or its limits. Its main connections stay; what it may do is asked anew when it
   * connects the next time, at the latest.
   *
   * @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_REQUEST, PROXY_ERR_STATE
   */
  async change(id: string, change: NodeChange): Promise<void> {
    const patch = readNodeChange(change)
    await this.#change(async () => {
      await this.#replace(changedNode(this.#find(id).stored, patch))
      this.#tell(id, 'changed')
    })
  }

  /**
   * Gives a node another secret: the one named, or a new token.
   *
   * @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_SECRET, PROXY_ERR_STATE
   */
  async rotate(id: string, secret?: string | undefined): Promise<AddedNode> {
    this.#find(id)
    const serverKey = await this.#serverKey()
    if (secret !== undefined) assertUsable(secret, serverKey, id)
    const made = await this.#derive({ id, secret }, serverKey)
    await this.#change(async () => {
      const { suite, psk } = made
      await this.#replace({ ...this.#find(id).stored, suite, psk })
      this.#tell(id, 'rotated')
    })
    return answer(id, secret, made.secret)
  }

  /**
   * Calls `listener` after every change, and when an expiry passes, until the returned function is called. For removed,
   * disabled, rotated and expired ids the main connections have to end.
   */
  onChanged(listener: (id: string, why: IdentityChange) => void): () => void {
    // The same function may come twice.
    const own = (id: string, why: IdentityChange): void => listener(id, why)
    this.#listeners.add(own)
    this.#watchExpiries()
    return () => {
      this.#listeners.delete(own)
      this.#watchExpiries()
    }
  }

  // --- changes ---

  #find(id: string): Entry {
    const entry = this.#entries.get(id)
    if (entry) return entry
    throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no node ${shownId(id)}`)
  }

  #assertFree(ids: ReadonlySet<string>): void {
    for (const id of ids) {
      if (this.#entries.has(id)) throw new ProxyError('PROXY_ERR_EXISTS', `there is a node ${shownId(id)} already`)
    }
    if (this.#entries.size + ids.size > MAX_IDENTITIES) {
      throw badRequest(`a server has at most ${MAX_IDENTITIES} nodes of its own`)
    }
  }

  /** One after the other: each sees what the one before has left. */
  async #change(step: () => Promise<void>): Promise<void> {
    const mine = this.#changing.then(step)
    this.#changing = mine.catch(() => {})
    await mine
  }

  async #replace(next: KeptNode): Promise<void> {
    await this.#keep(this.#file.value.map((stored) => (stored.id === next.id ? next : stored)))
  }

  /** What is not on disk holds for nobody. */
  async #keep(all: KeptNode[]): Promise<void> {
    await this.#file.change(all)
    const before = this.#entries
    this.#entries = new Map(
      all.map((stored) => {
        const entry = before.get(stored.id)
        return [stored.id, entry?.stored === stored ? entry : entryOf(stored, this.#ownNames, entry)]
      }),
    )
    this.#channels = channelsOf(all)
    this.#hosts = hostsOf(all)
    this.#watchExpiries()
  }

  #tell(id: string, why: IdentityChange): void {
    for (const listener of [...this.#listeners]) listener(id, why)
    if (why === 'added' || why === 'removed' || why === 'changed') this.#tellLimits(id)
  }

  #tellLimits(id: string | undefined): void {
    for (const listener of [...this.#limitListeners]) listener(id)
  }

  // --- secrets ---

  async #deriveAll(asked: readonly AskedNode[], serverKey: Uint8Array): Promise<Made[]> {
    let gaveUp = false
    const made = asked.map(async (one) => {
      try {
        return await this.#derive(one, serverKey, () => gaveUp)
      } catch (error) {
        gaveUp = true
        throw error
      }
    })
    return await Promise.all(made)
  }

  async #derive({ id, secret }: AskedNode, serverKey: Uint8Array, over: () => boolean = () => false): Promise<Made> {
    const used = secret ?? makeToken(serverKey)
    const suite = suiteOf(used)
    return await this.#turns.take(async () => {
      if (over()) return nothingMade()
      const psk = await derivePsk(used, id, suite)
      return { secret: used, suite, psk: psk.toString('base64') }
    })
  }

  // --- expiries ---

  #watchExpiries(): void {
    clearTimeout(this.#timer)
    if (this.#listeners.size === 0) return
    const now = Date.now()
    let earliest = Number.POSITIVE_INFINITY
    for (const { stored, expires } of this.#entries.values()) {
      // Passed, and not told yet: that is for the timer, which is due at once.
      if (expires > now) this.#expired.delete(stored.id)
      if (!this.#expired.has(stored.id)) earliest = Math.min(earliest, expires)
    }
    for (const id of this.#expired) if (!this.#entries.has(id)) this.#expired.delete(id)
    if (earliest === Number.POSITIVE_INFINITY) return
    const wait = Math.min(LONGEST_TIMER, Math.max(0, earliest - now))
    this.#timer = setTimeout(() => this.#onTimer(), wait)
    this.#timer.unref()
  }

  #onTimer(): void {
    const now = Date.now()
    const over = [...this.#entries.values()].filter(
      ({ stored, expires }) => expires <= now && !this.#expired.has(stored.id),
    )
    for (const { stored } of over) {
      this.#expired.add(stored.id)
      this.#tell(stored.id, 'expired')
    }
    this.#watchExpiries()
  }
}

interface Made {
  readonly secret: string
  readonly suite: Suite
  readonly psk: string
}

/** In place of what was given up: nobody gets to see it, as its list fails. */
function nothingMade(): Made {
  return { secret: '', suite: 'NNpsk0', psk: '' }
}

function channelsOf(all: readonly KeptNode[]): Map<string, string[]> {
  const channels = new Map<string, string[]>()
  for (const { id, grants } of all) {
    for (const pattern of new Set(grants?.channels)) channels.set(pattern, [...(channels.get(pattern) ?? []), id])
  }
  return channels
}

function hostsOf(all: readonly KeptNode[]): Map<string, string[]> {
  const hosts = new Map<string, string[]>()
  for (const { id, grants } of all) {
    for (const pattern of new Set(grants?.names)) {
      const name = parseNamePattern(pattern, parseWeb)
      if (name === 'any' || name.host === '' || name.path !== '/') continue
      hosts.set(name.host, [...(hosts.get(name.host) ?? []), id])
    }
  }
  return hosts
}

function entryOf(stored: KeptNode, own: OwnNames | undefined, before?: Entry): Entry {
  const { grants, expires } = stored
  return {
    stored,
    psk: before?.stored.psk === stored.psk ? before.psk : Buffer.from(stored.psk, 'base64'),
    expires: expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(expires),
    granted:
      grants &&
      createPolicy({
        dial: grants.dial?.map(parsePattern) ?? 'none',
        listenPorts: grants.listen === undefined ? 'none' : parsePortRanges(grants.listen),
        names: {
          patterns: grants.names?.map((pattern) => parseNamePattern(pattern, parseWeb)) ?? [],
          ...{ read: parseWeb, own },
        },
      }),
  }
}

function identityOf({ stored: { psk: _kept, ...identity } }: Entry): Identity {
  return identity
}

function answer(id: string, given: string | undefined, made: string | undefined): AddedNode {
  if (given === undefined) return { id, secret: made }
  return isGuessable(given) ? { id, guessable: true } : { id }
}
