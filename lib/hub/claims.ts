import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { type MainConnection, ProxyError } from '../core/index.ts'
import { JsonFile } from '../store/json-file.ts'
import type { StateFolder } from '../store/state-folder.ts'

const DAY = 24 * 60 * 60 * 1000
/** A name that nobody uses is its owner's for this long, in ms. */
const LAPSES_AFTER = 30 * DAY
/** Of enrolled nodes, and as many of others: whoever makes up keys shall not displace what is proven. */
const MAX_NAMES = 10_000

const CLAIMS = v.array(
  v.object({
    name: v.string(),
    owner: v.string(),
    /** In ms since 1970. */
    used: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
    use: v.optional(v.string()),
  }),
)

type Stored = v.InferOutput<typeof CLAIMS>[number]

interface Claim {
  readonly owner: string
  /** What its owner has it for, if it was made up for that. */
  readonly use?: string | undefined
  used: number
  /** The `used` that is on disk, or on its way there. */
  kept: number
  /** Main connections that asked for the name and are not over. While there is one, it is in use. */
  readonly users: Set<Registrant>
}

/** Who asks for a name: what a main connection tells of its peer, and when it is over. */
export type Registrant = Pick<MainConnection, 'peer' | 'closed' | 'close'>

/** The words in which a name is refused, which differ with what the names are of. */
export interface ClaimRefusals {
  granted(name: string): ProxyError
  taken(name: string): ProxyError
  /** `most`: how many there may be; of one node, or in all. */
  full(most: number, of: 'one' | 'all'): ProxyError
}

export interface ClaimsOptions {
  /** The file in the state folder. */
  readonly file: string
  /** Whether a node of this id is enrolled. Default: none is. */
  readonly has?: ((id: string) => boolean) | undefined
  /** The enrolled nodes that the operator granted a name to; empty: nobody in particular. Default: none. */
  readonly ownersOf?: ((name: string) => readonly string[]) | undefined
  /** Names that one owner may have: more than it can use at once are of no use to anybody. */
  readonly mostOfOne: number
  readonly refusals: ClaimRefusals
  /** What is not on disk holds in memory: that it could not be written is told once, until it can be again. */
  readonly onProblem?: ((error: ProxyError) => void) | undefined
  /** A clock in ms since 1970. Default `Date.now`. */
  readonly now?: (() => number) | undefined
}

/**
 * Whose names are: the nodes' that the operator granted them to, or else whose that asked first. Such a claim is kept in
 * the state folder, so that nobody takes the name while its owner is away. An owner is an enrolled node, or a node key;
 * who has neither owns nothing, and may use what nobody owns.
 */
export class Claims implements AsyncDisposable {
  readonly #file: JsonFile<Stored[]>
  readonly #options: ClaimsOptions
  readonly #now: () => number
  /** The one that has been unused for longest comes first. */
  readonly #claims = new Map<string, Claim>()
  /** How many each owner has, and all of its kind. */
  readonly #counts = new Map<string, number>()
  readonly #timer: NodeJS.Timeout
  /** The write under way, and the one behind it, which takes along all that changes until then. */
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined
  #failed = false

  /** @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten */
  static async open(folder: StateFolder, options: ClaimsOptions): Promise<Claims> {
    return new Claims(await JsonFile.open(folder, options.file, CLAIMS, []), options)
  }

  private constructor(file: JsonFile<Stored[]>, options: ClaimsOptions) {
    this.#file = file
    this.#options = options
    this.#now = options.now ?? Date.now
    for (const { name, owner, used, use } of [...file.value].sort((a, b) => a.used - b.used)) {
      this.#add(name, { owner, used, kept: used, use, users: new Set() })
    }
    // A name in use for a month is not to lapse with the power.
    this.#timer = setInterval(() => this.#keepUsed(), DAY)
    this.#timer.unref()
  }

  /**
   * Makes a name the peer's, if it may have it. Resolves when that is on disk. `use`: what it is made up for, by which
   * `madeUp` finds it again.
   *
   * @throws ProxyError as `refusals` makes them
   */
  async claim(name: string, main: Registrant, use?: string): Promise<void> {
    const { refusals } = this.#options
    const granted = this.#options.ownersOf?.(name) ?? []
    if (granted.length > 0 && !granted.includes(main.peer.credential)) throw refusals.granted(name)
    if (granted.length === 1) return
    const owner = ownerOf(main)
    const claim = this.#claimOf(name, granted)
    if (claim && claim.owner !== owner) throw refusals.taken(name)
    if (owner === undefined) return
    const mine = claim ?? { owner, use, used: 0, kept: 0, users: new Set() }
    if (!claim) {
      this.#makeRoom(owner)
      this.#add(name, mine)
    }
    this.#use(name, mine, main)
    if (this.#failed || this.#now() - mine.kept > DAY) await this.#save()
  }

  /** The name that was made up for this use of this peer's. */
  madeUp(main: Registrant, use: string): string | undefined {
    const owner = ownerOf(main)
    if (owner === undefined || this.#countOf(owner) === 0) return undefined
    for (const [name, claim] of this.#claims) {
      if (claim.owner !== owner || claim.use !== use) continue
      if (this.#claimOf(name, this.#options.ownersOf?.(name) ?? []) === claim) return name
    }
    return undefined
  }

  /** Whether the name is somebody's, by a claim or a grant. */
  isOwned(name: string): boolean {
    const granted = this.#options.ownersOf?.(name) ?? []
    return granted.length > 0 || this.#claimOf(name, granted) !== undefined
  }

  /** Resolves when what was changed is on disk. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await (this.#next ?? this.#writing)
  }

  #claimOf(name: string, granted: readonly string[]): Claim | undefined {
    const claim = this.#claims.get(name)
    if (!claim) return undefined
    const enrolled = /^id (.*)$/s.exec(claim.owner)?.[1]
    const isOwners = enrolled === undefined ? granted.length === 0 : this.#mayOwn(enrolled, granted)
    const lapsed = claim.users.size === 0 && this.#now() - claim.used > LAPSES_AFTER
    if (isOwners && !lapsed) return claim
    this.#drop(name, claim)
    return undefined
  }

  #add(name: string, claim: Claim): void {
    this.#claims.set(name, claim)
    this.#count(claim.owner, 1)
  }

  #drop(name: string, { owner }: Claim): void {
    this.#claims.delete(name)
    this.#count(owner, -1)
  }

  #count(owner: string, by: 1 | -1): void {
    for (const key of [owner, kindOf(owner)]) {
      const count = this.#countOf(key) + by
      if (count > 0) this.#counts.set(key, count)
      else this.#counts.delete(key)
    }
  }

  #countOf(owner: string): number {
    return this.#counts.get(owner) ?? 0
  }

  /** An id that was removed owns nothing. */
  #mayOwn(id: string, granted: readonly string[]): boolean {
    return granted.length > 0 ? granted.includes(id) : (this.#options.has?.(id) ?? false)
  }

  #use(name: string, claim: Claim, main: Registrant): void {
    const touch = (): void => {
      claim.used = this.#now()
      this.#claims.delete(name)
      this.#claims.set(name, claim)
    }
    touch()
    if (claim.users.has(main)) return
    claim.users.add(main)
    void main.closed.then(() => {
      claim.users.delete(main)
      if (this.#claims.get(name) !== claim) return
      touch()
      if (claim.used - claim.kept > DAY) void this.#save()
    })
  }

  /** @throws ProxyError as `refusals.full` makes it */
  #makeRoom(owner: string): void {
    const { mostOfOne, refusals } = this.#options
    const full = this.#countOf(owner) >= mostOfOne
    const kind = kindOf(owner)
    if (!full && this.#countOf(kind) < MAX_NAMES) return
    for (const [name, claim] of this.#claims) {
      if (claim.users.size > 0 || (full ? claim.owner !== owner : kindOf(claim.owner) !== kind)) continue
      this.#drop(name, claim)
      return
    }
    throw full ? refusals.full(mostOfOne, 'one') : refusals.full(MAX_NAMES, 'all')
  }

  #keepUsed(): void {
    const now = this.#now()
    const used = [...this.#claims.values()].filter(({ users }) => users.size > 0)
    for (const claim of used) claim.used = now
    if (used.length > 0) void this.#save()
  }

  #save(): Promise<void> {
    this.#next ??= this.#writing.then(() => {
      this.#next = undefined
      this.#writing = this.#write()
      return this.#writing
    })
    return this.#next
  }

  async #write(): Promise<void> {
    const all = [...this.#claims].map(([name, claim]): Stored => {
      claim.kept = claim.used
      const { owner, used, use } = claim
      return use === undefined ? { name, owner, used } : { name, owner, used, use }
    })
    try {
      await this.#file.change(all)
      this.#failed = false
    } catch (error) {
      if (!this.#failed) this.#options.onProblem?.(ProxyError.from(error, 'PROXY_ERR_STATE'))
      this.#failed = true
    }
  }
}

/** An enrolled node proves its id; others at most a key of their own, of which only the fingerprint is kept. */
export function ownerOf({ peer: { credential, key } }: Registrant): string | undefined {
  if (credential !== '') return `id ${credential}`
  return key && `key ${createHash('sha256').update(key).digest('hex')}`
}

/** `id` or `key`: no owner is called so. */
function kindOf(owner: string): string {
  return owner.slice(0, owner.indexOf(' '))
}
