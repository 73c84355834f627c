import type { KnownDomain } from './domain.ts'
import { readUnix } from './endpoint-url.ts'

/**
 * Every domain of symport: what can be listened on, and what can be forwarded to. Nothing that a domain needs is loaded
 * here. It is asked about what lies at the other side, and not on this one.
 */
export const DOMAINS: readonly KnownDomain[] = [
  { name: 'tcp', listen: true, dial: true },
  { name: 'udp', carries: 'datagrams', listen: true, dial: true },
  { name: 'unix', listen: true, dial: true, read: readUnix },
]
