import { AsyncLocalStorage } from 'node:async_hooks'
import { generateKeyPair } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Authorization, Client, Order } from 'acme-client'
import { ProxyError } from '../core/errors.ts'
import { HttpsCaller, type VerifyCaller } from '../sockets/https-caller.ts'
import { Lazy } from '../sockets/lazy.ts'
import { CHALLENGE_TYPES, type Challenges, type ChallengeType, type Way } from './acme-challenges.ts'
import type { DnsProver } from './acme-dns.ts'
import { namesOf } from './acme-names.ts'
import {
  AcmeFailure,
  type AcmeProblem,
  explain,
  kindOf,
  notUnderstood,
  problemIn,
  readProblem,
  readRetryAfter,
  type Step,
} from './acme-problems.ts'
import type { StateFolder } from './state-folder.ts'

const ACCOUNT_KEY_FILE = 'account-key.pem'
const PATIENCE = 60_000
const FIRST_LOOK = 200
const LONGEST_BETWEEN_LOOKS = 3000
/** What the CA finds wrong that looking in another way does not change. */
const NO_WAY_ROUND = ['dns', 'caa']

/** What a CA answers to an account that it does not know (any more), or whose key is another. */
const LOST = ['accountDoesNotExist', 'unauthorized']

const NOT_FOUND = 'urn:ietf:params:acme:error:unauthorized'

/** The key of an account somewhere else at the CA, to which the new one is bound (RFC 8555 section 7.3.4). */
export interface ExternalAccount {
  readonly kid: string
  /** As the CA tells it, in base64url. */
  readonly hmacKey: string
}

/** Whom the CA knows us as. */
export interface Account {
  readonly url: string
  readonly email: string
}

export interface OrdersOptions {
  /** The URL of the CA's directory (RFC 8555 section 7.1.1). */
  readonly directory: string
  readonly email: string
  readonly verify: VerifyCaller
  /** Where the account's key is kept. */
  readonly folder: StateFolder
  readonly challenges: Challenges
  /** Needed for wildcards. */
  readonly dns?: DnsProver | undefined
  /** Needed for an account at some CAs. */
  readonly external?: ExternalAccount | undefined
  readonly account: () => Account | undefined
  readonly keepAccount: (account: Account | undefined) => Promise<void>
  /** An account is about to be made, which agrees to these terms. */
  readonly onTerms: (url: string | undefined) => void
  /** Gives up what is under way. */
  readonly signal: AbortSignal
  /** How long a CA may take to look, and then to sign, in ms. Default 60,000. */
  readonly patience?: number | undefined
}

export interface Issued {
  /** Key and chain in PEM. */
  readonly key: string
  readonly chain: string
  /** How the CA has looked; undefined if it did not have to. */
  readonly by: Way | undefined
}

export interface OrderOptions {
  readonly signal: AbortSignal
  /** The CA has looked, and not seen what it wanted to. CAs count that. */
  readonly onMissed?: (() => void) | undefined
}

type Acme = typeof import('acme-client')

/** One order, or the opening of the account, and what became of its last request. */
interface Call extends OrderOptions {
  step: Step
  problem: AcmeProblem | undefined
  retryAfter: number | undefined
}

/** One thing that the CA wants to see. */
interface Wanted {
  readonly authorization: Authorization
  readonly challenge: Authorization['challenges'][number]
  readonly answer: string
}

/** Gets certificates from one CA, under one account. What speaks ACME is loaded with the first order. */
export class AcmeOrders {
  readonly #options: OrdersOptions
  readonly #caller: HttpsCaller
  /** Whose call a request belongs to: the client has one way out for all of a process. */
  readonly #calls = new AsyncLocalStorage<Call>()
  readonly #acme = new Lazy<Acme>(() => this.#load())
  readonly #client = new Lazy<Client>(() => this.#openAccount())
  #eject: (() => void) | undefined
  #closed = false

  constructor(options: OrdersOptions) {
    this.#options = options
    this.#caller = new HttpsCaller(options.verify)
  }

  /**
   * Orders a certificate for one name. The CA looks in the first of the ways; if it does not see what it wants, in the next.
   * One for `*.NAME` is for NAME as well, and by `dns-01` only.
   *
   * @throws AcmeFailure
   */
  async order(name: string, ways: readonly Way[], { signal, onMissed }: OrderOptions): Promise<Issued> {
    return await this.#inCall({ signal, onMissed, step: 'look' }, name, (call) => this.#order(name, ways, call))
  }

  close(): void {
    this.#closed = true
    this.#eject?.()
    this.#caller.close()
  }

  async #inCall<T>(
    about: OrderOptions & { readonly step: Step },
    name: string,
    act: (call: Call) => Promise<T>,
  ): Promise<T> {
    const call: Call = { ...about, problem: undefined, retryAfter: undefined }
    try {
      return await this.#calls.run(call, () => act(call))
    } catch (error) {
      throw await this.#failureOf(error, call, name)
    }
  }

  async #order(name: string, ways: readonly Way[], call: Call): Promise<Issued> {
    const [acme, client] = await Promise.all([this.#acme.get(), this.#client.get()])
    for (const [i, way] of ways.entries()) {
      try {
        return await this.#orderBy(acme, client, name, way, call)
      } catch (error) {
        // An order in which one look has failed is over; the next way takes another.
        if (i === ways.length - 1 || !(error instanceof AcmeFailure) || !error.anotherWay) throw error
      }
    }
    throw new AcmeFailure(`there is no way to show that ${name} is here`, { scope: 'name' })
  }

  async #orderBy(acme: Acme, client: Client, name: string, way: Way, call: Call): Promise<Issued> {
    const names = namesOf(name)
    call.step = 'order'
    const order = await client.createOrder({ identifiers: names.map((value) => ({ type: 'dns', value })) })
    call.step = 'look'
    const open = (await client.getAuthorizations(order)).filter(({ status }) => status !== 'valid')
    if (open.length > 0) await this.#prove(acme, client, { order, open, name, way, call })
    const by = open.length > 0 ? way : undefined
    const key = await newKey()
    const [, csr] = await acme.crypto.createCsr({ altNames: [...names] }, key)
    const signed = await this.#signed(client, await client.finalizeOrder(order, csr), name, call.signal)
    return { key, chain: await client.getCertificate(signed), by }
  }

  /** Shows the CA what it wants to see, until it has looked. */
  async #prove(
    acme: Acme,
    client: Client,
    about: { order: Order; open: readonly Authorization[]; name: string; way: Way; call: Call },
  ): Promise<void> {
    const { order, open, name, way, call } = about
    const wanted: Wanted[] = []
    for (const authorization of open) {
      const challenge = authorization.challenges.find(({ type }) => type === way)
      if (!challenge) {
        const message = `the CA does not look by ${way} at ${name}`
        throw new AcmeFailure(message, { scope: 'name', anotherWay: true })
      }
      const answer = await client.getChallengeKeyAuthorization(challenge)
      wanted.push({ authorization, challenge, answer })
    }
    const withdraw = await this.#show(acme, wanted, { name, way, signal: call.signal })
    try {
      for (const { authorization, challenge } of wanted) {
        await client.completeChallenge(challenge)
        await this.#looked(client, { order, url: authorization.url, name, way, call })
      }
    } finally {
      await withdraw()
    }
  }

  /** Until the returned function is called. */
  async #show(
    acme: Acme,
    wanted: readonly Wanted[],
    { name, way, signal }: { name: string; way: Way; signal: AbortSignal },
  ): Promise<() => unknown> {
    const { challenges, dns } = this.#options
    if (way === 'dns-01') {
      if (!dns) throw new AcmeFailure(`nobody can write records for ${name} into the DNS`, { scope: 'name' })
      const proofs = wanted.map(({ authorization, answer }) => ({
        host: authorization.identifier.value,
        value: answer,
      }))
      return await dns.show(proofs, signal)
    }
    // There is one: only a wildcard is ordered with another name.
    const offers = await Promise.all(
      wanted.map(async ({ authorization, challenge, answer }) => {
        if (way === 'http-01') return challenges.offerToken(challenge.token, answer)
        const [key, cert] = await acme.crypto.createAlpnCertificate(authorization, answer, await newKey())
        const { createSecureContext } = await import('node:tls')
        return challenges.offerContext(name, createSecureContext({ key, cert, minVersion: 'TLSv1.2' }))
      }),
    )
    return () => {
      for (const withdraw of offers) withdraw()
    }
  }

  /** The CA has looked, and found what it wanted. */
  async #looked(
    client: Client,
    about: { order: Order; url: string; name: string; way: Way; call: Call },
  ): Promise<void> {
    const { order, url, name, way, call } = about
    // Perhaps it does not get through here, and waits itself; it may in another way.
    const late = new AcmeFailure(`the CA has not looked at ${name} in time`, { scope: 'name', anotherWay: true })
    await this.#until(call.signal, late, async () => {
      const now = (await client.getAuthorizations(order)).find((one) => one.url === url)
      if (now === undefined || now.status === 'pending') return undefined
      if (now.status === 'valid') return now
      call.onMissed?.()
      const failed = now.challenges.find(({ type }) => type === way)
      const problem = problemIn(failed && 'error' in failed ? failed.error : undefined) ?? { detail: now.status }
      const anotherWay = !NO_WAY_ROUND.includes(kindOf(problem) ?? '')
      throw explain({ ...problem, type: problem.type ?? NOT_FOUND }, name, { anotherWay })
    })
  }

  async #signed(client: Client, order: Order, name: string, signal: AbortSignal): Promise<Order> {
    let current = order
    const late = new AcmeFailure(`the CA has not signed the certificate for ${name} in time`, { scope: 'name' })
    return await this.#until(signal, late, async () => {
      if (current.status === 'valid') return current
      if (current.status === 'invalid') {
        throw explain(problemIn('error' in current ? current.error : undefined) ?? { detail: 'invalid' }, name)
      }
      current = await client.getOrder(current)
      return current.status === 'valid' ? current : undefined
    })
  }

  /** Looks again and again, ever less often. */
  async #until<T>(signal: AbortSignal, late: AcmeFailure, look: () => Promise<T | undefined>): Promise<T> {
    const end = performance.now() + (this.#options.patience ?? PATIENCE)
    for (let wait = FIRST_LOOK; ; wait = Math.min(wait * 1.5, LONGEST_BETWEEN_LOOKS)) {
      const found = await look()
      if (found !== undefined) return found
      if (performance.now() > end) throw late
      await delay(wait, undefined, { signal })
    }
  }

  // --- the account ---

  /** For all orders that wait for it: it is no part of the one that came first, and what is wrong with it concerns all. */
  #openAccount(): Promise<Client> {
    const { signal, patience = PATIENCE } = this.#options
    const about = { signal: AbortSignal.any([signal, AbortSignal.timeout(patience)]), step: 'account' } as const
    return this.#inCall(about, '', () => this.#makeClient())
  }

  async #makeClient(): Promise<Client> {
    const { directory, email, external, account, keepAccount, onTerms } = this.#options
    const acme = await this.#acme.get()
    const accountKey = await this.#accountKey()
    const kept = account()
    const contact = [`mailto:${email}`]
    const url = kept === undefined ? {} : { accountUrl: kept.url }
    const binding = external === undefined ? {} : { externalAccountBinding: external }
    const client = new acme.Client({ directoryUrl: directory, accountKey, ...url, ...binding })
    if (!kept) {
      onTerms((await client.getTermsOfServiceUrl()) ?? undefined)
      await client.createAccount({ termsOfServiceAgreed: true, contact })
    } else if (kept.email !== email) {
      await client.updateAccount({ contact })
    }
    if (kept?.email !== email) await keepAccount({ url: client.getAccountUrl(), email })
    return client
  }

  async #accountKey(): Promise<string> {
    const { folder, account, keepAccount } = this.#options
    if (!(await folder.read(ACCOUNT_KEY_FILE))) {
      // Nobody gets into an account without its key. Forgotten first: no crash may leave it beside another one's.
      if (account()) await keepAccount(undefined)
      await folder.create(ACCOUNT_KEY_FILE, await newKey())
    }
    return (await folder.read(ACCOUNT_KEY_FILE))?.text ?? ''
  }

  // --- how it asks ---

  async #load(): Promise<Acme> {
    const { default: acme } = await import('acme-client')
    this.#throughCaller(acme)
    return acme
  }

  /**
   * The client asks through the one `axios` that it exports. Of the requests of our orders, and of no others, we are the
   * adapter: so they know the CA that the operator gave, end in time, and are not sent again behind our back.
   */
  #throughCaller(acme: Acme): void {
    const { request } = acme.axios.interceptors
    const id = request.use((config) => {
      const call = this.#calls.getStore()
      if (!call) return config
      config.adapter = async (config) => {
        const { signal } = call
        const { method = 'get', url = '', data } = config
        const headers = Object.fromEntries(
          Object.entries(config.headers.toJSON()).map(([name, value]) => [name, String(value)]),
        )
        const body = data === undefined || data === null ? undefined : String(data)
        const answer = await this.#caller.call({ method: method.toUpperCase(), url, headers, body, signal })
        call.problem = answer.status >= 400 ? (readProblem(answer.text) ?? { detail: `${answer.status}` }) : undefined
        call.retryAfter = readRetryAfter(answer.headers['retry-after'], Date.now())
        const kept = Object.entries(answer.headers).map(([name, value]) => [name, String(value)])
        return { data: answer.text, status: answer.status, statusText: '', headers: Object.fromEntries(kept), config }
      }
      return config
    })
    this.#eject = () => request.eject(id)
    if (this.#closed) this.#eject()
  }

  async #failureOf(error: unknown, call: Call, name: string): Promise<ProxyError> {
    if (error instanceof AcmeFailure) return error
    if (call.signal.aborted) return new AcmeFailure('the CA took too long', { scope: 'ca', cause: error })
    // What is wrong with this machine, as with its disk.
    if (error instanceof ProxyError && error.code === 'PROXY_ERR_STATE') return error
    if (error instanceof ProxyError) {
      const message = `the CA cannot be asked: ${error.message}`
      return new AcmeFailure(message, { scope: 'ca', cause: error })
    }
    if (call.problem) {
      const { step, retryAfter } = call
      if (LOST.includes(kindOf(call.problem) ?? '')) {
        this.#client.forget()
        await this.#options.keepAccount(undefined).catch(() => {})
      }
      return explain(call.problem, name, { step, retryAfter, cause: error })
    }
    // The client keeps the directory for a day, whatever it is.
    this.#client.forget()
    return notUnderstood(error)
  }
}

/** The ways in the order in which they are tried: first the one that is known to work. */
export function waysFrom(
  ways: readonly ChallengeType[] = CHALLENGE_TYPES,
  known: ChallengeType | undefined,
): readonly ChallengeType[] {
  if (known === undefined || !ways.includes(known)) return ways
  return [known, ...ways.filter((way) => way !== known)]
}

function newKey(): Promise<string> {
  return new Promise((resolve, reject) => {
    generateKeyPair('ec', { namedCurve: 'P-256' }, (error, _publicKey, privateKey) => {
      if (error) reject(error)
      else resolve(String(privateKey.export({ type: 'pkcs8', format: 'pem' })))
    })
  })
}
