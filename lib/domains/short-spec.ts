import type { Endpoint } from '../core/endpoint.ts'
import { ProxyError } from '../core/errors.ts'
import { type ChannelEndpoint, readUserInfo } from './channel-address.ts'
import { checkDomainEndpoint, checkPair, SEPARATOR, textError } from './endpoint-url.ts'
import type { Hidden } from './hidden.ts'
import { nearest } from './nearest.ts'
import { parseSpec, SPEC_LENGTH, type Spec, type SpecContext } from './spec.ts'
import { ownDomains, peerDomains } from './table.ts'
import { shown } from './text.ts'

/** What one URL is given for: -D, -L or -R; in files the same words. */
export type ShortUse = 'dynamic' | 'local' | 'remote'

/** What there is in one URL for each use. */
const SCHEMES: Readonly<Record<ShortUse, readonly string[]>> = {
  dynamic: ['socks5', 'http', 'mixed'],
  local: ['tcp', 'udp', 'unix'],
  remote: ['tcp', 'udp', 'unix', 'http', 'https', 'tunnel'],
}
const FLAGS: Readonly<Record<ShortUse, string>> = {
  dynamic: '-D (dynamic)',
  local: '-L (local)',
  remote: '-R (remote)',
}
const PARAMETERS = ['mode', 'value']
/** Of these, what stands behind the `?` is for the target, too. */
const WITH_OPTIONS = ['https', 'tcp', 'unix']
const OPTION = /^proxy=/
const MODES = ['path', 'domain']

/** One URL taken apart, its user information decoded. */
interface ShortUrl {
  readonly scheme: string
  readonly channel: Channel | undefined
  /** Behind the user information, up to the query. */
  readonly place: string
  /** Of the place, what stands behind `host:port`. */
  readonly path: string
  readonly query: string | undefined
}

interface Channel {
  readonly name: string
  readonly password: Hidden
}

/**
 * A SPEC that is one URL:
 * - dynamic: `socks5://[CHANNEL[:PASSWORD]@][bind]:port`, `http://` and `mixed://` alike, or `[bind:]port`
 * - local: `tcp://CHANNEL[:PASSWORD]@[bind]:port`, `udp://` and `unix://` alike
 * - remote: the same with where to forward; `tunnel://CHANNEL[:PASSWORD]@`;
 *   `http://host:port[/base/]?mode=path|domain&value=NAME`, `https://` alike, and `tcp://` for a WebSocket
 *
 * An empty host is all interfaces to listen on, and 127.0.0.1 to forward to. Names and passwords are percent-encoded.
 *
 * @throws ProxyError PROXY_ERR_SPEC, on one line, without the password
 */
export function parseShort(text: string, use: ShortUse, context: SpecContext): Spec {
  const url = text.trim()
  // What is no port may be the password of a channel whose scheme and @ are missing: it is not shown.
  if (use === 'dynamic' && /^[^:/@?]+:[^:/@?\]]*[^:/@?\]0-9][^:/@?\]]*(?:\?|$)/.test(url)) {
    throw bad(`bad SPEC ${shown(url.replace(/:.*$/s, ':…'))}: the port is not a number: write ${example(use)}`)
  }
  try {
    if (url === '') throw bad(`it is empty: write ${example(use)}`)
    if (url.length > SPEC_LENGTH) throw bad(`it is longer than ${SPEC_LENGTH} characters`)
    checkWidth(url)
    if (/\p{C}/u.test(url)) throw bad('it has a control character, or a line break')
    const { Listen, Forward } = READERS[use](url)
    const own = ownDomains(context.domains)
    const peer = peerDomains(context.domains)
    const spec = {
      Listen: checkDomainEndpoint(Listen, { domains: use === 'remote' ? peer : own, role: 'listen' }),
      Forward: checkDomainEndpoint(Forward, { domains: use === 'remote' ? own : peer, role: 'forward' }),
    }
    checkPair(spec, peer)
    return spec
  } catch (error) {
    throw textError('bad SPEC', url, error)
  }
}

/**
 * What -L (local) and -R (remote) take: a SPEC in any of its forms, or one URL; for -L also that of a proxy, as for -D.
 *
 * @throws ProxyError PROXY_ERR_SPEC
 */
export function parseListenerFlag(text: string, use: 'local' | 'remote', context: SpecContext): Spec {
  if (!isOneUrl(text)) return parseSpec(text, { ...context, use })
  const isProxy = use === 'local' && /^\s*(?:socks5|http|mixed):/i.test(text)
  return parseShort(text, isProxy ? 'dynamic' : use, context)
}

function isOneUrl(text: string): boolean {
  const url = text.trim()
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(url) || SEPARATOR.test(url)) return false
  // Otherwise a second half whose scheme is missing.
  return !url.includes(',') || /@|[?&](?:mode|value)=/.test(url)
}

const READERS: Readonly<Record<ShortUse, (text: string) => { Listen: Endpoint; Forward: Endpoint }>> = {
  dynamic: readDynamicUrl,
  local(text) {
    const url = splitShort(text, 'local')
    const { scheme, channel } = url
    if (url.query !== undefined) {
      throw bad('there is nothing behind a ? here: mode and value are for who offers it, with -R (remote)')
    }
    if (channel === undefined) throw noChannel(scheme)
    return { Listen: plainTarget(url), Forward: endpointOf('channel', channel) }
  },
  remote(text) {
    const url = splitShort(text, 'remote')
    const { scheme, channel, place, path, query } = url
    if (scheme === 'tunnel') {
      if (channel === undefined) throw bad('it names no channel: write tunnel://CHANNEL:PASSWORD@, with the @')
      if (`${place}${path}${query ?? ''}`.replace(/^\/$/, '') !== '') {
        throw bad('nothing stands behind the @ of a tunnel: who uses it says where it goes')
      }
      return { Listen: endpointOf('channel', channel), Forward: { Domain: 'tunnel', Addr: '' } }
    }
    if (channel !== undefined && SCHEMES.local.includes(scheme) && (query === undefined || OPTION.test(query))) {
      return { Listen: endpointOf('channel', channel), Forward: withOptions(plainTarget(url), query) }
    }
    return readWebUrl(url)
  },
}

function readDynamicUrl(text: string): { Listen: Endpoint; Forward: Endpoint } {
  if (!text.includes('://')) {
    if (text.includes('@')) throw bad('a channel needs the whole URL: write mixed://CHANNEL:PASSWORD@127.0.0.1:1080')
    // As in ssh: no bind is loopback, an empty one and "*" are all interfaces.
    const Addr = /^[0-9]+$/.test(text) ? `127.0.0.1:${text}` : text.replace(/^\*:/, ':')
    return { Listen: { Domain: 'mixed', Addr }, Forward: { Domain: 'tunnel', Addr: '' } }
  }
  const { scheme, channel, place, path, query } = splitShort(text, 'dynamic')
  if (path !== '' && path !== '/') throw bad('there is no path here: a proxy listens on [bind]:port')
  const parameters = new URLSearchParams(query)
  for (const name of PARAMETERS) {
    if (parameters.has(name)) throw bad(`${name} is for what is offered with -R (remote)`)
  }
  checkPort(place)
  return {
    Listen: { Domain: scheme, Addr: query === undefined ? place : `${place}?${query}` },
    Forward: channel === undefined ? { Domain: 'tunnel', Addr: '' } : endpointOf('tunnel', channel),
  }
}

/** What is offered at the web port of the server: by path, or by the name of the host. */
function readWebUrl(url: ShortUrl): { Listen: Endpoint; Forward: Endpoint } {
  const { scheme, channel, place, path, query } = url
  const web = scheme === 'http' || scheme === 'https'
  const target = web ? '127.0.0.1:8080' : scheme === 'unix' ? '/run/vnc.sock' : '127.0.0.1:5900'
  const example = `${scheme}://${target}?mode=path&value=NAME`
  if (channel !== undefined) {
    throw bad(
      web
        ? 'a channel is not for http: write tcp://CHANNEL:PASSWORD@host:port, or leave the channel out'
        : 'a channel and mode= exclude each other: keep one',
    )
  }
  if (query === undefined) {
    if (!web) throw noChannel(scheme, scheme === 'udp' ? '' : `, ${example}`)
    throw bad(`the mode is missing: write ${example}, or ?mode=domain&value=www.example.com`)
  }
  if (scheme === 'udp') throw bad('udp cannot be offered at the web port: tcp, unix, http and https can')
  const { mode, value, rest } = readQuery(query, WITH_OPTIONS.includes(scheme), example)
  if (mode === 'domain' && value.includes('/')) throw bad(`value: ${shown(value)} is not a domain: it has a / in it`)
  const at = mode === 'path' ? `/${value.replace(/^\/+/, '')}` : value
  if (!web) return { Listen: { Domain: 'ws', Addr: at }, Forward: withOptions(plainTarget(url), rest) }
  const base = path === '' || path === '/' ? '' : `?base=${path.replaceAll('&', '%26')}`
  return {
    Listen: { Domain: 'web', Addr: `${at}${base}` },
    Forward: withOptions({ Domain: scheme, Addr: place }, rest),
  }
}

function readQuery(query: string, open: boolean, example: string): { mode: string; value: string; rest: string } {
  const found = new Map<string, string>()
  const rest: string[] = []
  for (const text of query.split('&')) {
    const [, name = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(text) ?? []
    if (PARAMETERS.includes(name)) {
      if (found.has(name)) throw bad(`${name} is given twice`)
      found.set(name, decoded(value, name))
    } else if (open && nearest(name, PARAMETERS) === undefined) {
      rest.push(text)
    } else {
      const near = nearest(name, PARAMETERS)
      throw bad(
        `unknown option ${shown(name)} behind the ?: ${near === undefined ? `write ${example}` : `did you mean ${near}?`}`,
      )
    }
  }
  const mode = found.get('mode')
  const value = found.get('value')
  if (mode === undefined)
    throw bad(`${value === undefined ? 'mode and value are' : 'the mode is'} missing: write ${example}`)
  if (mode === '') throw bad('the mode is empty: write mode=path or mode=domain')
  if (!MODES.includes(mode)) {
    const near = nearest(mode, MODES)
    throw bad(
      `unknown mode ${shown(mode)}: ${near === undefined ? 'path and domain are known' : `did you mean ${near}?`}`,
    )
  }
  if (value === undefined)
    throw bad(`the value is missing: write mode=${mode}&value=${mode === 'path' ? 'NAME' : 'www.example.com'}`)
  if (value.replace(/^\/+/, '') === '') throw bad('the value is empty: it says what stands in the URL at the server')
  return { mode, value, rest: rest.join('&') }
}

/** `host:port` (also `host:port/udp`) or the path of a Unix socket. */
function plainTarget({ scheme, place, path }: ShortUrl): Endpoint {
  if (scheme === 'unix') return { Domain: scheme, Addr: `${place}${path}` }
  const suffix = /^\/(?:tcp|udp)$/i.test(path) ? path : ''
  if (path !== suffix && path !== '/') throw bad(`there is no path here: ${scheme} goes to host:port`)
  checkPort(place)
  return { Domain: scheme, Addr: `${place}${suffix}` }
}

function withOptions({ Domain, Addr }: Endpoint, options = ''): Endpoint {
  return { Domain, Addr: options === '' ? Addr : `${Addr}?${options}` }
}

/** As a port says it, but without showing what stands there: without its @, it may be a password. */
function checkPort(place: string): void {
  const port = /:([^:\]]*)$/.exec(place)?.[1]
  if (port === undefined || /^[0-9]*$/.test(port)) return
  throw bad('the port is not a number (is an @ missing behind CHANNEL:PASSWORD?)')
}

function splitShort(text: string, use: ShortUse): ShortUrl {
  const [, written = '', rest] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text) ?? []
  if (rest === undefined) throw bad(`it is no URL: write ${example(use)}`)
  const scheme = written.toLowerCase()
  checkScheme(scheme, use)
  const [, authority = '', tail = ''] = /^([^/?#]*)(.*)$/s.exec(rest) ?? []
  // An @ behind name= stands in a value.
  const [misplaced] = /^[/?#][^=]*@/.exec(tail) ?? []
  if (authority !== '' && misplaced !== undefined && !authority.includes('@')) {
    throw bad(`a ${misplaced.charAt(0)} in a channel's name or password is written ${percent(misplaced.charAt(0))}`)
  }
  const at = authority.indexOf('@')
  if (at !== authority.lastIndexOf('@')) throw bad("an @ in a channel's name or password is written %40")
  const [, path = '', query] = /^([^?]*)(?:\?(.*))?$/s.exec(tail) ?? []
  return {
    ...{ scheme, path, query, place: authority.slice(at + 1) },
    channel: at < 0 ? undefined : readChannelPart(authority.slice(0, at), scheme),
  }
}

function readChannelPart(user: string, scheme: string): Channel {
  if (/^(?::|$)/.test(user)) throw noChannel(scheme)
  return readUserInfo(user)
}

function checkScheme(scheme: string, use: ShortUse): void {
  if (SCHEMES[use].includes(scheme)) return
  if (use === 'local' && scheme === 'tunnel') {
    throw bad('a tunnel is used with -D (dynamic): write socks5://CHANNEL:PASSWORD@127.0.0.1:1080')
  }
  const other = (['dynamic', 'local', 'remote'] as const).find((one) => SCHEMES[one].includes(scheme))
  if (other !== undefined) throw bad(`${scheme}:// is for ${FLAGS[other]}: here are ${SCHEMES[use].join(', ')}`)
  const whole = peerDomains([]).some((domain) => typeof domain === 'object' && domain.name === scheme)
  if (whole && use !== 'dynamic') {
    throw bad('it has one endpoint: write where to listen, a comma, and where to forward')
  }
  const near = nearest(scheme, SCHEMES[use])
  const meant = near === undefined ? '' : `: did you mean ${near}?`
  throw bad(`unknown scheme ${shown(scheme)}${meant} (known: ${SCHEMES[use].join(', ')})`)
}

const WIDE = /[，：／？＝＆＠＃。；　“”]/u

/** Punctuation as a Chinese or Japanese keyboard has it looks the same, and is not. In a password it may be meant. */
function checkWidth(text: string): void {
  const start = text.indexOf('://') + 3
  const at = text.lastIndexOf('@')
  const name = start < 3 ? '' : (/^[^:@]*/.exec(text.slice(start, Math.max(start, at)))?.[0] ?? '')
  const open = at < start ? text : `${text.slice(0, start)}${name}${text.slice(at)}`
  const [wide] = WIDE.exec(open) ?? []
  if (wide === undefined) return
  const narrow = wide === '。' ? '.' : wide === '“' || wide === '”' ? '"' : wide.normalize('NFKC')
  throw bad(`it has a full-width "${wide}" in it: write "${narrow}"`)
}

function endpointOf(Domain: 'channel' | 'tunnel', { name, password }: Channel): ChannelEndpoint {
  return { Domain, Addr: name, Password: password }
}

function decoded(text: string, what: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw bad(`${what} has a % that is no escape: write %25`)
  }
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase()}`
}

function noChannel(scheme: string, more = ''): ProxyError {
  if (scheme === 'tunnel') return bad('it names no channel: write tunnel://CHANNEL:PASSWORD@, with the @')
  if (!SCHEMES.local.includes(scheme)) return bad(`it names no channel: write ${scheme}://CHANNEL:PASSWORD@[bind]:port`)
  const place = scheme === 'unix' ? '/path' : 'host:port'
  return bad(
    `it has one endpoint, and names no channel: write ${scheme}://CHANNEL:PASSWORD@${place}${more}, ` +
      'or where to listen, a comma, and where to forward',
  )
}

function example(use: ShortUse): string {
  if (use === 'dynamic') return '[bind:]port or socks5://[bind]:port'
  return use === 'local' ? 'tcp://CHANNEL:PASSWORD@127.0.0.1:port' : 'tcp://CHANNEL:PASSWORD@host:port'
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_SPEC', message)
}
