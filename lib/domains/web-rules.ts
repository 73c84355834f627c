import * as v from 'valibot'
import type { Endpoint, ListenContext } from '../core/index.ts'
import type { Origin } from '../sockets/requests.ts'
import { plainHeader } from './header-names.ts'
import { type HeaderRules, HTTP_SETTINGS, type HttpSettings, REWRITE } from './http-settings.ts'
import { parseTcp } from './tcp-address.ts'
import { parseTls } from './tls-address.ts'
import type { WebTarget } from './web-routes.ts'

/** What the operator says about the requests of one listener, made ready. */
export class WebRules {
  readonly settings: HttpSettings
  /** What the target gets as `Host`; undefined: what the visitor wrote. */
  readonly host: string | undefined
  readonly #toTarget: Changes | undefined
  readonly #toVisitor: Changes | undefined

  /** `target`: where the requests go. */
  constructor(settings: HttpSettings = {}, target?: Endpoint) {
    const { basicAuth, requestHeaders, responseHeaders, hostHeader } = settings
    this.settings = settings
    this.host = hostHeader === REWRITE ? target && authorityOf(target) : hostHeader
    // Who came in by a password of ours has told it to us, and not to the target.
    this.#toTarget = changes({ ...(basicAuth && { authorization: null }), ...requestHeaders })
    this.#toVisitor = changes(responseHeaders)
  }

  /** The headers for the target, names and values, `Host` first. */
  toTarget(list: string[]): string[] {
    if (this.host !== undefined) list[1] = this.host
    return this.#toTarget ? changed(list, this.#toTarget) : list
  }

  trailersToTarget(list: [string, string][]): [string, string][] {
    return left(list, this.#toTarget)
  }

  /** The headers of an answer, names and values. */
  toVisitor(list: string[], { authority }: WebTarget, { secure }: Origin): string[] {
    const { host } = this
    if (host !== undefined) {
      for (let i = 0; i + 1 < list.length; i += 2) {
        const [name = '', value = ''] = [list[i]?.toLowerCase(), list[i + 1]]
        if (name === 'location' || name === 'content-location') {
          list[i + 1] = locationFor(value, host, authority, secure)
        } else if (name === 'refresh') {
          list[i + 1] = refreshFor(value, (place) => locationFor(place, host, authority, secure))
        } else if (name === 'set-cookie') {
          list[i + 1] = cookieFor(value, host)
        }
      }
    }
    return this.#toVisitor ? changed(list, this.#toVisitor) : list
  }

  trailersToVisitor(list: [string, string][]): [string, string][] {
    return left(list, this.#toVisitor)
  }
}

const NONE: WebRules = new WebRules()

/** The rules of listeners, of each as they are at the moment. */
export class RuleBook {
  /** By what was said: it does not change, another takes its place. */
  readonly #known = new WeakMap<object, { readonly target: Endpoint | undefined; readonly rules: WebRules }>()

  /** Undefined where what is said makes no sense: nobody may pass then, as one of the rules may be who may. */
  of({ settings, forward }: ListenContext): WebRules | undefined {
    const said = settings?.()
    if (said === undefined || said === null) return NONE
    if (typeof said !== 'object') return undefined
    const target = forward?.()
    const known = this.#known.get(said)
    if (known && known.target?.Addr === target?.Addr && known.target?.Domain === target?.Domain) return known.rules
    if (!v.is(HTTP_SETTINGS, said)) return undefined
    const rules = new WebRules(said, target)
    this.#known.set(said, { target, rules })
    return rules
  }
}

/** What a program that goes there by itself writes as `Host`. Undefined for what has none, like a channel. */
export function authorityOf({ Domain, Addr }: Endpoint): string | undefined {
  if (Domain === 'unix') return 'localhost'
  try {
    if (Domain === 'tcp') return authority(parseTcp(Addr), 80)
    if (Domain !== 'tls') return undefined
    const { host, port, name } = parseTls(Addr)
    return authority({ host: name ?? host, port }, 443)
  } catch {
    return undefined
  }
}

function authority({ host, port }: { readonly host: string; readonly port: number }, usual: number): string {
  const shown = host.includes(':') ? `[${host}]` : host === '' ? '127.0.0.1' : host
  return port === usual ? shown : `${shown}:${port}`
}

interface Changes {
  /** By `plainHeader`. */
  readonly names: ReadonlySet<string>
  /** Names and values. */
  readonly set: readonly string[]
}

function changes(rules: HeaderRules | undefined): Changes | undefined {
  const all = Object.entries(rules ?? {})
  if (all.length === 0) return undefined
  const set = all.flatMap(([name, value]) => (value === null ? [] : [name, value]))
  return { names: new Set(all.map(([name]) => plainHeader(name))), set }
}

function changed(list: readonly string[], { names, set }: Changes): string[] {
  const kept: string[] = []
  for (let i = 0; i + 1 < list.length; i += 2) {
    const [name = '', value = ''] = [list[i], list[i + 1]]
    if (!names.has(plainHeader(name))) kept.push(name, value)
  }
  return [...kept, ...set]
}

/** Behind a body nobody says what a rule is about. */
function left(list: [string, string][], rules: Changes | undefined): [string, string][] {
  return rules ? list.filter(([name]) => !rules.names.has(plainHeader(name))) : list
}

/** A target that was asked by another name leads visitors to that name: they know only theirs. */
function locationFor(value: string, host: string, authority: string, secure: boolean): string {
  const [, scheme, place, rest = ''] = /^(?:(https?):)?\/\/([^/?#\\]*)([/?#].*)?$/is.exec(value) ?? []
  if (place === undefined || ownName(place, scheme) !== ownName(host, scheme)) return value
  if (authority === '') return rest.startsWith('/') ? rest : `/${rest}`
  const start = scheme === undefined ? '' : secure ? 'https:' : 'http:'
  return `${start}//${authority}${rest}`
}

/** Where to after some seconds: `0; url=http://…`, in the forms that browsers take. */
function refreshFor(value: string, found: (place: string) => string): string {
  const [, start = '', quote = '', rest = ''] =
    /^(\s*[\d.]+(?:\s*[;,]\s*|\s+)(?:url\s*=\s*)?(["']?))(.*)$/is.exec(value) ?? []
  const end = quote === '' ? -1 : rest.indexOf(quote)
  const place = end < 0 ? rest : rest.slice(0, end)
  return place === '' ? value : `${start}${found(place)}${rest.slice(place.length)}`
}

/** Without the usual port, and one name for all of this machine: by which of them they speak of themselves targets choose. */
function ownName(authority: string, scheme = ''): string {
  return authority
    .toLowerCase()
    .replace(/^https$/i.test(scheme) ? /:443$/ : /:80$/, '')
    .replace(/^(?:127\.0\.0\.1|\[::1\])(?=:|$)/, 'localhost')
}

/** A cookie for the target's own name no browser would take from another: it becomes one for whom it comes from. */
function cookieFor(value: string, host: string): string {
  const name = ownName(host.replace(/:\d*$/, ''))
  const [first = '', ...attributes] = value.split(';')
  const kept = attributes.filter((attribute) => {
    const [key = '', ...domain] = attribute.split('=')
    return key.trim().toLowerCase() !== 'domain' || ownName(domain.join('=').trim().replace(/^\./, '')) !== name
  })
  return kept.length === attributes.length ? value : [first, ...kept].join(';')
}
