import { setMaxListeners } from 'node:events'
import * as v from 'valibot'
import { allowAll, type DomainPlugin, Domains, type Endpoint, formatEndpoint, ProxyError } from '../core/index.ts'
import { passwordOf } from '../domains/channel-address.ts'
import type { Spec } from '../domains/spec.ts'
import { shown } from '../domains/text.ts'
import { JsonFile } from '../store/json-file.ts'
import type { StateFolder } from '../store/state-folder.ts'
import { ChangeQueue, stopping } from './change-queue.ts'
import type { HubEvent, OnEvent } from './events.ts'
import { HealthChecks } from './health.ts'
import { Limiter } from './limits.ts'
import { LiveMapping, type MappingContext, type MappingHooks, type Source } from './mapping.ts'
import { hashed, hashedProofs, PasswordHashes } from './mapping-http.ts'
import {
  changedSettings,
  keyOf,
  MAPPING_SETTINGS,
  type MappingSettings,
  readMappingChange,
  readMappingRequest,
  settingsOf,
} from './mapping-request.ts'
import type { Balance, MappingChange, MappingRequest, MappingStatus } from './operations.ts'
import type { Pool } from './pool.ts'
import type { Relay } from './relay.ts'

export interface MappingTableOptions extends MappingHooks {
  /** Where the mappings that are made at run time are kept. Without one they end with the process. */
  readonly folder?: StateFolder | undefined
  readonly domains: readonly DomainPlugin[]
  readonly pool: Pool
  /** See `SideOptions`. */
  readonly relay?: Relay | undefined
  readonly onEvent?: OnEvent | undefined
  /** Default: one of its own, with no limits of nodes. */
  readonly limiter?: Limiter | undefined
  /** Closes the table. */
  readonly signal: AbortSignal
  /** For mappings that say nothing about it. Default `first`. */
  readonly balance?: Balance | undefined
  /** How often those that could not listen try again, in ms. Default 5,000. */
  readonly retryDelay?: number | undefined
}

const FILE = 'mappings.json'
const MAX_MAPPINGS = 10_000
/** Requests that are checked in one turn of the event loop. */
const IN_ONE_TURN = 250
/** Listens under way at once at the start. */
const AT_ONCE = 64
const RETRY_DELAY = 5000
/** In this order they get their ports at the start. */
const SOURCES: readonly Source[] = ['command line', 'config', 'runtime']
const ORIGIN: Record<Source, string> = {
  'command line': 'the command line',
  config: 'the configuration file',
  runtime: 'a command at run time',
}

const id = v.pipe(v.string(), v.regex(/^[1-9][0-9]{0,14}$/))
const KEPT = v.object({
  /** The next id. */
  next: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  entries: v.pipe(
    v.array(v.object({ id, created: v.string(), settings: MAPPING_SETTINGS })),
    v.check((entries) => new Set(entries.map((entry) => entry.id)).size === entries.length, 'an id stands there twice'),
  ),
  /** The ids of those that come from elsewhere, so that they are called the same after a restart. */
  given: v.array(
    v.object({ source: v.picklist(['command line', 'config']), key: v.string(), id, created: v.string() }),
  ),
})
type Kept = v.InferOutput<typeof KEPT>
type Given = Kept['given'][number]

/**
 * The mappings of this side, each with a listener of its own. Those of the command line and of a configuration file are
 * read-only here; others come and go while all runs, and are there again after a restart. Changes are made one after the
 * other.
 */
export class MappingTable {
  readonly #options: MappingTableOptions
  readonly #file: JsonFile<Kept> | undefined
  readonly #context: MappingContext
  readonly #health: HealthChecks
  readonly #mappings = new Map<string, LiveMapping>()
  /** Runtime mappings and others by where they listen, but for ports that the system chooses. */
  readonly #byListen = new Map<string, Set<LiveMapping>>()
  /** What the file says about mappings that nobody has asked for so far. */
  readonly #given = new Map<string, Given>()
  readonly #stop = new AbortController()
  readonly #changes: ChangeQueue
  #keeping: Promise<unknown> | undefined
  #closing: Promise<void> | undefined
  #started = false
  #next = 1
  #retry: NodeJS.Timeout | undefined
  /** Why each of those listens not that should, as it was told. */
  readonly #told = new Map<LiveMapping, string>()
  readonly #passwords = new PasswordHashes()

  /**
   * A table with the mappings of the last run; none of them listens before `start`.
   *
   * @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten
   */
  static async open(options: MappingTableOptions): Promise<MappingTable> {
    const empty: Kept = { next: 1, entries: [], given: [] }
    const { folder } = options
    return new MappingTable(options, folder && (await JsonFile.open(folder, FILE, KEPT, empty)))
  }

  private constructor(options: MappingTableOptions, file: JsonFile<Kept> | undefined) {
    const { domains, pool, relay, onEvent = () => {}, balance = 'first', onOpened, figures, signal } = options
    setMaxListeners(0, this.#stop.signal)
    this.#options = options
    this.#file = file
    this.#health = new HealthChecks(this.#stop.signal)
    this.#context = {
      ...{ domains: new Domains(domains, allowAll), pool, relay, health: this.#health, onEvent, balance },
      ...{ onOpened, figures, limiter: options.limiter ?? new Limiter({ onEvent }) },
    }
    this.#changes = new ChangeQueue({
      signal: this.#stop.signal,
      keep: async (kind) => {
        if (kind !== 'list') return await this.#keep()
        this.#keepIds()
        return undefined
      },
      onMade: () => this.#retryLater(),
    })
    const { next, entries, given } = file?.value ?? { next: 1, entries: [], given: [] }
    this.#next = Math.max(next, ...[...entries, ...given].map((one) => Number(one.id) + 1))
    for (const one of given) this.#given.set(`${one.source} ${one.key}`, one)
    for (const { settings, ...identity } of entries) {
      this.#insert(new LiveMapping({ ...identity, source: 'runtime' }, settings, this.#context))
    }
    signal.addEventListener('abort', () => void this.close(), { once: true })
    if (signal.aborted) void this.close()
  }

  get size(): number {
    return this.#mappings.size
  }

  /** How many of them are ready. */
  get ready(): number {
    let ready = 0
    for (const mapping of this.#mappings.values()) if (mapping.state === 'ready') ready++
    return ready
  }

  /** All of them, by id. */
  status(): MappingStatus[] {
    const all = [...this.#mappings.values()].sort((a, b) => Number(a.id) - Number(b.id))
    return all.map((mapping) => mapping.status())
  }

  get(id: string): MappingStatus | undefined {
    return this.#mappings.get(id)?.status()
  }

  /** Whether a sub-connection, or an error of one, is a health check's and not a user's. */
  isCheck(subOrError: object): boolean {
    return this.#health.owns(subOrError)
  }

  /** Listens. What cannot is told as an event, and tries again. */
  async start(): Promise<void> {
    await this.#changes.add('list', async () => {
      this.#started = true
      for (const source of SOURCES) {
        const mappings = [...this.#mappings.values()].filter((mapping) => mapping.source === source && mapping.failed)
        // In the order in which they were given, for whoever reads the log.
        await inParallel(mappings, source === 'command line' ? 1 : AT_ONCE, (mapping) => this.#listen(mapping))
      }
      return { answer: () => {} }
    })
  }

  /**
   * Adds a mapping. One of run time listens (in a table that was started) and is kept when the promise resolves, or else
   * is not there.
   *
   * @throws ProxyError PROXY_ERR_REQUEST, PROXY_ERR_EXISTS, PROXY_ERR_LISTEN_FAILED, PROXY_ERR_STATE
   */
  async add(request: MappingRequest, source: Source = 'runtime'): Promise<MappingStatus> {
    const asked = readMappingRequest(request, this.#options.domains)
    const settings = { ...asked, http: await hashed(asked.http) }
    return await this.#changes.add('open', async () => {
      this.#assertRoom(1)
      const other = this.#listeningAt(settings.Listen)
      if (other) throw taken(settings, other)
      const mapping = this.#create(source, settings)
      if (source !== 'runtime') await this.#listen(mapping)
      else if (settings.enabled) await this.#listenOr(mapping, () => this.#drop(mapping))
      return {
        answer: () => mapping.status(),
        undo: () => this.#drop(mapping),
        done: () => {
          if (source === 'runtime' && settings.enabled) this.#tellReady(mapping)
          this.#tellChange('added', mapping)
        },
      }
    })
  }

  /**
   * The listener closes, and what is open goes on.
   *
   * @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_READ_ONLY, PROXY_ERR_STATE
   */
  async remove(id: string): Promise<void> {
    await this.#changes.add('close', async () => {
      const mapping = this.#changeable(id, 'removed')
      this.#delete(mapping)
      return {
        answer: () => {},
        undo: () => this.#insert(mapping),
        done: async () => {
          await mapping.unlisten()
          this.#tellChange('removed', mapping)
        },
      }
    })
  }

  /**
   * One that is not enabled does not listen; what is open goes on.
   *
   * @throws ProxyError PROXY_ERR_NOT_FOUND, PROXY_ERR_READ_ONLY, PROXY_ERR_LISTEN_FAILED, PROXY_ERR_STATE
   */
  async setEnabled(id: string, enabled: boolean): Promise<void> {
    await this.#changes.add(enabled ? 'open' : 'close', async () => {
      const mapping = this.#changeable(id, enabled ? 'enabled' : 'disabled')
      const before = mapping.settings
      if (before.enabled === enabled && !mapping.failed) return { answer: () => {} }
      const back = (): void => mapping.change(before)
      mapping.change({ ...before, enabled })
      if (enabled) await this.#listenOr(mapping, back)
      return {
        answer: () => {},
        undo: async () => {
          back()
          if (!before.enabled) await mapping.unlisten()
        },
        done: async () => {
          if (enabled) this.#tellReady(mapping)
          else await mapping.unlisten()
          this.#told.delete(mapping)
          this.#tellChange(enabled ? 'enabled' : 'disabled', mapping)
        },
      }
    })
  }

  /**
   * Changes what does not concern where it listens: what is open goes on.
   *
   * @throws ProxyError PROXY_ERR_REQUEST, PROXY_ERR_NOT_FOUND, PROXY_ERR_READ_ONLY, PROXY_ERR_STATE
   */
  async change(id: string, change: MappingChange): Promise<MappingStatus> {
    const asked = readMappingChange(change)
    this.#changeable(id, 'changed')
    const proofs = asked.http?.basicAuth && (await hashedProofs(asked.http.basicAuth))
    const patch = proofs ? { ...asked, http: { ...asked.http, basicAuth: Object.fromEntries(proofs) } } : asked
    return await this.#changes.add('open', async () => {
      const mapping = this.#changeable(id, 'changed')
      const before = mapping.settings
      const after = changedSettings(before, patch)
      const differs = differences(before, after).length > 0
      if (differs) mapping.change(after)
      return {
        answer: () => mapping.status(),
        undo: () => mapping.change(before),
        done: () => {
          if (differs) this.#tellChange('changed', mapping)
        },
      }
    })
  }

  /**
   * Makes the mappings of the configuration file those of this list, by what differs: the same listen, forward and nodes
   * are the same mapping, whose listener and connections stay. Answers what changed, a line each. If one of the list
   * makes no sense nothing changes.
   *
   * @throws ProxyError PROXY_ERR_REQUEST, PROXY_ERR_EXISTS if two of the list listen at the same place
   */
  async setConfigured(requests: readonly MappingRequest[]): Promise<string[]> {
    if (requests.length > MAX_MAPPINGS) throw tooMany()
    const list: MappingSettings[] = []
    const passwords = this.#passwords.list()
    for (const request of requests) {
      const asked = readMappingRequest(request, this.#options.domains)
      list.push({ ...asked, http: asked.http && (await passwords.hashed(asked.http)) })
      // Checking thousands takes a while, in which what is open wants to go on.
      if (list.length % IN_ONE_TURN === 0) await nextTurn()
    }
    const lines = await this.#setList('config', list)
    passwords.done()
    return lines
  }

  /** The mappings of the command line, in their order. Two that listen at the same place are there both; one fails. */
  async setCommandLine(specs: readonly Spec[]): Promise<void> {
    await this.#setList('command line', specs.map(settingsOf))
  }

  /** Stops listening, and takes no more changes. Connections that are open go on. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stop.abort()
    clearTimeout(this.#retry)
    const closeAll = (): Promise<unknown> => Promise.all([...this.#mappings.values()].map((one) => one.unlisten()))
    await closeAll()
    // A change that was being made may have opened another one.
    await this.#changes.idle
    await Promise.all([closeAll(), this.#keeping])
  }

  // --- one list of mappings that come from elsewhere ---

  #setList(source: 'command line' | 'config', list: readonly MappingSettings[]): Promise<string[]> {
    return this.#changes.add('list', async () => {
      if (source === 'config') assertNoneTwice(list)
      const before = [...this.#mappings.values()].filter((mapping) => mapping.source === source)
      this.#assertRoom(list.length - before.length)
      const old = new Map(numbered(before, (mapping) => mapping.key))
      const lines: string[] = []
      const tell = (change: 'added' | 'removed' | 'changed', mapping: LiveMapping, how = ''): void => {
        lines.push(`mapping ${mapping.id} ${change}${how}: ${shownMapping(mapping.settings)}`)
        // What is there at the start is no change.
        if (this.#started) this.#tellChange(change, mapping)
      }

      const wanted = numbered(list, keyOf)
      const kept = new Set(wanted.map(([key]) => key))
      for (const [key, mapping] of old) {
        if (kept.has(key)) continue
        // Before anything is added, which may want its port.
        await this.#drop(mapping)
        tell('removed', mapping)
      }
      const added: LiveMapping[] = []
      for (const [key, settings] of wanted) {
        const mapping = old.get(key)
        if (!mapping) added.push(this.#create(source, settings, this.#given.get(`${source} ${key}`)))
        else await this.#adopt(mapping, settings, tell)
      }
      for (const [key, { source: its }] of this.#given) if (its === source) this.#given.delete(key)
      await inParallel(added, source === 'command line' ? 1 : AT_ONCE, (mapping) => this.#listen(mapping))
      for (const mapping of added)
        tell('added', mapping, mapping.failed && this.#started ? ', but it cannot listen' : '')
      return { answer: () => lines }
    })
  }

  /** Gives a mapping the settings of its twin in a new list. */
  async #adopt(
    mapping: LiveMapping,
    settings: MappingSettings,
    tell: (change: 'changed', mapping: LiveMapping, how: string) => void,
  ): Promise<void> {
    const differs = differences(mapping.settings, settings)
    if (differs.length === 0) return
    mapping.change(settings)
    if (!settings.enabled) {
      await mapping.unlisten()
      this.#told.delete(mapping)
    } else if (mapping.failed) {
      await this.#listen(mapping)
    }
    tell('changed', mapping, ` (${differs.join(', ')})`)
  }

  // --- changes ---

  /** Answers why it could not be written. */
  async #keep(): Promise<ProxyError | undefined> {
    try {
      await this.#file?.change(this.#kept())
      return undefined
    } catch (error) {
      return ProxyError.from(error, 'PROXY_ERR_STATE')
    }
  }

  /** What only gives mappings from elsewhere their ids is written some time: they are there without it. */
  #keepIds(): void {
    const { value } = this.#file ?? {}
    if (value && !sameIds(value, this.#kept())) this.#keeping = this.#keep()
  }

  #kept(): Kept {
    const entries: Kept['entries'] = []
    const given: Given[] = [...this.#given.values()]
    for (const source of SOURCES) {
      const mappings = [...this.#mappings.values()].filter((mapping) => mapping.source === source)
      for (const [key, { id, created, settings }] of numbered(mappings, (mapping) => mapping.key)) {
        if (source === 'runtime') entries.push({ id, created, settings })
        else given.push({ source, key, id, created })
      }
    }
    return { next: this.#next, entries, given }
  }

  #assertOpen(): void {
    if (this.#stop.signal.aborted) throw stopping()
  }

  #assertRoom(more: number): void {
    if (this.#mappings.size + more > MAX_MAPPINGS) throw tooMany()
  }

  #changeable(id: string, change: string): LiveMapping {
    const mapping = this.#mappings.get(id)
    if (!mapping) throw new ProxyError('PROXY_ERR_NOT_FOUND', `there is no mapping ${shown(id)}`)
    if (mapping.source === 'runtime') return mapping
    const text = `mapping ${id} comes from ${ORIGIN[mapping.source]}, and can only be ${change} there`
    throw new ProxyError('PROXY_ERR_READ_ONLY', text)
  }

  // --- mappings ---

  #create(source: Source, settings: MappingSettings, given?: Given): LiveMapping {
    const { id = String(this.#next++), created = new Date().toISOString() } = given ?? {}
    const mapping = new LiveMapping({ id, source, created }, settings, this.#context)
    this.#insert(mapping)
    return mapping
  }

  #insert(mapping: LiveMapping): void {
    this.#mappings.set(mapping.id, mapping)
    const at = placeOf(mapping.settings.Listen)
    if (at === undefined) return
    const there = this.#byListen.get(at)
    if (there) there.add(mapping)
    else this.#byListen.set(at, new Set([mapping]))
  }

  #delete(mapping: LiveMapping): void {
    this.#mappings.delete(mapping.id)
    this.#told.delete(mapping)
    const at = placeOf(mapping.settings.Listen)
    const there = at === undefined ? undefined : this.#byListen.get(at)
    there?.delete(mapping)
    if (at !== undefined && there?.size === 0) this.#byListen.delete(at)
  }

  async #drop(mapping: LiveMapping): Promise<void> {
    this.#delete(mapping)
    await mapping.unlisten()
  }

  #listeningAt(at: Endpoint): LiveMapping | undefined {
    const place = placeOf(at)
    const [first] = (place !== undefined && this.#byListen.get(place)) || []
    return first
  }

  /** For a mapping that stays if it cannot listen. */
  async #listen(mapping: LiveMapping): Promise<void> {
    if (!this.#started || !mapping.failed || this.#stop.signal.aborted) return
    try {
      await mapping.listen(false)
      if (this.#stop.signal.aborted) await mapping.unlisten()
      else this.#tellReady(mapping)
    } catch (error) {
      if (!mapping.failed || this.#stop.signal.aborted || !this.#mappings.has(mapping.id)) return
      const reason = ProxyError.from(error, 'PROXY_ERR_LISTEN_FAILED')
      if (this.#told.get(mapping) !== reason.message) {
        this.#told.set(mapping, reason.message)
        this.#tell({ type: 'listener-failed', spec: mapping.spec, reason, at: 'here', mapping: mapping.id })
      }
      this.#retryLater()
    }
  }

  /** For one that is asked for now, and whose asker is told. */
  async #listenOr(mapping: LiveMapping, takeBack: () => Promise<void> | void): Promise<void> {
    if (!this.#started) return
    try {
      await mapping.listen(true)
      this.#assertOpen()
    } catch (error) {
      await takeBack()
      await mapping.unlisten()
      throw error
    }
  }

  #retryLater(): void {
    if (this.#retry || this.#stop.signal.aborted || !this.#started) return
    if (![...this.#mappings.values()].some((mapping) => mapping.failed)) return
    this.#retry = setTimeout(async () => {
      const failed = [...this.#mappings.values()].filter((mapping) => mapping.failed)
      await inParallel(failed, AT_ONCE, (mapping) => this.#listen(mapping))
      this.#retry = undefined
      this.#retryLater()
    }, this.#options.retryDelay ?? RETRY_DELAY)
  }

  #tell(event: HubEvent): void {
    this.#context.onEvent(event)
  }

  #tellReady(mapping: LiveMapping): void {
    this.#told.delete(mapping)
    const { bound, spec, id } = mapping
    if (bound) this.#tell({ type: 'listener-ready', spec, bound, at: 'here', mapping: id })
  }

  #tellChange(change: 'added' | 'removed' | 'enabled' | 'disabled' | 'changed', { id, spec }: LiveMapping): void {
    this.#tell({ type: 'mapping', change, mapping: id, spec })
  }
}

/** Where a mapping listens, as one word; undefined for a port that the system chooses. */
function placeOf(at: Endpoint): string | undefined {
  return at.Domain !== 'unix' && at.Addr.endsWith(':0') ? undefined : formatEndpoint(at)
}

function shownMapping({ Listen, Forward }: MappingSettings): string {
  return `${formatEndpoint(Listen)} to ${formatEndpoint(Forward)}`
}

function assertNoneTwice(list: readonly MappingSettings[]): void {
  const places = new Set<string>()
  for (const { Listen } of list) {
    const place = placeOf(Listen)
    if (place === undefined) continue
    if (places.has(place)) throw new ProxyError('PROXY_ERR_EXISTS', `two mappings listen on ${place}`)
    places.add(place)
  }
}

/** Each with its key; of those that have the same one, the later ones with a number too. */
function numbered<T>(all: readonly T[], keyOfOne: (one: T) => string): [string, T][] {
  const counts = new Map<string, number>()
  return all.map((one) => {
    const key = keyOfOne(one)
    const count = (counts.get(key) ?? 0) + 1
    counts.set(key, count)
    return [count === 1 ? key : `${key} ${count}`, one]
  })
}

/** What two settings of one mapping differ in, in the words of a `MappingRequest`. */
function differences(before: MappingSettings, after: MappingSettings): string[] {
  const names = ['nodes', 'balance', 'note', 'enabled', 'wait', 'health', 'limits', 'http'] as const
  const differs: string[] = names.filter((name) => {
    const [was, is] = [before[name], after[name]]
    return was !== is && JSON.stringify(was) !== JSON.stringify(is)
  })
  // It is in no JSON, and no part of what makes two mappings the same one.
  const [was, is] = [before, after].map(({ Forward }) => passwordOf(Forward)?.reveal())
  return was === is ? differs : [...differs, 'password']
}

/** Whether both call mappings from elsewhere the same. */
function sameIds(one: Kept, other: Kept): boolean {
  if (one.next !== other.next || one.given.length !== other.given.length) return false
  return one.given.every(({ source, key, id }, index) => {
    const twin = other.given[index]
    return twin !== undefined && twin.id === id && twin.key === key && twin.source === source
  })
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

async function inParallel<T>(all: readonly T[], atOnce: number, work: (one: T) => Promise<void>): Promise<void> {
  const left = all.values()
  const run = async (): Promise<void> => {
    for (const one of left) await work(one)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, run))
}

function taken({ Listen }: MappingSettings, { id, source }: LiveMapping): ProxyError {
  const from = source === 'runtime' ? '' : ` (from ${ORIGIN[source]})`
  return new ProxyError('PROXY_ERR_EXISTS', `mapping ${id}${from} has ${formatEndpoint(Listen)} already`)
}

function tooMany(): ProxyError {
  return new ProxyError('PROXY_ERR_REQUEST', `there are at most ${MAX_MAPPINGS} mappings`)
}
