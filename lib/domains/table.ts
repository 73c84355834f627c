import { readChannel, readTunnel } from './channel-address.ts'
import type { KnownDomain } from './domain.ts'
import { readDynamic, readHttp } from './dynamic-address.ts'
import { readUnix } from './endpoint-url.ts'
import { readTcp } from './tcp-address.ts'
import { readHttps, readTls } from './tls-address.ts'
import { readWeb } from './web-address.ts'

/**
 * Every domain of symport: what can be listened on, and what can be forwarded to. Nothing that a domain needs is loaded
 * here. It is asked about what lies at the other side, and not on this one.
 */
export const DOMAINS: readonly KnownDomain[] = [
  { name: 'tcp', listen: true, dial: true, read: readTcp },
  { name: 'udp', carries: 'datagrams', listen: true, dial: true },
  { name: 'unix', listen: true, dial: true, read: readUnix },
  { name: 'socks5', carries: 'requests', listen: true, read: readDynamic },
  { name: 'http', carries: 'requests', listen: true, dial: true, read: readHttp },
  { name: 'mixed', carries: 'requests', listen: true, read: readDynamic },
  { name: 'tunnel', carries: 'requests', dial: true, read: readTunnel },
  { name: 'channel', carries: 'any', listen: true, dial: true, read: readChannel },
  { name: 'web', listen: true, read: readWeb },
  { name: 'ws', listen: true, read: readWeb },
  { name: 'tls', listen: true, dial: true, read: readTls },
  { name: 'https', dial: true, read: readHttps },
]

/** What the other side can do: all of these, and whatever an embedder's plug-ins here are the counterparts of. */
export function peerDomains(own: readonly KnownDomain[]): KnownDomain[] {
  const names = new Set(DOMAINS.map(nameOf))
  return [...DOMAINS, ...own.map(nameOf).filter((name) => !names.has(name))]
}

/** What this side can do: its own plug-ins, and what needs none. The rest is known, and can be neither. */
export function ownDomains(own: readonly KnownDomain[]): KnownDomain[] {
  const names = new Set(own.map(nameOf))
  const others = DOMAINS.filter((domain) => !names.has(nameOf(domain)))
  // The exit of a proxy has no plug-in: it dials by those that are there.
  return [...own, ...others.map((domain) => (nameOf(domain) === 'tunnel' ? domain : { name: nameOf(domain) }))]
}

function nameOf(domain: KnownDomain): string {
  return typeof domain === 'string' ? domain : domain.name
}
