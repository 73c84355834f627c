import type { SecureContext } from 'node:tls'
import { ProxyError } from '../core/errors.ts'
import type { VerifyCaller } from '../sockets/https-caller.ts'
import { Challenges, type ChallengeType, type Way } from './acme-challenges.ts'
import { type AcmeDns, DnsProver } from './acme-dns.ts'
import { isCertifiable, isWildcard, keyOf } from './acme-names.ts'
import { AcmeOrders, type ExternalAccount, waysFrom } from './acme-orders.ts'
import { AcmeFailure } from './acme-problems.ts'
import { type AcmeName, AcmeStore, lifeOf, type Trouble } from './acme-state.ts'
import type { NamedCertificates } from './certificates.ts'
import type { Identity } from './pem.ts'
import type { StateFolder } from './state-folder.ts'

export type { Challenges, ChallengeType, Way } from './acme-challenges.ts'
export { type AcmeDns, type DnsRecords, hookRecords } from './acme-dns.ts'
export type { LookOptions } from './acme-dns-look.ts'
export type { ExternalAccount } from './acme-orders.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
/** After a failure it is tried again so much later, doubled each time. */
const FIRST_PAUSE = MINUTE
const LONGEST_PAUSE = DAY
/** The same if nothing works with the CA: that is not the fault of names, and costs nobody a limit. */
const LONGEST_CA_PAUSE = HOUR
/** Of the orders in an hour, how many may be for names that have no certificate: nodes make up such names. */
const SHARE_OF_NEW = 3 / 4
/** Of those who wait, how many may do so for one name. */
const SHARE_OF_ONE = 1 / 4
/** Let's Encrypt lets five looks at one name fail in an hour. */
const MOST_MISSED = 5
/** How long an expired certificate of a name that is gone is kept. */
const KEPT_EXPIRED = 30 * DAY
/** Of its life, when a certificate is renewed, and how much sooner that may be. */
const RENEW_AT = 2 / 3
const JITTER = 1 / 30
/** How soon it is looked again whether one is due, in ms: others may be under way. */
const SOONEST = 5000
/** How long one order may take, in ms. */
const ORDER_TIME = 4 * MINUTE
/** The same where somebody writes into the DNS for it. */
const WILDCARD_TIME = 15 * MINUTE
const LONGEST_REASON = 1000

/** The time, and what is to be done later. */
export interface Clock {
  /** Ms since 1970. */
  now(): number
  /** Until the returned function is called. */
  after(ms: number, act: () => void): () => void
}

export type AcmeEvent =
  /** An account is made, under these terms. */
  | { readonly type: 'terms'; readonly url: string | undefined }
  | {
      readonly type: 'issued' | 'renewed'
      readonly name: string
      readonly ends: Date
      readonly by: Way | undefined
    }
  /** `again`: not before. */
  | { readonly type: 'failed'; readonly name: string; readonly reason: ProxyError; readonly again: Date }
  /** No more orders before, because there were so many. */
  | { readonly type: 'limited'; readonly name: string; readonly reason: string; readonly again: Date }
  /** A record could not be taken out of the DNS again. It stands in nobody's way. */
  | { readonly type: 'untidy'; readonly reason: ProxyError }

export interface AcmeOptions {
  /** The URL of the CA's directory. */
  readonly directory: string
  /** For whom the account is. Giving it agrees to the terms of the CA. */
  readonly email: string
  /** Whose certificate the directory has to show. Default: one that this machine trusts. */
  readonly verify?: VerifyCaller | undefined
  /** Whether a name is served here. For others nothing is ever ordered. */
  readonly isName: (name: string) => boolean
  /** The server's own name: orders for others cannot take away what it needs, and it is tried again by itself. */
  readonly own?: string | undefined
  /** Writes into the DNS: then its domain and all names directly below it share one certificate, by `dns-01`. */
  readonly dns?: AcmeDns | undefined
  /** What the CA gave for its accounts, if it gives one to nobody else. Needed once, when the account is made. */
  readonly external?: ExternalAccount | undefined
  readonly onEvent?: ((event: AcmeEvent) => void) | undefined
  /** How the CA is to look, the first first. Default: `tls-alpn-01` (port 443), then `http-01` (port 80). */
  readonly ways?: readonly ChallengeType[] | undefined
  /** Orders in an hour. Default 20; a quarter of them is for renewals and the server's own name alone. */
  readonly perHour?: number | undefined
  /** Certificates for names that had none, in a week. Default 45: Let's Encrypt's limit for a domain is 50. */
  readonly perWeek?: number | undefined
  /** Orders at once. Default 4. */
  readonly atOnce?: number | undefined
  /** How long somebody who asks for a name waits for its first certificate, in ms. Default 20,000. */
  readonly patience?: number | undefined
  /** How many may wait, a quarter of them for one name. Default 64. */
  readonly mostWaiting?: number | undefined
  readonly clock?: Clock | undefined
  /** From 0 up to 1. */
  readonly random?: (() => number) | undefined
}

/** What there is for a name; `*.example.com` is for `example.com` as well. */
export interface CertificateStatus {
  readonly name: string
  /** Of the one in use. There is none if these are undefined, or `ends` is over. */
  readonly begins?: Date | undefined
  readonly ends?: Date | undefined
  /** Why the last order came to nothing. Undefined if there is nothing wrong. */
  readonly problem?: string | undefined
}

/** Certificates of a public CA, for each name when somebody first asks for it; see `openAcme`. */
export interface Acme extends NamedCertificates {
  /** What the CA is shown when it looks. */
  readonly challenges: Challenges
  /** Orders a certificate for a name if it has none, or an old one, and nothing speaks against it. */
  want(name: string): void
  /** Whether a name has a certificate, or nothing is known that is in the way of one. */
  promises(name: string): boolean
  /** The operator has put something right: what has failed may be tried at once, as far as limits allow. */
  retry(): Promise<void>
  /** What is kept and has not expired, and what should be there and is not, by name. */
  list(): CertificateStatus[]
  /** Gives up what is under way. */
  close(): Promise<void>
}

/**
 * Opens what is kept of a CA in the state folder. Nothing is asked of the CA before a certificate is needed.
 *
 * @throws ProxyError PROXY_ERR_STATE
 */
export async function openAcme(folder: StateFolder, options: AcmeOptions): Promise<Acme> {
  const store = await AcmeStore.open(folder, options.directory)
  await store.adopt((options.clock ?? systemClock).now())
  return new Ordering(store, options)
}

class Ordering implements Acme {
  readonly challenges: Challenges = new Challenges()
  readonly #options: AcmeOptions
  readonly #store: AcmeStore
  readonly #orders: AcmeOrders
  readonly #clock: Clock
  readonly #closing = new AbortController()
  /** What was read of the kept ones. */
  readonly #identities = new Map<string, Promise<Identity | undefined>>()
  readonly #underWay = new Map<string, Promise<void>>()
  /** How much sooner than all the same a name is renewed, as a share of its life. */
  readonly #sooner = new Map<string, number>()
  /** How many wait, by name. */
  readonly #waiting = new Map<string, number>()
  /** The name of the one certificate that a domain and the names below it share. */
  readonly #wildcard: string | undefined
  #toldLimit = 0
  /** As in the state, also if that cannot be written. */
  #caTrouble: Trouble | undefined
  #cancel: (() => void) | undefined

  constructor(store: AcmeStore, options: AcmeOptions) {
    this.#store = store
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#caTrouble = store.state.trouble
    const { directory, email, external, dns, verify = { by: 'system' } } = options
    this.#wildcard = dns && `*.${dns.domain}`
    const onProblem = (reason: ProxyError): void => this.#tell({ type: 'untidy', reason })
    const prover = dns && new DnsProver(dns, { closing: this.#closing.signal, onProblem })
    this.#orders = new AcmeOrders({
      ...{ directory, email, external, verify, folder: store.folder, challenges: this.challenges, dns: prover },
      account: () => store.state.account,
      keepAccount: (account) => store.change(this.#clock.now(), undefined, { account }),
      onTerms: (url) => this.#tell({ type: 'terms', url }),
      signal: this.#closing.signal,
    })
    this.#plan()
  }

  async contextFor(host: string): Promise<SecureContext | undefined> {
    const end = performance.now() + (this.#options.patience ?? 20_000)
    const name = this.#keyOf(host)
    for (;;) {
      // Until there is one for all names, one from before does.
      const found = (await this.#kept(name)) ?? (name === host ? undefined : await this.#kept(host))
      if (found) {
        this.want(name)
        return found.context
      }
      this.want(name)
      const order = this.#underWay.get(name) ?? this.#turnFor(name)
      const left = end - performance.now()
      if (!order || left <= 0 || !this.#mayWait(name)) return undefined
      this.#wait(name, 1)
      await within(left, order)
      this.#wait(name, -1)
    }
  }

  want(host: string): void {
    const name = this.#keyOf(host)
    const entry = this.#store.nameOf(name)
    const now = this.#clock.now()
    if (this.#closing.signal.aborted || this.#underWay.has(name) || this.#renewal(entry) > now) return
    if (!this.#mayTry(entry, now)) return
    const limit = this.#limit(entry, now)
    if (limit) {
      this.#tellLimit(name, limit)
      return
    }
    if (this.#underWay.size >= this.#atOnce) return
    const order = this.#order(entry, now).finally(() => {
      this.#underWay.delete(name)
      this.#plan()
    })
    this.#underWay.set(name, order)
  }

  promises(host: string): boolean {
    const now = this.#clock.now()
    const name = this.#keyOf(host)
    const { certificate, trouble } = this.#store.nameOf(name)
    if (certificate && certificate.to > now) return true
    if (!this.#isPossible(name) || this.#caTrouble) return false
    // An order is kept as a failure from its beginning, and counted.
    return this.#underWay.has(name) || (!trouble && !this.#limit({ name }, now))
  }

  async retry(): Promise<void> {
    this.#caTrouble = undefined
    await this.#store.forgive(this.#clock.now())
    this.#plan()
  }

  list(): CertificateStatus[] {
    const now = this.#clock.now()
    return [...this.#store.names]
      .flatMap((entry): CertificateStatus[] => {
        const { name, certificate, trouble } = entry
        const problem = trouble?.reason ?? (this.#renewal(entry) <= now ? this.#caTrouble?.reason : undefined)
        if (certificate === undefined ? problem === undefined : certificate.to <= now && problem === undefined)
          return []
        if ((certificate === undefined || certificate.to <= now) && !this.#serves(name)) return []
        const life = certificate && { begins: new Date(certificate.from), ends: new Date(certificate.to) }
        return [{ name, ...life, ...(problem === undefined ? {} : { problem }) }]
      })
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#cancel?.()
    await Promise.all(this.#underWay.values())
    this.#cancel?.()
    this.#orders.close()
  }

  get #atOnce(): number {
    return this.#options.atOnce ?? 4
  }

  // --- what may be ordered ---

  #keyOf(host: string): string {
    return keyOf(host, this.#options.dns?.domain)
  }

  /** Whether there is ever to be a certificate of this name; those that have another one from before are over. */
  #serves(name: string): boolean {
    if (name === this.#wildcard) return true
    return !isWildcard(name) && this.#keyOf(name) === name && this.#options.isName(name)
  }

  #isPossible(name: string): boolean {
    return isCertifiable(name) && (!isWildcard(name) || name === this.#wildcard)
  }

  /** Nothing speaks against it but what others have ordered. */
  #mayTry({ name, trouble }: AcmeName, now: number): boolean {
    return isOver(trouble, now) && isOver(this.#caTrouble, now) && this.#isPossible(name) && this.#serves(name)
  }

  /** What a name waits for that could be ordered, and cannot because of others. */
  #turnFor(name: string): Promise<unknown> | undefined {
    const now = this.#clock.now()
    const entry = this.#store.nameOf(name)
    const waits = this.#underWay.size >= this.#atOnce && this.#mayTry(entry, now) && !this.#limit(entry, now)
    return waits ? Promise.race(this.#underWay.values()) : undefined
  }

  #mayWait(name: string): boolean {
    const { mostWaiting = 64 } = this.#options
    const all = [...this.#waiting.values()].reduce((sum, count) => sum + count, 0)
    return all < mostWaiting && (this.#waiting.get(name) ?? 0) < Math.ceil(mostWaiting * SHARE_OF_ONE)
  }

  #wait(name: string, more: 1 | -1): void {
    const count = (this.#waiting.get(name) ?? 0) + more
    if (count === 0) this.#waiting.delete(name)
    else this.#waiting.set(name, count)
  }

  #limit(
    { name, certificate }: AcmeName,
    now: number,
  ): { readonly reason: string; readonly again: number } | undefined {
    const { perHour = 20, perWeek = 45 } = this.#options
    const { orders, first } = this.#store.state
    const inHour = orders.filter((at) => at > now - HOUR && at <= now)
    const inWeek = first.filter((at) => at > now - 7 * DAY && at <= now)
    // Renewals are not what CAs limit by domain; and whoever makes up names must not keep them from what they need.
    const isNew = !certificate && !this.#isOwn(name)
    const most = isNew ? Math.ceil(perHour * SHARE_OF_NEW) : perHour
    if (inHour.length >= most) {
      const oldest = inHour.at(-most) ?? now
      return { reason: `${inHour.length} certificates were ordered within an hour`, again: oldest + HOUR }
    }
    if (!isNew || inWeek.length < perWeek) return undefined
    return { reason: `${inWeek.length} names got their first within a week`, again: (inWeek[0] ?? now) + 7 * DAY }
  }

  /** When there is to be another certificate. */
  #renewal({ name, certificate }: AcmeName): number {
    if (!certificate) return 0
    const { from, to } = certificate
    const sooner = this.#sooner.get(name) ?? (this.#options.random ?? Math.random)() * JITTER
    this.#sooner.set(name, sooner)
    return Math.floor(from + (to - from) * (RENEW_AT - sooner))
  }

  // --- orders ---

  /** Never rejects. */
  async #order(entry: AcmeName, now: number): Promise<void> {
    const { name } = entry
    const missed = (entry.missed ?? []).filter((at) => at > now - HOUR && at <= now)
    const trouble = after(entry.trouble, now, LONGEST_PAUSE)
    const known: readonly Way[] = isWildcard(name) ? ['dns-01'] : waysFrom(this.#options.ways, this.#store.state.way)
    const ways = known.slice(0, MOST_MISSED - missed.length)
    try {
      if (ways.length === 0) throw new AcmeFailure(`${MOST_MISSED} looks at ${name} have failed`, { scope: 'name' })
      // Kept as a failure before it can be one: whoever starts again and again must not order again and again.
      const orders = [...this.#store.state.orders, now]
      await this.#store.change(now, { ...entry, missed, trouble }, { orders })
      const signal = AbortSignal.any([
        this.#closing.signal,
        AbortSignal.timeout(isWildcard(name) ? WILDCARD_TIME : ORDER_TIME),
      ])
      const onMissed = (): void => void missed.push(now)
      const { key, chain, by } = await this.#orders.order(name, ways, { signal, onMissed })
      const text = `${key}${chain}`
      const identity = await this.#store.check(name, text)
      await this.#store.write(name, text)
      this.#identities.set(name, Promise.resolve(identity))
      await this.#issued(entry, lifeOf(identity.leaf), { by, trouble })
    } catch (error) {
      if (!this.#closing.signal.aborted) await this.#failed({ ...entry, missed }, trouble, error)
    }
  }

  async #issued(
    entry: AcmeName,
    certificate: { readonly from: number; readonly to: number },
    about: { readonly by: Way | undefined; readonly trouble: Trouble },
  ): Promise<void> {
    const { name } = entry
    const { by } = about
    const { state } = this.#store
    const now = this.#clock.now()
    this.#caTrouble = undefined
    this.#sooner.delete(name)
    const first = entry.certificate ? state.first : [...state.first, now]
    // A clock that is wrong, here or there, must not have it renewed again and again.
    const isOld = this.#renewal({ name, certificate }) <= now
    const reason = new AcmeFailure('the new certificate is old already: is the clock of this machine right?', {
      scope: 'name',
    })
    const trouble = isOld ? { ...about.trouble, reason: reason.message } : undefined
    const way = by === undefined || by === 'dns-01' ? state.way : by
    await this.#store.change(now, { name, certificate, trouble }, { first, way, trouble: undefined })
    const ends = new Date(certificate.to)
    this.#tell({ type: entry.certificate ? 'renewed' : 'issued', name, ends, by })
    if (isOld) this.#tell({ type: 'failed', name, reason, again: new Date(about.trouble.again) })
  }

  async #failed(entry: AcmeName, trouble: Trouble, error: unknown): Promise<void> {
    const { name, missed = [] } = entry
    const now = this.#clock.now()
    const failure =
      error instanceof ProxyError ? error : new AcmeFailure(messageOf(error), { scope: 'name', cause: error })
    const ofCa = failure instanceof AcmeFailure ? failure.scope === 'ca' : true
    const wait = failure instanceof AcmeFailure ? Math.min(failure.retryAfter ?? 0, LONGEST_PAUSE) : 0
    const before = this.#caTrouble
    // Several orders may fail at once because of one thing.
    const caTrouble = before && !isOver(before, now) ? before : after(before, now, LONGEST_CA_PAUSE)
    const mine = ofCa ? caTrouble : trouble
    const oldest = missed.length >= MOST_MISSED ? (missed[0] ?? now) + HOUR : 0
    const again = Math.max(mine.again, now + wait, oldest)
    const reason = failure.message.slice(0, LONGEST_REASON)
    if (ofCa) this.#caTrouble = { ...mine, again, reason }
    // The others first then: one name that the CA does not want must not hold up all again and again.
    const behind = Math.min(again + Math.max(0, trouble.again - now), now + LONGEST_PAUSE + HOUR)
    const mayBeName = failure instanceof AcmeFailure && failure.perhapsName
    const ofName = { ...entry, missed, ...(mayBeName ? { trouble: { ...trouble, again: behind, reason } } : {}) }
    const kept = ofCa
      ? this.#store.change(now, ofName, { trouble: { ...mine, again, reason } })
      : this.#store.change(now, { ...entry, missed, trouble: { ...mine, again, reason } })
    // If that cannot be written, what was kept before the order holds.
    await kept.catch(() => {})
    this.#tell({ type: 'failed', name, reason: failure, again: new Date(again) })
  }

  // --- renewal ---

  /** Looks again when the next certificate is due. */
  #plan(): void {
    this.#cancel?.()
    if (this.#closing.signal.aborted) return
    const now = this.#clock.now()
    // At least so often: names come and go, and clocks are put right.
    let next = now + HOUR
    for (const entry of this.#store.names) {
      if (!this.#isWanted(entry) || this.#underWay.has(entry.name)) continue
      const again = Math.max(
        entry.trouble?.again ?? 0,
        this.#caTrouble?.again ?? 0,
        this.#limit(entry, now)?.again ?? 0,
      )
      next = Math.min(next, Math.max(this.#renewal(entry), again))
    }
    this.#cancel = this.#clock.after(Math.max(SOONEST, next - now), () => void this.#look())
  }

  async #look(): Promise<void> {
    const now = this.#clock.now()
    for (const entry of [...this.#store.names]) {
      if (this.#isWanted(entry)) this.want(entry.name)
      else if (this.#isGone(entry, now)) await this.#forget(entry.name, now)
    }
    this.#plan()
  }

  /** Whether it is had without being asked for: it is there already, or the server's own. */
  #isWanted({ name, certificate }: AcmeName): boolean {
    return (certificate !== undefined || this.#isOwn(name)) && this.#serves(name)
  }

  #isOwn(name: string): boolean {
    return name === this.#options.own || name === this.#wildcard
  }

  #isGone({ name, certificate, trouble }: AcmeName, now: number): boolean {
    return (
      !this.#underWay.has(name) &&
      !this.#serves(name) &&
      (certificate?.to ?? 0) < now - KEPT_EXPIRED &&
      (trouble?.again ?? 0) < now - LONGEST_PAUSE
    )
  }

  async #forget(name: string, now: number): Promise<void> {
    this.#identities.delete(name)
    this.#sooner.delete(name)
    await this.#store.change(now, { name }).catch(() => {})
    await this.#store.remove(name).catch(() => {})
  }

  // --- what is kept ---

  async #kept(name: string): Promise<Identity | undefined> {
    const { certificate } = this.#store.nameOf(name)
    if (!certificate || certificate.to <= this.#clock.now()) return undefined
    const reading = this.#identities.get(name) ?? this.#store.read(name)
    this.#identities.set(name, reading)
    try {
      const identity = await reading
      // Its file was damaged or deleted: as if there had never been one.
      if (!identity && this.#identities.get(name) === reading) await this.#forget(name, this.#clock.now())
      return identity
    } catch {
      // As when too many files are open: the next who asks may have it.
      if (this.#identities.get(name) === reading) this.#identities.delete(name)
      return undefined
    }
  }

  #tellLimit(name: string, { reason, again }: { reason: string; again: number }): void {
    const now = this.#clock.now()
    if (now < this.#toldLimit) return
    this.#toldLimit = now + HOUR
    this.#tell({ type: 'limited', name, reason, again: new Date(again) })
  }

  #tell(event: AcmeEvent): void {
    this.#options.onEvent?.(event)
  }
}

const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, act) {
    const timer = setTimeout(act, Math.min(ms, DAY)).unref()
    return () => clearTimeout(timer)
  },
}

/** One failure more, and when it is tried again. */
function after(trouble: Trouble | undefined, now: number, longest: number): Trouble {
  const tries = (trouble?.tries ?? 0) + 1
  return { ...trouble, tries, again: now + Math.min(longest, FIRST_PAUSE * 2 ** Math.min(tries - 1, 30)) }
}

/** Whether it may be tried again. What is further away than any pause is from a clock that was wrong. */
function isOver(trouble: Trouble | undefined, now: number): boolean {
  return trouble === undefined || trouble.again <= now || trouble.again > now + LONGEST_PAUSE + HOUR
}

function messageOf(error: unknown): string {
  return `the certificate is no good: ${error instanceof Error ? error.message : String(error)}`
}

/** Resolves when it has settled, or the time is over. */
async function within(ms: number, done: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([done.catch(() => {}), late])
  clearTimeout(timer)
}
