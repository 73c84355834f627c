import { setTimeout as delay } from 'node:timers/promises'
import type { ProxyError } from '../core/errors.ts'
import { DnsLook, type LookOptions } from './acme-dns-look.ts'
import { runHook } from './acme-hook.ts'
import { failureOf } from './acme-problems.ts'

/** How long the operator's program may take, in ms, and how long it may do so while we end. */
const DEADLINE = 60_000
const LAST_DEADLINE = 5000

/** Writes TXT records into a zone of the DNS. What is added stands beside what is there. */
export interface DnsRecords {
  /** `name` without a dot at its end. Rejects if that cannot be done, with a message for people. */
  present(name: string, value: string, signal: AbortSignal): Promise<void>
  /** Is called after each `present`, whatever came of it. */
  cleanup(name: string, value: string, signal: AbortSignal): Promise<void>
}

export interface AcmeDns {
  /** It and all names directly below it share one certificate. */
  readonly domain: string
  readonly records: DnsRecords
  /** Waits so long until the CA looks, in ms, and asks nobody. Default: until the name servers of the zone have it. */
  readonly wait?: number | undefined
  /** How these are asked. */
  readonly look?: LookOptions | undefined
}

/** Records that a program writes, called as lego calls one (`exec`): `PROGRAM present|cleanup NAME. VALUE`. */
export function hookRecords(program: string, deadline: number = DEADLINE): DnsRecords {
  const run =
    (action: string) =>
    (name: string, value: string, signal: AbortSignal): Promise<void> =>
      runHook(program, [action, `${name}.`, value], { deadline, signal })
  return { present: run('present'), cleanup: run('cleanup') }
}

/** One record that a CA wants to see. */
export interface Proof {
  readonly host: string
  readonly value: string
}

/** Has records written for a CA that looks, and taken away again. */
export class DnsProver {
  readonly #dns: AcmeDns
  readonly #look: DnsLook
  /** An end of ours must not leave records behind, nor wait long for that. */
  readonly #late = new AbortController()
  readonly #onProblem: (error: ProxyError) => void

  /** `onProblem`: a record could not be taken away. */
  constructor(dns: AcmeDns, about: { closing: AbortSignal; onProblem: (error: ProxyError) => void }) {
    this.#dns = dns
    this.#look = new DnsLook(dns.look)
    this.#onProblem = about.onProblem
    const end = (): void => void setTimeout(() => this.#late.abort(), LAST_DEADLINE).unref()
    about.closing.addEventListener('abort', end, { once: true })
  }

  /**
   * Resolves when all records are to be seen, with what takes them away, which never rejects. They stand together: a
   * resolver that a CA asks does not remember one while another is looked for.
   *
   * @throws AcmeFailure
   */
  async show(proofs: readonly Proof[], signal: AbortSignal): Promise<() => Promise<void>> {
    const { records, wait } = this.#dns
    const shown: { name: string; value: string }[] = []
    const withdraw = async (): Promise<void> => {
      for (const { name, value } of shown.splice(0)) await this.#withdraw(name, value)
    }
    try {
      for (const { host, value } of proofs) {
        const own = `_acme-challenge.${host}`
        const name = wait === undefined ? await this.#look.target(own, signal) : own
        shown.push({ name, value })
        await records.present(name, value, signal)
      }
      if (wait !== undefined) await delay(wait, undefined, { signal })
      else for (const [name, values] of byName(shown)) await this.#look.until(name, values, signal)
      return withdraw
    } catch (error) {
      await withdraw()
      throw failureOf(error)
    }
  }

  async #withdraw(name: string, value: string): Promise<void> {
    const signal = AbortSignal.any([this.#late.signal, AbortSignal.timeout(2 * DEADLINE)])
    try {
      await this.#dns.records.cleanup(name, value, signal)
    } catch (error) {
      this.#onProblem(failureOf(error))
    }
  }
}

function byName(shown: readonly { readonly name: string; readonly value: string }[]): Map<string, string[]> {
  const names = new Map<string, string[]>()
  for (const { name, value } of shown) names.set(name, [...(names.get(name) ?? []), value])
  return names
}
