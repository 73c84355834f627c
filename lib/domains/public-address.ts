import { domainToASCII, domainToUnicode } from 'node:url'
import { ProxyError } from '../core/errors.ts'
import { parsePort } from './address.ts'
import { shown } from './text.ts'
import { parseWeb } from './web-address.ts'

/** The domain in which a node asks for an address that visitors can write, and leaves to the server which. */
export const PUBLIC = 'public'

/** What a node asks for: a web service, by name where the server has names; a name of TLS that ends there; or a port. */
export interface PublicAddress {
  readonly kind: 'http' | 'tls' | 'tcp' | 'udp'
  /** One label, of a web service or of one that ends TLS itself: `checkout`. Undefined: any. */
  readonly name?: string | undefined
  /** Where the target of a web service has what visitors find at `/`. Begins with a slash. */
  readonly base: string
  /** Undefined: any that is allowed. */
  readonly port?: number | undefined
  /** What it is for, in words of the node's own: with the same ones it gets the same name again. */
  readonly use?: string | undefined
}

const KINDS = ['http', 'tls', 'tcp', 'udp'] as const
/** What can be said of each, beside what it is for. */
const SAID = { http: ['name', 'base'], tls: ['name'], tcp: ['port'], udp: ['port'] } as const
// RFC 1035, section 2.3.4.
const LABEL_LENGTH = 63
const USE = /^[\x21-\x7e]{1,64}$/

/**
 * Takes `http?name=checkout&base=/app/&use=x`, `tls?name=db`, `tcp?port=9000` or `udp` apart.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function parsePublic(text: string): PublicAddress {
  const [, word, query = ''] = /^([^?]*)(?:\?(.*))?$/s.exec(text) ?? []
  const kind = KINDS.find((one) => one === word)
  if (kind === undefined) throw bad(`${shown(word ?? '')} is nothing that can be published: ${KINDS.join(', ')} are`)
  const given = new Map<string, string>()
  for (const [key, value] of new URLSearchParams(query)) {
    const known = key === 'use' || SAID[kind].some((one) => one === key)
    if (!known || given.has(key)) throw bad(`${shown(key)} is ${known ? 'there twice' : `not for ${kind}`}`)
    given.set(key, value)
  }
  const [name, base, port, use] = ['name', 'base', 'port', 'use'].map((key) => given.get(key))
  if (use !== undefined && !USE.test(use)) throw bad('use has 1 to 64 characters of ASCII, and no spaces')
  return {
    kind,
    ...(name === undefined ? {} : { name: readLabel(name) }),
    base: base === undefined ? '/' : parseWeb(`?base=${base.replaceAll('&', '%26')}`).base,
    ...(port === undefined ? {} : { port: parsePort(port) }),
    ...(use === undefined ? {} : { use }),
  }
}

/** As `parsePublic` takes it. */
export function formatPublic({ kind, name, base, port, use }: PublicAddress): string {
  const query = new URLSearchParams()
  if (name !== undefined) query.set('name', name)
  if (base !== '/') query.set('base', base)
  if (port !== undefined) query.set('port', String(port))
  if (use !== undefined) query.set('use', use)
  return query.size === 0 ? kind : `${kind}?${query}`
}

/**
 * One label of a name, in lower case: letters, digits and hyphens (RFC 5890 section 2.3.1), and what begins with `xn--`
 * only if it is the one spelling of a name in another script.
 *
 * @throws ProxyError PROXY_ERR_ADDRESS
 */
export function readLabel(text: string): string {
  const label = text.toLowerCase()
  if (label === '') throw bad('the name is empty')
  if (/[^\x20-\x7e]/.test(label) && !/\p{C}/u.test(label)) {
    const ascii = domainToASCII(label)
    if (isLabel(ascii)) throw bad(`${shown(text)} is written ${ascii} as a name`)
  }
  if (label.includes('.'))
    throw bad(`${shown(text)} has a dot: a name is one word, and the server's domain comes behind it`)
  if (isLabel(label)) return label
  throw bad(`${shown(text)} is not a name: write 1 to ${LABEL_LENGTH} letters, digits and hyphens, as in my-shop`)
}

/** Whether it is a label as `readLabel` gives it. */
export function isLabel(label: string): boolean {
  if (label.length > LABEL_LENGTH || !/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/.test(label)) return false
  if (label.slice(2, 4) !== '--') return true
  // Of those with two hyphens there, only these are names (RFC 5891 section 4.2.3.1).
  const meant = label.startsWith('xn--') ? domainToUnicode(label) : ''
  return meant !== '' && meant !== label && domainToASCII(meant) === label && /[^ -~]/.test(meant)
}

function bad(message: string): ProxyError {
  return new ProxyError('PROXY_ERR_ADDRESS', message)
}
