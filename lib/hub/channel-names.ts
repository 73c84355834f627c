import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { type MainConnection, type Policy, ProxyError } from '../core/index.ts'
import { isChannelName } from '../domains/channel-address.ts'
import { JsonFile } from '../store/json-file.ts'
import type { StateFolder } from '../store/state-folder.ts'
import type { Identities } from './identities.ts'

const FILE = 'channels.json'
const DAY = 24 * 60 * 60 * 1000
/** A name that nobody uses is its owner's for this long, in ms. */
const LAPSES_AFTER = 30 * DAY
const MAX_NAMES = 10_000
/** Of one owner: more than a node can have registered at once is of no use to anybody. */
const MAX_OF_ONE = 1000

const CLAIMS = v.array(
  v.object({
    name: v.string(),
    owner: v.string(),
    /** In ms since 1970. */
    used: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  }),
)

type Stored = v.InferOutput<typeof CLAIMS>[number]

interface Claim {
  readonly owner: string
  used: number
  /** The `used` that is on disk, or on its way there. */
  kept: number
  /** Main connections that asked for the name and are not over. While there is one, it is in use. */
  readonly users: Set<Registrant>
}

/** Who asks for a name: what a main connection tells of its peer, and when it is over. */
export type Registrant = Pick<MainConnection, 'peer' | 'closed'>

export interface ChannelNamesOptions {
  /** Nodes that names are granted to. Default: none. */
  readonly identities?: Pick<Identities, 'has' | 'channelOwners'> | undefined
  /** What is not on disk holds in memory: that it could not be written is told once, until it can be again. */
  readonly onProblem?: ((error: ProxyError) => void) | undefined
  /** A clock in ms since 1970. Default `Date.now`. */
  readonly now?: (() => number) | undefined
}

/**
 * Whose the names of channels are: the nodes' that the operator granted them to, or else whose that asked first. Such a
 * claim is kept in the state folder, so that nobody takes the name while its owner is away. An owner is an enrolled node,
 * or a node key; who has neither owns nothing, and may register what nobody owns.
 */
export class ChannelNames implements AsyncDisposable {
  readonly #file: JsonFile<Stored[]>
  readonly #identities: Pick<Identities, 'has' | 'channelOwners'> | undefined
  readonly #onProblem: (error: ProxyError) => void
  readonly #now: () => number
  /** The one that has been unused for longest comes first. */
  readonly #claims: Map<string, Claim>
  /** How many each owner has. */
  readonly #counts = new Map<string, number>()
  readonly #timer: NodeJS.Timeout
  /** The write under way, and the one behind it, which takes along all that changes until then. */
  #writing: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined
  #failed = false

  /** @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten */
  static async open(folder: StateFolder, options: ChannelNamesOptions = {}): Promise<ChannelNames> {
    return new ChannelNames(await JsonFile.open(folder, FILE, CLAIMS, []), options)
  }

  private constructor(file: JsonFile<Stored[]>, { identities, onProblem, now }: ChannelNamesOptions) {
    this.#file = file
    this.#identities = identities
    this.#onProblem = onProblem ?? (() => {})
    this.#now = now ?? Date.now
    this.#claims = new Map()
    for (const { name, owner, used } of [...file.value].sort((a, b) => a.used - b.used)) {
      this.#add(name, { owner, used, kept: used, users: new Set() })
    }
    // A name in use for a month is not to lapse with the power.
    this.#timer = setInterval(() => this.#keepUsed(), DAY)
    this.#timer.unref()
  }

  /** What `base` allows, and channels: any that is not another node's may be registered, and all may be joined. */
  policyFor(main: Registrant, base: Policy): Policy {
    return {
      dial(to, address) {
        if (to.Domain !== 'channel') base.dial(to, address)
      },
      listen: (at) => {
        if (at.Domain !== 'channel') return base.listen(at)
        return this.claim(at.Addr, main)
      },
    }
  }

  /**
   * Makes a name the peer's, if it may have it. Resolves when that is on disk.
   *
   * @throws ProxyError PROXY_ERR_LISTEN_DENIED; PROXY_ERR_ADDRESS if it is no name
   */
  async claim(name: string, main: Registrant): Promise<void> {
    if (!isChannelName(name)) throw new ProxyError('PROXY_ERR_ADDRESS', 'that is not the name of a channel')
    const granted = this.#identities?.channelOwners(name) ?? []
    if (granted.length > 0 && !granted.includes(main.peer.credential)) {
      throw denied(`channel ${name} is granted to another node`)
    }
    if (granted.length === 1) return
    const owner = ownerOf(main)
    const claim = this.#claimOf(name, granted)
    if (claim && claim.owner !== owner) {
      throw denied(`channel ${name} belongs to another node: choose another name`)
    }
    if (owner === undefined) return
    const mine = claim ?? { owner, used: 0, kept: 0, users: new Set() }
    if (!claim) {
      this.#makeRoom(owner)
      this.#add(name, mine)
    }
    this.#use(name, mine, main)
    if (this.#failed || this.#now() - mine.kept > DAY) await this.#save()
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
    this.#counts.set(claim.owner, this.#countOf(claim.owner) + 1)
  }

  #drop(name: string, { owner }: Claim): void {
    this.#claims.delete(name)
    const left = this.#countOf(owner) - 1
    if (left > 0) this.#counts.set(owner, left)
    else this.#counts.delete(owner)
  }

  #countOf(owner: string): number {
    return this.#counts.get(owner) ?? 0
  }

  /** An id that was removed owns nothing. */
  #mayOwn(id: string, granted: readonly string[]): boolean {
    return granted.length > 0 ? granted.includes(id) : (this.#identities?.has(id) ?? false)
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

  /** @throws ProxyError PROXY_ERR_LISTEN_DENIED */
  #makeRoom(owner: string): void {
    const full = this.#countOf(owner) >= MAX_OF_ONE
    if (!full && this.#claims.size < MAX_NAMES) return
    for (const [name, claim] of this.#claims) {
      if (claim.users.size > 0 || (full && claim.owner !== owner)) continue
      this.#drop(name, claim)
      return
    }
    throw denied(full ? `this node has ${MAX_OF_ONE} channels already` : `there are ${MAX_NAMES} channels already`)
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
      return { name, owner: claim.owner, used: claim.used }
    })
    try {
      await this.#file.change(all)
      this.#failed = false
    } catch (error) {
      if (!this.#failed) this.#onProblem(ProxyError.from(error, 'PROXY_ERR_STATE'))
      this.#failed = true
    }
  }
}

/** An enrolled node proves its id; others at most a key of their own, of which only the fingerprint is kept. */
function ownerOf({ peer: { credential, key } }: Registrant): string | undefined {
  if (credential !== '') return `id ${credential}`
  return key && `key ${createHash('sha256').update(key).digest('hex')}`
}

function denied(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_LISTEN_DENIED', message)
}
