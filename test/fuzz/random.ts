const NOISE = 1024 * 1024

/** Numbers from a seed, the same each time. Each stream of a seed has its own, so that one session can be run again alone. */
export class Random {
  /** What `bytes` are taken from. */
  readonly noise: Buffer
  #a: number
  #b: number
  #c: number
  #d = 1

  /** sfc32, by Chris Doty-Humphrey. `noise`: that of another one of this seed, to save time. */
  constructor(seed: number, stream = 0, noise?: Buffer) {
    this.#a = seed | 0
    this.#b = stream | 0
    this.#c = Math.floor(seed / 2 ** 32) | 0
    for (let round = 0; round < 12; round++) this.u32()
    this.noise = noise ?? this.#noise()
  }

  u32(): number {
    const sum = (this.#a + this.#b + this.#d) | 0
    this.#d = (this.#d + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    return sum >>> 0
  }

  #noise(): Buffer {
    const bytes = Buffer.allocUnsafeSlow(NOISE)
    for (let at = 0; at < NOISE; at += 4) bytes.writeUInt32LE(this.u32(), at)
    return bytes
  }

  /** 0 to `below` - 1. */
  int(below: number): number {
    return Math.floor((this.u32() / 2 ** 32) * below)
  }

  /** Both included. */
  between(least: number, most: number): number {
    return least + this.int(most - least + 1)
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32
  }

  pick<T>(list: readonly [T, ...T[]]): T
  pick<T>(list: readonly T[]): T | undefined
  pick<T>(list: readonly T[]): T | undefined {
    return list[this.int(list.length)]
  }

  /** One of the keys, as often as its weight says. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries<number>(weights) as [K, number][]
    let left = this.int(entries.reduce((sum, [, weight]) => sum + weight, 0))
    for (const [key, weight] of entries) {
      left -= weight
      if (left < 0) return key
    }
    throw new RangeError('nothing to choose from')
  }

  /** Not to be written to. */
  bytes(length: number): Buffer {
    const { noise } = this
    if (length > noise.length) return Buffer.concat([noise, this.bytes(length - noise.length)])
    const from = this.int(noise.length - length + 1)
    return noise.subarray(from, from + length)
  }
}
