import { ProxyError } from '../../lib/core/index.ts'
import type { HttpSettings } from '../../lib/domains/http-settings.ts'
import { HTTP_FLAGS, type HttpValues, newHttp } from '../common/http-flags.ts'

type Flags = typeof HTTP_FLAGS

const [users, userFile, host, request, response, maintenance, inspect] = HTTP_FLAGS

/** What stands in front of a web service on the side that publishes it. */
export const FRONT_FLAGS: readonly [Flags[0], Flags[1], Flags[2], Flags[3], Flags[4], Flags[5], Flags[6]] = [
  {
    ...users,
    help: 'Visitors need this name and password, or another that is given. Better: SYMPORT_BASIC_AUTH, or the next one.',
  },
  userFile,
  host,
  request,
  response,
  maintenance,
  { ...inspect, help: 'Keep the last requests and answers in memory, for "symport requests".' },
]

/**
 * What the flags say, with a hash in the place of each password. Undefined if they say nothing, so that what passes need
 * not be looked into.
 *
 * @throws ProxyError PROXY_ERR_USAGE, which never shows a password
 */
export async function readFrontFlags(
  values: HttpValues,
  { SYMPORT_BASIC_AUTH: env }: NodeJS.ProcessEnv = process.env,
): Promise<HttpSettings | undefined> {
  const given = values['basic-auth'].length > 0 || values['basic-auth-file'] !== undefined
  const pairs = given || env === undefined ? values['basic-auth'] : env.split(/\r?\n/).filter((line) => line !== '')
  // Who has meant to keep strangers out, and has lost the text on the way, lets nobody in.
  if (!given && env !== undefined && pairs.length === 0) {
    throw new ProxyError('PROXY_ERR_USAGE', 'SYMPORT_BASIC_AUTH is empty: write NAME:PASSWORD, or unset it')
  }
  const http = await newHttp({ ...values, 'basic-auth': pairs })
  if (!http) return undefined
  const { hashed } = await import('../../lib/hub/mapping-http.ts')
  return await hashed(http)
}
