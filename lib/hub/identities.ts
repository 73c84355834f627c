import * as v from 'valibot'
import { derivePsk, type Policy, ProxyError, readToken, type Suite, suiteOf } from '../core/index.ts'
import { isChannelName } from '../domains/channel-address.ts'
import { parseWeb } from '../domains/web-address.ts'
import { type OwnNames, parseNamePattern } from '../policy/names.ts'
import { type PortRange, parsePattern, parsePortRanges } from '../policy/patterns.ts'
import { createPolicy } from '../policy/policy.ts'
import { TRAFFIC_LIMITS, type TrafficLimits } from '../policy/traffic-limits.ts'
import { JsonFile } from '../store/json-file.ts'
import { isGuessable, makeToken } from '../store/secrets.ts'
import type { StateFolder } from '../store/state-folder.ts'
import { mergePatch, patchSchema } from './merge-patch.ts'
import type { AddedNode, Grants, NodeChange, NodeRequest } from './operations.ts'

const FILE = 'nodes.json'
const MAX_IDENTITIES = 10_000
/** What the preamble of a handshake can carry. */
const MAX_ID = 64
const MAX_SECRET = 1024
/** Patterns, or channels, of one node, and all of its grants as JSON: what 10,000 nodes have fits into one file. */
const MAX_GRANTS = 64
const MAX_GRANTED_BYTES = 4096
/** The same of its limits. */
const MAX_LIMITS_BYTES = 4096
/** 32 MiB each for some tens of ms; the other threads of the pool are for names to look up and files to write. */
const DERIVED_AT_ONCE = 2
/** An expiry is looked at again after this long, in ms: timers know nothing of clocks that are set, and stand still in sleep. */
const LONGEST_TIMER = 60_000

const text = (longest: number): v.GenericSchema<string> => v.pipe(v.string(), v.minLength(1), v.maxLength(longest))
const list = (check: (item: string) => unknown): v.GenericSchema<string[]> =>
  v.pipe(v.array(v.pipe(text(256), v.check(succeeds(check)))), v.maxLength(MAX_GRANTS))
const time = v.pipe(v.string(), v.isoTimestamp())

const GRANTS = {
  listen: v.optional(v.pipe(text(1024), v.check(succeeds(parsePortRanges)))),
  dial: v.optional(list(parsePattern)),
  channels: v.optional(list(parseChannelPattern)),
  names: v.optional(list((pattern) => parseNamePattern(pattern, parseWeb))),
}
const ASKED_GRANTS = v.pipe(
  v.strictObject(GRANTS),
  v.check(
    (grants) => Buffer.byteLength(JSON.stringify(grants)) <= MAX_GRANTED_BYTES,
    `more than ${MAX_GRANTED_BYTES} bytes`,
  ),
)
const ASKED_LIMITS = v.pipe(
  TRAFFIC_LIMITS,
  v.check(
    (limits) => Buffer.byteLength(JSON.stringify(limits)) <= MAX_LIMITS_BYTES,
    `more than ${MAX_LIMITS_BYTES} bytes`,
  ),
)
/** Files of older versions have channels of any name. Such a one is nobody's. */
const KEPT_GRANTS = v.strictObject({ ...GRANTS, channels: v.optional(list(() => {})) })
const RECORDS = v.array(
  v.object({
    id: v.pipe(v.string(), v.check(isId)),
    suite: v.picklist(['NNpsk0', 'NKpsk0']),
    psk: v.pipe(
      v.string(),
      v.base64(),
      v.check((psk) => Buffer.from(psk, 'base64').length === 32),
    ),
    created: time,
    expires: v.optional(time),
    enabled: v.boolean(),
    grants: v.optional(KEPT_GRANTS),
    limits: v.optional(TRAFFIC_LIMITS),
  }),
)
const REQUEST = v.strictObject({
  id: v.string(),
  secret: v.optional(v.string()),
  expires: v.optional(v.string()),
  grants: v.optional(ASKED_GRANTS),
  limits: v.optional(ASKED_LIMITS),
})
/** What of a node can be changed, as it is when it is changed. */
const CHANGEABLE = v.strictObject({
  expires: v.optional(v.string()),
  grants: v.optional(ASKED_GRANTS),
  limits: v.optional(ASKED_LIMITS),
})
/** The shape of a `NodeChange`. */
export const NODE_CHANGE: v.GenericSchema<unknown, NodeChange> = patchSchema(CHANGEABLE)

type Stored = v.InferOutput<typeof RECORDS>[number]

/** An enrolled node, without what it proves itself with. */
export interface Identity {
  readonly id: string
  readonly enabled: boolean
  /** `NKpsk0` for a token, `NNpsk0` for a secret that a person chose. */
  readonly suite: Suite
  readonly created: string
  readonly expires?: string | undefined
  readonly grants?: Grants | undefined
  readonly limits?: TrafficLimits | undefined
}

/** Why what was known about an id holds no longer. */
export type IdentityChange = 'added' | 'removed' | 'enabled' | 'disabled' | 'rotated' | 'expired' | 'changed'

export interface IdentitiesOptions {
  /** The server's X25519 public key, 32 bytes, which goes into the tokens. */
  serverKey: () => Promise<Uint8Array>
  /** What of the web port is the server's own, whatever is granted. Default: nothing. */
  ownNames?: OwnNames | undefined
}

interface Entry {
  readonly stored: Stored
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
  readonly #file: JsonFile<Stored[]>
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
  #deriving = 0
  readonly #waiting: (() => void)[] = []
  /** Ids whose expiry has been told. */
  readonly #expired = new Set<string>()
  #timer: NodeJS.Timeout | undefined

  /** @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten */
  static async open(folder: StateFolder, options: IdentitiesOptions): Promise<Identities> {
    return new Identities(await JsonFile.open(folder, FILE, RECORDS, []), options)
  }

  private constructor(file: JsonFile<Stored[]>, options: IdentitiesOptions) {
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
    const asked = requests.map(checkRequest)
    const ids = new Set<string>()
    for (const { id } of asked) {
      if (ids.has(id)) throw new ProxyError('PROXY_ERR_EXISTS', `node ${shown(id)} is named twice`)
      ids.add(id)
    }
    this.#assertFree(ids)
    const serverKey = await this.#serverKey()
    for (const { id, secret } of asked) if (secret !== undefined) assertUsable(secret, serverKey, id)
    const made = await this.#deriveAll(asked, serverKey)
    await this.#change(async () => {
      this.#assertFree(ids)
      const created = new Date().toISOString()
      const stored = asked.map(({ id, expires, grants, limits }, index): Stored => {
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
    const patch = checked(NODE_CHANGE, change)
    // To valibot a list is an object.
    const { grants, limits } = change
    if ([change, grants, limits, limits?.visitor].some((one) => Array.isArray(one))) throw bad('a list is no change')
    if (typeof patch.expires === 'string') readExpiry(patch.expires)
    await this.#change(async () => {
      const { expires, grants, limits, ...rest } = this.#find(id).stored
      const before = { expires, grants, limits }
      const after = checked(CHANGEABLE, mergePatch(before, patch, new Set()))
      // One that stays has been read before, and may have passed since.
      const at = typeof patch.expires === 'string' ? readExpiry(patch.expires) : after.expires
      const granted = isEmpty(after.grants) ? undefined : after.grants
      const limited = isEmpty(after.limits) ? undefined : after.limits
      const more = { ...(granted && { grants: granted }), ...(limited && { limits: limited }) }
      await this.#replace({ ...rest, ...(at && { expires: at }), ...more })
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
    throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no node ${shown(id)}`)
  }

  #assertFree(ids: ReadonlySet<string>): void {
    for (const id of ids) {
      if (this.#entries.has(id)) throw new ProxyError('PROXY_ERR_EXISTS', `there is a node ${shown(id)} already`)
    }
    if (this.#entries.size + ids.size > MAX_IDENTITIES) {
      throw bad(`a server has at most ${MAX_IDENTITIES} nodes of its own`)
    }
  }

  /** One after the other: each sees what the one before has left. */
  async #change(step: () => Promise<void>): Promise<void> {
    const mine = this.#changing.then(step)
    this.#changing = mine.catch(() => {})
    await mine
  }

  async #replace(next: Stored): Promise<void> {
    await this.#keep(this.#file.value.map((stored) => (stored.id === next.id ? next : stored)))
  }

  /** What is not on disk holds for nobody. */
  async #keep(all: Stored[]): Promise<void> {
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

  async #deriveAll(asked: readonly Asked[], serverKey: Uint8Array): Promise<Made[]> {
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

  async #derive({ id, secret }: Asked, serverKey: Uint8Array, over: () => boolean = () => false): Promise<Made> {
    const used = secret ?? makeToken(serverKey)
    const suite = suiteOf(used)
    if (this.#deriving >= DERIVED_AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#deriving++
    try {
      if (over()) return nothingMade()
      const psk = await derivePsk(used, id, suite)
      return { secret: used, suite, psk: psk.toString('base64') }
    } finally {
      const next = this.#waiting.shift()
      // The place is handed on.
      if (next) next()
      else this.#deriving--
    }
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

interface Asked {
  readonly id: string
  readonly secret?: string | undefined
  readonly expires?: string | undefined
  readonly grants?: v.InferOutput<typeof ASKED_GRANTS> | undefined
  readonly limits?: TrafficLimits | undefined
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

function channelsOf(all: readonly Stored[]): Map<string, string[]> {
  const channels = new Map<string, string[]>()
  for (const { id, grants } of all) {
    for (const pattern of new Set(grants?.channels)) channels.set(pattern, [...(channels.get(pattern) ?? []), id])
  }
  return channels
}

function hostsOf(all: readonly Stored[]): Map<string, string[]> {
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

/** @throws ProxyError PROXY_ERR_PATTERN */
function parseChannelPattern(pattern: string): void {
  if (pattern === '*' || isChannelName(pattern.replace(/\*$/, ''))) return
  const why = 'write a name of letters, digits, ".", "_" and "-", or how names begin: office-*'
  throw new ProxyError('PROXY_ERR_PATTERN', `bad channel ${shown(pattern)}: ${why}`)
}

function entryOf(stored: Stored, own: OwnNames | undefined, before?: Entry): Entry {
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

/** It comes from an operator, and by way of an API from anywhere. */
function checkRequest(request: NodeRequest): Asked {
  const output = checked(REQUEST, request)
  if (!isId(output.id))
    throw bad(`${shown(output.id)}: an id has 1 to ${MAX_ID} bytes, no spaces or control characters`)
  return { ...output, expires: output.expires === undefined ? undefined : readExpiry(output.expires) }
}

/** @throws ProxyError PROXY_ERR_REQUEST */
function checked<T>(schema: v.GenericSchema<unknown, T>, given: unknown): T {
  const { success, output, issues } = v.safeParse(schema, given)
  if (success) return output
  const [issue] = issues
  const at = issue && v.getDotPath(issue)
  throw bad(`${at ?? 'a node'}: ${at?.startsWith('limits') ? issue.message : whyNot(given, issue?.message)}`)
}

function isEmpty(value: object | undefined): boolean {
  return value === undefined || Object.keys(value).length === 0
}

/** What is wrong with the grants, in the words of whoever reads patterns. */
function whyNot(request: unknown, otherwise = 'it makes no sense'): string {
  const given = typeof request === 'object' && request !== null && 'grants' in request ? request.grants : undefined
  const grants: { readonly [name in keyof Grants]?: unknown } = typeof given === 'object' && given !== null ? given : {}
  const each = (given: unknown, check: (pattern: string) => unknown): void => {
    if (Array.isArray(given)) for (const pattern of given) if (typeof pattern === 'string') check(pattern)
  }
  try {
    if (typeof grants.listen === 'string') parsePortRanges(grants.listen)
    each(grants.dial, parsePattern)
    each(grants.channels, parseChannelPattern)
    each(grants.names, (pattern) => parseNamePattern(pattern, parseWeb))
  } catch (error) {
    if (error instanceof ProxyError) return error.message
  }
  return otherwise
}

function isId(id: string): boolean {
  return id !== '' && Buffer.byteLength(id) <= MAX_ID && !/[\p{C}\p{Z}]/u.test(id)
}

const ISO = /^(\d{4}-\d\d-\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d))?$/

/** ISO 8601; a day alone begins at midnight UTC. What `Date` would only guess at is refused, also 30 February. */
function readExpiry(given: string): string {
  const [, day] = ISO.exec(given) ?? []
  const at = Date.parse(given)
  if (day === undefined || Number.isNaN(at) || new Date(`${day}T00:00Z`).toISOString().slice(0, 10) !== day) {
    throw bad(`${shown(given)} is no time: write 2030-12-31 or 2030-12-31T18:00:00Z`)
  }
  if (at <= Date.now()) throw bad(`${shown(given)} has passed already`)
  return new Date(at).toISOString()
}

/** @throws ProxyError PROXY_ERR_SECRET */
function assertUsable(secret: string, serverKey: Uint8Array, id: string): void {
  const refuse = (why: string): ProxyError => new ProxyError('PROXY_ERR_SECRET', `node ${shown(id)}: ${why}`)
  if (secret === '') throw refuse('the secret is empty')
  if (Buffer.byteLength(secret) > MAX_SECRET) throw refuse(`the secret has more than ${MAX_SECRET} bytes`)
  if (!secret.startsWith('symport_')) return
  const token = readToken(secret)
  if (!token) throw refuse('the token is damaged: leave it out, and a new one is made')
  // No node could ever connect with it.
  if (!token.publicKey.equals(serverKey)) {
    throw refuse('the token was made for another server: leave it out, and a new one is made')
  }
}

function succeeds<T extends unknown[]>(check: (...given: T) => unknown): (...given: T) => boolean {
  return (...given) => {
    try {
      check(...given)
      return true
    } catch {
      return false
    }
  }
}

function shown(given: string): string {
  return JSON.stringify(given.length > 80 ? `${given.slice(0, 79)}…` : given)
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_REQUEST', message)
}
