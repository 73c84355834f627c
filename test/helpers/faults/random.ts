import { randomInt } from 'node:crypto'

/** Numbers that look random and are the same for the same seed (mulberry32). Not for secrets. */
export class Random {
  readonly seed: number
  #state: number

  constructor(seed: number) {
    this.seed = seed >>> 0
    this.#state = this.seed
  }

  /** 32 bits. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }

  /** From 0 up to, but not, 1. */
  fraction(): number {
    return this.word() / 2 ** 32
  }

  /** One of `min` to `max`, both included. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.fraction() * (max - min + 1))
  }

  /** True in so many of all cases: 0.25 is every fourth. */
  chance(share: number): boolean {
    return this.fraction() < share
  }

  pick<const T>(from: readonly [T, ...T[]]): T {
    return from[this.integer(0, from.length - 1)] ?? from[0]
  }

  bytes(length: number): Buffer {
    const words = new Uint32Array(Math.ceil(length / 4))
    for (let index = 0; index < words.length; index++) words[index] = this.word()
    return Buffer.from(words.buffer, 0, length)
  }
}

/** SYMPORT_SEED, to have a failure again; a new one otherwise. */
export function seedFromEnv(): number {
  const given = process.env.SYMPORT_SEED
  if (given === undefined) return randomInt(2 ** 32)
  if (!/^\d{1,10}$/.test(given) || Number(given) >= 2 ** 32) {
    throw new Error(`SYMPORT_SEED is a number below 2^32, not ${given}`)
  }
  return Number(given)
}

/** Runs something random; its failure names the seed. */
export async function seeded(run: (random: Random) => Promise<void>, seed: number = seedFromEnv()): Promise<void> {
  try {
    await run(new Random(seed))
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error)
    throw new Error(`with SYMPORT_SEED=${seed}: ${what}`, { cause: error })
  }
}
