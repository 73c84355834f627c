import type { IncomingMessage } from 'node:http'
import type { ListenContext } from '../core/index.ts'
import { climbs, hostName, spelled, type WebAddress } from './web-address.ts'

/** What one listener has of the web port. */
export interface WebSite {
  readonly domain: 'web' | 'ws'
  readonly address: WebAddress
  readonly context: ListenContext
}

/** What a request asks for, read out of its first line and `Host`. */
export interface WebTarget {
  /** As `WebAddress.host`; undefined where it is no host that could be listened on. */
  readonly host: string | undefined
  /** The same as the visitor wrote it, with the port. */
  readonly authority: string
  readonly path: string
  /** With its question mark, or empty. */
  readonly query: string
}

/** Characters of a path that is listened on, one slash more included. */
const LONGEST_PATH = 352

/** The one list of what is listened on, and which of it a request means. */
export class WebRoutes {
  readonly #hosts = new Map<string, Map<string, WebSite>>()
  onRemoved: (site: WebSite) => void = () => {}
  /** A host has come or gone. */
  onHosts: () => void = () => {}

  /** Answers whether the place was free. */
  add(site: WebSite): boolean {
    const { host, path } = site.address
    const paths = this.#hosts.get(host) ?? new Map<string, WebSite>()
    if (paths.has(path)) return false
    paths.set(path, site)
    this.#hosts.set(host, paths)
    if (paths.size === 1) this.onHosts()
    return true
  }

  remove(site: WebSite): void {
    const { host, path } = site.address
    const paths = this.#hosts.get(host)
    if (paths?.get(path) !== site) return
    paths.delete(path)
    if (paths.size === 0) this.#hosts.delete(host)
    this.onRemoved(site)
    if (paths.size === 0) this.onHosts()
  }

  /** Without `*.suffix`, and the paths on all hosts. */
  hosts(): string[] {
    return [...this.#hosts.keys()].filter((host) => host !== '' && !host.startsWith('*.'))
  }

  /** Whether a listener says this very host. */
  names(host: string): boolean {
    return host !== '' && this.#hosts.has(host)
  }

  hasHost(request: IncomingMessage): boolean {
    const host = readTarget(request)?.host
    return host !== undefined && hostsFor(host).some((key) => this.#hosts.has(key))
  }

  serves(request: IncomingMessage): boolean {
    const target = readTarget(request)
    return target !== undefined && this.find(target) !== undefined
  }

  /** The host itself first, then `*.suffix`, the longest first, then any host; in each the longest path. */
  find({ host, path }: WebTarget): WebSite | undefined {
    const prefixes = prefixesOf(path)
    for (const key of [...(host === undefined ? [] : hostsFor(host)), '']) {
      const paths = this.#hosts.get(key)
      const prefix = paths && prefixes.find((candidate) => paths.has(candidate))
      if (prefix !== undefined) return paths?.get(prefix)
    }
    return undefined
  }
}

/**
 * What a request asks for. Undefined if no two readers would have to agree about it: then nobody should be asked.
 *
 * A `..`, however it is encoded, is refused and not resolved: browsers and curl resolve it before they ask, and targets
 * differ in what they take for one. So nothing leaves `base`, whoever the target is.
 */
export function readTarget({ url = '', headers, rawHeaders }: IncomingMessage): WebTarget | undefined {
  const [, absolute, path = '', query = ''] = /^(?:https?:\/\/([^/?#\\]*))?([^?#]*)(\?[^#]*)?$/i.exec(url) ?? []
  const hosts = rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'host')
  const authority = absolute ?? headers.host ?? ''
  if (hosts.length > 1 || (absolute === undefined && !path.startsWith('/')) || climbs(path)) return undefined
  if (absolute === '' || !/^(?:(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?)?$/i.test(authority)) return undefined
  const host = authority.replace(/:\d*$/, '')
  return { host: host === '' ? undefined : hostName(host), authority, path: path || '/', query }
}

/** What the target is asked for: what stands behind the path that is listened on, behind `base`. As it was sent. */
export function targetPath({ path: listened, base }: WebAddress, { path, query }: WebTarget): string {
  const depth = listened === '/' ? 0 : listened.split('/').length - 1
  const rest = path
    .split('/')
    .slice(depth + 1)
    .map((segment) => `/${segment}`)
    .join('')
  return `${rest === '' ? base : `${base.replace(/\/$/, '')}${rest}`}${query}`
}

/** What a host may be listened on as: itself, then `*.suffix`, the longest first. */
export function hostsFor(host: string): string[] {
  const keys = [host]
  if (/^\[|^[\d.]+$/.test(host)) return keys
  for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) keys.push(`*${host.slice(dot)}`)
  return keys
}

/** `/a/b`, `/a` and `/` of `/a/b`; but `/a` is no prefix of `/ab`. */
function prefixesOf(path: string): string[] {
  const prefixes: string[] = []
  let prefix = spelled(path).replace(/\/$/, '')
  // What is longer can be nobody's, and cutting all of a long path piece by piece takes its time.
  if (prefix.length > LONGEST_PATH) prefix = prefix.slice(0, prefix.lastIndexOf('/', LONGEST_PATH))
  for (; prefix !== ''; prefix = prefix.slice(0, prefix.lastIndexOf('/'))) prefixes.push(prefix)
  prefixes.push('/')
  return prefixes
}
