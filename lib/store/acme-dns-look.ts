import type { Resolver } from 'node:dns/promises'
import { isIP } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { AcmeFailure, onOneLine } from './acme-problems.ts'

const TIMEOUT = 2000
/** How often a question is sent. */
const TRIES = 2
const PATIENCE = 180_000
const FIRST_LOOK = 250
const LONGEST_BETWEEN_LOOKS = 5000
const MOST_SERVERS = 8
const MOST_ALIASES = 8
const NAME = /^[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?$/i
/** What says that there is nothing, and not that nobody knows. */
const NOTHING = ['ENODATA', 'ENOTFOUND']

export interface LookOptions {
  /** Who is asked for the name servers of a zone, as `address[:port]`. Default: whom this machine asks. */
  readonly resolvers?: readonly string[] | undefined
  /** The port of these name servers. Default 53. */
  readonly port?: number | undefined
  /** How long records may take to be seen, in ms. Default 180,000. */
  readonly patience?: number | undefined
  /** How long one question may wait for its answer, in ms. Default 2,000. */
  readonly timeout?: number | undefined
}

interface NameServer {
  readonly name: string
  readonly address: string
}

/**
 * Looks for TXT records where a CA does: at the name servers of the zone itself. No cache in between remembers that a record
 * was not there a moment ago, neither ours nor, since it has not asked yet, that of the CA.
 */
export class DnsLook {
  readonly #options: LookOptions

  constructor(options: LookOptions = {}) {
    this.#options = options
  }

  /**
   * Where the records of a name stand: behind its aliases (CNAME).
   *
   * @throws AcmeFailure
   */
  async target(name: string, signal: AbortSignal): Promise<string> {
    let target = name
    for (let i = 0; i < MOST_ALIASES; i++) {
      const [next] = (await this.#ask('CNAME', target, signal)) ?? []
      if (next === undefined) return target
      // A program will be called with it.
      if (!NAME.test(next)) throw failed(`${target} is an alias (CNAME) of what is no name: ${onOneLine(next)}`)
      target = next
    }
    throw failed(`${name} is an alias (CNAME) of too many others`)
  }

  /**
   * Waits until each name server that answers has all of these values.
   *
   * @throws AcmeFailure
   */
  async until(name: string, values: readonly string[], signal: AbortSignal): Promise<void> {
    const { patience = PATIENCE } = this.#options
    const end = performance.now() + patience
    const servers = await this.#serversOf(name, signal)
    for (let wait = FIRST_LOOK; ; wait = Math.min(wait * 1.5, LONGEST_BETWEEN_LOOKS)) {
      const found = await Promise.all(servers.map((server) => this.#valuesAt(server, name, signal)))
      const lacking = found.findIndex((found) => found !== undefined && !values.every((value) => found.includes(value)))
      const isSilent = found.every((values) => values === undefined)
      if (!isSilent && lacking < 0) return
      if (signal.aborted || performance.now() > end) {
        const within = `within ${Math.round(patience / 1000)} s`
        if (isSilent) {
          const names = servers.map(({ name }) => name).join(', ')
          throw failed(`${names} did not answer ${within}: --acme-dns-wait waits without looking there`)
        }
        const has = values.filter((value) => found[lacking]?.includes(value)).length
        const some = has > 0 ? `only ${has} of ${values.length} values` : 'nothing'
        const advice = 'present has to add a value beside those that are there'
        throw failed(`${some} of ${name} (TXT) was seen at ${servers[lacking]?.name} ${within}: ${advice}`)
      }
      await delay(wait, undefined, { signal }).catch(() => {})
    }
  }

  /** Of the zone that a name is in. */
  async #serversOf(name: string, signal: AbortSignal): Promise<NameServer[]> {
    for (let zone = name; zone !== ''; zone = zone.slice(zone.indexOf('.') + 1 || zone.length)) {
      const names = ((await this.#ask('NS', zone, signal)) ?? [])
        .filter((name) => NAME.test(name))
        .slice(0, MOST_SERVERS)
      if (names.length === 0) continue
      const found = await Promise.all(
        names.map(async (name) => {
          const address = async (type: 'A' | 'AAAA'): Promise<string | undefined> =>
            (await this.#ask(type, name, signal).catch(() => undefined))?.[0]
          return { name, address: (await address('A')) ?? (await address('AAAA')) }
        }),
      )
      const servers = found.flatMap(({ name, address }) => (address === undefined ? [] : [{ name, address }]))
      if (servers.length > 0) return servers
      throw failed(`the name servers of ${zone} (${names.join(', ')}) have no address`)
    }
    throw failed(`there is no zone for ${name} in the DNS`)
  }

  /** What is there; undefined if there is nothing. */
  async #ask(type: 'A' | 'AAAA' | 'CNAME' | 'NS', name: string, signal: AbortSignal): Promise<string[] | undefined> {
    try {
      return await this.#with(this.#options.resolvers, signal, (resolver) => {
        if (type === 'A') return resolver.resolve4(name)
        if (type === 'AAAA') return resolver.resolve6(name)
        return type === 'NS' ? resolver.resolveNs(name) : resolver.resolveCname(name)
      })
    } catch (error) {
      const code = codeOf(error)
      if (NOTHING.includes(code)) return undefined
      throw failed(`the DNS cannot be asked for ${name} (${code}): --acme-dns-wait waits without asking`, error)
    }
  }

  /** All texts that are there; undefined if nobody answers. */
  async #valuesAt({ address }: NameServer, name: string, signal: AbortSignal): Promise<readonly string[] | undefined> {
    const { port = 53 } = this.#options
    const server = isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`
    try {
      const texts = await this.#with([server], signal, (resolver) => resolver.resolveTxt(name))
      return texts.map((parts) => parts.join(''))
    } catch (error) {
      return NOTHING.includes(codeOf(error)) ? [] : undefined
    }
  }

  /** Each question by a resolver of its own: none has to do with what it was told before. */
  async #with<T>(
    servers: readonly string[] | undefined,
    signal: AbortSignal,
    question: (resolver: Resolver) => Promise<T>,
  ): Promise<T> {
    const { Resolver } = await import('node:dns/promises')
    const resolver = new Resolver({ timeout: this.#options.timeout ?? TIMEOUT, tries: TRIES })
    if (servers) resolver.setServers(servers)
    const cancel = (): void => resolver.cancel()
    signal.addEventListener('abort', cancel)
    try {
      return await question(resolver)
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}

function failed(message: string, cause?: unknown): AcmeFailure {
  return new AcmeFailure(message, { scope: 'name', cause })
}
