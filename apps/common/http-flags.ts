import type { HttpRequest } from '../../lib/domains/http-settings.ts'
import type { Patch } from '../../lib/hub/merge-patch.ts'
import {
  ALONE,
  assertNoNone,
  type ChangeValues,
  given,
  listOrNone,
  NONE,
  orNone,
  settled,
  usage,
} from './change-flags.ts'
import type { Runnable } from './command.ts'
import type { ListFlag, StringFlag } from './flags.ts'
import { withDefault } from './operator.ts'
import { readInput } from './read-input.ts'

// What is done to requests, as flags.

/** What `--maintenance` takes for its file: anything else is the next word of the command. */
const PAGE: RegExp = /^(?:none|(?:\.{0,2}|~|[A-Za-z]:)[\\/].*|.*\.(?:html?|txt))$/is
const YES: RegExp = /^(?:yes|none)$/

export const HTTP_FLAGS: readonly [
  ListFlag<'basic-auth'>,
  StringFlag<'basic-auth-file'>,
  StringFlag<'host-header'>,
  ListFlag<'request-header'>,
  ListFlag<'response-header'>,
  StringFlag<'maintenance'>,
  StringFlag<'inspect'>,
] = [
  { name: 'basic-auth', kind: 'list', value: 'NAME:PASSWORD', help: 'At the web port: who may come in.' },
  {
    name: 'basic-auth-file',
    kind: 'string',
    value: 'FILE',
    help: 'The same, a line each, which no list of processes shows; - is standard input.',
  },
  {
    name: 'host-header',
    kind: 'string',
    value: 'HOST',
    help: 'What the target gets as Host; rewrite is its own address. Default: what the visitor wrote.',
  },
  {
    name: 'request-header',
    kind: 'list',
    value: "'NAME: VALUE'",
    help: "A header that the target gets instead; 'NAME:' for one that goes.",
  },
  { name: 'response-header', kind: 'list', value: "'NAME: VALUE'", help: 'The same of answers, for visitors.' },
  {
    name: 'maintenance',
    kind: 'string',
    value: '[FILE]',
    help: 'Every visitor gets the page in this file, with status 503. Alone: a page of our own.',
  },
  { name: 'inspect', kind: 'string', value: '', help: 'Keep the last requests and answers, to look at.' },
]

export type HttpValues = ChangeValues<typeof HTTP_FLAGS>

/** `--maintenance` and `--inspect` may stand alone. */
export function withHttpFlags(run: Runnable): Runnable {
  return withDefault(withDefault(run, 'maintenance', ALONE, PAGE), 'inspect', ALONE, YES)
}

/**
 * What the flags say: `null` for `none`. Undefined if they say nothing.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function readHttpFlags(values: HttpValues): Promise<Patch<HttpRequest> | undefined> {
  const file = values['basic-auth-file']
  const texts = [...values['basic-auth'], ...(file === undefined ? [] : await readUserLines(file))]
  const flags = [texts, values['request-header'], values['response-header']]
  const rest = [values['host-header'], values.maintenance, values.inspect]
  if (flags.every(({ length }) => length === 0) && rest.every((one) => one === undefined)) return undefined
  // They come with the schemas.
  const [{ checkPart, readHeaders, readUsers }, { readPage }] = await Promise.all([
    import('./http-rules.ts'),
    import('./config-http.ts'),
  ])
  const hostHeader = orNone(values['host-header'], (text) => {
    checkPart({ hostHeader: text }, '--host-header')
    return text
  })
  const headers = (name: 'request-header' | 'response-header') =>
    listOrNone(values[name], name, (list) => readHeaders(list, `--${name}`))
  return given({
    basicAuth: listOrNone(texts, 'basic-auth', (list) => readUsers(list, '--basic-auth')),
    requestHeaders: headers('request-header'),
    responseHeaders: headers('response-header'),
    hostHeader,
    maintenance: await pageOf(values.maintenance, readPage),
    inspect:
      values.inspect === undefined ? undefined : values.inspect === NONE ? null : toYes(values.inspect, 'inspect'),
  })
}

/**
 * The same for a new thing, of which there is nothing to take away.
 *
 * @throws ProxyError PROXY_ERR_USAGE
 */
export async function newHttp(values: HttpValues): Promise<HttpRequest | undefined> {
  assertNoNone(values, HTTP_FLAGS)
  const http = await readHttpFlags(values)
  if (!http) return undefined
  const { HTTP_REQUEST } = await import('../../lib/domains/http-settings.ts')
  return await settled(HTTP_REQUEST, http)
}

async function readUserLines(file: string): Promise<string[]> {
  const lines = (await readInput(file, '--basic-auth-file')).split(/\r?\n/)
  const users = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (users.length === 0) throw usage('--basic-auth-file: there is nobody in it')
  return users
}

async function pageOf(
  text: string | undefined,
  readPage: (path: string) => Promise<string>,
): Promise<string | true | null | undefined> {
  if (text === undefined || text === NONE) return text === undefined ? undefined : null
  if (text === ALONE) return true
  try {
    return await readPage(text)
  } catch (error) {
    throw usage(`--maintenance: ${error instanceof Error ? error.message : String(error)}`, error)
  }
}

function toYes(text: string, name: string): true {
  if (text === ALONE) return true
  throw usage(`--${name}: write --${name} alone, or --${name} none`)
}
