import type { FaultRelay, RelayedLink } from '../faults/fault-relay.ts'
import type { Random } from '../faults/random.ts'

/** What can happen to a link that ends it. */
const KINDS = [
  'fin',
  'rst',
  'fin, the node alone',
  'rst, the node alone',
  'the server first',
  'nothing passes, then rst',
  'full, then fin',
  'single bytes, then rst',
] as const
type Kind = (typeof KINDS)[number]

const DIRECTIONS = ['up', 'down'] as const
const WAYS = ['up', 'down', 'both'] as const
/** Bytes in which a handshake and the hellos pass, and a little more. */
const EARLY = 600
/** How long what comes before the end of a link lasts at most, in ms. */
const LONGEST = 120

export interface Spread {
  /** Bytes of one direction between two cuts, on average. */
  readonly every: number
  /** After so many no more are made. */
  readonly most: number
  /** So many of all cuts happen in the handshake. Default: 0.1. */
  readonly early?: number
}

/** Cuts the links of a relay, each in a random way: when asked to, or each at a random place. */
export class Cuts {
  readonly #random: Random
  readonly #relay: FaultRelay
  readonly #made = new Map<Kind, number>()
  #armed = 0
  #count = 0
  #stopped = false

  constructor(relay: FaultRelay, random: Random) {
    this.#random = random
    this.#relay = relay
  }

  /** How many there were. */
  get count(): number {
    return this.#count
  }

  toString(): string {
    return [...this.#made].map(([kind, count]) => `${count} × ${kind}`).join('; ')
  }

  /** Cuts the youngest link; the next one, if none is there since the last cut. */
  async now(): Promise<void> {
    const link = this.#relay.links.at(-1) ?? (await this.#relay.next())
    this.#cut(link, this.#random.pick(KINDS))
  }

  /** From now on each link is cut at a random place. */
  spread(spread: Spread): void {
    this.#relay.onLink = (link) => this.#arm(link, spread, this.#random.chance(spread.early ?? 0.1))
    for (const link of this.#relay.links) this.#arm(link, spread, false)
  }

  /** What has begun to be cut still is, very soon. */
  stop(): void {
    this.#stopped = true
  }

  #arm(link: RelayedLink, { every, most }: Spread, early: boolean): void {
    if (this.#stopped || this.#armed >= most) return
    this.#armed++
    const direction = this.#random.pick(DIRECTIONS)
    const offset = link.forwarded[direction] + this.#random.integer(0, early ? EARLY : 2 * every)
    const kind = this.#random.pick(KINDS)
    link.at(direction, offset, () => {
      if (!this.#stopped) this.#cut(link, kind)
    })
  }

  #cut(link: RelayedLink, kind: Kind): void {
    this.#count++
    this.#made.set(kind, (this.#made.get(kind) ?? 0) + 1)
    const ways = this.#random.pick(WAYS)
    switch (kind) {
      case 'fin':
      case 'rst':
        link.cut(kind)
        break
      case 'fin, the node alone':
        link.cut('fin', 'down')
        break
      case 'rst, the node alone':
        link.cut('rst', 'down')
        break
      case 'the server first':
        link.cut(this.#random.pick(['fin', 'rst']), 'up')
        this.#later(() => link.cut('rst', 'down'))
        break
      case 'nothing passes, then rst':
        link.blackhole(ways)
        this.#later(() => link.cut('rst'))
        break
      case 'full, then fin':
        link.stall(ways)
        this.#later(() => link.cut('fin'))
        break
      case 'single bytes, then rst':
        link.fragment(1, ways)
        this.#later(() => link.cut('rst'))
        break
    }
  }

  #later(act: () => void): void {
    setTimeout(act, this.#random.integer(1, LONGEST))
  }
}
