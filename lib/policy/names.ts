import { ProxyError } from '../core/errors.ts'

/** The requests of the web port that are meant: those for a host (empty: any), to a path and below it. */
export interface WebName {
  /** A name in lower case, an address, or `*.suffix`. */
  readonly host: string
  /** One slash in front, none at the end but for `/` itself. */
  readonly path: string
}

/**
 * Takes `[host][/path][?base=...]` apart, into the one form that names it. The domain that listens and the policy have the
 * same one: what is granted is what is listened on.
 */
export type ReadName = (text: string) => WebName

/** One PATTERN of `--allow-names`. */
export type NamePattern = 'any' | WebName

export interface NameRules {
  readonly patterns: readonly NamePattern[]
  readonly read: ReadName
  readonly own?: OwnNames | undefined
}

/** What the server has at its web port for itself. */
export interface OwnNames {
  /** Where nodes connect. These are never anybody's, whatever the host. */
  readonly paths?: readonly string[] | undefined
  /** The server's own names. All of one is given only by a pattern that says it, and all that nobody else has by none. */
  readonly hosts?: readonly string[] | undefined
  /** Names of hosts that are given only by a pattern that says them: `www` of the server's domain, and its like. */
  readonly reserved?: ((host: string) => boolean) | undefined
  /** Names whose TLS ends at the server: only a pattern that says one has it end at a node's target. */
  readonly tls?: ((host: string) => boolean) | undefined
}

/** Domains whose addresses are names of the web port: `tls` to listen on, that is. */
const WITH_NAMES: readonly string[] = ['web', 'ws', 'tls']

export function hasName(domain: string): boolean {
  return WITH_NAMES.includes(domain)
}

/**
 * `app.example.com`, `*.example.com` (names below it), `/path` (on any host), `host/path`: each with all paths below; or
 * `*` for everything.
 *
 * @throws ProxyError PROXY_ERR_PATTERN
 */
export function parseNamePattern(text: string, read: ReadName): NamePattern {
  const pattern = text.trim()
  if (pattern === '*') return 'any'
  if (pattern === '') throw bad(text, 'write app.example.com, *.example.com, /path, host/path, or * for every name')
  if (pattern.includes('?'))
    throw bad(text, 'a pattern has no ? in it: which path the target has is for the node to say')
  try {
    const { host, path } = read(pattern)
    // Whoever writes a slash rarely means every page of every host.
    if (host === '' && path === '/') throw bad(text, 'write * for every name, or a path like /api')
    return { host, path }
  } catch (cause) {
    if (cause instanceof ProxyError && cause.code === 'PROXY_ERR_PATTERN') throw cause
    throw bad(text, cause instanceof Error ? cause.message : String(cause), cause)
  }
}

/** Whether a pattern gives a name away: it is the same, or one of those below it. */
export function givesName(pattern: NamePattern, name: WebName): boolean {
  if (pattern === 'any') return true
  return givesHost(pattern.host, name.host) && isBelow(pattern.path, name.path)
}

/**
 * Whether a node may have the requests of this name; with `isTls`, all of its TLS.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS if it is none
 */
export function mayHaveName({ patterns, read, own = {} }: NameRules, addr: string, isTls = false): boolean {
  const name = read(addr)
  if (own.paths?.includes(name.path)) return false
  const { hosts = [] } = own
  const takesOwn = hosts.length > 0 && name.path === '/' && (name.host === '' || hosts.includes(name.host))
  /** The pattern has to say it, and not only to include it. */
  const mustSay = takesOwn || own.reserved?.(name.host) === true || (isTls && own.tls?.(name.host) === true)
  const says = (pattern: NamePattern): boolean => pattern !== 'any' && pattern.host !== '' && pattern.host === name.host
  return patterns.some((pattern) => givesName(pattern, name) && (!mustSay || says(pattern)))
}

function givesHost(pattern: string, host: string): boolean {
  if (pattern === '') return true
  if (!pattern.startsWith('*.')) return pattern === host
  const suffix = pattern.slice(1)
  return host.length > suffix.length && host.endsWith(suffix)
}

function isBelow(above: string, path: string): boolean {
  return above === '/' || path === above || path.startsWith(`${above}/`)
}

function bad(text: string, why: string, cause?: unknown): ProxyError {
  const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text)
  return new ProxyError('PROXY_ERR_PATTERN', `bad name ${shown}: ${why}`, cause === undefined ? {} : { cause })
}
