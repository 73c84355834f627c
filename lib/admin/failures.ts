import { ProxyError } from '../core/errors.ts'
import type { Failure } from './schemas.ts'

/** The HTTP status of each code that means something other than a failure of the server itself. */
const STATUSES: ReadonlyMap<string, number> = new Map([
  ...['REQUEST', 'SPEC', 'ADDRESS', 'PATTERN', 'SECRET', 'ENDPOINT', 'USAGE', 'CONFIG', 'UNKNOWN_DOMAIN'].map(
    (name): [string, number] => [`PROXY_ERR_${name}`, 400],
  ),
  ['PROXY_ERR_UNAUTHORIZED', 401],
  ['PROXY_ERR_HOST', 403],
  ['PROXY_ERR_READ_ONLY', 403],
  ['PROXY_ERR_NOT_FOUND', 404],
  ['PROXY_ERR_EXISTS', 409],
  ['PROXY_ERR_REPLAY', 409],
  ['PROXY_ERR_REQUEST_TOO_LARGE', 413],
  ['PROXY_ERR_TOO_MANY_FAILURES', 429],
  ['PROXY_ERR_TOO_MANY_READERS', 429],
])

export function statusOf(error: ProxyError): number {
  return STATUSES.get(error.code) ?? 500
}

/** What somebody else may read of an error: nothing of one that nobody foresaw. */
export function publicFailure(error: unknown): Failure {
  if (error instanceof ProxyError) return { code: error.code, message: error.message }
  return { code: 'PROXY_ERR_INTERNAL', message: 'internal error: the log of the server says more' }
}
