import * as v from 'valibot'
import { ProxyError } from '../../lib/core/errors.ts'
import { HTTP_REQUEST, type HttpRequest } from '../../lib/domains/http-settings.ts'

// What is done to requests, as people write it in flags and in files.

type Users = NonNullable<HttpRequest['basicAuth']>
type Headers = NonNullable<HttpRequest['requestHeaders']>

/**
 * `NAME:PASSWORD`, or `NAME:$scrypt$...` where a file should not hold the password.
 *
 * @throws ProxyError PROXY_ERR_USAGE, which shows no password
 */
export function readUsers(texts: readonly string[], what: string): Users {
  const users = new Map<string, Users[string]>()
  for (const text of texts) {
    const colon = text.indexOf(':')
    if (colon < 1 || colon === text.length - 1) throw usage(what, 'write NAME:PASSWORD')
    const name = text.slice(0, colon)
    const proof = text.slice(colon + 1)
    if (users.has(name)) throw usage(what, 'a name is given twice: keep one')
    const user = proof.startsWith('$scrypt$') ? proof : { password: proof }
    checkPart({ basicAuth: { [name]: user } }, what)
    users.set(name, user)
  }
  return Object.fromEntries(users)
}

/**
 * `X-Name: value`, or `X-Name:` for a header that goes, as curl's -H has it.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export function readHeaders(texts: readonly string[], what: string): Headers {
  const headers = new Map<string, string | null>()
  for (const text of texts) {
    const colon = text.indexOf(':')
    if (colon < 1) throw usage(what, 'write "NAME: VALUE", or "NAME:" to take a header away')
    const name = text.slice(0, colon)
    const value = text.slice(colon + 1).trim()
    if (headers.has(name)) throw usage(what, `${name} is given twice: keep one`)
    const rule = value === '' ? null : value
    checkPart({ requestHeaders: { [name]: rule } }, what)
    headers.set(name, rule)
  }
  return Object.fromEntries(headers)
}

/** @throws ProxyError PROXY_ERR_USAGE */
export function checkPart(http: HttpRequest, what: string): void {
  // `__proto__` and its like are nobody's name: they are left out without a word.
  const names = Object.keys({ ...http.basicAuth, ...http.requestHeaders })
  if (names.some((name) => name in {})) throw usage(what, 'that is no name here')
  const [issue] = v.safeParse(HTTP_REQUEST, http).issues ?? []
  if (issue) throw usage(what, issue.message)
}

function usage(what: string, message: string): ProxyError {
  return new ProxyError('PROXY_ERR_USAGE', what === '' ? message : `${what}: ${message}`)
}
