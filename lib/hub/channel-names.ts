import { type Policy, ProxyError } from '../core/index.ts'
import { isChannelName } from '../domains/channel-address.ts'
import type { StateFolder } from '../store/state-folder.ts'
import { Claims, type ClaimsOptions, ownerOf, type Registrant } from './claims.ts'
import type { Identities } from './identities.ts'

export type { Registrant } from './claims.ts'

/** Of one owner: more than a node can have registered at once is of no use to anybody. Also of all without a key. */
const MAX_OF_ONE = 1000

export interface ChannelNamesOptions extends Pick<ClaimsOptions, 'onProblem' | 'now'> {
  /** Nodes that names are granted to. Default: none. */
  readonly identities?: Pick<Identities, 'has' | 'channelOwners' | 'onChanged'> | undefined
}

/**
 * Whose the names of channels are: see `Claims`. Who has no credential and no key owns nothing, and may register what
 * nobody owns.
 */
export class ChannelNames implements AsyncDisposable {
  readonly #claims: Claims
  readonly #identities: ChannelNamesOptions['identities']
  /** The names that each main connection was given, for as long as it lives. */
  readonly #given = new Map<Registrant, Set<string>>()
  /** Those of nodes without a key. */
  #keyless = 0
  readonly #unsubscribe: (() => void) | undefined
  #looking = false

  /** @throws ProxyError PROXY_ERR_STATE if the file is damaged: it is not overwritten */
  static async open(folder: StateFolder, options: ChannelNamesOptions = {}): Promise<ChannelNames> {
    const { identities, onProblem, now } = options
    const claims = await Claims.open(folder, {
      ...{ file: 'channels.json', mostOfOne: MAX_OF_ONE, onProblem, now },
      has: (id) => identities?.has(id) ?? false,
      ownersOf: (name) => identities?.channelOwners(name) ?? [],
      refusals: {
        granted: (name) => denied(`channel ${name} is granted to another node`),
        taken: (name) => denied(`channel ${name} belongs to another node: choose another name`),
        full: (most, of) =>
          denied(of === 'one' ? `this node has ${most} channels already` : `there are ${most} channels already`),
      },
    })
    return new ChannelNames(claims, identities)
  }

  private constructor(claims: Claims, identities: ChannelNamesOptions['identities']) {
    this.#claims = claims
    this.#identities = identities
    this.#unsubscribe = identities?.onChanged((_id, why) => {
      if (why === 'added' || why === 'changed') this.#lookForGranted()
    })
  }

  /** What `base` allows, and channels: any that is not another node's may be registered, and all may be joined. */
  policyFor(main: Registrant, base: Policy): Policy {
    return {
      dial(to, address) {
        if (to.Domain !== 'channel') base.dial(to, address)
      },
      resolve: (to) => base.resolve?.(to),
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
    if (isKeyless(main) && this.#keyless >= MAX_OF_ONE && !this.#given.get(main)?.has(name)) {
      throw denied(`nodes without a key have ${MAX_OF_ONE} channels already`)
    }
    const claimed = this.#claims.claim(name, main)
    // Not for as long as it is written: it may be granted to another one meanwhile.
    const undo = this.#give(name, main)
    try {
      await claimed
    } catch (error) {
      undo()
      throw error
    }
  }

  /** Answers how to take it back. */
  #give(name: string, main: Registrant): () => void {
    const names = this.#given.get(main) ?? this.#open(main)
    // Beyond that there are only more of those that it was granted.
    if (names.size >= MAX_OF_ONE || names.has(name)) return () => {}
    names.add(name)
    const count = isKeyless(main) ? 1 : 0
    this.#keyless += count
    return () => {
      if (names.delete(name)) this.#keyless -= count
    }
  }

  #open(main: Registrant): Set<string> {
    const names = new Set<string>()
    this.#given.set(main, names)
    void main.closed.then(() => {
      this.#given.delete(main)
      if (isKeyless(main)) this.#keyless -= names.size
      names.clear()
    })
    return names
  }

  /** Soon, and once for all that were added together. */
  #lookForGranted(): void {
    if (this.#looking) return
    this.#looking = true
    queueMicrotask(() => {
      this.#looking = false
      this.#endOthers()
    })
  }

  /** A name that was granted is its nodes' at once, also where another one has it just now. */
  #endOthers(): void {
    for (const [main, names] of [...this.#given]) {
      for (const name of names) {
        const granted = this.#identities?.channelOwners(name) ?? []
        if (granted.length === 0 || granted.includes(main.peer.credential)) continue
        main.close(
          new ProxyError('PROXY_ERR_LISTEN_DENIED', `channel ${name} was granted to another node`, { retryable: true }),
        )
        break
      }
    }
  }

  /** Resolves when what was changed is on disk. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe?.()
    await this.#claims[Symbol.asyncDispose]()
  }
}

function isKeyless(main: Registrant): boolean {
  return ownerOf(main) === undefined
}

function denied(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_LISTEN_DENIED', message)
}
