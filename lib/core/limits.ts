export const MAX_SUB_CONNECTIONS = 16_384
export const MAX_PENDING_OPENS = 1024

/** What one peer may have here. The first two are told to it. */
export interface Limits {
  /** Sub-connections at once. Default, and at most, 16,384. */
  readonly subConnections: number
  /** Of those, opens that are not answered yet. Default, and at most, 1,024. */
  readonly pendingOpens: number
  /** Sub-connections that it opens in one second. Default 20,000. */
  readonly opensPerSecond: number
  /** How long it may take to answer an open, in ms. Default 30,000. */
  readonly openTimeout: number
  /** Listeners that it has here. Default 1,024. */
  readonly listeners: number
  /** Bytes kept until it acknowledges them; beyond this nothing more is sent. Default 32 MiB. */
  readonly keptBytes: number
  /** Bytes that it may have on their way to sub-connections, above 4 KiB each. Default 64 MiB. */
  readonly windowBytes: number
}

export const LIMITS: Limits = {
  subConnections: MAX_SUB_CONNECTIONS,
  pendingOpens: MAX_PENDING_OPENS,
  opensPerSecond: 20_000,
  openTimeout: 30_000,
  listeners: 1024,
  keptBytes: 32 * 1024 * 1024,
  windowBytes: 64 * 1024 * 1024,
}

/** @throws RangeError for a figure that makes no sense */
export function limitsOf(wanted: Partial<Limits> = {}): Limits {
  const limits = { ...LIMITS, ...wanted }
  for (const [name, value] of Object.entries(limits)) {
    if (!(value >= 1)) throw new RangeError(`the limit ${name} is at least 1`)
  }
  if (limits.subConnections > MAX_SUB_CONNECTIONS || limits.pendingOpens > MAX_PENDING_OPENS) {
    throw new RangeError(`at most ${MAX_SUB_CONNECTIONS} sub-connections, and ${MAX_PENDING_OPENS} pending opens`)
  }
  return limits
}

/** Bytes that several sessions together may hold. Each keeps a small share of its own, whatever the others take. */
export class Budget {
  readonly #bytes: number
  #used = 0

  constructor(bytes: number = Number.POSITIVE_INFINITY) {
    this.#bytes = bytes
  }

  get free(): number {
    return this.#bytes - this.#used
  }

  use(bytes: number): void {
    this.#used += bytes
  }
}
