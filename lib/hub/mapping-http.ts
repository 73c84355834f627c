import { createHmac, randomBytes } from 'node:crypto'
import { ProxyError } from '../core/index.ts'
import { plainHeader } from '../domains/header-names.ts'
import { type HeaderRules, type HttpRequest, type HttpSettings, NO_VALUE } from '../domains/http-settings.ts'
import { isHiddenHeader, shownHeader } from '../domains/secret-names.ts'
import type { Patch } from './merge-patch.ts'
import type { HttpStatus } from './operations.ts'

/** Each takes 32 MiB and some 80 ms of a thread. */
const AT_ONCE = 2

/** Passwords, or their hashes, by name; `null` in a change. */
type Proofs = { readonly [name: string]: string | { readonly password?: string | null | undefined } | null | undefined }

/** Hashes passwords, and knows those of a list for when it comes again: a file that says the same is the same. */
export class PasswordHashes {
  readonly #salt = randomBytes(32)
  #known: ReadonlyMap<string, string> = new Map()

  /** A list that takes the place of the one before: call `done` when it has. */
  list(): { hashed(http: HttpRequest | undefined): Promise<HttpSettings | undefined>; done(): void } {
    const next = new Map<string, string>()
    const hash = async (name: string, password: string): Promise<string> => {
      const key = createHmac('sha256', this.#salt).update(`${name}:${password}`).digest('base64')
      const made = next.get(key) ?? this.#known.get(key) ?? (await hashOf(password))
      next.set(key, made)
      return made
    }
    return {
      hashed: (http) => hashed(http, hash),
      done: () => {
        this.#known = next
      },
    }
  }
}

/** With a hash in the place of each password. */
export async function hashed(
  http: HttpRequest | undefined,
  hash: (name: string, password: string) => Promise<string> = (_name, password) => hashOf(password),
): Promise<HttpSettings | undefined> {
  if (!http) return undefined
  const { basicAuth, ...rest } = http
  if (!basicAuth) return rest
  const proofs = await hashedProofs(basicAuth, hash)
  return {
    ...rest,
    basicAuth: Object.fromEntries([...proofs].filter((one): one is [string, string] => one[1] !== null)),
  }
}

/** The same of a change, in which `null` takes a name away. */
export async function hashedProofs(
  proofs: Proofs,
  hash: (name: string, password: string) => Promise<string> = (_name, password) => hashOf(password),
): Promise<Map<string, string | null>> {
  const made = new Map<string, string | null>()
  const left = Object.entries(proofs).values()
  const work = async (): Promise<void> => {
    for (const [name, proof] of left) {
      // They stay in their order.
      made.set(name, typeof proof === 'string' ? proof : null)
      const password = typeof proof === 'object' ? proof?.password : undefined
      if (typeof password === 'string') made.set(name, await hash(name, password))
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return made
}

async function hashOf(password: string): Promise<string> {
  const { hashPassword } = await import('../domains/web-auth.ts')
  return await hashPassword(password)
}

/** Without what proves who may come, and without the headers that do the same at the target. */
export function shownHttp(http: HttpSettings | undefined): HttpStatus | undefined {
  if (!http) return undefined
  const { basicAuth, requestHeaders, responseHeaders, ...rest } = http
  return {
    ...(basicAuth && { basicAuth: Object.keys(basicAuth) }),
    ...(requestHeaders && { requestHeaders: shownHeaders(requestHeaders) }),
    ...(responseHeaders && { responseHeaders: shownHeaders(responseHeaders) }),
    ...rest,
  }
}

function shownHeaders(headers: HeaderRules): HeaderRules {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, value === null ? null : shownHeader(name, value)]),
  )
}

/**
 * A change in which what is not shown stays as it was: whoever reads the headers and changes one of them sends back all.
 *
 * @throws ProxyError PROXY_ERR_REQUEST if there was nothing
 */
export function withUnshown(change: Patch<HttpRequest>, before: HttpSettings = {}): Patch<HttpRequest> {
  const made = { ...change }
  for (const key of ['requestHeaders', 'responseHeaders'] as const) {
    const headers = change[key]
    if (headers) made[key] = unshown(headers, before[key] ?? {}, key)
  }
  return made
}

function unshown(headers: Patch<HeaderRules>, before: HeaderRules, key: string): Patch<HeaderRules> {
  const known = new Map(Object.entries(before).map(([name, value]) => [plainHeader(name), value]))
  const made = Object.entries(headers).map(([name, value = null]) => {
    if (!isHiddenHeader(name, value)) return [name, value] as const
    const was = known.get(plainHeader(name)) ?? null
    if (was === null) throw new ProxyError('PROXY_ERR_REQUEST', `http.${key}: ${name}: ${NO_VALUE}`)
    return [name, was] as const
  })
  return Object.fromEntries(made)
}
