import { createHmac, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { customerOf, ipOf } from '../sockets/ip.ts'
import { Turns } from '../sockets/turns.ts'
import { formatPasswordHash, memoryOf, type PasswordHash, readPasswordHash } from './password-hash.ts'

/** 32 MiB and some 100 ms for each try. */
const COST = { ln: 15, r: 8, p: 1 }
const SALT_BYTES = 16
const HASH_BYTES = 32
/** Hashes that are made at once: Node.js has four threads for this, for files and for names. */
const AT_ONCE = 2
const MOST_WAITING = 64
/** Wrong passwords that one visitor may try in a row, and after how long there is another try, in ms. */
const TRIES = 10
const TRY_EVERY = 6000
/**
 * How many more may be refused before those are refused too who were let in from there: else whoever has no tries left could
 * find out by what is not refused, as often as they like.
 */
const OVERDRAFT = 20
const MOST_VISITORS = 10_000
/** What was right, or wrong, is known again without the hash: so many, for so long after each use, in ms. */
const MOST_KNOWN = 1000
const KNOWN_FOR = 300_000

/** What a visitor is answered: nothing if let in, else the status, and when to come again, in s. */
export type Verdict = 'in' | { readonly status: 401 } | { readonly status: 429 | 503; readonly after: number }

const BUSY: Verdict = { status: 503, after: 2 }

interface Tries {
  left: number
  at: number
}

export interface WebAuthOptions {
  /** A clock in ms that never goes back. Default `performance.now`. */
  readonly now?: (() => number) | undefined
}

/**
 * What stands for a password in `HttpSettings.basicAuth`, salted. Passwords that look alike count as one (Unicode's NFC).
 *
 * @throws Error if the password has a control character (RFC 7617 section 2), or none at all
 */
export async function hashPassword(password: string): Promise<string> {
  if (password === '' || /\p{Cc}/u.test(password)) throw new Error('a password is not empty, and one line of text')
  const how = { ...COST, salt: randomBytes(SALT_BYTES) }
  return formatPasswordHash({ ...how, hash: await derive(password.normalize('NFC'), how, HASH_BYTES) })
}

/** Basic authentication (RFC 7617, UTF-8) in front of targets. */
export class WebAuth {
  readonly #now: () => number
  readonly #key = randomBytes(32)
  /** Passwords of visitors that are right, and wrong. */
  readonly #right: Known
  readonly #wrong: Known
  /** Checks, by digest: a page asks for all its parts at once. */
  readonly #underWay = new Map<string, Promise<Verdict>>()
  /** By visitor; the one who tried last comes last. */
  readonly #tries = new Map<string, Tries>()
  readonly #turns = new Turns(AT_ONCE)

  constructor({ now = () => performance.now() }: WebAuthOptions = {}) {
    this.#now = now
    this.#right = new Known(now)
    this.#wrong = new Known(now)
  }

  /** `authorization`: the header. `users`: hashes by name. `remote`: whose try it is, as in `Link.remote`. */
  check(
    authorization: string | undefined,
    users: { readonly [name: string]: string },
    remote: string | undefined,
  ): Verdict | Promise<Verdict> {
    const [name, password] = readBasic(authorization) ?? []
    if (name === undefined || password === undefined) return { status: 401 }
    const kept = Object.hasOwn(users, name) ? users[name] : undefined
    const visitor = visitorOf(remote)
    // Known for this visitor alone: strangers learn nothing from what others know.
    const digest = this.#digest([name, password, kept ?? '', visitor])
    // A program that does not hear of a new password is not guessing.
    if (this.#wrong.has(digest)) return { status: 401 }
    const left = this.#leftOf(visitor)
    if (this.#right.has(digest)) return left >= 1 - OVERDRAFT ? 'in' : late(1 - OVERDRAFT - left)
    const underWay = this.#underWay.get(digest)
    if (underWay) return underWay
    if (left >= 1 && this.#turns.waiting >= MOST_WAITING) return BUSY
    // What is under way counts as wrong until it is known better: many at once are no way around.
    if (left >= 1 - OVERDRAFT) this.#take(visitor, left)
    if (left < 1) return late(1 - left)
    const checked = this.#check(password, kept, users).then((right): Verdict => {
      this.#underWay.delete(digest)
      if (right === false) {
        this.#wrong.add(digest)
        return { status: 401 }
      }
      this.#giveBack(visitor)
      if (right === undefined) return BUSY
      this.#right.add(digest)
      return 'in'
    })
    this.#underWay.set(digest, checked)
    return checked
  }

  /** A name that nobody has takes as long as one that somebody has. Undefined where there is no memory for it. */
  async #check(
    password: string,
    kept: string | undefined,
    users: { readonly [name: string]: string },
  ): Promise<boolean | undefined> {
    const hash = readPasswordHash(kept ?? Object.values(users)[0] ?? '')
    if (!hash) return false
    try {
      const derived = await this.#turns.take(() => derive(password, hash, hash.hash.length))
      return timingSafeEqual(derived, hash.hash) && kept !== undefined
    } catch {
      return undefined
    }
  }

  #digest(parts: readonly string[]): string {
    return createHmac('sha256', this.#key).update(JSON.stringify(parts)).digest('base64')
  }

  #leftOf(visitor: string): number {
    const tries = this.#tries.get(visitor)
    return tries ? Math.min(TRIES, tries.left + (this.#now() - tries.at) / TRY_EVERY) : TRIES
  }

  #take(visitor: string, left: number): void {
    this.#tries.delete(visitor)
    this.#tries.set(visitor, { left: left - 1, at: this.#now() })
    trim(this.#tries, MOST_VISITORS)
  }

  #giveBack(visitor: string): void {
    const tries = this.#tries.get(visitor)
    if (!tries) return
    tries.left++
    if (tries.left >= TRIES) this.#tries.delete(visitor)
  }
}

/** What is known for a while after each use; what was used last comes last. */
class Known {
  readonly #now: () => number
  readonly #until = new Map<string, number>()

  constructor(now: () => number) {
    this.#now = now
  }

  has(digest: string): boolean {
    const until = this.#until.get(digest)
    if (until === undefined) return false
    this.#until.delete(digest)
    if (until < this.#now()) return false
    this.add(digest)
    return true
  }

  add(digest: string): void {
    this.#until.set(digest, this.#now() + KNOWN_FOR)
    trim(this.#until, MOST_KNOWN)
  }
}

/** `tries`: how many are missing. */
function late(tries: number): Verdict {
  return { status: 429, after: Math.ceil((tries * TRY_EVERY) / 1000) }
}

/** RFC 7617 section 2: a name without a colon, and a password. Undefined for anything else. */
function readBasic(authorization: string | undefined): [name: string, password: string] | undefined {
  const [, encoded] = /^basic +([A-Za-z0-9+/_-]+={0,2}) *$/i.exec(authorization ?? '') ?? []
  if (encoded === undefined) return undefined
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(encoded, 'base64'))
    const [, name, password] = /^([^:\p{Cc}]*):(\P{Cc}*)$/u.exec(text.normalize('NFC')) ?? []
    return name === undefined || password === undefined ? undefined : [name, password]
  } catch {
    return undefined
  }
}

/** Those without an address are one: whoever else is there cannot be told from them. */
function visitorOf(remote: string | undefined): string {
  const ip = ipOf(remote)
  return ip ? customerOf(ip) : ''
}

function trim(map: Map<string, unknown>, most: number): void {
  for (const oldest of map.keys()) {
    if (map.size <= most) break
    map.delete(oldest)
  }
}

function derive(password: string, { ln, r, p, salt }: Omit<PasswordHash, 'hash'>, bytes: number): Promise<Buffer> {
  const how = { N: 2 ** ln, r, p, maxmem: 2 * memoryOf({ ln, r }) }
  return new Promise((resolve, reject) => {
    scrypt(password, salt, bytes, how, (error, derived) => (error ? reject(error) : resolve(derived)))
  })
}
