import { open } from 'node:fs/promises'
import * as v from 'valibot'
import type { HttpRequest } from '../../lib/domains/http-settings.ts'
import { configError } from './config-file.ts'
import { either, list, table, text, unknownIn, yes } from './config-parts.ts'
import { checkPart, readHeaders, readUsers } from './http-rules.ts'

// What is done to the requests of a mapping, as a file has it.

export interface FileHttp {
  readonly 'basic-auth'?: string | readonly string[] | undefined
  readonly 'request-headers'?: string | readonly string[] | undefined
  readonly 'response-headers'?: string | readonly string[] | undefined
  readonly 'host-header'?: string | undefined
  /** The page is in this file. */
  readonly maintenance?: boolean | string | undefined
  readonly inspect?: boolean | undefined
}

const LARGEST_PAGE = 65_536

export function httpSchema(about: string): v.GenericSchema<FileHttp> {
  const entries = {
    'basic-auth': v.optional(
      list('Who may ask: "NAME:PASSWORD", or "NAME:$scrypt$..." as the API keeps it.', (user) => readUsers([user], '')),
    ),
    'request-headers': v.optional(
      list('What the target gets: "X-Name: value", or "X-Name:" for a header that goes.', (rule) =>
        readHeaders([rule], ''),
      ),
    ),
    'response-headers': v.optional(list('The same of answers, for visitors.', (rule) => readHeaders([rule], ''))),
    'host-header': v.optional(
      text('What the target gets as Host: "rewrite" is its own address.', (hostHeader) =>
        checkPart({ hostHeader }, ''),
      ),
    ),
    maintenance: v.optional(
      v.pipe(
        either(yes(''), text(''), (value) => typeof value === 'string'),
        v.description('Every visitor gets the page in this file, with status 503. true: one of our own.'),
      ),
    ),
    inspect: v.optional(yes('Keep the last requests and answers, to look at.')),
  }
  return table(about, entries, unknownIn(Object.keys(entries)))
}

/** What a file whose shape has been checked says; a page is still the name of its file. */
export function readHttp(http: FileHttp): HttpRequest {
  const users = [http['basic-auth'] ?? []].flat()
  const requests = [http['request-headers'] ?? []].flat()
  const responses = [http['response-headers'] ?? []].flat()
  const { 'host-header': hostHeader, maintenance, inspect } = http
  return {
    ...(users.length === 0 ? {} : { basicAuth: readUsers(users, 'basic-auth') }),
    ...(requests.length === 0 ? {} : { requestHeaders: readHeaders(requests, 'request-headers') }),
    ...(responses.length === 0 ? {} : { responseHeaders: readHeaders(responses, 'response-headers') }),
    ...(hostHeader === undefined ? {} : { hostHeader }),
    ...(maintenance === undefined ? {} : { maintenance }),
    ...(inspect === undefined ? {} : { inspect }),
  }
}

/**
 * With the page itself.
 *
 * @throws ProxyError PROXY_ERR_CONFIG
 */
export async function withPage(
  http: HttpRequest,
  { config, key, absolute }: { config: string; key: string; absolute: (path: string) => string },
): Promise<HttpRequest> {
  if (typeof http.maintenance !== 'string') return http
  const path = absolute(http.maintenance)
  try {
    return { ...http, maintenance: await readPage(path) }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw configError(config, `${key}.http.maintenance: ${why}`, error)
  }
}

/** @throws Error which says in words for people why there is no such page */
export async function readPage(path: string): Promise<string> {
  try {
    await using handle = await open(path, 'r')
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(LARGEST_PAGE + 1), 0, LARGEST_PAGE + 1, 0)
    if (bytesRead > LARGEST_PAGE) throw new Error(`${path}: a page has at most ${LARGEST_PAGE} bytes`)
    return buffer.toString('utf8', 0, bytesRead)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : undefined
    if (code === undefined) throw error
    const reasons: Record<string, string> = { ENOENT: 'there is no such file', EISDIR: 'it is a folder' }
    throw new Error(`cannot read ${path}: ${reasons[code] ?? code}`, { cause: error })
  }
}
